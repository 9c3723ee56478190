"""The planning problem: sites, jobs and weights as records, checked and laid out for the kernels.

Times are milliseconds UTC outside and slots inside: a job may start in the first slot that begins at or after its
release, and must have ended when the slot that holds its deadline begins. Costs are grams CO2e, or what the weights
call worth as much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import WattkeeperError
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.duration import corners, mean_until_ms, quantile_ms
from wattkeeper.plan.modes import RIGID, Delays, Lines, Modes

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

CRITICAL, DEADLINE, ELASTIC = 0, 1, 2
TIERS = ("critical", "deadline", "elastic")
"""critical: starts at its release, at home, at full power. deadline: may shift until it. elastic: until the horizon."""

NEVER_MS = 2**61
"""Deadline of a job that has none."""

_SHUN = 10.0


class PlanInputError(WattkeeperError):
    """Sites, signals or weights that no plan can be made from."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The time that is planned: `slots` equal slots from start_ms [ms UTC] on."""

    start_ms: int
    slot_ms: int
    slots: int

    @property
    def slot_h(self) -> float:
        """Length of a slot [h]."""
        return self.slot_ms / MS_PER_HOUR

    @property
    def end_ms(self) -> int:
        """End of the last slot."""
        return self.start_ms + self.slots * self.slot_ms

    def at_ms(self, slot: int) -> int:
        """Return when a slot begins."""
        return self.start_ms + slot * self.slot_ms


@dataclass(frozen=True, slots=True)
class Site:
    """A site: (slots,) each, or one number for all slots.

    gpus: that jobs may hold. intensity_g_per_kwh, price_per_kwh, water_l_per_kwh: of facility energy; NaN where no
    forecast reaches. pue: facility energy over IT energy. power_kw: facility power that planned jobs may draw.
    """

    id: str
    gpus: float | Floats
    intensity_g_per_kwh: float | Floats
    price_per_kwh: float | Floats = 0.0
    water_l_per_kwh: float | Floats = 0.0
    pue: float | Floats = 1.0
    power_kw: float | Floats = np.inf


@dataclass(frozen=True, slots=True)
class Weights:
    """What a unit of money, of water and an hour of delay of one GPU are worth [g CO2e]; carbon counts as it is.

    fairness_g: what an hour of delay of one GPU is worth more for each hour that its user's GPUs wait on average.
    """

    carbon: float = 1.0
    money_g: float = 0.0
    water_g_per_l: float = 0.0
    delay_g_per_gpu_h: float = 0.0
    fairness_g: float = 0.0


@dataclass(frozen=True, slots=True)
class Level:
    """A cap level from a measured curve: duration over that at full power, and power over full power."""

    slowdown: float
    power: float


@dataclass(frozen=True, slots=True)
class Job:
    """One job to be planned.

    power_w: IT power of one of its GPUs, with its share of the node, at full speed. profile: (length [ms], IT power of
    the whole job [W]) of its phases at full speed, in place of duration_ms and power_w. within: (chance, time [ms]) by
    which it has ended at full speed, rising; duration_ms is then the longest it may run. confidence: the chance with
    which its deadline is to be kept; its GPUs are held for that quantile of its duration. user: who asked for it, for
    fairness; "" for nobody. sites: allowed ones with what
    moving its data there takes (facility energy over PUE [kWh], charged at the site's mean rate; time [ms]); none
    means every site, at no cost. levels: caps it may run
    at beside full power. suspendable: may be taken off and resumed, at resume_ms and resume_kwh [IT energy] each time.
    """

    id: str
    gpus: int
    duration_ms: int
    power_w: float
    release_ms: int
    deadline_ms: int | None = None
    tier: str = "deadline"
    sites: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    levels: Sequence[Level] = ()
    suspendable: bool = False
    resume_ms: int = 0
    resume_kwh: float = 0.0
    profile: Sequence[tuple[int, float]] = ()
    delay_weight: float = 1.0
    within: Sequence[tuple[float, int]] = ()
    confidence: float = 1.0
    user: str = ""


