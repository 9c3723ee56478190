"""Durations by quantiles: room for the stated quantile, expected energy, and deadlines kept as often as promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.plan.instances import HOUR, START
from tests.plan.test_place import checked, crowded
from wattkeeper.plan.duration import corners, mean_until_ms, quantile_ms
from wattkeeper.plan.place import Plan, cost_of, plan
from wattkeeper.plan.placement import placements
from wattkeeper.plan.problem import Grid, Job, Level, Problem, Site, pose

WITHIN = [(0.5, 2 * HOUR), (0.9, 4 * HOUR)]
JOB = Job("j", 1, 10 * HOUR, 1000.0, START, within=WITHIN, confidence=0.9)
"""Half of such jobs end within 2 h, nine in ten within 4 h, all within 10 h."""


def shape() -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of JOB's quantile function, in hours."""
    return corners(np.array([10.0]), np.array([[0.5, 0.9, np.nan]]), np.array([[2.0, 4.0, np.nan]]))


@pytest.mark.parametrize(("chance", "hours"), [(0.25, 1), (0.5, 2), (0.7, 3), (0.9, 4), (0.95, 7), (1.0, 10)])
def test_quantiles_lie_on_lines_between_those_told(chance: float, hours: float):
    """Halfway from 90 % to 100 % is halfway from 4 h to 10 h."""
    assert quantile_ms(*shape(), np.array([chance])) == pytest.approx([hours])


@pytest.mark.parametrize(
    ("until", "mean"),
    [
        (0, 0.0),
        (1, 0.5 * 0.75 + 0.5 * 1),  # of the first half, half have ended, after 30 min on average
        (2, 0.5 * 1 + 0.5 * 2),
        (3, 0.5 * 1 + 0.4 * 2.75 + 0.1 * 3),
        (10, 0.5 * 1 + 0.4 * 3 + 0.1 * 7),
    ],
)
def test_the_expected_time_until_an_hour(until: float, mean: float):
    """E[min(T, until)], piece by piece."""
    assert mean_until_ms(*shape(), np.array([float(until)])) == pytest.approx([mean])


def test_a_certain_duration_is_its_own_quantile_and_mean():
    """A job that tells no quantiles lasts what it says, whatever the confidence."""
    sure = corners(np.array([3.0]), np.empty((1, 0)), np.empty((1, 0)))

    assert quantile_ms(*sure, np.array([0.1])).tolist() == [3.0]
    assert mean_until_ms(*sure, np.array([2.0])).tolist() == [2.0]
    assert mean_until_ms(*sure, np.array([9.0])).tolist() == [3.0]


def test_gpus_are_held_for_the_quantile_and_energy_is_expected():
    """Held for 4 h at 90 %. Expected hours of work in them: 0.875, 0.625, 0.4, and 0.1 + 0.4 with all that comes after."""
    site = Site("a", 1, np.array([100.0, 200.0, 300.0, 400.0]))
    made = plan(pose(Grid(START, HOUR, 4), [site], [JOB]))

    assert [p.slots for p in placements(made.problem, made.places) if p] == [((0, 4),)]
    assert made.cost_g == pytest.approx(0.875 * 100 + 0.625 * 200 + 0.4 * 300 + 0.5 * 400)
    assert made.bound_g <= made.cost_g


def test_a_cap_level_stretches_the_quantiles():
    """Twice as long at a quarter of the power: held for 8 h, and half of 2.4 kWh."""
    job = replace(JOB, levels=[])
    slow = pose(Grid(START, HOUR, 9), [Site("a", 1, 100.0)], [replace(job, confidence=0.9)])
    capped = replace(slow.jobs, slowdown=np.array([[2.0]]), power=np.array([[0.25]]))
    made = plan(pose(slow.grid, slow.sites, capped))

    assert made.problem.modes.length.tolist() == [8]
    assert made.cost_g == pytest.approx(2.4 * 2 * 0.25 * 100)


