"""Jobs and allocations: one row each, checked column by column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from wattkeeper.core.roles import Intake
from wattkeeper.core.schema import ALLOCATIONS, JOBS, Column, TableSpec
from wattkeeper.integrations.csvfile.link import Batch
from wattkeeper.integrations.csvfile.numbers import read_reals
from wattkeeper.integrations.csvfile.table import Table

DEFAULTS: dict[str, Any] = {"share": 1.0, "estimated": False}
"""What holds where a file has no such column."""

TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True, slots=True)
class Rows:
    """The jobs or the allocations of one file."""

    table: Table
    spec: TableSpec

    def read(self) -> Iterator[Intake]:
        """Yield all batches. Raises ImportFileError when the file as a whole cannot be used."""
        names = {c.name.removesuffix("_ms"): c for c in self.spec.columns}
        required = [n for n, c in names.items() if not c.nullable and n not in DEFAULTS]
        wanted = self.table.find(required, [n for n in names if n not in required])
        for batch in self.table.batches(wanted):
            yield self._intake(batch, {n: c for n, c in names.items() if n in wanted}, wanted)

    def _intake(self, batch: Batch, names: dict[str, Column], wanted: dict[str, int]) -> Intake:
        cells = batch.cells
        read = {n: self._column(cells[n], n, c, wanted[n]) for n, c in names.items()}
        rows = pl.DataFrame({names[n].name: frame["value"] for n, frame in read.items()})
        if "end" in read:
            rows = rows.with_columns(_after_start(rows, read["end"]["later_ms"]))
        reasons = [frame["why"] for frame in read.values()]
        if "end" in read:
            reasons.append(_end_before_start(rows))
        why = pl.select(why=pl.coalesce(reasons))["why"]
        absent = [c for c in self.spec.columns if c.name not in rows.columns]
        rows = rows.with_columns(pl.lit(DEFAULTS.get(c.name), c.dtype).alias(c.name) for c in absent)
        good = rows.filter(why.is_null()).select(self.spec.schema.names())
        rejects = [*batch.rejects, *self.table.rejects(cells, why)]
        if self.spec is JOBS:
            return Intake(source=self.table.name, jobs=good, rejects=rejects)
        return Intake(source=self.table.name, allocations=good, rejects=rejects)

    def _column(self, cells: pl.Series, name: str, column: Column, place: int) -> pl.DataFrame:
        """Return value, later_ms for times, and why; an empty cell is null where the table allows it."""
        if column.name.endswith("_ms"):
            read = self.table.times(cells, name, place).rename({"time_ms": "value"})
        elif column.dtype == pl.Boolean:
            read = _booleans(cells, name)
        elif column.dtype == pl.String:
            read = pl.DataFrame({"value": cells.cast(pl.String), "why": pl.repeat(None, len(cells), dtype=pl.String, eager=True)})
        else:
            read = _amounts(cells, name, column, self.table.layout.decimal)
        blank = None if column.nullable else f"{name} is missing"
        return read.with_columns(why=pl.when(cells.is_null()).then(pl.lit(blank, pl.String)).otherwise("why"))


def read_jobs(table: Table) -> Iterator[Intake]:
    """Yield the jobs of a file."""
    return Rows(table, JOBS).read()


def read_allocations(table: Table) -> Iterator[Intake]:
    """Yield the allocations of a file."""
    return Rows(table, ALLOCATIONS).read()


def _amounts(cells: pl.Series, name: str, column: Column, decimal: str) -> pl.DataFrame:
    """Read a column of counts or reals; none of ours may be negative, and a share is at most 1."""
    value = pl.col("value")
    why = pl.when(value < 0).then(pl.lit(f"{name} is negative"))
    if column.dtype == pl.Int64:
        why = why.when(value != value.floor()).then(pl.lit(f"{name} is not a whole number"))
    if name == "share":
        why = pl.when(~value.is_between(0, 1)).then(pl.lit("share lies outside 0 to 1"))
    read = read_reals(cells, what=name, decimal=decimal)
    checked = read.with_columns(why=pl.coalesce("why", why))
    return checked.with_columns(pl.when(pl.col("why").is_null()).then(value).cast(column.dtype))


def _booleans(cells: pl.Series, name: str) -> pl.DataFrame:
    text = cells.cast(pl.String).str.to_lowercase().to_frame("text")
    known = pl.when(pl.col("text").is_in(TRUE)).then(True).when(pl.col("text").is_in(FALSE)).then(False)
    bad = pl.when(pl.col("value").is_null()).then(pl.lit(f"{name} is neither true nor false"))
    return text.select(value=known).with_columns(why=bad)


def _after_start(rows: pl.DataFrame, later_ms: pl.Series) -> pl.Expr:
    """Return end_ms, moved to the second of two equal clock times where the first lies before the start."""
    return pl.when((pl.col("end_ms") < pl.col("start_ms")) & later_ms.is_not_null()).then(later_ms).otherwise("end_ms").alias("end_ms")


def _end_before_start(rows: pl.DataFrame) -> pl.Series:
    early = pl.col("end_ms") < pl.col("start_ms")
    return rows.select(why=pl.when(early).then(pl.lit("end lies before start")))["why"]
