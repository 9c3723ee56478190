"""A history of jobs that runs again: in whole slots, on one site's GPUs, and what that takes.

Every policy is rounded alike: a job may start in the first slot that begins at or after its release, and holds its
GPUs for whole slots in which it draws its energy evenly. So a policy's cost and the planner's bound are of one kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import SignalGapError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.signal import Signal
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.placement import Placement
from wattkeeper.plan.problem import CRITICAL, NEVER_MS, Grid, Jobs, Problem, Site, Weights, pose
from wattkeeper.plan.simulate.cluster import curve_of
from wattkeeper.plan.simulate.events import DEPTH, NONE, Parts, simulate

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class History:
    """Jobs that can be run again. site: its columns have one value a slot. jobs: those that any policy could run.

    release, due, length: (n,) slots; due is the slot before which a job must have ended. kw: (n,) IT power over the
    slots it holds. Deadlines that whole slots cannot keep stand at the soonest end, and those of critical jobs too.
    """

    grid: Grid
    site: Site
    weights: Weights
    jobs: Jobs
    release: Int64s
    due: Int64s
    length: Int64s
    kw: Floats

    @property
    def gpus(self) -> int:
        """GPUs of the cluster."""
        return int(np.max(np.asarray(self.site.gpus)))

    @property
    def restore(self) -> Int64s:
        """Slots in which a job is restored each time it comes back, (n,); −1 where it cannot be suspended."""
        resume_ms = self.jobs.resume_ms
        return np.where(resume_ms < 0, -1, np.ceil(np.maximum(resume_ms, 0) / self.grid.slot_ms)).astype(np.int64)

    def problem(self, intensity: Floats, some: Int64s | None = None, *, whole: bool = False) -> Problem:
        """Return the planning problem of some jobs (default: all) on an empty cluster, as a forecast shows it.

        intensity: (slots,) [g/kWh]. whole: let no job be suspended.
        """
        jobs = self.jobs if some is None else self.jobs.take(some)
        if whole:
            jobs = replace(jobs, resume_ms=np.full(len(jobs), -1.0))
        return pose(self.grid, [replace(self.site, intensity_g_per_kwh=np.maximum(intensity, 0.0))], jobs, self.weights)


def history(grid: Grid, site: Site, jobs: Jobs, weights: Weights, *, slack_ms: int) -> tuple[History, dict[str, str]]:
    """Return the history, and the jobs that no policy could run, by id, with the reason.

    slack_ms: what a job without a deadline may end later than it could. Raises SignalGapError where a slot has no
    intensity (or price, where money counts).
    """
    site = _spread(site, grid, weights)
    asked = jobs.release_ms + jobs.duration_ms
    late = np.where(jobs.deadline_ms == NEVER_MS, asked + slack_ms, jobs.deadline_ms).astype(np.int64)
    release = -(-(jobs.release_ms - grid.start_ms) // grid.slot_ms)
    length = np.ceil(np.round(jobs.duration_ms / grid.slot_ms, 9)).astype(np.int64)
    critical = jobs.tier == CRITICAL
    due = np.maximum((late - grid.start_ms) // grid.slot_ms, release + length)
    due = np.where(critical, release + length, due)
    largest = float(np.max(np.asarray(site.gpus)))
    wrong = (late < asked) | (jobs.gpus > largest) | (release < 0) | (due > grid.slots)
    skipped = {i: _why_not(jobs, i, int(late[i]), grid, largest) for i in np.flatnonzero(wrong).tolist()}
    whole = replace(
        jobs,
        release_ms=(grid.start_ms + release * grid.slot_ms).astype(np.int64),
        deadline_ms=(grid.start_ms + due * grid.slot_ms).astype(np.int64),
        resume_ms=np.where(critical, -1.0, jobs.resume_ms),
    )
    sound = np.flatnonzero(~wrong).astype(np.int64)
    posed = pose(grid, [site], whole.take(sound), weights)
    number = {jobs.ids[i]: i for i in sound.tolist()}
    skipped |= {number[name]: why for name, why in posed.skipped.items()}
    kept = sound[posed.planned]
    kw = jobs.kw * jobs.duration_ms / (np.maximum(length, 1) * grid.slot_ms)
    made = History(grid, site, weights, whole.take(kept), release[kept], due[kept], length[kept], kw[kept])
    return made, {jobs.ids[i]: skipped[i] for i in sorted(skipped)}


def _spread(site: Site, grid: Grid, weights: Weights) -> Site:
    """Return the site with one value a slot. Raises SignalGapError where one that counts is missing."""

    def over_time(name: str, counts: bool) -> Floats:
        values = np.broadcast_to(np.asarray(getattr(site, name), np.float64), grid.slots)
        if counts and np.isnan(values).any():
            slot = int(np.isnan(values).argmax())
            raise SignalGapError(
                f"Site '{site.id}' has no {name.partition('_')[0]} for {int(np.isnan(values).sum())} of {grid.slots} slots, "
                f"the first at {iso(grid.at_ms(slot))}. Import it for {iso(grid.start_ms)} to {iso(grid.end_ms)}."
            )
        return values

    return replace(
        site,
        gpus=over_time("gpus", True),
        intensity_g_per_kwh=over_time("intensity_g_per_kwh", True),
        price_per_kwh=over_time("price_per_kwh", weights.money_g > 0),
        pue=over_time("pue", True),
    )


def _why_not(jobs: Jobs, i: int, late_ms: int, grid: Grid, largest: float) -> str:
    """Return why no policy could run a job."""
    release_ms = int(jobs.release_ms[i])
    if late_ms <= release_ms:
        return f"its deadline {iso(late_ms)} is not after its release {iso(release_ms)}"
    if late_ms < release_ms + jobs.duration_ms[i]:
        lasts_h, window_h = jobs.duration_ms[i] / MS_PER_HOUR, (late_ms - release_ms) / MS_PER_HOUR
        return f"it lasts {lasts_h:g} h and its deadline is {window_h:g} h after its release"
    if jobs.gpus[i] > largest:
        return f"it asks for {jobs.gpus[i]:g} GPUs and the cluster has {largest:g}"
    if release_ms < grid.start_ms:
        return f"its release {iso(release_ms)} is before the first slot {iso(grid.start_ms)}"
    return f"its deadline {iso(late_ms)} is after the last slot, which ends {iso(grid.end_ms)}"


class Wish(NamedTuple):
    """What a policy asks for: stretches of jobs, (m,) each, job after job and in the order of time.

    job: by number. first, end: slots, end exclusive. gpus: held. kw: IT power while it works. restored: slots at the
    begin of the stretch in which the job is restored; −1 for a stretch that goes on without a break.
    """

    job: Int64s
    first: Int64s
    end: Int64s
    gpus: Int64s
    kw: Floats
    restored: Int64s


def wish_of(history: History, stretches: list[tuple[int, int, int]]) -> Wish:
    """Return a wish from (job, first, end) in any order; jobs hold their own GPUs at their own power."""
    rows = np.array(sorted(stretches), np.int64).reshape(-1, 3)
    job, first, end = rows.T
    later = np.concatenate(([False], job[1:] == job[:-1])) if len(job) else np.empty(0, np.bool_)
    restored = np.where(later, history.restore[job], -1)
    gpus = history.jobs.gpus[job].astype(np.int64)
    return Wish(job, first, end, gpus, history.kw[job], restored.astype(np.int64))


def wish_from(history: History, placed: list[Placement | None], jobs: Int64s) -> Wish:
    """Return a wish from the planner's places. jobs: the number of each place's job."""
    stretches = [(int(j), a, b) for j, one in zip(jobs, placed, strict=True) if one for a, b in one.slots]
    return wish_of(history, stretches)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy came to. Amounts are of the jobs that ended within the time that was run again.

    energy_kwh, carbon_g, cost: of the facility; cost None without a price. delay_h: (n,) end later than on an empty
    cluster; NaN where a job did not end. missed: (n,) jobs that ended after their deadline. unplaced: jobs that did not end.
    weighed_g: carbon and what the weights add, delay included.
    """

    policy: str
    energy_kwh: float
    carbon_g: float
    cost: float | None
    delay_h: Floats
    missed: NDArray[np.bool_]
    unplaced: int
    weighed_g: float
    suspended: int
    start_ms: Int64s
    end_ms: Int64s


