"""Planning a queue: jobs of a file or a scheduler and signals of the book to the planner, and its answer in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, ImportFileError
from wattkeeper.core.roles import Reject, SignalInfo
from wattkeeper.core.signal import FORECAST, Signal
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.integrations.csvfile.link import open_sheet
from wattkeeper.integrations.csvfile.numbers import read_reals
from wattkeeper.integrations.csvfile.times import read_times
from wattkeeper.integrations.kueue import queue as kueue
from wattkeeper.integrations.slurm import queue as slurm
from wattkeeper.lake.book import Book
from wattkeeper.plan.kernel import NOWHERE, Places
from wattkeeper.plan.place import Plan, improve, plan, run_now
from wattkeeper.plan.placement import Amounts, Placement, amounts, placements
from wattkeeper.plan.polish import polish
from wattkeeper.plan.problem import Grid, Job, Level, PlanInputError, Site, Weights, pose
from wattkeeper.valuing import signal_of

Floats = NDArray[np.float64]

REQUIRED = ("job_id", "gpus", "duration_h", "power_w")
TIMES = ("release", "deadline")
REALS = ("gpus", "duration_h", "power_w", "resume_min", "resume_kwh", "delay_weight")
WORDS = ("job_id", "tier", "sites", "levels", "suspendable")
COLUMNS = (*REQUIRED, *TIMES, "tier", "sites", "levels", "suspendable", *REALS[3:])
"""Columns of a queue file; all but the first four may be absent or empty."""

_SIGNALS = {
    "intensity": "intensity_g_per_kwh", "price": "price_per_kwh", "water": "water_l_per_kwh", "pue": "pue",
}  # fmt: skip
_IMPROVED = 5000
_DEFAULTS = {"intensity": np.nan, "price": np.nan, "water": np.nan, "pue": 1.0}


@dataclass(frozen=True, slots=True)
class Line:
    """One job in the answer: where it would run now and where it should, and why.

    now, planned: None where it has no place. why: at once, later, earlier, other site, lower power, suspended, or, for
    a job without a place, what stands against it. saved_g, saved_cost: against running now; delay_h: later than then.
    """

    job: str
    now: Placement | None
    planned: Placement | None
    why: str
    saved_g: float | None = None
    saved_cost: float | None = None
    delay_h: float | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the jobs that are placed. weighed_g: what the planner makes small."""

    jobs: int
    energy_kwh: float
    carbon_g: float
    cost: float | None
    water_l: float | None
    delay_h: float
    weighed_g: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """A planned queue. signals: the words on where each site's values come from, by site and kind. notes: sentences on
    what was taken for want of better.

    gap: (cost − bound) / bound of the weighed cost; None where a job found no place or the bound is not above 0.
    """

    made: Plan
    lines: tuple[Line, ...]
    now: Totals
    planned: Totals
    bound_g: float
    gap: float | None
    signals: dict[str, dict[str, SignalInfo]]
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """The time that was planned."""
        return self.made.problem.grid


def outlook(
    book: Book,
    queue: Path,
    *,
    grid: Grid,
    weights: Weights,
    gpus: Mapping[str, float],
    power_kw: Mapping[str, float],
    polish_s: float = 0.0,
) -> Outlook:
    """Plan the jobs of a queue file on the sites of a book.

    gpus, power_kw: by site, what planned jobs may hold and draw; default: all GPUs of the site, and no budget.
    polish_s: wall time for HiGHS at the end; 0 for none.
    Raises ConfigError, ImportFileError, PlanInputError, and MissingExtraError for polish_s without highspy.
    """
    sites, signals = sites_of(book, grid, gpus, power_kw)
    usual = Usual(book)
    jobs, rejects = read_queue(queue, grid, usual.power_w)
    _need(signals, weights)
    unseen = out_of_reach(book, grid)
    try:
        problem = pose(grid, sites, jobs, weights)
    except PlanInputError as error:
        raise PlanInputError(" ".join([str(error), *(f"{s[0].upper()}{s[1:]}." for s in unseen)])) from error
    made = plan(problem)
    if len(problem.planned) <= _IMPROVED:
        made = improve(made, rounds=100)
    if polish_s:
        made = polish(made, seconds=polish_s)
    now = run_now(problem)
    each_now, each = amounts(problem, now), amounts(problem, made.places)
    known = {k for site in signals.values() for k in site}
    lines = _lines(made, now, each_now, each, priced="price" in known)
    totals = [_totals(p, a, known) for p, a in ((now, each_now), (made.places, each))]
    return Outlook(
        made, lines, totals[0], totals[1], made.bound_g, made.gap, signals, tuple(rejects), (*usual.notes, *unseen)
    )


