"""The bound, against all plans there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.instances import HOUR, START, cheapest, every_choice, problems
from wattkeeper.plan.bound import evaluate, no_prices, price
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
