"""What is wrong with sites and jobs, in words: a site stops the plan, a job is left out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.records import TIERS, Grid, Jobs, PlanInputError, Site, Weights

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]


_MOST_KW = 100.0
"""A GPU with its share of a node draws no more; a number above it is in another unit."""

_MOST = 1e9
"""A number above it is a slip, and would drown all other costs."""


def _sane(values: Floats) -> NDArray[np.bool_]:
    return (values >= 0) & (values <= _MOST)


def check_grid(grid: Grid, sites: Sequence[Site], weights: Weights) -> None:
    """Raise PlanInputError where there is no time, no site, or a weight that cannot be."""
    if grid.slots < 1 or grid.slot_ms < 1:
        raise PlanInputError(f"A plan needs at least one slot of at least 1 ms, not {grid.slots} of {grid.slot_ms} ms.")
    if not sites:
        raise PlanInputError("A plan needs at least one site.")
    ids = [s.id for s in sites]
    if twice := [i for i in ids if ids.count(i) > 1]:
        raise PlanInputError(f"Site '{twice[0]}' occurs twice.")
    for name in ("carbon", "money_g", "water_g_per_l", "delay_g_per_gpu_h", "fairness_g"):
        value = getattr(weights, name)
        if not np.isfinite(value) or value < 0:
            raise PlanInputError(f"Weight {name} is {value}; it must be a number of at least 0.")


def over_time(sites: Sequence[Site], name: str, grid: Grid) -> Floats:
    """Return one of the sites' columns on the grid, (sites, slots). Raises PlanInputError for a value that cannot be."""
    rows = np.empty((len(sites), grid.slots))
    for i, site in enumerate(sites):
        value = np.asarray(getattr(site, name), np.float64)
        if value.ndim and value.shape != (grid.slots,):
            raise PlanInputError(f"Site '{site.id}': {name} has {value.size} values for {grid.slots} slots.")
        rows[i] = value
        low = 1.0 if name == "pue" else 0.0
        wrong = np.isinf(rows[i]) if name != "power_kw" else np.isnan(rows[i])
        wrong |= np.isnan(rows[i]) if name == "gpus" else False
        if name != "price_per_kwh":
            wrong |= rows[i] < low
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            least = "" if name == "price_per_kwh" else f" of at least {low:g}"
            raise PlanInputError(
                f"Site '{site.id}': {name} is {rows[i, at]:g} at {iso(grid.at_ms(at))}; it must be a number{least}."
            )
    return rows


def faults(jobs: Jobs, sites: Sequence[Site]) -> dict[int, str]:
    """Return what is wrong with jobs in themselves, by place."""
    profiled = np.zeros(len(jobs), np.bool_)
    odd_profile = np.zeros(len(jobs), np.bool_)
    for i, phases in jobs.profiles.items():
        profiled[i] = True
        odd_profile[i] = any(not (ms > 0 and np.isfinite(w) and w >= 0) for ms, w in phases)
    seen: dict[str, int] = {}
    twice = np.array([seen.setdefault(one, i) != i for i, one in enumerate(jobs.ids)], np.bool_)
    given = ~np.isnan(jobs.slowdown)
    odd_level = (given & ~((jobs.slowdown >= 1) & (jobs.slowdown <= _MOST) & (jobs.power > 0) & (jobs.power <= 1))).any(
        1
    )
    with np.errstate(invalid="ignore", over="ignore"):
        odd_transfer = ((jobs.transfer_kwh < 0) | (jobs.transfer_kwh > _MOST)).any(1)
        odd_transfer |= ~((jobs.transfer_ms >= 0) & (jobs.transfer_ms < np.inf)).all(1)
        checks: tuple[tuple[Any, Callable[[int], str]], ...] = (
            (twice, lambda i: "another job has the same id"),
            (jobs.tier < 0, lambda i: f"its tier is none of {', '.join(TIERS)}"),
            (odd_profile, lambda i: "a phase of its profile has no length or no finite power"),
            (
                ~(_sane(jobs.gpus) & (jobs.gpus >= 1) & (jobs.gpus == np.floor(jobs.gpus))),
                lambda i: f"it asks for {jobs.gpus[i]:g} GPUs; give a whole number of at least 1",
            ),
            (
                ~((jobs.kw >= 0) & (jobs.kw <= _MOST_KW * jobs.gpus)),
                lambda i: (
                    f"its power is {jobs.kw[i] / jobs.gpus[i]:g} kW for each GPU; give one between 0 and {_MOST_KW:g}"
                ),
            ),
            (
                ~(np.isfinite(jobs.duration_ms) & (jobs.duration_ms > 0)),
                lambda i: f"its duration is {jobs.duration_ms[i] / MS_PER_HOUR:g} h; give one above 0",
            ),
            (
                jobs.deadline_ms <= jobs.release_ms,
                lambda i: (
                    f"its deadline {iso(int(jobs.deadline_ms[i]))} is not after its release "
                    f"{iso(int(jobs.release_ms[i]))}"
                ),
            ),
            (odd_level, lambda i: "a cap level has a slowdown under 1 or a power outside 0 to 1"),
            (odd_transfer, lambda i: "a data transfer takes an energy or a time that cannot be"),
            (
                ~_sane(jobs.delay_weight),
                lambda i: f"its delay weight is {jobs.delay_weight[i]:g}; give a number from 0 to {_MOST:g}",
            ),
            (
                ~(_sane(jobs.resume_kwh) & np.isfinite(jobs.resume_ms)),
                lambda i: "resuming it takes an energy or a time that cannot be",
            ),
            (
                _odd_quantiles(jobs),
                lambda i: (
                    "its quantiles of duration do not rise, or a chance lies outside 0 to 1, or a time beyond "
                    f"{jobs.duration_ms[i] / MS_PER_HOUR:g} h, its longest"
                ),
            ),
            (
                ~((jobs.confidence > 0) & (jobs.confidence <= 1)),
                lambda i: f"its confidence is {jobs.confidence[i]:g}; give one above 0 and at most 1",
            ),
            (profiled & jobs.uncertain, lambda i: "it has a profile and quantiles of duration; leave out one of them"),
            (profiled & (jobs.resume_ms >= 0), lambda i: "it is suspendable and has a profile; leave out one of them"),
            (
                np.isnan(jobs.transfer_kwh).all(1),
                lambda i: f"none of its sites is known; known are {', '.join(s.id for s in sites)}",
            ),
        )
    found: dict[int, str] = {}
    for wrong, words in checks:
        for i in np.flatnonzero(wrong).tolist():
            found.setdefault(i, words(i))
    return found


