"""HiGHS on our plan: never worse, and the true optimum on small queues."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.plan.instances import cheapest, problems
from tests.plan.test_place import checked, crowded
from wattkeeper.plan.bound import price
from wattkeeper.plan.place import plan, room_of, uneven_g
from wattkeeper.plan.polish import polish, programme, solver
from wattkeeper.plan.problem import Problem

pytest.importorskip("highspy")


@settings(max_examples=60, deadline=None)
@given(problems(suspendable=False))
def test_small_queues_are_solved_to_the_end(problem: Problem):
    """Where our plan places all jobs, the polished one costs what the best of all plans costs, and the bound meets it."""
    made = plan(problem)
    best = cheapest(problem)
    if best is None or made.unplaced:
        return
    done = polish(made, seconds=20)

    assert checked(problem, done.places).faults == ()
    assert done.cost_g == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert done.bound_g <= best + 1e-6 * abs(best)
    # HiGHS stops at a gap of 1e-4, and its tangents stay under the cost of uneven delay by at most 0.5 %
    assert best == pytest.approx(done.bound_g, rel=2e-4, abs=1e-3 + 0.01 * uneven_g(problem, done.places))


@settings(max_examples=40, deadline=None)
@given(problems())
def test_polishing_keeps_suspendable_jobs_and_the_bound(problem: Problem):
    """The polished plan is feasible, costs no more, and its bound is still below all plans."""
    made = plan(problem)
    done = polish(made, seconds=20)

    assert checked(problem, done.places).faults == ()
    assert done.cost_g <= made.cost_g
    best = cheapest(problem)
    assert best is None or done.bound_g <= best + 1e-6 * abs(best)


def test_our_bound_is_just_below_the_linear_programme():
    """The LP relaxation is the best bound prices can give: ours stays under it, by less than 0.1 %."""
    problem = crowded(120)
    everyone = np.arange(len(problem.planned), dtype=np.int64)
    highs = solver(programme(problem, everyone, room_of(problem, None)), whole=False, seconds=60)
    highs.run()
    optimum = float(highs.getInfo().objective_function_value)
    bound = price(problem).bound

    assert bound <= optimum * (1 + 1e-9)
    assert bound >= optimum * (1 - 1e-3)
