"""What the sites of a book offer: their signals on the slots of a plan, their GPUs, and limits over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, ImportFileError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.signal import FORECAST, Signal
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.integrations.csvfile.rows import read_rows
from wattkeeper.lake.book import Book
from wattkeeper.plan.problem import Grid, Site, Weights
from wattkeeper.valuing import signal_of

Floats = NDArray[np.float64]

LIMIT_COLUMNS = ("site", "start", "end", "gpus", "power_kw")
"""Columns of a limits file: the first three must be there, and one of the others."""

_SIGNALS = {
    "intensity": "intensity_g_per_kwh", "price": "price_per_kwh", "water": "water_l_per_kwh", "pue": "pue",
}  # fmt: skip
_FRESH_H = 24
_DEFAULTS = {"intensity": np.nan, "price": np.nan, "water": np.nan, "pue": 1.0}


@dataclass(frozen=True, slots=True)
class Limit:
    """What a site may give over [start_ms, end_ms): GPUs that jobs may hold, facility power [kW]; inf for no limit."""

    site: str
    start_ms: int
    end_ms: int
    gpus: float = np.inf
    power_kw: float = np.inf


def sites_of(
    book: Book, grid: Grid, gpus: Mapping[str, float], power_kw: Mapping[str, float]
) -> tuple[list[Site], dict[str, dict[str, SignalInfo]]]:
    """Return the book's sites with their signals on the grid, and where those come from.

    gpus, power_kw: by site, what jobs may hold and draw; default: all GPUs of the site, and no budget.
    """
    config = book.site_file
    for name in (*gpus, *power_kw):
        config.site_named(name)
    sites, signals = [], {}
    for one in config.site:
        found = {kind: signal_of(book, one, kind) for kind in _SIGNALS}
        signals[one.id] = {kind: s.info for kind, s in found.items() if s is not None}
        over_time: dict[str, Any] = {}
        for kind, column in _SIGNALS.items():
            signal = found[kind]
            over_time[column] = _DEFAULTS[kind]
            if signal is not None:
                over_time[column], ahead = with_forecast(book, signal, grid)
                signals[one.id] |= {f"{kind} forecast": ahead} if ahead else {}
        held = gpus[one.id] if one.id in gpus else counted_gpus(book, one.id)
        sites.append(Site(one.id, held, **over_time, power_kw=power_kw.get(one.id, np.inf)))
    return sites, signals


def counted_gpus(book: Book, site: str) -> int:
    """Return how many GPUs a site has in the book. Raises ConfigError where it has none."""
    if found := sum(a.kind == "gpu" for a in book.tree().walk(site)):
        return found
    raise ConfigError(f"Site '{site}' has no GPUs in the book. Say how many with --gpus {site}=N.")


def currency_of(infos: Iterable[SignalInfo]) -> str | None:
    """Return what the prices among some signals are in, the same for all of a book; None without a price."""
    return next((info.unit.partition("/")[0] for info in infos if info.kind == "price"), None)


def about(info: SignalInfo) -> dict[str, str]:
    """Return where a signal's values come from as plain data."""
    return {"id": info.id, "provider": info.provider, "method": info.method}


def need(signals: Mapping[str, Mapping[str, SignalInfo]], weights: Weights) -> None:
    """Raise ConfigError where a site names no signal for what has a weight."""
    for kind, weight in (("intensity", weights.carbon), ("price", weights.money_g), ("water", weights.water_g_per_l)):
        if lacking := [site for site, found in signals.items() if weight and kind not in found]:
            raise ConfigError(f"Site '{lacking[0]}' names no {kind}, and it has a weight. Set {kind} in the site file.")


def with_forecast(book: Book, signal: Signal, grid: Grid) -> tuple[Floats, SignalInfo | None]:
    """Return a signal's means over the slots, and the newest forecast's where it has none itself; and which that is."""
    means = mean_over(signal, grid)
    info = book.state.signal_infos().get(f"{signal.info.id}{FORECAST}") if np.isnan(means).any() else None
    if info is None:
        return means, None
    ahead = mean_over(Signal.from_table(book.signal_rows(info.id), info), grid)
    used = np.isnan(means) & ~np.isnan(ahead)
    return np.where(used, ahead, means), info if used.any() else None


def mean_over(signal: Signal, grid: Grid) -> Floats:
    """Return the mean of a signal over each slot, (slots,); NaN where a part of the slot has no value."""
    slots = grid.start_ms + grid.slot_ms * np.arange(grid.slots + 1, dtype=np.int64)
    return signal.means(slots)


