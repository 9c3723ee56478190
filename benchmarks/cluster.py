"""The cluster that the benchmarks read: GPUs with joule counters, jobs, and real-shaped signals; one seed, one book."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from wattkeeper.core.assets import Meter
from wattkeeper.core.clock import hour_edges_ms, next_day
from wattkeeper.core.roles import Intake, SignalInfo
from wattkeeper.core.schema import ALLOCATIONS, SIGNALS
from wattkeeper.lake.book import Book
from wattkeeper.lake.readings import tail_start_ms

START_MS = 1_790_812_800_000
"""2026-10-01T00:00:00Z."""

FIRST_DAY = "2026-10-01"
DAY_MS, HOUR_MS, STEP_MS = 86_400_000, 3_600_000, 15_000
GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Size:
    """How large a cluster is."""

    gpus: int
    days: int

    @property
    def name(self) -> str:
        """Folder name."""
        return f"{self.gpus}x{self.days}"


def make(size: Size, root: Path, *, without_last: int = 0) -> Book:
    """Return the book of a cluster, made once and kept under root; anew, without its last days where some come later."""
    path = root / f"{size.name}{'-short' if without_last else ''}"
    if (path / "made").exists() and not without_last:
        return Book(path)
    shutil.rmtree(path, ignore_errors=True)
    nodes = size.gpus // GPUS_PER_NODE
    site = (
        "[[site]]\nid = 'a'\nintensity = 'ci'\nprice = 'price'\npue = 'pue'\n"
        f"[[nodes]]\nnames = 'n[001-{nodes:03d}]'\nparent = 'a'\ngpus = {GPUS_PER_NODE}\n"
    )
    book = Book.create(path, site)
    gpus = [f"n{n:03d}/gpu{g}" for n in range(1, nodes + 1) for g in range(GPUS_PER_NODE)]
    meters = [Meter(f"{g}:dcgm:energy_counter", g, "energy_counter", "dcgm") for g in gpus]
    signals, infos = _signals(size)
    book.take(
        Intake("made", meters=meters, allocations=_allocations(size, gpus), signals=signals, signal_infos=infos), 0
    )
    day = FIRST_DAY
    state = [np.random.default_rng([7, i]) for i in range(len(gpus))]
    energy = np.array([int(r.integers(10**11, 10**13)) for r in state])
    for d in range(size.days - without_last):
        write_day(book, gpus, day, d, state, energy)
        day = next_day(day)
        print(f"\rmade day {d + 1} of {size.days}", end="", file=sys.stderr)
    print(file=sys.stderr)
    book.state.mark_stale([("a", 0, 2**62)])
    (path / "made").write_text("yes")
    return book


def write_day(book: Book, gpus: list[str], day: str, d: int, state: list, energy: np.ndarray) -> None:
    """Write one day's readings of all GPUs: jitter, lost samples, gaps of hours, resets."""
    times, values = [], []
    base = START_MS + d * DAY_MS + np.arange(0, DAY_MS, STEP_MS)
    for i, rng in enumerate(state):
        n = len(base)
        level = np.repeat(rng.choice([75.0, 320.0, 480.0, 640.0], 24, p=[0.2, 0.2, 0.3, 0.3]), n // 24)
        power_w = level * (1 + 0.06 * rng.standard_normal(n))
        counter = energy[i] + np.cumsum((power_w * STEP_MS).astype(np.int64))
        if rng.random() < 1 / 15:
            at = int(rng.integers(1, n))
            counter[at:] -= counter[at - 1]
        energy[i] = counter[-1]
        keep = rng.random(n) > 0.005
        if rng.random() < 1 / 15:
            at = int(rng.integers(0, n))
            keep[at : at + int(rng.uniform(0.3, 6) * HOUR_MS) // STEP_MS] = False
        jitter = np.clip(np.rint(rng.normal(0, 20, n)), -100, 100).astype(np.int64)
        jitter[0] = abs(jitter[0])
        times.append((base + jitter)[keep])
        values.append(counter[keep])
    sizes = [len(t) for t in times]
    meter = pl.Series([f"{g}:dcgm:energy_counter" for g in gpus], dtype=pl.Categorical)
    rows = pl.DataFrame(
        {
            "meter": meter.gather(np.repeat(np.arange(len(gpus)), sizes)).cast(pl.String),
            "time_ms": np.concatenate(times),
            "value": np.concatenate(values),
        }
    )
    units = np.repeat(np.arange(len(gpus)) // GPUS_PER_NODE, sizes)
    book.readings.write_day(rows, ("a", day), units, tail_start_ms(hour_edges_ms(day, "UTC")))
    book.readings.table.commit()


def _allocations(size: Size, gpus: list[str]) -> pl.DataFrame:
    """Return what jobs hold: each block of 1 to 64 GPUs runs job after job, for seconds to days, 85 % of the time.

    One turn in fifty is shared: two to four jobs hold the same GPUs, each a part, begun at different times.
    """
    rng = np.random.default_rng(11)
    end_ms = size.days * DAY_MS
    jobs = []
    for low, high in _blocks(len(gpus)):
        turns = int(end_ms / (0.2 * HOUR_MS))
        length_ms = np.clip(rng.lognormal(np.log(0.25 * HOUR_MS), 1.6, turns), 20_000, 48 * HOUR_MS).astype(np.int64)
        until_ms = np.cumsum(length_ms + rng.exponential(0.15 * HOUR_MS, turns).astype(np.int64))
        lanes = np.where(rng.random(turns) < 0.02, rng.integers(2, 5, turns), 1)
        turn = np.repeat(np.arange(turns), lanes)
        late_ms = np.where(lanes[turn] > 1, (rng.random(len(turn)) * length_ms[turn] / 2).astype(np.int64), 0)
        columns = {"start_ms": until_ms[turn] - length_ms[turn] + late_ms, "end_ms": until_ms[turn]}
        jobs.append(pl.DataFrame({**columns, "share": 1 / lanes[turn]}).with_columns(low=low, high=high))
    return (
        pl.concat(jobs)
        .filter(pl.col("start_ms") < end_ms)
        .with_row_index("job")
        .with_columns(pl.format("j{}", pl.col("job").cast(pl.String).str.zfill(6)).alias("job_id"))
        .with_columns(pl.int_ranges("low", "high").alias("gpu"), pl.col("start_ms", "end_ms") + START_MS)
        .explode("gpu")
        .with_columns(
            pl.col("gpu").replace_strict(dict(enumerate(gpus)), return_dtype=pl.String).alias("asset"), estimated=False
        )
        .select(ALLOCATIONS.schema.names())
        .cast(dict(ALLOCATIONS.schema))
    )


def _blocks(gpus: int) -> Iterator[tuple[int, int]]:
    """Yield the first GPU of each block and the one after its last: small jobs keep to some nodes, large to others."""
    low = 0
    for width, part in ((1, 0.04), (2, 0.09), (4, 0.23), (8, 0.56), (16, 0.76), (64, 1.0)):
        while low < part * gpus:
            high = min(low + width, gpus)
            yield low, high
            low = high


def _signals(size: Size) -> tuple[pl.DataFrame, list[SignalInfo]]:
    """Return a half-hourly intensity with quarter hours at day, hourly PUE and price."""
    rng = np.random.default_rng(5)
    quarter = START_MS - DAY_MS + np.arange(0, (size.days + 2) * DAY_MS, HOUR_MS // 4)
    hour = quarter / HOUR_MS % 24
    keep = (quarter % (HOUR_MS // 2) == 0) | ((hour > 8) & (hour < 16))
    at = quarter[keep]
    sun = np.maximum(np.sin((at / HOUR_MS % 24 - 5) / 14 * np.pi), 0)
    hours = quarter[::4]
    tables = {
        "ci": (at, 420 - 200 * sun + rng.normal(0, 8, len(at))),
        "pue": (hours, 1.2 + 0.05 * np.sin(hours / DAY_MS * 2 * np.pi)),
        "price": (hours, 0.2 + 0.1 * np.sin(hours / DAY_MS * 2 * np.pi + 1)),
    }
    frames = [
        pl.DataFrame(
            {"signal": s, "start_ms": t, "end_ms": np.append(t[1:], t[-1] + HOUR_MS), "value": v}, schema=SIGNALS.schema
        )
        for s, (t, v) in tables.items()
    ]
    kinds = {"ci": ("intensity", "g/kWh"), "pue": ("pue", "ratio"), "price": ("price", "EUR/kWh")}
    return pl.concat(frames), [SignalInfo(s, kind, unit, "made") for s, (kind, unit) in kinds.items()]
