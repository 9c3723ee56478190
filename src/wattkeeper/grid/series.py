"""A zone's signal as the book has it: which one is meant, and its hourly means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, UnknownNameError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.signal import FORECAST, Signal
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.lake.book import Book


@dataclass(frozen=True, slots=True)
class Hourly:
    """A signal's means by hour. values: (n,) float64 from start_ms on, NaN where a part of the hour has no value."""

    info: SignalInfo
    start_ms: int
    values: NDArray[np.float64]

    @property
    def end_ms(self) -> int:
        """End of the last hour [ms]."""
        return self.start_ms + len(self.values) * MS_PER_HOUR

    def gaps(self) -> list[tuple[int, int]]:
        """Return the stretches without a value [ms]."""
        gone = np.concatenate(([False], np.isnan(self.values), [False]))
        turns = self.start_ms + np.flatnonzero(gone[1:] != gone[:-1]) * MS_PER_HOUR
        return list(zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True))


def find_signal(book: Book, zone: str, kind: str, signal: str = "") -> SignalInfo:
    """Return the signal that a zone and kind mean, or the one named. Raises where there is none, or more than one.

    An id is kind:zone, with provider and boundary after it where it was fetched; forecasts are not meant.
    """
    infos = book.state.signal_infos()
    if signal:
        if signal not in infos:
            raise UnknownNameError("signal", signal, [i for i in infos if FORECAST not in i])
        return infos[signal]
    found = [i for i in infos if i.split(":")[:2] == [kind, zone] and FORECAST not in i]
    if not found:
        zones = sorted({i.split(":")[1] for i in infos if i.startswith(f"{kind}:") and FORECAST not in i})
        raise UnknownNameError(f"{kind} of a zone", zone, zones, "Fetch it: wattkeeper grid fetch")
    if len(found) > 1:
        raise ConfigError(f"Zone {zone} has {len(found)} signals. Say which with --signal: {', '.join(found)}.")
    return infos[found[0]]


def read_hourly(book: Book, info: SignalInfo, start_ms: int | None = None, end_ms: int | None = None) -> Hourly:
    """Return a signal's hourly means, all of it by default. Raises ConfigError where the book has no value of it."""
    signal = Signal.from_table(book.signal_rows(info.id), info)
    if not len(signal.values):
        raise ConfigError(f"Signal '{info.id}' has no values. Fetch or import it.")
    first = int(signal.breaks_ms[0]) if start_ms is None else start_ms
    last = int(signal.breaks_ms[-1]) if end_ms is None else end_ms
    if start_ms is not None and end_ms is None and first >= last:
        raise ConfigError(
            f"{info.id} ends at {iso(last)}, not after {iso(first)}. Fetch or import more, or ask for earlier."
        )
    if end_ms is not None and start_ms is None and first >= last:
        raise ConfigError(
            f"{info.id} begins at {iso(first)}, not before {iso(last)}. Fetch or import more, or ask for later."
        )
    first, last = first // MS_PER_HOUR * MS_PER_HOUR, -(-last // MS_PER_HOUR) * MS_PER_HOUR
    if first >= last:
        raise ConfigError("The time asked for is empty: --from must lie before --to.")
    edges_ms = np.arange(first, last + 1, MS_PER_HOUR, dtype=np.int64)
    return Hourly(info, first, signal.means(edges_ms))
