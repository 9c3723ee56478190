"""Planning again: what did not change keeps its place, and work is in proportion to what did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.bound import Choices, Prices, climb, empty_places, evaluate, no_prices
from wattkeeper.plan.kernel import cost_jobs
from wattkeeper.plan.modes import NOWHERE, RESUME, RIGID, RUN, Places
from wattkeeper.plan.place import Plan, cost_of, mend, negotiate, overfull, plan, room_of, settle
from wattkeeper.plan.problem import Grid, Problem

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

_LOOK_AGAIN = 0.03
_WORTH_MOVING, _WORTH_LEAVING = 0.002, 0.05
"""Parts of its cost that a job must gain to move: one that stands badly, and any other."""
_TIGHT = 0.005
_MENDED = 1000
"""Queues up to this size are mended around what changed; larger ones are as good as the bound can tell without it."""


Spot = tuple[str, float, tuple[tuple[int, int], ...]]
"""Where a job stood: site, power as a part of full power, and stretches of slots."""


@dataclass(frozen=True, slots=True)
class Before:
    """A plan made earlier, as it was told: its prices by site and by user (see Prices), and where its jobs stood."""

    grid: Grid
    gpu: Mapping[str, Floats]
    power: Mapping[str, Floats]
    delay: Mapping[str, float]
    spots: Mapping[str, Spot]


def replan(previous: Plan, problem: Problem, *, seed: int = 0) -> Plan:
    """Return a plan of a changed problem that keeps what it can of the previous one.

    Jobs are the same where their ids are. The grid may begin later, by whole slots. A job that still may stand where
    it stood stays there, unless it must make way, stands among those that would gain most by moving, or gains much: in
    queues of up to 1000 jobs all are looked at, and those near a change may change places. Where no job came or
    went, none moves but for a gain, so that planning the same again and again comes to rest. The prices are the old
    ones, and so is the bound's quality; plan anew when the gap has grown. Falls back on planning anew when the new jobs
    find no room this way.
    """
    gpu, power = (along(p, previous.problem.grid, problem.grid) for p in (previous.prices.gpu, previous.prices.power))
    chosen = evaluate(problem, gpu, power, by_user(previous.prices.delay, previous.problem, problem))
    places, same = carry(previous, problem)
    return _go_on(problem, chosen, places, same, len(previous.problem.planned), seed)


def resume(before: Before, problem: Problem, *, seed: int = 0) -> Plan:
    """Do as `replan` does, from a plan as it was told."""

    def prices(by_site: Mapping[str, Floats]) -> Floats:
        nothing = np.zeros(before.grid.slots)
        return along(np.stack([by_site.get(s.id, nothing) for s in problem.sites]), before.grid, problem.grid)

    delay = np.array([before.delay.get(user, 0.0) for user in problem.users])
    chosen = evaluate(problem, prices(before.gpu), prices(before.power), delay)
    places, same = stand(before, problem)
    return _go_on(problem, chosen, places, same, len(before.spots), seed)


def _go_on(problem: Problem, chosen: Choices, places: Places, same: NDArray[np.bool_], were: int, seed: int) -> Plan:
    """Plan from places of which the same ones stand, while others are fresh. were: jobs in the plan before."""
    rng = np.random.default_rng(seed)
    prices, fresh = chosen.prices, np.flatnonzero(~same)
    places.mode[fresh], places.start[fresh] = chosen.places.mode[fresh], chosen.places.start[fresh]
    for j in fresh[problem.modes.resume[places.mode[fresh]] != RIGID]:
        marks = slice(problem.modes.mark0[j], problem.modes.mark0[j + 1])
        places.marks[marks] = chosen.places.marks[marks]
    room = room_of(problem, places)
    stood = places.mode.copy(), places.start.copy()
    if len(fresh) or len(same) != were or overfull(room).any():
        if not negotiate(problem, prices, places, room, rng):
            return _told(problem, plan(problem, prices=prices, seed=seed).places, prices)
        moved = _moved(places, stood) | ~same
        some = np.union1d(np.flatnonzero(moved), _most_to_gain(problem, places, chosen)).astype(np.int64)
        settle(problem, prices, places, room, rng, (0.8, 0.4, 0.0), some, _WORTH_MOVING)
    else:
        some = np.empty(0, np.int64)
    if (places.mode == NOWHERE).any():
        return _told(problem, plan(problem, prices=prices, seed=seed).places, prices)
    if len(places.mode) <= _MENDED:
        settle(problem, prices, places, room, rng, (0.0,), keep=_WORTH_LEAVING)
        around = np.union1d(np.flatnonzero(_moved(places, stood)), some).astype(np.int64)
        mend(problem, prices, places, room, rng, around, _WORTH_LEAVING)
    elif not len(some):
        settle(problem, prices, places, room, rng, (0.0,), _most_to_gain(problem, places, chosen), _WORTH_LEAVING)
    return _told(problem, places, prices)


def _moved(places: Places, stood: tuple[Int64s, Int64s]) -> NDArray[np.bool_]:
    """Return whether each job stands elsewhere than it stood, (n,)."""
    return np.asarray((places.mode != stood[0]) | (places.start != stood[1]))


def _told(problem: Problem, places: Places, prices: Prices) -> Plan:
    """Return the plan. What is left of a queue may not need its old prices: a loose bound makes way for that of none."""
    made = Plan(problem, places, prices, cost_of(problem, places))
    if made.gap is not None and made.gap < _TIGHT:
        return made
    return replace(made, prices=replace(prices, bound=max(prices.bound, no_prices(problem).bound)))


def plan_ahead(problem: Problem, expected: Problem, *, start: Prices | None = None, seed: int = 0) -> Plan:
    """Plan a queue while room is kept for jobs that are not known yet.

    expected: the same grid and sites with the jobs of the queue and those that usually arrive, drawn from the past;
    they set the prices and get no place. start: the prices of the last step, moved along (see `along`).
    """
    prices = climb(expected, start, most=120, delta=0.03, least=3e-4)
    kept = evaluate(problem, prices.gpu, prices.power, by_user(prices.delay, expected, problem)).prices
    return plan(problem, prices=kept, seed=seed, keep_room=True)


def along(values: Floats, old: Grid, new: Grid) -> Floats:
    """Return prices of an old grid on one that begins later by whole slots; slots beyond the old end cost nothing."""
    by = shift(old, new)
    moved = np.zeros((len(values), new.slots))
    part = values[:, by : by + new.slots]
    moved[:, : part.shape[1]] = part
    return moved


def by_user(delay: Floats, old: Problem, new: Problem) -> Floats:
    """Return prices of users' delay for another problem; users that are new there begin at 0."""
    known = dict(zip(old.users, delay.tolist(), strict=True))
    return np.array([known.get(user, 0.0) for user in new.users])


