"""Readings on disk: one file per site and day, sorted by meter, with a small index of what is in it.

The layout is the one that measured best: int64 milliseconds and int64 values, both required and DELTA_BINARY_PACKED,
no compression, row groups cut where a unit's meters end, so that a unit is read from one row group. New readings arrive
as further files of the day; `compact` merges them, drops duplicates, and rewrites the index. An index that is missing or
belongs to another file is made anew from the file.

A day's file has two pieces, one after the other: its first hours and its last ones. The first readings of the next day
change how the end of this day is read, back to where the last silence began; so a new day opens the last hours of this
one again, and as a rule nothing before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wattkeeper.core import counter
from wattkeeper.core.schema import READINGS
from wattkeeper.lake.delta import DataFile, Partition, Table

Int64s = NDArray[np.int64]

ROW_GROUP = 262_144
"""Readings in a row group, about: 8 GPUs at one reading each 15 s make 46 080 a day."""

NEW_GROUP = 32_768
"""Readings in a row group of a further file: few meters stand in each, so that looking for some reads little."""

PIECES = (0, 1)
"""Pieces of a day: its first hours, its last hours."""

TAIL_HOURS = 6
"""Hours in the last piece: outages of meters and agents are mostly shorter, and the next day makes it anew."""

_SCHEMA = pa.schema(
    [pa.field("meter", pa.string(), False), *(pa.field(c, pa.int64(), False) for c in ("time_ms", "value"))]
)

_CODED = pa.dictionary(pa.int32(), pa.string())
"""Meters by number: written as they are, and text to whoever reads the file."""


@dataclass(frozen=True)
class PieceIndex:
    """What a piece of a day's file holds, meter by meter, in file order.

    row0, rows: (m,) where a meter's readings begin and how many they are; digest: (m,) of their content.
    longest_ms, least, most_per_ms: (m,) longest step, least rise and fastest rise (rounded up) of one reading on the next.
    first_ms, first_value: (m, LOOK_AHEAD); last_ms, last_value: (m, LOOK_BACK), the last one rightmost; only the first
    min(rows, …) of `first` and the last min(rows, …) of `last` are set.
    """

    path: str
    meters: tuple[str, ...]
    row0: Int64s
    rows: Int64s
    digest: Int64s
    longest_ms: Int64s
    least: Int64s
    most_per_ms: Int64s
    first_ms: Int64s
    first_value: Int64s
    last_ms: Int64s
    last_value: Int64s


DayIndex = tuple[PieceIndex, PieceIndex]


class ReadingsStore:
    """The readings table and its indexes under a book's root."""

    def __init__(self, root: Path) -> None:
        self.table = Table(root / "readings", READINGS, durable=True)
        self.index_root = root / "index"

    def append(self, rows: pl.DataFrame, part: Partition) -> pa.Table:
        """Stage readings of one site and day as a further file, in order; `table.commit` makes them count. Return them.

        Their meters are an Enum in the order of their names. Readings that come in the order of time, as they do from
        agents, are put in order without comparing them.
        """
        ordered = _in_order(rows.select("meter", "time_ms", "value"))
        self._write(ordered, part, [min(NEW_GROUP, rows.height - at) for at in range(0, rows.height, NEW_GROUP)])
        return ordered

    def days(self) -> dict[Partition, list[DataFile]]:
        """Return the files of each site and day."""
        days: dict[Partition, list[DataFile]] = {}
        for f in self.table.files():
            days.setdefault((f.site, f.day), []).append(f)
        return days

    def compact(
        self, part: Partition, files: Sequence[DataFile], order: Sequence[tuple[str, int]], tail_ms: int
    ) -> DayIndex:
        """Return the index of a day, after merging its files into one if they are several; commit after.

        order: (meter, unit) in the order of the site's layout. tail_ms: start of the day's last piece. Readings of one
        meter at one instant collapse; where they differ the largest stands, so that the order of arrival does not
        matter.
        """
        if self.is_sorted(files):
            return self.index(files[0])
        ranks = pl.DataFrame(
            {"meter": [m for m, _ in order], "rank": range(len(order)), "unit": [u for _, u in order]},
            schema={"meter": pl.String, "rank": pl.Int64, "unit": pl.Int64},
        )
        merged = (
            pl.concat([pl.read_parquet(self.table.root / f.path, columns=READINGS.schema.names()) for f in files])
            .join(ranks, on="meter", how="left", maintain_order="left")
            .sort("rank", "meter", "time_ms", "value", nulls_last=True)
            .unique(["rank", "meter", "time_ms"], keep="last", maintain_order=True)
        )
        self.table.drop(files)
        return self._write_pieces(merged, part, tail_ms)

    def is_sorted(self, files: Sequence[DataFile]) -> bool:
        """Return whether a day's files are one, sorted and with a whole index, rather than as they arrived."""
        return len(files) == 1 and is_zipfile(self._index_path(files[0]))

    def index(self, file: DataFile) -> DayIndex:
        """Return the index of a file that is sorted."""
        with np.load(self._index_path(file), allow_pickle=False) as kept:
            names, split, table = kept["meters"].tolist(), int(kept["split"]), kept["table"]
        return _pieces(file.path, names, table, split)

    def _index_path(self, file: DataFile) -> Path:
        return self.index_root / f"{Path(file.path).stem}.npz"

    def forget_indexes(self) -> None:
        """Delete the indexes of files that are no longer there."""
        kept = {path.stem for path in self.table.root.rglob("*.parquet")}
        for index in self.index_root.glob("*.npz"):
            if index.stem not in kept:
                index.unlink()

    def write_day(self, rows: pl.DataFrame, part: Partition, units: Int64s, tail_ms: int) -> DayIndex:
        """Stage a day that is sorted by meter and time and free of duplicates already; units: (n,) of each reading."""
        return self._write_pieces(rows.with_columns(pl.Series("unit", units)), part, tail_ms)

    def _write_pieces(self, rows: pl.DataFrame, part: Partition, tail_ms: int) -> DayIndex:
        head, tail = rows.filter(pl.col("time_ms") < tail_ms), rows.filter(pl.col("time_ms") >= tail_ms)
        ordered = pl.concat([head, tail])
        new = self._write(ordered.select("meter", "time_ms", "value").to_arrow(), part, [*_cut(head), *_cut(tail)])
        return self._make_index(new, ordered, head.height)

    def _write(self, rows: pa.Table, part: Partition, groups: Sequence[int]) -> DataFile:
        path = self.table.new_path(part)
        coded = pa.types.is_dictionary(rows.schema.field("meter").type)
        schema = _SCHEMA.set(0, pa.field("meter", _CODED, False)) if coded else _SCHEMA
        with pq.ParquetWriter(
            self.table.root / path,
            schema,
            compression="none",
            use_dictionary=["meter"],
            column_encoding={"time_ms": "DELTA_BINARY_PACKED", "value": "DELTA_BINARY_PACKED"},
            write_statistics=["meter", "time_ms"],
            store_schema=False,
        ) as writer:
            done = 0
            plain = rows.cast(schema)
            for size in groups:
                writer.write_table(plain.slice(done, size), row_group_size=max(size, 1))
                done += size
        return self.table.stage(path, part, rows.num_rows)

    def _make_index(self, file: DataFile, rows: pl.DataFrame, n_head: int) -> DayIndex:
        begins = np.diff(rows["meter"].rle_id().to_numpy(), prepend=-1) != 0
        begins[n_head : n_head + 1] = True
        starts = np.flatnonzero(begins).astype(np.int64)
        sizes = np.diff(starts, append=rows.height)
        time_ms, value = rows["time_ms"].to_numpy(), rows["value"].to_numpy()
        table = np.column_stack(
            [starts, sizes, _digest(time_ms, value, starts), *_extremes(time_ms, value, starts)]
            + [_edge(c, starts, sizes, counter.LOOK_AHEAD, first=True) for c in (time_ms, value)]
            + [_edge(c, starts, sizes, counter.LOOK_BACK, first=False) for c in (time_ms, value)]
        )
        names = rows["meter"].gather(starts).to_list()
        split = int(np.searchsorted(starts, n_head))
        self.index_root.mkdir(exist_ok=True)
        np.savez(
            self._index_path(file), allow_pickle=False, meters=np.array(names, dtype=str), split=split, table=table
        )
        return _pieces(file.path, names, table, split)


