"""`wattkeeper meters`: what measures what, how well, and what happened to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from wattkeeper.cli import common


def meters(
    book: Path = common.BOOK,
    period: str | None = typer.Option(
        None, help="Year, month, week, day or range, such as 2026-10.", callback=common.check_period
    ),
    json: bool = common.JSON,
) -> None:
    """List the meters: readings' span, energy, coverage, gaps and resets, and how far doubled meters disagree.

    Example: wattkeeper meters --book mybook --period 2026-10
    """
    from wattkeeper import loop

    rows = loop.meter_summary(common.open_book(book), period)
    if json:
        common.print_json(rows.to_dicts())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Meter", "Reports", "Used", "kWh", "Covered", "Events", "vs used"):
        left = name in {"Meter", "Reports", "Used"}
        # only names give way: a line is a meter, with its numbers whole
        table.add_column(name, justify="left" if left else "right", overflow="ellipsis", no_wrap=name != "Meter")
    for row in rows.iter_rows(named=True):
        table.add_row(*_cells(row))
    common.console().print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    from wattkeeper.core.counter import EVENT_NAMES
    from wattkeeper.report.words import count, grouped, percent

    gap = row["difference_pct"]
    lost = [f"{grouped(row['lost'])} lost"] if row["lost"] else []
    return [
        row["meter"],
        row["quantity"].replace("energy_", ""),
        "yes" if row["primary"] else "no",
        "–" if row["energy_kwh"] is None else grouped(row["energy_kwh"], 3),
        percent(row["coverage"]),
        ", ".join([*(count(row[k], k) for k in EVENT_NAMES if row[k]), *lost]),
        beside(gap),
    ]


MOST_PCT = 200.0
"""Beyond this a meter does not disagree: it measures something else, or in another unit, and is told as a factor."""


def beside(gap_pct: float | None) -> str:
    """Return how far a meter is from the one that is used, in words."""
    if gap_pct is None:
        return ""
    if abs(gap_pct) <= MOST_PCT:
        return f"{gap_pct:+.1f} %".replace("-", "−")
    return f"{1 + gap_pct / 100:.3g} times" if gap_pct < 99_999 else "over 1000 times"
