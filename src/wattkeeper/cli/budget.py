"""`wattkeeper budget`: which power caps on which jobs keep a site or row within its limit with the least loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.budgeting import Stretch


def budget(
    jobs: Path | None = typer.Argument(
        None, help="CSV or Parquet: job_id, gpus, curve, and more; see below. With --book: job_id and curve."
    ),
    book: Path | None = typer.Option(
        None, "--book", "-b", help="Take who holds which GPUs from this book, and draws what where no curve is given."
    ),
    at: str = typer.Option("", "--at", help="With --book: who holds GPUs at this time (ISO 8601, UTC). Default: now."),
    limit: float | None = typer.Option(None, min=0.0, help="Facility power of the site, at all times [kW]."),
    limits: Path | None = typer.Option(None, help="CSV: start, end, limit_kw, row; limits over time."),
    row: list[str] = typer.Option([], help="ROW=KW: limit of a row, at all times [kW]."),
    pue: float = typer.Option(1.0, min=1.0, help="Facility power over IT power."),
    base: list[str] = typer.Option([], help="ROW=KW: IT power that no cap changes; =KW for the rest of the site."),
    margin: float = typer.Option(0.1, min=0.0, max=0.99, help="Part of each limit that is kept free."),
    figure: Path | None = common.PAGE,
    most: int = typer.Option(40, help="Caps that the terminal shows, those that lose most first."),
    json: bool = common.JSON,
) -> None:
    """Say which cap each job should get so that a site and its rows stay within their power limits.

    Each job has a measured curve, such as 400@0.86;550@0.95;700@1 (watts of one GPU @ throughput). It may also have
    tier (critical: never capped; deadline; elastic: gives first), floor (least throughput), weight, row, start, end.
    What cannot be kept is refused, with the floor that breaks it. Nothing is acted upon.

    With --book the jobs are those that hold GPUs by the book, and a row is any asset, such as a rack. A job whose curve
    no file gives is never capped, and counts at what the ledger says it drew over the day before.

    Example: wattkeeper budget running.csv --limits friday.csv --pue 1.2 --base =40 --figure friday.html
    """
    from wattkeeper import budgeting
    from wattkeeper.core.errors import ConfigError

    given = budgeting.always(limit, common.numbers(row, "--row", "ROW"))
    given += budgeting.read_limits(limits) if limits else []
    if not given:
        raise ConfigError("There is no limit. Give --limit KW, --row ROW=KW or --limits FILE.")
    if figure is not None:
        common.check_figure(figure)
    base_kw = common.numbers(base, "--base", "ROW")
    at_ms = common.time_ms(at) if at else common.now_ms()
    with common.progress("budget") as told:
        told("reading", 0, 0)
        if book is not None:
            rows = {one.row for one in given if one.row}
            running, lone = budgeting.book_jobs(common.open_book(book), at_ms, jobs, rows)
        elif jobs is None:
            raise ConfigError("There are no jobs. Give a file, or a book with --book.")
        else:
            running, lone = budgeting.read_jobs(jobs), []
            budgeting.check_rows(running, given)
        setting = budgeting.Setting(pue, base_kw, margin)
        told("caps", 0, 0)
        found = budgeting.budget(running, given, setting)
        if figure is not None:
            told("drawing", 0, 0)
            _write(found, lone, at_ms, f"Power budget of {jobs.name if jobs else 'the book'}", figure)
    if figure is not None:
        typer.echo(f"Wrote {figure}.", err=True)
    if json:
        common.print_json(budgeting.to_json(found) | ({"without_curve": lone} if book else {}))
    else:
        _show(found, lone, at or "now", most)


def _show(found: list[Stretch], lone: list[str], begin: str, most: int) -> None:
    from wattkeeper.budgeting import to_json
    from wattkeeper.report.words import count

    out = common.console()
    told = to_json(found)["stretches"]
    out.print(common.table(STRETCHES, [_stretch(one, begin) for one in told], {"To UTC"}))
    out.print(HOW_TO_READ, style="dim")
    worst = _worst(told)
    out.print(f"\nCaps from {_when(worst['start'], begin)} on, where most is lost", style="bold")
    caps = _caps(worst)
    out.print(common.table(CAPS, [*caps[:most], _sum(worst)], {"Tier", "Row"}))
    if len(caps) > most:
        out.print(f"… and {len(caps) - most} more jobs; --most or --json shows them.", style="dim")
    if lone:
        out.print(f"{count(len(lone), 'job')} without a curve counted at what the ledger says.", style="dim")


HOW_TO_READ = (
    "Left is what the limit leaves for the GPUs, Full what the jobs would draw without caps, both in kW. Lost is GPUs' worth "
    "of throughput; no caps lose less than Least. One cap: the same for all GPUs, where that breaks no floor; it may lose "
    "less by taking from tiers that should give last."
)

STRETCHES = ("From UTC", "To UTC", "Limit kW", "Left", "Full", "Drawn", "Capped", "Lost", "Least", "One cap")
CAPS = ("Job", "Tier", "Row", "GPUs", "Cap W", "Full W", "Throughput", "Lost")


def _when(text: str | None, begin: str) -> str:
    from wattkeeper.report.words import minute

    return begin if text is None else minute(text)[5:]


def _stretch(one: dict[str, Any], begin: str) -> tuple[str, ...]:
    """Return a stretch of time as words (see STRETCHES): powers in kW, losses in GPUs."""
    from wattkeeper.report.words import amount, grouped

    full_kw = sum(c["gpus"] * c["full_w"] for c in one["caps"]) / 1000
    limit, free = one["limits_kw"].get(""), one["free_for_gpus_w"].get("")
    return (
        _when(one["start"], begin), _when(one["end"], "on"), "rows" if limit is None else grouped(limit, 1),
        amount(None if free is None else free / 1000, 1), grouped(full_kw, 1), grouped(one["gpu_power_w"][""] / 1000, 1),
        f"{sum(c['capped'] for c in one['caps'])}/{len(one['caps'])}", amount(one["loss_gpus"]),
        amount(one["least_loss_gpus"]), amount(one["one_cap_for_all_loss_gpus"]),
    )  # fmt: skip


def _worst(told: list[dict[str, Any]]) -> dict[str, Any]:
    return max(told, key=lambda one: one["loss_gpus"])


def _caps(one: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the caps of a stretch as words (see CAPS), those that lose most first."""
    from wattkeeper.report.words import amount, grouped, short

    return [
        (
            short(c["job_id"], 22), c["tier"], short(c["row"] or "", 12), grouped(c["gpus"]),
            grouped(c["cap_w"]) if c["capped"] else "–", grouped(c["full_w"]), f"{c['throughput']:.1%}",
            amount(c["gpus"] * (1 - c["throughput"])),
        )
        for c in sorted(one["caps"], key=lambda c: -c["gpus"] * (1 - c["throughput"]))
    ]  # fmt: skip