@dataclass(frozen=True)
class DayFile:
    """A day's file, opened once for several reads: where its row groups begin, and its end: (g + 1,) rows."""

    path: Path
    meta: pq.FileMetaData
    group0: Int64s

    @classmethod
    def of(cls, path: Path) -> DayFile:
        """Read a file's footer."""
        meta = pq.read_metadata(path)
        sizes = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
        return cls(path, meta, np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))).astype(np.int64))

    def groups(self, runs: Sequence[tuple[int, ...]]) -> Iterator[tuple[Int64s, Int64s]]:
        """Yield times and values of some row groups, one after the other, for each run of groups."""
        with pq.ParquetFile(self.path, metadata=self.meta, memory_map=True, pre_buffer=False) as file:
            for run in runs:
                rows = file.read_row_groups(list(run), columns=["time_ms", "value"], use_threads=False)
                yield rows["time_ms"].to_numpy(), rows["value"].to_numpy()


def tail_start_ms(hour_edges_ms: Int64s) -> int:
    """Return where the last piece of a day begins, from where its hours begin and its end [ms]."""
    return int(hour_edges_ms[-1 - TAIL_HOURS])


def _pieces(path: str, names: list[str], table: Int64s, split: int) -> DayIndex:
    """Return the index of a day from its table: the columns of a PieceIndex side by side, one line for each meter."""
    widths = [1] * 6 + [counter.LOOK_AHEAD] * 2 + [counter.LOOK_BACK] * 2
    columns = [c[:, 0] if c.shape[1] == 1 else c for c in np.hsplit(table, np.cumsum(widths)[:-1])]
    head, tail = (
        PieceIndex(path, tuple(names[part]), *(c[part] for c in columns)) for part in (slice(split), slice(split, None))
    )
    return head, tail


