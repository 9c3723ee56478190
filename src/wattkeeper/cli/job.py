"""`wattkeeper job`: one job's energy, asset by asset."""

from __future__ import annotations

from heapq import nsmallest
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from wattkeeper.cli import common

if TYPE_CHECKING:
    import polars as pl

    from wattkeeper.lake.book import Book
    from wattkeeper.questions import JobAccount

NEAR = 9
"""Jobs that are looked up for the fault of a job that is not there: one more than are named, for the "…"."""


def job(
    job_id: str = typer.Argument(..., help="The job's id."),
    book: Path = common.BOOK,
    most: int = typer.Option(20, min=1, help="Assets that the terminal shows, those with most energy."),
    json: bool = common.JSON,
) -> None:
    """Show what one job drew, on which assets, with its carbon and cost, and how sure that is.

    Example: wattkeeper job 1001 --book mybook
    """
    opened = common.open_book(book)
    found = _find(opened, job_id)
    if json:
        common.print_json({**found.facts, "assets": found.assets.to_dicts()})
        return
    facts, site = found.facts, opened.site_file.site[0]
    out = common.console()
    out.print("  ".join(filter(None, (f"Job {job_id}", facts["name"], facts["user"], facts["state"]))), style="bold")
    out.print(_times(facts, site.timezone), style="dim")
    if not found.assets.height:
        out.print("It has no energy on the ledger.")
        return
    out.print(_sums(facts, site.currency))
    for line in _notes(facts):
        out.print(line, style="dim")
    out.print(_assets(found.assets.sort("energy_mj", "asset", descending=[True, False]), most))


def _find(book: Book, job_id: str) -> JobAccount:
    """Return a job. Raises UnknownNameError with the ids that begin most alike."""
    from wattkeeper import loop
    from wattkeeper.core.errors import UnknownNameError

    try:
        return loop.job(book, job_id)
    except UnknownNameError:
        ids = book.jobs()["job_id"].to_list()
        raise UnknownNameError("job", job_id, nsmallest(NEAR, ids, key=lambda one: _unlike(one, job_id))) from None


def _unlike(one: str, other: str) -> tuple[int, int, str]:
    """Return what puts ids in order: those that begin most alike first."""
    return -len(commonprefix((one, other))), abs(len(one) - len(other)), one  # noqa: RUF071 - characters are meant


def _times(facts: dict[str, Any], zone: str) -> str:
    from wattkeeper.report.words import clock

    if facts["start_ms"] is None:
        return "Its scheduler's record was not imported."
    form = "%Y-%m-%d %H:%M:%S"
    end = clock(facts["end_ms"], zone, form) if facts["end_ms"] else "now"
    return f"{clock(facts['start_ms'], zone, form)} to {end} {zone}"


def _sums(facts: dict[str, Any], currency: str) -> str:
    from wattkeeper.core.units import MJ_PER_KWH
    from wattkeeper.report.words import amount, carbon, energy, grouped, percent

    parts = [energy(facts["energy_mj"])]
    if facts["uncertainty_mj"] is not None:
        parts[0] += f" ± {grouped(facts['uncertainty_mj'] / MJ_PER_KWH, 3)} kWh"
    if facts["carbon_g"] is not None:
        parts.append(f"{carbon(facts['carbon_g'])} CO2e")
    if facts["cost"] is not None:
        parts.append(f"{amount(facts['cost'])} {currency}")
    return f"{', '.join(parts)}; covered {percent(facts['coverage'])}, of it held idle {energy(facts['held_idle_mj'])}"


def _notes(facts: dict[str, Any]) -> list[str]:
    from wattkeeper.report.words import carbon, energy

    lines = []
    if facts["embodied_g"] is not None:
        lines.append(f"Making the hardware it held emitted {carbon(facts['embodied_g'])}, for that time.")
    if facts["scheduler_energy_j"] is not None:
        lines.append(f"The scheduler itself says {energy(facts['scheduler_energy_j'] * 1000)}.")
    return lines


def _assets(assets: pl.DataFrame, most: int) -> Table:
    from wattkeeper.core.units import MJ_PER_KWH
    from wattkeeper.report.words import grouped, percent

    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    for name in ("Asset", "Account", "kWh", "Hours", "Mean W", "Covered"):
        left = name in {"Asset", "Account"}
        table.add_column(name, justify="left" if left else "right", overflow="ellipsis", no_wrap=name != "Asset")
    for row in assets.head(most).iter_rows(named=True):
        watts = grouped(row["energy_mj"] / row["held_ms"]) if row["held_ms"] else "–"
        coverage = row["covered_ms"] / row["held_ms"] if row["held_ms"] else None
        table.add_row(
            row["asset"], row["account"].replace("_", " "), grouped(row["energy_mj"] / MJ_PER_KWH, 3),
            grouped(row["held_ms"] / 3_600_000, 2), watts, percent(coverage),
        )  # fmt: skip
    if assets.height > most:
        table.caption = f"… and {grouped(assets.height - most)} more; --most or --json shows them."
    return table
