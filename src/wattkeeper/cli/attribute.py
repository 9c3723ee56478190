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
        common.print_json(asdict(done) | {"folded": folded.readings, "restless": loop.restless(opened)})
        return
    from wattkeeper.report.words import count

    if folded.readings or folded.refused or folded.doubts:
        readings = count(folded.readings, "reading")
        typer.echo(f"Took {readings} in {count(folded.batches, 'batch')} from the journal.")
    for words in [*(f"{r.source}: {r.reason}" for r in folded.refused), *folded.doubts]:
        typer.echo(words)
    typer.echo(
        f"Looked at {count(done.days, 'day')}, attributed {count(done.units, 'unit-day')} anew "
        f"from {count(done.readings, 'reading')}: {count(done.postings, 'posting')}."
    )
    for words in loop.restless(opened):
        typer.echo(words)
    if done.strangers:
        names = "names" if done.strangers == 1 else "name"
        typer.echo(
            f"{count(done.strangers, 'allocation')} {names} assets that the book does not have; see the site file."
        )
