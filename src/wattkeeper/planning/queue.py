"""Queues: jobs that wait, from a file or as a scheduler prints them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import polars as pl

from wattkeeper.core.errors import ImportFileError
from wattkeeper.core.roles import Reject
from wattkeeper.core.units import MS_PER_DAY, MS_PER_HOUR
from wattkeeper.integrations.csvfile.link import open_sheet
from wattkeeper.integrations.csvfile.numbers import read_reals
from wattkeeper.integrations.csvfile.times import read_times
from wattkeeper.integrations.kueue import queue as kueue
from wattkeeper.integrations.slurm import queue as slurm
from wattkeeper.plan.problem import Grid, Job, Level

T = TypeVar("T")

REQUIRED = ("job_id", "gpus", "duration_h", "power_w")
TIMES = ("release", "deadline")
REALS = ("gpus", "duration_h", "power_w", "resume_min", "resume_kwh", "delay_weight", "confidence_pct")
WORDS = ("job_id", "user", "tier", "sites", "levels", "curve", "profile", "duration_quantiles", "suspendable")
COLUMNS = (*REQUIRED, *TIMES, *WORDS[1:], *REALS[3:])
"""Columns of a queue file; all but the first four may be absent or empty."""


class Past(Protocol):
    """What is known of users' past jobs."""

    def power_w(self, user: str) -> float | None:
        """Return the IT power of one GPU that a user's jobs usually draw [W]; None where nothing is known."""
        ...

    def within_h(self, user: str, name: str) -> list[tuple[float, float]]:
        """Return quantiles of how long such jobs last, (chance, hours); none where too little is known."""
        ...


def read_queue(
    path: Path, grid: Grid, past: Past | None = None, *, confidence: float = 1.0
) -> tuple[list[Job], list[Reject]]:
    """Return the jobs of a queue file (CSV, gzipped CSV or Parquet) or of what a scheduler prints (.json: `squeue --json`,
    `kubectl get workloads -o json`), and the rows that cannot be read.

    A job without a release may start at once. past: stands in where a scheduler does not say what a job draws and how
    long it lasts within its limit. confidence: chance with which a deadline is to be kept, for jobs that do not say.
    Raises ImportFileError for what is wrong with the file as a whole.
    """
    if path.suffix == ".json":
        return _scheduled(path, grid, past, confidence)
    sheet = open_sheet(path)
    if missing := [name for name in REQUIRED if name not in sheet.columns]:
        raise ImportFileError(
            f"{path} has no column '{missing[0]}'. It has: {', '.join(sheet.columns)}. A queue needs "
            f"{', '.join(REQUIRED)}; it may have {', '.join(COLUMNS[len(REQUIRED) :])}."
        )
    wanted = {name: sheet.columns.index(name) for name in COLUMNS if name in sheet.columns}
    jobs: list[Job] = []
    rejects: list[Reject] = []
    for batch in sheet.batches(wanted):
        rejects += batch.rejects
        jobs += _jobs(batch.cells, grid, str(path), rejects, confidence)
    return jobs, rejects


def _jobs(rows: pl.DataFrame, grid: Grid, source: str, rejects: list[Reject], confidence: float) -> Iterator[Job]:
    """Yield the jobs of rows as they stand in a file, `row` among them; what cannot be read is added to rejects."""
    cells, faults = _columns(rows)
    for row, fault, values in zip(rows["row"], faults, cells.iter_rows(named=True), strict=True):
        why = fault
        if not why:
            try:
                yield _job(values, grid, confidence)
            except ValueError as error:
                why = str(error)
        if why:
            rejects.append(Reject(source, row, why, str(values["job_id"] or "")))


def printed(
    path: Path, of_slurm: Callable[[dict[str, Any]], Iterable[T]], of_kueue: Callable[[dict[str, Any]], Iterable[T]]
) -> list[T]:
    """Return what a scheduler's printed state holds, read with one of two. Raises ImportFileError where it is neither's."""
    try:
        told = json.loads(path.read_text("utf-8"))
        return list((of_slurm if "jobs" in told else of_kueue)(told))
    except OSError as error:
        raise ImportFileError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImportFileError(
            f"{path} is not what squeue --json or kubectl get workloads.kueue.x-k8s.io -A -o json prints: {error}."
        ) from error


