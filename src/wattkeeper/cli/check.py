"""`wattkeeper check`: prove that the books balance."""

from __future__ import annotations

from pathlib import Path

import typer

from wattkeeper.cli import common


def check(book: Path = common.BOOK, json: bool = common.JSON) -> None:
    """Compare every meter, hour by hour, with the postings of all that stands in what it measures; tell what is kept aside.

    Exits with 4 where a difference is not zero, else with 3 where live readings are kept aside, out of the books, or a
    counter is reset so often that its energy cannot be trusted.

    Example: wattkeeper check --book mybook
    """
    from wattkeeper import loop
    from wattkeeper.core.errors import BookError
    from wattkeeper.report.words import count, grouped

    opened = common.open_book(book)
    balance, aside = loop.check(opened), loop.kept_aside(opened, common.now_ms())
    doubled, restless = loop.reported_twice(opened.state, common.now_ms()), loop.restless(opened)
    if not balance.compared and not aside:
        raise BookError(f"There is nothing to check in {book} yet. Import readings, then run: wattkeeper attribute")
    if json:
        broken = balance.broken.to_dicts()
        common.print_json(
            {
                "compared": balance.compared, "largest_mj": balance.largest_mj, "broken": broken, "aside": aside,
                "doubled": doubled, "restless": restless,
            }
        )  # fmt: skip
    elif balance.largest_mj == 0:
        typer.echo(f"The books balance: {count(balance.compared, 'meter-hour')} compared, largest difference 0 mJ.")
    else:
        typer.echo(
            f"The books do NOT balance: largest difference {grouped(balance.largest_mj)} mJ. Attribute with --all."
        )
        for row in balance.broken.head(20).iter_rows(named=True):
            typer.echo(f"  {row['asset']} {row['start_ms']}: {row['difference_mj']:+,} mJ")
    if not json:
        if aside:
            typer.echo("Not in the books:")
        for words in (*(f"  {words}" for words in aside), *restless, *doubled):
            typer.echo(words)
    if balance.largest_mj or aside or restless:
        raise typer.Exit(common.UNBALANCED if balance.largest_mj else common.REFUSED)