def out_of_reach(book: Book, grid: Grid) -> list[str]:
    """Return a sentence for each signal of a site that has no value in the time planned: which time it has."""
    found = {s.info.id: s for site in book.site_file.site for kind in _SIGNALS if (s := signal_of(book, site, kind))}
    return [
        f"signal '{name}' has values from {iso(int(s.breaks_ms[0]))} to {iso(int(s.breaks_ms[-1]))} only"
        for name, s in found.items()
        if int(s.missing_ms(grid.start_ms, grid.end_ms)) == grid.end_ms - grid.start_ms and len(s.values)
    ]


class Usual:
    """What jobs on the book's ledger usually draw; read when it is first asked for.

    asked: how many jobs were given the mean of their user, and of all users.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._means_w: dict[str | None, float] | None = None
        self.asked = [0, 0]

    def power_w(self, user: str) -> float | None:
        """Return the mean IT power of one GPU, with its share of the node, over a user's jobs, else over all jobs [W].

        None where no job on the ledger held a GPU.
        """
        if self._means_w is None:
            self._means_w = self._means()
        power_w = self._means_w.get(user, self._means_w.get(None))
        if power_w is not None:
            self.asked[user not in self._means_w] += 1
        return power_w

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken, in words."""
        whose = ("their users' past jobs", "all past jobs")
        return tuple(
            f"power_w of {n} jobs is the mean of {of} on the ledger"
            for n, of in zip(self.asked, whose, strict=True)
            if n
        )

    def _means(self) -> dict[str | None, float]:
        gpus = [a.id for a in self._book.tree().assets.values() if a.kind == "gpu"]
        held = pl.when(pl.col("asset").is_in(gpus)).then(pl.col("held_ms")).otherwise(0).sum().alias("held_ms")
        lines = self._book.postings.scan().filter(pl.col("job_id").is_not_null())
        by_job = lines.group_by("job_id").agg(pl.col("energy_mj").sum(), held).filter(pl.col("held_ms") > 0).collect()
        sums = by_job.join(self._book.jobs().select("job_id", "user"), on="job_id", how="left").group_by("user")
        found = sums.agg(pl.col("energy_mj", "held_ms").sum())
        means: dict[str | None, float] = {u: e / ms for u, e, ms in found.iter_rows() if u}
        if found.height:
            means[None] = int(found["energy_mj"].sum()) / int(found["held_ms"].sum())
        return means


def _need(signals: Mapping[str, Mapping[str, SignalInfo]], weights: Weights) -> None:
    for kind, weight in (("intensity", weights.carbon), ("price", weights.money_g), ("water", weights.water_g_per_l)):
        if lacking := [site for site, found in signals.items() if weight and kind not in found]:
            raise ConfigError(f"Site '{lacking[0]}' names no {kind}, and it has a weight. Set {kind} in the site file.")


