"""Doubles: readings with two values for one instant, found without reading what cannot hold them.

Row groups note in the footer of their file which meters, by name, and which instants they hold. Readings mostly come by
time or by meter, so that what is new touches no row group that is there, and then only footers are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from wattkeeper.core.schema import READINGS
from wattkeeper.lake.delta import DataFile
from wattkeeper.lake.readings import ROW_GROUP, names_of


def doubles_in(ordered: pa.Table) -> pl.DataFrame:
    """Return the readings that differ from the one before of the same meter and instant: meter, time_ms, value, known.

    ordered: sorted by meter and time, the meters as a dictionary.
    """
    meter, time_ms, value = (ordered[name].combine_chunks() for name in ("meter", "time_ms", "value"))
    same = (np.diff(meter.indices.to_numpy()) == 0) & (np.diff(time_ms.to_numpy()) == 0)
    at = np.flatnonzero(same & (np.diff(value.to_numpy()) != 0))
    columns = {"meter": pl.Series(meter.take(pa.array(at)).cast(pa.string())), "time_ms": time_ms.to_numpy()[at]}
    return pl.DataFrame(columns | {"value": value.to_numpy()[at + 1], "known": value.to_numpy()[at]})


class _Held(NamedTuple):
    """First and last meter, and first and last instant, of a row group; None where nobody noted them."""

    meters: tuple[str, str] | None
    span_ms: tuple[int, int] | None


@dataclass(frozen=True)
class Doubles:
    """Finds them in files of readings under a table's root; footers are read once."""

    root: Path
    _held: dict[str, list[_Held]] = field(default_factory=dict)

    def beside(self, rows: pl.DataFrame, files: Iterable[DataFile]) -> Iterator[pl.DataFrame]:
        """Yield the readings that some files have with another value: meter, time_ms, value, known.

        rows: readings, their meters an Enum in the order of their names.
        """
        coded = rows.with_columns(code=rows["meter"].to_physical().cast(pl.UInt32))
        names = names_of(rows["meter"])
        meters = names[coded["code"].min()], names[coded["code"].max()]  # type: ignore[index]
        span_ms = rows["time_ms"].min(), rows["time_ms"].max()
        codes = dict(zip(names, range(len(names)), strict=True))
        for file in files:
            held = enumerate(self._held_in(file))
            groups = [g for g, (m, s) in held if _overlap(m, meters) and _overlap(s, span_ms)]
            for known in self._read(file, groups, codes, span_ms) if groups else ():  # type: ignore[arg-type]
                both = coded.join(known, on=["code", "time_ms"]).filter(pl.col("value") != pl.col("known"))
                yield both.select(pl.col("meter").cast(pl.String), "time_ms", "value", "known")

    def _read(
        self, file: DataFile, groups: list[int], codes: dict[str, int], span_ms: tuple[int, int]
    ) -> Iterator[pl.DataFrame]:
        """Yield the readings of some meters in a span, from some row groups, a bounded number at a time."""
        with pq.ParquetFile(self.root / file.path, read_dictionary=["meter"], memory_map=True) as opened:
            for part in opened.iter_batches(ROW_GROUP, groups, READINGS.schema.names(), use_threads=False):
                meter, time_ms, value = part["meter"], part["time_ms"].to_numpy(), part["value"].to_numpy()
                code = np.array([codes.get(name, -1) for name in meter.dictionary.to_pylist()], np.int64)[meter.indices]
                here = (code >= 0) & (span_ms[0] <= time_ms) & (time_ms <= span_ms[1])
                if here.any():
                    columns = {"code": code[here].astype(np.uint32), "time_ms": time_ms[here], "known": value[here]}
                    yield pl.DataFrame(columns)

    def _held_in(self, file: DataFile) -> list[_Held]:
        if file.path not in self._held:
            self._held[file.path] = _noted(pq.read_metadata(self.root / file.path))
        return self._held[file.path]


def _noted(meta: pq.FileMetaData) -> list[_Held]:
    place = {meta.schema.column(i).name: i for i in range(meta.num_columns)}
    groups = [meta.row_group(group) for group in range(meta.num_row_groups)]
    both = [[group.column(place[name]).statistics for name in ("meter", "time_ms")] for group in groups]
    return [_Held(*((s.min, s.max) if s is not None and s.has_min_max else None for s in pair)) for pair in both]


def _overlap(one: tuple[Any, Any] | None, other: tuple[Any, Any]) -> bool:
    """Return whether two ranges have something in common; None may hold anything."""
    return one is None or not (one[1] < other[0] or other[1] < one[0])
