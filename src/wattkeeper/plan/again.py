"""Planning again: what did not change keeps its place, and work is in proportion to what did."""

from __future__ import annotations

from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.bound import Choices, Prices, climb, empty_places, evaluate
from wattkeeper.plan.kernel import NOWHERE, RIGID, Places, cost_jobs
from wattkeeper.plan.place import Plan, cost_of, negotiate, overfull, plan, room_of, settle
from wattkeeper.plan.problem import Grid, Problem

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

_LOOK_AGAIN = 0.03
_WORTH_MOVING = 0.002


def replan(previous: Plan, problem: Problem, *, seed: int = 0) -> Plan:
    """Return a plan of a changed problem that keeps what it can of the previous one.

    Jobs are the same where their ids are. The grid may begin later, by whole slots. A job that still may stand where
    it stood stays there, unless it must make way or stands among those that would gain most by moving. The prices are
    the old ones, and so is the bound's quality; plan anew when the gap has grown. Falls back on planning anew when
    the new jobs find no room this way.
    """
    rng = np.random.default_rng(seed)
    gpu, power = (along(p, previous.problem.grid, problem.grid) for p in (previous.prices.gpu, previous.prices.power))
    chosen = evaluate(problem, gpu, power)
    prices = chosen.prices
    places, same = carry(previous, problem)
    fresh = np.flatnonzero(~same)
    places.mode[fresh], places.start[fresh] = chosen.places.mode[fresh], chosen.places.start[fresh]
    for j in fresh[problem.modes.resume[places.mode[fresh]] != RIGID]:
        marks = slice(problem.modes.mark0[j], problem.modes.mark0[j + 1])
        places.marks[marks] = chosen.places.marks[marks]
    room = room_of(problem, places)
    if not len(fresh) and len(same) == len(previous.problem.planned) and not overfull(room).any():
        return Plan(problem, places, prices, cost_of(problem, places))
    stood = places.mode.copy(), places.start.copy()
    if not negotiate(problem, prices, places, room, rng):
        return plan(problem, prices=prices, seed=seed)
    moved = (places.mode != stood[0]) | (places.start != stood[1]) | ~same
    some = np.union1d(np.flatnonzero(moved), _most_to_gain(problem, places, chosen))
    settle(problem, prices, places, room, rng, (0.8, 0.4, 0.0), some.astype(np.int64), _WORTH_MOVING)
    if (places.mode == NOWHERE).any():
        return plan(problem, prices=prices, seed=seed)
    return Plan(problem, places, prices, cost_of(problem, places))


def plan_ahead(problem: Problem, expected: Problem, *, start: Prices | None = None, seed: int = 0) -> Plan:
    """Plan a queue while room is kept for jobs that are not known yet.

    expected: the same grid and sites with the jobs of the queue and those that usually arrive, drawn from the past;
    they set the prices and get no place. start: the prices of the last step, moved along (see `along`).
    """
    prices = climb(expected, start, most=120, delta=0.03, least=3e-4)
    kept = evaluate(problem, prices.gpu, prices.power).prices
    return plan(problem, prices=kept, seed=seed, keep_room=True)


def along(values: Floats, old: Grid, new: Grid) -> Floats:
    """Return prices of an old grid on one that begins later by whole slots; slots beyond the old end cost nothing."""
    by = shift(old, new)
    moved = np.zeros((len(values), new.slots))
    part = values[:, by : by + new.slots]
    moved[:, : part.shape[1]] = part
    return moved


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
    cost_jobs(problem.modes, lines, places, elsewhere, cost)
    most = min(int(_LOOK_AGAIN * len(cost)) + 1, len(elsewhere))
    loss = cost[elsewhere] - chosen.cost[elsewhere]
    worst: Int64s = elsewhere[np.argsort(-loss, kind="stable")[:most]]
    return worst
