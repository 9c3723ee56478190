"""Small queues, polished: the same problem as a mixed-integer programme that HiGHS solves from our plan on.

One column per (mode, start), one row per job, one row per site and slot that could fill up (GPUs, and power where there
is a budget). Suspendable jobs stay where the plan has them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.errors import MissingExtraError
from wattkeeper.plan.modes import NOWHERE, RIGID, Places, Room
from wattkeeper.plan.place import Plan, cost_of, room_of
from wattkeeper.plan.problem import Problem

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_JOBS = 2000
"""Larger queues gain nothing from this in a minute."""


@dataclass(frozen=True, slots=True)
class Programme:
    """The programme, by columns: job, mode and start of each (c,), its cost; rows of the matrix in CSC form.

    Rows: the jobs of `chosen` first, each = 1; then limits, each at most `limit`.
    """

    job: Int64s
    mode: Int64s
    start: Int64s
    cost: Floats
    begin: Int64s
    row: Int64s
    value: Floats
    chosen: Int64s
    limit: Floats


def programme(problem: Problem, chosen: Int64s, room: Room) -> Programme:
    """Write the programme of some rigid jobs in the room there is."""
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
    cost = _costs(problem, mode, start)
    length, site = modes.length[mode], modes.site[mode]
    kinds = 2 if problem.limited else 1
    first_row = len(chosen) + site * slots + start
    offsets = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    held = np.repeat(first_row, length) + offsets
    column = np.repeat(np.arange(len(job)), length)
    rows = [np.arange(len(job)), column, column]
    cols = [job, held, held + n_sites * slots]
    values = [np.ones(len(job)), np.repeat(modes.gpus[mode], length), np.repeat(modes.kw[mode], length)]
    at, row, value = (np.concatenate(x[: kinds + 1]) for x in (rows, cols, values))
    order = np.lexsort((row, at))
    begin = np.concatenate(([0], np.cumsum(np.bincount(at, minlength=len(job))))).astype(np.int64)
    limits = [np.maximum(room.gpus, 0.0).ravel(), np.where(np.isfinite(room.kw), room.kw, 1e20).ravel()]
    limit = np.concatenate(limits[:kinds])
    return Programme(job, mode, start, cost, begin, row[order], value[order], chosen, limit)


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

    Raises MissingExtraError without highspy.
    """
    try:
        import highspy  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingExtraError("wattkeeper.plan.polish", "highspy", "polish") from error
    n_jobs, n_rows, n_cols = len(found.chosen), len(found.chosen) + len(found.limit), len(found.cost)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = n_cols, n_rows
    lp.col_cost_ = found.cost
    lp.col_lower_, lp.col_upper_ = np.zeros(n_cols), np.ones(n_cols)
    lp.row_lower_ = np.concatenate((np.ones(n_jobs), np.full(len(found.limit), -highspy.kHighsInf)))
    lp.row_upper_ = np.concatenate((np.ones(n_jobs), found.limit))
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = found.begin, found.row, found.value
    if whole:
        lp.integrality_ = [highspy.HighsVarType.kInteger] * n_cols
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("time_limit", float(seconds))
    for name, value in options.items():
        highs.setOptionValue(name, value)
    highs.passModel(lp)
    return highs


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
    found = programme(problem, chosen, room_of(problem, others))
    highs = solver(found, whole=True, seconds=seconds)
    ours = (found.mode == places.mode[chosen][found.job]) & (found.start == places.start[chosen][found.job])
    import highspy  # noqa: PLC0415 - optional; `solver` has seen to it

    seed = highspy.HighsSolution()
    seed.col_value = ours.astype(np.float64).tolist()
    highs.setSolution(seed)
    highs.run()
    taken = np.flatnonzero(np.asarray(highs.getSolution().col_value) > 0.5)
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
