"""Requests of an inference service, split among sites and model variants hour by hour, as a linear programme.

x[origin, site, variant, slot] ≥ 0 requests; every request is served or told as not served. A site's GPUs are not
held for longer than there are, the mean quality of what is served is at least the floor in every slot, and only what
keeps the origin's latency limit may be chosen. Slots do not touch each other: each is a programme of its own, which
starts from the solution of the one before. Where not all can be served, as few as possible are not, and then the rest
costs as little as possible. The bound is computed here from the solver's row prices, and holds for any prices of the
right sign, so it does not rest on the solver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.faults import check_grid, over_time
from wattkeeper.plan.highs import highspy, load
from wattkeeper.plan.problem import Grid, PlanInputError, Site, Weights

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_FORECAST, NO_GPUS, NO_QUALITY = (
    "no site it may use has a forecast",
    "the GPUs of the sites it may use do not suffice",
    "the quality floor leaves too few GPUs or no variant for it",
)
"""Why requests are not served."""

_ROUNDING = 1e-9
"""Relative error of the solver and of sums, taken off the bound."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A model that can answer. energy_wh: IT energy of a request; gpu_s: GPU time it takes; quality: higher is better;
    latency_ms: from the request's arrival at a site to its answer."""

    name: str
    energy_wh: float
    gpu_s: float
    quality: float
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests come from. requests: one number, or one a slot. network_ms: by site, there and back; sites that
    it does not name cannot be reached. limit_ms: the most that network and variant may take together."""

    name: str
    requests: float | Floats
    network_ms: Mapping[str, float]
    limit_ms: float


@dataclass(frozen=True, slots=True)
class Routing:
    """A split of all requests. origin, site, variant, slot: (k,) by number; requests: (k,) of each, above 0.

    unserved: (origins, slots); why: by origin and slot where it is above 0. cost_g: of what is served; bound_g: what no
    split of all requests can be below, or None where not all are served. energy_kwh, carbon_g, cost, gpu_h: (k,) of each,
    of the facility.
    """

    origin: Int64s
    site: Int64s
    variant: Int64s
    slot: Int64s
    requests: Floats
    unserved: Floats
    energy_kwh: Floats
    carbon_g: Floats
    cost: Floats
    gpu_h: Floats
    cost_g: float
    bound_g: float | None
    why: Mapping[tuple[int, int], str]

    @property
    def gap(self) -> float | None:
        """How far the cost is above the bound, as a part of the bound; None without a positive bound."""
        return None if self.bound_g is None or self.bound_g <= 0 else (self.cost_g - self.bound_g) / self.bound_g


@dataclass(frozen=True, slots=True)
class Service:
    """What is to be routed, laid out. origin, site, variant: (ways,) that keep the latency limit, by number.

    kwh: (ways,) IT energy of a request. rate_g: (sites, slots) what 1 kWh of IT energy costs [g]; NaN without a forecast.
    requests: (origins, slots). gpu_s: (sites, slots) GPU seconds there are. shown: (3, sites, slots) PUE, facility
    carbon [g/kWh of IT] and money.
    """

    origin: Int64s
    site: Int64s
    variant: Int64s
    kwh: Floats
    rate_g: Floats
    requests: Floats
    gpu_s: Floats
    shown: Floats
    variants: Sequence[Variant]
    quality: float

    @property
    def way_gpu_s(self) -> Floats:
        """GPU time of a request, (ways,) [s]."""
        return np.array([v.gpu_s for v in self.variants])[self.variant]


def lay_out(
    grid: Grid,
    sites: Sequence[Site],
    variants: Sequence[Variant],
    origins: Sequence[Origin],
    weights: Weights,
    quality: float,
) -> Service:
    """Check what is to be routed. Raises PlanInputError where nothing can be, and says why."""
    if not (sites and variants and origins):
        raise PlanInputError("Routing needs at least one site, one variant and one origin.")
    _check(sites, variants, origins, quality)
    check_grid(grid, sites, weights)
    columns = ("gpus", "intensity_g_per_kwh", "price_per_kwh", "pue")
    gpus, intensity, price, pue = (over_time(sites, c, grid) for c in columns)
    rate_g = pue * (weights.carbon * intensity + (weights.money_g * price if weights.money_g else 0.0))
    seen = ~np.isnan(rate_g)
    if not seen.any(0).all():
        blind = int(np.flatnonzero(~seen.any(0))[0])
        raise PlanInputError(f"No site has a forecast at {iso(grid.at_ms(blind))}. Fetch or import one for this hour.")
    allowed = np.zeros((len(origins), len(sites), len(variants)), np.bool_)
    for o, origin in enumerate(origins):
        for s, site in enumerate(sites):
            way_ms = origin.network_ms.get(site.id, np.inf)
            allowed[o, s] = [way_ms + v.latency_ms <= origin.limit_ms for v in variants]
        if not allowed[o].any():
            soonest = min((origin.network_ms.get(s.id, np.inf) for s in sites), default=np.inf)
            fastest = min(v.latency_ms for v in variants)
            raise PlanInputError(
                f"Origin '{origin.name}' has a limit of {origin.limit_ms:g} ms; the nearest site and the fastest variant "
                f"take {soonest + fastest:g} ms. Raise the limit or add a nearer site."
            )
    requests = np.stack([np.broadcast_to(np.asarray(o.requests, np.float64), grid.slots) for o in origins])
    if not (np.isfinite(requests).all() and (requests >= 0).all()):
        raise PlanInputError("Requests must be numbers of at least 0.")
    origin_of, site_of, variant_of = (axis.astype(np.int64) for axis in np.nonzero(allowed))
    return Service(
        origin_of, site_of, variant_of, np.array([v.energy_wh for v in variants])[variant_of] / 1000, rate_g, requests,
        gpus * grid.slot_ms / 1000, np.stack([pue, pue * intensity, pue * price]), variants, quality,
    )  # fmt: skip


def _check(
    sites: Sequence[Site], variants: Sequence[Variant], origins: Sequence[Origin], quality: float
) -> None:  # fmt: skip
    """Raise PlanInputError for what cannot be meant."""
    for kind, names in (("variant", [v.name for v in variants]), ("origin", [o.name for o in origins])):
        if twice := [name for name in names if names.count(name) > 1]:
            raise PlanInputError(f"There are two {kind}s '{twice[0]}'. Give each a name of its own.")
    for v in variants:
        numbers = [v.energy_wh, v.gpu_s, v.latency_ms]
        if not (np.isfinite([*numbers, v.quality]).all() and min(numbers) >= 0):
            raise PlanInputError(
                f"Variant '{v.name}' needs a finite energy, GPU time, quality and latency of at least 0."
            )
    if not np.isfinite(quality):
        raise PlanInputError(f"The quality floor {quality:g} is not a number.")
    if quality > max(v.quality for v in variants):
        best = max(variants, key=lambda v: v.quality)
        raise PlanInputError(
            f"The quality floor {quality:g} is above the best variant, {best.name} with {best.quality:g}."
        )
    for o in origins:
        ways_ms = [ms for s in sites if (ms := o.network_ms.get(s.id)) is not None]
        if not all(np.isfinite(ms) and ms >= 0 for ms in (*ways_ms, o.limit_ms)):
            raise PlanInputError(
                f"Origin '{o.name}' needs a latency limit and network times that are numbers of at least 0."
            )


def route(service: Service) -> Routing:
    """Return the cheapest split. Raises MissingExtraError without highspy."""
    n_origins, slots = service.requests.shape
    hourly = Hourly(service)
    found = np.zeros((len(service.kwh), slots))
    unserved = np.zeros((n_origins, slots))
    why: dict[tuple[int, int], str] = {}
    bound_g = 0.0
    for t in range(slots):
        found[:, t], unserved[:, t], bound, reasons = hourly.solve(t)
        bound_g += bound
        why |= {(o, t): reason for o, reason in reasons.items()}
    return _told(service, found, unserved, None if unserved.any() else bound_g, why)


class Hourly:
    """The programme of one slot after the other: HiGHS keeps the last basis, so that each starts near its solution.

    Columns: requests of each way, then those of each origin that are not served. Rows: requests of each origin; GPU
    seconds of each site; quality; and how many may be left unserved.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        ways, (origins, _), sites = len(service.kwh), service.requests.shape, len(service.gpu_s)
        self._ways, self._origins, self._sites = ways, origins, sites
        above = np.array([v.quality for v in service.variants])[service.variant] - service.quality
        rows = np.stack([service.origin, origins + service.site, np.full(ways, origins + sites)], axis=1)
        spare = np.stack([np.arange(origins), np.full(origins, origins + sites + 1)], axis=1)
        self._begin = np.concatenate((3 * np.arange(ways), 3 * ways + 2 * np.arange(origins + 1)))
        self._rows = np.concatenate((rows.ravel(), spare.ravel()))
        values = np.stack([np.ones(ways), service.way_gpu_s, above], axis=1)
        self._values = np.concatenate((values.ravel(), np.ones(2 * origins)))
        columns, limits = np.zeros(ways + origins), np.zeros(origins + sites + 2)
        self._highs = load(columns, columns, limits, limits, (self._begin, self._rows, self._values))
        status = highspy().HighsModelStatus
        self._optimal, self._infeasible = status.kOptimal, status.kInfeasible

    def solve(self, t: int) -> tuple[Floats, Floats, float, dict[int, str]]:
        """Return the requests of each way, those of each origin that are not served, the bound [g], which speaks of
        serving all, and why some are not, by origin."""
        service = self._service
        asked, blind = service.requests[:, t], np.isnan(service.rate_g[service.site, t])
        upper = np.where(blind, 0.0, asked[service.origin])
        cost = np.where(blind, 0.0, service.kwh * service.rate_g[service.site, t])
        none = np.zeros(self._origins)
        if self._run(t, cost, none, upper, none, 0.0):
            return self._served(), none, self._bound(t, cost, upper), {}
        # as few unserved as can be, then the cheapest of these
        self._run(t, np.zeros(self._ways), np.ones(self._origins), upper, asked, np.inf)
        least = self._lost(asked)
        self._run(t, cost, none, upper, asked, float(least.sum()) * (1 + _ROUNDING) + _ROUNDING * float(asked.sum()))
        served, lost = self._served(), self._lost(asked)
        free = self._run(t, cost, none, upper, none, 0.0, floor=-np.inf)
        can = np.zeros(self._origins, np.bool_)
        can[service.origin[~blind]] = True
        return served, lost, 0.0, {
            int(o): (NO_QUALITY if free else NO_GPUS) if can[o] else NO_FORECAST for o in np.flatnonzero(lost)
        }  # fmt: skip

    def _run(
        self, t: int, cost: Floats, dear: Floats, upper: Floats, spare: Floats, most: float, floor: float = 0.0
    ) -> bool:
        """Solve; return whether there is a solution. dear, spare: (origins,) cost and upper limit of the unserved;
        most: of all of them."""
        columns = np.arange(self._ways + self._origins, dtype=np.int32)
        self._highs.changeColsCost(len(columns), columns, np.concatenate((cost, dear)))
        self._highs.changeColsBounds(len(columns), columns, np.zeros(len(columns)), np.concatenate((upper, spare)))
        lower, limit = self._limits(t)
        lower[-2], limit[-1] = floor, most
        rows = np.arange(len(lower), dtype=np.int32)
        self._highs.changeRowsBounds(len(rows), rows, lower, limit)
        self._highs.run()
        status = self._highs.getModelStatus()
        if status not in {self._optimal, self._infeasible}:
            raise PlanInputError(f"HiGHS found no split: {self._highs.modelStatusToString(status)}.")
        return bool(status == self._optimal)

    def _limits(self, t: int) -> tuple[Floats, Floats]:
        """Return the least and the most of each row."""
        asked, room_s = self._service.requests[:, t], self._service.gpu_s[:, t]
        least = np.concatenate((asked, np.full(self._sites, -np.inf), [0.0, -np.inf]))
        return least, np.concatenate((asked, room_s, [np.inf, np.inf]))

    def _served(self) -> Floats:
        return np.maximum(np.array(self._highs.getSolution().col_value, np.float64)[: self._ways], 0.0)

    def _lost(self, asked: Floats) -> Floats:
        lost = np.array(self._highs.getSolution().col_value, np.float64)[self._ways :]
        return np.where(lost < 1e-6 * np.maximum(asked, 1.0), 0.0, lost)

    def _bound(self, t: int, cost: Floats, upper: Floats) -> float:
        """Return what no split of all requests can cost less than, from row prices whatever they are: those of the wrong
        sign count as 0."""
        lower, limit = self._limits(t)
        price = np.asarray(self._highs.getSolution().row_dual)
        price = np.where(np.isinf(lower), np.minimum(price, 0.0), price)
        price = np.where(np.isinf(limit), np.maximum(price, 0.0), price)
        side = np.where(price > 0, lower, limit)
        paid = price * np.where(price == 0, 0.0, side)
        mine = 3 * self._ways
        priced = (self._values[:mine] * price[self._rows[:mine]]).reshape(-1, 3).sum(1)
        # a column that would still pay for itself is taken in full
        taken = np.minimum(cost - priced, 0.0) * upper
        return float(paid.sum() + taken.sum() - _ROUNDING * (np.abs(paid).sum() + np.abs(taken).sum()))


