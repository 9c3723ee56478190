"""Queues: jobs that wait, from a file or as a scheduler prints them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import EmptyTableError, ImportFileError
from wattkeeper.core.roles import Reject
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.integrations.csvfile.link import open_sheet
from wattkeeper.integrations.csvfile.numbers import read_reals
from wattkeeper.integrations.csvfile.times import read_times
from wattkeeper.plan.problem import Grid, Job, Level
from wattkeeper.planning.printed import Printed, printed

REQUIRED = ("job_id", "gpus", "duration_h", "power_w")
PROFILED = ("duration_h", "power_w")
"""Required columns that a profile stands for."""

TIMES = ("release", "deadline")
REALS = ("gpus", "duration_h", "power_w", "resume_min", "resume_kwh", "delay_weight", "confidence_pct")
WORDS = ("job_id", "user", "tier", "sites", "levels", "curve", "profile", "duration_quantiles", "suspendable")
COLUMNS = (*REQUIRED, *TIMES, *WORDS[1:], *REALS[3:])
"""Columns of a queue file; all but the first four may be absent or empty."""

_LONGEST_MS = 1000 * 8766 * MS_PER_HOUR


class Past(Protocol):
    """What is known of users' past jobs."""

    def power_w(self, user: str) -> float | None:
        """Return the IT power of one GPU that a user's jobs usually draw [W]; None where nothing is known."""
        ...

    def within_h(self, user: str, name: str) -> list[tuple[float, float]]:
        """Return quantiles of how long such jobs last, (chance, hours); none where too little is known."""
        ...


def read_queue(
    source: Path | Printed, grid: Grid, past: Past | None = None, *, confidence: float = 1.0
) -> tuple[list[Job], list[Reject]]:
    """Return the jobs of a queue and the rows that cannot be read; no jobs where a table has a header alone.

    source: a file (CSV, gzipped CSV, Parquet, or what a scheduler printed), or what a scheduler printed as read already.
    A job without a release may start at once. past: stands in where a scheduler does not say what a job draws and how
    long it lasts within its limit. confidence: chance with which a deadline is to be kept, for jobs that do not say.
    Raises ImportFileError for what is wrong with the file as a whole.
    """
    told = printed(source) if isinstance(source, Path) else source
    if told:
        return _scheduled(told, grid, past, confidence)
    assert isinstance(source, Path)
    found = _Reading(grid, str(source), confidence)
    sheet = open_sheet(source)
    if missing := [name for name in REQUIRED if name not in sheet.columns]:
        raise ImportFileError(
            f"{source} has no column '{missing[0]}'. It has: {', '.join(sheet.columns)}. A queue needs "
            f"{', '.join(REQUIRED)}; it may have {', '.join(COLUMNS[len(REQUIRED) :])}."
        )
    wanted = {name: sheet.columns.index(name) for name in COLUMNS if name in sheet.columns}
    if twice := [name for name in wanted if sheet.columns.count(name) > 1]:
        raise ImportFileError(f"{source} has two columns '{twice[0]}'. Leave out one of them.")
    try:
        for batch in sheet.batches(wanted):
            found.rejects += batch.rejects
            found.take(batch.cells)
    except EmptyTableError:
        return [], []
    return found.jobs, found.rejects


def unused_columns(path: Path) -> list[str]:
    """Return a sentence on the columns of a queue table that mean nothing here: one may be a slip of the pen."""
    strange = [c for c in open_sheet(path).columns if c not in COLUMNS]
    return [f"columns of the queue that are not used: {', '.join(strange)}"] if strange else []


class _Reading:
    """A queue as it is read: its jobs, and the rows that cannot be."""

    def __init__(self, grid: Grid, source: str, confidence: float) -> None:
        self.grid, self.source, self.confidence = grid, source, confidence
        self.jobs: list[Job] = []
        self.rejects: list[Reject] = []
        self._seen: set[str] = set()

    def take(self, rows: pl.DataFrame) -> None:
        """Read rows as they stand in a file, `row` among them."""
        cells, faults = _columns(rows)
        for row, fault, values in zip(rows["row"], faults, cells.iter_rows(named=True), strict=True):
            name = str(values["job_id"] or "")
            why = fault or ("another job has the same id" if name in self._seen else None)
            if not why:
                try:
                    self.jobs.append(_job(values, self.grid, self.confidence))
                    self._seen.add(name)
                except ValueError as error:
                    why = str(error)
            if why:
                self.rejects.append(Reject(self.source, row, why, name))