def shift(old: Grid, new: Grid) -> int:
    """Return how many slots a grid begins after another. Raises ValueError where their slots do not coincide."""
    by, rest = divmod(new.start_ms - old.start_ms, old.slot_ms)
    if old.slot_ms != new.slot_ms or rest or by < 0:
        raise ValueError("A plan can be carried on to a grid of equal slots that begins on one of its own.")
    return int(by)


def carry(previous: Plan, problem: Problem) -> tuple[Places, NDArray[np.bool_]]:
    """Return the old places in the new problem, and (n,) whether each job has one that its limits still allow."""
    old, new = previous.problem.modes, problem.modes
    by = shift(previous.problem.grid, problem.grid)
    names, knew = _names(problem), _names(previous.problem)
    number = dict(zip(knew, range(len(knew)), strict=True))
    was = np.fromiter(map(number.get, names, repeat(-1)), np.int64, len(names))
    places = empty_places(problem)
    if not len(was) or not number:
        return places, np.zeros(len(was), np.bool_)
    mode = previous.places.mode[was]
    now = new.mode0[:-1] + mode - old.mode0[was]
    same = (was >= 0) & (mode != NOWHERE) & (now < new.mode0[1:])
    now = np.where(same, now, new.mode0[:-1])
    start = previous.places.start[was] - by
    for name in ("site", "length", "gpus", "kw", "resume"):
        same &= getattr(new, name)[now] == getattr(old, name)[mode]
    same &= problem.levels[now] == previous.problem.levels[mode]
    same &= (start >= new.first[now]) & ((start + new.length[now] <= new.end[now]) | (new.resume[now] != RIGID))
    for j in np.flatnonzero(same & (new.resume[now] != RIGID)):
        same[j] = _carry_marks(previous, problem, int(was[j]), int(j), int(new.end[now[j]]), by, places)
    places.mode[same], places.start[same] = now[same], start[same]
    return places, same


