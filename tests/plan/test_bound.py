"""The bound, against all plans there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.instances import HOUR, START, cheapest, every_choice, problems
from wattkeeper.plan.bound import SAMPLE, evaluate, no_prices, price
from wattkeeper.plan.place import plan
from wattkeeper.plan.problem import Grid, Job, Problem, Site, pose


@settings(max_examples=80, deadline=None)
@given(problems(), st.integers(0, 2**32 - 1))
def test_no_plan_is_below_the_bound(problem: Problem, seed: int):
    """Whatever the prices, the best of all feasible plans costs at least the bound; also with prices at random."""
    best = cheapest(problem)
    if best is None:
        return
    rng = np.random.default_rng(seed)
    anywhere = evaluate(problem, rng.exponential(50, problem.gpus.shape), rng.exponential(20, problem.gpus.shape))

    assert no_prices(problem).bound <= best
    assert price(problem, most=60).bound <= best
    assert anywhere.prices.bound <= best


@settings(max_examples=80, deadline=None)
@given(problems())
def test_without_prices_each_job_takes_its_cheapest_option(problem: Problem):
    """The kernel's choice costs what the cheapest of all options costs, job for job, suspendable ones included."""
    expected = sum(min(c[2] for c in every_choice(problem, j)) for j in range(len(problem.planned)))

    assert no_prices(problem).bound == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_two_jobs_that_want_the_same_hour():
    """The bound meets the best plan: one job runs at 100 g/kWh, the other at 300."""
    site = Site("a", 1, np.array([300.0, 100.0]))
    jobs = [Job(f"j{i}", 1, HOUR, 1000.0, START, START + 2 * HOUR) for i in range(2)]
    found = price(pose(Grid(START, HOUR, 2), [site], jobs))

    assert no_prices(pose(Grid(START, HOUR, 2), [site], jobs)).bound == pytest.approx(200.0)  # both at 100
    assert found.bound == pytest.approx(400.0, rel=1e-3)  # 1 kWh × 100 + 1 kWh × 300
    assert found.bound <= 400.0


def test_a_power_budget_counts_in_the_bound():
    """1.5 kW of facility power at PUE 1.25 is 1.2 kW of IT: room for one job of 1 kW an hour, though 8 GPUs are free."""
    site = Site("a", 8, np.array([300.0, 100.0]), pue=1.25, power_kw=1.5)
    jobs = [Job(f"j{i}", 1, HOUR, 1000.0, START, START + 2 * HOUR) for i in range(2)]
    found = price(pose(Grid(START, HOUR, 2), [site], jobs))

    # relaxed, 1.2 jobs fit in the cheap hour: 1.25 × (1.2 × 100 + 0.8 × 300) = 450
    assert found.bound == pytest.approx(450.0, rel=1e-3)
    assert found.bound <= 500.0  # 1.25 × (100 + 300), the best plan


def test_a_sample_that_deceives_makes_no_bound_worse_than_none():
    """Every other job has 50 GPUs, and those alone are sampled: twice the load there is, which no prices can fit in.

    All jobs fit in their cheapest hour, so that the bound without prices is the cost of the best plan.
    """
    n = 2 * SAMPLE + 2
    site = Site("a", 25.5 * n, np.array([100.0, 300.0, 300.0]))
    jobs = [Job(f"j{i}", 1 if i % 2 else 50, HOUR, 100.0, START, START + (1 if i % 3 else 3) * HOUR) for i in range(n)]
    problem = pose(Grid(START, HOUR, 3), [site], jobs)

    assert no_prices(problem).bound == pytest.approx(n * 2.55 * 100)
    assert price(problem, most=40).bound >= no_prices(problem).bound * (1 - 1e-9)


def test_a_horizon_of_many_weeks():
    """Priced block by block, over the edges of blocks too: the plan is within 1 % of a bound that is above having none."""
    rng = np.random.default_rng(3)
    slots, n = 1300, 2500
    hours = np.arange(slots)
    site = Site("a", 9.0, 300 + 150 * np.sin(hours / 24 * 2 * np.pi) + 30 * rng.standard_normal(slots))
    release = np.sort(rng.integers(0, slots - 40, n))
    jobs = [
        Job(f"j{i}", int(rng.integers(1, 4)), int(k) * HOUR, 500.0, START + int(t) * HOUR,
            START + int(t + k + 30) * HOUR, suspendable=i % 3 > 0)
        for i, (t, k) in enumerate(zip(release, rng.integers(1, 4, n), strict=True))
    ]  # fmt: skip
    problem = pose(Grid(START, HOUR, slots), [site], jobs)
    found = price(problem, most=300)
    made = plan(problem, prices=found)

    assert not made.unplaced
    assert 1.05 * no_prices(problem).bound < found.bound <= made.cost_g < 1.01 * found.bound
