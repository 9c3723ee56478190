"""Routing an inference service: a service file and the book's signals to the programme, and its answer back in words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from wattkeeper.config import validate
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, ImportFileError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.integrations.csvfile.rows import read_rows
from wattkeeper.lake.book import Book
from wattkeeper.plan.problem import Grid, Site, Weights
from wattkeeper.plan.route import Origin, Routing, Service, Variant, lay_out, nearest, quality_of, route, shares
from wattkeeper.planning import about, currency_of, sites_of, steps_of
from wattkeeper.report.planned import Step
from wattkeeper.report.routed import UNSERVED, Share

Floats = NDArray[np.float64]

COUNTERFACTUAL = "the best variant at the nearest site with room, then the next nearest"
"""What a saving is against."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VariantConfig(_Table):
    """A model that can answer a request."""

    name: str = Field(description="Its name.")
    energy_wh: float = Field(
        ge=0, description="IT energy of one request, measured at the batch it is served with [Wh]."
    )
    gpu_s: float = Field(gt=0, description="GPU time of one request [s].")
    quality: float = Field(description="Any measure by which higher is better, the same for all variants.")
    latency_ms: float = Field(0.0, ge=0, description="From a request's arrival at the site to its answer [ms].")


class OriginConfig(_Table):
    """Where requests come from."""

    name: str = Field(description="Its name.")
    requests_per_h: float | list[float] = Field(
        0.0, description="Requests an hour; or 24 of them, by hour of the day (UTC)."
    )
    latency_limit_ms: float = Field(gt=0, description="The most that network and variant may take together [ms].")
    network_ms: dict[str, float] = Field(description="Network time by site, there and back [ms]; others are not used.")


class ServiceFile(_Table):
    """A service file: what answers, and where requests come from."""

    quality: float = Field(0.0, description="Floor of the mean quality in every slot.")
    variant: list[VariantConfig] = Field(min_length=1)
    origin: list[OriginConfig] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Routed:
    """A routed service beside the usual split. signals: the words on each site's values, by site and kind."""

    grid: Grid
    sites: tuple[Site, ...]
    service: Service
    origins: tuple[Origin, ...]
    planned: Routing
    usual: Routing
    priced: bool
    signals: dict[str, dict[str, SignalInfo]]

    @property
    def currency(self) -> str | None:
        """What costs are in; None without a price."""
        return currency_of(info for found in self.signals.values() for info in found.values()) if self.priced else None

    @property
    def saving(self) -> float | None:
        """Carbon saved over that of the usual split; None where either does not serve all."""
        usual_g = float(self.usual.carbon_g.sum())
        if self.planned.unserved.any() or self.usual.unserved.any() or not usual_g:
            return None
        return 1 - float(self.planned.carbon_g.sum()) / usual_g


def routed(
    book: Book,
    service_file: Path,
    *,
    grid: Grid,
    weights: Weights,
    gpus: Mapping[str, float],
    requests: Path | None = None,
) -> Routed:
    """Route a service on the sites of a book.

    gpus: by site, what the service may hold; default: all of the site. requests: a CSV file of time, origin and
    requests_per_h in place of those of the service file. Raises ConfigError, ImportFileError, PlanInputError.
    """
    config = read_service(service_file)
    sites, signals = sites_of(book, grid, gpus, {})
    lacking = [s for s, found in signals.items() if weights.money_g and "price" not in found]
    if lacking:
        raise ConfigError(f"Site '{lacking[0]}' names no price, and money has a weight. Set price in the site file.")
    known = {s.id for s in sites}
    for one in config.origin:
        if unknown := [s for s in one.network_ms if s not in known]:
            raise ConfigError(
                f"Origin '{one.name}' names site '{unknown[0]}'. The book has {', '.join(sorted(known))}."
            )
    demand = _demand(config, grid) if requests is None else read_requests(requests, config, grid)
    origins = [Origin(o.name, demand[o.name] * grid.slot_h, o.network_ms, o.latency_limit_ms) for o in config.origin]
    variants = [Variant(v.name, v.energy_wh, v.gpu_s, v.quality, v.latency_ms) for v in config.variant]
    service = lay_out(grid, sites, variants, origins, weights, config.quality)
    priced = all("price" in found for found in signals.values())
    return Routed(
        grid, tuple(sites), service, tuple(origins), route(service), nearest(service, origins, sites), priced, signals
    )


def read_service(path: Path) -> ServiceFile:
    """Read a service file. Raises ConfigError with the place of what is wrong."""
    try:
        return validate(ServiceFile, tomllib.loads(path.read_text("utf-8")), str(path))
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error


def _demand(config: ServiceFile, grid: Grid) -> dict[str, Floats]:
    """Return requests per hour in each slot, by origin."""
    hour = (grid.start_ms + grid.slot_ms * np.arange(grid.slots)) // MS_PER_HOUR % 24
    found = {}
    for one in config.origin:
        values = np.atleast_1d(np.asarray(one.requests_per_h, np.float64))
        if len(values) not in {1, 24}:
            raise ConfigError(f"Origin '{one.name}' has {len(values)} requests_per_h; give one number, or 24.")
        found[one.name] = values[hour] if len(values) == 24 else np.full(grid.slots, values[0])
    return found


