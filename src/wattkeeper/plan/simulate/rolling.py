"""The planner as a policy: it plans anew whenever something arrives or the forecast moves, and knows only the past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.again import along, plan_ahead
from wattkeeper.plan.bound import Prices, climb
from wattkeeper.plan.modes import NOWHERE
from wattkeeper.plan.place import Plan, improve, plan
from wattkeeper.plan.placement import Placement, placements
from wattkeeper.plan.problem import Grid, Jobs, Problem, pose
from wattkeeper.plan.simulate.foresight import Foresight, Mended
from wattkeeper.plan.simulate.history import History, Wish, wish_from, wish_of

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

IMPROVED = 2000
"""Queues up to this size are improved after planning."""

_PASSES = 60
"""Passes over the queue that carry the prices of the last plan on; many where only a few would change them."""

_WEEK_H, _DAY_H, _BLOCK_H = 168, 24, 6
_GRACE_H = 24
"""A job that cannot keep its deadline any more may end so much later than it could, and is not put off until then."""


def quiet(_done: int, _total: int) -> None:
    """Report no progress."""


def clairvoyant(history: History) -> tuple[Plan, NDArray[np.bool_]]:
    """Plan the whole history at once, knowing all arrivals and the true signals.

    Returns the plan and (n,) whether a job's deadline was taken off, because no room was found for it before. The bound
    holds for every policy that ends all jobs and is late with none but these.
    """
    late = np.zeros(len(history.jobs), np.bool_)
    while True:
        jobs = replace(history.jobs, deadline_ms=np.where(late, history.grid.end_ms, history.jobs.deadline_ms))
        problem = replace(history, jobs=jobs).problem(history.column("intensity_g_per_kwh"))
        made = plan(problem)
        lost = problem.planned[made.places.mode == NOWHERE]
        if late[lost].all():
            break
        late[lost] = True
    return (improve(made, rounds=50) if len(problem.planned) <= IMPROVED else made), late


def as_wish(history: History, made: Plan) -> Wish:
    """Return what a plan of the whole history asks for."""
    return wish_from(history, placements(made.problem, made.places), made.problem.planned)


def planner(history: History, foresight: Foresight, progress: Callable[[int, int], None] = quiet) -> Wish:
    """Let the planner run the history, slot by slot.

    It knows what has been released and the forecast as it looks then, mended by its past. Where the last two weeks were
    alike it expects the arrivals of the last one again (`foretold`). A job that starts keeps its stretches, and so does
    one whose data begin to move. One whose deadline cannot be kept any more runs soon after. progress: called with slots
    done and in all.
    """
    grid, n = history.grid, len(history.jobs)
    free = history.column("gpus").copy()
    mended = Mended(foresight, max(round(_DAY_H / grid.slot_h), 1))
    number = {site.id: i for i, site in enumerate(history.sites)}
    begun, site = np.zeros(n, np.bool_), history.home.copy()
    stretches: list[tuple[int, int, int]] = []
    arrive = np.bincount(history.release, minlength=grid.slots)
    # what waits or is expected ends within a window of the week ahead; a week more for what is late
    ahead = int((history.due - history.release).max(initial=0)) + 2 * round(_WEEK_H / grid.slot_h)
    due, grace = history.due.copy(), round(_GRACE_H / grid.slot_h)
    since, starting = 0, dict[int, list[tuple[int, Placement]]]()
    prices: tuple[Grid, Prices] | None = None
    for slot in range(grid.slots):
        progress(slot, grid.slots)
        known = np.flatnonzero((history.release <= slot) & ~begun).astype(np.int64)
        if not len(known):
            continue
        if arrive[slot] or foresight.moves(slot) or not starting:
            usual = _usual(history, slot)
            lasts = history.length[known] + history.moving[known].max(1)
            reach = ahead if len(usual) else int(max((due[known] - slot).max(), lasts.max())) + grace
            rest = history.part(slice(slot, min(grid.slots, slot + reach)))
            queue, awaited = _queues(history, mended.at(slot), rest, slot, known, usual, free, due)
            if not len(queue.planned):
                continue
            start = prices and _moved(prices, rest)
            if awaited:
                found = plan_ahead(queue, awaited, start=start)
            else:
                found = plan(queue, prices=start and climb(queue, start, most=_PASSES, delta=0.03, least=3e-4))
            since, prices, starting = slot, (rest, found.prices), {}
            for j, one in zip(known[queue.planned].tolist(), placements(queue, found.places), strict=True):
                if one:
                    starting.setdefault(one.slots[0][0] - int(history.moving[j, number[one.site]]), []).append((j, one))
        for j, one in starting.pop(slot - since, []):
            begun[j], site[j] = True, number[one.site]
            for a, b in one.slots:
                stretches.append((j, a + since, b + since))
                free[site[j], a + since : b + since] -= history.jobs.gpus[j]
    return wish_of(history, stretches, site)


def _moved(prices: tuple[Grid, Prices], rest: Grid) -> Prices:
    old, found = prices
    return Prices(along(found.gpu, old, rest), along(found.power, old, rest), 0.0)


def _queues(
    history: History,
    intensity: Floats,
    rest: Grid,
    slot: int,
    known: Int64s,
    usual: Jobs,
    free: Floats,
    due: Int64s,
) -> tuple[Problem, Problem | None]:
    """Return the problem of the jobs that wait, and that with those that usually arrive; None where there are none.

    due: (n,) slots, put off here for jobs that cannot keep theirs any more, to a new one that stays.
    """
    sites = history.seen(np.maximum(intensity, 0.0), slice(slot, slot + rest.slots), free)
    jobs = history.jobs.take(known)
    jobs = replace(jobs, deadline_ms=np.minimum(history.grid.start_ms + due[known] * rest.slot_ms, rest.end_ms))
    queue = pose(rest, sites, jobs, history.weights)
    if queue.skipped:
        late = known[[name in queue.skipped for name in jobs.ids]]
        due[late] = slot + history.length[late] + history.moving[late].max(1) + round(_GRACE_H / rest.slot_h)
        jobs = replace(jobs, deadline_ms=np.minimum(history.grid.start_ms + due[known] * rest.slot_ms, rest.end_ms))
        queue = pose(rest, sites, jobs, history.weights)
    if not len(usual):
        return queue, None
    columns = {f.name: getattr(usual, f.name) for f in fields(Jobs) if f.name not in {"ids", "profiles"}}
    both: dict[str, Any] = {name: np.concatenate((getattr(jobs, name), column)) for name, column in columns.items()}
    return queue, pose(rest, sites, Jobs(ids=[*jobs.ids, *usual.ids], **both), history.weights)


def _usual(history: History, slot: int) -> Jobs:
    """Return the arrivals to expect, those of the last week a week on; none where the week before foretold them badly."""
    week = round(_WEEK_H / history.grid.slot_h)
    past = (history.release > slot - week) & (history.release <= slot) & foretold(history, slot)
    usual = history.jobs.take(np.flatnonzero(past).astype(np.int64))
    later_ms = week * history.grid.slot_ms
    return replace(
        usual,
        ids=[f"usual {name}" for name in usual.ids],
        release_ms=usual.release_ms + later_ms,
        deadline_ms=usual.deadline_ms + later_ms,
    )


def foretold(history: History, slot: int) -> bool:
    """Return whether the week before would have foretold the GPU time asked for in the last one better than its mean.

    In blocks of six hours, by squared error. Bursts that do not come again, kept room for, cost more than they help.
    """
    block = max(round(_BLOCK_H / history.grid.slot_h), 1)
    blocks = round(_WEEK_H / _BLOCK_H)
    span = 2 * blocks * block
    if slot + 1 < span:
        return False
    asked = np.bincount(history.release, history.jobs.gpus * history.length, minlength=slot + 1)[: slot + 1]
    before, last = asked[-span:].reshape(2, blocks, block).sum(2)
    return bool(((last - before) ** 2).sum() < ((last - last.mean()) ** 2).sum())