def nearest(service: Service, origins: Sequence[Origin], sites: Sequence[Site]) -> Routing:
    """Return the usual split, the counterfactual: the best variant at the nearest site with room, then the next nearest.

    Origins are served in their order. What finds no room is unserved.
    """
    quality = np.array([v.quality for v in service.variants])[service.variant]
    away = np.array([[o.network_ms.get(s.id, np.inf) for s in sites] for o in origins])[service.origin, service.site]
    left, room, gpu_s = service.requests.copy(), service.gpu_s.copy(), service.way_gpu_s
    found = np.zeros((len(service.kwh), left.shape[1]))
    best: dict[tuple[int, int], float] = {}
    for i in np.lexsort((-quality, away, service.origin)).tolist():
        o, s = int(service.origin[i]), int(service.site[i])
        # of each site only its best variant that keeps the limit
        if best.setdefault((o, s), float(quality[i])) > quality[i]:
            continue
        fits = room[s] / gpu_s[i] if gpu_s[i] else np.full(left.shape[1], np.inf)
        take = np.where(np.isnan(service.rate_g[s]), 0.0, np.minimum(left[o], fits))
        found[i] = take
        left[o] -= take
        room[s] -= take * gpu_s[i]
    left[left < 1e-9] = 0.0
    return _told(service, found, left, None, {})


