"""Planning again: what did not change keeps its place, and work is in proportion to what did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.bound import Choices, Prices, climb, empty_places, evaluate, no_prices, ranges
from wattkeeper.plan.kernel import cost_jobs, hold_jobs
from wattkeeper.plan.modes import NOWHERE, RESUME, RIGID, RUN, Marks, Places, Room
from wattkeeper.plan.place import Plan, cost_of, crowded, improve, mend, negotiate, overfull, plan, room_of, settle
from wattkeeper.plan.problem import Grid, Problem

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LOOK_AGAIN = 0.03
_WORTH_MOVING, _WORTH_LEAVING = 0.002, 0.05
"""Parts of its cost that a job must gain to move: one that stands badly, and any other."""
_TINY = 100
_NEAR, _NEAR_TINY = 0.01, 0.004
"""How much dearer than planned anew a plan that keeps its places may be, as a part of the bound: of up to 1000 jobs, and
of a tiny queue, in which one job is a per cent of all."""
_CHARGES = (0.3, 0.1, 0.03, 0.01, 0.003)
"""What jobs pay to stand elsewhere than before, as parts of what a job costs on average."""
_ROUNDS, _ROUNDS_TINY = 20, 50
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
    it stood stays there, unless it must make way, stands among those that would gain most by moving, or gains much. In
    queues of up to 1000 jobs the new ones first take the room that is left; all jobs are looked at, those near a change
    may change places, and what costs more than `_NEAR` above a plan made anew gives way to one that does not. Where no
    job came or went, none moves but for a gain, so that planning the same again and again comes to rest. The prices of
    larger queues are the old ones, and so is the bound's quality; plan anew when the gap has grown. Falls back on
    planning anew when the new jobs find no room this way.
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


def _go_on(problem: Problem, chosen: Choices, places: Places, same: Bools, were: int, seed: int) -> Plan:
    """Plan from places of which the same ones stand, while others are fresh. were: jobs in the plan before."""
    stood = Places(np.where(same, places.mode, NOWHERE), places.start.copy(), places.marks.copy())
    kept = _keep(problem, chosen, places, stood, were, seed)
    if len(same) > _MENDED:
        return kept or _told(problem, plan(problem, prices=chosen.prices, seed=seed).places, chosen.prices)
    near, rounds = (_NEAR_TINY, _ROUNDS_TINY) if len(same) <= _TINY else (_NEAR, _ROUNDS)
    if kept and kept.gap is not None and kept.gap <= near:
        return kept
    anew = improve(plan(problem, seed=seed), rounds=rounds, seed=seed)
    return _weigh(kept, anew, stood, anew.cost_g + near * abs(anew.bound_g), seed)


def _keep(problem: Problem, chosen: Choices, places: Places, stood: Places, were: int, seed: int) -> Plan | None:
    """Return a plan in which most of what stood stays; None where no room was found for all jobs this way."""
    rng = np.random.default_rng(seed)
    prices, fresh = chosen.prices, np.flatnonzero(stood.mode == NOWHERE)
    places.mode[fresh], places.start[fresh] = chosen.places.mode[fresh], chosen.places.start[fresh]
    for j in fresh[problem.modes.resume[places.mode[fresh]] != RIGID]:
        marks = slice(problem.modes.mark0[j], problem.modes.mark0[j + 1])
        places.marks[marks] = chosen.places.marks[marks]
    room, few = room_of(problem, places), len(places.mode) <= _MENDED
    some = np.empty(0, np.int64)
    if len(fresh) or len(places.mode) != were or overfull(room).any():
        loose = np.union1d(fresh, crowded(problem, stood)).astype(np.int64)
        if not any(negotiate(problem, prices, places, room, rng, jobs) for jobs in ((loose, None) if few else (None,))):
            return None
        some = np.union1d(_moved(problem, places, stood), _most_to_gain(problem, places, chosen)).astype(np.int64)
        settle(problem, prices, places, room, rng, (0.8, 0.4, 0.0), some, _WORTH_MOVING)
        if few:
            bring_back(problem, places, room, stood, each=_WORTH_LEAVING)
    if (places.mode == NOWHERE).any():
        return None
    if few:
        settle(problem, prices, places, room, rng, (0.0,), keep=_WORTH_LEAVING)
        around = np.union1d(_moved(problem, places, stood), some).astype(np.int64)
        mend(problem, prices, places, room, rng, around, _WORTH_LEAVING)
    elif not len(some):
        settle(problem, prices, places, room, rng, (0.0,), _most_to_gain(problem, places, chosen), _WORTH_LEAVING)
    return _told(problem, places, prices)


def _weigh(kept: Plan | None, anew: Plan, stood: Places, most_g: float, seed: int) -> Plan:
    """Return a plan that keeps what stood and costs at most `most_g`, which is hardly more than the one made anew.

    Where the plan that was kept costs more, it is improved while every job pays to stand elsewhere than it stood: less
    and less, until the plan is cheap enough. If it never is, the plan made anew goes through the same.
    """
    problem = anew.problem
    if anew.unplaced:
        return kept or anew
    prices = max((one.prices for one in (kept, anew) if one), key=lambda one: one.bound)
    if kept and kept.cost_g <= most_g:
        return replace(kept, prices=prices)
    found = [anew.places]
    mean_g = abs(anew.cost_g) / len(stood.mode)
    for start in filter(None, (kept, anew)):
        for charge in _CHARGES:
            places = _charged(start, anew.prices, stood, charge * mean_g, seed)
            if cost_of(problem, places) <= most_g:
                found.append(places)
                break
    for places in found:
        bring_back(problem, places, room_of(problem, places), stood, most_g=most_g)
    best = min(found, key=lambda one: len(_moved(problem, one, stood)))
    return Plan(problem, best, prices, cost_of(problem, best))


def _charged(made: Plan, prices: Prices, stood: Places, charge_g: float, seed: int) -> Places:
    """Return the places of a plan improved while jobs pay to stand elsewhere than they stood [g each].

    Every job that is not suspendable gets one more mode for that, in which it can only start when it stood and does not
    pay.
    """
    problem, old, places = made.problem, made.problem.modes, made.places
    home = np.flatnonzero((stood.mode != NOWHERE) & (old.resume[stood.mode] == RIGID))
    was, start = stood.mode[home], stood.start[home]
    at = old.mode0[home + 1] + np.arange(len(home))
    mode = np.insert(np.arange(len(old.site)), old.mode0[home + 1], was)
    mode0 = old.mode0 + np.concatenate(([0], np.cumsum(np.isin(np.arange(len(stood.mode)), home))))
    phase, phase0 = ranges(old.phase0, mode)
    by_job = {"mode0", "phase0", "phase_end", "phase_kw", "mark0", "window0"}
    columns = {name: column[mode] for name, column in old._asdict().items() if name not in by_job}
    late, each = problem.delays.late[mode], problem.delays.each[mode]
    by = start - columns["first"][at]
    pays = np.repeat(np.isin(np.arange(len(stood.mode)), home), np.diff(mode0))
    pays[at] = False
    columns["fixed"] = columns["fixed"] + charge_g * pays
    columns["fixed"][at] += columns["delay"][at] * by
    late[at] += each[at] * by
    columns["first"][at], columns["end"][at] = start, start + columns["length"][at]
    modes = old._replace(
        mode0=mode0, phase0=phase0, phase_end=old.phase_end[phase], phase_kw=old.phase_kw[phase], **columns
    )
    charged = replace(
        problem, modes=modes, levels=problem.levels[mode], delays=problem.delays._replace(late=late, each=each)
    )
    now = places.mode + mode0[:-1] - old.mode0[:-1]
    stays = (places.mode[home] == was) & (places.start[home] == start)
    now[home[stays]] = at[stays]
    begun = Places(now, places.start.copy(), places.marks.copy())
    better = improve(Plan(charged, begun, prices, cost_of(charged, begun)), rounds=_ROUNDS, seed=seed).places
    return Places(mode[better.mode], better.start, better.marks)


def bring_back(
    problem: Problem, places: Places, room: Room, stood: Places, *, each: float = np.inf, most_g: float = np.inf
) -> None:
    """Put jobs back where they stood and fit, while the plan costs at most `most_g`; those first for which it costs least.

    each: the part of its cost that this may cost a job. places and room change.
    """
    while True:
        away = _moved(problem, places, stood)
        away = away[stood.mode[away] != NOWHERE]
        now, then = np.empty(len(places.mode)), np.empty(len(places.mode))
        for cost, some in ((now, places), (then, stood)):
            cost_jobs(problem.modes, problem.plain, some, away, cost)
        dearer = (then - now)[away]
        order = np.argsort(dearer, kind="stable")[: int((dearer <= each * np.abs(now[away])).sum())]
        returned = 0
        for j in away[order].tolist():
            spot = _spot(problem, places, j)
            _put(problem, places, room, j, _spot(problem, stood, j))
            if overfull(room).any() or cost_of(problem, places) > most_g:
                _put(problem, places, room, j, spot)
            else:
                returned += 1
        if not returned:
            return


def _spot(problem: Problem, places: Places, j: int) -> tuple[int, int, Marks]:
    """Return where a job stands: mode, start and marks."""
    marks = slice(problem.modes.mark0[j], problem.modes.mark0[j + 1])
    return int(places.mode[j]), int(places.start[j]), places.marks[marks].copy()


def _put(problem: Problem, places: Places, room: Room, j: int, spot: tuple[int, int, Marks]) -> None:
    """Move a job, whether it fits or not. places and room change."""
    one, marks = np.array([j]), slice(problem.modes.mark0[j], problem.modes.mark0[j + 1])
    hold_jobs(problem.modes, places, one, room, -1.0)
    places.mode[j], places.start[j], places.marks[marks] = spot
    hold_jobs(problem.modes, places, one, room, 1.0)


def _moved(problem: Problem, places: Places, stood: Places) -> Int64s:
    """Return the jobs that stand elsewhere than they stood."""
    marked = np.concatenate(([0], np.cumsum(places.marks != stood.marks)))[problem.modes.mark0]
    return np.flatnonzero((places.mode != stood.mode) | (places.start != stood.start) | (np.diff(marked) > 0))


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


def carry(previous: Plan, problem: Problem) -> tuple[Places, Bools]:
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


def stand(before: Before, problem: Problem) -> tuple[Places, Bools]:
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
