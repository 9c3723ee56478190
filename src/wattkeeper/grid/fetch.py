"""Fetching a zone's signal into a book: what is there already is not asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import cast

import numpy as np

from wattkeeper.attribution import Progress
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.roles import Intake, Reject, SignalInfo
from wattkeeper.core.signal import Signal
from wattkeeper.core.spans import Provider, Publisher, SpanSource
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.lake.book import Book
from wattkeeper.loop import quiet, take

GROUP = "wattkeeper.signals"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch did. asked: the spans [ms]; rows: how many values came, those that the book had already included."""

    info: SignalInfo
    asked: tuple[tuple[int, int], ...]
    rows: int
    refused: tuple[Reject, ...]


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
    progress: Progress = quiet,
) -> Fetched:
    """Bring a signal into the book and return what was done.

    Without start_ms it goes on where the last fetch stopped, less what may have been revised since. With it, only what
    the book lacks of [start_ms, end_ms) is asked for. A request that fails moves nothing.
    """
    signal = publisher.info.id
    cursor = f"grid {signal}"
    reached_ms = book.state.cursor_ms(cursor)
    until_ms = _up(now_ms + publisher.ahead_ms if end_ms is None else end_ms)
    if start_ms is not None:
        spans = _lacking(book, publisher.info, start_ms // MS_PER_HOUR * MS_PER_HOUR, until_ms)
    elif reached_ms is None:
        raise ConfigError(f"{signal} was never fetched into this book. Give --from the first time.")
    else:
        rows = book.signal_rows(signal)
        first_ms = reached_ms if rows.is_empty() else int(rows["start_ms"].min())  # type: ignore[arg-type]
        spans = [(max(reached_ms - publisher.revised_ms, first_ms), until_ms)]
    spans = [(a, b) for a, b in spans if a < b]

    def advance(position_ms: int) -> None:
        settled_ms = min(position_ms, now_ms // MS_PER_HOUR * MS_PER_HOUR)
        if settled_ms > (book.state.cursor_ms(cursor) or 0):
            book.state.advance(cursor, settled_ms)

    source = SpanSource(publisher, spans, advance)
    known = book.state.signal_infos().get(signal)
    came, refused = take(book, _Alike(source, known, now_ms), now_ms, progress)
    return Fetched(publisher.info, tuple(spans), came, tuple(refused))


def _up(time_ms: int) -> int:
    return -(-time_ms // MS_PER_HOUR) * MS_PER_HOUR


def _lacking(book: Book, info: SignalInfo, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """Return the spans of [start_ms, end_ms) for which the book has no value, in whole hours."""
    have = Signal.from_table(book.signal_rows(info.id), info)
    edges_ms = np.arange(start_ms, end_ms + 1, MS_PER_HOUR, dtype=np.int64)
    if len(edges_ms) < 2:
        return []
    gone = np.concatenate(([False], np.isnan(have.means(edges_ms)), [False]))
    turns = edges_ms[np.flatnonzero(gone[1:] != gone[:-1])]
    return list(zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True))


@dataclass(slots=True)
class _Alike:
    """A source whose signal must stay what the book knows it as; the first time, when it was retrieved is noted."""

    source: SpanSource
    known: SignalInfo | None
    now_ms: int

    def read(self) -> Iterator[Intake]:
        for intake in self.source.read():
            (info,) = intake.signal_infos
            if self.known is None:
                note = f"first retrieved {iso(self.now_ms)}"
                intake.signal_infos = [replace(info, note=f"{info.note}; {note}" if info.note else note)]
            elif (now := _kind_of(info)) != (before := _kind_of(self.known)):
                raise SourceError(
                    f"{info.id} is kept as {before} and would now be {now}. Keep the new one apart with --as ID."
                )
            yield intake


def _kind_of(info: SignalInfo) -> str:
    return ", ".join(w for w in (info.provider, info.version, info.method, info.unit) if w)
