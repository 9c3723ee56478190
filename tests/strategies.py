"""Random clusters: assets, meters missing at any level, gaps, resets, shares, odd allocations, clock changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from hypothesis import strategies as st

from wattkeeper.core.assets import Meter
from wattkeeper.core.clock import day_start_ms
from wattkeeper.core.roles import Intake, SignalInfo
from wattkeeper.core.schema import ALLOCATIONS, READINGS, SIGNALS

HOUR = 3_600_000
MINUTE = 60_000
START = day_start_ms("2026-10-24", "Europe/Berlin")
"""The clock goes back the day after: the 25th has 25 hours."""


@dataclass(frozen=True)
class Cluster:
    """A cluster on paper: its site file, and what is imported into its book."""

    site_file: str
    meters: tuple[Meter, ...]
    readings: pl.DataFrame
    allocations: pl.DataFrame
    signals: pl.DataFrame

    def intake(self) -> Intake:
        """Everything at once."""
        info = SignalInfo("ci", "intensity", "g/kWh", "test")
        return Intake(
            "test", meters=list(self.meters), readings=self.readings, allocations=self.allocations,
            signals=self.signals, signal_infos=[info],
        )  # fmt: skip


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Draw a cluster of up to three nodes over up to three days."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    gpus = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    assets = {f"n{i}": "node" for i in range(len(gpus))}
    assets |= {f"n{i}/gpu{g}": "gpu" for i, n in enumerate(gpus) for g in range(n)}
    assets |= {"n0/cpu0": "cpu"} if draw(st.booleans()) else {}
    metered = [a for a in assets if draw(st.integers(0, 4))]
    metered += ["rack"] if draw(st.booleans()) else []
    metered += ["a"] if draw(st.booleans()) else []
    zone = draw(st.sampled_from(["Europe/Berlin", "UTC", "Asia/Kolkata", "Australia/Lord_Howe"]))
    pue = draw(st.sampled_from(["", "pue = 1.3\n"]))
    site_file = f"[[site]]\nid = 'a'\ntimezone = '{zone}'\nintensity = 'ci'\n{pue}"
    site_file += "[[asset]]\nid = 'rack'\nkind = 'rack'\nparent = 'a'\n"
    for asset, kind in assets.items():
        parent = asset.split("/")[0] if "/" in asset else "rack"
        site_file += f"[[asset]]\nid = '{asset}'\nkind = '{kind}'\nparent = '{parent}'\n"
    days = draw(st.integers(1, 3))
    meters = [_meter(rng, a) for a in metered]
    readings = [_readings(rng, m, assets.get(m.asset, "rack"), days * 24 * HOUR) for m in meters]
    return Cluster(
        site_file,
        tuple(meters),
        pl.concat([READINGS.empty(), *readings]),
        _allocations(rng, [a for a in assets if "cpu" not in a], days * 24 * HOUR),
        _signals(rng, days * 24 * HOUR),
    )


def _meter(rng: np.random.Generator, asset: str) -> Meter:
    quantity = str(rng.choice(["energy_counter", "energy_counter", "power", "energy_interval"]))
    interval = 15 * MINUTE if quantity == "energy_interval" else 0
    return Meter(f"{asset}:{quantity}", asset, quantity, interval_ms=interval, max_gap_ms=20 * MINUTE)


def _readings(rng: np.random.Generator, meter: Meter, kind: str, length_ms: int) -> pl.DataFrame:
    """Readings that begin and end anywhere, with gaps; counters also restart."""
    begin, end = np.sort(rng.integers(-HOUR, length_ms, 2))
    step = 15 * MINUTE if meter.interval_ms else int(rng.choice([MINUTE, 5 * MINUTE]))
    time_ms = START + np.arange(begin, end + 1, step)
    time_ms = time_ms + (0 if meter.interval_ms else rng.integers(0, step // 2, len(time_ms)))
    watts = {"gpu": 500, "node": 4000, "cpu": 200, "rack": 10_000}[kind]
    power_w = rng.integers(watts // 4, watts, len(time_ms))
    if meter.quantity == "power":
        value = power_w * 1000
    elif meter.quantity == "energy_interval":
        value = power_w * step
    else:
        value = 10**9 + np.cumsum(power_w * np.diff(time_ms, prepend=time_ms[:1]))
        for at in np.sort(rng.integers(0, len(value), rng.integers(0, 3))):
            value[at:] -= value[at] - rng.integers(1, 1000)
    keep = rng.random(len(time_ms)) > 0.01
    for at in rng.integers(0, len(time_ms), rng.integers(0, 3)):
        keep[at : at + int(rng.integers(1, 10 * HOUR)) // step] = False
    return pl.DataFrame({"meter": meter.id, "time_ms": time_ms[keep], "value": value[keep]}, schema=READINGS.schema)


def _allocations(rng: np.random.Generator, assets: list[str], length_ms: int) -> pl.DataFrame:
    """Allocations that overlap, have no length, begin before the readings, never end, or name no asset of ours."""
    rows = []
    for j in range(int(rng.integers(0, 12))):
        start = START + int(rng.integers(-2 * HOUR, length_ms))
        length = int(rng.choice([0, 1, 20_000, 10 * MINUTE, 5 * HOUR, 40 * HOUR]))
        end = None if rng.random() < 0.1 else start + length
        for asset in rng.permutation([*assets, "elsewhere"])[: int(rng.integers(1, 4))]:
            share = float(rng.choice([0.0, 0.25, 0.3, 1.0, 1.0]))
            rows.append((f"j{j}", str(asset), start, end, share, bool(rng.random() < 0.2)))
    return pl.DataFrame(rows, schema=ALLOCATIONS.schema, orient="row")


def _signals(rng: np.random.Generator, length_ms: int) -> pl.DataFrame:
    """A carbon intensity in 5, 15, 30 and 60-minute steps, with missing stretches."""
    rows, at = [], START - 2 * HOUR
    while at < START + length_ms + HOUR:
        step = int(rng.choice([5, 15, 30, 60])) * MINUTE
        if rng.random() > 0.05:
            rows.append(("ci", at, at + step, float(rng.integers(20, 900))))
        at += step
    return pl.DataFrame(rows, schema=SIGNALS.schema, orient="row")