@dataclass(slots=True)
class Jobs:
    """The same jobs as columns: (n,) each; transfer_kwh and transfer_ms: (n, sites), NaN where a site is not allowed.

    slowdown, power: (n, levels), the first at full power; NaN where a job has fewer. resume_ms: −1 where a job cannot
    be suspended. kw: IT power of the whole job. profiles: of the jobs that have one, by place in the columns.
    chance, within_ms: (n, quantiles), NaN where a job has fewer. user, confidence, chance and within_ms may be left
    out: of nobody, and certain.
    """

    ids: Sequence[str]
    tier: Int64s
    release_ms: Int64s
    deadline_ms: Int64s
    gpus: Floats
    duration_ms: Floats
    kw: Floats
    transfer_kwh: Floats
    transfer_ms: Floats
    delay_weight: Floats
    resume_ms: Floats
    resume_kwh: Floats
    slowdown: Floats
    power: Floats
    profiles: dict[int, Sequence[tuple[int, float]]] = field(default_factory=dict)
    user: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, np.str_))
    confidence: Floats = field(default_factory=lambda: np.empty(0))
    chance: Floats = field(default_factory=lambda: np.empty((0, 0)))
    within_ms: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        n = len(self.ids)
        if len(self.user) != n:
            self.user = np.full(n, "", np.str_)
        if len(self.confidence) != n:
            self.confidence = np.ones(n)
        if len(self.chance) != n:
            self.chance, self.within_ms = np.empty((n, 0)), np.empty((n, 0))

    @classmethod
    def of(cls, jobs: Sequence[Job], sites: Sequence[Site]) -> Jobs:
        """Lay records out as columns. An unknown tier or site becomes NaN, which the check of the job then names."""
        n, wide = len(jobs), 1 + max((len(j.levels) for j in jobs), default=0)
        place = {s.id: i for i, s in enumerate(sites)}
        transfer_kwh = np.full((n, len(sites)), np.nan)
        transfer_ms = np.zeros((n, len(sites)))
        slowdown, power = np.full((n, wide), np.nan), np.full((n, wide), np.nan)
        slowdown[:, 0] = power[:, 0] = 1.0
        told = max((len(j.within) for j in jobs), default=0)
        chance, within_ms = np.full((n, told), np.nan), np.full((n, told), np.nan)
        for i, job in enumerate(jobs):
            allowed = job.sites or dict.fromkeys(place, (0.0, 0))
            for site, (kwh, ms) in allowed.items():
                if site in place:
                    transfer_kwh[i, place[site]], transfer_ms[i, place[site]] = kwh, ms
            for k, level in enumerate(job.levels, 1):
                slowdown[i, k], power[i, k] = level.slowdown, level.power
            for k, (likely, ms) in enumerate(job.within):
                chance[i, k], within_ms[i, k] = likely, ms
        reals = {
            "duration_ms": [sum(p[0] for p in j.profile) if j.profile else j.duration_ms for j in jobs],
            "kw": [max(p[1] for p in j.profile) / 1e3 if j.profile else j.gpus * j.power_w / 1e3 for j in jobs],
            "resume_ms": [j.resume_ms if j.suspendable else -1 for j in jobs],
        }
        return cls(
            ids=[j.id for j in jobs],
            tier=np.array([TIERS.index(j.tier) if j.tier in TIERS else -1 for j in jobs], np.int64),
            release_ms=np.array([j.release_ms for j in jobs], np.int64),
            deadline_ms=np.array([NEVER_MS if j.deadline_ms is None else j.deadline_ms for j in jobs], np.int64),
            gpus=np.array([j.gpus for j in jobs], np.float64),
            transfer_kwh=transfer_kwh,
            transfer_ms=transfer_ms,
            delay_weight=np.array([j.delay_weight for j in jobs], np.float64),
            resume_kwh=np.array([j.resume_kwh for j in jobs], np.float64),
            slowdown=slowdown,
            power=power,
            profiles={i: j.profile for i, j in enumerate(jobs) if j.profile},
            user=np.array([j.user for j in jobs], np.str_),
            confidence=np.array([j.confidence for j in jobs], np.float64),
            chance=chance,
            within_ms=within_ms,
            **{name: np.array(values, np.float64) for name, values in reals.items()},
        )

    def take(self, some: Int64s) -> Jobs:
        """Return some of the jobs, by place."""
        at = some.tolist()
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {"ids", "profiles"}}
        profiles = {i: self.profiles[old] for i, old in enumerate(at) if old in self.profiles} if self.profiles else {}
        ids = [self.ids[i] for i in at]
        return Jobs(ids=ids, profiles=profiles, **{name: column[some] for name, column in columns.items()})

    @property
    def uncertain(self) -> NDArray[np.bool_]:
        """Whether each job's duration is known by quantiles only, (n,)."""
        return np.asarray(~np.isnan(self.chance).all(1), np.bool_)

    def held_ms(self) -> Floats:
        """Return how long room is held for each job at full speed, (n,): its duration, or the quantile of its confidence."""
        if not self.chance.shape[1]:
            return self.duration_ms
        return quantile_ms(*corners(self.duration_ms, self.chance, self.within_ms), self.confidence)

    def mean_ms(self) -> Floats:
        """Return how long each job is expected to run at full speed, (n,)."""
        if not self.chance.shape[1]:
            return self.duration_ms
        return mean_until_ms(*corners(self.duration_ms, self.chance, self.within_ms), self.duration_ms)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Problem:
    """A checked problem. skipped: jobs that are left untouched, by id, with the reason.

    jobs holds all jobs; `planned`: (p,) the places of those that can be planned, in the order of `modes`.
    rate: (sites, slots) cost of 1 kWh of IT energy. gpus, power_kw: (sites, slots) limits; power is IT power here.
    levels: (m,) the cap level of each mode. users: those whose delay is evened out; delays: how, with no job placed.
    blind: (sites, slots) where no forecast reaches; nothing is put there.
    """

    grid: Grid
    sites: tuple[Site, ...]
    weights: Weights
    jobs: Jobs
    planned: Int64s
    modes: Modes
    levels: Int64s
    rate: Floats
    gpus: Floats
    power_kw: Floats
    blind: NDArray[np.bool_]
    skipped: dict[str, str]
    users: tuple[str, ...]
    delays: Delays

    @property
    def limited(self) -> bool:
        """Whether any site has a power budget."""
        return bool(np.isfinite(self.power_kw).any())

    @cached_property
    def reach(self) -> tuple[int, int, int]:
        """The longest work, the longest window and the longest resume of any interruptible mode [slots]."""
        some = self.modes.resume != RIGID
        spans = (self.modes.length, self.modes.end - self.modes.first, self.modes.resume)
        length, window, resume = (int(span[some].max(initial=0)) for span in spans)
        return length, window, resume

    @cached_property
    def plain(self) -> Lines:
        """The cost lines without prices."""
        zeros = np.zeros_like(self.gpus)
        return self.lines(zeros, zeros)

    def priced(self, delay_price: Floats) -> Modes:
        """Return the modes with prices of delay added: (users,) [g per GPU-h]."""
        if not len(self.users):
            return self.modes
        job = np.repeat(np.arange(len(self.planned)), np.diff(self.modes.mode0))
        user = self.delays.user[job]
        each = np.where(user < 0, 0.0, delay_price[user])
        return self.modes._replace(
            fixed=self.modes.fixed + each * self.delays.late, delay=self.modes.delay + each * self.delays.each
        )

    def lines(self, gpu_price: Floats, power_price: Floats) -> Lines:
        """Return cost lines with prices of GPUs and of power added: (sites, slots) each."""
        limited = int(self.limited)
        return Lines(
            _sums(self.rate * self.grid.slot_h), _sums(gpu_price), _sums(power_price if limited else power_price * 0),
            limited,
        )  # fmt: skip


