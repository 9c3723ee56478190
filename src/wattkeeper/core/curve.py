"""The energy curve: whatever a meter shows, as cumulative joules over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core import counter
from wattkeeper.core.assets import MARGIN
from wattkeeper.core.errors import CurveError

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EnergyCurve:
    """Cumulative energy of one asset: monotone, piecewise linear, with its doubtful steps marked.

    times_ms: (n,) rising [ms UTC]; energy_mj: (n,) never falling [mJ], from an arbitrary origin.
    marks: (m, 3) start_ms, end_ms, quality (counter.BRIDGED or counter.IMPUTED) of steps not measured as such.
    events: (e, 4) code (see counter.EVENT_NAMES), start_ms, end_ms, energy booked over it [mJ].
    """

    times_ms: Int64s
    energy_mj: Int64s
    marks: Int64s
    events: Int64s

    def __post_init__(self) -> None:
        if len(self.times_ms) != len(self.energy_mj):
            raise CurveError(f"{len(self.times_ms)} times and {len(self.energy_mj)} energies make no curve.")
        if len(self.times_ms) > 1 and (np.diff(self.times_ms) <= 0).any():
            raise CurveError("The times of an energy curve must rise.")
        if len(self.energy_mj) > 1 and (np.diff(self.energy_mj) < 0).any():
            raise CurveError("The energy of a curve must not fall.")

    @classmethod
    def from_counter(
        cls,
        times_ms: Int64s,
        counter_mj: Int64s,
        *,
        max_gap_ms: int = 300_000,
        ceiling_w: float = 0.0,
        wrap_mj: int = 0,
    ) -> EnergyCurve:
        """Build from a joule counter [mJ]; see `core/counter.py` for what is repaired and what is imputed.

        ceiling_w: power the asset cannot exceed, 0 if unknown. wrap_mj: where the counter returns to 0, 0 if never.
        """
        time_ms, value, marks, events, n = _scratch(times_ms, counter_mj)
        odd = np.empty(max(n, 1), np.int64)
        bound_w = int(np.ceil(ceiling_w * MARGIN))
        n, n_marks, n_events = counter.repair(time_ms, value, n, max_gap_ms, bound_w, wrap_mj, odd, marks, events)
        return cls(time_ms[:n], value[:n], marks[:n_marks], events[:n_events])

    @classmethod
    def from_power(cls, times_ms: Int64s, power_mw: Int64s, *, max_gap_ms: int = 300_000) -> EnergyCurve:
        """Build from power samples [mW] by the trapezoid rule; a step longer than max_gap_ms is imputed."""
        time_ms, value, marks, events, n = _scratch(times_ms, power_mw)
        if n:
            n_marks, n_events = counter.accumulate_power(time_ms, value, n, max_gap_ms, marks, events)
            return cls(time_ms, value, marks[:n_marks], events[:n_events])
        return cls(time_ms, value, marks[:0], events[:0])

    @classmethod
    def from_intervals(cls, ends_ms: Int64s, energy_mj: Int64s, *, interval_ms: int) -> EnergyCurve:
        """Build from the energy of intervals [mJ], each stamped at its end; missing intervals are imputed."""
        time_ms, value, marks, events, n = _scratch(ends_ms, energy_mj)
        if not n:
            return cls(time_ms, value, marks[:0], events[:0])
        out_ms, out_mj = np.empty(2 * n, np.int64), np.empty(2 * n, np.int64)
        points, n_marks, n_events = counter.accumulate_intervals(
            time_ms, value, n, interval_ms, out_ms, out_mj, marks, events
        )
        return cls(out_ms[:points], out_mj[:points], marks[:n_marks], events[:n_events])

    @property
    def start_ms(self) -> int:
        """First instant of the curve."""
        return int(self.times_ms[0])

    @property
    def end_ms(self) -> int:
        """Last instant of the curve."""
        return int(self.times_ms[-1])

    def at(self, times_ms: Int64s) -> Int64s:
        """Return cumulative energy at rising instants, floored to mJ: (k,) int64; held constant outside the curve."""
        out = np.empty(len(times_ms), np.int64)
        counter.read_curve(self.times_ms, self.energy_mj, len(self.times_ms), np.asarray(times_ms, np.int64), out)
        return out

    def energy_between(self, start_ms: int, end_ms: int) -> int:
        """Return the energy of [start_ms, end_ms) [mJ]."""
        before, after = self.at(np.array([start_ms, end_ms], np.int64))
        return int(after - before)

    def marked_ms(self, quality: int) -> int:
        """Return the time of all steps of a quality, counter.BRIDGED or counter.IMPUTED [ms]."""
        rows = self.marks[self.marks[:, 2] == quality]
        return int((rows[:, 1] - rows[:, 0]).sum())


def _scratch(times_ms: Int64s, values: Int64s) -> tuple[Int64s, Int64s, Int64s, Int64s, int]:
    time_ms, value = np.array(times_ms, np.int64), np.array(values, np.int64)
    if len(time_ms) != len(value):
        raise CurveError(f"{len(time_ms)} times and {len(value)} values make no curve.")
    if len(time_ms) > 1 and (np.diff(time_ms) <= 0).any():
        raise CurveError("The times of readings must rise. Sort them and drop duplicates first.")
    n = len(time_ms)
    return time_ms, value, np.empty((n + 1, 3), np.int64), np.empty((n + 1, 4), np.int64), n
