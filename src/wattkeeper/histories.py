"""Which jobs a back-test runs again: those of a file, or those of a book in a period, with what they drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from wattkeeper.config import SiteConfig
from wattkeeper.core.roles import Reject
from wattkeeper.lake.book import Book
from wattkeeper.plan.problem import Grid, Job
from wattkeeper.planning import read_queue

_UNKNOWN_MS = -(2**61)


def sites_named(book: Book, sites: Sequence[str]) -> list[SiteConfig]:
    """Return sites of the book by name; all where none is named. Raises ConfigError for an unknown one."""
    return [book.site_file.site_named(name) for name in dict.fromkeys(sites)] or list(book.site_file.site)


def read_history(path: Path) -> tuple[list[Job], list[Reject]]:
    """Return the jobs of a history file, which has the columns of a queue and a release for each job.

    How long each took is known: what a queue says of likely durations is left out.
    """
    jobs, rejects = read_queue(path, Grid(_UNKNOWN_MS, 1, 1))
    missing = [job for job in jobs if job.release_ms == _UNKNOWN_MS]
    rejects += [Reject(str(path), 0, f"job {job.id} has no release", job.id) for job in missing]
    return [replace(job, within=()) for job in jobs if job.release_ms != _UNKNOWN_MS], rejects


def book_history(
    book: Book, sites: Sequence[str], start_ms: int, end_ms: int, move: tuple[float, int] | None = None
) -> tuple[list[Job], list[Reject]]:
    """Return the jobs of some sites (none named: all) that began in [start_ms, end_ms) and ended, as the book knows them.

    Release is when a job was asked for (or began, where nobody knows), power the ledger's energy over its GPU time, and
    its home the site where it drew most; jobs of other sites are no part of it. move: energy over PUE [kWh] and time [ms]
    that moving a job's data to another of the sites takes; None to leave each where it was.
    """
    chosen = [one.id for one in sites_named(book, sites)]
    rows = book.jobs().filter(pl.col("start_ms").is_between(start_ms, end_ms, closed="left"))
    whole = (
        book.job_days.scan()
        .filter(pl.col("job_id").is_not_null())
        .group_by("job_id", "site")
        .agg(pl.col("energy_mj").sum())
        .collect()
    )
    here = pl.col("site").is_in(chosen)
    elsewhere = whole.group_by("job_id").agg(here.any()).filter(~pl.col("site"))
    drawn = (
        whole.filter(here)
        .sort("energy_mj", "site", descending=True)
        .group_by("job_id", maintain_order=True)
        .agg(pl.col("energy_mj").sum(), pl.col("site").first())
    )
    tree = book.tree()
    gpu_assets = [a.id for site in chosen for a in tree.walk(site) if a.kind == "gpu"]
    counted = (
        book.allocations()
        .filter(pl.col("asset").is_in(gpu_assets))
        .group_by("job_id")
        .agg(pl.col("asset").n_unique().cast(pl.Int64).alias("counted"))
    )
    rows = rows.join(elsewhere, on="job_id", how="anti")
    rows = rows.join(drawn, on="job_id", how="left").join(counted, on="job_id", how="left").sort("start_ms", "job_id")
    jobs, rejects = [], []
    for row in rows.iter_rows(named=True):
        gpus = row["gpus"] or row["counted"]
        why = _unfit(row, gpus)
        if why:
            rejects.append(Reject("book", 0, f"job {row['job_id']} {why}", row["job_id"]))
            continue
        length_ms = row["end_ms"] - row["start_ms"]
        release_ms = row["start_ms"] if row["submit_ms"] is None else row["submit_ms"]
        power_w = row["energy_mj"] / length_ms / gpus  # mJ / ms = W
        allowed = {row["site"]: (0.0, 0)} | ({s: move for s in chosen if s != row["site"]} if move else {})
        jobs.append(Job(row["job_id"], gpus, length_ms, power_w, release_ms, sites=allowed))
    return jobs, rejects


def _unfit(row: Mapping[str, Any], gpus: int | None) -> str:
    """Return why a job of a book cannot be run again; nothing where it can."""
    if row["end_ms"] is None:
        return "has not ended"
    if row["end_ms"] <= row["start_ms"]:
        return "has no duration"
    if not gpus:
        return "held no GPUs"
    return "" if row["energy_mj"] is not None else "has no energy at these sites in the ledger"