def _sums(values: Floats) -> Floats:
    """Return running sums from 0: (sites, slots + 1)."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def pose(grid: Grid, sites: Sequence[Site], jobs: Jobs | Sequence[Job], weights: Weights | None = None) -> Problem:
    """Check and lay out a problem.

    A job that cannot be planned is left out and told in `skipped`. Raises PlanInputError where sites, signals or
    weights are at fault, because then no plan would mean anything.
    """
    weights = weights or Weights()
    _check_grid(grid, sites, weights)
    columns = jobs if isinstance(jobs, Jobs) else Jobs.of(jobs, sites)
    table = {name: _over_time(sites, name, grid) for name in _SITE_COLUMNS}
    blind = np.isnan(table["intensity_g_per_kwh"])
    for name, weight in (("price_per_kwh", weights.money_g), ("water_l_per_kwh", weights.water_g_per_l)):
        if weight:
            blind |= np.isnan(table[name])
    blind |= np.isnan(table["pue"])
    rate = table["pue"] * (
        weights.carbon * table["intensity_g_per_kwh"]
        + (weights.money_g * table["price_per_kwh"] if weights.money_g else 0.0)
        + (weights.water_g_per_l * table["water_l_per_kwh"] if weights.water_g_per_l else 0.0)
    )
    if blind.all():
        raise PlanInputError(
            f"No site has a forecast between {iso(grid.start_ms)} and {iso(grid.end_ms)}. "
            "Fetch or import one for these hours."
        )
    # nothing is put where the forecast is missing: no room there, and a cost that never looks cheap
    rate[blind] = _SHUN * max(float(np.abs(rate[~blind]).max()), 1.0)
    gpus = np.where(blind, 0.0, np.floor(table["gpus"]))
    power_kw = table["power_kw"] / np.where(blind, 1.0, table["pue"])
    skipped = _faults(columns, sites)
    modes, levels, planned, late = _modes(grid, columns, weights, mean_seen(rate, blind), gpus, power_kw, skipped)
    hopeless = sorted(set(range(len(columns))) - set(planned.tolist()) - set(skipped))
    skipped |= {i: _why_not(columns, i, grid, sites, gpus, power_kw, blind) for i in hopeless}
    told = {columns.ids[i]: skipped[i] for i in sorted(skipped)}
    users, delays = _delays(columns, planned, modes, late, weights, grid)
    return Problem(
        grid, tuple(sites), weights, columns, planned, modes, levels, rate, gpus, power_kw, blind, told, users, delays
    )  # fmt: skip


def _delays(
    jobs: Jobs, planned: Int64s, modes: Modes, late: Int64s, weights: Weights, grid: Grid
) -> tuple[tuple[str, ...], Delays]:
    """Return the users whose delay is evened out, and how. late: (m,) slots that a start at `first` is late."""
    weighed = jobs.gpus * jobs.delay_weight
    each = np.repeat(weighed[planned] * grid.slot_h, np.diff(modes.mode0))
    who = jobs.user[planned]
    named = (who != "") & (weighed[planned] > 0)
    if not weights.fairness_g or not named.any():
        return (), Delays(np.full(len(planned), -1, np.int64), each * late, each, np.empty(0), np.empty(0))
    users, at = np.unique(who[named], return_inverse=True)
    user = np.full(len(planned), -1, np.int64)
    user[named] = at
    asked = np.bincount(at, weighed[planned][named], minlength=len(users))
    return tuple(users.tolist()), Delays(user, each * late, each, weights.fairness_g / asked, np.zeros(len(users)))


def mean_seen(rate: Floats, blind: NDArray[np.bool_]) -> Floats:
    """Return the mean of each site over the slots that have a forecast: what moving data is charged at, (sites,)."""
    seen = ~blind
    means: Floats = np.where(seen, rate, 0.0).sum(1) / np.maximum(seen.sum(1), 1)
    return means


_SITE_COLUMNS = ("gpus", "intensity_g_per_kwh", "price_per_kwh", "water_l_per_kwh", "pue", "power_kw")


def _check_grid(grid: Grid, sites: Sequence[Site], weights: Weights) -> None:
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


def _over_time(sites: Sequence[Site], name: str, grid: Grid) -> Floats:
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


def _faults(jobs: Jobs, sites: Sequence[Site]) -> dict[int, str]:
    """Return what is wrong with jobs in themselves, by place."""
    profiled = np.zeros(len(jobs), np.bool_)
    odd_profile = np.zeros(len(jobs), np.bool_)
    for i, phases in jobs.profiles.items():
        profiled[i] = True
        odd_profile[i] = any(not (ms > 0 and np.isfinite(w) and w >= 0) for ms, w in phases)
    seen: dict[str, int] = {}
    twice = np.array([seen.setdefault(one, i) != i for i, one in enumerate(jobs.ids)], np.bool_)
    given = ~np.isnan(jobs.slowdown)
    odd_level = (given & ~((jobs.slowdown >= 1) & (jobs.slowdown < np.inf) & (jobs.power > 0) & (jobs.power <= 1))).any(
        1
    )
    with np.errstate(invalid="ignore"):
        odd_transfer = ((jobs.transfer_kwh < 0) | np.isinf(jobs.transfer_kwh)).any(1)
        odd_transfer |= ~((jobs.transfer_ms >= 0) & (jobs.transfer_ms < np.inf)).all(1)
        checks: tuple[tuple[Any, Callable[[int], str]], ...] = (
            (twice, lambda i: "another job has the same id"),
            (jobs.tier < 0, lambda i: f"its tier is none of {', '.join(TIERS)}"),
            (odd_profile, lambda i: "a phase of its profile has no length or no finite power"),
            (~(np.isfinite(jobs.kw) & (jobs.kw >= 0)), lambda i: f"its power is {jobs.kw[i]:g} kW; give a finite one"),
            (
                ~(np.isfinite(jobs.gpus) & (jobs.gpus >= 1) & (jobs.gpus == np.floor(jobs.gpus))),
                lambda i: f"it asks for {jobs.gpus[i]:g} GPUs; give a whole number of at least 1",
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
            (odd_transfer, lambda i: "a data transfer has no finite energy or time"),
            (
                ~(np.isfinite(jobs.delay_weight) & (jobs.delay_weight >= 0)),
                lambda i: f"its delay weight is {jobs.delay_weight[i]:g}; give a number of at least 0",
            ),
            (
                ~(np.isfinite(jobs.resume_kwh) & (jobs.resume_kwh >= 0) & np.isfinite(jobs.resume_ms)),
                lambda i: "resuming it has no finite energy or time",
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


def _modes(
    grid: Grid,
    jobs: Jobs,
    weights: Weights,
    mean_rate: Floats,
    gpus: Floats,
    power_kw: Floats,
    skipped: Mapping[int, str],
) -> tuple[Modes, Int64s, Int64s, Int64s]:
    """Return the modes of all jobs that have one, the cap level of each, those jobs' places, and how many slots later
    than it could each mode would end if begun at once."""
    n, n_sites = jobs.transfer_kwh.shape
    sound = np.ones(n, np.bool_)
    sound[list(skipped)] = False
    release = _slots_up(np.maximum(jobs.release_ms - grid.start_ms, 0), grid.slot_ms)
    held_ms, mean_ms = jobs.held_ms(), jobs.mean_ms()
    due = np.clip((jobs.deadline_ms - grid.start_ms) // grid.slot_ms, 0, grid.slots)
    with np.errstate(invalid="ignore"):
        length = np.where(
            sound[:, None] & ~np.isnan(jobs.slowdown),
            np.maximum(np.ceil(np.round(held_ms[:, None] * jobs.slowdown / grid.slot_ms, 9)), 1.0),
            np.inf,
        )
        moving = np.where(np.isnan(jobs.transfer_kwh), np.inf, np.ceil(jobs.transfer_ms / grid.slot_ms))
    kw = jobs.kw[:, None] * jobs.power
    first = release[:, None, None] + moving[:, :, None]  # (n, sites, levels)
    possible = sound[:, None, None] & (first + length[:, None, :] <= due[:, None, None])
    possible &= (jobs.gpus[:, None] <= gpus.max(1))[:, :, None]
    with np.errstate(invalid="ignore"):
        possible &= kw[:, None, :] <= power_kw.max(1)[None, :, None]
    critical = jobs.tier == CRITICAL
    home = np.argmin(np.where(np.isnan(jobs.transfer_kwh), np.inf, jobs.transfer_kwh), axis=1)
    possible &= ~critical[:, None, None] | (np.arange(n_sites) == home[:, None])[:, :, None]
    possible[:, :, 1:] &= ~critical[:, None, None]
    job, site, level = np.nonzero(possible)
    begin = first[job, site, 0].astype(np.int64)
    slots = length[job, level].astype(np.int64)
    end = np.where(critical[job], begin + slots, due[job])
    suspendable = (jobs.resume_ms >= 0) & ~critical
    resume = np.where(suspendable, _slots_up(np.maximum(jobs.resume_ms, 0), grid.slot_ms), RIGID).astype(np.int64)
    per_slot = jobs.gpus * jobs.delay_weight * weights.delay_g_per_gpu_h * grid.slot_h
    soonest = release[job] + length[job].min(1)
    late = begin + slots - soonest
    moved_g = jobs.transfer_kwh[job, site] * mean_rate[site]
    planned, counts = np.unique(job, return_counts=True)
    has_marks = suspendable[planned]
    window = np.where(has_marks, np.maximum(due - release, 0)[planned], 0)
    peak = kw[job, level]
    # energy over whole slots: the last one is held in full and drawn in part
    drawn = peak * (mean_ms[job] * jobs.slowdown[job, level]) / (slots * grid.slot_ms)
    phase0, phase_end, phase_kw = _phases(grid, jobs, job, level, slots, drawn)
    modes = Modes(
        mode0=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        site=site.astype(np.int64),
        first=begin,
        end=end.astype(np.int64),
        length=slots,
        gpus=jobs.gpus[job],
        kw=peak,
        fixed=moved_g + per_slot[job] * late,
        delay=per_slot[job],
        resume=resume[job],
        resume_kwh=np.where(suspendable, jobs.resume_kwh, 0.0)[job] / grid.slot_h,
        phase0=phase0,
        phase_end=phase_end,
        phase_kw=phase_kw,
        mark0=np.concatenate(([0], np.cumsum(window))).astype(np.int64),
        window0=release[planned],
    )
    return modes, level.astype(np.int64), planned.astype(np.int64), late


def _phases(
    grid: Grid, jobs: Jobs, job: Int64s, level: Int64s, slots: Int64s, drawn: Floats
) -> tuple[Int64s, Int64s, Floats]:
    """Return the phases of each mode: one at mean power, or one per slot of a profile where the power changes, or one
    per slot of an uncertain duration, at the power that is expected there."""
    if not len(job):
        return np.zeros(1, np.int64), slots, drawn
    whole = (jobs.resume_ms < 0) | (jobs.tier == CRITICAL)
    unsure = np.flatnonzero((jobs.uncertain & whole)[job])
    profiled = np.flatnonzero(np.isin(job, list(jobs.profiles)))
    count = np.ones(len(job), np.int64)
    count[unsure] = slots[unsure]
    told = {m: _profile_kw(grid, jobs, int(job[m]), int(level[m]), int(slots[m])) for m in profiled.tolist()}
    count[profiled] = [len(ends) for ends, _ in told.values()]
    phase0 = np.concatenate(([0], np.cumsum(count))).astype(np.int64)
    ends, kw = np.empty(phase0[-1], np.int64), np.empty(phase0[-1])
    ends[phase0[:-1]], kw[phase0[:-1]] = slots, drawn
    for m, (one_end, one_kw) in told.items():
        ends[phase0[m] : phase0[m + 1]], kw[phase0[m] : phase0[m + 1]] = one_end, one_kw
    if len(unsure):
        at, slot, power = _expected_kw(grid, jobs, job[unsure], level[unsure], slots[unsure])
        where = phase0[unsure][at] + slot
        ends[where], kw[where] = slot + 1, power
    return phase0, ends, kw


def _profile_kw(grid: Grid, jobs: Jobs, i: int, level: int, slots: int) -> tuple[Int64s, Floats]:
    """Return the ends [slots] and powers [kW] of a profile's phases."""
    slow, power = jobs.slowdown[i, level], jobs.power[i, level]
    edges_ms = np.concatenate(([0.0], np.cumsum([ms for ms, _ in jobs.profiles[i]]))) * slow
    energy = np.concatenate(([0.0], np.cumsum([ms * w for ms, w in jobs.profiles[i]]))) * slow * power
    at = np.interp(np.arange(slots + 1) * grid.slot_ms, edges_ms, energy)
    each = np.diff(at) / grid.slot_ms / 1e3
    change = np.append(np.flatnonzero(each[1:] != each[:-1]) + 1, slots)
    return change.astype(np.int64), each[change - 1]


