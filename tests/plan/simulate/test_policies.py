"""Policies on one site: against hand counts, brute force, and the planner's bound."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattkeeper.core.errors import SignalGapError
from wattkeeper.plan.place import plan
from wattkeeper.plan.problem import Grid, Job, Jobs, Site, Weights
from wattkeeper.plan.simulate import policies
from wattkeeper.plan.simulate.foresight import ForesightError, Mended, erring, forecast, perfect, recorded, rolled
from wattkeeper.plan.simulate.history import History, history, run
from wattkeeper.plan.simulate.rolling import as_wish, clairvoyant, foretold, planner

HOUR = 3_600_000
START = 1_760_000_400_000


def job(name: str, gpus: int, hours: float, release_h: float, due_h: float | None, **more: object) -> Job:
    """Return a job of 1 kW a GPU."""
    deadline = None if due_h is None else START + round(due_h * HOUR)
    return Job(name, gpus, round(hours * HOUR), 1000.0, START + round(release_h * HOUR), deadline, **more)


def made(intensity: list[float], gpus: int, *jobs: Job, weights: Weights | None = None, price: float = 0.0) -> History:
    """Return a history of hours from START on; no job of it may be impossible."""
    site = Site("a", gpus, np.array(intensity, np.float64), price)
    found, skipped = history(
        Grid(START, HOUR, len(intensity)), [site], Jobs.of(list(jobs), [site]), weights or Weights(), slack_ms=4 * HOUR
    )
    assert skipped == {}
    return found


def slots_of(wish) -> list[tuple[int, int, int, int]]:
    """Return (job, first, end, gpus) of a wish."""
    return list(zip(*(c.tolist() for c in wish[:4]), strict=True))


@st.composite
def cases(draw: st.DrawFn) -> History:
    """Draw a small history: suspendable jobs and others, short of GPUs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    slots, gpus = draw(st.integers(10, 30)), draw(st.integers(2, 6))
    jobs = []
    for i in range(draw(st.integers(1, 8))):
        hours, release = float(rng.integers(1, 9)) / 2, float(rng.integers(0, slots // 2)) - rng.choice([0.0, 0.3])
        due = min(release + hours + rng.integers(1, 8), slots)
        resting = bool(rng.random() < 0.5)
        jobs.append(job(f"j{i}", int(rng.integers(1, gpus + 1)), hours, max(release, 0.0), due, suspendable=resting,
                        resume_ms=int(rng.choice([0, HOUR // 2])), resume_kwh=float(rng.choice([0.0, 0.4]))))  # fmt: skip
    weights = Weights(delay_g_per_gpu_h=draw(st.sampled_from([0.0, 5.0])), money_g=draw(st.sampled_from([0.0, 100.0])))
    site = Site("a", gpus, rng.uniform(10, 500, slots).round(), rng.uniform(0, 0.4, slots), pue=1.2)
    found, skipped = history(Grid(START, HOUR, slots), [site], Jobs.of(jobs, [site]), weights, slack_ms=4 * HOUR)
    assert all("after the last slot" in why or "lasts" in why for why in skipped.values())
    return found


def test_lowest_window_takes_the_lowest_sum_of_its_hours():
    """2 h in 400 100 300 90 80 200: 90 + 80; wait awhile, for one that may rest, takes 100 and 80 of the first five."""
    case = made([400, 100, 300, 90, 80, 200], 4, job("x", 1, 2, 0, 6), job("y", 1, 2, 0, 3, suspendable=True))

    assert slots_of(policies.lowest_window(case, perfect(case.sites[0].intensity_g_per_kwh))) == [
        (0, 3, 5, 1),
        (1, 1, 3, 1),
    ]
    assert slots_of(policies.wait_awhile(case, perfect(case.sites[0].intensity_g_per_kwh))) == [
        (0, 3, 5, 1),
        (1, 1, 3, 1),
    ]
    later = replace(case, due=np.array([6, 5]), jobs=replace(case.jobs, deadline_ms=START + HOUR * np.array([6, 5])))
    split = made([100, 400, 90, 400, 400, 400], 4, job("y", 1, 2, 0, 6, suspendable=True))
    assert slots_of(policies.wait_awhile(later, perfect(case.sites[0].intensity_g_per_kwh)))[1:] == [(1, 3, 5, 1)]
    assert slots_of(policies.wait_awhile(split, perfect(split.sites[0].intensity_g_per_kwh))) == [
        (0, 0, 1, 1),
        (0, 2, 3, 1),
    ]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_alone_no_placement_is_cheaper(case: History):
    """Without other jobs, lowest window is the best piece, and wait awhile at most as dear: all starts are tried."""
    seen = perfect(np.asarray(case.sites[0].intensity_g_per_kwh))
    rate = np.asarray(case.sites[0].pue) * (
        seen.true[0] + case.weights.money_g * np.asarray(case.sites[0].price_per_kwh)
    )
    window, awhile = policies.lowest_window(case, seen), policies.wait_awhile(case, seen)
    for j in range(len(case.jobs)):
        first, due, length = int(case.release[j]), int(case.due[j]), int(case.length[j])
        delay = case.weights.delay_g_per_gpu_h * case.jobs.gpus[j]
        costs = [case.kw[j] * rate[a : a + length].sum() + delay * (a - first) for a in range(first, due - length + 1)]
        (a,) = window.first[window.job == j]
        assert costs[int(a) - first] == pytest.approx(min(costs))
        if case.restore[j] == 0 and case.jobs.resume_kwh[j] == 0 and not delay:
            held = [u for m in np.flatnonzero(awhile.job == j) for u in range(awhile.first[m], awhile.end[m])]
            assert rate[held].sum() == pytest.approx(np.sort(rate[first:due])[:length].sum())


def test_threshold_waits_for_a_low_hour_and_is_pressed_at_the_end():
    """Under the 30 % quantile (of 400 300 200 100 350: 220) at 200 and 100; in one piece it runs on from there."""
    case = made([400, 300, 200, 100, 350, 9], 4, job("x", 1, 3, 0, 5), job("y", 1, 3, 0, 5, suspendable=True))
    wish = policies.threshold(case, perfect(case.sites[0].intensity_g_per_kwh), quantile=0.3)

    # both begin at 200 (slot 2), as no slack is left then; 3 h end at the deadline
    assert slots_of(wish) == [(0, 2, 5, 1), (1, 2, 5, 1)]
    dip = made([100, 400, 400, 90, 400, 400, 400, 80], 4, job("x", 1, 2, 0, 8), job("y", 1, 3, 0, 8, suspendable=True))
    wish = policies.threshold(dip, perfect(dip.sites[0].intensity_g_per_kwh), quantile=0.3)
    assert slots_of(wish) == [(0, 0, 2, 1), (1, 0, 1, 1), (1, 3, 4, 1), (1, 7, 8, 1)]


def test_threshold_leaves_time_to_be_restored():
    """An hour of work and a restored start of an hour: after the first hour it comes back two hours before the end."""
    case = made([100, 400, 400, 400, 400, 400], 4, job("y", 1, 2, 0, 6, suspendable=True, resume_ms=HOUR))
    wish = policies.threshold(case, perfect(case.sites[0].intensity_g_per_kwh), quantile=0.1)

    assert slots_of(wish) == [(0, 0, 1, 1), (0, 4, 6, 1)]
    assert wish.restored.tolist() == [-1, 1]


def test_elastic_takes_more_gpus_in_the_low_hour():
    """4 GPUs for 2 h, linear scaling: 8 GPUs for the one hour at 100 do it all; 4 kW × 2 h become 8 kWh × 100 g."""
    case = made([300, 100, 300, 300], 16, job("x", 4, 2, 0, 4, suspendable=True))
    seen = perfect(case.sites[0].intensity_g_per_kwh)
    wish = policies.elastic(case, seen, scaling=1.0)

    assert slots_of(wish) == [(0, 1, 2, 8)]
    assert run(case, "elastic", wish).carbon_g == pytest.approx(8 * 100)
    # at less than linear scaling it does less in the low hour, and takes the rest where the first steps are cheap
    spread = policies.elastic(case, seen, scaling=0.7)
    work = sum((g / 4) ** 0.7 * (b - a) for _, a, b, g in slots_of(spread))
    assert 2.0 <= work < 2.0 + 0.25**0.7
    assert max(g for _, _, _, g in slots_of(spread)) <= 8


def test_elastic_does_all_its_work_however_long_it_takes_to_be_restored():
    """3 h on 4 of 4 GPUs, low hours at 0, 3, 4 and 5, an hour to be restored: all work is done at 100 g, and the hour at
    900 before it comes back draws only what resuming takes."""
    low = [100, 900, 900, 100, 100, 100, 900, 900]
    case = made(low, 4, job("x", 4, 3, 0, 8, suspendable=True, resume_ms=HOUR, resume_kwh=0.1))
    seen = perfect(case.sites[0].intensity_g_per_kwh)
    wish = policies.elastic(case, seen, scaling=1.0)

    assert slots_of(wish) == [(0, 0, 1, 4), (0, 2, 5, 4)]
    assert wish.restored.tolist() == [-1, 1]
    assert run(case, "elastic", wish).carbon_g == pytest.approx(3 * 4 * 100 + 0.1 * 900)
    # two hours to be restored are as long as the break: it goes on with a quarter of its GPUs, which do a quarter
    short = made(low, 4, job("x", 4, 3, 0, 8, suspendable=True, resume_ms=2 * HOUR))
    wish = policies.elastic(short, seen, scaling=1.0)
    assert slots_of(wish) == [(0, 0, 1, 4), (0, 1, 3, 1), (0, 3, 4, 4), (0, 4, 5, 2)]
    assert set(wish.restored.tolist()) == {-1}


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 11), st.integers(1, 11), st.integers(1, 6), st.integers(0, 8), st.integers(0, 3), st.integers())
def test_elastic_never_does_less_than_the_job(asked: int, more: int, hours: int, slack: int, restore: int, seed: int):
    """Any GPUs, window and time to be restored: the work done is at least the job's, within its window."""
    values = np.random.default_rng(abs(seed)).uniform(10, 500, hours + slack + 1).tolist()
    one = job("x", asked, hours, 0, hours + slack, suspendable=True, resume_ms=restore * HOUR)
    case = made(values, asked + more - 1, one)
    wish = policies.elastic(case, perfect(np.array(values)), scaling=0.9)
    works = wish.end - wish.first - np.maximum(wish.restored, 0)

    assert ((wish.gpus / asked) ** 0.9 * works).sum() >= hours - 1e-6
    assert (works > 0).all()
    assert (wish.first[1:] >= wish.end[:-1]).all()
    assert (wish.first[0] >= 0, wish.end[-1] <= hours + slack, wish.gpus.max() <= asked + more - 1) == (True,) * 3


def test_a_steady_power_history_by_hand():
    """2 jobs of 1 GPU on 1 GPU: run now, the second waits an hour. 100 + 200 g; delays 0 and 1 h; one deadline missed."""
    case = made([100, 200, 300, 400], 1, job("x", 1, 1, 0, 2), job("y", 1, 1, 0, 1), price=0.5)
    found = run(case, "run now", policies.run_now(case, perfect(case.sites[0].intensity_g_per_kwh)), priced=True)

    assert found.carbon_g == pytest.approx(300.0)
    assert (found.energy_kwh, found.cost) == (pytest.approx(2.0), pytest.approx(1.0))
    assert found.delay_h.tolist() == [0.0, 1.0]
    assert (found.missed.tolist(), found.unplaced) == ([False, True], 0)


def test_what_does_not_end_is_unplaced():
    """Two jobs that both wait for the last hour of one GPU: one ends after the last slot and is no saving."""
    case = made([500, 400, 1], 1, job("x", 1, 1, 0, 3), job("y", 1, 1, 0, 3))
    found = run(case, "lowest window", policies.lowest_window(case, perfect(case.sites[0].intensity_g_per_kwh)))

    assert found.unplaced == 1
    assert np.isnan(found.delay_h).tolist() == [False, True]


def test_resuming_costs_energy_and_time():
    """Suspended once: 0.5 kWh at 90 g in the slot of the resume, and an hour of restoring before the last of work."""
    case = made([100, 900, 900, 90, 90, 900], 4, job("y", 1, 2, 0, 6, suspendable=True, resume_ms=HOUR, resume_kwh=0.5))
    wish = policies.wait_awhile(case, perfect(case.sites[0].intensity_g_per_kwh))
    found = run(case, "wait awhile", wish)

    # 100 now, then restored at 90 and done at 90, against 90 + 90 in one piece: the piece is the cheaper
    assert slots_of(wish) == [(0, 3, 5, 1)]
    assert found.carbon_g == pytest.approx(180.0)
    split = made([10, 900, 900, 90, 90, 900], 4, job("y", 1, 2, 0, 6, suspendable=True, resume_ms=HOUR, resume_kwh=0.5))
    wish = policies.wait_awhile(split, perfect(split.sites[0].intensity_g_per_kwh))
    found = run(split, "wait awhile", wish)
    assert slots_of(wish) == [(0, 0, 1, 1), (0, 3, 5, 1)]
    assert found.carbon_g == pytest.approx(10 + 0.5 * 90 + 90)
    assert found.suspended == 1


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_bound_is_below_every_policy_that_keeps_deadlines(case: History):
    """The plan's cost is found again by the simulation; no policy that keeps all deadlines is below its bound."""
    seen = perfect(np.asarray(case.sites[0].intensity_g_per_kwh))
    best, free = clairvoyant(case)
    again = run(case, "clairvoyant", as_wish(case, best))
    if not best.unplaced:
        assert again.weighed_g == pytest.approx(best.cost_g, rel=1e-9, abs=1e-3)
        assert not (again.missed & ~free).any()
        assert again.unplaced == 0
    rigid = [p for name, p in policies.POLICIES.items() if name != "elastic"]
    for policy in [*rigid, planner]:
        found = run(case, policy.__name__, policy(case, seen))
        if not (found.missed & ~free).any() and not found.unplaced and not best.unplaced:
            assert found.weighed_g >= best.bound_g * (1 - 1e-9) - 1e-3


@settings(max_examples=30, deadline=None)
@given(cases())
def test_the_planner_starts_what_it_asked_for(case: History):
    """What the rolling planner asks for fits: every part of it starts when it was meant to."""
    wish = planner(case, perfect(np.asarray(case.sites[0].intensity_g_per_kwh)))
    found = run(case, "planner", wish)

    assert (found.start_ms == START + HOUR * wish.first).all()


def test_a_better_forecast_is_not_worse():
    """One long GPU, a week of daily low hours: perfect foresight costs at most what 30 % noise does, ten times."""
    hours = 24 * 7
    rng = np.random.default_rng(1)
    intensity = 300 + 150 * np.cos(2 * np.pi * np.arange(hours) / 24) + rng.normal(0, 20, hours)
    jobs = [job(f"j{i}", 1, 2, i, i + 20) for i in range(0, 140, 5)]
    case = made(intensity.tolist(), 4, *jobs)
    true = np.asarray(case.sites[0].intensity_g_per_kwh)
    for policy in (policies.lowest_window, planner):
        exact = run(case, "exact", policy(case, perfect(true))).carbon_g
        noisy = [run(case, "noisy", policy(case, erring(true, 0.3, seed))).carbon_g for seed in range(3)]
        assert exact < min(noisy)


def test_a_forecast_knows_only_the_past():
    """Rolled: the hours ahead are those of the last 24, whatever comes; with error, present and past are true."""
    true, before = np.arange(100.0, 150.0), np.arange(24.0)
    (seen,) = rolled(true, before).at(3)
    noisy = erring(true, 0.1, 0)

    assert seen[:4].tolist() == [100, 101, 102, 103]
    assert seen[4:8].tolist() == [4, 5, 6, 7]  # yesterday at the same hours
    assert seen[4 + 20 : 4 + 24].tolist() == [100, 101, 102, 103]
    assert (noisy.at(5)[0, :6] == true[:6]).all()
    assert (noisy.at(5)[0, 6:] == noisy.seen[0, 6:]).all()
    with pytest.raises(ForesightError, match="needs the signal of the day before"):
        rolled(true, np.full(24, np.nan))


def test_jobs_that_no_policy_could_run_are_told():
    """Larger than the cluster, a deadline before the release, too short a window, longer than the rest; and a hole."""
    jobs = [
        job("large", 9, 1, 0, 3),
        job("before", 1, 1, 2, 1),
        job("short", 1, 3, 0, 2),
        job("late", 1, 6, 3, 10),
        job("fine", 1, 1, 0, None),
    ]
    site = Site("a", 4, np.full(8, 100.0))
    found, skipped = history(Grid(START, HOUR, 8), [site], Jobs.of(jobs, [site]), Weights(), slack_ms=HOUR)

    assert found.jobs.ids == ["fine"]
    assert (found.release[0], found.due[0], found.length[0]) == (0, 2, 1)
    assert skipped == {
        "large": "it asks for 9 GPUs and the cluster has 4",
        "before": "its deadline 2025-10-09T10:00:00Z is not after its release 2025-10-09T11:00:00Z",
        "short": "it lasts 3 h and its deadline is 2 h after its release",
        "late": "its deadline 2025-10-09T19:00:00Z is after the last slot, which ends 2025-10-09T17:00:00Z",
    }
    holed = replace(site, intensity_g_per_kwh=np.array([1, np.nan, np.nan, 1, 1, 1, 1, 1]))
    with pytest.raises(SignalGapError, match="no intensity for 2 of 8 slots, the first at 2025-10-09T10:00:00Z"):
        history(Grid(START, HOUR, 8), [holed], Jobs.of(jobs, [site]), Weights(), slack_ms=HOUR)


def test_all_ways_of_a_tiny_elastic_job_are_tried():
    """4 GPUs for 1 h in 3 hours: steps in the order of work for cost are at most one step above the best of all ways."""
    values = [120.0, 100.0, 110.0]
    case = made(values, 16, job("x", 4, 1, 0, 3, suspendable=True))
    found = run(case, "elastic", policies.elastic(case, perfect(case.sites[0].intensity_g_per_kwh), scaling=0.9))
    ways = [
        sum(g * v for g, v in zip(way, values, strict=True))
        for way in itertools.product(range(9), repeat=3)
        if sum((g / 4) ** 0.9 for g in way) >= 1 - 1e-9
    ]

    assert min(ways) == pytest.approx(400)  # 4 GPUs at 100
    assert found.carbon_g == pytest.approx(430)  # 2 at 100, 1 at 110, 1 at 120; the last step is not used up


def test_a_deadline_that_nobody_can_keep_is_taken_off():
    """Two jobs due after their first hour on one GPU: the plan is late with one of them, and its bound says so."""
    case = made([100, 200, 50], 1, job("x", 1, 1, 0, 1), job("y", 1, 1, 0, 1))
    best, free = clairvoyant(case)
    found = run(case, "clairvoyant", as_wish(case, best))

    assert free.sum() == 1
    assert found.carbon_g == pytest.approx(100 + 50)
    assert best.bound_g <= 150
    assert (found.missed == free).all()


def test_arrivals_are_expected_again_where_two_weeks_were_alike():
    """Four busy hours a day, two weeks long: the second is foretold. Bursts on other days of each week: not."""
    daily = [job(f"d{d} {h}", 1, 1, 24 * d + h, None) for d in range(14) for h in range(8, 12)]
    bursts = [job(f"b{i}", 1, 1, 24 * (1 if i < 20 else 11) + 9, None) for i in range(40)]
    flat = [100.0] * (24 * 16)

    assert foretold(made(flat, 8, *daily), 24 * 14 - 1)
    assert not foretold(made(flat, 40, *bursts), 24 * 14 - 1)
    assert not foretold(made(flat, 8, *daily), 24 * 13)  # less than two weeks are known


def test_room_is_kept_for_what_usually_comes():
    """Each noon a gang takes both GPUs for its only hour, the cleanest. Knowing that, a waiting job goes elsewhere."""
    week = 24 * 7
    noon = np.arange(24 * 22) % 24
    intensity = np.where(noon == 12, 100.0, np.where(noon == 13, 110.0, 300.0))
    gangs = [job(f"g{d}", 2, 1, 24 * d + 12, 24 * d + 13) for d in range(21)]
    waits = [job(f"w{d}", 1, 1, 24 * d + 8, 24 * d + 16) for d in range(15, 21)]
    case = made(intensity.tolist(), 2, *gangs, *waits)
    found = run(case, "planner", planner(case, perfect(intensity)))

    assert foretold(case, 2 * week + 40)
    assert not found.missed.any()
    assert found.delay_h[21:].tolist() == [5.0] * 6  # 13:00, not noon


def test_our_forecast_is_made_each_day_from_the_past_alone():
    """What comes after a day began changes nothing of its forecast; the next day's knows it. A month before is needed."""
    hours = np.arange(24 * 45)
    signal = 300 + 100 * np.cos(2 * np.pi * hours / 24) + np.random.default_rng(0).normal(0, 15, len(hours))
    before, true = signal[: 24 * 42], signal[24 * 42 :]
    other = true.copy()
    other[30:] += 500.0
    ours, changed = forecast(true, before), forecast(other, before)

    assert (ours.at(26)[0, 27:] == changed.at(26)[0, 27:])[:2].all()
    assert (ours.made[1, 0] == changed.made[1, 0])[25:].all()
    assert not (ours.made[2, 0] == changed.made[2, 0])[49:].any()
    assert [ours.moves(t) for t in (0, 1, 23, 24)] == [True, False, False, True]
    assert abs(ours.at(0)[0, 1:24] - true[1:24]).mean() < 40  # the daily wave alone swings by 100
    with pytest.raises(ForesightError, match="needs the signal of 4 weeks before"):
        forecast(true, before[:100])


def test_a_long_history_has_the_bound_of_a_short_one():
    """Ten weeks, priced by the fortnight: the plan is within 1 % of its bound, and of what all at once comes to."""
    hours = 24 * 70
    rng = np.random.default_rng(2)
    intensity = 300 + 150 * np.cos(2 * np.pi * np.arange(hours) / 24) + rng.normal(0, 20, hours)
    jobs = [job(f"j{i}", 1, 2, h, h + 20) for i, h in enumerate(np.sort(rng.uniform(0, hours - 22, 1200)))]
    case = made(intensity.tolist(), 4, *jobs)
    best, free = clairvoyant(case)
    at_once = plan(case.problem(case.column("intensity_g_per_kwh")))

    assert not free.any()
    assert 0 <= best.gap < 0.01
    assert best.cost_g <= at_once.cost_g * 1.005
    assert best.bound_g <= at_once.cost_g


def test_the_planner_mends_a_noisy_forecast_by_its_past():
    """A daily wave under noise: after a day it errs by less than two thirds, after two weeks by less than a third; a
    perfect forecast stays, and of one with a constant bias nothing is left."""
    hours = 24 * 30
    true = 300 + 100 * np.cos(2 * np.pi * np.arange(hours) / 24)
    noisy = erring(true, 0.2, 0)
    mended = Mended(noisy, 24)

    def off(slot: int) -> float:
        """Return the mean error over the next two days, as a part of that of the noisy forecast."""
        ahead = slice(slot + 1, slot + 49)
        return float(
            np.abs(mended.at(slot)[0, ahead] - true[ahead]).mean() / np.abs(noisy.seen[0] - true)[ahead].mean()
        )

    assert (mended.at(22)[0, 23:] == noisy.seen[0, 23:]).all()
    assert off(24) < 0.67
    assert off(24 * 14) < 0.33
    assert (Mended(perfect(true), 24).at(24 * 14) == true).all()
    assert (Mended(recorded(true, true.copy()), 24).at(24 * 14) == true).all()
    assert Mended(recorded(true, true + 30), 24).at(24 * 14)[0] == pytest.approx(true)


def test_what_is_mended_is_learned_from_the_past_alone():
    """What comes later, and what is said of it, changes nothing of the weights: only hours around a changed one differ."""
    rng = np.random.default_rng(0)
    true = 300 + 100 * rng.normal(size=24 * 20)
    seen = true + rng.normal(0, 30, len(true))
    other = true.copy()
    other[24 * 10 :] += 100.0
    first, second = (Mended(recorded(one, seen), 24).at(24 * 10 - 1) for one in (true, other))

    assert (first == second).all()


def test_a_late_job_is_not_put_off_again_and_again():
    """One GPU is taken for two days; the job that missed its deadline meanwhile runs within its day of grace, though
    every later day is cleaner."""
    hours = 24 * 12
    falling = (600 - 2.0 * np.arange(hours)).tolist()
    case = made(falling, 1, job("long", 1, 48, 0, 48), job("late", 1, 2, 1, 20, suspendable=True))
    found = run(case, "planner", planner(case, perfect(np.array(falling))))

    assert found.missed.tolist() == [False, True]
    assert found.unplaced == 0
    assert found.delay_h[1] <= 24 * 3