def sites_of(
    book: Book, grid: Grid, gpus: Mapping[str, float], power_kw: Mapping[str, float]
) -> tuple[list[Site], dict[str, dict[str, SignalInfo]]]:
    """Return the book's sites with their signals on the grid, and where those come from."""
    tree, config = book.tree(), book.site_file
    names = [s.id for s in config.site]
    for given in (*gpus, *power_kw):
        if given not in names:
            raise ConfigError(f"The site file has no site '{given}'. It has {', '.join(names)}.")
    sites, signals = [], {}
    for one in config.site:
        counted = sum(a.kind == "gpu" for a in tree.walk(one.id))
        if one.id not in gpus and not counted:
            raise ConfigError(f"Site '{one.id}' has no GPUs in the book. Say how many with --gpus {one.id}=N.")
        found = {kind: signal_of(book, one, kind) for kind in _SIGNALS}
        signals[one.id] = {kind: s.info for kind, s in found.items() if s is not None}
        over_time: dict[str, Any] = {}
        for kind, column in _SIGNALS.items():
            signal = found[kind]
            over_time[column] = _DEFAULTS[kind]
            if signal is not None:
                over_time[column], ahead = with_forecast(book, signal, grid)
                signals[one.id] |= {f"{kind} forecast": ahead} if ahead else {}
        sites.append(Site(one.id, gpus.get(one.id, counted), **over_time, power_kw=power_kw.get(one.id, np.inf)))
    return sites, signals


def with_forecast(book: Book, signal: Signal, grid: Grid) -> tuple[Floats, SignalInfo | None]:
    """Return a signal's means over the slots, and the newest forecast's where it has none itself; and which that is."""
    means = mean_over(signal, grid)
    info = book.state.signal_infos().get(f"{signal.info.id}{FORECAST}") if np.isnan(means).any() else None
    if info is None:
        return means, None
    ahead = mean_over(Signal.from_table(book.signal_rows(info.id), info), grid)
    used = np.isnan(means) & ~np.isnan(ahead)
    return np.where(used, ahead, means), info if used.any() else None


def mean_over(signal: Signal, grid: Grid) -> Floats:
    """Return the mean of a signal over each slot, (slots,); NaN where a part of the slot has no value."""
    slots = grid.start_ms + grid.slot_ms * np.arange(grid.slots + 1, dtype=np.int64)
    return signal.means(slots)


def read_queue(
    path: Path, grid: Grid, power_w: Callable[[str], float | None] = lambda _user: None
) -> tuple[list[Job], list[Reject]]:
    """Return the jobs of a queue file (CSV, gzipped CSV or Parquet) or of what a scheduler prints (.json: `squeue --json`,
    `kubectl get workloads -o json`), and the rows that cannot be read.

    A job without a release may start at once. power_w: what a user's jobs usually draw, where a scheduler does not say.
    Raises ImportFileError for what is wrong with the file as a whole.
    """
    if path.suffix == ".json":
        return _scheduled(path, grid, power_w)
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
        jobs += _jobs(batch.cells, grid, str(path), rejects)
    return jobs, rejects


def _jobs(rows: pl.DataFrame, grid: Grid, source: str, rejects: list[Reject]) -> Iterator[Job]:
    """Yield the jobs of rows as they stand in a file, `row` among them; what cannot be read is added to rejects."""
    cells, faults = _columns(rows)
    for row, fault, values in zip(rows["row"], faults, cells.iter_rows(named=True), strict=True):
        why = fault
        if not why:
            try:
                yield _job(values, grid)
            except ValueError as error:
                why = str(error)
        if why:
            rejects.append(Reject(source, row, why, str(values["job_id"] or "")))


def _scheduled(path: Path, grid: Grid, power_w: Callable[[str], float | None]) -> tuple[list[Job], list[Reject]]:
    """Return the jobs that wait in a scheduler, from what it printed."""
    try:
        told = json.loads(path.read_text("utf-8"))
        waiting = list((slurm if "jobs" in told else kueue).waiting(told))
    except OSError as error:
        raise ImportFileError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImportFileError(
            f"{path} is not what squeue --json or kubectl get workloads.kueue.x-k8s.io -A -o json prints: {error}."
        ) from error
    rejects: list[Reject] = []
    rows = []
    for at, (cells, why) in enumerate(waiting, 1):
        strange = [c for c in cells if c not in {*COLUMNS, "user"}]
        reason = why or (f"it says '{strange[0]}'; a queue has {', '.join(COLUMNS)}" if strange else "")
        if not reason and "power_w" not in cells:
            usual_w = power_w(cells["user"])
            if usual_w is None:
                reason = "nothing says what it draws, and no job on the ledger held a GPU: say power_w with the job"
            else:
                cells["power_w"] = repr(usual_w)
        if reason:
            rejects.append(Reject(str(path), at, reason, cells["job_id"]))
        else:
            rows.append({"row": at, **cells})
    schema = {"row": pl.Int64} | dict.fromkeys(COLUMNS, pl.String)
    table = pl.DataFrame([{c: r.get(c) for c in schema} for r in rows], schema=schema)
    return list(_jobs(table, grid, str(path), rejects)), rejects


