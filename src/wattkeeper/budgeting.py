"""Power budgets: running jobs with their curves and limits over time, and the caps that keep them.

Jobs come from a file, or from a book with the curves in a file.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from wattkeeper.core.assets import AssetTree
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, ImportFileError, UnknownNameError
from wattkeeper.core.units import MS_PER_DAY, MS_PER_HOUR
from wattkeeper.integrations.csvfile.rows import read_rows
from wattkeeper.lake.book import Book
from wattkeeper.plan.budget import Budget, BudgetError, Load, allot, even
from wattkeeper.planning import Usual
from wattkeeper.report.budgeted import SITE, Held

JOB_COLUMNS = ("job_id", "gpus", "curve", "tier", "floor", "weight", "row", "start", "end")
"""Columns of a jobs file; the first three must be there."""

BOOK_COLUMNS = ("job_id", "curve", "tier", "floor", "weight", "start", "end")
"""Columns of a jobs file beside a book, which knows the rest; the first two must be there."""

LIMIT_COLUMNS = ("start", "end", "limit_kw", "row")
"""Columns of a limits file; the first three must be there."""

_ALWAYS_MS = 2**61

DRAWN_MS = MS_PER_DAY
"""How long before an instant the ledger is asked what a job draws [ms]."""


@dataclass(frozen=True, slots=True)
class Running:
    """A job and when it runs [ms UTC]."""

    load: Load
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit on facility power [kW] over [start_ms, end_ms). row: "" for the whole site."""

    start_ms: int
    end_ms: int
    kw: float
    row: str = ""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which neither jobs nor limits change: the caps, and what one cap for all would lose (None: breaks a
    floor). limits_kw: facility power by row, "" for the site. free_w: what each leaves for the GPUs [W]."""

    start_ms: int
    end_ms: int
    limits_kw: dict[str, float]
    free_w: dict[str, float]
    budget: Budget
    usual: Budget | None


@dataclass(frozen=True, slots=True)
class Setting:
    """pue: facility power over IT power. base_kw: IT power that no cap changes, by row, "" for that outside of rows.
    margin: part of each limit that is kept free."""

    pue: float = 1.0
    base_kw: Mapping[str, float] | None = None
    margin: float = 0.0


def budget(running: Sequence[Running], limits: Sequence[Limit], setting: Setting) -> list[Stretch]:
    """Return the caps for all times that have a limit, stretch by stretch.

    Raises BudgetError with the time where floors alone break a limit.
    """
    if setting.pue < 1 or not 0 <= setting.margin < 1:
        raise ConfigError(
            f"A PUE of {setting.pue:g} or a margin of {setting.margin:g} cannot be: 1 or more, and 0 to 1."
        )
    if not running:
        raise ConfigError("There are no jobs to cap.")
    if negative := [row for row, kw in (setting.base_kw or {}).items() if kw < 0]:
        raise ConfigError(f"The base of '{negative[0]}' is below 0 kW. Give IT power that no cap changes.")
    low, high = min(x.start_ms for x in limits), max(x.end_ms for x in limits)
    ends = {low, high, *(t for x in limits for t in (x.start_ms, x.end_ms))}
    ends |= {t for x in running for t in (x.start_ms, x.end_ms) if low < t < high}
    edges = sorted(ends)
    base_kw = setting.base_kw or {}
    found = []
    for begin, end in itertools.pairwise(edges):
        holds: dict[str, float] = {}
        for one in limits:
            if one.start_ms <= begin < one.end_ms:
                holds[one.row] = min(one.kw, holds.get(one.row, np.inf))
        loads = [x.load for x in running if x.start_ms <= begin < x.end_ms]
        if not (holds and loads):
            continue
        free_w = {
            row: 1000
            * (
                kw * (1 - setting.margin) / setting.pue
                - sum(base_kw.get(one, 0.0) for one in _within(row, base_kw, loads))
            )
            for row, kw in holds.items()
        }
        left_w = dict(free_w)
        site_w = free_w.pop("", np.inf)
        try:
            made = allot(loads, site_w, free_w)
        except BudgetError as error:
            raise error if begin == -_ALWAYS_MS else BudgetError(f"From {iso(begin)} on: {error}") from None
        found.append(Stretch(begin, end, holds, left_w, made, even(loads, site_w, free_w)))
    if not found:
        raise ConfigError("No job runs while a limit holds. Check the times of both files.")
    return found


def _within(row: str, rows: Collection[str], loads: Sequence[Load]) -> set[str]:
    """Return those of some rows that are part of a row, itself too: all are part of the site, ""."""
    if not row:
        return set(rows)
    inner = [x.rows[: x.rows.index(row)] for x in loads if row in x.rows]
    return {row, *itertools.chain.from_iterable(inner)}


def check_rows(running: Sequence[Running], limits: Sequence[Limit]) -> None:
    """Raise ConfigError for a row that has a limit and no job ever stands in: a misspelt one would limit nothing."""
    known = {row for x in running for row in x.load.rows}
    if strange := sorted({x.row for x in limits if x.row} - known):
        told = f"The jobs stand in {', '.join(sorted(known))}" if known else "No job has a row"
        raise ConfigError(f"Row '{strange[0]}' has a limit and no job. {told}.")


def always(kw: float | None, rows_kw: Mapping[str, float]) -> list[Limit]:
    """Return limits that hold at all times."""
    site = [] if kw is None else [Limit(-_ALWAYS_MS, _ALWAYS_MS, kw)]
    return site + [Limit(-_ALWAYS_MS, _ALWAYS_MS, one, row) for row, one in rows_kw.items()]


def read_jobs(path: Path) -> list[Running]:
    """Return the running jobs of a file. Raises ImportFileError with the row of what cannot be read."""
    found = []
    for row, cells in _jobs(path, JOB_COLUMNS, 3, "gpus"):
        gpus = cells["gpus"]
        if gpus != int(gpus):
            raise ImportFileError(f"{path} row {row}: gpus is not a whole number.")
        where = tuple(part.strip() for part in (cells.get("row") or "").split(";") if part.strip())
        found.append(_running(cells, int(gpus), where, path, row))
    return found


def _jobs(path: Path, columns: Sequence[str], required: int, *reals: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of a jobs file, of whose columns the first few must be there."""
    reals = ("floor", "weight", *reals)
    rows = read_rows(path, columns[:required], columns[required:], reals=reals, times=["start", "end"])
    seen: set[str] = set()
    for row, cells in rows:
        if cells["job_id"] in seen:
            raise ImportFileError(f"{path} row {row}: job {cells['job_id']} is there twice.")
        seen.add(cells["job_id"])
        _check_span(path, row, cells)
    return rows


