"""A history of jobs that runs again: in whole slots, on the GPUs of one or more sites, and what that takes.

Every policy is rounded alike: a job may start in the first slot that begins at or after its release, and holds its
GPUs for whole slots in which it draws its energy evenly. So a policy's cost and the planner's bound are of one kind.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Jobs that can be run again. sites: their columns have one value a slot. jobs: those that any policy could run.

    known: slots from the first on that the signals reach over; see `history` for what is after them. home: (n,) the
    site where a job runs if nobody moves it, by number. moving: (n, sites) slots that moving its data there takes; −1
    where it may not run. release, due, length: (n,) slots; due is the slot before which a job must have ended. kw: (n,)
    IT power over the slots it holds. Deadlines that whole slots cannot keep stand at the soonest end, and those of
    critical jobs too. cut: jobs whose deadline stands at the end of the signals.
    """

    grid: Grid
    sites: tuple[Site, ...]
    weights: Weights
    jobs: Jobs
    known: int
    home: Int64s
    moving: Int64s
    release: Int64s
    due: Int64s
    length: Int64s
    kw: Floats
    cut: int = 0

    @property
    def gpus(self) -> tuple[int, ...]:
        """GPUs of each site."""
        return tuple(int(np.max(np.asarray(site.gpus))) for site in self.sites)

    @property
    def begin(self) -> Int64s:
        """First slot in which a job can run at home, (n,)."""
        return self.release + self.moving[np.arange(len(self.jobs)), self.home]

    @property
    def restore(self) -> Int64s:
        """Slots in which a job is restored each time it comes back, (n,); −1 where it cannot be suspended."""
        resume_ms = self.jobs.resume_ms
        return np.where(resume_ms < 0, -1, np.ceil(np.maximum(resume_ms, 0) / self.grid.slot_ms)).astype(np.int64)

    def column(self, name: str) -> Floats:
        """Return a column of all sites, (sites, slots)."""
        return np.stack([np.asarray(getattr(site, name), np.float64) for site in self.sites])

    def at_home(self) -> History:
        """Return the history with each job kept at its home."""
        stays = np.arange(len(self.sites)) == self.home[:, None]
        jobs = replace(self.jobs, transfer_kwh=np.where(stays, self.jobs.transfer_kwh, np.nan))
        return replace(self, jobs=jobs, moving=np.where(stays, self.moving, -1))

    def problem(self, intensity: Floats, some: Int64s | None = None, *, whole: bool = False) -> Problem:
        """Return the planning problem of some jobs (default: all) on empty sites, as a forecast shows it.

        intensity: (sites, slots) [g/kWh]. whole: let no job be suspended. The grid of the problem is that of the
        history where all jobs are meant, and else reaches from the first release to the last deadline.
        """
        jobs, span = self.jobs, slice(0, self.grid.slots)
        if some is not None:
            jobs, span = jobs.take(some), slice(int(self.release[some].min()), int(self.due[some].max()))
        if whole:
            jobs = replace(jobs, resume_ms=np.full(len(jobs), -1.0))
        return pose(self.part(span), self.seen(np.maximum(intensity, 0.0), span), jobs, self.weights)

    def part(self, span: slice) -> Grid:
        """Return the grid of some slots."""
        return Grid(self.grid.at_ms(span.start), self.grid.slot_ms, span.stop - span.start)

    def seen(self, intensity: Floats, span: slice, gpus: Floats | None = None) -> list[Site]:
        """Return the sites over some slots, with this intensity, (sites, slots of the history) [g/kWh].

        gpus: (sites, slots of the history) left over; default: all.
        """
        return [
            replace(
                site,
                gpus=(np.asarray(site.gpus) if gpus is None else gpus[i])[span],
                intensity_g_per_kwh=intensity[i, span],
                price_per_kwh=np.asarray(site.price_per_kwh)[span],
                pue=np.asarray(site.pue)[span],
            )
            for i, site in enumerate(self.sites)
        ]


