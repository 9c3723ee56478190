"""`wattkeeper statement`: where the energy went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import typer

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.lake.book import Book

By = Literal["job", "user", "project", "node", "rack", "hall", "site", "account", "hour", "day"]
Bearer = Literal["job", "user", "project"]
"""What can bear a full cost. As in report/statement.py, which takes long to load."""


def _cut(by: str) -> str:
    """Return a cut that there is; anything else is wrong usage."""
    if by not in get_args(By):
        common.misused(f"'{by}' is no cut. Choose from {', '.join(get_args(By))}.")
    return by


def statement(
    book: Path = common.BOOK,
    period: str | None = typer.Option(
        None, "--period", "-p", help="2026, 2026-10, 2026-W41, 2026-10-07 or A..B.", callback=common.check_period
    ),
    by: str = typer.Option(
        "job", "--by", help="Cut by job, user, project, node, rack, hall, site, account, hour or day.", callback=_cut
    ),
    full_cost: bool = typer.Option(
        False, "--full-cost", help="By job, user or project: spread each hour's idle and overhead over its jobs too."
    ),
    most: int = typer.Option(15, help="Rows of the breakdown that the terminal shows."),
    json: bool = common.JSON,
    csv: bool = typer.Option(False, "--csv", help="Print the breakdown as CSV."),
    html: Path | None = typer.Option(None, "--html", help="Write a page that opens offline to this file."),
) -> None:
    """Print the statement of a period: energy, carbon, cost and water by account, balanced to the meter.

    Exits with 4 where the books do not balance.

    Example: wattkeeper statement --book mybook --period 2026-10 --by user --html october.html
    """
    from wattkeeper import loop
    from wattkeeper.core.errors import ConfigError

    if full_cost and by not in get_args(Bearer):
        common.misused(f"Full cost is what jobs bear. Use --full-cost with --by {', '.join(get_args(Bearer))}.")
    opened = common.open_book(book)
    with common.progress("reading the ledger"):
        made = loop.statement(opened, period, by, full=full_cost)
    if not made.hours.height:
        raise ConfigError(f"No data in {made.period.name}; the ledger has {_reach(opened, made.sites[0].timezone)}.")
    if json:
        from wattkeeper.report.tables import to_json

        common.print_json(to_json(made))
    elif csv:
        from wattkeeper.report.tables import to_csv

        typer.echo(to_csv(made), nl=False)
        if made.note:
            typer.echo(made.note, err=True)
    elif html is None:
        from wattkeeper.report.terminal import render

        common.console().print(render(made, most=most))
    if html is not None:
        from wattkeeper.report.html import write_html

        write_html(made, html)
        typer.echo(f"Wrote {html}.", err=True)
    if made.residual_mj:
        raise typer.Exit(common.UNBALANCED)


def _reach(book: Book, zone: str) -> str:
    """Return the first and last day of the ledger."""
    from wattkeeper.core.clock import day_of
    from wattkeeper.questions import span_ms

    start_ms, end_ms = span_ms(book, None)
    return f"{day_of(start_ms, zone)} to {day_of(end_ms - 1, zone)}"