def _check_span(path: Path, row: int, cells: Mapping[str, Any]) -> None:
    """Raise ImportFileError for a row that ends before it starts."""
    start, end = cells.get("start"), cells.get("end")
    if start is not None and end is not None and end <= start:
        raise ImportFileError(f"{path} row {row}: its end {iso(end)} is not after its start {iso(start)}.")


def _running(cells: Mapping[str, Any], gpus: int, where: tuple[str, ...], path: Path, row: int) -> Running:
    power, throughput = _curve(cells["curve"], path, row)
    load = Load(
        cells["job_id"], gpus, power, throughput, (cells.get("tier") or "deadline").strip().lower(),
        cells.get("floor") or 0.0, 1.0 if cells.get("weight") is None else cells["weight"], where,
    )  # fmt: skip
    start, end = cells.get("start"), cells.get("end")
    return Running(load, -_ALWAYS_MS if start is None else start, _ALWAYS_MS if end is None else end)


@dataclass(frozen=True, slots=True)
class Holder:
    """A job that holds GPUs: how many (where nobody says, shares add up, to one at least), which, since when [ms UTC]."""

    gpus: int
    assets: tuple[str, ...]
    start_ms: int


def book_jobs(book: Book, at_ms: int, path: Path | None, rows: Collection[str]) -> tuple[list[Running], list[str]]:
    """Return the jobs that hold GPUs at an instant by a book, and the ids of those without a curve.

    path: their curves, of the jobs that have one. A job without one is never capped, and counts at what it drew, by the
    ledger, in the day before; one that has only just begun at what its user's jobs usually draw. rows: assets, such as
    racks, that have a limit of their own; a job that holds GPUs under several of them is refused.
    Raises ConfigError, also for a time more than a day after the ledger's end: nobody knows who holds GPUs then. Raises
    ImportFileError with the row of what cannot be read.
    """
    last_ms = book.postings.scan().select(pl.col("hour_ms").max()).collect().item()
    if last_ms is not None and at_ms > last_ms + MS_PER_DAY:
        raise ConfigError(
            f"The ledger ends at {iso(last_ms + MS_PER_HOUR)}, and the caps are for {iso(at_ms)}. Import what is newer and "
            "run wattkeeper attribute, or choose a time with --at."
        )
    held = _held(book, at_ms)
    if not held:
        raise ConfigError(f"No job holds GPUs at {iso(at_ms)} by the book. Choose another time with --at.")
    tree = book.tree()
    if strange := sorted(set(rows) - set(tree.assets)):
        raise UnknownNameError("asset", strange[0], [a.id for a in tree.assets.values() if a.kind == "rack"])
    given = [] if path is None else _jobs(path, BOOK_COLUMNS, 2)
    found = {}
    for row, cells in given:
        job = cells["job_id"]
        if job not in held:
            raise ImportFileError(f"{path} row {row}: job {job} holds no GPUs at {iso(at_ms)} by the book.")
        found[job] = _running(cells, held[job].gpus, _rows_of(tree, job, held[job], rows), path or Path(), row)
    lone = [job for job in held if job not in found]
    drawn_w = _drawn_w(book, at_ms, {job: held[job] for job in lone})
    for job, watts in drawn_w.items():
        rows_of = _rows_of(tree, job, held[job], rows)
        load = Load(job, held[job].gpus, np.array([watts]), np.ones(1), "critical", rows=rows_of)
        found[job] = Running(load, -_ALWAYS_MS, _ALWAYS_MS)
    return [found[job] for job in held], lone


