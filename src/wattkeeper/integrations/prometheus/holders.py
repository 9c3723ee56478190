"""Who holds which GPU, read off samples: from the first that names a job to one scrape after the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.core.schema import ALLOCATIONS, JOBS

MAX_GAP_MS = 300_000
"""A job that no sample named for longer has let go in between."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One series as a witness: at these instants this job held this asset.

    asset: a GPU or MIG instance; device: the GPU. slice: the part of the device that the asset is. job: "" for nobody.
    time_ms: (n,) int64 [ms UTC]; weight: (n,) float64, the job's part against other jobs at the same instant.
    """

    asset: str
    device: str
    host: str
    slice: float
    job: str
    time_ms: NDArray[np.int64]
    weight: NDArray[np.float64]


def held(
    evidence: Sequence[Evidence], interval_ms: int, start_ms: int, end_ms: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return ALLOCATIONS and JOBS of [start_ms, end_ms).

    Jobs that hold an asset at one instant share it by weight; times the slice it is the share of the device.
    interval_ms: how long a lone sample counts; else an asset's median distance of samples is taken.
    """
    if not evidence:
        return ALLOCATIONS.empty(), JOBS.empty()
    cells = _cells(_frame(evidence), interval_ms)
    rows = _runs(cells).with_columns(pl.col("start_ms").clip(start_ms), pl.col("end_ms").clip(None, end_ms))
    rows = rows.filter(pl.col("end_ms") > pl.col("start_ms")).with_columns(estimated=pl.lit(False))
    allocations = rows.select(ALLOCATIONS.schema.names()).sort("job_id", "asset", "start_ms")
    return allocations, _jobs(rows, end_ms)


def _frame(evidence: Sequence[Evidence]) -> pl.DataFrame:
    """Return one row per asset, job and instant, with the largest weight that a series gave."""
    parts = [
        pl.DataFrame(
            {"which": i, "time_ms": e.time_ms, "weight": e.weight},
            {"which": pl.Int32, "time_ms": pl.Int64, "weight": pl.Float64},
        )
        for i, e in enumerate(evidence)
    ]
    names = pl.DataFrame(
        {
            "which": pl.Series(range(len(evidence)), dtype=pl.Int32),
            "asset": [e.asset for e in evidence],
            "device": [e.device for e in evidence],
            "host": [e.host for e in evidence],
            "slice": [e.slice for e in evidence],
            "job_id": [e.job for e in evidence],
        }
    )
    rows = pl.concat(parts).join(names, on="which").filter(pl.col("weight").is_finite() & (pl.col("weight") > 0))
    keys = ["asset", "job_id", "time_ms"]
    return rows.group_by(keys).agg(pl.col("weight", "slice").max(), pl.col("device", "host").first()).sort(keys)


def _cells(rows: pl.DataFrame, interval_ms: int) -> pl.DataFrame:
    """Return the rows that name a job, with the share it held and until when the sample speaks.

    That is the next sample of the asset where that names the job too, else one scrape later, but not beyond the next
    sample: by then someone else may hold the asset.
    """
    times = rows.select("asset", "time_ms").unique().sort("asset", "time_ms")
    times = times.with_columns(next_ms=pl.col("time_ms").shift(-1).over("asset"))
    step = pl.col("next_ms") - pl.col("time_ms")
    times = times.with_columns(step=step.median().over("asset").clip(None, MAX_GAP_MS).fill_null(interval_ms))
    cells = rows.filter(pl.col("job_id") != "").join(times, on=["asset", "time_ms"]).sort("asset", "job_id", "time_ms")
    goes_on = (pl.col("time_ms").shift(-1).over("asset", "job_id") == pl.col("next_ms")) & (step <= MAX_GAP_MS)
    spoken = pl.min_horizontal(pl.col("time_ms") + pl.col("step").cast(pl.Int64), "next_ms")
    return cells.with_columns(
        share=pl.col("weight") / pl.col("weight").sum().over("asset", "time_ms") * pl.col("slice"),
        until_ms=pl.when(goes_on.fill_null(value=False)).then("next_ms").otherwise(spoken),
    )


def _runs(cells: pl.DataFrame) -> pl.DataFrame:
    """Return the cells joined where one begins as the last ends, with the same share."""
    before = pl.col("until_ms", "share").shift(1).over("asset", "job_id").name.suffix("_before")
    breaks = (pl.col("until_ms_before") != pl.col("time_ms")) | (pl.col("share_before") != pl.col("share"))
    return (
        cells.with_columns(before)
        .with_columns(run=breaks.fill_null(value=True).cum_sum())
        .group_by("run", "asset", "job_id", maintain_order=True)
        .agg(
            pl.col("time_ms").min().alias("start_ms"),
            pl.col("until_ms").max().alias("end_ms"),
            pl.col("share", "device", "host").first(),
        )
    )


def _jobs(rows: pl.DataFrame, end_ms: int) -> pl.DataFrame:
    """Return one row per job; a job that still holds something at the end of the span is running."""
    pod = pl.col("job_id").str.contains("/", literal=True)
    jobs = rows.group_by("job_id").agg(
        pl.col("start_ms").min(),
        pl.col("end_ms").max(),
        pl.col("host").n_unique().cast(pl.Int64).alias("nodes"),
        pl.col("device").n_unique().cast(pl.Int64).alias("gpus"),
    )
    jobs = jobs.with_columns(
        pl.when(pl.col("end_ms") < end_ms).then("end_ms").alias("end_ms"),
        pl.when(pod).then(pl.col("job_id").str.split("/").list.last()).alias("name"),
        pl.when(pod).then(pl.col("job_id").str.split("/").list.first()).alias("project"),
    )
    missing = [pl.lit(None, d).alias(c) for c, d in JOBS.schema.items() if c not in jobs.columns]
    return jobs.with_columns(missing).select(pl.col(c).cast(d) for c, d in JOBS.schema.items()).sort("job_id")