def test_a_suspendable_job_draws_its_expected_energy_evenly():
    """2.4 kWh over the four hours held: 0.6 each, in hours 0, 1, 3 and 4."""
    site = Site("a", 1, np.array([100.0, 100.0, 900.0, 100.0, 100.0]))
    made = plan(pose(Grid(START, HOUR, 5), [site], [replace(JOB, suspendable=True)]))

    assert made.cost_g == pytest.approx(2.4 * 100)


def test_more_confidence_needs_more_room():
    """A deadline after 4 h can be promised at 90 %, not at 95 %: 7 h would have to be held."""
    grid, site = Grid(START, HOUR, 8), Site("a", 1, 100.0)
    likely, likelier = (replace(JOB, deadline_ms=START + 4 * HOUR, confidence=c) for c in (0.9, 0.95))

    assert plan(pose(grid, [site], [likely])).unplaced == []
    assert pose(grid, [site], [likelier]).skipped == {
        "j": "it needs 7 slots of 60 min, and between its release and its deadline lie 4"
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"within": [(0.9, HOUR), (0.5, 2 * HOUR)]}, "its quantiles of duration do not rise"),
        ({"within": [(0.5, 2 * HOUR), (0.9, HOUR)]}, "its quantiles of duration do not rise"),
        ({"within": [(50.0, HOUR)]}, "a chance lies outside 0 to 1"),
        ({"within": [(0.9, 11 * HOUR)]}, "a time beyond 10 h, its longest"),
        ({"confidence": 0.0}, "its confidence is 0; give one above 0 and at most 1"),
        ({"confidence": np.nan}, "its confidence is nan"),
        ({"profile": [(HOUR, 100.0)], "within": [(0.9, HOUR // 2)]}, "it has a profile and quantiles of duration"),
    ],
)
def test_odd_quantiles_are_named(change: dict[str, object], words: str):
    problem = pose(Grid(START, HOUR, 8), [Site("a", 1, 100.0)], [replace(JOB, **change)])  # type: ignore[arg-type]

    assert words in problem.skipped["j"]


def uncertain(confidence: float, n: int = 300) -> Problem:
    """Return a crowded week in which half of the jobs end within half their longest time, and 80 % within 0.7 of it."""
    base = crowded(n)
    ms = base.jobs.duration_ms
    jobs = replace(
        base.jobs,
        confidence=np.full(n, confidence),
        chance=np.tile([0.5, 0.8], (n, 1)),
        within_ms=np.column_stack((0.5 * ms, 0.7 * ms)),
    )
    return pose(base.grid, base.sites, jobs, base.weights)


def drawn_ms(problem: Problem, rng: np.random.Generator) -> np.ndarray:
    """Draw durations from what is stated, by the inverse of the quantile function."""
    jobs, luck = problem.jobs, rng.random(len(problem.jobs))
    return np.array([
        np.interp(luck[i], [0.0, *jobs.chance[i], 1.0], [0.0, *jobs.within_ms[i], jobs.duration_ms[i]])
        for i in range(len(jobs))
    ])  # fmt: skip


def starts_ms(made: Plan) -> np.ndarray:
    """Return when each job starts by the plan."""
    assert made.unplaced == []
    return np.array([made.problem.grid.at_ms(p.slots[0][0]) for p in placements(made.problem, made.places) if p])


@pytest.mark.parametrize("confidence", [0.6, 0.8, 0.9])
def test_no_more_jobs_are_late_than_was_promised(confidence: float):
    """200 draws of 300 durations, jobs that run on giving way at the end of their room: at most 1 − confidence late.

    The worst single job is late that often too, within 4 standard deviations; and some are late, or nothing is tried.
    """
    problem = uncertain(confidence)
    # deadlines as tight as the promise allows, on the slots
    held = np.ceil(problem.jobs.held_ms() / HOUR) * HOUR
    tight = replace(problem.jobs, deadline_ms=(problem.jobs.release_ms + held + 6 * HOUR).astype(np.int64))
    made = plan(pose(problem.grid, problem.sites, tight, problem.weights))
    assert checked(made.problem, made.places).faults == ()
    start, rng = starts_ms(made), np.random.default_rng(1)
    late = np.array([start + drawn_ms(problem, rng) > made.problem.jobs.deadline_ms for _ in range(200)])

    assert 0 < late.mean() <= 1 - confidence
    assert late.mean(0).max() <= 1 - confidence + 4 * (confidence * (1 - confidence) / 200) ** 0.5


def test_energy_comes_out_as_expected():
    """The mean cost of 400 draws, each job drawing its power until it ends, is what the plan said, within 4 sigma.

    At full confidence nothing runs on after its room, so that the plan counts each hour at its own intensity.
    """
    made = plan(uncertain(1.0, 150))
    problem, start = made.problem, starts_ms(made)
    sites = problem.modes.site[made.places.mode]
    sums = np.concatenate((np.zeros((2, 1)), np.cumsum(problem.rate, axis=1)), axis=1)
    hours = np.arange(problem.grid.slots + 1)
    delay_g = made.cost_g - cost_of(pose(problem.grid, problem.sites, problem.jobs), made.places)
    rng, costs = np.random.default_rng(2), []
    for _ in range(400):
        begin = (start - problem.grid.start_ms) / HOUR
        end = begin + drawn_ms(problem, rng) / HOUR
        each = [
            kw * (np.interp(e, hours, sums[s]) - np.interp(b, hours, sums[s]))
            for kw, s, b, e in zip(problem.jobs.kw, sites, begin, end, strict=True)
        ]
        costs.append(sum(each) + delay_g)

    assert np.mean(costs) == pytest.approx(made.cost_g, abs=4 * float(np.std(costs)) / 20)


def test_where_late_ones_keep_their_gpus_the_promise_still_holds_on_this_week():
    """Jobs that run on keep their GPUs and others wait for them: on a week 80 % full by the longest times, fewer are late
    than promised, because those that end early leave room."""
    made = plan(uncertain(0.8))
    problem, jobs = made.problem, made.problem.jobs
    start, rng = starts_ms(made), np.random.default_rng(3)
    sites, late = problem.modes.site[made.places.mode], []
    for _ in range(20):
        lasts = drawn_ms(problem, rng)
        ends: list[list[tuple[float, float]]] = [[], []]
        for i in np.argsort(start, kind="stable"):
            running, at = ends[sites[i]], float(start[i])
            while True:  # wait until enough of those that run have ended
                held = sum(g for e, g in running if e > at)
                if held + jobs.gpus[i] <= problem.gpus[sites[i], 0]:
                    break
                at = min(e for e, _ in running if e > at)
            running.append((at + lasts[i], float(jobs.gpus[i])))
            late.append(at + lasts[i] > jobs.deadline_ms[i])

    assert np.mean(late) <= 0.2


def test_large_queues_are_laid_out_piece_by_piece(monkeypatch: pytest.MonkeyPatch):
    """A piece for every slot gives the same phases as all at once; each site of a job has the same."""
    sites = [Site(name, 4, 100.0) for name in "ab"]
    within = [(0.5, HOUR), (0.9, 3 * HOUR)]
    jobs = [
        Job(f"j{i}", 1, (4 + i) * HOUR, 500.0, START, None, levels=[Level(1.5, 0.6)], within=within) for i in range(3)
    ]
    grid = Grid(START, HOUR, 24)
    whole = pose(grid, sites, jobs).modes
    monkeypatch.setattr("wattkeeper.plan.layout._SLOTS_AT_A_TIME", 1)
    pieces = pose(grid, sites, jobs).modes

    assert len(whole.site) == 12
    for name in ("phase0", "phase_end", "phase_kw"):
        assert getattr(whole, name).tolist() == getattr(pieces, name).tolist()
    first, other = (whole.phase_kw[whole.phase0[m] : whole.phase0[m + 1]] for m in (0, 2))
    assert first.tolist() == other.tolist()
    assert first.sum() == pytest.approx(0.5 * (0.5 * 0.5 + 0.4 * 2 + 0.1 * 3.5))
