"""Users' delay evened out: a further hour costs more for whoever waits longer already.

That no plan is below the bound, and that costs are those of the check, holds with fairness too: the random problems of
test_bound and test_place have users.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.plan.instances import HOUR, START
from tests.plan.test_place import checked, crowded
from wattkeeper.plan.again import by_user, replan
from wattkeeper.plan.bound import price, waits
from wattkeeper.plan.place import Plan, cost_of, improve, plan, uneven_g
from wattkeeper.plan.placement import placements
from wattkeeper.plan.problem import Grid, Job, PlanInputError, Problem, Site, Weights, pose


def users_of(problem: Problem, fairness_g: float) -> Problem:
    """Return the problem with jobs that belong to four users in turn, the last of them with the fewest."""
    user = np.array(["ada", "bo", "ada", "cy", "ada", "bo", "ada", "dee"])[np.arange(len(problem.jobs)) % 8]
    return pose(
        problem.grid, problem.sites, replace(problem.jobs, user=user), replace(problem.weights, fairness_g=fairness_g)
    )


def mean_delay_h(made: Plan) -> np.ndarray:
    """Return each user's mean delay, GPU by GPU, counted from the records."""
    problem, jobs = made.problem, made.problem.jobs
    number = {name: i for i, name in enumerate(jobs.ids)}
    found: dict[str, list[tuple[float, float]]] = {}
    for one in placements(problem, made.places):
        assert one is not None
        i = number[one.job]
        release = -(-(int(jobs.release_ms[i]) - problem.grid.start_ms) // HOUR)
        late = one.slots[-1][1] - release - int(jobs.duration_ms[i]) // HOUR
        found.setdefault(str(jobs.user[i]), []).append((float(jobs.gpus[i]), late))
    return np.array([np.average([h for _, h in v], weights=[g for g, _ in v]) for _, v in sorted(found.items())])


def test_users_share_the_waiting():
    """Three jobs, one GPU, hours alike: ada with two jobs waits 0 + 2 h or 1 + 1... the least is a mean of 1 h for both.

    6 / 2 × GPUs × (mean delay)²: ada 1 h on 2 GPUs: 6, bo 1 h on 1 GPU: 3. bo first: 3 × 2 × 1.5² = 13.5; bo last:
    3 × 2² + 3 × 2 × 0.5² = 13.5. Energy is 3 kWh at 100 g.
    """
    jobs = [Job(i, 1, HOUR, 1000.0, START, user=i[:-1]) for i in ("ada1", "ada2", "bo1")]
    made = plan(pose(Grid(START, HOUR, 3), [Site("a", 1, 100.0)], jobs, Weights(fairness_g=6.0)))

    assert made.cost_g == pytest.approx(300 + 6 + 3)
    assert mean_delay_h(made).tolist() == [1.0, 1.0]
    assert made.bound_g <= made.cost_g


def test_each_hour_of_waiting_costs_more_than_the_last():
    """At 30 g: 300; 250 + 15; 210 + 60; 205 + 135. The job waits one hour, and three where fairness counts nothing."""
    site = Site("a", 1, np.array([300.0, 250.0, 210.0, 205.0]))
    grid, job = Grid(START, HOUR, 4), Job("j", 1, HOUR, 1000.0, START, user="ada")
    problem = pose(grid, [site], [job], Weights(fairness_g=30.0))

    assert plan(problem).cost_g == pytest.approx(265.0)
    assert plan(pose(grid, [site], [job])).cost_g == pytest.approx(205.0)
    # at 40 g an hour of delay, waiting one hour or two costs 290; less 40² / (2 × 30)
    assert price(problem).bound == pytest.approx(290 - 1600 / 60, rel=1e-3)
    assert price(problem).bound <= 265.0


def test_a_suspended_job_waits_until_its_last_slot():
    """Working in hours 0 and 2 ends an hour late: 100 + 120 + 30 / 2, less than 100 + 900 at once."""
    site = Site("a", 1, np.array([100.0, 900.0, 120.0]))
    job = Job("j", 1, 2 * HOUR, 1000.0, START, START + 3 * HOUR, suspendable=True, user="ada")
    made = plan(pose(Grid(START, HOUR, 3), [site], [job], Weights(fairness_g=30.0)))

    assert made.cost_g == pytest.approx(100 + 120 + 15)


def test_what_was_waited_before_counts():
    """Equal jobs of ada and bo, one hour for one of them; ada's was released 4 h ago: hers goes first.

    At 1 g: (0 + 4)² / 2 + 1² / 2 and 2 kWh at 100 g; the other way round (1 + 4)² / 2.
    """
    jobs = [Job("bo1", 1, HOUR, 1000.0, START, user="bo"), Job("ada1", 1, HOUR, 1000.0, START - 4 * HOUR, user="ada")]
    made = plan(pose(Grid(START, HOUR, 2), [Site("a", 1, 100.0)], jobs, Weights(fairness_g=1.0)))

    assert made.cost_g == pytest.approx(200 + 8 + 0.5)
    assert [p.slots[0][0] for p in placements(made.problem, made.places) if p] == [1, 0]


def test_jobs_of_nobody_and_jobs_whose_delay_counts_nothing_take_no_part():
    """Without a user, or with a delay weight of 0, the job waits for 205 g as if there were no fairness."""
    site = Site("a", 1, np.array([300.0, 250.0, 210.0, 205.0]))
    for job in (
        Job("j", 1, HOUR, 1000.0, START),
        Job("j", 1, HOUR, 1000.0, START, user="ada", delay_weight=0.0),
    ):
        made = plan(pose(Grid(START, HOUR, 4), [site], [job], Weights(fairness_g=30.0)))
        assert made.cost_g == pytest.approx(205.0)
        assert made.problem.users == ()


def test_on_a_crowded_week_the_longest_mean_delay_shrinks():
    """Four users on an 80 % full week: with fairness whoever waits longest waits less; the plan is within 2 %."""
    free, fair = (plan(users_of(crowded(300), f)) for f in (0.0, 5.0))

    assert checked(fair.problem, fair.places).faults == ()
    assert mean_delay_h(fair).max() < mean_delay_h(free).max()
    assert fair.gap is not None
    assert fair.gap < 0.02
    assert cost_of(fair.problem, free.places) > fair.cost_g


def test_what_the_kernels_count_is_what_the_records_say():
    """The sum of fairness / 2 × GPUs × (mean delay)², counted from the placements, after improving too."""
    made = improve(plan(users_of(crowded(120), 5.0)), rounds=3)
    jobs = made.problem.jobs
    gpus = np.array([jobs.gpus[jobs.user == user].sum() for user in sorted(set(jobs.user.tolist()))])

    assert uneven_g(made.problem, made.places) == pytest.approx(float((2.5 * gpus * mean_delay_h(made) ** 2).sum()))
    assert waits(made.problem, made.places).total == pytest.approx(gpus * mean_delay_h(made))
    assert checked(made.problem, made.places).cost_g == pytest.approx(made.cost_g)


def test_planning_again_goes_on_with_the_users_prices():
    """dee leaves: the prices of the others' delay are found by name, and it costs within 5 % of one made anew."""
    made = plan(users_of(crowded(300), 5.0))
    stay = np.flatnonzero(made.problem.jobs.user != "dee").astype(np.int64)
    less = pose(made.problem.grid, made.problem.sites, made.problem.jobs.take(stay), made.problem.weights)
    again = replan(made, less)

    assert (made.problem.users, less.users) == (("ada", "bo", "cy", "dee"), ("ada", "bo", "cy"))
    assert by_user(made.prices.delay, made.problem, less).tolist() == made.prices.delay[:3].tolist()
    assert len(again.prices.delay) == 3
    assert again.cost_g < 1.05 * plan(less).cost_g


def test_fairness_must_be_a_number():
    with pytest.raises(PlanInputError, match=r"Weight fairness_g is -1\.0; it must be a number of at least 0\."):
        pose(Grid(START, HOUR, 1), [Site("a", 1, 100.0)], [], Weights(fairness_g=-1.0))
