"""The loop: measure → keep → attribute → value → report, each step one function on a book.

This is the one room that knows the order of things. `take` keeps what a source yields, `attribute` turns readings into
postings for every day that may have changed, `check` proves that they add up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from wattkeeper.config import SiteConfig
from wattkeeper.core import counter
from wattkeeper.core.assets import AssetTree
from wattkeeper.core.clock import day_of, day_start_ms, hour_edges_ms, next_day, period_days
from wattkeeper.core.errors import ConfigError, UnknownNameError
from wattkeeper.core.roles import Reject, SignalInfo, Source
from wattkeeper.core.schema import FINDINGS, JOBS, METER_HOURS, POSTINGS
from wattkeeper.core.signal import Signal
from wattkeeper.core.units import MJ_PER_KWH, MS_PER_HOUR, PPM
from wattkeeper.footprint import embodied
from wattkeeper.footprint.averages import average
from wattkeeper.lake.book import Book
from wattkeeper.lake.delta import DataFile
from wattkeeper.lake.readings import DayIndex, group_edges, read_groups
from wattkeeper.ledger import kernel
from wattkeeper.ledger.close import Flow, close, unit_flows
from wattkeeper.ledger.day import Edges, Frame, Lines, Window, attribute_units, digests, frame
from wattkeeper.ledger.layout import UPPER_KINDS, allocation_arrays, lay_out
from wattkeeper.report.statement import Period, Sources, Statement, build, uncertainty_mj

Int64s = NDArray[np.int64]
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

ACCOUNTS = ("job", "held_idle", "idle", "overhead", "unaccounted")
VALUED = ("carbon_g", "cost", "water_l")
"""Columns of a posting that signals fill, in the order of the kernel's grid."""


def quiet(_what: str, _done: int, _total: int) -> None:
    """Report no progress."""


def take(book: Book, source: Source, now_ms: int, progress: Progress = quiet) -> tuple[int, list[Reject]]:
    """Keep everything a source yields; return how many rows were kept, and the rows that were refused.

    Batches are committed one by one: when a source breaks off, what it yielded before stays.
    """
    kept, refused = 0, []
    for intake in source.read():
        refused += book.take(intake, now_ms)
        kept += sum(t.height for t in (intake.readings, intake.jobs, intake.allocations, intake.signals))
        progress("rows", kept, 0)
    return kept, refused


@dataclass
class Attributed:
    """What an attribution did: days looked at, units made anew, readings read, and what did not fit."""

    days: int = 0
    units: int = 0
    readings: int = 0
    postings: int = 0
    strangers: int = 0


def attribute(book: Book, *, everything: bool = False, workers: int = 2, progress: Progress = quiet) -> Attributed:
    """Bring the ledger up to date with readings, jobs and signals; return what was done.

    Looks at the days that something may have changed (all with `everything`) and makes anew the units whose inputs
    differ from those of last time. Readings are streamed, a row group at a time, so memory does not grow with days.
    """
    done = Attributed()
    for site in book.site_file.site:
        run = _SiteRun(book, site, done)
        run.attribute(everything, workers, progress)
    tables = {"postings": book.postings, "meter_hours": book.meter_hours, "findings": book.findings}
    book.state.remember(ledger=json.dumps({name: table.commit() for name, table in tables.items()}))
    return done


@dataclass
class _Task:
    """Consecutive units whose readings lie in the same row groups."""

    first: int
    last: int
    groups: tuple[int, ...]


@dataclass
class _Day:
    """A day on its way through."""

    day: str
    index: DayIndex | None
    window: Window
    todo: list[int]
    digests: dict[str, tuple[str, str]]
    parts: list[Future[Lines]] = field(default_factory=list)