def stand(before: Before, problem: Problem) -> tuple[Places, NDArray[np.bool_]]:
    """Return as `carry` does, from a plan as it was told."""
    modes, by, places = problem.modes, shift(before.grid, problem.grid), empty_places(problem)
    same = np.zeros(len(places.mode), np.bool_)
    for j, name in enumerate(_names(problem)):
        if name not in before.spots:
            continue
        site, power, told = before.spots[name]
        slots = [(a - by, b - by) for a, b in told]
        powers = problem.jobs.power[problem.planned[j]]
        for m in range(modes.mode0[j], modes.mode0[j + 1]):
            like = problem.sites[modes.site[m]].id == site and abs(powers[problem.levels[m]] - power) < 1e-6
            if like and _may_stand(problem, m, slots):
                places.mode[j], places.start[j], same[j] = m, slots[0][0], True
                if modes.resume[m] != RIGID:
                    _mark(problem, places, j, int(modes.resume[m]), slots)
    return places, same


def _may_stand(problem: Problem, m: int, slots: list[tuple[int, int]]) -> bool:
    """Return whether a mode allows some stretches of slots."""
    modes, q = problem.modes, int(problem.modes.resume[m])
    restored = max(q, 0) * (len(slots) - 1)
    return bool(
        slots[0][0] >= modes.first[m]
        and slots[-1][1] <= modes.end[m]
        and sum(b - a for a, b in slots) - restored == modes.length[m]
        and (len(slots) == 1 or (q != RIGID and all(b - a > q for a, b in slots[1:])))
    )


def _mark(problem: Problem, places: Places, j: int, q: int, slots: list[tuple[int, int]]) -> None:
    """Write the slots of a suspendable job into the marks."""
    base = int(problem.modes.mark0[j] - problem.modes.window0[j])
    for n, (a, b) in enumerate(slots):
        places.marks[base + a : base + b] = RUN
        if n:
            places.marks[base + a : base + a + q] = RESUME


def _names(problem: Problem) -> list[str]:
    ids = problem.jobs.ids
    return list(ids) if len(problem.planned) == len(ids) else [ids[i] for i in problem.planned.tolist()]


def _carry_marks(previous: Plan, problem: Problem, was: int, j: int, end: int, by: int, places: Places) -> bool:
    """Copy the slots of a suspendable job; return whether all of them still lie before the end of its mode."""
    old, new = previous.problem.modes, problem.modes
    marks = previous.places.marks[old.mark0[was] : old.mark0[was + 1]]
    held = np.flatnonzero(marks)
    at = held + old.window0[was] - by
    if at.min() < new.window0[j] or at.max() >= end:
        return False
    places.marks[new.mark0[j] + at - new.window0[j]] = marks[held]
    return True


def _most_to_gain(problem: Problem, places: Places, chosen: Choices) -> Int64s:
    """Return the jobs that stand worst against their choice under the prices: a few in a hundred."""
    elsewhere = np.flatnonzero((places.mode != chosen.places.mode) | (places.start != chosen.places.start))
    cost = np.empty(len(places.mode))
    lines = problem.lines(chosen.prices.gpu, chosen.prices.power)
    cost_jobs(problem.priced(chosen.prices.delay), lines, places, elsewhere, cost)
    most = min(int(_LOOK_AGAIN * len(cost)) + 1, len(elsewhere))
    loss = cost[elsewhere] - chosen.cost[elsewhere]
    worst: Int64s = elsewhere[np.argsort(-loss, kind="stable")[:most]]
    return worst
