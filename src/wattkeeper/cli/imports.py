"""`wattkeeper import …`: bring in readings, jobs and signals from what a site already has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.core.roles import Reject, Source
    from wattkeeper.lake.book import Book

app = typer.Typer(help="Bring in readings, jobs, allocations and signals.", no_args_is_help=True)

SHOWN = 20
"""Kinds of refused rows that are printed; all rows are kept in the book."""
WIDE = 60
"""Characters that are printed of a refused row's cells."""


REPLACE = typer.Option(
    False, "--replace", help="Correct the book: take the place of what it has of the same readings, jobs or signals."
)


@app.command("csv")
def csv(
    files: list[Path] = typer.Argument(..., help="CSV, CSV.gz or Parquet files."),
    layout: str = typer.Option(..., "--as", help="Layout: one of the site file's [csv.NAME] or a built-in one."),
    book: Path = common.BOOK,
    replace: bool = REPLACE,
    json: bool = common.JSON,
) -> None:
    """Import CSV or Parquet files: readings, jobs, allocations, signals or assets.

    Good rows are kept; bad rows are listed with their number, and the exit code is then 3.

    Example: wattkeeper import csv power.csv --as pdu --book mybook
    """
    opened = common.open_book(book)
    _take(opened, [_csv_source(opened, layout, f) for f in files], json, replace=replace)


def source_of(book: Book, what: str, path: Path) -> Source:
    """Return the source of a file: sacct output, a GPU log, or a CSV layout's name."""
    from wattkeeper.integrations.slurm.gres import PrologSource

    if what == "sacct":
        return _sacct_source(book, path)
    return PrologSource(path) if what == "gpu-log" else _csv_source(book, what, path)


def _csv_source(book: Book, layout: str, path: Path) -> Source:
    from wattkeeper.integrations.csvfile.layouts import find_layout
    from wattkeeper.integrations.csvfile.source import CsvSource

    found = find_layout(layout, book.site_file.csv)
    if found.kind == "readings" and not found.parent and found.asset_kind != "site":
        found = found.model_copy(update={"parent": book.site_file.parent_of_new_nodes})
    return CsvSource(path, found, layout, {m.id: m.asset for m in book.site_file.meters()})


def _sacct_source(book: Book, path: Path | None, **options: Any) -> Source:
    from wattkeeper.integrations.slurm.sacct import NodeSize, SacctSource

    tree = book.tree()
    gpus = {a.id: sum(tree[c].kind == "gpu" for c in tree.children[a.id]) for a in tree.walk() if a.kind == "node"}
    cpus = book.site_file.cpus()
    return SacctSource(path, sizes={node: NodeSize(cpus.get(node, 0), n) for node, n in gpus.items()}, **options)


@app.command("sacct")
def sacct(
    file: Path | None = typer.Argument(None, help="Output of sacct --parsable2; left out: run the command."),
    book: Path = common.BOOK,
    fields: str = typer.Option("", help="Columns of a file without a header, joined by commas."),
    timezone: str = typer.Option("UTC", help="Zone of times without an offset."),
    cluster: str = typer.Option("", help="Put before each job id, where one book has several clusters."),
    start: str = typer.Option("now-1day", help="For the command: jobs from then on."),
    end: str = typer.Option("now", help="For the command: jobs up to then."),
    replace: bool = REPLACE,
    json: bool = common.JSON,
) -> None:
    """Import jobs from Slurm's accounting.

    Which GPUs of a node a job held is exact only where it held all of them; see slurm-gpus and gpu-log for the rest.

    Example: wattkeeper import sacct jobs.txt --timezone Europe/Berlin --book mybook
    """
    opened = common.open_book(book)
    names = [f.strip() for f in fields.split(",") if f.strip()]
    source = _sacct_source(opened, file, fields=names, timezone=timezone, cluster=cluster, start=start, end=end)
    _take(opened, [source], json, replace=replace)


@app.command("slurm-gpus")
def slurm_gpus(
    file: Path = typer.Argument(..., help="Output of scontrol show job -d, or of squeue --json."),
    book: Path = common.BOOK,
    timezone: str = typer.Option("UTC", help="Zone of scontrol's times."),
    cluster: str = typer.Option("", help="Put before each job id, where one book has several clusters."),
    json: bool = common.JSON,
) -> None:
    """Import which GPUs jobs hold, as Slurm's controller tells it.

    Example: scontrol show job -d > jobs.txt; wattkeeper import slurm-gpus jobs.txt --book mybook
    """
    from wattkeeper.integrations.slurm.gres import ScontrolSource, SqueueSource

    with file.open("rb") as start:
        is_json = start.read(64).lstrip().startswith(b"{")
    source = (
        SqueueSource(file, cluster=cluster) if is_json else ScontrolSource(file, timezone=timezone, cluster=cluster)
    )
    _take(common.open_book(book), [source], json)


@app.command("gpu-log")
def gpu_log(
    file: Path = typer.Argument(..., help="Log that the Slurm prolog and epilog of Wattkeeper write."),
    book: Path = common.BOOK,
    cluster: str = typer.Option("", help="Put before each job id, where one book has several clusters."),
    json: bool = common.JSON,
) -> None:
    """Import which GPUs jobs held from a prolog and epilog log.

    Example: wattkeeper import gpu-log /var/log/wattkeeper-gpus.log --book mybook
    """
    from wattkeeper.integrations.slurm.gres import PrologSource

    _take(common.open_book(book), [PrologSource(file, cluster=cluster)], json)