class _SiteRun:
    """One site's attribution."""

    def __init__(self, book: Book, site: SiteConfig, done: Attributed) -> None:
        self.book, self.site, self.done = book, site, done
        self.layout = lay_out(book.tree(), book.meters(), site.id)
        self.meter_code = {m.id: i for i, m in enumerate(self.layout.meters)}
        self.signals = [signal_of(book, site, kind) for kind in ("intensity", "price", "water")]
        self.pue = signal_of(book, site, "pue")
        self.idle_ppm = round(book.site_file.policy.idle_utilisation * PPM)
        self.files = {day: files for (s, day), files in book.readings.days().items() if s == site.id}
        self.stale = book.state.stale_spans(site.id)
        self.names = tuple(
            pa.array(names) for names in (self.layout.units, [a.id for a in self.layout.assets], list(self.meter_code))
        )
        self.writes: list[Future[DataFile]] = []
        self._indexes: dict[str, DayIndex] = {}
        self._codes: dict[str, Int64s] = {}

    def attribute(self, everything: bool, workers: int, progress: Progress) -> None:
        """Attribute the site's stale days."""
        if not self.files:
            return
        days = self._days_to_look_at(everything, progress)
        if not days:
            return
        jobs, allocs, alloc0 = self._allocations(days)
        made: dict[str, dict[str, tuple[str, str]]] = {}
        with ThreadPoolExecutor(workers) as pool:
            for at, day in enumerate(self._started(days, jobs, allocs, alloc0, pool)):
                progress("days", at + 1, len(days))
                if day.todo:
                    self._finish(day, jobs, pool)
                    made[day.day] = day.digests
        for write in self.writes:
            write.result()
        self.done.days += len(days)
        for table in (self.book.postings, self.book.meter_hours, self.book.findings):
            table.commit()
        self.book.state.settle(self.site.id, made, self.stale)

    # which days

    def _days_to_look_at(self, everything: bool, progress: Progress) -> list[str]:
        """Return the days to look at, compacted, with those before and after that share a step with them."""
        span = _days(self._reach_back(min(self.files)), max(self.files))
        stale = set(span) if everything else {d for d in span if self._is_stale(d)}
        for at, day in enumerate(sorted(stale & set(self.files))):
            progress("days sorted", at + 1, len(stale))
            self._index(day)
        self.book.readings.table.commit()
        self.files = {day: files for (s, day), files in self.book.readings.days().items() if s == self.site.id}
        if len(stale) == len(span):
            return span
        return sorted(stale | {d for day in stale & set(self.files) for d in self._neighbours(day, span)})

    def _is_stale(self, day: str) -> bool:
        start_ms, end_ms = (day_start_ms(d, self.site.timezone) for d in (day, next_day(day)))
        return any(first < end_ms and last > start_ms for first, last in self.stale)

    def _reach_back(self, day: str) -> str:
        """Return the first day that an interval stamped on a day may cover."""
        longest_ms = max((m.interval_ms for m in self.layout.meters), default=0)
        return day_of(day_start_ms(day, self.site.timezone) - longest_ms, self.site.timezone)

    def _neighbours(self, day: str, span: list[str]) -> Iterator[str]:
        """Yield the days around one that a step of its meters reaches into."""
        here = set(self._index(day).meters)
        at = span.index(day)
        for path in (reversed(span[:at]), span[at + 1 :]):
            missing = set(here)
            for other in path:
                yield other
                if other in self.files:
                    missing -= set(self._index(other).meters)
                if other < day and other > self._reach_back(day):
                    continue
                if not missing or not self._reaches(missing, other, before=other < day):
                    break

    def _reaches(self, meters: set[str], day: str, *, before: bool) -> bool:
        """Return whether some of these meters have readings on the far side of a day."""
        sides = [d for d in self.files if (d < day if before else d > day)]
        return any(meters & set(self._index(d).meters) for d in sides)

    def _index(self, day: str) -> DayIndex:
        """Return the index of a day's readings; the day is compacted when it has to be."""
        if day not in self._indexes:
            order = [
                (m.id, u)
                for u in range(len(self.layout.units))
                for m in self.layout.meters[self.layout.unit_meter0[u] : self.layout.unit_meter0[u + 1]]
            ]
            self._indexes[day] = self.book.readings.compact((self.site.id, day), self.files[day], order)
        return self._indexes[day]

    # what goes in

    def _allocations(self, days: list[str]) -> tuple[pl.Series, kernel.Allocations, Int64s]:
        first = day_start_ms(days[0], self.site.timezone)
        last = day_start_ms(next_day(days[-1]), self.site.timezone)
        touching = (pl.col("start_ms") < last) & (pl.col("end_ms").is_null() | (pl.col("end_ms") > first))
        rows = self.book.allocations_table.scan().filter(touching).collect()
        jobs = rows["job_id"].unique().sort()
        until_ms = int(self._index(max(self.files)).last_ms.max())
        allocs, alloc0, strangers = allocation_arrays(self.layout, rows, jobs, until_ms)
        self.done.strangers += strangers
        return jobs, allocs, alloc0

    def _per_meter(self, day: str) -> tuple[DayIndex | None, Int64s]:
        """Return a day's index and the code of each of its meters, −1 for meters the layout no longer has."""
        if day not in self.files:
            return None, np.zeros(0, np.int64)
        index = self._index(day)
        if day not in self._codes:
            self._codes[day] = np.array([self.meter_code.get(m, -1) for m in index.meters], np.int64)
        return index, self._codes[day]

    def _edges(self, day: str) -> Edges:
        """Return the readings just before and after a day, from the nearest days that have them."""
        edges = Edges.none(len(self.layout.meters))
        for before in (True, False):
            others = sorted((d for d in self.files if (d < day if before else d > day)), reverse=before)
            count, width = (edges.back_n, counter.LOOK_BACK) if before else (edges.ahead_n, counter.LOOK_AHEAD)
            for other in others:
                index, codes = self._per_meter(other)
                rows = np.flatnonzero((codes >= 0) & (count[codes] < width))
                if index is not None and len(rows):
                    _fill(edges, index, rows, codes[rows], before=before)
                if (count == width).all():
                    break
        return edges

    def _frame(self, day: str, index: DayIndex | None, codes: Int64s, edges: Edges) -> Frame:
        hours = hour_edges_ms(day, self.site.timezone)
        cuts = [self.pue.breaks_ms] if self.pue else []
        upper = [i for i, m in enumerate(self.layout.meters) if self.layout.tree[m.asset].kind in UPPER_KINDS]
        place = {int(c): r for r, c in enumerate(codes)}
        for m in upper:
            if index is not None and m in place and not edges.back_n[m]:
                cuts.append(index.first_ms[place[m], :1] - self.layout.meters[m].interval_ms)
            if index is not None and m in place and not edges.ahead_n[m]:
                cuts.append(index.last_ms[place[m], -1:])
        joined = np.concatenate(cuts) if cuts else np.zeros(0, np.int64)
        return frame(hours, joined, [s for s in self.signals if s is not None])

    # the work

    def _started(
        self, days: list[str], jobs: pl.Series, allocs: kernel.Allocations, alloc0: Int64s, pool: ThreadPoolExecutor
    ) -> Iterator[_Day]:
        """Yield days in order; the next day's readings are already being worked on when a day is yielded."""
        hashes = jobs.hash(seed=1).cast(pl.UInt64).to_numpy().view(np.int64)
        waiting: _Day | None = None
        for day in days:
            started = self._start(day, hashes, allocs, alloc0, pool)
            if waiting is not None:
                yield waiting
            waiting = started
        if waiting is not None:
            yield waiting

    def _start(
        self, day: str, hashes: Int64s, allocs: kernel.Allocations, alloc0: Int64s, pool: ThreadPoolExecutor
    ) -> _Day:
        index, codes = self._per_meter(day)
        edges = self._edges(day)
        rows_n, digest, row0 = (np.zeros(len(self.layout.meters), np.int64) for _ in range(3))
        if index is not None:
            known = codes >= 0
            for column, values in ((rows_n, index.rows), (digest, index.digest), (row0, index.row0)):
                column[codes[known]] = values[known]
        window = Window.of(
            self.layout, self._frame(day, index, codes, edges), edges, allocs, alloc0, rows_n, self.idle_ppm
        )
        main, ahead = digests(window, digest, hashes)
        now = dict(zip(self.layout.units, zip(main, ahead, strict=True), strict=True))
        before = self.book.state.digests(self.site.id, day)
        todo = [u for u, unit in enumerate(self.layout.units) if before.get(unit) != now[unit]]
        started = _Day(day, index, window, todo, now)
        if todo:
            upper = {u for u, unit in enumerate(self.layout.units) if self.layout.tree[unit].kind in UPPER_KINDS}
            started.todo = sorted({*todo, *upper})
            path = self.book.readings.table.root / index.path if index is not None else None
            for task, starts in self._tasks(started, rows_n, row0, path):
                started.parts.append(pool.submit(self._work, window, task, rows_n, row0, starts, path))
        return started

    def _tasks(self, day: _Day, rows_n: Int64s, row0: Int64s, path: object) -> Iterator[tuple[_Task, Int64s]]:
        """Yield the day's units in runs that share row groups."""
        starts = group_edges(path) if path is not None else np.zeros(2, np.int64)  # type: ignore[arg-type]
        task: _Task | None = None
        for u in day.todo:
            m = slice(*self.layout.unit_meter0[u : u + 2])
            has = rows_n[m] > 0
            groups: tuple[int, ...] = ()
            if has.any():
                low = int(np.searchsorted(starts, row0[m][has].min(), side="right")) - 1
                high = int(np.searchsorted(starts, (row0[m] + rows_n[m])[has].max(), side="left"))
                groups = tuple(range(low, high))
            if task is not None and task.last == u and groups in {(), task.groups}:
                task.last = u + 1
                continue
            if task is not None:
                yield task, starts
            task = _Task(u, u + 1, groups)
        if task is not None:
            yield task, starts

    def _work(self, window: Window, task: _Task, rows_n: Int64s, row0: Int64s, starts: Int64s, path: object) -> Lines:
        time_ms = value = np.zeros(0, np.int64)
        m = slice(*self.layout.unit_meter0[[task.first, task.last]])
        begin = np.zeros(m.stop - m.start, np.int64)
        if task.groups:
            time_ms, value = read_groups(path, task.groups)  # type: ignore[arg-type]
            begin = np.where(rows_n[m] > 0, row0[m] - starts[task.groups[0]], 0)
        self.done.readings += int(rows_n[m].sum())
        self.done.units += task.last - task.first
        return attribute_units(window, task.first, task.last, kernel.Rows(time_ms, value), begin, begin + rows_n[m])

    # what comes out

    def _finish(self, day: _Day, jobs: pl.Series, pool: ThreadPoolExecutor) -> None:
        """Close a day and stage its files in place of the old ones."""
        parts = [p.result() for p in day.parts]
        window = day.window
        todo = [self.layout.units[u] for u in day.todo]
        partial = len(todo) < len(self.layout.units)
        units = unit_flows(self.layout, window.frame, parts)
        old = self._old(day.day, todo) if partial else {}
        if partial:
            units = units + self._flows_of(old["postings"], window.frame)
        pue = self.pue.at(window.frame.slot_ms[:-1]) if self.pue else None
        above = Lines.joined([p.where(p.keys[:, 3] == kernel.ABOVE) for p in parts])
        closing = close(self.layout, window.frame, above, units, pue)
        below = [p.where(p.keys[:, 3] != kernel.ABOVE) for p in parts]
        frames = self._frames(Lines.joined([*below, closing]), window, jobs)
        tables = {"postings": self.book.postings, "meter_hours": self.book.meter_hours, "findings": self.book.findings}
        part = (self.site.id, day.day)
        for name, table in tables.items():
            table.drop(self._written(name, day.day))
            rows = frames[name]
            if partial:
                fresh = pl.DataFrame(rows).cast(dict(old[name].schema))  # type: ignore[arg-type]
                rows = pl.concat([old[name], fresh.select(old[name].columns)]).to_arrow()
            if rows.num_rows:
                self.writes.append(pool.submit(table.write, rows, part))
        self.done.postings += frames["postings"].num_rows

    def _written(self, table: str, day: str) -> list[DataFile]:
        if not hasattr(self, "_ledger_files"):
            names = {
                "postings": self.book.postings,
                "meter_hours": self.book.meter_hours,
                "findings": self.book.findings,
            }
            self._ledger_files = {
                name: {f.day: [g for g in files if g.day == f.day] for f in files}
                for name, files in ((n, [f for f in t.files() if f.site == self.site.id]) for n, t in names.items())
            }
        return self._ledger_files[table].get(day, [])

    def _old(self, day: str, todo: Sequence[str]) -> dict[str, pl.DataFrame]:
        """Return the day's lines of the units that stay as they are."""
        specs = {"postings": (self.book.postings, POSTINGS), "meter_hours": (self.book.meter_hours, METER_HOURS)}
        specs["findings"] = (self.book.findings, FINDINGS)
        kept = {}
        for name, (table, spec) in specs.items():
            files = [table.root / f.path for f in self._written(name, day)]
            columns = [c for c in spec.schema.names() if c not in {"site", "day"}]
            rows = (
                pl.concat([pl.read_parquet(f, columns=columns) for f in files])
                if files
                else spec.empty().select(columns)
            )
            kept[name] = rows.filter(~pl.col("unit").is_in(list(todo)))
        return kept

    def _flows_of(self, postings: pl.DataFrame, at: Frame) -> Flow:
        """Return the flows of lines that stand in the ledger already."""
        names = [v for v, s in zip(VALUED, self.signals, strict=True) if s is not None]
        energy = np.zeros((len(self.layout.units), len(at.hour_ms)), np.int64)
        valued = np.zeros((*energy.shape, len(names)))
        codes = postings["unit"].replace_strict(self.layout.unit_code, return_dtype=pl.Int64).to_numpy()
        slot = np.searchsorted(at.slot_ms, postings["start_ms"].to_numpy(), side="right") - 1
        np.add.at(energy, (codes, slot), postings["energy_mj"].to_numpy())
        for i, name in enumerate(names):
            np.add.at(valued[:, :, i], (codes, slot), postings[name].to_numpy())
        return Flow(energy, valued)

    def _frames(self, lines: Lines, window: Window, jobs: pl.Series) -> dict[str, pa.Table]:
        """Return lines as tables, without the columns that the partition carries."""
        units, assets, meters = self.names
        hour_ms = window.frame.hour_ms
        keys, amounts = lines.keys.T, lines.amounts.T
        known_ms = amounts[kernel.KNOWN_MS]
        postings = {
            "hour_ms": hour_ms[keys[2]],
            "start_ms": keys[5],
            "unit": _coded(keys[0], units),
            "asset": _coded(keys[1], assets),
            "account": _coded(keys[3], pa.array(ACCOUNTS)),
            "job_id": _jobs(keys[4], jobs),
            "energy_mj": amounts[kernel.ENERGY],
            "imputed_mj": amounts[kernel.IMPUTED],
            "bridged_mj": amounts[kernel.BRIDGED],
            "estimated_mj": amounts[kernel.ESTIMATED],
            "held_ms": amounts[kernel.HELD_MS],
            "covered_ms": amounts[kernel.COVERED_MS],
            "busy_ms": pa.array(amounts[kernel.BUSY] // PPM, mask=known_ms == 0),
            "known_ms": known_ms,
        }
        at = 0
        for name, signal in zip(VALUED, self.signals, strict=True):
            postings[name] = lines.valued[:, at] if signal is not None else pa.nulls(len(lines.keys), pa.float64())
            at += signal is not None
        hours, events = lines.hours.T, lines.events.T
        unit_of_meter = np.repeat(np.arange(len(units)), np.diff(self.layout.unit_meter0))
        meter_hours = {
            "hour_ms": hour_ms[hours[1]],
            "start_ms": hours[2],
            "unit": _coded(unit_of_meter[hours[0]], units),
            "asset": _coded(self.layout.meter_asset[hours[0]], assets),
            "meter": _coded(hours[0], meters),
            "primary": window.primary[hours[0]] == 1,
            "energy_mj": hours[3],
            "imputed_mj": hours[4],
            "bridged_mj": hours[5],
            "spanned_ms": hours[6],
            "covered_ms": hours[7],
        }
        findings = {
            "unit": _coded(unit_of_meter[events[0]], units),
            "meter": _coded(events[0], meters),
            "kind": _coded(events[1], pa.array(counter.EVENT_NAMES)),
            "start_ms": events[2],
            "end_ms": events[3],
            "energy_mj": events[4],
        }
        tables = {"postings": postings, "meter_hours": meter_hours, "findings": findings}
        return {name: pa.table(columns) for name, columns in tables.items()}


def _coded(codes: Int64s, names: pa.Array) -> pa.Array:
    """Return names by code, without spelling them out."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), names)


def _jobs(codes: Int64s, jobs: pl.Series) -> pa.Array:
    """Return job ids by code, none for −1, with a dictionary of only those that occur."""
    used, place = np.unique(codes, return_inverse=True)
    names = jobs.gather(used[used >= 0]).to_arrow()
    shift = int(len(used) > 0 and used[0] < 0)
    codes32 = pa.array((place - shift).astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(codes32, names)


def _fill(edges: Edges, index: DayIndex, rows: Int64s, codes: Int64s, *, before: bool) -> None:
    """Add the last (before) or first readings of some meters of a day to the edges, in time order from the left."""
    width = counter.LOOK_BACK if before else counter.LOOK_AHEAD
    count = edges.back_n if before else edges.ahead_n
    source = (index.last_ms, index.last_value) if before else (index.first_ms, index.first_value)
    into = (edges.back_ms, edges.back_value) if before else (edges.ahead_ms, edges.ahead_value)
    taken = np.minimum(index.rows[rows], width - count[codes])
    # place of each new row: older readings come first, so those before push what is there to the right
    place = np.arange(width)[None, :]
    for column, target in zip(source, into, strict=True):
        old, new = target[codes], column[rows]
        first, second = (new, old) if before else (old, new)
        n_first = (taken if before else count[codes])[:, None]
        skip = width - n_first if before else 0
        left = np.take_along_axis(first, np.minimum(place + skip, width - 1), axis=1)
        right = np.take_along_axis(second, np.maximum(place - n_first, 0), axis=1)
        target[codes] = np.where(place < n_first, left, right)
    count[codes] += taken


def _days(first: str, last: str) -> list[str]:
    days = [first]
    while days[-1] < last:
        days.append(next_day(days[-1]))
    return days


def signal_of(book: Book, site: SiteConfig, kind: str) -> Signal | None:
    """Return what a site names as its intensity, price, water or pue; None where it names nothing.

    Raises ConfigError where the site file names a signal that was never imported.
    """
    named = getattr(site, kind)
    if named is None:
        return None
    unit = {"intensity": "g/kWh", "price": f"{site.currency}/kWh", "water": "L/kWh", "pue": "ratio"}[kind]
    if isinstance(named, int | float):
        info = SignalInfo(f"{kind}:{site.id}", kind, unit, "site file", method="constant")
        return Signal.constant(float(named), info)
    if kind == "intensity" and named.startswith("average:"):
        row = average(named.removeprefix("average:"))
        info = SignalInfo(named, kind, unit, row.source, str(row.year), f"yearly average, {row.boundary}")
        return Signal.constant(row.intensity_g_per_kwh, info)
    infos = book.state.signal_infos()
    if named not in infos:
        raise ConfigError(
            f"Site '{site.id}' takes its {kind} from signal '{named}', which the book does not have. Import it first."
        )
    return Signal.from_table(book.signal_rows(named), infos[named])


@dataclass(frozen=True)
class JobAccount:
    """One job's energy: its facts with totals, and its lines by asset and account."""

    facts: dict[str, Any]
    assets: pl.DataFrame


def job(book: Book, job_id: str) -> JobAccount:
    """Return one job's energy. Raises UnknownNameError when the book has no job of that id, or it drew nothing."""
    lines = book.postings.scan().filter(pl.col("job_id") == pl.lit(job_id))
    columns = ("energy_mj", "imputed_mj", "held_ms", "covered_ms", "carbon_g", "cost", "water_l")
    assets = lines.group_by("asset", "account").agg(pl.col(columns).sum()).sort("asset", "account").collect()
    jobs = book.jobs()
    known = jobs.filter(pl.col("job_id") == job_id)
    if not known.height and not assets.height:
        raise UnknownNameError("job", job_id, jobs["job_id"].head(8).to_list())
    facts: dict[str, Any] = dict.fromkeys(JOBS.schema.names()) | (known.to_dicts() or [{}])[0]
    totals = assets.select(pl.col(columns).sum()).to_dicts()[0]
    valued = {v: totals[v] if signal else None for v, signal in _valued(book).items()}
    idle = assets.filter(pl.col("account") == "held_idle")["energy_mj"].sum()
    return JobAccount(
        facts
        | totals
        | valued
        | {
            "coverage": totals["covered_ms"] / totals["held_ms"] if totals["held_ms"] else None,
            "held_idle_mj": idle,
            "uncertainty_mj": uncertainty_mj(assets, book.meters()),
        },
        assets,
    )


def _valued(book: Book) -> dict[str, bool]:
    """Return which amounts any site values."""
    kinds = ("intensity", "price", "water")
    return {v: any(getattr(s, k) is not None for s in book.site_file.site) for v, k in zip(VALUED, kinds, strict=True)}


def span_ms(book: Book, period: str | None) -> tuple[int, int]:
    """Return the instants [start_ms, end_ms) of a period in the sites' zone; all of the ledger for None.

    Raises ConfigError where sites in different zones make the period ambiguous.
    """
    if period is None:
        low, high = (
            book.postings.scan().select(pl.col("hour_ms").min(), pl.col("hour_ms").max().alias("high")).collect().row(0)
        )
        return (low, high + MS_PER_HOUR) if low is not None else (0, 0)
    zones = {s.timezone for s in book.site_file.site}
    first, after = period_days(period)
    spans = {(day_start_ms(first, z), day_start_ms(after, z)) for z in zones}
    if len(spans) > 1:
        raise ConfigError(
            f"Period '{period}' begins at different instants in {', '.join(sorted(zones))}. Name a --site."
        )
    return spans.pop()


def meter_summary(book: Book, period: str | None) -> pl.DataFrame:
    """Return one row per meter: what it reports, its energy, coverage, events, and how far it is from the used one.

    difference_pct: energy of a meter that only confirms against the used one, over the hours that both have [%].
    """
    start_ms, end_ms = span_ms(book, period)
    hours = book.meter_hours.scan().filter(pl.col("hour_ms").is_between(start_ms, end_ms, closed="left"))
    used = hours.filter("primary").group_by("asset", "hour_ms").agg(pl.col("energy_mj").sum().alias("used_mj"))
    sums = (
        hours.join(used, on=["asset", "hour_ms"], how="left")
        .with_columns(pl.when(pl.col("used_mj").is_not_null()).then(pl.col("energy_mj")).alias("beside_mj"))
        .group_by("meter", "asset")
        .agg(
            pl.col("primary").any(),
            (pl.col("energy_mj").sum() / MJ_PER_KWH).alias("energy_kwh"),
            (pl.col("covered_ms").sum() / pl.col("spanned_ms").sum()).alias("coverage"),
            pl.when(~pl.col("primary").any())
            .then((pl.col("beside_mj").sum() / pl.col("used_mj").sum() - 1) * 100)
            .alias("difference_pct"),
        )
        .collect()
    )
    events = (
        book.findings.scan()
        .filter(pl.col("end_ms").is_between(start_ms, end_ms, closed="left"))
        .group_by("meter", "kind")
        .len()
        .collect()
        .pivot("kind", index="meter", values="len")
    )
    known = pl.DataFrame(
        [(m.id, m.quantity, m.source, m.accuracy_pct) for m in book.meters()],
        schema={"meter": pl.String, "quantity": pl.String, "source": pl.String, "accuracy_pct": pl.Float64},
        orient="row",
    )
    rows = known.join(sums, on="meter", how="left").join(events, on="meter", how="left")
    blank = [pl.lit(None, pl.UInt32).alias(k) for k in counter.EVENT_NAMES if k not in rows.columns]
    return rows.with_columns(
        pl.col("primary").fill_null(value=False), pl.col("energy_kwh").fill_null(0.0), *blank
    ).sort("asset", "primary", "meter", descending=[False, True, False], nulls_last=True)


def statement(book: Book, period: str | None = None, by: str = "job") -> Statement:
    """Return the statement of a period (default: the whole ledger), from the table versions of the last attribution.

    Raises ConfigError where the ledger is empty or the period or `by` is none.
    """
    ledger = book.state.fact("ledger")
    start_ms, end_ms = span_ms(book, period)
    if ledger is None or start_ms == end_ms:
        raise ConfigError(f"Book {book.root} has no ledger yet. Import readings, then run: wattkeeper attribute")
    versions: dict[str, int] = json.loads(ledger)
    within = pl.col("hour_ms").is_between(start_ms, end_ms, closed="left")
    postings = book.postings.scan(versions["postings"]).filter(within)
    findings = book.findings.scan(versions["findings"]).filter(
        pl.col("end_ms").is_between(start_ms, end_ms, closed="left")
    )
    tree = book.tree()
    sites = book.site_file.site
    signals = [s for site in sites for k in ("intensity", "price", "water", "pue") if (s := signal_of(book, site, k))]
    sources = Sources(
        postings=postings,
        jobs=book.jobs(),
        findings=findings.collect(),
        tree=tree,
        meters=book.meters(),
        sites=sites,
        signals=[s.info for s in signals],
        no_intensity=_no_intensity(book, postings),
        embodied_g=_embodied(postings, tree, start_ms, end_ms),
        versions=versions,
    )
    metered_mj = _metered_mj(
        book.meter_hours.scan(versions["meter_hours"]).filter(within & pl.col("primary")), postings, tree
    )
    zone = sites[0].timezone
    name = period or f"{day_of(start_ms, zone)} to {day_of(end_ms - 1, zone)}"
    return build(sources, metered_mj, Period(name, start_ms, end_ms), by, title=book.site_file.name)


def _metered_mj(hours: pl.LazyFrame, postings: pl.LazyFrame, tree: AssetTree) -> int:
    """Return what the outermost meters measured, with what a PUE adds where no facility meter stands [mJ]."""
    lines = hours.with_columns((pl.col("start_ms") + pl.col("spanned_ms")).alias("end_ms")).collect()
    metered = set(lines["asset"].unique().to_list())
    pairs = [(a, up) for a in metered for up in tree.ancestors(a) if up in metered]
    inside = pl.DataFrame(pairs, schema={"asset": pl.String, "above": pl.String}, orient="row")
    above = lines.select(
        pl.col("asset").alias("above"), "hour_ms", pl.col("start_ms").alias("from_ms"), pl.col("end_ms").alias("to_ms")
    )
    covered = (
        lines.select("asset", "hour_ms", "start_ms")
        .join(inside, on="asset")
        .join(above, on=["above", "hour_ms"])
        .filter(pl.col("start_ms").is_between(pl.col("from_ms"), pl.col("to_ms"), closed="left"))
        .select("asset", "hour_ms", "start_ms")
        .unique()
    )
    outermost = lines.join(covered, on=["asset", "hour_ms", "start_ms"], how="anti")
    sites = [a.id for a in tree.assets.values() if a.kind == "site"]
    by_pue = (
        postings.filter((pl.col("account") == "overhead") & pl.col("asset").is_in(sites))
        .select("asset", "hour_ms", "start_ms", "energy_mj")
        .collect()
        .join(lines, on=["asset", "hour_ms", "start_ms"], how="anti")
    )
    return int(sum(outermost["energy_mj"].to_list()) + sum(by_pue["energy_mj"].to_list()))


def _no_intensity(book: Book, postings: pl.LazyFrame) -> float:
    """Return the part of the energy in hours for which a site's intensity is unknown, by the time it is missing."""
    energy = postings.group_by("site", "hour_ms").agg(pl.col("energy_mj").sum()).collect()
    total = missing = 0.0
    for site in book.site_file.site:
        signal = signal_of(book, site, "intensity")
        for hour_ms, energy_mj in energy.filter(pl.col("site") == site.id).select("hour_ms", "energy_mj").iter_rows():
            total += energy_mj
            share = signal.missing_ms(hour_ms, hour_ms + MS_PER_HOUR) / MS_PER_HOUR if signal else 1.0
            missing += energy_mj * share
    return missing / total if total else 0.0


def _embodied(postings: pl.LazyFrame, tree: AssetTree, start_ms: int, end_ms: int) -> dict[str, float]:
    """Return embodied grams by account for the period; nothing where no asset says what making it cost."""
    if not any(a.embodied_kg for a in tree.assets.values()):
        return {}
    columns = postings.select("asset", "account", "job_id", "held_ms").collect()
    rows = embodied.allocate(columns, tree, start_ms=start_ms, end_ms=end_ms)
    return dict(rows.group_by("account").agg(pl.col("embodied_g").sum()).iter_rows())


@dataclass(frozen=True)
class Balance:
    """The proof: lines compared, the largest difference, and the lines that differ."""

    compared: int
    largest_mj: int
    broken: pl.DataFrame


def check(book: Book) -> Balance:
    """Compare, for every metered asset and hour, the meter with the postings of all that stands in it."""
    hours = book.meter_hours.scan().filter("primary").collect()
    tree = book.tree()
    inside = pl.DataFrame(
        [(a, above) for a in tree.assets for above in (a, *tree.ancestors(a))],
        schema={"asset": pl.String, "above": pl.String},
        orient="row",
    ).filter(pl.col("above").is_in(hours["asset"].unique().to_list()))
    meters = hours.group_by("asset", "hour_ms", "start_ms").agg(
        pl.col("energy_mj").sum(), (pl.col("start_ms") + pl.col("spanned_ms")).max().alias("end_ms")
    )
    lines = (
        book.postings.scan()
        .group_by("asset", "hour_ms", "start_ms")
        .agg(pl.col("energy_mj").sum().alias("posted_mj"))
        .collect()
        .join(inside, on="asset")
        .group_by("above", "hour_ms", "start_ms")
        .agg(pl.col("posted_mj").sum())
        .sort("start_ms")
    )
    posted = (
        lines.join_asof(
            meters.rename({"asset": "above", "start_ms": "part_ms"}).drop("energy_mj").sort("part_ms"),
            left_on="start_ms", right_on="part_ms", by=["above", "hour_ms"], check_sortedness=False,
        )
        .filter(pl.col("start_ms") < pl.col("end_ms"))
        .group_by(pl.col("above").alias("asset"), "hour_ms", pl.col("part_ms").alias("start_ms"))
        .agg(pl.col("posted_mj").sum())
    )  # fmt: skip
    both = meters.join(posted, on=["asset", "hour_ms", "start_ms"], how="left").with_columns(
        (pl.col("posted_mj").fill_null(0) - pl.col("energy_mj")).alias("difference_mj")
    )
    broken = both.filter(pl.col("difference_mj") != 0).sort("hour_ms", "asset")
    largest = both.select(pl.col("difference_mj").abs().max()).item()
    return Balance(both.height, largest or 0, broken)
