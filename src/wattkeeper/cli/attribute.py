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

    What agents have sent to `wattkeeper serve` is taken into the book first.

    Example: wattkeeper attribute --book mybook
    """
    from wattkeeper import loop

    opened = common.open_book(book)
    folded = loop.fold(opened, common.now_ms())
    with common.progress("attributing") as told:
        done = loop.attribute(opened, everything=everything, workers=workers, progress=told)
    if json:
        common.print_json(asdict(done) | {"folded": folded.readings})
        return
    if folded.readings or folded.refused or folded.doubts:
        typer.echo(f"Took {folded.readings:,} readings in {folded.batches} batches from the journal.")
    for words in [*(f"{r.source}: {r.reason}" for r in folded.refused), *folded.doubts]:
        typer.echo(words)
    typer.echo(
        f"Looked at {done.days} days, attributed {done.units} unit-days anew "
        f"from {done.readings:,} readings: {done.postings:,} postings."
    )
    if done.strangers:
        typer.echo(f"{done.strangers} allocations name assets that the book does not have; see the site file.")
