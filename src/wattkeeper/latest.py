"""What a book knows of now: the newest readings, folded or not yet, who holds what, and how clean the grid is."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from wattkeeper.core.errors import BatchError
from wattkeeper.core.live import Discovery, Sample
from wattkeeper.lake.batches import Received, decode
from wattkeeper.lake.book import Book
from wattkeeper.lake.fold import journal_root
from wattkeeper.lake.journal import Position, Reader, writers
from wattkeeper.valuing import signal_of

WINDOW_MS = 300_000


class Latest:
    """Looks at a book again and again; of the journal each batch is read once."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._seen: dict[str, Position] = {}

    def look(self, now_ms: int) -> tuple[Discovery, list[Sample]]:
        """Return assets and meters, and the newest readings within five minutes of now, in the order of their times."""
        known = self._book.tree().assets
        found = Discovery(list(known.values()), self._book.meters())
        samples = self._folded(now_ms)
        root = journal_root(self._book.root)
        for writer in writers(root):
            for batch in self._journaled(Reader(root, writer), now_ms):
                found.assets += [a for a in batch.assets if a.id not in known]
                found.meters += batch.declared
                samples += _samples(batch, now_ms)
        return found, sorted(samples, key=lambda s: s.time_ms)

    def newest_ms(self) -> int | None:
        """Return when the newest reading of the book's tables is of [ms UTC]; None where there is none."""
        found = self._book.readings.table.scan().select(pl.col("time_ms").max()).collect().item()
        return None if found is None else int(found)

    def _folded(self, now_ms: int) -> list[Sample]:
        """Return the last two readings of each meter."""
        rows = (
            self._book.readings.table.scan()
            .filter(pl.col("time_ms").is_between(now_ms - WINDOW_MS, now_ms + WINDOW_MS))
            .select("meter", "time_ms", "value")
            .collect()
        )
        last = rows.unique(["meter", "time_ms"]).sort("time_ms").group_by("meter", maintain_order=True).tail(2)
        return [Sample(*row) for row in last.iter_rows()]

    def _journaled(self, reader: Reader, now_ms: int) -> list[Received]:
        """Return the batches of a writer that were not looked at before; damaged ones are left to the fold."""
        found = []
        for position, data in reader.read():
            if position > self._seen.get(reader.folder.name, Position(0, 0)):
                self._seen[reader.folder.name] = position
                try:
                    found.append(decode(data, now_ms))
                except BatchError:
                    continue
        return found


def _samples(batch: Received, now_ms: int) -> list[Sample]:
    """Return the readings of a batch that are new enough."""
    rows = zip(batch.index.tolist(), batch.time_ms.tolist(), batch.value.tolist(), strict=True)
    return [Sample(batch.meters[i], t, v) for i, t, v in rows if abs(now_ms - t) <= WINDOW_MS]


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