def _held(book: Book, at_ms: int) -> dict[str, Holder]:
    """Return the jobs that hold GPUs at an instant, by id."""
    tree = book.tree()
    gpus = [a.id for a in tree.assets.values() if a.kind in {"gpu", "mig"}]
    open_end = pl.col("end_ms").is_null() | (pl.col("end_ms") > at_ms)
    running = book.allocations().filter((pl.col("start_ms") <= at_ms) & open_end & pl.col("asset").is_in(gpus))
    # where one source counts GPUs and another names them, those that are named
    named = running.filter(pl.col("estimated") == pl.col("estimated").min().over("job_id"))
    asked = dict(book.jobs().select("job_id", "gpus").iter_rows())
    held = {}
    for (job,), rows in sorted(named.group_by("job_id"), key=lambda x: str(x[0][0])):
        assets = dict(rows.select("asset", "share").iter_rows())
        count = asked.get(job) or round(sum(share * tree[asset].slice for asset, share in assets.items()))
        start_ms = int(rows["start_ms"].min())  # type: ignore[arg-type]
        held[str(job)] = Holder(max(count, 1), tuple(sorted(assets)), start_ms)
    return held


def _drawn_w(book: Book, at_ms: int, held: Mapping[str, Holder]) -> dict[str, float]:
    """Return what one GPU of each job drew in the whole hours of the day before an instant [W].

    Raises ConfigError where neither that nor what other jobs drew is known.
    """
    end_ms = at_ms // MS_PER_HOUR * MS_PER_HOUR
    gpus = [a.id for a in book.tree().assets.values() if a.kind in {"gpu", "mig"}]
    lines = book.postings.scan().filter(
        pl.col("job_id").is_in(list(held)) & pl.col("asset").is_in(gpus)
        & pl.col("hour_ms").is_between(end_ms - DRAWN_MS, end_ms, closed="left")
    )  # fmt: skip
    energy_mj: dict[str, int] = dict(lines.group_by("job_id").agg(pl.col("energy_mj").sum()).collect().iter_rows())
    users = dict(book.jobs().filter(pl.col("job_id").is_in(list(held))).select("job_id", "user").iter_rows())
    usual, found = Usual(book), {}
    for job, one in held.items():
        span_ms = end_ms - max(one.start_ms, end_ms - DRAWN_MS)
        watts = (
            energy_mj[job] / span_ms / one.gpus
            if job in energy_mj and span_ms > 0
            else usual.power_w(users.get(job) or "")
        )
        if watts is None:
            raise ConfigError(
                f"The ledger has no energy of job {job} nor of any other. Attribute it first, or give a curve."
            )
        found[job] = watts
    return found


