"""Thinning: half the readings, all the energy, and each reading that went is counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattkeeper.agent.thin import thin
from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.batch import Batch, decode, encode
from wattkeeper.core.curve import EnergyCurve
from wattkeeper.core.errors import BatchError
from wattkeeper.core.live import Loss, Sample

T0 = 1_795_000_000_000
KIND = {"c": "energy_counter", "p": "power", "u": "utilisation", "i": "energy_interval"}


def thinned(batches):
    return list(thin(batches, lambda meter: KIND.get(meter[0], "")))


def batches_of(samples, rows):
    """Cut samples into batches of so many."""
    return [Batch(f"n01/a/{k:06}", samples[at : at + rows]) for k, at in enumerate(range(0, len(samples), rows), 1)]


def of(batches, meter):
    return [(s.time_ms, s.value) for b in batches for s in b.samples if s.meter == meter]


def lost(batches):
    return {loss.meter: loss for b in batches for loss in b.lost}


def test_every_second_reading_of_a_counter_goes_and_the_ends_stay():
    """0 to 9 in batches of three: 0, 2, 4, 6, 8 and the last one stay, as one batch with the last one's id."""
    told = thinned(batches_of([Sample("c", T0 + i, i) for i in range(10)], 3))

    assert [v for _, v in of(told, "c")] == [0, 2, 4, 6, 8, 9]
    assert [b.id for b in told] == ["n01/a/000004"]
    assert lost(told) == {"c": Loss("c", T0, T0 + 9, 4)}


def test_all_around_a_fall_stays():
    """100 … 119, then from 5 on again: four readings before and four after the fall are there, thinned or not."""
    values = [*range(100, 120), *range(5, 25)]
    told = thinned([Batch("n01/a/1", [Sample("c", T0 + i, v) for i, v in enumerate(values)])])
    stay = [v for _, v in of(told, "c")]

    for _ in range(6):
        told = thinned(told)
    least = [v for _, v in of(told, "c")]
    assert stay == [100, 102, 104, 106, 108, 110, 112, 114, *range(116, 120), *range(5, 9), *range(10, 24, 2), 24]
    assert least == [100, *range(116, 120), *range(5, 9), 24]
    assert lost(told)["c"].readings == 30


def test_four_readings_of_power_become_two_with_their_mean():
    """100, 200, 300, 400 W each second between two that stay: 250 W at the first and the last of the four."""
    power_mw = [50, 100, 200, 300, 400, 50]
    told = thinned([Batch("n01/a/1", [Sample("p", T0 + 1000 * i, v) for i, v in enumerate(power_mw)])])

    assert of(told, "p") == [(T0, 50), (T0 + 1000, 250), (T0 + 4000, 250), (T0 + 5000, 50)]
    assert lost(told) == {"p": Loss("p", T0, T0 + 5000, 2)}


def test_a_reading_of_power_weighs_by_the_time_around_it():
    """At 0, 1, 2, 12, 22, 23 s: the four in the middle weigh 1, 5.5, 10 and 5.5 s: 22 s at 3 300 Ws make 150 W."""
    readings = [(0, 0), (1, 550), (2, 100), (12, 110), (22, 190 - 0), (23, 0)]
    area = 1 * 550 + 5.5 * 100 + 10 * 110 + 5.5 * 190
    told = thinned([Batch("n01/a/1", [Sample("p", T0 + 1000 * t, v) for t, v in readings])])

    assert [v for _, v in of(told, "p")] == [0, round(area / 22), round(area / 22), 0]


def test_what_is_no_counter_and_no_level_stays_whole():
    """Energy of intervals would be lost with its reading, and of an unknown meter nobody knows."""
    samples = [Sample(m, T0 + i, i) for i in range(20) for m in ("i", "?")]
    told = thinned(batches_of(samples, 7))

    assert [s for b in told for s in b.samples] == samples
    assert lost(told) == {}


def test_declarations_and_earlier_losses_go_along(monkeypatch):
    """A meter is declared in the batch of its first reading or before it; losses of one meter become one."""
    monkeypatch.setattr("wattkeeper.agent.thin.BATCH_ROWS", 6)
    meter = Meter("c2", "n01/gpu0", "energy_counter", "nvml", 10)
    first = Batch("n01/a/1", [Sample("c", T0 + i, i) for i in range(20)], lost=[Loss("c", T0 - 5, T0 - 1, 3)])
    second = Batch("n01/a/2", [Sample("c2", T0 + i, i) for i in range(4)], [Asset("n01/gpu0", "gpu", "n01")], [meter])
    told = thinned([first, second])

    assert [b.id for b in told] == ["n01/a/1", "n01/a/2"]
    assert ([list(b.meters) for b in told], [a.id for a in told[1].assets]) == ([[], [meter]], ["n01/gpu0"])
    assert lost(told) == {"c": Loss("c", T0 - 5, T0 + 19, 3 + 9), "c2": Loss("c2", T0, T0 + 3, 1)}


