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
from wattkeeper.integrations.csvfile.reasons import first, where_sound, why
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
        read = {n: self._column(batch.cells[n], n, c, wanted[n]) for n, c in names.items()}
        rows = pl.DataFrame({names[n].name: frame["value"] for n, frame in read.items()})
        if "end" in read:
            rows = rows.with_columns(end_after(rows["start_ms"], rows["end_ms"], read["end"]["later_ms"]))
        absent = [c for c in self.spec.columns if c.name not in rows.columns]
        rows = rows.with_columns(pl.lit(DEFAULTS.get(c.name), c.dtype).alias(c.name) for c in absent)
        backwards = rows.select(why([(pl.col("end_ms") < pl.col("start_ms"), "end lies before start")]))["why"]
        reason = first(*(frame["why"] for frame in read.values()), backwards)
        intake = Intake(self.table.name, rejects=[*batch.rejects, *self.table.rejects(batch.cells, reason)])
        setattr(intake, self.spec.name, rows.filter(reason.is_null()).select(self.spec.schema.names()))
        return intake

    def _column(self, cells: pl.Series, name: str, column: Column, place: int) -> pl.DataFrame:
        """Return value, later_ms for times, and why; an empty cell is null where the table allows it."""
        if column.name.endswith("_ms"):
            read = self.table.times(cells, name, place).rename({"time_ms": "value"})
        elif column.dtype == pl.Boolean:
            read = _booleans(cells, name)
        elif column.dtype == pl.String:
            text = cells.cast(pl.String)
            if column.name == "state":  # as Slurm says it: CANCELLED by 1000
                text = text.str.to_uppercase().str.extract(r"^([A-Z_]+)").fill_null(text)
            read = pl.select(value=text, why=pl.lit(None, pl.String))
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


def end_after(start_ms: pl.Series, end_ms: pl.Series, later_ms: pl.Series) -> pl.Series:
    """Return ends, moved to the second of two equal clock times where the first lies before the start."""
    late = (end_ms < start_ms) & later_ms.is_not_null()
    return pl.select(end_ms=pl.when(late).then(later_ms).otherwise(end_ms))["end_ms"]


def _amounts(cells: pl.Series, name: str, column: Column, decimal: str) -> pl.DataFrame:
    """Read a column of counts or reals; none of ours may be negative, and a share is at most 1."""
    value = pl.col("value")
    broken = value != value.floor() if column.dtype == pl.Int64 else pl.lit(value=False)
    read = where_sound(
        read_reals(cells, what=name, decimal=decimal),
        (~value.is_between(0, 1) if name == "share" else pl.lit(value=False), f"{name} lies outside 0 to 1"),
        (value < 0, f"{name} is negative"),
        (broken, f"{name} is not a whole number"),
    )
    return read.with_columns(value.cast(column.dtype))


def _booleans(cells: pl.Series, name: str) -> pl.DataFrame:
    text = cells.cast(pl.String).str.to_lowercase()
    known = pl.when(text.is_in(TRUE)).then(pl.lit(value=True)).when(text.is_in(FALSE)).then(pl.lit(value=False))
    return pl.select(value=known).with_columns(why([(pl.col("value").is_null(), f"{name} is neither true nor false")]))
