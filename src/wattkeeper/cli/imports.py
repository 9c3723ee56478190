"""`wattkeeper import …`: bring in readings, jobs and signals from what a site already has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.core.roles import Source
    from wattkeeper.lake.book import Book

app = typer.Typer(help="Bring in readings, jobs, allocations and signals.", no_args_is_help=True)

SHOWN = 20
"""Refused rows that are printed; all are kept in the book."""


@app.command("csv")
def csv(
    files: list[Path] = typer.Argument(..., help="CSV, CSV.gz or Parquet files."),
    layout: str = typer.Option(..., "--as", help="Layout: one of the site file's [csv.NAME] or a built-in one."),
    book: Path = common.BOOK,
    json: bool = common.JSON,
) -> None:
    """Import CSV or Parquet files: readings, jobs, allocations, signals or assets.

    Good rows are kept; bad rows are listed with their number, and the exit code is then 3.

    Example: wattkeeper import csv power.csv --as pdu --book mybook
    """
    from wattkeeper.integrations.csvfile.layouts import find_layout
    from wattkeeper.integrations.csvfile.source import CsvSource

    opened = common.open_book(book)
    found = find_layout(layout, opened.site_file.csv)
    if found.kind == "readings" and not found.parent:
        found = found.model_copy(update={"parent": opened.site_file.parent_of_new_nodes})
    _take(opened, [CsvSource(f, found, layout) for f in files], json)


def _take(book: Book, sources: list[Source], json: bool) -> None:
    """Keep what sources yield and say what was refused."""
    from wattkeeper import loop

    kept, refused = 0, []
    with common.progress("importing") as told:
        for source in sources:
            some, bad = loop.take(book, source, common.now_ms(), told)
            kept += some
            refused += bad
    if json:
        listed = [{"source": r.source, "row": r.row, "reason": r.reason, "text": r.text} for r in refused]
        common.print_json({"rows": kept, "refused": listed})
    else:
        typer.echo(f"{kept:,} rows taken, {len(refused):,} refused.")
        for r in refused[:SHOWN]:
            typer.echo(f"  {r.source}{f':{r.row}' if r.row else ''}: {r.reason}", err=True)
        if len(refused) > SHOWN:
            typer.echo(f"  … and {len(refused) - SHOWN:,} more; --json lists all.", err=True)
    if refused:
        raise typer.Exit(common.REFUSED)
