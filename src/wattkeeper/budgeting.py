"""Power budgets: running jobs with their curves and limits over time from files, and the caps that keep them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, ImportFileError
from wattkeeper.integrations.csvfile.link import open_sheet
from wattkeeper.integrations.csvfile.numbers import read_reals
from wattkeeper.integrations.csvfile.times import read_times
from wattkeeper.plan.budget import Budget, BudgetError, Load, allot, even

JOB_COLUMNS = ("job_id", "gpus", "curve", "tier", "floor", "weight", "row", "start", "end")
"""Columns of a jobs file; the first three must be there."""

LIMIT_COLUMNS = ("start", "end", "limit_kw", "row")
"""Columns of a limits file; the first three must be there."""

_ALWAYS_MS = 2**61


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
    floor). limits_kw: facility power by row, "" for the site; None where there is none."""

    start_ms: int
    end_ms: int
    limits_kw: dict[str, float]
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
            * (kw * (1 - setting.margin) / setting.pue - (base_kw.get(row, 0.0) if row else sum(base_kw.values())))
            for row, kw in holds.items()
        }
        site_w = free_w.pop("", np.inf)
        try:
            made = allot(loads, site_w, free_w)
        except BudgetError as error:
            raise error if begin == -_ALWAYS_MS else BudgetError(f"From {iso(begin)} on: {error}") from None
        found.append(Stretch(begin, end, holds, made, even(loads, site_w, free_w)))
    if not found:
        raise ConfigError("No job runs while a limit holds. Check the times of both files.")
    return found


def always(kw: float | None, rows_kw: Mapping[str, float]) -> list[Limit]:
    """Return limits that hold at all times."""
    site = [] if kw is None else [Limit(-_ALWAYS_MS, _ALWAYS_MS, kw)]
    return site + [Limit(-_ALWAYS_MS, _ALWAYS_MS, one, row) for row, one in rows_kw.items()]


def read_jobs(path: Path) -> list[Running]:
    """Return the running jobs of a file. Raises ImportFileError with the row of what cannot be read."""
    found = []
    for row, cells in _rows(path, JOB_COLUMNS, 3, ("gpus", "floor", "weight"), ("start", "end")):
        power, throughput = _curve(cells["curve"], path, row)
        gpus = cells["gpus"]
        if gpus != int(gpus):
            raise ImportFileError(f"{path} row {row}: gpus is not a whole number.")
        load = Load(
            cells["job_id"], int(gpus), power, throughput, (cells.get("tier") or "deadline").strip().lower(),
            cells.get("floor") or 0.0, 1.0 if cells.get("weight") is None else cells["weight"], cells.get("row") or "",
        )  # fmt: skip
        start, end = cells.get("start"), cells.get("end")
        found.append(Running(load, -_ALWAYS_MS if start is None else start, _ALWAYS_MS if end is None else end))
    return found


def read_limits(path: Path) -> list[Limit]:
    """Return the limits of a file. Raises ImportFileError with the row of what cannot be read."""
    rows = _rows(path, LIMIT_COLUMNS, 3, ("limit_kw",), ("start", "end"))
    return [Limit(c["start"], c["end"], c["limit_kw"], c.get("row") or "") for _, c in rows]


def _rows(
    path: Path, columns: Sequence[str], required: int, reals: Sequence[str], times: Sequence[str]
) -> list[tuple[int, dict[str, Any]]]:
    sheet = open_sheet(path)
    if missing := [c for c in columns[:required] if c not in sheet.columns]:
        raise ImportFileError(
            f"{path} has no column '{missing[0]}'. It needs {', '.join(columns[:required])}; it may have "
            f"{', '.join(columns[required:])}."
        )
    wanted = [c for c in columns if c in sheet.columns]
    found = []
    # a batch has a column "row" of its own, which counts the rows of the file
    for batch in sheet.batches({f"file {c}": sheet.columns.index(c) for c in wanted}):
        if batch.rejects:
            raise ImportFileError(f"{path} row {batch.rejects[0].row}: {batch.rejects[0].reason}.")
        cells: dict[str, list[Any]] = {}
        for name in wanted:
            column = batch.cells[f"file {name}"]
            if name not in (*reals, *times):
                cells[name] = column.cast(pl.String).to_list()
                why = [f"{name} is missing" if v is None and name in columns[:required] else None for v in cells[name]]
            else:
                read = (
                    read_times(column, what=name, layout="", timezone="UTC")
                    if name in times
                    else read_reals(column, what=name)
                )
                cells[name] = read["time_ms" if name in times else "value"].to_list()
                empty = column.is_null() if name not in columns[:required] else pl.Series([False] * len(column))
                why = [None if blank else words for words, blank in zip(read["why"], empty, strict=True)]
            if fault := next(((r, w) for r, w in zip(batch.cells["row"], why, strict=True) if w), None):
                raise ImportFileError(f"{path} row {fault[0]}: {fault[1]}.")
        for k, row in enumerate(batch.cells["row"]):
            found.append((row, {name: values[k] for name, values in cells.items()}))
    return found


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
                "gpu_power_w": one.budget.power_w,
                "loss_gpus": one.budget.loss,
                "least_loss_gpus": one.budget.least_loss,
                "one_cap_for_all_loss_gpus": one.usual.loss if one.usual else None,
                "caps": [
                    {
                        "job_id": c.job, "tier": c.tier, "row": c.row or None, "gpus": c.gpus, "cap_w": c.power_w,
                        "full_w": c.full_w, "throughput": c.throughput, "capped": c.capped,
                    }
                    for c in one.budget.caps
                ],
            }
            for one in found
        ]
    }  # fmt: skip


def _when(time_ms: int) -> str | None:
    return None if abs(time_ms) == _ALWAYS_MS else iso(time_ms)
