"""The planner as a policy: it plans anew whenever something arrives or the forecast moves, and knows only the past."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.again import along, plan_ahead
from wattkeeper.plan.bound import Prices
from wattkeeper.plan.kernel import NOWHERE
from wattkeeper.plan.place import Plan, improve, plan
from wattkeeper.plan.placement import Placement, placements
from wattkeeper.plan.problem import Grid, Jobs, Problem, pose
from wattkeeper.plan.simulate.foresight import Foresight
from wattkeeper.plan.simulate.history import History, Wish, wish_from, wish_of

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

IMPROVED = 2000
"""Queues up to this size are improved after planning."""

_WEEK_H = 168


def clairvoyant(history: History) -> tuple[Plan, NDArray[np.bool_]]:
    """Plan the whole history at once, knowing all arrivals and the true signals.

    Returns the plan and (n,) whether a job's deadline was taken off, because no room was found for it before. The bound
    holds for every policy that ends all jobs and is late with none but these.
    """
    late = np.zeros(len(history.jobs), np.bool_)
    while True:
        jobs = replace(history.jobs, deadline_ms=np.where(late, history.grid.end_ms, history.jobs.deadline_ms))
        problem = replace(history, jobs=jobs).problem(np.asarray(history.site.intensity_g_per_kwh, np.float64))
        made = plan(problem)
        lost = problem.planned[made.places.mode == NOWHERE]
        if late[lost].all():
            break
        late[lost] = True
    return (improve(made, rounds=50) if len(problem.planned) <= IMPROVED else made), late


def as_wish(history: History, made: Plan) -> Wish:
    """Return what a plan of the whole history asks for."""
    return wish_from(history, placements(made.problem, made.places), made.problem.planned)


def planner(history: History, foresight: Foresight) -> Wish:
    """Let the planner run the history, slot by slot.

    It knows what has been released, what arrived in the week before (and expects the same again), and the forecast as
    it looks then. A job that starts keeps its stretches. One whose deadline cannot be kept any more runs when it can.
    """
    grid, n = history.grid, len(history.jobs)
    free = np.asarray(history.site.gpus, np.float64).copy()
    begun = np.zeros(n, np.bool_)
    stretches: list[tuple[int, int, int]] = []
    arrive = np.bincount(history.release, minlength=grid.slots)
    # what waits or is expected ends within a window of the week ahead; a week more for what is late
    ahead = int((history.due - history.release).max(initial=0)) + 2 * round(_WEEK_H / grid.slot_h)
    since, starting = 0, dict[int, list[tuple[int, Placement]]]()
    prices: tuple[Grid, Prices] | None = None
    for slot in range(grid.slots):
        known = np.flatnonzero((history.release <= slot) & ~begun).astype(np.int64)
        if not len(known):
            continue
        if arrive[slot] or not foresight.still or not starting:
            rest = Grid(grid.at_ms(slot), grid.slot_ms, min(grid.slots - slot, ahead))
            queue, awaited = _queues(history, foresight, rest, slot, known, free)
            if not len(queue.planned):
                continue
            start = prices and _moved(prices, rest)
            found = plan_ahead(queue, awaited, start=start) if awaited else plan(queue)
            since, prices, starting = slot, (rest, found.prices), {}
            for j, one in zip(known[queue.planned].tolist(), placements(queue, found.places), strict=True):
                if one:
                    starting.setdefault(one.slots[0][0], []).append((j, one))
        for j, one in starting.pop(slot - since, []):
            begun[j] = True
            for a, b in one.slots:
                stretches.append((j, a + since, b + since))
                free[a + since : b + since] -= history.jobs.gpus[j]
    return wish_of(history, stretches)


def _moved(prices: tuple[Grid, Prices], rest: Grid) -> Prices:
    old, found = prices
    return Prices(along(found.gpu, old, rest), along(found.power, old, rest), 0.0)


def _queues(
    history: History, foresight: Foresight, rest: Grid, slot: int, known: Int64s, free: Floats
) -> tuple[Problem, Problem | None]:
    """Return the problem of the jobs that wait, and that with those that usually arrive; None in a first week."""
    span = slice(slot, slot + rest.slots)
    site = replace(
        history.site,
        gpus=free[span],
        intensity_g_per_kwh=np.maximum(foresight.at(slot)[span], 0.0),
        price_per_kwh=np.asarray(history.site.price_per_kwh)[span],
        pue=np.asarray(history.site.pue)[span],
    )
    jobs = history.jobs.take(known)
    queue = pose(rest, [site], jobs, history.weights)
    if queue.skipped:
        late = np.array([name in queue.skipped for name in jobs.ids])
        jobs = replace(jobs, deadline_ms=np.where(late, rest.end_ms, jobs.deadline_ms))
        queue = pose(rest, [site], jobs, history.weights)
    week = round(_WEEK_H / rest.slot_h)
    past = np.flatnonzero((history.release > slot - week) & (history.release <= slot)).astype(np.int64)
    if slot < week or not len(past):
        return queue, None
    usual = history.jobs.take(past)
    columns: dict[str, Any] = {
        f.name: getattr(usual, f.name) for f in fields(Jobs) if f.name not in {"ids", "profiles"}
    }
    for name in ("release_ms", "deadline_ms"):
        columns[name] = columns[name] + week * rest.slot_ms
    both: dict[str, Any] = {name: np.concatenate((getattr(jobs, name), column)) for name, column in columns.items()}
    return queue, pose(rest, [site], Jobs(ids=[*jobs.ids, *(f"usual {i}" for i in usual.ids)], **both), history.weights)
