"""Small books in plain words: what each asset draws, who holds what, and what the ledger then says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from wattkeeper import loop
from wattkeeper.core.assets import Meter
from wattkeeper.core.roles import Intake
from wattkeeper.core.schema import ALLOCATIONS, READINGS
from wattkeeper.lake.book import Book

START = 1_760_000_400_000
"""2025-10-09 09:00 UTC."""

HOUR = 3_600_000
SITE = "[[site]]\nid = 'a'\n"


def node(name: str, gpus: int, parent: str = "a") -> str:
    """Return the site file lines of one node."""
    return f"[[nodes]]\nnames = '{name}'\nparent = '{parent}'\ngpus = {gpus}\n"


def mig(gpu: str, instance: int, part: float) -> str:
    """Return the site file lines of one MIG instance."""
    return f"[[asset]]\nid = '{gpu}/{instance}'\nkind = 'mig'\nparent = '{gpu}'\nslice = {part}\n"


def counter(asset: str, power_w: float, source: str = "dcgm", hours: float = 1.0) -> tuple[Meter, pl.DataFrame]:
    """Return a joule counter that sees constant power, read each 15 s."""
    time_ms = START + np.arange(0, int(hours * HOUR) + 1, 15_000)
    value = 10**9 + ((time_ms - START) * power_w).astype(np.int64)
    return _meter(asset, "energy_counter", source, time_ms, value)


def power(asset: str, power_w: float, source: str = "ipmi", hours: float = 1.0) -> tuple[Meter, pl.DataFrame]:
    """Return power samples of constant power, read each 15 s."""
    time_ms = START + np.arange(0, int(hours * HOUR) + 1, 15_000)
    return _meter(asset, "power", source, time_ms, np.full(len(time_ms), int(power_w * 1000)))


def utilisation(asset: str, ratio: float, hours: float = 1.0) -> tuple[Meter, pl.DataFrame]:
    """Return constant utilisation, read each 15 s."""
    time_ms = START + np.arange(0, int(hours * HOUR) + 1, 15_000)
    return _meter(asset, "utilisation", "dcgm", time_ms, np.full(len(time_ms), int(ratio * 10**6)))


def _meter(asset: str, quantity: str, source: str, time_ms: object, value: object) -> tuple[Meter, pl.DataFrame]:
    meter = Meter(f"{asset}:{source}:{quantity}", asset, quantity, source)
    return meter, pl.DataFrame({"meter": meter.id, "time_ms": time_ms, "value": value}, schema=READINGS.schema)


def held(job: str, asset: str, share: float = 1.0, start: int = START, end: int | None = START + HOUR) -> tuple:
    """Return one allocation; by default the whole asset for the whole hour."""
    return (job, asset, start, end, share, False)


def book(root: Path, site_file: str, meters: list, allocations: list = ()) -> Book:
    """Return an attributed book."""
    made = Book.create(root / "book", site_file)
    rows = pl.DataFrame(list(allocations), schema=ALLOCATIONS.schema, orient="row")
    readings = pl.concat([READINGS.empty(), *(r for _, r in meters)])
    made.take(Intake("test", meters=[m for m, _ in meters], readings=readings, allocations=rows), now_ms=0)
    loop.attribute(made)
    assert loop.check(made).largest_mj == 0
    return made


def watts(of: Book, *, by: str = "job_id") -> Mapping[str | None, float]:
    """Return mean watts over the hour by a column of the ledger; lines without one stand under their account."""
    rows = of.postings.scan().with_columns(
        pl.when(pl.col("account") == "job").then(pl.col(by)).otherwise(pl.col("account")).alias("key")
    )
    sums = rows.group_by("key").agg(pl.col("energy_mj").sum()).collect()
    return {k: e / HOUR for k, e in sums.iter_rows()}  # mJ / ms = W