def _columns(cells: pl.DataFrame) -> tuple[pl.DataFrame, list[str | None]]:
    """Return the cells as numbers, times and words, and for each row why one of them cannot be read."""
    found: dict[str, pl.Series] = {}
    faults: list[str | None] = [None] * cells.height
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
            blank = cells[name].is_null() if name not in REQUIRED else pl.Series([False] * cells.height)
            bad = [None if empty else why for why, empty in zip(read["why"], blank, strict=True)]
        faults = [before or new for before, new in zip(faults, bad, strict=True)]
    return pl.DataFrame(found), faults


def _job(row: Mapping[str, Any], grid: Grid) -> Job:
    """Return the job of a row. Raises ValueError with the reason where a cell makes no sense."""
    deadline = row.get("deadline")
    suspendable = (row.get("suspendable") or "no").strip().lower()
    if suspendable not in {"yes", "true", "1", "no", "false", "0"}:
        raise ValueError(f"suspendable is '{suspendable}', neither yes nor no")
    return Job(
        id=row["job_id"],
        gpus=row["gpus"],
        duration_ms=round(row["duration_h"] * MS_PER_HOUR),
        power_w=row["power_w"],
        release_ms=grid.start_ms if row.get("release") is None else row["release"],
        deadline_ms=deadline,
        tier=(row.get("tier") or ("elastic" if deadline is None else "deadline")).strip().lower(),
        sites=dict(_site(part) for part in _parts(row.get("sites"))),
        levels=[_level(part) for part in _parts(row.get("levels"))],
        suspendable=suspendable in {"yes", "true", "1"},
        resume_ms=round((row.get("resume_min") or 0.0) * 60_000),
        resume_kwh=row.get("resume_kwh") or 0.0,
        delay_weight=1.0 if row.get("delay_weight") is None else row["delay_weight"],
    )


def _parts(cell: str | None) -> list[str]:
    return [part.strip() for part in (cell or "").split(";") if part.strip()]


def _site(part: str) -> tuple[str, tuple[float, int]]:
    """Read a site, or site:kWh:minutes where its data have to be moved."""
    name, *numbers = part.split(":")
    try:
        kwh, minutes = (float(n) for n in numbers) if numbers else (0.0, 0.0)
    except ValueError:
        raise ValueError(f"sites has '{part}'; write SITE or SITE:KWH:MINUTES, parted by ;") from None
    return name, (kwh, round(minutes * 60_000))


def _level(part: str) -> Level:
    """Read a cap level as slowdown@power, such as 1.06@0.8."""
    try:
        slowdown, power = (float(n) for n in part.split("@"))
    except ValueError:
        raise ValueError(f"levels has '{part}'; write SLOWDOWN@POWER such as 1.06@0.8, parted by ;") from None
    return Level(slowdown, power)


def _lines(made: Plan, now: Places, each_now: Amounts, each: Amounts, *, priced: bool) -> tuple[Line, ...]:
    problem = made.problem
    lines = []
    found = zip(placements(problem, now), placements(problem, made.places), strict=True)
    for j, (before, after) in enumerate(found):
        name = problem.jobs.ids[problem.planned[j]]
        if after is None:
            lines.append(Line(name, before, None, "no room is left for it in any slot it may use"))
        elif before is None:
            lines.append(Line(name, None, after, "run at once, it would miss its deadline"))
        else:
            lines.append(
                Line(
                    name, before, after, _why(before, after),
                    float(each_now.carbon_g[j] - each.carbon_g[j]),
                    float(each_now.cost[j] - each.cost[j]) if priced else None,
                    float(each.delay_h[j] - each_now.delay_h[j]),
                )
            )  # fmt: skip
    lines += [Line(name, None, None, why) for name, why in problem.skipped.items()]
    return tuple(lines)