def read_requests(path: Path, config: ServiceFile, grid: Grid) -> dict[str, Floats]:
    """Return requests per hour in each slot, by origin, from a file: the mean of the rows in each slot.

    A slot without a row is refused, and so are two rows of one origin and time.
    """
    sums = {o.name: np.zeros(grid.slots) for o in config.origin}
    counts = {o.name: np.zeros(grid.slots) for o in config.origin}
    seen: set[tuple[str, int]] = set()
    for row, cells in read_rows(path, ("time", "origin", "requests_per_h"), reals=["requests_per_h"], times=["time"]):
        origin, time_ms = cells["origin"], cells["time"]
        if origin not in sums:
            raise ImportFileError(f"{path} row {row}: origin '{origin}' is not in the service file.")
        if (origin, time_ms) in seen:
            raise ImportFileError(f"{path} row {row}: there are two rows of '{origin}' at {iso(time_ms)}.")
        if cells["requests_per_h"] < 0:
            raise ImportFileError(f"{path} row {row}: requests_per_h is below 0.")
        seen.add((origin, time_ms))
        slot = (time_ms - grid.start_ms) // grid.slot_ms
        if 0 <= slot < grid.slots:
            sums[origin][slot] += cells["requests_per_h"]
            counts[origin][slot] += 1
    for origin, count in counts.items():
        if not count.all():
            hole = int((count == 0).argmax())
            raise ImportFileError(f"{path} has no requests of '{origin}' for the slot at {iso(grid.at_ms(hole))}.")
    return {origin: sums[origin] / counts[origin] for origin in sums}


def to_json(found: Routed) -> dict[str, Any]:
    """Return everything as plain data."""
    grid, service, made = found.grid, found.service, found.planned
    variants = [v.name for v in service.variants]
    rows = zip(
        made.slot.tolist(), made.origin.tolist(), made.site.tolist(), made.variant.tolist(), made.requests.tolist(),
        made.carbon_g.tolist(), strict=True,
    )  # fmt: skip
    return {
        "start": iso(grid.start_ms),
        "end": iso(grid.end_ms),
        "slot_min": grid.slot_ms / 60_000,
        "currency": found.currency,
        "routes": [
            {
                "start": iso(grid.at_ms(t)), "origin": found.origins[o].name, "site": found.sites[s].id,
                "variant": variants[v], "requests": n, "carbon_g": g,
            }
            for t, o, s, v, n, g in rows
        ],
        "planned": totals(found, made),
        "usual": totals(found, found.usual),
        "counterfactual": COUNTERFACTUAL,
        "saving": found.saving,
        "bound_weighed_g": made.bound_g,
        "gap": made.gap,
        "unserved": _unserved(found, made),
        "signals": {
            site: {kind: about(info) for kind, info in infos.items()} for site, infos in found.signals.items()
        },
    }  # fmt: skip


def chart_rows(found: Routed) -> tuple[list[Step], list[Share]]:
    """Return what the figure draws: intensity by site and slot, and who answers how many requests an hour."""
    grid, made = found.grid, found.planned
    shares = [
        Share(grid.at_ms(t), grid.at_ms(t + 1), found.sites[s].id, found.service.variants[v].name, n / grid.slot_h)
        for t, s, v, n in zip(
            made.slot.tolist(), made.site.tolist(), made.variant.tolist(), made.requests.tolist(), strict=True
        )
    ]
    for t in np.flatnonzero(made.unserved.any(0)).tolist():
        lost = float(made.unserved[:, t].sum()) / grid.slot_h
        shares.append(Share(grid.at_ms(t), grid.at_ms(t + 1), UNSERVED, UNSERVED, lost))
    return steps_of(found.sites, grid), shares


def totals(found: Routed, one: Routing) -> dict[str, Any]:
    """Return the sums of a split, and its shares by site and by variant."""
    return {
        "requests": float(one.requests.sum()),
        "unserved": float(one.unserved.sum()),
        "energy_kwh": float(one.energy_kwh.sum()),
        "carbon_g": float(one.carbon_g.sum()),
        "cost": float(one.cost.sum()) if found.priced else None,
        "gpu_h": float(one.gpu_h.sum()),
        "quality": quality_of(found.service, one),
        "weighed_g": one.cost_g,
        "sites": _shares(one, "site", [s.id for s in found.sites]),
        "variants": _shares(one, "variant", [v.name for v in found.service.variants]),
    }  # fmt: skip


def _shares(one: Routing, axis: str, names: list[str]) -> dict[str, float]:
    return dict(zip(names, shares(one, axis, len(names)).tolist(), strict=True))


def _unserved(found: Routed, one: Routing) -> list[dict[str, Any]]:
    return [
        {
            "start": iso(found.grid.at_ms(int(t))),
            "origin": found.origins[int(o)].name,
            "requests": float(one.unserved[o, t]),
            "why": one.why[int(o), int(t)],
        }
        for o, t in np.argwhere(one.unserved > 0)
    ]
