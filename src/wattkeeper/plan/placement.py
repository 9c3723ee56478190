"""A plan in words of the user: for each job its site, its stretches of time, its cap level, and what that draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.bound import everyone
from wattkeeper.plan.duration import whole_slots
from wattkeeper.plan.kernel import cost_jobs
from wattkeeper.plan.modes import NOWHERE, OFF, RIGID, Places
from wattkeeper.plan.problem import Problem, mean_seen

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Placement:
    """One job's place. slots: (first, after the last) of each stretch in which it holds its GPUs.

    A stretch after the first begins with the slots in which the job is restored. level: place in the job's cap
    levels, 0 for full power.
    """

    job: str
    site: str
    level: int
    slots: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Amounts:
    """What each planned job takes at its place, (p,) each; 0 where it has none. Energy is that of the facility.

    cost, water_l: NaN of a job that draws energy in a slot whose price or water is not known.
    delay_h: how much later it ends than it could on an empty cluster, in whole slots.
    """

    energy_kwh: Floats
    carbon_g: Floats
    cost: Floats
    water_l: Floats
    delay_h: Floats
    weighed_g: Floats


def placements(problem: Problem, places: Places) -> list[Placement | None]:
    """Return the place of each planned job, in the order of `problem.planned`; None where it has none."""
    modes = problem.modes
    found: list[Placement | None] = []
    for j, (m, start) in enumerate(zip(places.mode.tolist(), places.start.tolist(), strict=True)):
        if m == NOWHERE:
            found.append(None)
            continue
        if modes.resume[m] == RIGID:
            slots: tuple[tuple[int, int], ...] = ((start, start + int(modes.length[m])),)
        else:
            base = int(modes.mark0[j] - modes.window0[j])
            held = places.marks[base + start : base + modes.end[m]] != OFF
            turns = np.flatnonzero(np.diff(np.concatenate(([0], held.view(np.int8), [0])))) + start
            slots = tuple((int(a), int(b)) for a, b in turns.reshape(-1, 2))
        name = problem.jobs.ids[problem.planned[j]]
        found.append(Placement(name, problem.sites[modes.site[m]].id, int(problem.levels[m]), slots))
    return found


def amounts(problem: Problem, places: Places) -> Amounts:
    """Return energy, carbon, money, water and delay of every planned job."""
    modes, sites, grid = problem.modes, problem.sites, problem.grid
    placed = places.mode != NOWHERE

    def total(rate: Floats) -> Floats:
        job = np.repeat(problem.planned, np.diff(modes.mode0))
        moved = problem.jobs.transfer_kwh[job, modes.site] * mean_seen(rate, problem.blind)[modes.site]
        sums = np.zeros((len(sites), grid.slots + 1))
        np.cumsum(rate * grid.slot_h, axis=1, out=sums[:, 1:])
        lines = problem.plain._replace(energy=sums)
        cost = np.empty(len(places.mode))
        cost_jobs(modes._replace(fixed=moved, delay=np.zeros_like(moved)), lines, places, everyone(problem), cost)
        return cost

    def over_time(name: str) -> Floats:
        return np.stack([np.broadcast_to(np.asarray(getattr(s, name), np.float64), grid.slots) for s in sites])

    def valued(name: str) -> Floats:
        rate = over_time(name)
        unknown = np.isnan(rate)
        found = total(pue * np.where(unknown, 0.0, rate))
        if unknown.any():
            found[total(unknown.astype(np.float64)) > 0] = np.nan
        return found

    pue = np.nan_to_num(over_time("pue"), nan=1.0)
    carbon, cost, water = (valued(name) for name in ("intensity_g_per_kwh", "price_per_kwh", "water_l_per_kwh"))
    weighed = np.empty(len(places.mode))
    cost_jobs(modes, problem.plain, places, everyone(problem), weighed)
    delay = np.where(placed, (last_slot(problem, places) - _soonest(problem)) * grid.slot_h, 0.0)
    return Amounts(total(pue), carbon, cost, water, delay, weighed)


def last_slot(problem: Problem, places: Places) -> NDArray[np.int64]:
    """Return the slot before which each placed job has ended; −1 for the others."""
    modes = problem.modes
    end = np.where(places.mode == NOWHERE, -1, places.start + modes.length[places.mode])
    for j in np.flatnonzero((places.mode != NOWHERE) & (modes.resume[places.mode] != RIGID)):
        marks = places.marks[modes.mark0[j] : modes.mark0[j + 1]]
        end[j] = modes.window0[j] + np.flatnonzero(marks).max() + 1
    return end.astype(np.int64)


def _soonest(problem: Problem) -> NDArray[np.int64]:
    """Return the slot before which each planned job could have ended at full power with no data moved."""
    jobs, grid = problem.jobs, problem.grid
    length = whole_slots(jobs.held_ms(), grid.slot_ms)[problem.planned]
    ahead_ms = np.maximum(jobs.release_ms[problem.planned] - grid.start_ms, 0)
    soonest: NDArray[np.int64] = -(-ahead_ms // grid.slot_ms) + length.astype(np.int64)
    return soonest
