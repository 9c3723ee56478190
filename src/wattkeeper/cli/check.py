"""`wattkeeper check`: prove that the books balance."""

from __future__ import annotations

from pathlib import Path

import typer

from wattkeeper.cli import common


def check(book: Path = common.BOOK, json: bool = common.JSON) -> None:
    """Compare every meter, hour by hour, with the postings of all that stands in what it measures.

    Exits with 4 where a difference is not zero.

    Example: wattkeeper check --book mybook
    """
    from wattkeeper import loop
    from wattkeeper.core.errors import BookError
    from wattkeeper.report.words import count, grouped

    opened = common.open_book(book)
    balance = loop.check(opened)
    if not balance.compared:
        raise BookError(f"There is nothing to check in {book} yet. Import readings, then run: wattkeeper attribute")
    if json:
        common.print_json(
            {"compared": balance.compared, "largest_mj": balance.largest_mj, "broken": balance.broken.to_dicts()}
        )
    elif balance.largest_mj == 0:
        typer.echo(f"The books balance: {count(balance.compared, 'meter-hour')} compared, largest difference 0 mJ.")
    else:
        typer.echo(
            f"The books do NOT balance: largest difference {grouped(balance.largest_mj)} mJ. Attribute with --all."
        )
        for row in balance.broken.head(20).iter_rows(named=True):
            typer.echo(f"  {row['asset']} {row['start_ms']}: {row['difference_mj']:+,} mJ")
    if balance.largest_mj:
        raise typer.Exit(common.UNBALANCED)