def _scheduled(told: Printed, grid: Grid, past: Past | None, confidence: float) -> tuple[list[Job], list[Reject]]:
    """Return the jobs that wait in a scheduler, from what it printed."""
    found = _Reading(grid, str(told.path), confidence)
    found.rejects += told.rejects
    rows = []
    for at, (cells, why) in enumerate(told.waiting, 1):
        reason = why or _filled(cells, past)
        if reason:
            found.rejects.append(Reject(str(told.path), at, reason, cells["job_id"]))
        else:
            rows.append({"row": at, **cells})
    schema = {"row": pl.Int64} | dict.fromkeys(COLUMNS, pl.String)
    table = pl.DataFrame([{c: r.get(c) for c in schema} for r in rows], schema=schema)
    found.take(table)
    return found.jobs, found.rejects


def _filled(cells: dict[str, str], past: Past | None) -> str:
    """Fill in what the past knows of a job; return why it cannot be planned, "" where it can."""
    if strange := [c for c in cells if c not in {*COLUMNS, "name", "limit_h"}]:
        return f"it says '{strange[0]}'; a queue has {', '.join(COLUMNS)}"
    if "power_w" not in cells and "profile" not in cells:
        usual_w = past.power_w(cells["user"]) if past else None
        if usual_w is None:
            return "nothing says what it draws, and no job on the ledger held a GPU: say power_w with the job"
        cells["power_w"] = repr(usual_w)
    if "limit_h" in cells and not {"duration_quantiles", "profile"} & cells.keys() and past:
        longest_h = float(cells["limit_h"])
        told = past.within_h(cells["user"], cells.get("name", ""))
        cells["duration_quantiles"] = ";".join(f"{100 * p:g}@{min(h, longest_h)!r}" for p, h in told)
    return ""


def _columns(cells: pl.DataFrame) -> tuple[pl.DataFrame, list[str | None]]:
    """Return the cells as numbers, times and words, and for each row why one of them cannot be read."""
    found: dict[str, pl.Series] = {}
    faults: list[str | None] = [None] * cells.height
    profiled = cells["profile"].is_not_null() if "profile" in cells.columns else False
    for name in (c for c in COLUMNS if c in cells.columns):
        if name in WORDS:
            found[name] = cells[name].cast(pl.String)
            bad = [f"{name} is missing" if name == "job_id" and v is None else None for v in found[name]]
        else:
            read = (
                read_times(cells[name], what=name, layout="", timezone="UTC")
                if name in TIMES
                else read_reals(cells[name], what=name)
            )
            found[name] = read["time_ms" if name in TIMES else "value"]
            may_lack = profiled if name in PROFILED else name not in REQUIRED
            blank = cells[name].is_null() & may_lack
            bad = [None if empty else why for why, empty in zip(read["why"], blank, strict=True)]
        faults = [before or new for before, new in zip(faults, bad, strict=True)]
    return pl.DataFrame(found), faults