def run(history: History, policy: str, wish: Wish, *, depth: int = DEPTH, priced: bool = False) -> Outcome:
    """Run a wish on the cluster, first come, first served with backfill, and return what it came to."""
    grid, jobs, site = history.grid, history.jobs, history.site
    n, slot_ms = len(jobs), grid.slot_ms
    follows = np.concatenate(([False], wish.job[1:] == wish.job[:-1])) if len(wish.job) else np.empty(0, np.bool_)
    after = np.where(follows, np.arange(len(wish.job)) - 1, NONE).astype(np.int64)
    held_ms = (wish.end - wish.first) * slot_ms
    start_ms = simulate(
        Parts(grid.start_ms + wish.first * slot_ms, wish.gpus, held_ms, after), history.gpus, depth=depth
    )
    end_ms = start_ms + held_ms
    # energy: what each stretch draws while it works, and each resume in its first slot
    resumes = wish.restored >= 0
    work_ms = start_ms + np.maximum(wish.restored, 0) * slot_ms
    resume_mw = np.round(jobs.resume_kwh[wish.job[resumes]] / grid.slot_h * 1e6)
    curve = curve_of(
        np.concatenate((work_ms, start_ms[resumes])),
        np.concatenate((end_ms, start_ms[resumes] + slot_ms)),
        np.concatenate((np.round(wish.kw * 1e6), resume_mw)).astype(np.int64),
        (grid.start_ms, grid.end_ms),
    )
    edges = grid.start_ms + slot_ms * np.arange(grid.slots + 1, dtype=np.int64)
    pue = np.asarray(site.pue)

    def weighed(values: Floats, kind: str) -> float:
        return Signal(edges, pue * values, SignalInfo(kind, kind, "", "simulation")).integrate(curve)

    carbon_g = weighed(np.asarray(site.intensity_g_per_kwh), "intensity")
    cost = weighed(np.asarray(site.price_per_kwh), "price") if priced else None
    last = np.full(n, NONE, np.int64)
    np.maximum.at(last, wish.job, end_ms)
    ended = (last != NONE) & (last <= grid.end_ms)
    soonest_ms = grid.start_ms + (history.release + history.length) * slot_ms
    delay_h = np.where(ended, (last - soonest_ms) / MS_PER_HOUR, np.nan)
    late_g = float(np.nansum(delay_h * jobs.gpus * jobs.delay_weight) * history.weights.delay_g_per_gpu_h)
    weighed_g = history.weights.carbon * carbon_g + late_g
    if history.weights.money_g:
        weighed_g += history.weights.money_g * weighed(np.asarray(site.price_per_kwh), "price")
    missed = ended & (last > grid.start_ms + history.due * slot_ms)
    return Outcome(
        policy, weighed(np.ones(grid.slots), "energy"), carbon_g, cost, delay_h, missed, int((~ended).sum()), weighed_g,
        int(resumes.sum()), start_ms, end_ms,
    )  # fmt: skip
