"""Signals: building them from rows, reading them, weighing energy with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.errors import SignalGapError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.schema import SIGNALS
from wattkeeper.core.signal import Signal

MINUTE = 60_000
HOUR = 60 * MINUTE
KWH = 3_600_000_000
GRID = SignalInfo("intensity:X", "intensity", "g/kWh", "test")


@dataclass(frozen=True)
class Steady:
    """A load of constant power, its energy floored to mJ as a real curve's is."""

    start_ms: int
    end_ms: int
    power_mw: int

    def at(self, times_ms):
        return np.asarray(times_ms, np.int64) * self.power_mw // 1000


def table(*rows, signal="intensity:X"):
    """Rows of (start, end, value) as the SIGNALS table."""
    return pl.DataFrame([(signal, *row) for row in rows], schema=SIGNALS.schema, orient="row")


def signal_of(*rows):
    return Signal.from_table(table(*rows), GRID)


def stretches(signal):
    """Every stretch with a value, as (start, end, value)."""
    ends = zip(signal.breaks_ms[:-1], signal.breaks_ms[1:], signal.values, strict=True)
    return [(int(a), int(b), float(v)) for a, b, v in ends if not math.isnan(v)]


def test_each_kilowatt_hour_is_weighed_with_its_own_hour():
    """A new intensity applies to the energy after it."""
    grid = signal_of((0, HOUR, 400.0), (HOUR, 4 * HOUR, 100.0))

    # 1 kW for 3 h: 1 kWh × 400 + 2 kWh × 100
    assert grid.integrate(Steady(0, 3 * HOUR, 1_000_000)) == 600.0


def test_steps_of_5_15_30_and_60_minutes_mix():
    """Breakpoints may lie anywhere; each stretch weighs the energy between its own ends."""
    grid = signal_of(
        (0, 5 * MINUTE, 120.0),
        (5 * MINUTE, 20 * MINUTE, 240.0),
        (20 * MINUTE, 50 * MINUTE, 60.0),
        (50 * MINUTE, 110 * MINUTE, 12.0),
    )

    # 60 kW gives 1 kWh a minute: 5×120 + 15×240 + 30×60 + 60×12 = 600 + 3600 + 1800 + 720
    assert grid.integrate(Steady(0, 110 * MINUTE, 60_000_000)) == 6720.0
    # from minute 4 to minute 21: 1×120 + 15×240 + 1×60
    assert grid.integrate(Steady(4 * MINUTE, 21 * MINUTE, 60_000_000)) == 3780.0


def test_a_value_holds_at_its_start_and_no_longer_at_its_end():
    """Stretches are half-open; outside and in a hole the value is NaN."""
    grid = signal_of((10, 20, 1.0), (30, 40, 2.0))

    assert np.array_equal(
        grid.at(np.array([9, 10, 19, 20, 29, 30, 39, 40])),
        [np.nan, 1, 1, np.nan, np.nan, 2, 2, np.nan],
        equal_nan=True,
    )


def test_missing_time_counts_holes_and_both_ends():
    """Of [0, 50), [10, 20) and [30, 40) have a value: 30 ms are missing."""
    grid = signal_of((10, 20, 1.0), (30, 40, 2.0))

    assert grid.missing_ms(0, 50) == 30
    assert grid.missing_ms(12, 18) == 0
    assert grid.missing_ms(20, 20) == 0


@pytest.mark.parametrize(
    ("start", "end", "hole"),
    [
        (0, 2, "from 1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z"),
        (1, 4, "from 1970-01-01T02:00:00Z to 1970-01-01T03:00:00Z"),
        (3, 9, "from 1970-01-01T04:00:00Z to 1970-01-01T09:00:00Z"),
    ],
)
def test_energy_outside_the_signal_is_refused(start, end, hole):
    """A curve that reaches into time without a value raises, and the sentence says which time."""
    grid = signal_of((HOUR, 2 * HOUR, 1.0), (3 * HOUR, 4 * HOUR, 2.0))

    with pytest.raises(SignalGapError, match=hole) as caught:
        grid.integrate(Steady(start * HOUR, end * HOUR, 1000))
    assert "Signal 'intensity:X' has no value" in str(caught.value)