def _sum(one: dict[str, Any]) -> tuple[str, ...]:
    """Return the totals of a stretch as words: its GPUs, and the kW of all at their caps and in full."""
    from wattkeeper.report.words import amount, grouped

    caps = one["caps"]
    gpus = sum(c["gpus"] for c in caps)
    drawn, full = (sum(c["gpus"] * c[k] for c in caps) / 1000 for k in ("cap_w", "full_w"))
    lost = sum(c["gpus"] * (1 - c["throughput"]) for c in caps)
    got = 1 - lost / gpus if gpus else 1.0
    return "all", "", "", grouped(gpus), f"{grouped(drawn, 1)} kW", f"{grouped(full, 1)} kW", f"{got:.1%}", amount(lost)


def _write(found: list[Stretch], lone: list[str], at_ms: int, title: str, path: Path) -> None:
    from html import escape

    from wattkeeper import budgeting
    from wattkeeper.report import budgeted, charts
    from wattkeeper.report.page import cards, chart, listed, page, plain_table
    from wattkeeper.report.words import amount, count, grouped

    told, rows = budgeting.to_json(found)["stretches"], budgeting.chart_rows(found, at_ms)
    worst = _worst(told)
    line = (
        f"At most {amount(worst['loss_gpus'])} GPUs' worth of throughput is lost, from "
        f"{_when(worst['start'], 'now')} UTC on; no caps lose less than {amount(worst['least_loss_gpus'])}."
    )
    if path.suffix != ".html":
        charts.write_figure(budgeted.figure(rows, title, [line]), path)
        return
    usual = worst["one_cap_for_all_loss_gpus"]
    other = ("–", "breaks a floor") if usual is None else (f"{amount(usual)} GPUs", "the usual way")
    caps = worst["caps"]
    body = [
        f"<h1>{escape(title)}</h1><p>{escape(line)}</p>",
        cards([
            ("Most lost", f"{amount(worst['loss_gpus'])} GPUs", f"of {grouped(sum(c['gpus'] for c in caps))}"),
            ("Least", f"{amount(worst['least_loss_gpus'])} GPUs", "no caps lose less"),
            ("One cap for all", *other),
            ("Capped then", f"{sum(c['capped'] for c in caps)} of {count(len(caps), 'job')}", "critical jobs never"),
        ]),
        "<h2>Power over time</h2>", chart("budget", about=line),
        "<h2>Limits</h2>", plain_table(STRETCHES, [_stretch(one, "now") for one in told], {"To UTC"}),
        f'<p class="soft">{escape(HOW_TO_READ)}</p>',
        f"<h2>Caps from {escape(_when(worst['start'], 'now'))} UTC on, where most is lost</h2>",
        plain_table(CAPS, [*_caps(worst), _sum(worst)], {"Tier", "Row"}),
        listed([f"{count(len(lone), 'job')} without a curve counted at what the ledger says."] if lone else []),
    ]  # fmt: skip
    path.write_text(page(title, "".join(body), {"budget": budgeted.figure(rows)}), "utf-8")