def _scheduled(path: Path, grid: Grid, past: Past | None, confidence: float) -> tuple[list[Job], list[Reject]]:
    """Return the jobs that wait in a scheduler, from what it printed."""
    waiting = printed(path, slurm.waiting, kueue.waiting)
    rejects: list[Reject] = []
    rows = []
    for at, (cells, why) in enumerate(waiting, 1):
        reason = why or _filled(cells, past)
        if reason:
            rejects.append(Reject(str(path), at, reason, cells["job_id"]))
        else:
            rows.append({"row": at, **cells})
    schema = {"row": pl.Int64} | dict.fromkeys(COLUMNS, pl.String)
    table = pl.DataFrame([{c: r.get(c) for c in schema} for r in rows], schema=schema)
    return list(_jobs(table, grid, str(path), rejects, confidence)), rejects


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
    may_lack = pl.Series([False] * cells.height)  # a profile says how long and how much
    if "profile" in cells.columns:
        may_lack = cells["profile"].is_not_null()
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
            blank = cells[name].is_null() & (may_lack if name in REQUIRED else True)
            bad = [None if empty else why for why, empty in zip(read["why"], blank, strict=True)]
        faults = [before or new for before, new in zip(faults, bad, strict=True)]
    return pl.DataFrame(found), faults


def _job(row: Mapping[str, Any], grid: Grid, confidence: float) -> Job:
    """Return the job of a row. Raises ValueError with the reason where a cell makes no sense."""
    deadline = row.get("deadline")
    suspendable = (row.get("suspendable") or "no").strip().lower()
    if suspendable not in {"yes", "true", "1", "no", "false", "0"}:
        raise ValueError(f"suspendable is '{suspendable}', neither yes nor no")
    phases = [_pair(part, "profile", "HOURS@WATTS such as 0.5@700") for part in _parts(row.get("profile"))]
    quantiles = _parts(row.get("duration_quantiles"))
    within = [_pair(part, "duration_quantiles", "PERCENT@HOURS such as 90@5.5") for part in quantiles]
    confidence_pct, weight = row.get("confidence_pct"), row.get("delay_weight")
    return Job(
        id=row["job_id"],
        gpus=row["gpus"],
        duration_ms=_ms(row["duration_h"] or 0.0, MS_PER_HOUR),
        power_w=row["power_w"] or 0.0,
        release_ms=grid.start_ms if row.get("release") is None else row["release"],
        deadline_ms=deadline,
        tier=(row.get("tier") or ("elastic" if deadline is None else "deadline")).strip().lower(),
        sites=dict(_site(part) for part in _parts(row.get("sites"))),
        levels=_levels(row),
        suspendable=suspendable in {"yes", "true", "1"},
        resume_ms=_ms(row.get("resume_min") or 0.0, 60_000),
        resume_kwh=row.get("resume_kwh") or 0.0,
        profile=[(_ms(hours, MS_PER_HOUR), watts * row["gpus"]) for hours, watts in phases],
        delay_weight=1.0 if weight is None else weight,
        within=[(pct / 100, _ms(hours, MS_PER_HOUR)) for pct, hours in within],
        confidence=confidence if confidence_pct is None else confidence_pct / 100,
        user=(row.get("user") or "").strip(),
    )


def _ms(count: float, unit_ms: int) -> int:
    """Return a length of time [ms]. Raises ValueError for one that nothing lasts."""
    if not abs(count * unit_ms) <= _LONGEST_MS:
        raise ValueError(f"{count:g} {'h' if unit_ms == MS_PER_HOUR else 'min'} is longer than a hundred years")
    return round(count * unit_ms)


_LONGEST_MS = 36_525 * MS_PER_DAY


def _parts(cell: str | None) -> list[str]:
    return [part.strip() for part in (cell or "").split(";") if part.strip()]


def _site(part: str) -> tuple[str, tuple[float, int]]:
    """Read a site, or site:kWh:minutes where its data have to be moved."""
    name, *numbers = part.split(":")
    try:
        kwh, minutes = (float(n) for n in numbers) if numbers else (0.0, 0.0)
    except ValueError:
        raise ValueError(f"sites has '{part}'; write SITE or SITE:KWH:MINUTES, parted by ;") from None
    return name, (kwh, _ms(minutes, 60_000))


def _pair(part: str, column: str, form: str) -> tuple[float, float]:
    """Read two numbers joined by @."""
    try:
        first, second = (float(n) for n in part.split("@"))
    except ValueError:
        raise ValueError(f"{column} has '{part}'; write {form}, parted by ;") from None
    return first, second


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
