"""Attribution of a book: which days changed, what goes in, and where the lines go; the sums are made in `ledger`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.config import SiteConfig
from wattkeeper.core import counter
from wattkeeper.core.clock import day_of, day_start_ms, hour_edges_ms, next_day
from wattkeeper.core.schema import FINDINGS, METER_HOURS, POSTINGS
from wattkeeper.core.units import PPM
from wattkeeper.lake.book import Book
from wattkeeper.lake.delta import DataFile
from wattkeeper.lake.readings import DayIndex, group_edges, read_groups
from wattkeeper.ledger import kernel
from wattkeeper.ledger.close import Flow, close, unit_flows
from wattkeeper.ledger.day import Edges, Frame, Lines, Window, attribute_units, digests, frame
from wattkeeper.ledger.layout import UPPER_KINDS, allocation_arrays, lay_out
from wattkeeper.ledger.tables import VALUED, to_tables
from wattkeeper.valuing import signal_of

Int64s = NDArray[np.int64]
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass
class Attributed:
    """What an attribution did: days looked at, units made anew, readings read, and what did not fit."""

    days: int = 0
    units: int = 0
    readings: int = 0
    postings: int = 0
    strangers: int = 0


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


class SiteRun:
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
        frames = to_tables(Lines.joined([*below, closing]), window, jobs, [s is not None for s in self.signals])
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
            stays = sorted(set(self.layout.units) - set(todo))  # a unit that the site file no longer has goes
            kept[name] = rows.filter(pl.col("unit").is_in(stays))
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