def _odd_quantiles(jobs: Jobs) -> NDArray[np.bool_]:
    """Return which jobs have quantiles of duration that cannot be."""
    told = ~np.isnan(jobs.chance)
    with np.errstate(invalid="ignore"):
        odd = told & ~((jobs.chance > 0) & (jobs.chance < 1) & (jobs.within_ms >= 0))
        odd |= told & ~(jobs.within_ms <= jobs.duration_ms[:, None])
        odd[:, 1:] |= (np.diff(jobs.chance) <= 0) | (np.diff(jobs.within_ms) < 0)
    return np.asarray(odd.any(1), np.bool_)


def why_not(
    jobs: Jobs,
    i: int,
    held_ms: float,
    grid: Grid,
    sites: Sequence[Site],
    gpus: Floats,
    power_kw: Floats,
    blind: NDArray[np.bool_],
) -> str:
    """Return why a sound job has no place at all, even on an empty cluster. held_ms: for how long it holds its GPUs."""
    allowed = np.flatnonzero(~np.isnan(jobs.transfer_kwh[i]))
    names = ", ".join(sites[int(s)].id for s in allowed)
    dark, most, least_kw = blind[allowed].all(1), gpus[allowed].max(1), jobs.kw[i] * np.nanmin(jobs.power[i])
    small, weak = jobs.gpus[i] > most, least_kw > power_kw[allowed].max(1)
    if dark.all():
        return f"no forecast for {names} between {iso(grid.start_ms)} and {iso(grid.end_ms)}"
    if small.all():
        return f"it asks for {jobs.gpus[i]:g} GPUs and the largest of its sites ({names}) has {most.max():g}"
    if weak.all():
        return f"it draws {jobs.kw[i]:g} kW, above the power budget of each of its sites ({names})"
    if (dark | small | weak).all():
        each = np.select([dark, small, weak], ["no forecast", "too few GPUs", "too little power"], "")
        told = ", ".join(f"{sites[int(s)].id} has {why}" for s, why in zip(allowed, each, strict=True))
        return f"none of its sites can take {jobs.gpus[i]:g} GPUs at {least_kw:g} kW: {told}"
    moving = np.where(dark | small | weak, np.inf, np.ceil(jobs.transfer_ms[i, allowed] / grid.slot_ms)).min()
    soonest = -(-max(int(jobs.release_ms[i]) - grid.start_ms, 0) // grid.slot_ms)
    if jobs.deadline_ms[i] <= grid.start_ms:
        return f"its deadline {iso(int(jobs.deadline_ms[i]))} is over before the plan begins at {iso(grid.start_ms)}"
    needed = int(np.ceil(np.round(held_ms / grid.slot_ms, 9)) + moving)
    due = min(max(int((jobs.deadline_ms[i] - grid.start_ms) // grid.slot_ms), 0), grid.slots)
    until = "its deadline" if jobs.deadline_ms[i] < grid.end_ms else "the end of the horizon"
    return (
        f"it needs {needed:g} slots of {grid.slot_ms / 60_000:g} min, and between its release and {until} "
        f"lie {max(due - int(soonest), 0)}"
    )
