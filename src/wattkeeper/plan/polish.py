"""Small queues, polished: the same problem as a mixed-integer programme that HiGHS solves from our plan on.

One column per (mode, start), one row per job, one row per site and slot that could fill up (GPUs, and power where there
is a budget). Where users' delay is evened out, a user has two more columns: the delay of all the user's jobs, and what
that costs, held above tangents of the parabola. That is never more than the true cost, so the programme's bound holds.
Suspendable jobs stay where the plan has them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.bound import waits
from wattkeeper.plan.highs import highspy, load
from wattkeeper.plan.modes import NOWHERE, RIGID, Places, Room
from wattkeeper.plan.place import Plan, cost_of, room_of
from wattkeeper.plan.problem import Problem

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_JOBS = 2000
"""Larger queues gain nothing from this in a minute."""

_TANGENTS_H = np.concatenate(([0.0], np.geomspace(0.05, 200.0, 60)))
"""Mean delays at which the parabola of its cost is touched: 15 % apart, which is off by at most 0.5 % in between."""


@dataclass(frozen=True, slots=True)
class Programme:
    """The programme: job, mode and start of each option (c,); the matrix in CSC form.

    cost: (c + 2 u,) of the options, the users' delay, and its cost. low, high: of each row; the jobs of `chosen` first,
    then limits on the slots, the users' delay, and tangents.
    """

    job: Int64s
    mode: Int64s
    start: Int64s
    cost: Floats
    begin: Int64s
    row: Int64s
    value: Floats
    chosen: Int64s
    low: Floats
    high: Floats


def programme(problem: Problem, chosen: Int64s, room: Room, already: Floats | None = None) -> Programme:
    """Write the programme of some rigid jobs in the room there is.

    already: (users,) delay of the jobs that are not chosen [GPU-h]; default: 0.
    """
    modes, slots = problem.modes, problem.grid.slots
    n_sites = len(problem.sites)
    parts: list[tuple[int, int, Int64s]] = []
    for place, j in enumerate(chosen.tolist()):
        for m in range(modes.mode0[j], modes.mode0[j + 1]):
            starts = np.arange(modes.first[m], modes.end[m] - modes.length[m] + 1)
            parts.append((place, m, starts))
    counts = np.array([len(p[2]) for p in parts], np.int64)
    job = np.repeat([p[0] for p in parts], counts).astype(np.int64)
    mode = np.repeat([p[1] for p in parts], counts).astype(np.int64)
    start = np.concatenate([p[2] for p in parts])
    length, site = modes.length[mode], modes.site[mode]
    first_row = len(chosen) + site * slots + start
    offsets = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    held = np.repeat(first_row, length) + offsets
    column = np.repeat(np.arange(len(job)), length)
    entries = [(np.arange(len(job)), job, np.ones(len(job))), (column, held, np.repeat(modes.gpus[mode], length))]
    limits = [np.maximum(room.gpus, 0.0).ravel()]
    if problem.limited:
        entries.append((column, held + n_sites * slots, np.repeat(modes.kw[mode], length)))
        limits.append(np.where(np.isfinite(room.kw), room.kw, 1e20).ravel())
    sure, limit = np.ones(len(chosen)), np.concatenate(limits)
    low, high = [sure, np.full(len(limit), -np.inf)], [sure, limit]
    if users := len(problem.users):
        more, low_of_users, high_of_users = _evened(problem, chosen[job], mode, start, already, len(sure) + len(limit))
        entries += more
        low.append(low_of_users)
        high.append(high_of_users)
    at, row, value = (np.concatenate(x) for x in zip(*entries, strict=True))
    order = np.lexsort((row, at))
    begin = np.concatenate(([0], np.cumsum(np.bincount(at, minlength=len(job) + 2 * users)))).astype(np.int64)
    cost = np.concatenate((_costs(problem, mode, start), np.zeros(users), np.ones(users)))
    return Programme(
        job, mode, start, cost, begin, row[order], value[order], chosen, np.concatenate(low), np.concatenate(high)
    )


def _evened(
    problem: Problem, job: Int64s, mode: Int64s, start: Int64s, already: Floats | None, row0: int
) -> tuple[list[tuple[Int64s, Int64s, Floats]], Floats, Floats]:
    """Return entries (column, row, value) and bounds of the rows that even out the users' delay.

    job: (c,) of each option. row0: the first of these rows. A tangent at delay d is steep × d × (delay − d / 2).
    """
    delays, modes, users = problem.delays, problem.modes, len(problem.users)
    user, each = delays.user[job], np.arange(users)
    some = np.flatnonzero(user >= 0)
    late = delays.late[mode] + delays.each[mode] * (start - modes.first[mode])
    asked = problem.weights.fairness_g / delays.steep
    touch = asked * _TANGENTS_H[:, None]
    rows = (row0 + users + np.arange(touch.size).reshape(touch.shape)).ravel()
    columns = np.tile(each, len(_TANGENTS_H)) + len(job)
    entries = [
        (some, row0 + user[some], late[some]),
        (len(job) + each, row0 + each, -np.ones(users)),
        (columns, rows, (delays.steep * touch).ravel()),
        (columns + users, rows, -np.ones(touch.size)),
    ]
    known = np.zeros(users) if already is None else already
    top = (delays.steep * touch * touch / 2).ravel()
    return entries, np.concatenate((-known, np.full(touch.size, -np.inf))), np.concatenate((-known, top))


def _costs(problem: Problem, mode: Int64s, start: Int64s) -> Floats:
    """Return what options cost, (c,)."""
    modes = problem.modes
    lines = problem.plain.energy
    site = modes.site[mode]
    cost: Floats = modes.fixed[mode] + modes.delay[mode] * (start - modes.first[mode])
    most = int((modes.phase0[1:] - modes.phase0[:-1])[mode].max(initial=0))
    begin = np.zeros_like(start)
    for k in range(most):
        phase = np.minimum(modes.phase0[mode] + k, modes.phase0[mode + 1] - 1)
        has = modes.phase0[mode] + k < modes.phase0[mode + 1]
        end = np.where(has, modes.phase_end[phase], begin)
        cost = cost + modes.phase_kw[phase] * (lines[site, start + end] - lines[site, start + begin])
        begin = end
    return cost


def solver(found: Programme, *, whole: bool, seconds: float, **options: Any) -> Any:
    """Return HiGHS with the programme loaded. whole: demand integers; otherwise it is the LP relaxation.

    options: of HiGHS. Raises MissingExtraError without highspy.
    """
    n_options, n_cols = len(found.job), len(found.cost)
    upper = np.where(np.arange(n_cols) < n_options, 1.0, np.inf)
    return load(
        found.cost, upper, found.low, found.high, (found.begin, found.row, found.value),
        integers=n_options if whole else 0, time_limit=float(seconds), **options,
    )  # fmt: skip


def polish(made: Plan, *, seconds: float = 60.0) -> Plan:
    """Return a plan that costs at most as much, and its bound raised where HiGHS proves more.

    seconds: wall time that HiGHS may take at most. Plans of more than MOST_JOBS jobs, or with an unplaced one, come
    back as they are. Raises MissingExtraError without highspy.
    """
    problem, modes = made.problem, made.problem.modes
    places = made.places
    rigid = modes.resume[modes.mode0[:-1]] == RIGID
    chosen = np.flatnonzero(rigid & (places.mode != NOWHERE)).astype(np.int64)
    if len(problem.planned) > MOST_JOBS or not len(chosen) or (places.mode == NOWHERE).any():
        return made
    others = Places(np.where(rigid, NOWHERE, places.mode), places.start, places.marks)
    found = programme(problem, chosen, room_of(problem, others), waits(problem, others).total)
    highs = solver(found, whole=True, seconds=seconds)
    ours = (found.mode == places.mode[chosen][found.job]) & (found.start == places.start[chosen][found.job])
    seed = highspy().HighsSolution()
    total = waits(problem, places).total
    seed.col_value = [*ours.astype(np.float64).tolist(), *total, *(problem.delays.steep / 2 * total**2)]
    highs.setSolution(seed)
    highs.run()
    taken = np.flatnonzero(np.asarray(highs.getSolution().col_value)[: len(found.job)] > 0.5)
    mode, start = places.mode.copy(), places.start.copy()
    if len(taken) == len(chosen) and len(np.unique(found.job[taken])) == len(chosen):
        mode[chosen[found.job[taken]]] = found.mode[taken]
        start[chosen[found.job[taken]]] = found.start[taken]
    better = Places(mode, start, places.marks)
    room, cost = room_of(problem, better), cost_of(problem, better)
    if cost >= made.cost_g or (room.gpus < 0).any() or (room.kw < -1e-9).any():
        better, cost = places, made.cost_g
    proven = float(highs.getInfo().mip_dual_bound) if len(chosen) == len(rigid) else -np.inf
    bound = max(made.bound_g, min(proven - 1e-7 * abs(proven), cost)) if np.isfinite(proven) else made.bound_g
    return Plan(problem, better, replace(made.prices, bound=bound), cost)
