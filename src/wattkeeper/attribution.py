"""Attribution of a book: which days changed, what goes in, and where the lines go; the sums are made in `ledger`."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.config import SiteConfig
from wattkeeper.core import counter
from wattkeeper.core.assets import AssetTree
from wattkeeper.core.clock import day_of, day_start_ms, hour_edges_ms, next_day
from wattkeeper.core.units import PPM
from wattkeeper.lake.book import Book
from wattkeeper.lake.delta import DataFile
from wattkeeper.lake.readings import PIECES, TAIL_HOURS, DayFile, DayIndex, PieceIndex, tail_start_ms
from wattkeeper.ledger import kernel
from wattkeeper.ledger.close import close, unit_flows
from wattkeeper.ledger.day import Edges, Frame, Lines, Window, attribute_units, digests, frame
from wattkeeper.ledger.layout import UPPER_KINDS, Layout, allocation_arrays, lay_out
from wattkeeper.ledger.tables import lines_of, to_tables
from wattkeeper.valuing import signals_of

Int64s = NDArray[np.int64]
Piece = tuple[str, int]
"""A day and one of readings.PIECES. Each is attributed by itself."""

DAYS_AT_ONCE = 5
"""Days whose allocations are held in memory together. Of more, the first is looked at alone, so that work begins at once."""

AHEAD = 3
"""Pieces whose readings are being worked on while one is written."""

WRITES_AT_ONCE = 8
"""Files of the ledger, about two pieces, that may wait to be written: on a slow disk memory does not grow."""

PIECE_FILES = ("head-", "tail-")
"""How names of ledger files begin, by piece."""

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
class _Held:
    """What jobs held in some days: ids of the jobs by code, their hashes, the allocations as arrays; and the digests of
    what the ledger's lines of those days were made from."""

    jobs: pl.Series
    hashes: Int64s
    allocs: kernel.Allocations
    alloc0: Int64s
    digests: dict[Piece, dict[str, str]]


@dataclass
class _Going:
    """A piece on its way through."""

    piece: Piece
    held: _Held
    window: Window
    todo: list[int]
    digests: dict[str, str]
    parts: list[Future[list[Lines]]] = field(default_factory=list)
    old: Future[dict[str, pl.DataFrame]] | None = None


def attribute_sites(
    book: Book, sites: Sequence[SiteConfig], done: Attributed, everything: bool, workers: int, progress: Progress
) -> None:
    """Attribute the stale days of some sites, all days with `everything`; what was done is added to `done`."""
    with ThreadPoolExecutor(workers) as pool:
        pool.submit(kernel.load)  # meanwhile it is found out what there is to do
        for site in sites:
            SiteRun(book, site, done).attribute(everything, pool, workers, progress)


_LAYOUTS: WeakKeyDictionary[AssetTree, dict[str, Layout]] = WeakKeyDictionary()


def _layout_of(book: Book, site: str) -> Layout:
    """Return a site's layout; it is made once for each tree, and a book makes a new tree when it meets new things."""
    tree = book.tree()
    made = _LAYOUTS.setdefault(tree, {})
    if site not in made:
        made[site] = lay_out(tree, book.meters(), site)
    return made[site]


