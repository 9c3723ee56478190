"""An independent check of a plan: cost and feasibility from the records alone, slowly and obviously.

Nothing here uses the kernels, the modes or any sum the planner made.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.placement import Placement
from wattkeeper.plan.problem import CRITICAL, Grid, Jobs, Site, Weights

_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Checked:
    """What a plan costs [g] by this check, and everything that is wrong with it."""

    cost_g: float
    faults: tuple[str, ...]


def check(
    grid: Grid, sites: Sequence[Site], jobs: Jobs, weights: Weights, placed: Sequence[Placement | None]
) -> Checked:
    """Recompute a plan's cost, and look for jobs that break a rule and slots that hold too much.

    jobs: those that were to be placed, and no others.
    """
    faults: list[str] = []
    place = {s.id: i for i, s in enumerate(sites)}
    number = {name: i for i, name in enumerate(jobs.ids)}
    slots = range(grid.slots)
    per_kwh = [[_per_kwh(site, weights, slot) for slot in slots] for site in sites]
    limits = {
        name: [[_value(getattr(site, name), slot) for slot in slots] for site in sites]
        for name in ("gpus", "pue", "power_kw")
    }
    gpus: dict[tuple[int, int], float] = defaultdict(float)
    watts: dict[tuple[int, int], float] = defaultdict(float)
    total = 0.0
    for one in placed:
        if one is None:
            continue
        i, s = number[one.job], place[one.site]
        faults += [f"{one.job}: {words}" for words in _broken(grid, jobs, i, s, one)]
        peak_kw = float(jobs.kw[i] * jobs.power[i, one.level])
        for begin, end in one.slots:
            for slot in range(begin, end):
                gpus[s, slot] += float(jobs.gpus[i])
                watts[s, slot] += peak_kw
        total += _cost(grid, per_kwh[s], s, jobs, i, weights, one)
    for (s, slot), held in sorted(gpus.items()):
        if held > limits["gpus"][s][slot] + _TOLERANCE:
            faults.append(f"{sites[s].id} slot {slot}: {held:g} GPUs held of {limits['gpus'][s][slot]:g}")
    for (s, slot), kw in sorted(watts.items()):
        facility_kw, most_kw = kw * limits["pue"][s][slot], limits["power_kw"][s][slot]
        if facility_kw > most_kw * (1 + _TOLERANCE) + _TOLERANCE:
            faults.append(f"{sites[s].id} slot {slot}: {facility_kw:g} kW of {most_kw:g}")
    return Checked(total + _uneven(grid, jobs, weights, placed, number), tuple(faults))


def _uneven(
    grid: Grid, jobs: Jobs, weights: Weights, placed: Sequence[Placement | None], number: dict[str, int]
) -> float:
    """Return what users' waiting counts beyond each job's own [g]: fairness / 2 × GPUs × (mean delay)², user by user."""
    delay, gpus = defaultdict[str, float](float), defaultdict[str, float](float)
    for i, user in enumerate(jobs.user.tolist()):
        gpus[user] += float(jobs.gpus[i] * jobs.delay_weight[i])
    for one in placed:
        if one is not None:
            i = number[one.job]
            delay[str(jobs.user[i])] += float(jobs.gpus[i] * jobs.delay_weight[i]) * (
                _late_h(grid, jobs, i, one) + max(grid.start_ms - int(jobs.release_ms[i]), 0) / MS_PER_HOUR
            )
    return sum(weights.fairness_g / 2 * gpus[u] * (delay[u] / gpus[u]) ** 2 for u in delay if u and gpus[u])


def _late_h(grid: Grid, jobs: Jobs, i: int, one: Placement) -> float:
    """Return how much later than it could a job ends [h]."""
    release = math.ceil(max(int(jobs.release_ms[i]) - grid.start_ms, 0) / grid.slot_ms)
    shortest = min(_slots(grid, jobs, i, float(slow)) for slow in jobs.slowdown[i] if not math.isnan(slow))
    return (one.slots[-1][1] - release - shortest) * grid.slot_h


def _slots(grid: Grid, jobs: Jobs, i: int, slowdown: float) -> int:
    """Return for how many slots room must be held."""
    corners = _corners(jobs, i)
    confidence, held = float(jobs.confidence[i]), 0.0
    for (p0, t0), (p1, t1) in itertools.pairwise(corners):
        if p0 <= confidence <= p1:
            held = t1 if p1 == confidence else t0 + (t1 - t0) * (confidence - p0) / (p1 - p0)
    return max(math.ceil(round(held * slowdown / grid.slot_ms, 9)), 1)


def _corners(jobs: Jobs, i: int) -> list[tuple[float, float]]:
    """Return (chance, time [ms]) from 0 to 1, straight in between."""
    told = [(float(p), float(t)) for p, t in zip(jobs.chance[i], jobs.within_ms[i], strict=True) if not math.isnan(p)]
    longest = float(jobs.duration_ms[i])
    return [(0.0, 0.0 if told else longest), *told, (1.0, longest)]


def _value(column: object, slot: int) -> float:
    values = np.asarray(column, np.float64)
    return float(values[slot] if values.ndim else values)


def _broken(grid: Grid, jobs: Jobs, i: int, s: int, one: Placement) -> list[str]:
    """Return the rules of its own that a job breaks."""
    found = []
    moving_ms = float(jobs.transfer_ms[i, s])
    release = math.ceil(max(int(jobs.release_ms[i]) - grid.start_ms, 0) / grid.slot_ms)
    first = release + math.ceil(moving_ms / grid.slot_ms)
    if math.isnan(jobs.transfer_kwh[i, s]):
        found.append(f"runs at {one.site}, which is not allowed")
    if one.slots[0][0] < first:
        found.append(f"starts in slot {one.slots[0][0]}, before its release and transfer allow it")
    if grid.start_ms + one.slots[-1][1] * grid.slot_ms > min(int(jobs.deadline_ms[i]), grid.end_ms):
        found.append("ends after its deadline or the horizon")
    if any(b <= a for a, b in one.slots) or any(y[0] <= x[1] for x, y in zip(one.slots, one.slots[1:], strict=False)):
        found.append("its stretches are empty or touch")
    if not 0 <= one.level < jobs.slowdown.shape[1] or math.isnan(jobs.slowdown[i, one.level]):
        return [*found, "runs at a cap level that it does not have"]
    needed = _slots(grid, jobs, i, float(jobs.slowdown[i, one.level]))
    restored = math.ceil(max(float(jobs.resume_ms[i]), 0.0) / grid.slot_ms) * (len(one.slots) - 1)
    if sum(b - a for a, b in one.slots) - restored != needed:
        found.append(f"works {sum(b - a for a, b in one.slots) - restored} slots of {needed}")
    if len(one.slots) > 1 and jobs.resume_ms[i] < 0:
        found.append("is suspended and must not be")
    if jobs.tier[i] == CRITICAL and (one.slots[0][0] != first or one.level or len(one.slots) > 1):
        found.append("is critical and was touched")
    return found


def _per_kwh(site: Site, weights: Weights, slot: int) -> float:
    """Return what 1 kWh of IT energy costs in a slot [g]; NaN without a forecast."""
    cost = weights.carbon * _value(site.intensity_g_per_kwh, slot)
    if weights.money_g:
        cost += weights.money_g * _value(site.price_per_kwh, slot)
    if weights.water_g_per_l:
        cost += weights.water_g_per_l * _value(site.water_l_per_kwh, slot)
    return cost * _value(site.pue, slot)


def _cost(grid: Grid, per_kwh: Sequence[float], s: int, jobs: Jobs, i: int, weights: Weights, one: Placement) -> float:
    """Return what a job costs at its place: energy slot by slot, data moved, and delay."""
    slowdown, power = float(jobs.slowdown[i, one.level]), float(jobs.power[i, one.level])
    moved_kwh = float(jobs.transfer_kwh[i, s])
    seen = [rate for rate in per_kwh if not math.isnan(rate)] if moved_kwh else []
    total = moved_kwh * sum(seen) / len(seen) if moved_kwh else 0.0
    restored = math.ceil(max(float(jobs.resume_ms[i]), 0.0) / grid.slot_ms)
    working = []
    for n, (begin, end) in enumerate(one.slots):
        if n:
            total += float(jobs.resume_kwh[i]) * per_kwh[begin]
        working += list(range(begin + (restored if n else 0), end))
    for k, slot in enumerate(working):
        total += _energy_kwh(grid, jobs, i, slowdown, power, k, len(working)) * per_kwh[slot]
    late_h = _late_h(grid, jobs, i, one)
    return total + late_h * float(jobs.gpus[i] * jobs.delay_weight[i]) * weights.delay_g_per_gpu_h


def _energy_kwh(grid: Grid, jobs: Jobs, i: int, slowdown: float, power: float, k: int, slots: int) -> float:
    """Return the IT energy of a job's k-th slot of work [kWh]: that of its profile there, or an equal part."""
    if i not in jobs.profiles:
        kw = float(jobs.kw[i]) * power
        if jobs.resume_ms[i] >= 0 and jobs.tier[i] != CRITICAL:
            return kw * _run_ms(jobs, i, slowdown, math.inf) / MS_PER_HOUR / slots
        if len(_corners(jobs, i)) == 2:
            return kw * float(jobs.duration_ms[i]) * slowdown / MS_PER_HOUR / slots
        until = math.inf if k + 1 == slots else (k + 1) * grid.slot_ms
        run_ms = _run_ms(jobs, i, slowdown, until) - _run_ms(jobs, i, slowdown, k * grid.slot_ms)
        return kw * run_ms / MS_PER_HOUR
    begin, end, at, energy = k * grid.slot_ms, (k + 1) * grid.slot_ms, 0.0, 0.0
    for length_ms, watts in jobs.profiles[i]:
        until = at + length_ms * slowdown
        energy += max(min(until, end) - max(at, begin), 0.0) / MS_PER_HOUR * watts * power / 1e3
        at = until
    return energy


def _run_ms(jobs: Jobs, i: int, slowdown: float, until_ms: float) -> float:
    """Return how long a job is expected to run until a time after its start at the latest [ms]."""
    total = 0.0
    corners = _corners(jobs, i)
    for (p0, t0), (p1, t1) in itertools.pairwise(corners):
        low, high = t0 * slowdown, t1 * slowdown
        if until_ms >= high:
            mean = (low + high) / 2
        elif until_ms <= low:
            mean = until_ms
        else:  # those that end before count in full, the others until then
            ended = (until_ms - low) / (high - low)
            mean = ended * (low + until_ms) / 2 + (1 - ended) * until_ms
        total += (p1 - p0) * mean
    return total
