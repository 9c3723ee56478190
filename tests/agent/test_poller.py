"""The schedule of one device, in virtual time: exact, and in nobody else's way."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.agent.virtual import AWAY, FakeDevice, FakeSink, planned, run_for, virtually
from wattkeeper.agent.poller import Poller, WallClock, fraction


def poller_of(device, sink=None, *, period_s=1.0, give_up_s=300.0, rediscover_s=1e9, backoff_max_s=60.0):
    return Poller(
        planned(device, period_s, give_up_s), sink or FakeSink(), seed="n01",
        backoff_max_s=backoff_max_s, rediscover_s=rediscover_s,
    )  # fmt: skip


def polled(device, seconds, **more):
    """Run one poller for so long; return it and its samples."""
    sink = FakeSink()
    poller = poller_of(device, sink, **more)
    virtually(lambda: run_for(seconds, poller.run()))
    return poller, sink


def test_readings_stand_on_a_fixed_grid_however_long_each_takes():
    """0.3 s each at 1 Hz: 60 readings in a minute, each a second after the one before, from the device's own phase on."""
    device = FakeDevice("bmc", [0.3])
    poller, sink = polled(device, 60)
    begin_s = 1000 + fraction("n01/bmc")

    assert device.asked_s == [pytest.approx(begin_s + k) for k in range(60)]
    assert (len(sink.samples), poller.missed, device.discoveries) == (60, 0, 1)


def test_phases_of_many_agents_are_spread():
    """Of 1 000 nodes reading each 10 s no second sees more than 150."""
    phases = [int(10 * fraction(f"n{i:04}/nvml n{i:04}")) for i in range(1000)]

    assert max(phases.count(s) for s in range(10)) < 150


def test_what_a_slow_device_misses_is_counted_and_not_made_up_for():
    """2.5 s each at 1 Hz: one reading in three seconds, two missed each time."""
    device = FakeDevice("bmc", [2.5])
    poller, sink = polled(device, 30)

    assert [round(b - a, 6) for a, b in zip(device.asked_s, device.asked_s[1:], strict=False)] == [3.0] * 9
    assert (len(sink.samples), poller.missed) == (9 + (fraction("n01/bmc") < 0.5), 2 * len(sink.samples))


def test_a_device_that_hangs_delays_no_other():
    """It is given up after 5 s; the other is read each second meanwhile."""
    hanging, other = FakeDevice("bmc", [1e9]), FakeDevice("gpu")
    sink = FakeSink()
    pollers = [poller_of(hanging, sink, give_up_s=5.0), poller_of(other, sink)]
    virtually(lambda: run_for(30, *(p.run() for p in pollers)))

    assert len(other.asked_s) == 30
    assert "did not keep its own time limit: given up after 5 s" in pollers[0].fault
    assert pollers[1].fault == ""


def test_a_device_that_fails_is_tried_at_growing_distances_with_a_cap():
    """1 s, 2 s, 4 s … up to 60 s, each up to a quarter less; on the grid, so rounded up to whole seconds."""
    device = FakeDevice("bmc", [AWAY])
    _, sink = polled(device, 600)
    steps = [round(b - a) for a, b in zip(device.asked_s, device.asked_s[1:], strict=False)]

    assert all(0.75 * 2**i <= step <= min(2**i, 60) for i, step in enumerate(steps[:6]))
    assert all(45 <= step <= 60 for step in steps[6:])
    assert sink.samples == []


def test_a_fault_is_told_once_and_so_is_its_end(caplog):
    """Down for four tries, then up: two lines; what it has is asked anew after each failure."""
    caplog.set_level(logging.INFO)
    device = FakeDevice("bmc", [0.0, *[AWAY] * 4, 0.0])
    poller, sink = polled(device, 60)
    said = [r.message for r in caplog.records]

    assert said[0] == "bmc n01 did not answer. Check address and network."
    assert said[1].startswith("bmc is read again;")
    assert len(said) == 2
    assert poller.fault == ""
    assert device.discoveries == 5  # at first, and after each of four failures
    assert len(sink.samples) == poller.readings == len(device.asked_s) - 4


def test_a_device_that_comes_and_goes_is_one_fault(caplog):
    """Each second reading fails: told once; the good ones are all kept."""
    caplog.set_level(logging.INFO)
    device = FakeDevice("bmc", [0.0, AWAY] * 50)
    poller, sink = polled(device, 40)

    assert [r.message for r in caplog.records] == [str(AWAY)]
    assert poller.fault == str(AWAY)
    assert len(sink.samples) == (len(device.asked_s) + 1) // 2


def test_a_fault_in_an_integration_ends_nothing():
    """A KeyError is a fault of that device, named as ours to mend."""
    poller, _ = polled(FakeDevice("bmc", [KeyError("Power")]), 10)

    assert poller.fault == "bmc: KeyError: 'Power'. This is a fault in its integration; please report it."


def test_what_a_device_has_is_looked_at_again_now_and_then():
    """Every 100 s, a tenth more or less: 6 times in 550 s."""
    device = FakeDevice("bmc")
    polled(device, 550, rediscover_s=100)

    assert device.discoveries in (5, 6, 7)


def test_a_doubt_is_told_once(caplog):
    """It stands in each discovery."""
    device = FakeDevice("bmc")
    device.doubts = ["n01/gpu0 is limited to 400 W of 700 W."]
    polled(device, 500, rediscover_s=100)

    assert [r.message for r in caplog.records] == device.doubts


@pytest.mark.parametrize(("by_s", "way"), [(3600.0, "forward by 3600.0 s"), (-90.0, "back by 90.0 s")])
def test_a_clock_that_is_set_is_noticed_once(caplog, by_s, way):
    """The wall clock leaps against the monotone one; drift of 1 s between two looks is none."""
    times = {"wall": 1_795_000_000.0, "monotone": 50.0}
    clock = WallClock(wall=lambda: times["wall"], monotone=lambda: times["monotone"])
    times["wall"] += 11.0
    times["monotone"] += 10.0
    assert clock.check() == 0.0
    times["wall"] += by_s

    assert clock.check() == pytest.approx(by_s)
    assert clock.check() == 0.0
    assert clock.jumps == 1
    assert [way in r.message for r in caplog.records] == [True]


def test_a_clock_that_is_set_does_not_change_the_schedule(monkeypatch):
    """An hour back: 60 readings a minute all the same; the loop's clock is the monotone one."""
    monkeypatch.setattr("time.time", lambda: 1.0)
    device = FakeDevice("bmc")
    polled(device, 60)

    assert len(device.asked_s) == 60


def test_ending_a_poller_ends_it_at_once():
    """Cancelled in the middle of a reading it is gone, and nothing of that reading is kept."""
    sink = FakeSink()
    poller = poller_of(FakeDevice("bmc", [50.0]), sink)

    async def main():
        await run_for(5, poller.run())
        return [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]

    assert virtually(main) == []
    assert sink.samples == []
