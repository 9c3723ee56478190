"""Plans, against the independent check and against all plans there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from tests.plan.instances import HOUR, START, cheapest, problems
from wattkeeper.plan.check import Checked, check
from wattkeeper.plan.modes import NOWHERE, Places
from wattkeeper.plan.place import cost_of, improve, plan, run_now, uneven_g
from wattkeeper.plan.placement import Placement, amounts, placements
from wattkeeper.plan.problem import Grid, Job, Jobs, Level, Problem, Site, Weights, pose


def checked(problem: Problem, places: Places) -> Checked:
    """Check places with nothing but the records."""
    found = placements(problem, places)
    jobs = problem.jobs.take(problem.planned)
    return check(problem.grid, problem.sites, jobs, problem.weights, found)


@settings(max_examples=100, deadline=None)
@given(problems(most_jobs=8))
def test_every_plan_passes_the_check(problem: Problem):
    """No rule is broken, and the cost is the one the check finds."""
    made = plan(problem)
    found = checked(problem, made.places)

    assert found.faults == ()
    assert found.cost_g == pytest.approx(made.cost_g, rel=1e-9, abs=1e-6)
    assert made.unplaced or made.bound_g <= made.cost_g


@settings(max_examples=80, deadline=None)
@given(problems(most_jobs=8))
def test_improving_never_costs_more_and_breaks_nothing(problem: Problem):
    """After ruin and recreate the plan still passes the check, places as many jobs and costs at most as much."""
    made = plan(problem)
    better = improve(made, rounds=3)
    found = checked(problem, better.places)

    assert found.faults == ()
    assert found.cost_g == pytest.approx(better.cost_g, rel=1e-9, abs=1e-6)
    assert better.cost_g <= made.cost_g
    assert better.unplaced == made.unplaced


def test_improving_finds_what_single_moves_do_not():
    """On a crowded week groups of jobs change places to a gain that no job has alone."""
    made = plan(crowded(400))

    assert improve(made).cost_g < made.cost_g


@settings(max_examples=100, deadline=None)
@given(problems(most_jobs=8))
def test_running_now_passes_the_check_too(problem: Problem):
    """The baseline keeps deadlines and limits, and is counted in the same cost."""
    now = run_now(problem)
    found = checked(problem, now)

    assert found.faults == ()
    assert found.cost_g == pytest.approx(cost_of(problem, now), rel=1e-9, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_a_plan_is_never_better_than_the_best(problem: Problem):
    """All plans tried by hand: ours costs at least as much as the cheapest where it places every job."""
    best, made = cheapest(problem), plan(problem)
    if best is None:
        assert made.unplaced
    elif not made.unplaced:
        assert made.cost_g >= best - 1e-6


@settings(max_examples=100, deadline=None)
@given(problems(most_jobs=6))
def test_weighed_amounts_add_up_to_the_cost(problem: Problem):
    """Carbon, money, water and delay, each times its weight, are the cost [g]."""
    made = plan(problem)
    each, w = amounts(problem, made.places), problem.weights
    gpus = (problem.jobs.gpus * problem.jobs.delay_weight)[problem.planned]
    # delay is counted from the soonest end at full power, which is also the shortest of the levels
    total = each.carbon_g + w.money_g * each.cost + w.water_g_per_l * each.water_l
    total = total + w.delay_g_per_gpu_h * each.delay_h * gpus
    uneven = uneven_g(problem, made.places)

    assert total == pytest.approx(each.weighed_g, rel=1e-9, abs=1e-6)
    assert each.weighed_g.sum() + uneven == pytest.approx(made.cost_g, rel=1e-9, abs=1e-6)


def test_a_gang_wins_room_from_small_jobs():
    """Four small jobs want the clean hour; the gang of 4 can use no other, so they go."""
    site = Site("a", 4, np.array([500.0, 100.0, 200.0]))
    small = [Job(f"small{i}", 1, HOUR, 1000.0, START, START + 3 * HOUR) for i in range(4)]
    gang = Job("gang", 4, HOUR, 100.0, START + HOUR, START + 2 * HOUR)
    made = plan(pose(Grid(START, HOUR, 3), [site], [*small, gang]))

    assert made.unplaced == []
    assert made.cost_g == pytest.approx(4 * 200.0 + 0.4 * 100.0)  # 4 × 1 kWh at 200, 0.4 kWh at 100


def test_a_suspendable_job_takes_the_clean_hours():
    """Two hours of work around a dirty one; resuming takes 0.5 kWh, drawn at 120 g/kWh: 100 + 120 + 60."""
    site = Site("a", 1, np.array([100.0, 900.0, 120.0]))
    job = Job("j", 1, 2 * HOUR, 1000.0, START, START + 3 * HOUR, suspendable=True, resume_kwh=0.5)
    problem = pose(Grid(START, HOUR, 3), [site], [job])
    made = plan(problem)

    assert placements(problem, made.places) == [Placement("j", "a", 0, ((0, 1), (2, 3)))]
    assert made.cost_g == pytest.approx(280.0)


def test_restoring_holds_whole_slots():
    """With 6 minutes to resume, one slot more is held: hours 0, 2 (restored) and 3 (work)."""
    site = Site("a", 1, np.array([100.0, 900.0, 800.0, 120.0]))
    job = Job("j", 1, 2 * HOUR, 1000.0, START, START + 4 * HOUR, suspendable=True, resume_ms=HOUR // 10, resume_kwh=0.1)
    problem = pose(Grid(START, HOUR, 4), [site], [job])
    made = plan(problem)

    assert placements(problem, made.places) == [Placement("j", "a", 0, ((0, 1), (2, 4)))]
    assert made.cost_g == pytest.approx(100.0 + 0.1 * 800.0 + 120.0)


def test_a_cap_is_chosen_where_it_saves():
    """At 0.7 of the power and 1.25 of the time 4 h become 5 h: 0.875 of the energy, at 200 g/kWh."""
    job = Job("j", 1, 4 * HOUR, 1000.0, START, START + 6 * HOUR, levels=[Level(1.25, 0.7)])
    problem = pose(Grid(START, HOUR, 6), [Site("a", 1, 200.0)], [job])
    hurried = pose(Grid(START, HOUR, 6), [Site("a", 1, 200.0)], [job], Weights(delay_g_per_gpu_h=101.0))

    assert plan(problem).cost_g == pytest.approx(4 * 0.875 * 200.0)
    assert plan(hurried).cost_g == pytest.approx(4 * 200.0)  # an hour of delay is worth more than 100 g


def test_moving_data_has_its_price_and_takes_its_time():
    """Moving takes 1 kWh at the mean of 87.5 g/kWh and an hour; where it takes longer, the clean hour is missed."""
    sites = [Site("home", 1, 300.0), Site("away", 1, np.array([100.0, 100.0, 50.0, 100.0]))]
    job = Job("j", 1, HOUR, 1000.0, START, START + 3 * HOUR, sites={"home": (0.0, 0), "away": (1.0, 2 * HOUR + 1)})
    near = replace(job, sites={"home": (0.0, 0), "away": (1.0, HOUR)})

    assert plan(pose(Grid(START, HOUR, 4), sites, [job])).cost_g == pytest.approx(300.0)
    assert plan(pose(Grid(START, HOUR, 4), sites, [near])).cost_g == pytest.approx(1.0 * 87.5 + 1.0 * 50.0)


def test_a_profile_is_weighed_phase_by_phase():
    """Half an hour at 2 kW, half at 0, an hour at 1 kW: 1 kWh in the first slot, 1 kWh in the second."""
    profile = [(HOUR // 2, 2000.0), (HOUR // 2, 0.0), (HOUR, 1000.0)]
    job = Job("j", 1, 0, 0.0, START, START + 2 * HOUR, profile=profile)
    made = plan(pose(Grid(START, HOUR, 2), [Site("a", 1, np.array([100.0, 300.0]))], [job]))

    assert made.cost_g == pytest.approx(400.0)


def test_a_critical_job_has_its_place_before_all_others():
    """Three jobs need the only hour of 4 GPUs; the small critical one gets it, however large the others."""
    jobs = [Job(f"j{i}", 4, HOUR, 1000.0, START, START + HOUR) for i in range(2)]
    jobs.append(Job("vital", 1, HOUR, 100.0, START, START + HOUR, tier="critical"))
    problem = pose(Grid(START, HOUR, 1), [Site("a", 4, 100.0)], jobs)
    made = plan(problem)

    assert made.unplaced == ["j0", "j1"]
    assert [p.job for p in placements(problem, run_now(problem)) if p] == ["vital"]


def test_hours_that_pay_for_themselves_are_used_and_state_no_gap():
    """At −0.5 a kWh and 1000 g a unit of money an hour of 100 g/kWh is worth −400: taken, and no ratio is claimed."""
    site = Site("a", 1, 100.0, price_per_kwh=np.array([0.2, -0.5]))
    job = Job("j", 1, HOUR, 1000.0, START, START + 2 * HOUR)
    made = plan(pose(Grid(START, HOUR, 2), [site], [job], Weights(money_g=1000.0)))

    assert made.cost_g == pytest.approx(-400.0)
    assert made.bound_g <= -400.0
    assert made.gap is None
    assert made.unplaced == []


def test_what_finds_no_room_is_named_and_states_no_gap():
    """Two jobs need the only hour: one is placed, the other is named, and no gap is claimed."""
    jobs = [Job(f"j{i}", 1, HOUR, 1000.0, START, START + HOUR) for i in range(2)]
    made = plan(pose(Grid(START, HOUR, 1), [Site("a", 1, 100.0)], jobs))

    assert len(made.unplaced) == 1
    assert made.gap is None
    assert made.cost_g == pytest.approx(100.0)


def test_a_crowded_week_is_placed_within_two_percent():
    """400 jobs on two sites that are 80 % full: all placed, close to the bound, well under running now."""
    problem = crowded(400)
    made = plan(problem)

    assert checked(problem, made.places).faults == ()
    assert made.unplaced == []
    assert made.gap is not None
    assert made.gap < 0.02
    assert made.cost_g < cost_of(problem, run_now(problem))


def crowded(n: int, seed: int = 3) -> Problem:
    """Return two sites, a week, and jobs of up to 8 GPUs with a day or more of slack."""
    rng = np.random.default_rng(seed)
    grid = Grid(START, HOUR, 216)
    t = np.arange(216)
    gpus, hours = rng.choice([1, 2, 4, 8], n), rng.integers(1, 9, n)
    room = float(np.ceil((gpus * hours).sum() / (0.8 * 168 * 2)))
    sites = [
        Site("a", room, 300 + 100 * np.cos(2 * np.pi * (t - 19) / 24), pue=1.2),
        Site("b", room, 250 + 80 * np.cos(2 * np.pi * (t - 3) / 24), pue=1.3),
    ]
    release = START + np.sort(rng.integers(0, 160, n)) * HOUR
    jobs = [
        Job(f"j{i}", int(gpus[i]), int(hours[i]) * HOUR, 500.0, int(release[i]),
            int(release[i] + (hours[i] + 24 + rng.integers(0, 24)) * HOUR))
        for i in range(n)
    ]  # fmt: skip
    return pose(grid, sites, jobs, Weights(delay_g_per_gpu_h=1.0))


def test_without_numba_the_plan_is_the_same():
    """The plain path gives the same places, cost and bound to the last bit."""
    code = (
        "import json, sys\n"
        "from tests.plan.test_place import crowded\n"
        "from wattkeeper.plan.place import plan\n"
        "from wattkeeper.plan.bound import climb\n"
        "p = crowded(30)\n"
        "m = plan(p, prices=climb(p, most=25))\n"
        "json.dump([m.places.mode.tolist(), m.places.start.tolist(), m.cost_g.hex(), m.bound_g.hex()], sys.stdout)\n"
    )

    def run(**extra: str) -> object:
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **extra}, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    assert run() == run(NUMBA_DISABLE_JIT="1")


def test_columns_and_records_pose_the_same_problem():
    """Jobs given as columns lead to the same modes as jobs given as records."""
    sites = [Site("a", 4, 100.0), Site("b", 4, 200.0)]
    jobs = [Job("x", 2, HOUR, 400.0, START, START + 4 * HOUR, sites={"b": (0.5, HOUR)}, levels=[Level(1.5, 0.6)])]
    one, other = (pose(Grid(START, HOUR, 6), sites, j) for j in (jobs, Jobs.of(jobs, sites)))

    assert all((a == b).all() for a, b in zip(one.modes, other.modes, strict=True))
    assert one.modes.length.tolist() == [1, 2]
    assert (one.modes.site == 1).all()
    assert plan(one).places.mode.tolist() != [NOWHERE]
