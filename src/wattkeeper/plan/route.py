"""Requests of an inference service, split among sites and model variants hour by hour, as a linear programme.

x[origin, site, variant, slot] ≥ 0 requests; every request is served or told as not served. A site's GPUs are not
held for longer than there are, the mean quality of what is served is at least the floor in every slot, and only what
keeps the origin's latency limit may be chosen. The bound is computed here from the solver's row prices, and holds for
any prices of the right sign, so it does not rest on the solver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import MissingExtraError
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.problem import Grid, PlanInputError, Site, Weights

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

_DEAR = 1000.0
"""An unserved request costs as much as this many of the dearest."""


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

    unserved: (origins, slots). cost_g: of what is served; bound_g: what no split of all requests can be below, or None
    where not all are served. energy_kwh, carbon_g, cost, gpu_h: (k,) of each, of the facility.
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

    @property
    def gap(self) -> float | None:
        """How far the cost is above the bound, as a part of the bound; None without a positive bound."""
        return None if self.bound_g is None or self.bound_g <= 0 else (self.cost_g - self.bound_g) / self.bound_g


@dataclass(frozen=True, slots=True)
class Service:
    """What is to be routed, laid out: (options,) origin, site, variant, slot, and cost of one request [g].

    requests: (origins, slots). gpu_s: (sites, slots) GPU seconds there are. shown: (3, sites, slots) PUE, facility
    carbon [g/kWh of IT] and money.
    """

    origin: Int64s
    site: Int64s
    variant: Int64s
    slot: Int64s
    each_g: Floats
    requests: Floats
    gpu_s: Floats
    shown: Floats
    variants: Sequence[Variant]
    quality: float


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
    if quality > max(v.quality for v in variants):
        best = max(variants, key=lambda v: v.quality)
        raise PlanInputError(
            f"The quality floor {quality:g} is above the best variant, {best.name} with {best.quality:g}."
        )
    for v in variants:
        if not (
            v.energy_wh >= 0 and v.gpu_s >= 0 and np.isfinite([v.energy_wh, v.gpu_s, v.quality, v.latency_ms]).all()
        ):
            raise PlanInputError(
                f"Variant '{v.name}' needs a finite energy, GPU time, quality and latency of at least 0."
            )
    columns = ("gpus", "intensity_g_per_kwh", "price_per_kwh", "pue")
    gpus, intensity, price, pue = (
        np.stack([np.broadcast_to(np.asarray(getattr(s, c), np.float64), grid.slots) for s in sites]) for c in columns
    )
    per_kwh = weights.carbon * intensity + (weights.money_g * price if weights.money_g else 0.0)
    seen = ~np.isnan(per_kwh * pue)
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
    place = np.nonzero(allowed[:, :, :, None] & seen[None, :, None, :] & (requests > 0)[:, None, None, :])
    origin_of, site_of, variant_of, slot_of = (axis.astype(np.int64) for axis in place)
    kwh = np.array([v.energy_wh for v in variants])[variant_of] / 1000
    return Service(
        origin_of, site_of, variant_of, slot_of, kwh * (pue * per_kwh)[site_of, slot_of], requests,
        gpus * grid.slot_ms / 1000, np.stack([pue, pue * intensity, pue * price]), variants, quality,
    )  # fmt: skip


def route(service: Service) -> Routing:
    """Return the cheapest split. Raises MissingExtraError without highspy."""
    try:
        import highspy  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingExtraError("wattkeeper.plan.route", "highspy", "polish") from error
    n_origins, slots = service.requests.shape
    k = len(service.each_g)
    free = np.arange(service.requests.size)  # one column for the unserved requests of each origin and slot
    penalty = _DEAR * max(float(np.abs(service.each_g).max(initial=0.0)), 1e-9)
    cost = np.concatenate((service.each_g, np.full(len(free), penalty)))
    upper = np.concatenate((service.requests[service.origin, service.slot], service.requests.ravel()))
    quality = np.array([v.quality for v in service.variants])[service.variant] - service.quality
    gpu_s = np.array([v.gpu_s for v in service.variants])[service.variant]
    n_sites = len(service.gpu_s)
    # rows: requests of each origin and slot; GPU seconds of each site and slot; quality of each slot
    demand, room = service.origin * slots + service.slot, n_origins * slots + service.site * slots + service.slot
    floor = (n_origins + n_sites) * slots + service.slot
    lower = np.concatenate((service.requests.ravel(), np.full(service.gpu_s.size, -np.inf), np.zeros(slots)))
    limit = np.concatenate((service.requests.ravel(), service.gpu_s.ravel(), np.full(slots, np.inf)))
    rows = np.concatenate((np.stack([demand, room, floor], axis=1).ravel(), free))
    values = np.concatenate((np.stack([np.ones(k), gpu_s, quality], axis=1).ravel(), np.ones(len(free))))
    begin = np.concatenate((3 * np.arange(k), 3 * k + np.arange(len(free) + 1)))
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(cost), len(lower)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, np.zeros(len(cost)), upper
    lp.row_lower_, lp.row_upper_ = lower, limit
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = begin, rows, values
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.passModel(lp)
    highs.run()
    solution = highs.getSolution()
    found = np.maximum(np.asarray(solution.col_value), 0.0)
    unserved = found[k:].reshape(n_origins, slots)
    unserved[unserved < 1e-6 * np.maximum(service.requests, 1.0)] = 0.0
    bound = _bound(cost, upper, lower, limit, begin, rows, values, np.asarray(solution.row_dual))
    return _told(service, found[:k], unserved, None if unserved.any() else bound)


def _bound(
    cost: Floats,
    upper: Floats,
    lower: Floats,
    limit: Floats,
    begin: Int64s,
    rows: Int64s,
    values: Floats,
    price: Floats,
) -> float:
    """Return what no solution can be below, from row prices whatever they are: those of the wrong sign count as 0."""
    price = np.where(np.isinf(lower), np.minimum(price, 0.0), price)
    price = np.where(np.isinf(limit), np.maximum(price, 0.0), price)
    side = np.where(price > 0, lower, limit)
    paid = float((price * np.where(price == 0, 0.0, side)).sum())
    priced = np.add.reduceat(values * price[rows], begin[:-1])
    # a column that would still pay for itself is taken in full
    taken = float((np.minimum(cost - priced, 0.0) * upper).sum())
    return paid + taken - _ROUNDING * (abs(paid) + abs(taken))


def nearest(service: Service, origins: Sequence[Origin], sites: Sequence[Site]) -> Routing:
    """Return the usual split, the counterfactual: the best variant at the nearest site with room, then the next nearest.

    Origins are served in their order. What finds no room is unserved.
    """
    quality = np.array([v.quality for v in service.variants])
    gpu_s = np.array([v.gpu_s for v in service.variants])
    away = np.array([[o.network_ms.get(s.id, np.inf) for s in sites] for o in origins])
    order = np.lexsort((-quality[service.variant], away[service.origin, service.site], service.origin))
    left, room = service.requests.copy(), service.gpu_s.copy()
    found = np.zeros(len(order))
    best: dict[tuple[int, int], float] = {}
    for i in order.tolist():
        o, s, v, t = (int(axis[i]) for axis in (service.origin, service.site, service.variant, service.slot))
        # of each site only its best variant that keeps the limit
        if best.setdefault((o, s), float(quality[v])) > quality[v]:
            continue
        take = min(left[o, t], room[s, t] / gpu_s[v] if gpu_s[v] else np.inf)
        found[i] = take
        left[o, t] -= take
        room[s, t] -= take * gpu_s[v]
    left[left < 1e-9] = 0.0
    return _told(service, found, left, None)


def _told(service: Service, found: Floats, unserved: Floats, bound: float | None) -> Routing:
    some = np.flatnonzero(found > 1e-9)
    s, t, v = service.site[some], service.slot[some], service.variant[some]
    requests = found[some]
    kwh = np.array([one.energy_wh for one in service.variants])[v] / 1000 * requests
    pue, carbon, money = service.shown[:, s, t]
    gpu_h = np.array([one.gpu_s for one in service.variants])[v] * requests / (MS_PER_HOUR / 1000)
    return Routing(
        service.origin[some], s, v, t, requests, unserved, kwh * pue, kwh * carbon, kwh * money, gpu_h,
        float((service.each_g[some] * requests).sum()), bound,
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
