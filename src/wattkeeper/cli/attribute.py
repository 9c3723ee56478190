"""`wattkeeper attribute`: bring the ledger up to date."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from wattkeeper.cli import common


def attribute(
    book: Path = common.BOOK,
    everything: bool = typer.Option(False, "--all", help="Look at every day, not only at what may have changed."),
    workers: int = typer.Option(2, min=1, help="Threads that read and attribute."),
    json: bool = common.JSON,
) -> None:
    """Put every measured joule on its account, for all days that something new may have changed.

    Example: wattkeeper attribute --book mybook
    """
    from wattkeeper import loop

    opened = common.open_book(book)
    with common.progress("attributing") as told:
        done = loop.attribute(opened, everything=everything, workers=workers, progress=told)
    if json:
        common.print_json(asdict(done))
        return
    from wattkeeper.report.words import count

    typer.echo(
        f"Looked at {count(done.days, 'day')}, attributed {count(done.units, 'unit-day')} anew "
        f"from {count(done.readings, 'reading')}: {count(done.postings, 'posting')}."
    )
    if done.strangers:
        typer.echo(f"{done.strangers} allocations name assets that the book does not have; see the site file.")