def _in_order(rows: pl.DataFrame) -> pa.Table:
    """Return readings sorted by meter and time."""
    codes, time_ms = rows["meter"].to_physical().to_numpy(), rows["time_ms"].to_numpy()
    order = _by_code(codes)
    codes, time_ms = codes[order], time_ms[order]
    if ((np.diff(time_ms) < 0) & (np.diff(codes.astype(np.int64)) == 0)).any():
        again = np.lexsort((time_ms, codes))
        order, codes, time_ms = order[again], codes[again], time_ms[again]
    meter = pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(np.int32)), pa.array(names_of(rows["meter"]), pa.string())
    )
    return pa.table({"meter": meter, "time_ms": time_ms, "value": rows["value"].to_numpy()[order]})


def names_of(meter: pl.Series) -> list[str]:
    """Return the names that an Enum numbers, in their order."""
    assert isinstance(meter.dtype, pl.Enum)
    return meter.dtype.categories.to_list()


def _by_code(codes: NDArray[np.unsignedinteger[Any]]) -> Int64s:
    """Return the stable order of some numbers below 2³², by their low and then their high 16 bits: each a radix sort."""
    order = np.argsort(codes.astype(np.uint16), kind="stable")
    if len(codes) and codes.max() >= 2**16:
        order = order[np.argsort((codes >> np.uint32(16)).astype(np.uint16)[order], kind="stable")]
    return order


def _cut(rows: pl.DataFrame) -> list[int]:
    """Return sizes of row groups of about ROW_GROUP readings, each ending where a unit ends."""
    ends = np.flatnonzero(np.diff(rows["unit"].rle_id().to_numpy(), append=-1)) + 1
    groups, start = [], 0
    for this, after in _pairs(ends.tolist()):
        if after - start > ROW_GROUP or after == this:
            groups.append(this - start)
            start = this
    return groups


def _pairs(ends: list[int]) -> Iterator[tuple[int, int]]:
    return zip(ends, [*ends[1:], ends[-1]] if ends else [], strict=True)


def _digest(time_ms: Int64s, value: Int64s, starts: Int64s) -> Int64s:
    """Return a 64-bit digest of each meter's readings; equal readings in equal order give equal digests."""
    if not len(starts):
        return np.zeros(0, np.int64)
    mixed = (time_ms.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ (
        value.view(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    )
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return np.add.reduceat(mixed, starts).view(np.int64)


def _extremes(time_ms: Int64s, value: Int64s, starts: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Return each meter's longest step, least and fastest rise; one reading looks like a step of no rise."""
    if not len(starts):
        return starts, starts, starts
    step_ms, rise = np.diff(time_ms, append=0), np.diff(value, append=0)
    last = np.append(starts[1:], len(time_ms)) - 1
    step_ms[last], rise[last] = 1, 0
    fastest = np.ceil(np.maximum.reduceat(rise / step_ms, starts)).astype(np.int64)
    return np.maximum.reduceat(step_ms, starts), np.minimum.reduceat(rise, starts), fastest


def _edge(column: Int64s, starts: Int64s, sizes: Int64s, width: int, *, first: bool) -> Int64s:
    """Return the first or last `width` values of each meter: (m, width); the last one stands rightmost."""
    place = np.arange(width)[None, :]
    taken = np.minimum(sizes, width)[:, None]
    if first:
        rows = starts[:, None] + np.minimum(place, taken - 1)
    else:
        rows = (starts + sizes)[:, None] - np.minimum(width - place, taken)
    return column[rows] if len(column) else np.zeros((0, width), np.int64)
