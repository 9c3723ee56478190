"""Signals: what a joule costs the climate or the purse, as a function of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import SignalGapError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.units import MJ_PER_KWH

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]

FORECAST = ":forecast"
"""Follows the id of a signal in the id of its forecasts."""

_ALWAYS_MS = 2**61
"""A constant signal holds this long before and after 1970 [ms]."""


class Curve(Protocol):
    """What a signal can weigh: energy that has a start, an end and a reading at every instant between."""

    @property
    def start_ms(self) -> int:
        """First instant [ms UTC]."""
        ...

    @property
    def end_ms(self) -> int:
        """Last instant [ms UTC]."""
        ...

    def at(self, times_ms: Int64s, /) -> Int64s:
        """Return cumulative energy at rising instants [mJ]."""
        ...


@dataclass(frozen=True, slots=True)
class Signal:
    """A quantity that holds its value from one breakpoint until the next; NaN where it is missing.

    breaks_ms: (n + 1,) int64, rising [ms UTC]; values: (n,) float64, values[i] on [breaks_ms[i], breaks_ms[i + 1]).
    """

    breaks_ms: Int64s
    values: Float64s
    info: SignalInfo

    def __post_init__(self) -> None:
        if len(self.breaks_ms) != len(self.values) + 1:
            raise ValueError(
                f"{len(self.values)} values need {len(self.values) + 1} breaks, not {len(self.breaks_ms)}."
            )
        if (np.diff(self.breaks_ms) <= 0).any():
            raise ValueError(f"The breaks of signal '{self.info.id}' must rise.")

    @classmethod
    def constant(cls, value: float, info: SignalInfo) -> Signal:
        """Build a signal that has one value at all times."""
        return cls(np.array([-_ALWAYS_MS, _ALWAYS_MS], np.int64), np.array([value], np.float64), info)

    @classmethod
    def from_table(cls, rows: pl.DataFrame, info: SignalInfo) -> Signal:
        """Build from rows of the SIGNALS table, in any order; rows of other signals are left out.

        Equal rows count once. Where stretches overlap, the one that starts later holds (a correction, a finer
        forecast); of equal starts the shorter one; of equal stretches the greater value, so that no order of
        import changes a number. Time that no row covers is NaN.
        """
        mine = rows.filter((pl.col("signal") == info.id) & (pl.col("start_ms") < pl.col("end_ms")))
        mine = mine.select("start_ms", "end_ms", "value").unique()
        mine = mine.sort("start_ms", "end_ms", "value", descending=[False, True, False])
        start_ms, end_ms, value = (mine[name].to_numpy() for name in mine.columns)
        if not len(value):
            return cls(np.zeros(1, np.int64), np.empty(0, np.float64), info)
        breaks_ms = np.unique(np.concatenate((start_ms, end_ms)))
        first, after = np.searchsorted(breaks_ms, start_ms), np.searchsorted(breaks_ms, end_ms)
        values = np.full(len(breaks_ms) - 1, np.nan)
        if (start_ms[1:] >= end_ms[:-1]).all():
            values[first] = value
        else:  # paint in rising order of rank: the last stroke over an instant holds
            for begin, end, one in zip(first, after, value, strict=True):
                values[begin:end] = one
        return cls(breaks_ms, values, info)

    def at(self, times_ms: Int64s) -> Float64s:
        """Return the value at instants; NaN where it is missing and outside."""
        if not len(self.values):
            return np.full(len(times_ms), np.nan)
        place = np.searchsorted(self.breaks_ms, times_ms, side="right") - 1
        inside = (place >= 0) & (place < len(self.values))
        return np.where(inside, self.values[np.clip(place, 0, len(self.values) - 1)], np.nan)

    def missing_ms(self, start_ms: Int64s | int, end_ms: Int64s | int) -> Int64s:
        """Return how much of each stretch [start_ms, end_ms) has no value [ms]."""
        missing: Int64s = np.subtract(end_ms, start_ms) - (self._known_ms(end_ms) - self._known_ms(start_ms))
        return missing

    def _known_ms(self, times_ms: Int64s | int) -> Int64s:
        """Return for how long before each instant there was a value [ms]."""
        if not len(self.values):
            return np.zeros(np.shape(times_ms), np.int64)
        spans_ms = np.where(np.isnan(self.values), 0, np.diff(self.breaks_ms))
        before_ms = np.concatenate(([0], np.cumsum(spans_ms)[:-1]))
        place = np.clip(np.searchsorted(self.breaks_ms, times_ms, side="right") - 1, 0, len(self.values) - 1)
        known: Int64s = before_ms[place] + np.clip(times_ms - self.breaks_ms[place], 0, spans_ms[place])
        return known

    def means(self, edges_ms: Int64s) -> Float64s:
        """Return the mean over each stretch between rising instants, (n − 1,); NaN where a part has no value."""
        inside = (self.breaks_ms > edges_ms[0]) & (self.breaks_ms < edges_ms[-1])
        cuts_ms = np.unique(np.concatenate((edges_ms, self.breaks_ms[inside])))
        weighed = self.at(cuts_ms[:-1]) * np.diff(cuts_ms)
        first = np.searchsorted(cuts_ms, edges_ms[:-1])
        return np.asarray(np.add.reduceat(weighed, first) / np.diff(edges_ms), np.float64)

    def integrate(self, curve: Curve) -> float:
        """Return ∫ signal dE over the curve, in the signal's numerator (g, EUR, L).

        Exact for any sampling: energy is read from the curve at the signal's own breakpoints.
        Raises SignalGapError when the signal has no value for a part of the curve.
        """
        edges_ms = self._edges_ms(curve.start_ms, curve.end_ms)
        values = self.at(edges_ms[:-1])
        if np.isnan(values).any():
            hole = int(np.isnan(values).argmax())
            raise SignalGapError(
                f"Signal '{self.info.id}' has no value from {iso(int(edges_ms[hole]))} to "
                f"{iso(int(edges_ms[hole + 1]))}, where energy has to be weighed. Import it for that time."
            )
        return float(np.diff(curve.at(edges_ms)) @ values) / MJ_PER_KWH

    def _edges_ms(self, start_ms: int, end_ms: int) -> Int64s:
        """Return the ends of a stretch and the breaks inside it, rising; one edge when the stretch is empty."""
        inside = (start_ms < self.breaks_ms) & (self.breaks_ms < end_ms)
        return np.unique(np.concatenate(([start_ms], self.breaks_ms[inside], [end_ms])).astype(np.int64))
