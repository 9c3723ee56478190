"""Planning instances: a week of jobs on some sites, feasible by construction, with real intensity where it is at hand.

As in the measured study: arrivals over 7 of 9 days, 1 to 64 GPUs, 55 % of jobs restricted in site, slack 0.5 to 72 h,
and no deadline before the finish of a first-come-first-served schedule that fits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.place import run_now
from wattkeeper.plan.problem import DEADLINE, NEVER_MS, Grid, Jobs, Problem, Site, Weights, pose

ZONES = ("DE-LU", "CA-ON", "GB")
GRID = Path(__file__).parent.parent.parent / "shared" / "data" / "grid"
ARRIVE_H, HORIZON_H = 168, 216
MONEY_G = 100.0
START_MS = 1_672_531_200_000
"""2023-01-01, the begin of the series."""


def intensity(zone: str, begin_h: int, hours: int) -> np.ndarray:
    """Return hourly life-cycle intensity [g/kWh] of a zone in 2023, or of a made-up one where the file is not there."""
    path = GRID / "intensity" / f"{zone}_2023_hourly.csv.gz"
    if path.exists():
        year = pl.read_csv(path)["Carbon Intensity gCO₂eq/kWh (LCA)"].to_numpy()
    else:
        rng = np.random.default_rng(len(zone) + ord(zone[0]))
        t = np.arange(8760)
        weather = np.convolve(rng.standard_normal(8760 + 71), np.ones(72) / 72**0.5, "valid")
        mean = {"DE-LU": 367.0, "CA-ON": 73.0, "GB": 188.0}.get(zone, 300.0)
        year = mean * np.clip(1 + 0.2 * np.cos(2 * np.pi * (t - 19) / 24) + 0.25 * weather, 0.2, 2.0)
    return np.take(year, np.arange(begin_h, begin_h + hours), mode="wrap")


def sites_of(n_sites: int, slot_min: int, seed: int, gpus: float) -> list[Site]:
    """Return sites: three zones, then the same shifted by 14 days each and scaled."""
    rng = np.random.default_rng(seed + 77)
    per_hour = 60 // slot_min
    sites = []
    for i in range(n_sites):
        zone, turn = ZONES[i % len(ZONES)], i // len(ZONES)
        begin = 24 * 7 * 13 * (seed % 4) + 24 * 14 * turn
        curve = intensity(zone, begin, HORIZON_H + 1) * (1 + 0.1 * turn)
        fine = np.interp(np.arange(HORIZON_H * per_hour) / per_hour, np.arange(HORIZON_H + 1), curve)
        price = 0.04 + 0.12 * fine / fine.mean() * rng.uniform(0.8, 1.2)
        sites.append(Site(f"s{i}", gpus, fine, price, pue=1.1 + 0.05 * (i % 3)))
    return sites


def instance(
    n: int, n_sites: int = 3, slot_min: int = 60, util: float = 0.8, seed: int = 0, biggest: int = 64
) -> Problem:
    """Return an instance. util: GPU-hours asked for over those there are in the 7 days of arrivals."""
    rng = np.random.default_rng(seed)
    slot_ms = slot_min * 60_000
    grid = Grid(START_MS, slot_ms, HORIZON_H * 60 // slot_min)
    sizes = np.array([1, 2, 4, 8, 16, 32, 64])
    chances = np.array([0.4, 0.15, 0.15, 0.15, 0.08, 0.05, 0.02])[sizes <= biggest]
    gpus = rng.choice(sizes[sizes <= biggest], n, p=chances / chances.sum()).astype(float)
    hours = np.clip(np.exp(rng.normal(0.4, 1.1, n)), 0.25, 24.0)
    t = np.arange(ARRIVE_H)
    busy = 1 + 0.6 * np.sin(2 * np.pi * (t - 8) / 24)
    hour = rng.choice(ARRIVE_H, n, p=busy / busy.sum())
    release_ms = START_MS + ((hour + rng.random(n)) * MS_PER_HOUR).astype(np.int64)
    order = np.argsort(release_ms, kind="stable")
    gpus, hours, release_ms = gpus[order], hours[order], release_ms[order]
    held_h = gpus * np.ceil(hours * 60 / slot_min) * slot_min / 60
    capacity = max(float(np.ceil(held_h.sum() / (util * ARRIVE_H * n_sites))), float(biggest))
    home = rng.integers(0, n_sites, n)
    allowed = np.ones((n, n_sites), np.bool_)
    bound = rng.random(n) < 0.55
    allowed[bound] = rng.random((int(bound.sum()), n_sites)) < 0.3
    allowed[np.arange(n), home] = True
    away = np.arange(n_sites) != home[:, None]
    transfer = np.where(allowed, np.where(away, 1e-3, 0.0), np.nan)
    jobs = Jobs(
        ids=[f"j{i}" for i in range(n)],
        tier=np.full(n, DEADLINE, np.int64),
        release_ms=release_ms,
        deadline_ms=np.full(n, NEVER_MS, np.int64),
        gpus=gpus,
        duration_ms=hours * MS_PER_HOUR,
        kw=gpus * rng.uniform(0.3, 0.7, n),
        transfer_kwh=transfer,
        transfer_ms=np.zeros((n, n_sites)),
        delay_weight=np.ones(n),
        resume_ms=np.full(n, -1.0),
        resume_kwh=np.zeros(n),
        slowdown=np.ones((n, 1)),
        power=np.ones((n, 1)),
    )
    sites = sites_of(n_sites, slot_min, seed, capacity)
    weights = Weights(money_g=MONEY_G, delay_g_per_gpu_h=1.0)
    served = run_now(pose(grid, sites, jobs, weights))
    if (served.mode < 0).any():
        raise ValueError("The first-come-first-served schedule does not fit in the horizon.")
    modes = pose(grid, sites, jobs, weights).modes
    finish = grid.start_ms + (served.start + modes.length[served.mode]) * slot_ms
    slack_ms = np.exp(rng.uniform(np.log(0.5), np.log(72), n)) * MS_PER_HOUR
    wanted = release_ms + jobs.duration_ms + slack_ms
    jobs.deadline_ms = np.minimum(np.maximum(wanted, finish), grid.end_ms).astype(np.int64)
    return pose(grid, sites, jobs, weights)
