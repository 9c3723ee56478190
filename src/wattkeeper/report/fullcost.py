"""Full cost: what no job drew, spread over the jobs that ran, so that all of a meter's energy has a customer.

In each hour a site's idle, overhead and unaccounted energy is given to its jobs in proportion to what they drew
themselves in that hour. An hour without jobs keeps what it has: nobody is charged for it. Shares are telescoping floors,
so that jobs' full energy and what stays add up to the meter, to the millijoule.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

OWN = ("job", "held_idle")
"""Accounts that are a job's own."""

VALUED = ("carbon_g", "cost", "water_l")


def full_cost(postings: pl.LazyFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return each job's full energy, carbon, cost and water, and what stays with nobody.

    postings: POSTINGS. First: job_id, full_mj, full_carbon_g, full_cost, full_water_l; null where the postings have no
    value. Second: one row, energy_mj and the three.
    """
    amounts = ("energy_mj", *VALUED)
    own = pl.col("account").is_in(OWN)
    here = ["site", "hour_ms"]
    sums = (
        postings.with_columns(pl.when(own).then(pl.col("job_id")).alias("job_id"))
        .group_by(*here, "job_id")
        .agg(pl.when(pl.col(c).null_count() < pl.len()).then(pl.col(c).sum()).alias(c) for c in amounts)
        .sort(*here, "job_id")
        .collect()
    )
    jobs, pool = sums.filter(pl.col("job_id").is_not_null()), sums.filter(pl.col("job_id").is_null())
    drawn = jobs.group_by(here).agg(pl.col("energy_mj").sum().alias("drawn_mj")).filter(pl.col("drawn_mj") > 0)
    pool = pool.drop("job_id").join(drawn, on=here, how="left")
    stays = pool.filter(pl.col("drawn_mj").is_null()).select(pl.col(amounts).sum())
    shared = pool.filter(pl.col("drawn_mj").is_not_null()).rename({c: f"pool_{c}" for c in amounts})
    spread = jobs.join(shared, on=here, how="left", maintain_order="left")
    given = _given(spread)
    part = pl.col("energy_mj") / pl.col("drawn_mj")
    full = spread.with_columns(
        (pl.col("energy_mj") + pl.Series(given)).alias("full_mj"),
        *((pl.col(c) + (pl.col(f"pool_{c}") * part).fill_null(0.0)).alias(f"full_{c}") for c in VALUED),
    )
    columns = ["full_mj", *(f"full_{c}" for c in VALUED)]
    by_job = full.group_by("job_id").agg(
        pl.when(pl.col(c).null_count() < pl.len()).then(pl.col(c).sum()).alias(c) for c in columns
    )
    return by_job, stays


def _given(spread: pl.DataFrame) -> Int64s:
    """Return what each row, in runs of one site and hour, is given of the run's pool: (n,) [mJ]."""
    given = np.zeros(spread.height, np.int64)
    if not spread.height:
        return given
    run = spread.select(pl.struct("site", "hour_ms").rle_id()).to_series().to_numpy()
    first = np.flatnonzero(np.diff(run, prepend=-1))
    own = spread["energy_mj"].to_numpy()
    pool, drawn = (spread[c].fill_null(0).to_numpy()[first] for c in ("pool_energy_mj", "drawn_mj"))
    upto = np.cumsum(own)
    begin = np.repeat(upto[first] - own[first], np.diff(first, append=len(own)))
    sizes = np.diff(first, append=len(own))
    whole, all_drawn = np.repeat(pool, sizes), np.repeat(drawn, sizes)
    reached = upto - begin
    exact = np.where(all_drawn > 0, reached / np.maximum(all_drawn, 1), 0.0)
    level = np.where(reached == all_drawn, whole, np.floor(whole * exact).astype(np.int64))
    level = np.where(all_drawn > 0, level, 0)
    given = np.diff(level, prepend=0)
    given[first] = level[first]
    return given.astype(np.int64)