def _expected_kw(grid: Grid, jobs: Jobs, job: Int64s, level: Int64s, slots: Int64s) -> tuple[Int64s, Int64s, Floats]:
    """Return (which of the modes, slot from the start, expected power [kW]) for all slots of modes.

    What a job may draw after the room held for it ends is counted in the last slot of that room.
    """
    at = np.repeat(np.arange(len(job)), slots)
    slot = np.arange(len(at)) - np.repeat(np.cumsum(slots) - slots, slots)
    p, t = corners(jobs.duration_ms[job], jobs.chance[job], jobs.within_ms[job])
    t = t * jobs.slowdown[job, level][:, None]
    p, t, last = p[at], t[at], t[at, -1]
    begin: Floats = slot.astype(np.float64) * grid.slot_ms
    until: Floats = np.where(slot + 1 == slots[at], last, np.minimum(begin + grid.slot_ms, last))
    run_ms = mean_until_ms(p, t, until) - mean_until_ms(p, t, begin)
    return at, slot, (jobs.kw[job] * jobs.power[job, level])[at] * run_ms / grid.slot_ms


def _slots_up(ms: NDArray[np.float64] | Int64s, slot_ms: int) -> Int64s:
    slots: Int64s = np.ceil(np.asarray(ms, np.float64) / slot_ms).astype(np.int64)
    return slots