class SiteRun:
    """One site's attribution."""

    def __init__(self, book: Book, site: SiteConfig, done: Attributed) -> None:
        self.book, self.site, self.done = book, site, done
        self.layout = _layout_of(book, site.id)
        self.meter_code = {m.id: i for i, m in enumerate(self.layout.meters)}
        named = signals_of(book, site)
        self.signals, self.pue = [named[kind] for kind in ("intensity", "price", "water")], named["pue"]
        self.valued = [s is not None for s in self.signals]
        self.idle_ppm = round(book.site_file.policy.idle_utilisation * PPM)
        self.files = self._files()
        self.stale = book.state.stale_spans(site.id)
        self.writes: deque[Future[DataFile]] = deque()
        self._indexes: dict[str, DayIndex] = {}
        self._codes: dict[Piece, Int64s] = {}
        self._opened: dict[str, DayFile] = {}

    def attribute(self, everything: bool, pool: ThreadPoolExecutor, workers: int, progress: Progress) -> None:
        """Attribute the site's stale days with a pool of so many workers."""
        if not self.files:
            return
        days = self._days_to_look_at(everything, progress)
        if not days:
            return
        made: dict[Piece, dict[str, str]] = {}
        units: set[tuple[str, int]] = set()
        for at, going in enumerate(self._started(days, pool, workers)):
            progress("days", at // len(PIECES) + 1, len(days))
            if going.todo:
                self._finish(going, pool)
                made[going.piece] = going.digests
                units |= {(going.piece[0], u) for u in going.todo}
        for write in self.writes:
            write.result()
        for committed in [pool.submit(table.commit) for table in self.book.ledger.values()]:
            committed.result()
        self.done.days += len(days)
        self.done.units += len(units)
        self.book.state.settle(self.site.id, made, self.stale)

    # which days

    def _files(self) -> dict[str, list[DataFile]]:
        """Return the files of readings of each of the site's days."""
        return {day: files for (s, day), files in self.book.readings.days().items() if s == self.site.id}

    def _days_to_look_at(self, everything: bool, progress: Progress) -> list[str]:
        """Return the days to look at, compacted, with those before and after that share a step with them."""
        span = _days(self._reach_back(min(self.files)), max(self.files))
        stale = set(span) if everything else {d for d in span if self._is_stale(d)}
        unsorted = [d for d in sorted(stale & set(self.files)) if not self.book.readings.is_sorted(self.files[d])]
        for at, day in enumerate(unsorted):
            progress("days sorted", at + 1, len(unsorted))
            self._index(day)
        before = self.book.readings.table.version()
        if self.book.readings.table.commit() != before:
            self.files = self._files()
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
        here = self._meters_of(day)
        at = span.index(day)
        for path in (reversed(span[:at]), span[at + 1 :]):
            missing = set(here)
            for other in path:
                yield other
                if other in self.files:
                    missing -= self._meters_of(other)
                if other < day and other > self._reach_back(day):
                    continue
                if not missing or not self._reaches(missing, other, before=other < day):
                    break

    def _reaches(self, meters: set[str], day: str, *, before: bool) -> bool:
        """Return whether some of these meters have readings on the far side of a day."""
        sides = [d for d in self.files if (d < day if before else d > day)]
        return any(meters & self._meters_of(d) for d in sides)

    def _meters_of(self, day: str) -> set[str]:
        """Return the meters that have readings on a day."""
        return {m for piece in self._index(day) for m in piece.meters}

    def _index(self, day: str) -> DayIndex:
        """Return the index of a day's readings; the day is compacted when it has to be."""
        if day not in self._indexes:
            order = [
                (m.id, u)
                for u in range(len(self.layout.units))
                for m in self.layout.meters[self.layout.unit_meter0[u] : self.layout.unit_meter0[u + 1]]
            ]
            tail_ms = tail_start_ms(hour_edges_ms(day, self.site.timezone))
            self._indexes[day] = self.book.readings.compact((self.site.id, day), self.files[day], order, tail_ms)
        return self._indexes[day]

    # what goes in

    def _held(self, days: list[str], *, first: bool) -> _Held:
        """Return what jobs held in some days; first: whether no days before them are attributed in this run."""
        start_ms = day_start_ms(days[0], self.site.timezone)
        end_ms = day_start_ms(next_day(days[-1]), self.site.timezone)
        touching = (pl.col("start_ms") < end_ms) & (pl.col("end_ms").is_null() | (pl.col("end_ms") > start_ms))
        table = self.book.allocations_table.scan()
        rows = table.filter(touching).collect()
        if rows["estimated"].any():
            guessed = rows.filter("estimated")["job_id"].unique().to_list()
            exact = table.filter(~pl.col("estimated") & pl.col("job_id").is_in(guessed) & ~touching).collect()
            rows = pl.concat([rows, exact])
        rows = self.book.ended(rows)
        jobs = rows["job_id"].unique().sort()
        allocs, alloc0, strange = allocation_arrays(self.layout, rows, jobs, self._until_ms)
        self.done.strangers += len(strange) if first else int((strange >= start_ms).sum())
        hashes = jobs.hash(seed=1).cast(pl.UInt64).to_numpy().view(np.int64)
        return _Held(jobs, hashes, allocs, alloc0, self.book.state.digests(self.site.id, days))

    @cached_property
    def _until_ms(self) -> int:
        """The last reading there is: what still runs is held until then."""
        return max(int(piece.last_ms.max()) for piece in self._index(max(self.files)) if len(piece.meters))

    @cached_property
    def _kept(self) -> list[Piece]:
        """The pieces that may have readings, in order."""
        return [(day, piece) for day in sorted(self.files) for piece in PIECES]

    def _per_meter(self, piece: Piece) -> tuple[PieceIndex | None, Int64s]:
        """Return a piece's index and the code of each of its meters, −1 for meters the layout no longer has."""
        day, at = piece
        if day not in self.files:
            return None, np.zeros(0, np.int64)
        index = self._index(day)[at]
        if piece not in self._codes:
            self._codes[piece] = np.array([self.meter_code.get(m, -1) for m in index.meters], np.int64)
        return index, self._codes[piece]

    def _edges(self, piece: Piece) -> Edges:
        """Return the readings just before and after a piece, from the nearest pieces that have them."""
        edges = Edges.none(len(self.layout.meters))
        before = reversed(self._kept[: bisect_left(self._kept, piece)])
        after = self._kept[bisect_right(self._kept, piece) :]
        for others, back in ((before, True), (after, False)):
            count, width = (edges.back_n, counter.LOOK_BACK) if back else (edges.ahead_n, counter.LOOK_AHEAD)
            for other in others:
                index, codes = self._per_meter(other)
                rows = np.flatnonzero((codes >= 0) & (count[codes] < width))
                if index is not None and len(rows):
                    _fill(edges, index, rows, codes[rows], before=back)
                if (count == width).all():
                    break
        return edges

    def _frame(self, piece: Piece, index: PieceIndex | None, codes: Int64s, edges: Edges) -> Frame:
        day, at = piece
        hours = hour_edges_ms(day, self.site.timezone)[(slice(-TAIL_HOURS), slice(-1 - TAIL_HOURS, None))[at]]
        cuts = [self.pue.breaks_ms] if self.pue else []
        place = {int(c): r for r, c in enumerate(codes)} if self._upper_meters else {}
        for m in self._upper_meters:
            back, ahead, row = edges.back_n[m], edges.ahead_n[m], place.get(m)
            if index is not None and row is not None:
                first_ms, last_ms = index.first_ms[row, 0], index.last_ms[row, -1]
            elif back or ahead:
                first_ms, last_ms = edges.ahead_ms[m, 0], edges.back_ms[m, back - 1]
            else:
                continue
            cuts += [np.array([first_ms - self.layout.meters[m].interval_ms])] if not back else []
            cuts += [np.array([last_ms])] if not ahead else []
        joined = np.concatenate(cuts) if cuts else np.zeros(0, np.int64)
        return frame(hours, joined, [s for s in self.signals if s is not None])

    # the work

    def _started(self, days: list[str], pool: ThreadPoolExecutor, workers: int) -> Iterator[_Going]:
        """Yield pieces in order; readings of the next ones are already being worked on when a piece is yielded."""
        waiting: deque[_Going] = deque()
        alone = 1 if len(days) > DAYS_AT_ONCE else len(days)
        for begin, end in pairwise([0, *range(alone, len(days), DAYS_AT_ONCE), len(days)]):
            some = days[begin:end]
            held = self._held(some, first=begin == 0)
            for day in sorted(some, key=lambda d: (not self._is_stale(d), d)):
                for at in PIECES:
                    waiting.append(self._start((day, at), held, pool, workers))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft()
        yield from waiting

    def _start(self, piece: Piece, held: _Held, pool: ThreadPoolExecutor, workers: int) -> _Going:
        index, codes = self._per_meter(piece)
        edges = self._edges(piece)
        rows_n, digest, row0, smooth = (np.zeros(len(self.layout.meters), np.int64) for _ in range(4))
        if index is not None:
            known = np.flatnonzero(codes >= 0)
            meter = codes[known]
            for column, values in ((rows_n, index.rows), (digest, index.digest), (row0, index.row0)):
                column[meter] = values[known]
            smooth[meter] = _is_smooth(index, known, self.layout.static, meter)
        framed = self._frame(piece, index, codes, edges)
        window = Window.of(self.layout, framed, edges, held.allocs, held.alloc0, rows_n, smooth, self.idle_ppm)
        now = dict(zip(self.layout.units, digests(window, digest, held.hashes), strict=True))
        before = {} if self._is_torn(piece) else held.digests.get(piece, {})
        todo = [u for u, unit in enumerate(self.layout.units) if before.get(unit) != now[unit]]
        going = _Going(piece, held, window, todo, now)
        if todo:
            going.todo = sorted({*todo, *self._upper})
            file = self._open(piece[0], index)
            tasks = list(self._tasks(going.todo, rows_n, row0, file))
            for some in _dealt(tasks, 2 * workers):
                going.parts.append(pool.submit(self._work, window, some, rows_n, row0, file))
            if len(going.todo) < len(self.layout.units):
                files = {name: self._written.get((name, piece), []) for name in self.book.ledger}
                going.old = pool.submit(self._old, files, [self.layout.units[u] for u in going.todo])
        return going

    def _is_torn(self, piece: Piece) -> bool:
        """Return whether files of a piece that the ledger names are not there as they were written: power was lost."""
        return any(
            _size(f"{table.root}/{file.path}") != file.bytes
            for name, table in self.book.ledger.items()
            for file in self._written.get((name, piece), [])
        )

    @cached_property
    def _upper(self) -> set[int]:
        """Units above the nodes: sites, halls, racks."""
        return {u for u, unit in enumerate(self.layout.units) if self.layout.tree[unit].kind in UPPER_KINDS}

    @cached_property
    def _upper_meters(self) -> list[int]:
        """Meters of assets above the nodes."""
        return [i for i, m in enumerate(self.layout.meters) if self.layout.tree[m.asset].kind in UPPER_KINDS]

    def _open(self, day: str, index: PieceIndex | None) -> DayFile | None:
        if index is not None and day not in self._opened:
            self._opened = {day: DayFile.of(self.book.readings.table.root / index.path)}
        return self._opened.get(day)

    def _tasks(self, todo: list[int], rows_n: Int64s, row0: Int64s, file: DayFile | None) -> Iterator[_Task]:
        """Yield units in runs that share row groups."""
        groups = _groups_by_unit(self.layout.meter_unit, rows_n, row0, file.group0) if file is not None else {}
        task: _Task | None = None
        for u in todo:
            mine = groups.get(u, ())
            if task is not None and task.last == u and mine in {(), task.groups}:
                task.last = u + 1
                continue
            if task is not None:
                yield task
            task = _Task(u, u + 1, mine)
        if task is not None:
            yield task

    def _work(
        self, window: Window, tasks: Sequence[_Task], rows_n: Int64s, row0: Int64s, file: DayFile | None
    ) -> list[Lines]:
        nothing = np.zeros(0, np.int64)
        read = file.groups([t.groups for t in tasks if t.groups]) if file is not None else iter(())
        posted = []
        for task in tasks:
            m = slice(*self.layout.unit_meter0[[task.first, task.last]])
            time_ms, value, begin = nothing, nothing, np.zeros(m.stop - m.start, np.int64)
            if task.groups and file is not None:
                time_ms, value = next(read)
                begin = np.where(rows_n[m] > 0, row0[m] - file.group0[task.groups[0]], 0)
            rows = kernel.Rows.of(time_ms, value)
            posted.append(attribute_units(window, task.first, task.last, rows, begin, begin + rows_n[m]))
        self.done.readings += int(sum(rows_n[slice(*self.layout.unit_meter0[[t.first, t.last]])].sum() for t in tasks))
        return posted

    # what comes out

    def _finish(self, going: _Going, pool: ThreadPoolExecutor) -> None:
        """Close a piece and stage its files in place of the old ones."""
        posted = [lines for part in going.parts for lines in part.result()]
        window, (day, at) = going.window, going.piece
        split = [(p, p.keys[:, 3] == kernel.ABOVE) for p in posted]
        below = [p.where(~upper) for p, upper in split]
        nothing = Lines.none(len(window.frame.grid.signals))
        above = Lines.joined([nothing, *(p.where(upper) for p, upper in split if upper.any())])
        if going.old is not None:
            below.append(lines_of(going.old.result(), window, going.held.jobs, self.valued))
        units = unit_flows(self.layout, window.frame, below)
        pue = self.pue.at(window.frame.slot_ms[:-1]) if self.pue else None
        closing = close(self.layout, window.frame, above, units, pue)
        lines = Lines.joined([*below, closing])
        if going.old is not None:  # as they would stand had all units been made now
            lines = lines.ordered(self.layout, self._upper)
        frames = to_tables(lines, window, going.held.jobs, self.valued)
        while len(self.writes) > WRITES_AT_ONCE:
            self.writes.popleft().result()
        for name, table in self.book.ledger.items():
            table.drop(self._written.get((name, going.piece), []))
            if frames[name].num_rows:
                self.writes.append(pool.submit(table.write, frames[name], (self.site.id, day), PIECE_FILES[at]))
        self.done.postings += frames["postings"].num_rows

    @cached_property
    def _written(self) -> dict[tuple[str, Piece], list[DataFile]]:
        """The site's files in the ledger's tables, by table and piece."""
        found: dict[tuple[str, Piece], list[DataFile]] = {}
        for name, table in self.book.ledger.items():
            for file in table.files():
                if file.site == self.site.id:
                    at = PIECE_FILES.index(file.name[: len(PIECE_FILES[0])])
                    found.setdefault((name, (file.day, at)), []).append(file)
        return found

    def _old(self, written: dict[str, list[DataFile]], todo: Sequence[str]) -> dict[str, pl.DataFrame]:
        """Return a piece's lines of the units that stay as they are, by table, from the files it was written to."""
        kept = {}
        for name, table in self.book.ledger.items():
            if "unit" not in table.spec.schema:
                continue
            files = [table.root / f.path for f in written[name]]
            columns = [c for c in table.spec.schema.names() if c not in {"site", "day"}]
            rows = (
                pl.concat([pl.read_parquet(f, columns=columns) for f in files])
                if files
                else table.spec.empty().select(columns)
            )
            stays = sorted(set(self.layout.units) - set(todo))  # a unit that the site file no longer has goes
            kept[name] = rows.filter(pl.col("unit").is_in(stays))
        return kept


def _size(path: str) -> int:
    """Return a file's size in bytes, −1 where there is none."""
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return -1


def _groups_by_unit(meter_unit: Int64s, rows_n: Int64s, row0: Int64s, group0: Int64s) -> dict[int, tuple[int, ...]]:
    """Return the row groups that hold each unit's readings, for units that have any."""
    read = np.flatnonzero(rows_n)
    if not len(read):
        return {}
    units, at = np.unique(meter_unit[read], return_index=True)
    low = np.searchsorted(group0, np.minimum.reduceat(row0[read], at), side="right") - 1
    high = np.searchsorted(group0, np.maximum.reduceat((row0 + rows_n)[read], at), side="left")
    return {u: tuple(range(a, b)) for u, a, b in zip(units.tolist(), low.tolist(), high.tolist(), strict=True)}


def _is_smooth(index: PieceIndex, rows: Int64s, static: dict[str, Int64s], meter: Int64s) -> NDArray[np.bool_]:
    """Return for some counters of a piece whether their extremes rule out gaps, falls and impossible rises."""
    bound_w = static["bound_w"][meter]
    possible = (bound_w == 0) | (index.most_per_ms[rows] <= bound_w)
    rises: NDArray[np.bool_] = (index.least[rows] >= 0) & (index.longest_ms[rows] <= static["max_gap_ms"][meter])
    rises &= possible
    return rises


def _fill(edges: Edges, index: PieceIndex, rows: Int64s, codes: Int64s, *, before: bool) -> None:
    """Add the last (before) or first readings of some meters of a piece to the edges, in time order from the left."""
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


def _dealt(tasks: list[_Task], hands: int) -> list[list[_Task]]:
    """Return the tasks in up to so many runs of about equal length."""
    edges = [len(tasks) * i // hands for i in range(hands + 1)]
    return [tasks[a:b] for a, b in pairwise(edges) if b > a]