steps = st.lists(st.tuples(st.integers(1, 400_000), st.integers(0, 10**9)), min_size=1, max_size=80)


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(1, 30), st.integers(1, 6), st.lists(st.integers(0, 79), max_size=3))
def test_a_counter_keeps_its_energy_to_the_millijoule(steps, rows, times, falls):
    """Any counter that wraps now and then, in any batches, thinned any number of times: its curve gains the same."""
    wrap_mj, samples, time_ms = 2 * 10**9, [], T0
    total = first = wrap_mj // 2
    for i, (step_ms, rise_mj) in enumerate(steps):
        shown = total % wrap_mj
        if i in falls and shown:
            total += wrap_mj - shown + min(rise_mj, shown - 1)
        elif i:
            total += rise_mj % 10**6
        time_ms += step_ms
        first = first if i else total
        samples.append(Sample("c", time_ms, total % wrap_mj))
    told = batches_of(samples, rows)
    for _ in range(times):
        told = thinned(told)

    def energy_mj(batches):
        readings = np.array(of(batches, "c"), np.int64).T
        curve = EnergyCurve.from_counter(*readings, wrap_mj=wrap_mj, max_gap_ms=10**6)
        return int(curve.energy_mj[-1] - curve.energy_mj[0])

    given_up = sum(loss.readings for loss in lost(told).values())
    assert energy_mj(told) == energy_mj(batches_of(samples, rows)) == total - first
    assert len(of(told, "c")) + given_up == len(samples)
    assert set(of(told, "c")) <= {(s.time_ms, s.value) for s in samples}  # nothing is made up
    assert len({b.id for b in told}) == len(told)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60_000), st.integers(0, 10**6)), min_size=1, max_size=80),
    st.integers(1, 30),
    st.integers(1, 6),
)
def test_power_keeps_its_area(steps, rows, times):
    """∫ P dt by the trapezoid rule is the same but for half a milliwatt over the longest stretch each time."""
    times_ms = np.cumsum([step for step, _ in steps]) + T0
    samples = [Sample("p", int(t), p) for t, (_, p) in zip(times_ms, steps, strict=True)]
    told = batches_of(samples, rows)
    for _ in range(times):
        told = thinned(told)

    def area_uj(batches):
        t, p = np.array(of(batches, "p"), object).T
        return sum((a + b) * (u - s) for a, b, s, u in zip(p, p[1:], t, t[1:], strict=False)) / 2

    kept = of(told, "p")
    given_up = sum(loss.readings for loss in lost(told).values())
    assert abs(area_uj(told) - area_uj(batches_of(samples, rows))) <= 0.5 * times * int(times_ms[-1] - T0)
    assert (kept[0], kept[-1]) == ((samples[0].time_ms, samples[0].value), (samples[-1].time_ms, samples[-1].value))
    assert len(kept) + given_up == len(samples)
    assert all(value >= 0 for _, value in kept)


def test_thinning_goes_on_until_two_readings_of_a_counter_are_left():
    """1 000 readings of each kind: after ten times 2 of the counter and 4 of power, however long it was."""
    told = batches_of([Sample(m, T0 + 1000 * i, i) for i in range(1000) for m in ("c", "p")], 100)
    for _ in range(12):
        told = thinned(told)

    assert (len(of(told, "c")), len(of(told, "p"))) == (2, 4)


def test_a_batch_is_read_as_it_was_written():
    batch = Batch(
        "n01/a/1",
        [Sample("c", T0, 5), Sample("p", T0, -7)],
        [Asset("n01", "node", "")],
        [Meter("c", "n01", "energy_counter", "nvml", 10)],
        [Loss("c", T0, T0 + 5, 3)],
    )
    assert decode(encode(batch)) == batch
    assert decode(encode(Batch("n01/a/2", []))) == Batch("n01/a/2", [], [], [], [])


@pytest.mark.parametrize("cut", [0, 7, 100, -30])
def test_bytes_that_are_no_batch_are_said_to_be_none(cut):
    data = encode(Batch("n01/a/1", [Sample("c", T0, 5)]))
    with pytest.raises(BatchError, match="not a batch of an agent"):
        decode(data[:cut])