def history(
    grid: Grid,
    sites: Sequence[Site],
    jobs: Jobs,
    weights: Weights,
    *,
    slack_ms: int,
    known: int | None = None,
    home: Int64s | None = None,
) -> tuple[History, dict[str, str]]:
    """Return the history, and the jobs that no policy could run, by id, with the reason.

    slack_ms: what a job without a deadline may end later than it could. home: (n,) the site of each job; default: the
    one that its data need least energy to get to. Raises SignalGapError where a slot has no intensity (or price, where
    money counts).

    known: slots that the signals reach over; default: all. No policy may plan beyond them: a deadline after them counts
    as their end, and where that is too soon, the job runs at once. What the queue pushes past them is weighed with the
    mean of the slots before, so that nothing is won or lost by it but time.
    """
    known = grid.slots if known is None else known
    if known < 1:
        raise SignalGapError(
            f"The signals end before the first job's release {iso(grid.start_ms)}. Import them for then."
        )
    spread = tuple(_spread(site, grid, weights, known) for site in sites)
    asked = jobs.release_ms + jobs.duration_ms
    late = np.where(jobs.deadline_ms == NEVER_MS, asked + slack_ms, jobs.deadline_ms).astype(np.int64)
    release = -(-(jobs.release_ms - grid.start_ms) // grid.slot_ms)
    length = np.ceil(np.round(jobs.duration_ms / grid.slot_ms, 9)).astype(np.int64)
    n, rows = len(jobs), np.arange(len(jobs))
    gpus = np.array([float(np.max(np.asarray(site.gpus))) for site in spread])
    away_kwh = np.where(jobs.gpus[:, None] <= gpus, jobs.transfer_kwh, np.nan)
    if home is None:
        home = np.argmin(np.where(np.isnan(away_kwh), np.inf, away_kwh), axis=1) if n else np.empty(0, np.int64)
    moving = np.where(np.isnan(away_kwh), -1, np.ceil(jobs.transfer_ms / grid.slot_ms)).astype(np.int64)
    homeless = moving[rows, home] < 0
    soonest = release + np.maximum(moving[rows, home], 0) + length
    critical = jobs.tier == CRITICAL
    wanted = (late - grid.start_ms) // grid.slot_ms
    due = np.maximum(np.minimum(wanted, known), soonest)
    due = np.where(critical, soonest, due)
    wrong = (late < asked) | homeless | (release < 0) | (release >= known) | (due > grid.slots)
    skipped = {i: _why_not(jobs, i, int(late[i]), grid, known, gpus) for i in np.flatnonzero(wrong).tolist()}
    stays = critical[:, None] & (np.arange(len(spread)) != home[:, None])
    whole = replace(
        jobs,
        release_ms=(grid.start_ms + release * grid.slot_ms).astype(np.int64),
        deadline_ms=(grid.start_ms + due * grid.slot_ms).astype(np.int64),
        resume_ms=np.where(critical, -1.0, jobs.resume_ms),
        transfer_kwh=np.where(stays, np.nan, away_kwh),
    )
    sound = np.flatnonzero(~wrong).astype(np.int64)
    posed = pose(grid, spread, whole.take(sound), weights)
    number = {jobs.ids[i]: i for i in sound.tolist()}
    skipped |= {number[name]: why for name, why in posed.skipped.items()}
    kept = sound[posed.planned]
    kw = jobs.kw * jobs.duration_ms / (np.maximum(length, 1) * grid.slot_ms)
    cut = int(((wanted > known) & ~critical)[kept].sum())
    made = History(
        grid, spread, weights, whole.take(kept), known, home[kept].astype(np.int64), np.where(stays, -1, moving)[kept],
        release[kept], due[kept], length[kept], kw[kept], cut,
    )  # fmt: skip
    return made, {jobs.ids[i]: skipped[i] for i in sorted(skipped)}


def _spread(site: Site, grid: Grid, weights: Weights, known: int) -> Site:
    """Return the site with one value a slot, the mean of the known ones after them.

    Raises SignalGapError where one that counts is missing.
    """

    def over_time(name: str, counts: bool) -> Floats:
        values = np.broadcast_to(np.asarray(getattr(site, name), np.float64), grid.slots).copy()
        if counts and np.isnan(values[:known]).any():
            slot = int(np.isnan(values).argmax())
            raise SignalGapError(
                f"Site '{site.id}' has no {name.partition('_')[0]} for {int(np.isnan(values[:known]).sum())} of {known} "
                f"slots, the first at {iso(grid.at_ms(slot))}. Import it for {iso(grid.start_ms)} to "
                f"{iso(grid.at_ms(known))}."
            )
        values[known:] = values[:known].mean()
        return values

    return replace(
        site,
        gpus=np.broadcast_to(np.asarray(site.gpus, np.float64), grid.slots),
        intensity_g_per_kwh=over_time("intensity_g_per_kwh", True),
        price_per_kwh=over_time("price_per_kwh", weights.money_g > 0),
        pue=over_time("pue", True),
    )


def _why_not(jobs: Jobs, i: int, late_ms: int, grid: Grid, known: int, gpus: Floats) -> str:
    """Return why no policy could run a job."""
    release_ms = int(jobs.release_ms[i])
    if late_ms <= release_ms:
        return f"its deadline {iso(late_ms)} is not after its release {iso(release_ms)}"
    if late_ms < release_ms + jobs.duration_ms[i]:
        lasts_h, window_h = jobs.duration_ms[i] / MS_PER_HOUR, (late_ms - release_ms) / MS_PER_HOUR
        return f"it lasts {lasts_h:g} h and its deadline is {window_h:g} h after its release"
    allowed = ~np.isnan(jobs.transfer_kwh[i])
    if not allowed.any():
        return "none of its sites is run again"
    if jobs.gpus[i] > gpus[allowed].max():
        where = "the cluster has" if len(gpus) == 1 else "the largest of its sites has"
        return f"it asks for {jobs.gpus[i]:g} GPUs and {where} {gpus[allowed].max():g}"
    if jobs.duration_ms[i] > max(known, 1) * grid.slot_ms:
        return f"it lasts {jobs.duration_ms[i] / MS_PER_HOUR:g} h, longer than the signals reach"
    return _when_not(release_ms, late_ms, grid, known)


def _when_not(release_ms: int, late_ms: int, grid: Grid, known: int) -> str:
    """Return why a job lies outside of the time that is run again."""
    if release_ms < grid.start_ms:
        return f"its release {iso(release_ms)} is before the first slot {iso(grid.start_ms)}"
    if release_ms > grid.at_ms(known - 1):
        return f"its release {iso(release_ms)} leaves no slot before the signal ends {iso(grid.at_ms(known))}"
    return f"its deadline {iso(late_ms)} is after the last slot, which ends {iso(grid.end_ms)}"


class Wish(NamedTuple):
    """What a policy asks for: stretches of jobs, (m,) each, job after job and in the order of time.

    job: by number. first, end: slots, end exclusive. gpus: held. kw: IT power while it works. restored: slots at the
    begin of the stretch in which the job is restored; −1 for a stretch that goes on without a break. site: by number;
    the same for all stretches of a job.
    """

    job: Int64s
    first: Int64s
    end: Int64s
    gpus: Int64s
    kw: Floats
    restored: Int64s
    site: Int64s

    def take(self, some: Int64s) -> Wish:
        """Return some of the stretches, by place."""
        return Wish(
            self.job[some], self.first[some], self.end[some], self.gpus[some], self.kw[some], self.restored[some],
            self.site[some],
        )  # fmt: skip


def wish_of(history: History, stretches: list[tuple[int, int, int]], site: Int64s | None = None) -> Wish:
    """Return a wish from (job, first, end) in any order; jobs hold their own GPUs at their own power.

    site: (n,) of each job; default: its home.
    """
    rows = np.array(sorted(stretches), np.int64).reshape(-1, 3)
    job, first, end = rows.T
    later = np.concatenate(([False], job[1:] == job[:-1])) if len(job) else np.empty(0, np.bool_)
    restored = np.where(later, history.restore[job], -1)
    gpus = history.jobs.gpus[job].astype(np.int64)
    where = (history.home if site is None else site)[job]
    return Wish(job, first, end, gpus, history.kw[job], restored.astype(np.int64), where)


def wish_from(history: History, placed: list[Placement | None], jobs: Int64s) -> Wish:
    """Return a wish from the planner's places. jobs: the number of each place's job."""
    number = {site.id: i for i, site in enumerate(history.sites)}
    site, stretches = history.home.copy(), []
    for j, one in zip(jobs.tolist(), placed, strict=True):
        if one:
            site[j] = number[one.site]
            stretches += [(j, a, b) for a, b in one.slots]
    return wish_of(history, stretches, site)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy came to. Amounts are of the jobs that ended within the time that was run again.

    energy_kwh, carbon_g, cost: of the facility, moving data included; cost None without a price. delay_h: (n,) end later
    than on an empty cluster; NaN where a job did not end. missed: (n,) jobs that ended after their deadline. unplaced:
    jobs that did not end. weighed_g: carbon and what the weights add, delay included. moved: jobs that ran away from home.
    after_kwh: energy drawn after the known slots.
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
    moved: int
    after_kwh: float
    start_ms: Int64s
    end_ms: Int64s


def run(history: History, policy: str, wish: Wish, *, depth: int = DEPTH, priced: bool = False) -> Outcome:
    """Run a wish on the sites, first come, first served with backfill, and return what it came to."""
    grid, jobs, n = history.grid, history.jobs, len(history.jobs)
    start_ms = np.full(len(wish.job), NONE, np.int64)
    sums = dict.fromkeys(("energy_kwh", "carbon_g", "cost", "after_kwh"), 0.0)
    for number in range(len(history.sites)):
        here = np.flatnonzero(wish.site == number)
        part = wish.take(here)
        start_ms[here] = _started(history, part, history.gpus[number], depth)
        for name, value in _drawn(history, number, part, start_ms[here]).items():
            sums[name] += value
    end_ms = start_ms + (wish.end - wish.first) * grid.slot_ms
    last = np.full(n, NONE, np.int64)
    np.maximum.at(last, wish.job, end_ms)
    ended = (last != NONE) & (last <= grid.end_ms)
    soonest_ms = grid.start_ms + (history.release + history.length) * grid.slot_ms
    delay_h = np.where(ended, (last - soonest_ms) / MS_PER_HOUR, np.nan)
    late_g = float(np.nansum(delay_h * jobs.gpus * jobs.delay_weight) * history.weights.delay_g_per_gpu_h)
    weighed_g = history.weights.carbon * sums["carbon_g"] + late_g
    if history.weights.money_g:
        weighed_g += history.weights.money_g * sums["cost"]
    missed = ended & (last > grid.start_ms + history.due * grid.slot_ms)
    site = history.home.copy()
    site[wish.job] = wish.site
    return Outcome(
        policy, sums["energy_kwh"], sums["carbon_g"], sums["cost"] if priced else None, delay_h, missed,
        int((~ended).sum()), weighed_g, int((wish.restored >= 0).sum()), int((site != history.home).sum()),
        sums["after_kwh"], start_ms, end_ms,
    )  # fmt: skip


def _started(history: History, wish: Wish, gpus: int, depth: int) -> Int64s:
    """Return when each stretch of one site starts [ms UTC]."""
    follows = np.concatenate(([False], wish.job[1:] == wish.job[:-1])) if len(wish.job) else np.empty(0, np.bool_)
    after = np.where(follows, np.arange(len(wish.job)) - 1, NONE).astype(np.int64)
    hold_ms = history.grid.start_ms + wish.first * history.grid.slot_ms
    held_ms = (wish.end - wish.first) * history.grid.slot_ms
    return simulate(Parts(hold_ms, wish.gpus, held_ms, after), gpus, depth=depth)


def _drawn(history: History, number: int, wish: Wish, start_ms: Int64s) -> dict[str, float]:
    """Return what the stretches of one site draw, and moving their data there; cost is NaN without a price."""
    grid, jobs, site, slot_ms = history.grid, history.jobs, history.sites[number], history.grid.slot_ms
    # energy: what each stretch draws while it works, and each resume in its first slot
    resumes = wish.restored >= 0
    work_ms = start_ms + np.maximum(wish.restored, 0) * slot_ms
    resume_mw = np.round(jobs.resume_kwh[wish.job[resumes]] / grid.slot_h * 1e6)
    curve = curve_of(
        np.concatenate((work_ms, start_ms[resumes])),
        np.concatenate((start_ms + (wish.end - wish.first) * slot_ms, start_ms[resumes] + slot_ms)),
        np.concatenate((np.round(wish.kw * 1e6), resume_mw)).astype(np.int64),
        (grid.start_ms, grid.end_ms),
    )
    edges = grid.start_ms + slot_ms * np.arange(grid.slots + 1, dtype=np.int64)
    pue = np.asarray(site.pue)
    moved_kwh = float(jobs.transfer_kwh[np.unique(wish.job), number].sum())

    def weighed(values: Floats, kind: str) -> float:
        """Return the integral over the curve, and the data moved at the mean of all slots, as the planner has it."""
        each = Signal(edges, pue * values, SignalInfo(kind, kind, "", "simulation")).integrate(curve)
        return each + (moved_kwh * float((pue * values).mean()) if moved_kwh else 0.0)

    late = (np.arange(grid.slots) >= history.known).astype(np.float64)
    price = np.asarray(site.price_per_kwh)
    return {
        "energy_kwh": weighed(np.ones(grid.slots), "energy"),
        "carbon_g": weighed(np.asarray(site.intensity_g_per_kwh), "intensity"),
        "cost": np.nan if np.isnan(price).any() else weighed(price, "price"),
        "after_kwh": Signal(edges, pue * late, SignalInfo("late", "late", "", "simulation")).integrate(curve),
    }
