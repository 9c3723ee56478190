"""The newest readings of a book: those in its tables, and those that agents have written since."""

from __future__ import annotations

import polars as pl

from wattkeeper.core.live import Sample
from wattkeeper.lake.book import Book

WINDOW_MS = 300_000


def newest(book: Book, now_ms: int) -> list[Sample]:
    """Return the last two readings of each meter within five minutes before now, in the order of their times."""
    rows = (
        book.readings.table.scan()
        .filter(pl.col("time_ms").is_between(now_ms - WINDOW_MS, now_ms + WINDOW_MS))
        .select("meter", "time_ms", "value")
        .collect()
    )
    last = rows.unique(["meter", "time_ms"]).sort("time_ms").group_by("meter", maintain_order=True).tail(2)
    return [Sample(*row) for row in last.sort("time_ms").iter_rows()]
