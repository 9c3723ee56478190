"""`wattkeeper budget`: which power caps on which jobs keep a site or row within its limit with the least loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

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
    json: bool = common.JSON,
) -> None:
    """Say which cap each job should get so that a site and its rows stay within their power limits.

    Each job has a measured curve, such as 400@0.86;550@0.95;700@1 (watts of one GPU @ throughput). It may also have
    tier (critical: never capped; deadline; elastic: gives first), floor (least throughput), weight, row, start, end.
    What cannot be kept is refused, with the floor that breaks it. Nothing is acted upon.

    With --book the jobs are those that hold GPUs by the book, and a row is any asset, such as a rack. A job whose curve
    no file gives is never capped, and counts at what the ledger says it drew over the day before.

    Example: wattkeeper budget running.csv --limits friday.csv --pue 1.2 --base =40
    """
    from wattkeeper import budgeting
    from wattkeeper.core.errors import ConfigError
    from wattkeeper.planning import parse_by_site

    given = budgeting.always(limit, parse_by_site(row, "--row"))
    given += budgeting.read_limits(limits) if limits else []
    if not given:
        raise ConfigError("There is no limit. Give --limit KW, --row ROW=KW or --limits FILE.")
    if book is not None:
        at_ms = common.time_ms(at) if at else common.now_ms()
        running, lone = budgeting.book_jobs(common.open_book(book), at_ms, jobs, {one.row for one in given if one.row})
    elif jobs is None:
        raise ConfigError("There are no jobs. Give a file, or a book with --book.")
    else:
        running, lone = budgeting.read_jobs(jobs), []
        budgeting.check_rows(running, given)
    setting = budgeting.Setting(pue, parse_by_site(base, "--base"), margin)
    found = budgeting.budget(running, given, setting)
    if json:
        common.print_json(budgeting.to_json(found) | ({"without_curve": lone} if book else {}))
    else:
        _show(found, lone, at or "now")


def _show(found: list[Stretch], lone: list[str], begin: str) -> None:
    from wattkeeper.budgeting import to_json
    from wattkeeper.report.words import amount, grouped

    out = common.console()
    told = to_json(found)["stretches"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("From", "Limit kW", "GPUs kW", "Capped", "Lost", "At least", "One cap"):
        table.add_column(name, justify="left" if name == "From" else "right")
    for one in told:
        table.add_row(
            one["start"] or begin, grouped(one["limits_kw"][""], 1) if "" in one["limits_kw"] else "rows",
            grouped(one["gpu_power_w"][""] / 1000, 1), str(sum(c["capped"] for c in one["caps"])),
            amount(one["loss_gpus"]), amount(one["least_loss_gpus"]), amount(one["one_cap_for_all_loss_gpus"]),
        )  # fmt: skip
    out.print(table)
    out.print(
        "Lost is GPUs' worth of throughput; no caps lose less than At least. One cap: the same for all GPUs, where that "
        "breaks no floor; it may lose less by taking from tiers that should give last.",
        style="dim",
    )
    worst = max(told, key=lambda one: one["loss_gpus"])
    out.print(f"\nCaps from {worst['start'] or begin} on, where most is lost", style="bold")
    caps = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Job", "Tier", "Row", "GPUs", "Cap W", "Full W", "Throughput"):
        caps.add_column(name, justify="left" if name in {"Job", "Tier", "Row"} else "right", overflow="fold")
    for cap in worst["caps"]:
        caps.add_row(
            cap["job_id"], cap["tier"], cap["row"] or "", str(cap["gpus"]), f"{cap['cap_w']:.0f}" if cap["capped"] else "–",
            f"{cap['full_w']:.0f}", f"{cap['throughput']:.1%}",
        )  # fmt: skip
    out.print(caps)
    if lone:
        from wattkeeper.report.words import count

        out.print(f"{count(len(lone), 'job')} without a curve counted at what the ledger says.", style="dim")