def _rows_of(tree: AssetTree, job: str, held: Holder, rows: Collection[str]) -> tuple[str, ...]:
    """Return the assets with a limit of their own that a job's GPUs stand under, the nearest first."""
    found = {tuple(a for a in (gpu, *tree.ancestors(gpu)) if a in rows) for gpu in held.assets}
    if len(found) > 1:
        apart = " and ".join(sorted(one[0] if one else "none" for one in found))
        raise ConfigError(
            f"Job {job} holds GPUs under {apart}, and has one cap, so that it counts towards one row. Limit the site, or an "
            "asset above both."
        )
    return found.pop()


def read_limits(path: Path) -> list[Limit]:
    """Return the limits of a file. Raises ImportFileError with the row of what cannot be read."""
    rows = read_rows(path, LIMIT_COLUMNS[:3], LIMIT_COLUMNS[3:], reals=["limit_kw"], times=["start", "end"])
    for row, cells in rows:
        _check_span(path, row, cells)
        if cells["limit_kw"] < 0:
            raise ImportFileError(f"{path} row {row}: limit_kw is below 0.")
    return [Limit(c["start"], c["end"], c["limit_kw"], c.get("row") or "") for _, c in rows]


def _curve(cell: str, path: Path, row: int) -> tuple[Any, Any]:
    """Read power@throughput points parted by ;, in any order."""
    try:
        points = sorted(tuple(float(x) for x in part.split("@")) for part in cell.split(";") if part.strip())
        power, throughput = np.array(points, np.float64).reshape(-1, 2).T
    except ValueError:
        raise ImportFileError(
            f"{path} row {row}: curve has '{cell}'; write WATTS@THROUGHPUT of one GPU parted by ;, such as 400@0.86;700@1."
        ) from None
    return power, throughput


def to_json(found: Sequence[Stretch]) -> dict[str, Any]:
    """Return everything as plain data. Times are null for limits that always hold."""
    return {
        "stretches": [
            {
                "start": _when(one.start_ms),
                "end": _when(one.end_ms),
                "limits_kw": one.limits_kw,
                "free_for_gpus_w": one.free_w,
                "gpu_power_w": one.budget.power_w,
                "loss_gpus": one.budget.loss,
                "least_loss_gpus": one.budget.least_loss,
                "one_cap_for_all_loss_gpus": one.usual.loss if one.usual else None,
                "caps": [
                    {
                        "job_id": c.job, "tier": c.tier, "row": ";".join(c.rows) or None, "gpus": c.gpus, "cap_w": c.power_w,
                        "full_w": c.full_w, "throughput": c.throughput, "capped": c.capped,
                    }
                    for c in one.budget.caps
                ],
            }
            for one in found
        ]
    }  # fmt: skip


SHOWN_MS = MS_PER_HOUR
"""How long a limit is drawn that always holds [ms]."""


def chart_rows(found: Sequence[Stretch], now_ms: int) -> list[Held]:
    """Return what the figure draws; where a limit always holds, from now_ms on, and at least an hour."""
    rows = []
    for one in found:
        start_ms, end_ms = one.start_ms, one.end_ms
        if start_ms == -_ALWAYS_MS:
            start_ms = now_ms if end_ms == _ALWAYS_MS else min(now_ms, end_ms - SHOWN_MS)
        end_ms = max(now_ms, start_ms) + SHOWN_MS if end_ms == _ALWAYS_MS else end_ms
        for row, limit_kw in one.limits_kw.items():
            caps = [c for c in one.budget.caps if not row or row in c.rows]
            drawn: dict[str, float] = {}
            for c in caps:
                drawn[c.tier] = drawn.get(c.tier, 0.0) + c.gpus * c.power_w
            full_w = sum(c.gpus * c.full_w for c in caps)
            rows.append(Held(row or SITE, start_ms, end_ms, limit_kw, one.free_w[row], full_w, drawn))
    return rows


def _when(time_ms: int) -> str | None:
    return None if abs(time_ms) == _ALWAYS_MS else iso(time_ms)