def blind_spots(book: Book, sites: Sequence[Site], grid: Grid, weights: Weights) -> list[str]:
    """Return a sentence for each signal of a site that lacks some or all of the time planned: which time it has, how
    many slots neither it nor a forecast covers, and what that means."""
    counts = {"price": weights.money_g > 0, "water": weights.water_g_per_l > 0}
    told: dict[str, str] = {}
    for config, site in zip(book.site_file.site, sites, strict=True):
        for kind, column in _SIGNALS.items():
            signal = signal_of(book, config, kind)
            dark = int(np.isnan(np.broadcast_to(getattr(site, column), grid.slots)).sum())
            if signal is None or not dark or not len(signal.values):
                continue
            span = f"from {iso(int(signal.breaks_ms[0]))} to {iso(int(signal.breaks_ms[-1]))}"
            if dark == grid.slots:
                told[signal.info.id] = f"signal '{signal.info.id}' has values {span} only"
            else:
                told[signal.info.id] = (
                    f"signal '{signal.info.id}' ({span}) and its forecast lack {dark} of {grid.slots} slots, "
                    + ("which are planned around" if counts.get(kind, True) else f"in which no {kind} is told")
                )
    found = list(told.values())
    for kind in counts:
        without = [s.id for s in book.site_file.site if signal_of(book, s, kind) is None]
        if without and len(without) < len(book.site_file.site):
            found.append(f"{', '.join(without)} names no {kind}, and no {kind} is told of jobs there")
    return found


def stale(book: Book, signals: Mapping[str, Mapping[str, SignalInfo]], grid: Grid) -> list[str]:
    """Return a sentence for each forecast in use that was made more than a day before the plan begins."""
    told = []
    for info in {
        i.id: i for found in signals.values() for kind, i in found.items() if kind.endswith(" forecast")
    }.values():
        begun_ms = int(book.signal_rows(info.id)["start_ms"].min())  # type: ignore[arg-type]  # a forecast has rows
        if grid.start_ms - begun_ms > _FRESH_H * MS_PER_HOUR:
            told.append(
                f"forecast '{info.id}' begins at {iso(begun_ms)}, {(grid.start_ms - begun_ms) / MS_PER_HOUR:.0f} h before "
                "the plan: make a newer one with wattkeeper grid forecast"
            )
    return told


def read_limits(path: Path) -> list[Limit]:
    """Return the limits of a file. Raises ImportFileError with the row of what cannot be read."""
    rows = read_rows(
        path, LIMIT_COLUMNS[:3], LIMIT_COLUMNS[3:], reals=LIMIT_COLUMNS[3:], times=LIMIT_COLUMNS[1:3]
    )  # fmt: skip
    if rows and not rows[0][1].keys() & set(LIMIT_COLUMNS[3:]):
        raise ImportFileError(f"{path} limits nothing: it has neither a column gpus nor power_kw.")
    found = []
    for row, cells in rows:
        most = (np.inf if cells.get(name) is None else cells[name] for name in LIMIT_COLUMNS[3:])
        one = Limit(cells["site"], cells["start"], cells["end"], *most)
        if one.end_ms <= one.start_ms or min(one.gpus, one.power_kw) < 0:
            raise ImportFileError(f"{path} row {row}: its end is not after its start, or a limit is below 0.")
        found.append(one)
    return found


def limited(sites: Sequence[Site], limits: Sequence[Limit], grid: Grid) -> list[Site]:
    """Return the sites under limits: in each slot the least that holds in any part of it."""
    found = []
    for site in sites:
        gpus, power_kw = (
            np.broadcast_to(np.asarray(v, np.float64), grid.slots).copy() for v in (site.gpus, site.power_kw)
        )
        for one in (x for x in limits if x.site == site.id):
            some = slice(*(slots_of(one.start_ms, one.end_ms, grid)))
            gpus[some] = np.minimum(gpus[some], one.gpus)
            power_kw[some] = np.minimum(power_kw[some], one.power_kw)
        found.append(replace(site, gpus=gpus, power_kw=power_kw))
    return found


def less(sites: Sequence[Site], held: Mapping[str, Floats]) -> list[Site]:
    """Return the sites without the GPUs that are held, by site (slots,); none below 0."""
    return [replace(s, gpus=np.maximum(s.gpus - held[s.id], 0.0)) if s.id in held else s for s in sites]


def slots_of(start_ms: int, end_ms: int, grid: Grid) -> tuple[int, int]:
    """Return the slots that a time touches: the first, and the one after the last."""
    first, last = (start_ms - grid.start_ms) // grid.slot_ms, -((grid.start_ms - end_ms) // grid.slot_ms)
    return min(max(first, 0), grid.slots), min(max(last, 0), grid.slots)
