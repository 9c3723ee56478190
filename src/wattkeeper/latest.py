"""What a book knows of now: the newest readings, who holds what, and how clean the grid is."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from wattkeeper.core.live import Sample
from wattkeeper.lake.book import Book
from wattkeeper.valuing import signal_of

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


def holdings(book: Book, now_ms: int) -> list[tuple[str, str, float]]:
    """Return who holds what now: job, asset, share; what is split by count only where nothing better is known of a job."""
    held = (pl.col("start_ms") <= now_ms) & (pl.col("end_ms").is_null() | (pl.col("end_ms") > now_ms))
    rows = book.allocations_table.scan().filter(held).collect()
    ended = book.jobs().filter(pl.col("end_ms") <= now_ms)["job_id"]
    rows = rows.filter(~pl.col("job_id").is_in(ended.to_list()))
    exact = rows.filter(~pl.col("estimated") & pl.col("asset").str.contains("/"))["job_id"].unique().to_list()
    told = rows.filter(~(pl.col("estimated") & pl.col("job_id").is_in(exact)))
    shares = told.group_by("job_id", "asset").agg(pl.col("share").max()).sort("job_id", "asset")
    return list(shares.iter_rows())


def intensities(book: Book, now_ms: int) -> dict[str, float]:
    """Return the carbon intensity of each site now [g/kWh], where its signal reaches so far."""
    found = {site.id: signal_of(book, site, "intensity") for site in book.site_file.site}
    values = {s: float(signal.at(np.array([now_ms]))[0]) for s, signal in found.items() if signal is not None}
    return {s: value for s, value in values.items() if not math.isnan(value)}