def _why(now: Placement, planned: Placement) -> str:
    reasons = []
    if planned.site != now.site:
        reasons.append("other site")
    if planned.level:
        reasons.append("lower power")
    if len(planned.slots) > 1:
        reasons.append("suspended")
    if planned.slots[0][0] > now.slots[0][0]:
        reasons.append("later")
    elif planned.slots[0][0] < now.slots[0][0]:
        reasons.append("earlier")
    return ", ".join(reasons) or "at once"


def _totals(places: Places, each: Amounts, known: set[str]) -> Totals:
    return Totals(
        int((places.mode != NOWHERE).sum()), float(each.energy_kwh.sum()), float(each.carbon_g.sum()),
        float(each.cost.sum()) if "price" in known else None,
        float(each.water_l.sum()) if "water" in known else None,
        float(each.delay_h.sum()), float(each.weighed_g.sum()),
    )  # fmt: skip


def to_json(found: Outlook) -> dict[str, Any]:
    """Return everything as plain data: times in ISO 8601, amounts with their unit in the name."""
    grid = found.grid
    powers = powers_of(found)
    return {
        "start": iso(grid.start_ms),
        "end": iso(grid.end_ms),
        "slot_min": grid.slot_ms / 60_000,
        "jobs": [
            {
                "job_id": line.job,
                "why": line.why,
                "now": _place(grid, powers, line.now),
                "planned": _place(grid, powers, line.planned),
                "saved_carbon_g": line.saved_g,
                "saved_cost": line.saved_cost,
                "delay_h": line.delay_h,
            }
            for line in found.lines
        ],
        "now": _sums(found.now),
        "planned": _sums(found.planned),
        "bound_weighed_g": found.bound_g,
        "gap": found.gap,
        "unplaced": found.made.unplaced,
        "skipped": found.made.problem.skipped,
        "refused": [{"row": r.row, "reason": r.reason, "job_id": r.text} for r in found.rejects],
        "notes": list(found.notes),
        "signals": {
            site: {k: {"id": i.id, "provider": i.provider, "method": i.method} for k, i in infos.items()}
            for site, infos in found.signals.items()
        },
    }


def _sums(totals: Totals) -> dict[str, float | None]:
    return {name: getattr(totals, name) for name in Totals.__slots__}


def powers_of(found: Outlook) -> dict[str, list[float]]:
    """Return the power of each job's cap levels, as a part of full power."""
    jobs = found.made.problem.jobs
    return dict(zip(jobs.ids, jobs.power.tolist(), strict=True))


def _place(grid: Grid, powers: Mapping[str, list[float]], one: Placement | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "site": one.site,
        "power": powers[one.job][one.level],
        "stretches": [{"start": iso(grid.at_ms(a)), "end": iso(grid.at_ms(b))} for a, b in one.slots],
    }


def chart_rows(found: Outlook) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what the figure draws: intensity by site and slot, and the stretches of each job now and planned."""
    grid, problem = found.grid, found.made.problem
    curves = [
        {"time": iso(grid.at_ms(t)), "site": site.id, "intensity_g_per_kwh": float(value)}
        for site in problem.sites
        for t, value in enumerate(np.broadcast_to(np.asarray(site.intensity_g_per_kwh, np.float64), grid.slots))
        if not np.isnan(value)
    ]
    bars = [
        {"plan": name, "job": one.job, "site": one.site, "start": iso(grid.at_ms(a)), "end": iso(grid.at_ms(b))}
        for line in found.lines
        for name, one in (("run now", line.now), ("planned", line.planned))
        if one
        for a, b in one.slots
    ]
    return curves, bars


def parse_by_site(words: Sequence[str], option: str) -> dict[str, float]:
    """Read SITE=NUMBER options. Raises ConfigError for anything else."""
    found = {}
    for word in words:
        site, _, number = word.partition("=")
        try:
            found[site] = float(number)
        except ValueError:
            raise ConfigError(f"{option} {word} cannot be read. Write {option} SITE=NUMBER.") from None
    return found