def _why_not(
    jobs: Jobs, i: int, grid: Grid, sites: Sequence[Site], gpus: Floats, power_kw: Floats, blind: NDArray[np.bool_]
) -> str:
    """Return why a sound job has no place at all, even on an empty cluster."""
    allowed = np.flatnonzero(~np.isnan(jobs.transfer_kwh[i]))
    names = ", ".join(sites[int(s)].id for s in allowed)
    if blind[allowed].all():
        return f"no forecast for {names} between {iso(grid.start_ms)} and {iso(grid.end_ms)}"
    most = gpus[allowed].max()
    if jobs.gpus[i] > most:
        return f"it asks for {jobs.gpus[i]:g} GPUs and the largest of its sites ({names}) has {most:g}"
    if jobs.kw[i] * np.nanmin(jobs.power[i]) > power_kw[allowed].max():
        return f"it draws {jobs.kw[i]:g} kW, above the power budget of each of its sites ({names})"
    soonest = _slots_up(np.array([max(int(jobs.release_ms[i]) - grid.start_ms, 0)]), grid.slot_ms)[0]
    moving = np.where(np.isnan(jobs.transfer_kwh[i]), np.inf, np.ceil(jobs.transfer_ms[i] / grid.slot_ms)).min()
    needed = int(np.ceil(np.round(jobs.held_ms()[i] / grid.slot_ms, 9)) + moving)
    due = min(max(int((jobs.deadline_ms[i] - grid.start_ms) // grid.slot_ms), 0), grid.slots)
    until = "its deadline" if jobs.deadline_ms[i] < grid.end_ms else "the end of the horizon"
    return (
        f"it needs {needed} slots of {grid.slot_ms / 60_000:g} min, and between its release and {until} "
        f"lie {max(due - int(soonest), 0)}"
    )
