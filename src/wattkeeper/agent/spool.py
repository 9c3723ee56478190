"""The spool: a journal that is never full, for it gives detail and keeps energy.

At its limit a segment is written again with about half its readings (thin.py): of those with the most detail the newest,
so no stretch has much more than another, and the oldest is thinned last. What has become small is joined. The two oldest
segments and the newest are left: of the first ones a server may have taken a part.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

from wattkeeper.agent.thin import Quantity, thin
from wattkeeper.core.batch import Batch, decode, encode
from wattkeeper.core.errors import BatchError, JournalError
from wattkeeper.lake.journal import Journal, Position

log = logging.getLogger("wattkeeper.agent")

SEGMENTS = 16
SEGMENT_BYTES = 16 * 2**20
"""A segment is at most this and a sixteenth of the limit; thinning one of 16 MiB takes a few seconds."""

UNTOUCHED = 2
"""Oldest segments that are left as they are: the server may have one batch of them without our knowing."""


class _Segment(NamedTuple):
    """A segment, how many it stands for, and its size. Segments are numbered in one go; a joined one has its last number."""

    number: int
    stands_for: int
    size: int

    def follows(self, other: _Segment) -> bool:
        """Return whether it comes right after another."""
        return self.number - self.stands_for == other.number


class Spool(Journal):
    """What an agent has to send. One thread writes and thins, another reads and forgets.

    limit_bytes: most it takes on disk, the copy that thinning makes included. quantity: tells what a meter reports.
    lost: readings given so far.
    """

    def __init__(self, root: Path, writer: str, *, limit_bytes: int, quantity: Quantity) -> None:
        super().__init__(
            root, writer, segment_bytes=min(SEGMENT_BYTES, limit_bytes // SEGMENTS), limit_bytes=limit_bytes
        )
        self._quantity = quantity
        self._reading, self._turn = 0, threading.Lock()
        self._spent: set[int] = set()
        self._foreign: set[int] = set()
        self._thinning = False
        self.lost = 0

    def append(self, batch: bytes) -> Position:
        """Keep one batch, thinning where there is no room. Raises JournalError, and nothing is kept then."""
        before = self.lost
        while self._standing() + len(batch) > self.limit_bytes - 2 * self.segment_bytes and self._make_room():
            pass
        if self.lost > before and not self._thinning:
            log.warning(
                "The spool %s is at its limit of %d bytes: detail goes from now on, the oldest last. "
                "Energy counters keep their energy.", self.folder, self.limit_bytes,
            )  # fmt: skip
        self._thinning = self.lost > before or (self._thinning and self._standing() > self.limit_bytes // 2)
        return super().append(batch)

    def _records(self, segment: int, after: int, *, last: bool) -> Iterator[tuple[int, bytes]]:
        with self._turn:
            self._reading = max(segment, self._reading)
        return super()._records(segment, after, last=last)

    def _make_room(self) -> bool:
        """Join two segments or thin one; return False where there is nothing left that may be touched."""
        free = self._free()
        pairs = [(a, b) for a, b in pairwise(free) if b.follows(a)]
        if alike := [pair for pair in pairs if self._fit(*pair)]:
            return self._write_again(alike[-1], _whole)
        if thinnable := [s for s in free if s.number not in self._spent]:
            finest = min(thinnable, key=lambda s: (self._coarseness(s), -s.number))
            return self._write_again((finest,), self._quantity)
        return bool(pairs) and self._write_again(min(pairs, key=_size), self._quantity)

    def _free(self) -> list[_Segment]:
        """Return the segments that may be touched, oldest first."""
        standing = [n for n in self._segments() if n >= self.forgotten().segment]
        own = self._segment if self._file >= 0 else -1
        return [
            _Segment(n, n - before, self._path(n).stat().st_size)
            for before, n in list(pairwise(standing))[UNTOUCHED - 1 :]
            if n > self._reading and n != own and n not in self._foreign
        ]

    def _coarseness(self, segment: _Segment) -> int:
        """Return how often a segment's detail was halved, about."""
        return max(0, round(math.log2(segment.stands_for * self.segment_bytes / segment.size)))

    def _fit(self, a: _Segment, b: _Segment) -> bool:
        """Return whether two of about the same detail make no more than a segment."""
        return a.size + b.size <= self.segment_bytes and abs(self._coarseness(a) - self._coarseness(b)) <= 1

    def _write_again(self, segments: tuple[_Segment, ...], quantity: Quantity) -> bool:
        """Put one segment in the place of neighbours, thinned by the quantities of their meters."""
        first, last = segments[0].number, segments[-1].number
        rows = [0, 0]
        try:
            self.stage(self._again(segments, quantity, rows))
            with self._turn:
                if first > self._reading:  # else the server is back, and has come this far meanwhile
                    self.swap(first, last)
                    self.lost += rows[0] - rows[1]
        except BatchError:
            self._foreign |= {s.number for s in segments}
        except JournalError:  # no room for the copy, or a disk that fails: a batch that is refused tells it
            return False
        self._spent -= {s.number for s in segments}
        if rows[0] == rows[1] and quantity is not _whole:
            self._spent.add(last)
        return True

    def _again(self, segments: tuple[_Segment, ...], quantity: Quantity, rows: list[int]) -> Iterator[bytes]:
        """Yield the batches of segments, thinned; count their readings before and after in rows."""

        def batches() -> Iterator[Batch]:
            for data in chain.from_iterable(map(self._all, segments)):
                batch = decode(data)
                rows[0] += len(batch.samples)
                yield batch

        for batch in thin(batches(), quantity):
            rows[1] += len(batch.samples)
            yield encode(batch)

    def _all(self, segment: _Segment) -> Iterator[bytes]:
        """Yield what stands in a segment, without counting as one who reads to send."""
        for _, data in super()._records(segment.number, 0, last=False):
            yield data


def _whole(_meter: str) -> str:
    """Name no quantity: each reading stays."""
    return ""


def _size(segments: tuple[_Segment, ...]) -> int:
    return sum(s.size for s in segments)
