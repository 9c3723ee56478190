"""Fetching a zone's signal into a book: what is there already is not asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from math import isnan
from typing import cast

import numpy as np
import polars as pl

from wattkeeper.attribution import Progress
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.roles import Intake, Reject, SignalInfo
from wattkeeper.core.signal import Signal
from wattkeeper.core.spans import Provider, Publisher, SpanSource
from wattkeeper.core.units import MS_PER_DAY, MS_PER_HOUR
from wattkeeper.lake.book import Book
from wattkeeper.loop import quiet, take

GROUP = "wattkeeper.signals"

LATE_MS = 30 * MS_PER_DAY
"""How long a value may be late [ms]: younger times for which none came are asked for again."""

SAME = 1e-9
"""Two values that differ by a smaller part than this are the same."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A value that the book had and the provider gives otherwise; new is None where it gives none any more."""

    start_ms: int
    old: float
    new: float | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch did.

    asked: the spans [ms]; rows: how many values came, those that the book had already included; estimated: how many of
    them their provider calls estimates; revised: those that took the place of another value.
    """

    info: SignalInfo
    asked: tuple[tuple[int, int], ...]
    rows: int
    refused: tuple[Reject, ...]
    estimated: int = 0
    revised: tuple[Revision, ...] = ()


def providers() -> dict[str, Provider]:
    """Return the known providers by name; those whose extra is missing fault when they are called."""
    return {e.name: _late(e.name) for e in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def _late(name: str) -> Provider:
    def call(zone: str, kind: str, config: object) -> Publisher:
        (found,) = entry_points(group=GROUP, name=name)
        return cast(Provider, found.load())(zone, kind, config)  # type: ignore[arg-type]

    return cast(Provider, call)


def publisher_of(book: Book, provider: str, zone: str, kind: str, signal: str = "") -> Publisher:
    """Return who publishes a zone's signal. Raises ConfigError for an unknown provider, zone or key."""
    known = providers()
    if provider not in known:
        raise ConfigError(f"No provider named '{provider}'. There are {', '.join(known)}.")
    found = known[provider](zone, kind, book.site_file.grid.get(provider, {}))
    return _Named(found, signal) if signal else found


class _Named:
    """A publisher whose signal is kept under another id."""

    def __init__(self, publisher: Publisher, signal: str) -> None:
        self._publisher, self._signal = publisher, signal
        self.chunk_ms, self.revised_ms, self.ahead_ms = publisher.chunk_ms, publisher.revised_ms, publisher.ahead_ms
        self.read, self.close = publisher.read, publisher.close

    @property
    def info(self) -> SignalInfo:
        return replace(self._publisher.info, id=self._signal)


def fetch(
    book: Book,
    publisher: Publisher,
    *,
    start_ms: int | None,
    end_ms: int | None,
    now_ms: int,
    again: bool = False,
    progress: Progress = quiet,
) -> Fetched:
    """Bring a signal into the book and return what was done.

    Without start_ms it goes on behind the last value, less what may have been revised since. With it, only what the
    book lacks of [start_ms, end_ms) is asked for, or all of it with `again`. A request that fails moves nothing.
    """
    signal = publisher.info.id
    cursor = f"grid {signal}"
    reached_ms = book.state.cursor_ms(cursor)
    until_ms = _up(now_ms + publisher.ahead_ms if end_ms is None else end_ms)
    before = book.signal_rows(signal)
    if start_ms is not None:
        first_ms = start_ms // MS_PER_HOUR * MS_PER_HOUR
        spans = [(first_ms, until_ms)] if again else _lacking(before, publisher.info, first_ms, until_ms)
    elif again:
        raise ConfigError("--again reads again what the book has: say from when with --from.")
    elif reached_ms is None:
        raise ConfigError(f"{signal} was never fetched into this book. Give --from the first time.")
    else:
        first_ms = reached_ms if before.is_empty() else int(before["start_ms"].min())  # type: ignore[arg-type]
        spans = [(max(min(reached_ms, now_ms) - publisher.revised_ms, first_ms), until_ms)]
    spans = [(a, b) for a, b in spans if a < b]

    def advance(position_ms: int) -> None:
        last_ms = max(alike.last_ms, now_ms - LATE_MS)
        settled_ms = min(position_ms, last_ms, now_ms) // MS_PER_HOUR * MS_PER_HOUR
        stands_ms = book.state.cursor_ms(cursor) or 0
        if not settled_ms <= stands_ms <= now_ms:
            book.state.advance(cursor, settled_ms)

    source = SpanSource(publisher, spans, advance)
    alike = _Alike(source, before, book.state.signal_infos().get(signal), now_ms)
    came, refused = take(book, alike, now_ms, progress)
    return Fetched(publisher.info, tuple(spans), came, tuple(refused), source.estimated, tuple(alike.revised))


def _up(time_ms: int) -> int:
    return -(-time_ms // MS_PER_HOUR) * MS_PER_HOUR


def _lacking(rows: pl.DataFrame, info: SignalInfo, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """Return the spans of [start_ms, end_ms) for which there is no value, in whole hours."""
    have = Signal.from_table(rows, info)
    edges_ms = np.arange(start_ms, end_ms + 1, MS_PER_HOUR, dtype=np.int64)
    if len(edges_ms) < 2:
        return []
    gone = np.concatenate(([False], np.isnan(have.means(edges_ms)), [False]))
    turns = edges_ms[np.flatnonzero(gone[1:] != gone[:-1])]
    return list(zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True))


@dataclass(slots=True)
class _Alike:
    """A source whose signal must stay what the book knows it as; the first time, when it was retrieved is noted.

    before: what the book has of it. last_ms: end of the last value that came; revised: those that were other values.
    """

    source: SpanSource
    before: pl.DataFrame
    known: SignalInfo | None
    now_ms: int
    last_ms: int = 0
    revised: list[Revision] = field(default_factory=list)

    def read(self) -> Iterator[Intake]:
        for intake in self.source.read():
            for info in intake.signal_infos:
                self._check(intake, info)
            if intake.signals.height:
                self.last_ms = max(self.last_ms, int(intake.signals["end_ms"].max()))  # type: ignore[arg-type]
            self.revised += self._revisions(intake)
            yield intake

    def _check(self, intake: Intake, info: SignalInfo) -> None:
        if self.known is None:
            note = f"first retrieved {iso(self.now_ms)}"
            self.known = replace(info, note=f"{info.note}; {note}" if info.note else note)
            intake.signal_infos = [self.known]
        elif (now := _kind_of(info)) != (before := _kind_of(self.known)):
            raise SourceError(
                f"{info.id} is kept as {before} and would now be {now}. Keep the new one apart with --as ID."
            )

    def _revisions(self, intake: Intake) -> list[Revision]:
        """Return the values that the book had for the times of a batch and that are now others, each at its start."""
        found = []
        for (_, start_ms, end_ms), info in zip(intake.replaces, intake.signal_infos, strict=True):
            old = self.before.filter(pl.col("start_ms").is_between(start_ms, end_ms, closed="left")).sort("start_ms")
            new = Signal.from_table(intake.signals, info).at(old["start_ms"].to_numpy())
            for at_ms, was, now in zip(old["start_ms"], old["value"], new.tolist(), strict=True):
                if not abs(now - was) <= SAME * abs(was):  # NaN is another value, too
                    found.append(Revision(at_ms, was, None if isnan(now) else now))
        return found


def _kind_of(info: SignalInfo) -> str:
    return ", ".join(w for w in (info.provider, info.version, info.method, info.unit) if w)
