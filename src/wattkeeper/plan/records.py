"""Sites, jobs and weights of a planning problem, as records and as columns. Times are milliseconds UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.errors import WattkeeperError
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.duration import corners, mean_until_ms, quantile_ms

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

CRITICAL, DEADLINE, ELASTIC = 0, 1, 2
TIERS = ("critical", "deadline", "elastic")
"""critical: starts at its release, at home, at full power. deadline: may shift until it. elastic: until the horizon."""

NEVER_MS = 2**61
"""Deadline of a job that has none."""


class PlanInputError(WattkeeperError):
    """Sites, signals or weights that no plan can be made from."""


class NoForecastError(PlanInputError):
    """No site has signals in any slot of the plan."""


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
            "resume_ms": [-1 if not j.suspendable else j.resume_ms if j.resume_ms >= 0 else np.nan for j in jobs],
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

    def waited_h(self, grid: Grid) -> Floats:
        """Return for how long each job has been released before the first slot, (n,) [h]."""
        return np.maximum(grid.start_ms - self.release_ms, 0) / MS_PER_HOUR

    def __len__(self) -> int:
        return len(self.ids)