@app.command("prometheus")
def prometheus(
    url: str = typer.Argument(..., help="Address of a server with the Prometheus HTTP API."),
    book: Path = common.BOOK,
    start: str = typer.Option("", help="From this time (ISO 8601, UTC); needed the first time only."),
    end: str = typer.Option("", help="Up to this time. Default: now."),
    match: str = typer.Option("", help='Further label matchers, such as cluster="a".'),
    jobs_from: str = typer.Option("", help="What tells who holds a GPU: hpc_job, pod or ceems."),
    step: int = typer.Option(30, help="Scrape interval [s]."),
    token: str = typer.Option("", envvar="WATTKEEPER_PROMETHEUS_TOKEN", help="Bearer token."),
    user: str = typer.Option("", help="User for basic authentication."),
    password: str = typer.Option("", envvar="WATTKEEPER_PROMETHEUS_PASSWORD", help="Password of that user."),
    ca_file: Path | None = typer.Option(None, help="PEM file of the authority that signed the server's certificate."),
    json: bool = common.JSON,
) -> None:
    """Import readings from a Prometheus server: DCGM, RAPL, IPMI, Redfish, SNMP, Kepler and CEEMS series.

    Reads on from where the last import of this server stopped; what fails is asked for again next time.

    Example: wattkeeper import prometheus http://prom:9090 --start 2026-10-01 --book mybook
    """
    from wattkeeper.core.errors import ConfigError
    from wattkeeper.integrations.prometheus.api import PrometheusSource
    from wattkeeper.integrations.prometheus.link import Access
    from wattkeeper.integrations.prometheus.series import Options

    opened = common.open_book(book)
    cursor = f"prometheus {url.rstrip('/')} {match}".rstrip()
    cursor_ms = opened.state.cursor_ms(cursor)
    if cursor_ms is None and not start:
        raise ConfigError(f"{url} was never imported into this book. Give --start the first time.")
    source = PrometheusSource(
        url,
        common.time_ms(start) if start else 0,
        common.time_ms(end) if end else common.now_ms(),
        cursor_ms=None if start else cursor_ms,
        advance=lambda position_ms: opened.state.advance(cursor, position_ms),
        options=Options(jobs_from=jobs_from or None, interval_ms=step * 1000),
        access=Access(token=token, user=user, password=password, ca_file=ca_file),
        matchers=match,
    )
    _take(opened, [source], json)


@app.command("exposition")
def exposition(
    where: str = typer.Argument(..., help="File or URL in the Prometheus text format."),
    book: Path = common.BOOK,
    time: str = typer.Option("", help="When it was scraped (ISO 8601, UTC). Default: now."),
    host: str = typer.Option("", help="Host of series that name none."),
    json: bool = common.JSON,
) -> None:
    """Import one scrape of an exporter.

    Example: wattkeeper import exposition http://n01:9400/metrics --book mybook
    """
    from wattkeeper.integrations.prometheus.exposition import ExpositionSource
    from wattkeeper.integrations.prometheus.series import Options

    when_ms = common.time_ms(time) if time else common.now_ms()
    _take(common.open_book(book), [ExpositionSource(where, when_ms, options=Options(host=host))], json)


def _take(book: Book, sources: Sequence[Source], json: bool, *, replace: bool = False) -> None:
    """Keep what sources yield and say what was refused."""
    from wattkeeper import loop

    known = set(book.tree().assets)
    kept, refused = 0, []
    with common.progress("importing") as told:
        for source in sources:
            some, bad = loop.take(book, source, common.now_ms(), told, replace=replace)
            kept += some
            refused += bad
    refused.sort(key=lambda r: (r.source, r.row))
    tree = book.tree()
    met = [a for a in tree.assets if a not in known]
    if json:
        listed = [{"source": r.source, "row": r.row, "reason": r.reason, "text": r.text} for r in refused]
        common.print_json({"rows": kept, "refused": listed, "new_assets": met})
    else:
        from wattkeeper.report.words import count, grouped

        typer.echo(f"{count(kept, 'row')} taken, {grouped(len(refused))} refused.")
        if met:
            kinds = Counter(tree[a].kind for a in met)
            how_many = ", ".join(count(n, kind) for kind, n in kinds.items())
            typer.echo(f"New to the book: {how_many}, such as {_some(met)}. If one is misnamed, correct the layout.")
        lines = refusals(refused)
        for line in lines[:SHOWN]:
            typer.echo(f"  {line}", err=True)
        if len(lines) > SHOWN:
            typer.echo(f"  … and {grouped(len(lines) - SHOWN)} more kinds; --json lists all.", err=True)
    if refused:
        raise typer.Exit(common.REFUSED)


def refusals(refused: Sequence[Reject]) -> list[str]:
    """Return refused rows in words, in order of their rows; those of one file with one reason share a line."""
    alike: dict[tuple[str, str], list[Reject]] = {}
    for r in refused:
        alike.setdefault((r.source, r.reason), []).append(r)
    return [_refusal(source, reason, rows) for (source, reason), rows in alike.items()]


def _refusal(source: str, reason: str, rows: Sequence[Reject]) -> str:
    cells = [f"{r.text[:WIDE]}{'…' * (len(r.text) > WIDE)}" for r in rows]
    if len(rows) == 1:
        at = f":{rows[0].row}" if rows[0].row else ""
        return f"{source}{at}: {reason}{f' ({cells[0]})' if cells[0] else ''}"
    where = [f"{r.row or '–'}{f' ({cell})' if cell else ''}" for r, cell in zip(rows, cells, strict=True)]
    return f"{source}: {reason}: {len(rows)} rows: {_some(where)}"


def _some(words: Sequence[str]) -> str:
    return ", ".join([*words[:3], *["…"] * (len(words) > 3)])
