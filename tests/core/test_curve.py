"""The counter state machine and the curves it makes: every number worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core import assets, counter
from wattkeeper.core.curve import EnergyCurve
from wattkeeper.core.errors import CurveError

TEN_S = np.arange(0, 60_000, 10_000)


def ints(*values):
    """Return values as int64."""
    return np.array(values, np.int64)


def names(curve):
    """Return what happened to a curve."""
    return [counter.EVENT_NAMES[code] for code in curve.events[:, 0]]


def test_a_reset_is_never_booked_as_a_wrap():
    """A counter that restarts gets the mean power before it for that one step, marked as imputed."""
    curve = EnergyCurve.from_counter(TEN_S, ints(0, 1_000_000, 2_000_000, 5, 1_000_005, 2_000_005), ceiling_w=700)

    # 100 W before; the step from 20 s to 30 s is imputed 100 W × 10 s = 1 kJ; then 1 kJ and 1 kJ more are measured
    assert [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000] == curve.energy_mj.tolist()
    assert [[20_000, 30_000, counter.IMPUTED]] == curve.marks.tolist()
    assert ["reset"] == names(curve)


def test_a_reset_counts_at_least_what_the_new_counter_shows():
    """A counter that restarted and has counted 3 kJ since cannot have drawn less."""
    curve = EnergyCurve.from_counter(TEN_S, ints(0, 100_000, 200_000, 150_000, 160_000, 170_000), ceiling_w=700)

    # 10 W before would give 100 J; the counter shows 150 J since its restart
    assert 200_000 + 150_000 == curve.energy_mj[3]


def test_a_failed_read_is_not_zero():
    """One read that says 0 between good ones is dropped: Σ is 9 J, not a counter range of 262 kJ."""
    curve = EnergyCurve.from_counter(TEN_S, ints(262_000_000, 262_003_000, 0, 262_009_000, 262_009_000, 262_009_000))

    assert 9_000 == curve.energy_mj[-1] - curve.energy_mj[0]
    assert ["glitch"] == names(curve)
    assert [] == curve.marks.tolist()


def test_a_counter_that_falls_never_gives_negative_energy():
    """A driver reload while the GPU draws 467 W gives the energy of 467 W, not −7 kJ."""
    rise = 467 * 10_000
    curve = EnergyCurve.from_counter(
        TEN_S, ints(7_000_000, 7_000_000 + rise, 0, rise, 2 * rise, 3 * rise), ceiling_w=700
    )

    assert 5 * rise == curve.energy_mj[-1] - curve.energy_mj[0]  # five steps of 467 W × 10 s
    assert ["reset"] == names(curve)


def test_a_known_maximum_makes_a_fall_a_wrap():
    """A RAPL zone that wraps at 262 143.328850 J is measured through, exactly."""
    wrap = 262_143_329
    curve = EnergyCurve.from_counter(
        TEN_S, ints(262_000_000, 262_100_000, 56_671, 156_671, 256_671, 356_671), ceiling_w=700, wrap_mj=wrap
    )

    # 262 143.329 − 262 100.000 + 56.671 = 100 J
    assert 262_200_000 == curve.energy_mj[2]
    assert ["wrap"] == names(curve)
    assert [] == curve.marks.tolist()


def test_a_wrap_that_would_break_the_ceiling_is_a_reset():
    """A fall that a wrap would explain only with more power than the asset can draw is a reset."""
    curve = EnergyCurve.from_counter(TEN_S, ints(0, 1_000, 2_000, 0, 1_000, 2_000), ceiling_w=1, wrap_mj=262_143_329)

    assert ["reset"] == names(curve) or ["glitch"] == names(curve)
    assert curve.energy_mj[-1] - curve.energy_mj[0] < 10_000


@pytest.mark.parametrize("sentinel", [9_223_372_036_854, 0, 2**40])
def test_a_spike_is_dropped_and_the_counter_goes_on(sentinel):
    """Up to three readings that stand apart are dropped when the counter then goes on from where it was."""
    values = [10**9 + i * 1_000_000 for i in range(10)]
    values[4:7] = [sentinel] * 3
    curve = EnergyCurve.from_counter(np.arange(10) * 10_000, ints(*values), ceiling_w=700)

    assert 9_000_000 == curve.energy_mj[-1] - curve.energy_mj[0]
    assert 7 == len(curve.times_ms)


def test_a_jump_that_stays_is_not_energy():
    """A counter that jumps beyond what the asset can draw, and stays there, is rebased: the jump is not booked."""
    curve = EnergyCurve.from_counter(
        TEN_S, ints(0, 1_000_000, 10**12, 10**12 + 1_000_000, 10**12 + 2_000_000, 10**12 + 3_000_000), ceiling_w=700
    )

    assert 5_000_000 == curve.energy_mj[-1]  # 100 W throughout, one step of it imputed
    assert [[10_000, 20_000, counter.IMPUTED]] == curve.marks.tolist()


def test_a_late_reading_that_dips_is_dropped():
    """A cached value that arrives late and lies a little lower is no reset."""
    curve = EnergyCurve.from_counter(TEN_S, ints(10**9, 10**9 + 100, 10**9 + 90, 10**9 + 200, 10**9 + 300, 10**9 + 400))

    assert 400 == curve.energy_mj[-1] - curve.energy_mj[0]
    assert ["glitch"] == names(curve)


def test_a_late_reading_at_the_end_is_no_restart():
    """What lies a little lower at the end of all that is known is not energy again: nothing is booked for it."""
    curve = EnergyCurve.from_counter(
        TEN_S, ints(10**9, 10**9 + 100, 10**9 + 200, 10**9 + 300, 10**9 + 290, 10**9 + 295)
    )

    assert 300 == curve.energy_mj[-1] - curve.energy_mj[0]
    assert [[counter.GLITCH, 30_000, 50_000, 0]] == curve.events.tolist()


def test_a_counter_a_little_lower_that_never_comes_back_is_another_one():
    """A meter swapped for a used one with 5 % less on its counter: after the longest silence allowed it is a restart."""
    old, new = 10**9 + np.arange(40) * 1000, 95 * 10**7 + np.arange(60) * 1000
    curve = EnergyCurve.from_counter(np.arange(100) * 10_000, np.concatenate((old, new)), ceiling_w=700)

    # 39 steps of 0.1 W × 10 s before, 59 after, and the one between imputed as those before it
    assert 99 * 1000 == curve.energy_mj[-1] - curve.energy_mj[0]
    assert ["reset"] == names(curve)


def test_a_step_too_short_for_its_rise_is_read_with_the_one_beside_it():
    """300 W at a ceiling of 400 W, two readers: the second writes its time down 20 ms late, 10 ms before the next one."""
    at = ints(0, 1000, 1990, 2000, 3000)
    curve = EnergyCurve.from_counter(at, ints(0, 300_000, 591_000, 600_000, 900_000), ceiling_w=400)

    assert 900_000 == curve.energy_mj[-1]
    assert ["glitch"] == names(curve)


@given(
    power_w=st.lists(st.integers(0, 1000), min_size=60, max_size=60),
    base_mj=st.sampled_from([0, 10**6, 10**9]),
    period_ms=st.sampled_from([300, 1000, 5000]),
    phase_ms=st.integers(0, 999),
    skew_ms=st.integers(-50, 50),
    late_ms=st.lists(st.integers(0, 40), min_size=150, max_size=150),
    ceiling_w=st.sampled_from([0, 1000]),
)
def test_two_readers_of_one_counter_read_no_joule_twice_and_none_less(
    power_w, base_mj, period_ms, phase_ms, skew_ms, late_ms, ceiling_w
):
    """The second reader's clock is off by up to 50 ms and both write times down up to 40 ms late: what the counter gained
    from the first reading to the last is what is booked, at any power up to the ceiling."""
    counted_mj = np.concatenate(([0], np.cumsum(power_w))) * 1000

    def shown(at_ms):
        return base_mj + np.interp(at_ms, np.arange(61) * 1000, counted_mj).astype(np.int64)

    late = ints(*late_ms)
    first_ms = np.arange(0, 60_001, 1000)
    first = shown(first_ms - np.concatenate(([0], late[:59], [0])))
    second_ms = np.arange(5_000 + phase_ms, 50_000, period_ms)
    second = shown(second_ms - np.resize(late, len(second_ms)))
    at_ms, value = np.append(first_ms, second_ms + skew_ms), np.append(first, second)
    order = np.lexsort((value, at_ms))
    kept = order[np.append(np.diff(at_ms[order]) != 0, True)]
    curve = EnergyCurve.from_counter(at_ms[kept], value[kept], ceiling_w=ceiling_w)

    assert counted_mj[-1] == curve.energy_mj[-1] - curve.energy_mj[0]


@pytest.mark.parametrize("ceiling_w", [0, 700])
@pytest.mark.parametrize("base_mj", [0, 10**6, 10**8, 3 * 10**9])
def test_two_counters_under_one_name_are_not_added(base_mj, ceiling_w):
    """100 W counted from 10⁹ mJ and, half a second later each time, from elsewhere: one of them is followed, 1 000 J a step."""
    first_ms = np.arange(0, 200_000, 10_000)
    second_ms = first_ms[5:15] + 500
    at_ms = np.append(first_ms, second_ms)
    value = np.append(10**9 + first_ms * 100, base_mj + second_ms * 100)
    order = np.argsort(at_ms)
    curve = EnergyCurve.from_counter(at_ms[order], value[order], ceiling_w=ceiling_w)

    assert 19 * 1_000_000 == curve.energy_mj[-1] - curve.energy_mj[0]


def test_two_readers_of_intervals_count_each_joule_once():
    """Quarter hours of 900 J, read again 5 s later by another: each second one counts for its 5 s, the next for the rest."""
    quarter = 900_000
    first_ms = ints(1, 2, 3) * quarter
    at_ms = np.sort(np.append(first_ms, first_ms + 5_000))
    curve = EnergyCurve.from_intervals(at_ms, np.full(6, 900_000), interval_ms=quarter)

    # to 3 × 900 s there are 2 700 J; the second reader knows 5 s more, at 1 W
    assert 2_700_000 == curve.energy_between(0, 3 * quarter)
    assert 2_705_000 == curve.energy_mj[-1]
    assert [] == names(curve)


def test_a_gap_that_the_counter_survived_is_exact_in_total():
    """Eight silent minutes at 100 W, bridged by the counter: 48 kJ, marked as interpolated in time, not as imputed."""
    curve = EnergyCurve.from_counter(ints(0, 15_000, 495_000, 510_000), ints(0, 1_500_000, 49_500_000, 51_000_000))

    assert 51_000_000 == curve.energy_mj[-1]
    assert [[15_000, 495_000, counter.BRIDGED]] == curve.marks.tolist()
    assert 24_000_000 == curve.energy_between(15_000, 255_000)  # half of it by half-time


def test_a_gap_in_power_samples_is_imputed():
    """Power samples on both sides of a silence are joined by a trapezoid, and all of it is marked as imputed."""
    curve = EnergyCurve.from_power(ints(0, 15_000, 495_000), ints(100_000, 100_000, 200_000))

    # 100 W × 15 s = 1.5 kJ; (100 + 200) / 2 W × 480 s = 72 kJ
    assert [0, 1_500_000, 73_500_000] == curve.energy_mj.tolist()
    assert 480_000 == curve.marked_ms(counter.IMPUTED)


def test_intervals_are_booked_where_they_end():
    """A smart meter's quarter hours stand at their ends; a missing one is imputed at the power before it."""
    quarter = 900_000
    curve = EnergyCurve.from_intervals(ints(1, 2, 4) * quarter, ints(900, 600, 300), interval_ms=quarter)

    assert [0, 1, 2, 3, 4] == (curve.times_ms // quarter).tolist()
    assert [0, 900, 1500, 2100, 2400] == curve.energy_mj.tolist()  # 900, 600, imputed 600, 300
    assert [[2 * quarter, 3 * quarter, counter.IMPUTED]] == curve.marks.tolist()


def test_readings_must_rise_in_time():
    """Unsorted or doubled times are refused with the cure."""
    with pytest.raises(CurveError, match="Sort them and drop duplicates"):
        EnergyCurve.from_counter(ints(0, 10, 10), ints(1, 2, 3))


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**9)), min_size=2, max_size=60),
    st.lists(st.integers(-10, 10**8), min_size=1, max_size=20),
)
def test_a_curve_is_read_as_plain_interpolation_floored(steps, instants):
    """Reading a curve equals linear interpolation in exact integers, floored, whatever the spacing."""
    time_ms = np.cumsum([0] + [s for s, _ in steps])
    energy = np.cumsum([0] + [e for _, e in steps])
    when = np.unique(ints(*instants))
    read = EnergyCurve.from_counter(time_ms, energy, max_gap_ms=10**9).at(when)

    for at, found in zip(when.tolist(), read.tolist(), strict=True):
        i = int(np.clip(np.searchsorted(time_ms, at, side="right"), 1, len(time_ms) - 1))
        t0, t1, e0, e1 = (int(v) for v in (*time_ms[i - 1 : i + 1], *energy[i - 1 : i + 1]))
        inside = min(max(at, 0), int(time_ms[-1]))
        exact = e0 + (e1 - e0) * (inside - t0) / (t1 - t0)
        assert abs(found - exact) <= 1


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=200), st.integers(0, 2_000))
def test_any_counter_becomes_a_curve_that_rises_within_the_ceiling(values, ceiling_w):
    """Whatever a counter shows, the curve never falls and never rises faster than 1.2 × the ceiling."""
    time_ms = np.arange(len(values)) * 1000
    curve = EnergyCurve.from_counter(time_ms, ints(*values), ceiling_w=ceiling_w)

    assert (np.diff(curve.energy_mj) >= 0).all()
    if ceiling_w:
        bound_w = int(np.ceil(ceiling_w * assets.MARGIN))
        assert (np.diff(curve.energy_mj) <= bound_w * np.diff(curve.times_ms)).all()


@given(
    st.lists(st.tuples(st.integers(1, 400_000), st.integers(-(10**6), 10**6)), min_size=1, max_size=3000),
    st.integers(0, 50),
)
def test_the_compiled_scan_finds_what_the_plain_one_finds(steps, bound_w):
    """Both forms of the search for odd steps give the same steps."""
    time_ms, value = np.cumsum([0] + [s for s, _ in steps]), np.cumsum([10**9] + [v for _, v in steps])
    n = len(time_ms)
    found, plain = np.empty(n, np.int64), np.empty(n, np.int64)
    count = counter.suspects(time_ms, value, n, 300_000, bound_w, found)
    count_plain = counter._suspects_numpy(time_ms, value, n, 300_000, bound_w, plain)

    assert plain[:count_plain].tolist() == found[:count].tolist()