def _told(
    service: Service, found: Floats, unserved: Floats, bound: float | None, why: Mapping[tuple[int, int], str]
) -> Routing:  # fmt: skip
    """Return a split in words of a Routing. found: (ways, slots) requests."""
    way, t = np.nonzero(found > 1e-9)
    s, v = service.site[way], service.variant[way]
    requests = found[way, t]
    kwh = service.kwh[way] * requests
    pue, carbon, money = service.shown[:, s, t]
    gpu_h = service.way_gpu_s[way] * requests / (MS_PER_HOUR / 1000)
    return Routing(
        service.origin[way], s, v, t.astype(np.int64), requests, unserved, kwh * pue, kwh * carbon, kwh * money, gpu_h,
        float((service.rate_g[s, t] * kwh).sum()), bound, why,
    )  # fmt: skip


def quality_of(service: Service, routing: Routing) -> float | None:
    """Return the mean quality of what is served; None where nothing is."""
    total = float(routing.requests.sum())
    each = np.array([v.quality for v in service.variants])[routing.variant]
    return float((each * routing.requests).sum()) / total if total else None


def shares(routing: Routing, axis: str, count: int) -> Floats:
    """Return the part of all served requests by origin, site, variant or slot, (count,)."""
    sums: Any = np.bincount(getattr(routing, axis), routing.requests, minlength=count)
    return np.asarray(sums / max(float(routing.requests.sum()), 1e-300), np.float64)