def test_a_signal_without_rows_has_no_value_anywhere():
    """No rows, or only rows of another signal, make an empty signal that refuses every curve."""
    empty = Signal.from_table(table((0, HOUR, 5.0), signal="price:X"), GRID)

    assert np.isnan(empty.at(np.array([0, 1]))).all()
    assert empty.missing_ms(0, 100) == 100
    with pytest.raises(SignalGapError):
        empty.integrate(Steady(0, 10, 1))


def test_an_empty_curve_costs_nothing():
    """Where start is end there is no energy, and no value is needed."""
    assert signal_of((0, HOUR, 400.0)).integrate(Steady(5 * HOUR, 5 * HOUR, 1000)) == 0.0


def test_equal_rows_count_once():
    """A file imported twice gives the same signal."""
    assert stretches(signal_of((0, 10, 1.0), (0, 10, 1.0), (10, 20, 2.0))) == [(0, 10, 1.0), (10, 20, 2.0)]


def test_the_later_start_wins_and_the_earlier_one_comes_back():
    """Over [3, 6) the row that starts at 3 holds; after it the longer row holds again."""
    assert stretches(signal_of((0, 10, 1.0), (3, 6, 2.0))) == [(0, 3, 1.0), (3, 6, 2.0), (6, 10, 1.0)]


def test_of_equal_starts_the_shorter_row_wins_then_the_greater_value():
    """Two rows from 0 on: [0, 4) over [0, 10); and of two values for [0, 4) the 7."""
    assert stretches(signal_of((0, 10, 9.0), (0, 4, 2.0), (0, 4, 7.0))) == [(0, 4, 7.0), (4, 10, 9.0)]


def test_breaks_must_rise_and_fit_the_values():
    """A signal that is no step function cannot be built."""
    with pytest.raises(ValueError, match="must rise"):
        Signal(np.array([0, 5, 5]), np.array([1.0, 2.0]), GRID)
    with pytest.raises(ValueError, match="2 values need 3 breaks, not 2"):
        Signal(np.array([0, 5]), np.array([1.0, 2.0]), GRID)


rows_st = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 20), st.integers(-3, 3)).map(
        lambda r: (r[0], r[0] + r[1], float(r[2]))
    ),
    min_size=1,
    max_size=12,
)


@given(rows_st, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows, random):
    """Any shuffle, with any row repeated, gives the same signal."""
    shuffled = [*rows, random.choice(rows)]
    random.shuffle(shuffled)
    assert stretches(signal_of(*rows)) == stretches(signal_of(*shuffled))


@given(rows_st)
def test_every_instant_has_the_value_of_its_best_row(rows):
    """Instant by instant, the signal agrees with picking the row of latest start, shortest, greatest."""
    signal = signal_of(*rows)
    for t in range(75):
        over = [(start, -end, value) for start, end, value in rows if start <= t < end]
        want = max(over)[2] if over else math.nan
        assert np.array_equal(signal.at(np.array([t])), [want], equal_nan=True)


full_st = st.lists(st.tuples(st.integers(1, 90 * MINUTE), st.floats(-500, 900)), min_size=1, max_size=8)


@given(full_st, st.data())
def test_an_integral_is_the_sum_of_its_parts(steps, data):
    """Cutting the time anywhere changes nothing but the last bits of a float."""
    edges = np.concatenate(([0], np.cumsum([length for length, _ in steps])))
    signal = Signal(edges.astype(np.int64), np.array([v for _, v in steps]), GRID)
    end = int(edges[-1])
    cuts = sorted({0, end, *data.draw(st.lists(st.integers(0, end), max_size=5))})
    power = data.draw(st.integers(0, 10**8))

    whole = signal.integrate(Steady(0, end, power))
    parts = math.fsum(signal.integrate(Steady(a, b, power)) for a, b in pairwise(cuts))
    # a cut inside a step moves at most 1 mJ, of at most 900 per kWh, from one part to another of the same value
    assert math.isclose(whole, parts, rel_tol=1e-9, abs_tol=1e-6)


@given(st.floats(-1000, 1000), st.integers(0, 10**12), st.integers(0, 10**10), st.integers(0, 10**8))
def test_a_constant_signal_is_value_times_energy(value, start, length, power):
    """∫ c dE = c × E, wherever the curve lies."""
    curve = Steady(start, start + length, power)
    energy = int(curve.at([start + length])[0]) - int(curve.at([start])[0])

    assert math.isclose(Signal.constant(value, GRID).integrate(curve), value * energy / KWH, rel_tol=1e-12)