def _job(row: Mapping[str, Any], grid: Grid, confidence: float) -> Job:
    """Return the job of a row. Raises ValueError with the reason where a cell makes no sense."""
    deadline = row.get("deadline")
    suspendable = (row.get("suspendable") or "no").strip().lower()
    if suspendable not in {"yes", "true", "1", "no", "false", "0"}:
        raise ValueError(f"suspendable is '{suspendable}', neither yes nor no")
    if row.get("release") is None and deadline is not None and deadline <= grid.start_ms:
        raise ValueError(f"its deadline {iso(deadline)} is over before the plan begins at {iso(grid.start_ms)}")
    phases = [_pair(part, "profile", "HOURS@WATTS such as 0.5@700") for part in _parts(row.get("profile"))]
    quantiles = _parts(row.get("duration_quantiles"))
    within = [_pair(part, "duration_quantiles", "PERCENT@HOURS such as 90@5.5") for part in quantiles]
    confidence_pct, weight = row.get("confidence_pct"), row.get("delay_weight")
    return Job(
        id=row["job_id"],
        gpus=row["gpus"],
        duration_ms=_whole((row["duration_h"] or 0.0) * MS_PER_HOUR, "duration_h"),
        power_w=row["power_w"] or 0.0,
        release_ms=grid.start_ms if row.get("release") is None else row["release"],
        deadline_ms=deadline,
        tier=(row.get("tier") or ("elastic" if deadline is None else "deadline")).strip().lower(),
        sites=dict(_site(part) for part in _parts(row.get("sites"))),
        levels=_levels(row),
        suspendable=suspendable in {"yes", "true", "1"},
        resume_ms=_whole((row.get("resume_min") or 0.0) * 60_000, "resume_min"),
        resume_kwh=row.get("resume_kwh") or 0.0,
        profile=[(_whole(hours * MS_PER_HOUR, "profile"), watts * row["gpus"]) for hours, watts in phases],
        delay_weight=1.0 if weight is None else weight,
        within=[(pct / 100, _whole(hours * MS_PER_HOUR, "duration_quantiles")) for pct, hours in within],
        confidence=confidence if confidence_pct is None else confidence_pct / 100,
        user=(row.get("user") or "").strip(),
    )


def _parts(cell: str | None) -> list[str]:
    return [part.strip() for part in (cell or "").split(";") if part.strip()]


def _site(part: str) -> tuple[str, tuple[float, int]]:
    """Read a site, or site:kWh:minutes where its data have to be moved."""
    name, *numbers = part.split(":")
    try:
        kwh, minutes = (_real(n) for n in numbers) if numbers else (0.0, 0.0)
    except ValueError:
        raise ValueError(f"sites has '{part}'; write SITE or SITE:KWH:MINUTES, parted by ;") from None
    return name.strip(), (kwh, _whole(minutes * 60_000, "sites"))


def _pair(part: str, column: str, form: str) -> tuple[float, float]:
    """Read two numbers joined by @."""
    try:
        first, second = (_real(n) for n in part.split("@"))
    except ValueError:
        raise ValueError(f"{column} has '{part}'; write {form}, parted by ;") from None
    return first, second


def _real(text: str) -> float:
    """Read a number. Raises ValueError for any other text, and for nan and inf."""
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _whole(time_ms: float, column: str) -> int:
    """Return a time in whole milliseconds. Raises ValueError for one that no clock counts."""
    if abs(time_ms) > _LONGEST_MS:
        raise ValueError(f"{column} has a time of more than a thousand years")
    return round(time_ms)


def _levels(row: Mapping[str, Any]) -> list[Level]:
    """Return the cap levels beside full power: told as such, or read off the measured curve of a GPU.

    A curve is watts of the GPU at throughputs, the last at full power. What the node adds to a GPU does not change:
    1 / throughput is the slowdown, and power_w less the watts that the cap takes away, over power_w, the power.
    """
    levels = [Level(*_pair(p, "levels", "SLOWDOWN@POWER such as 1.06@0.8")) for p in _parts(row.get("levels"))]
    curve = [_pair(p, "curve", "WATTS@THROUGHPUT such as 400@0.86") for p in _parts(row.get("curve"))]
    if not curve:
        return levels
    full_w, power_w = curve[-1][0], row["power_w"]
    if levels or not power_w or power_w < full_w or any(not 0 < x <= curve[-1][1] or w <= 0 for w, x in curve):
        raise ValueError(
            "curve needs rising WATTS@THROUGHPUT, a power_w of at least its last watts, and no levels beside it"
        )
    return [Level(curve[-1][1] / x, (power_w - full_w + w) / power_w) for w, x in reversed(curve[:-1])]
