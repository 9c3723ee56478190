"""Readings: long tables (one row per value) and wide ones (one column per meter)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase

import polars as pl

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.core.schema import READINGS
from wattkeeper.core.units import PPM, UNITS_OF_QUANTITY
from wattkeeper.integrations.csvfile.link import Batch
from wattkeeper.integrations.csvfile.numbers import read_integers
from wattkeeper.integrations.csvfile.reasons import first, where_sound, why
from wattkeeper.integrations.csvfile.table import Table
from wattkeeper.integrations.csvfile.templates import column, fields, filled
from wattkeeper.integrations.csvfile.times import settle

_PARTS = ("meter", "asset", "parent")


@dataclass(slots=True)
class Readings:
    """The readings of one file, with the meters and assets they come from.

    Rows at a local time that occurs twice are held back to the end, when their order in the file is known.
    """

    table: Table
    _known: set[str] = field(default_factory=set)
    _held: list[pl.DataFrame] = field(default_factory=list)
    _first_ms: int | None = None
    _last_ms: int | None = None

    def read(self) -> Iterator[Intake]:
        """Yield all batches. Raises ImportFileError when the file as a whole cannot be used."""
        templates = self._templates()
        wanted = self._wanted(templates)
        for batch in self.table.batches(wanted):
            rows, rejects = self._wide(batch, wanted) if self.table.layout.wide else self._long(batch, wanted)
            yield self._intake(self._without_doubt(_named(rows, templates)), [*batch.rejects, *rejects])
        if self._held:
            rising = self._first_ms is None or self._last_ms is None or self._first_ms <= self._last_ms
            yield self._intake(settle(pl.concat(self._held), "meter", rising=rising), [])

    def _templates(self) -> dict[str, str]:
        """Return how meter, asset and parent are made from fields in braces, each from those before it."""
        layout = self.table.layout
        whole = "{column}" if layout.wide else "{meter}"
        return {
            "meter": layout.meter or whole,
            "asset": layout.asset or whole,
            "parent": layout.parent,
        }

    def _wanted(self, templates: dict[str, str]) -> dict[str, int]:
        """Return the columns to read: ours, those that templates name as "{header}", and with wide one per meter."""
        table, layout = self.table, self.table.layout
        by_column = not layout.wide and not layout.meter
        required = ["time"] if layout.wide else ["time", "value", *(["meter"] if by_column else [])]
        by_unit = layout.quantity and not layout.wide and (not layout.unit or "unit" in layout.columns)
        wanted = table.find(required, ["unit"] if by_unit else [])
        if "meter" in wanted:
            wanted[column("meter")] = wanted.pop("meter")
        for name in fields(*templates.values()):
            made = (name == "meter" and name not in fields(layout.meter)) or (name == "column" and layout.wide)
            if not made:
                wanted[column(name)] = table.place(name)
        if layout.wide:
            wanted.update(self._meter_columns(set(wanted.values())))
        return wanted

    def _meter_columns(self, taken: set[int]) -> dict[str, int]:
        headers, pattern = self.table.sheet.columns, self.table.layout.wide_columns or "*"
        chosen = [h for i, h in enumerate(headers) if i not in taken and h and fnmatchcase(h, pattern)]
        if not chosen:
            raise self.table.lacks(pattern, "wide_columns so that it matches the meters")
        return {f"={header}": self.table.place(header) for header in chosen}

    def _long(self, batch: Batch, wanted: dict[str, int]) -> tuple[pl.DataFrame, list[Reject]]:
        cells = batch.cells
        times = self.table.times(cells["time"], "time", wanted["time"])
        values = self._values(cells)
        reason = first(times["why"], values["why"], _nameless(cells))
        rows = cells.select("row", pl.col(_fields_in(cells)).cast(pl.String))
        rows = rows.with_columns(times["time_ms"], times["later_ms"], values["value"])
        return rows.filter(reason.is_null()), self.table.rejects(cells, reason)

    def _wide(self, batch: Batch, wanted: dict[str, int]) -> tuple[pl.DataFrame, list[Reject]]:
        """Turn columns into rows. An empty cell is no reading and no fault: that meter was not read then."""
        cells = batch.cells
        meters = [name for name in wanted if name.startswith("=")]
        times = self.table.times(cells["time"], "time", wanted["time"])
        asked = _fields_in(cells)
        reason = first(times["why"], _nameless(cells))
        rejects = self.table.rejects(cells.select("row", "time", *asked), reason)
        if len({cells.schema[m] for m in meters}) > 1:
            cells = cells.with_columns(pl.col(meters).cast(pl.String))
        kept = cells.with_columns(times["time_ms"], times["later_ms"]).filter(reason.is_null())
        index = ["row", "time_ms", "later_ms", *asked]
        rows = kept.unpivot(meters, index=index, variable_name="{column}", value_name="value")
        rows = rows.filter(pl.col("value").is_not_null()).with_columns(pl.col("{column}").str.slice(1))
        values = self._values(rows)
        reason = pl.select(why=rows["{column}"] + ": " + values["why"])["why"]
        rejects += self.table.rejects(rows.select("row", "value"), reason)
        return rows.with_columns(values["value"]).filter(values["why"].is_null()), rejects

    def _values(self, cells: pl.DataFrame) -> pl.DataFrame:
        """Return value [mJ, mW or ppm] and why of a column "value", with the unit of each row where there is one."""
        layout = self.table.layout
        sizes = UNITS_OF_QUANTITY.get(layout.quantity, {"": 1.0})
        if "unit" not in cells.columns:
            return self._integers(cells["value"], sizes[layout.unit])
        units = cells["unit"].fill_null(layout.unit)
        known = f"unit is not one of {', '.join(sizes)}"
        result = pl.select(value=pl.lit(None, pl.Int64), why=pl.repeat(known, cells.height))
        for unit in set(units) & set(sizes):
            here = units == unit
            read = self._integers(cells["value"], sizes[unit])
            result = result.select(pl.when(here).then(read[name]).otherwise(name).alias(name) for name in read.columns)
        return result

    def _integers(self, cells: pl.Series, size: float) -> pl.DataFrame:
        layout = self.table.layout
        factor = Decimal(repr(layout.scale)) * Decimal(repr(size))
        values = read_integers(cells, what="value", factor=factor, decimal=layout.decimal)
        if layout.quantity != "utilisation":
            return values
        return where_sound(values, (pl.col("value") > PPM, "value is a utilisation above 100 %"))

    def _without_doubt(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows whose instant is known and hold back the others."""
        if rows.height:
            in_order = rows.sort("row")["time_ms"]
            self._first_ms = in_order[0] if self._first_ms is None else self._first_ms
            self._last_ms = in_order[-1]
        doubtful = rows["later_ms"].is_not_null()
        if doubtful.any():
            self._held.append(rows.filter(doubtful))
        return rows.filter(~doubtful)

    def _intake(self, rows: pl.DataFrame, rejects: list[Reject]) -> Intake:
        intake = Intake(source=self.table.name, rejects=rejects, readings=rows.select(READINGS.schema.names()))
        for meter, asset, parent in rows.select(_PARTS).unique("meter", maintain_order=True).iter_rows():
            if meter not in self._known:
                self._known.add(meter)
                self._declare(intake, meter, asset, parent)
        return intake

    def _declare(self, intake: Intake, meter: str, asset: str, parent: str) -> None:
        """Add a meter, and its asset where the layout says what that stands in."""
        layout = self.table.layout
        if not layout.quantity:
            return
        if not layout.asset and meter in self.table.declared:
            asset = self.table.declared[meter]
        elif parent:
            intake.assets.append(Asset(asset, layout.asset_kind, parent))
        intake.meters.append(
            Meter(
                meter,
                asset,
                layout.quantity,
                source=self.table.name,
                accuracy_pct=layout.accuracy_pct,
                interval_ms=layout.interval_ms,
                max_gap_ms=layout.max_gap_ms,
            )
        )


def _fields_in(cells: pl.DataFrame) -> list[str]:
    """Return the columns that templates ask for."""
    return [name for name in cells.columns if name.startswith("{")]


def _nameless(cells: pl.DataFrame) -> pl.Series:
    """Return the reason of rows that leave a column of a template empty."""
    faults = ((pl.col(name).is_null(), f"{name[1:-1]} is missing") for name in _fields_in(cells))
    return cells.select(pl.repeat(None, pl.len(), dtype=pl.String).alias("none"), why(faults))["why"]


def _named(rows: pl.DataFrame, templates: dict[str, str]) -> pl.DataFrame:
    """Add the columns meter, asset and parent."""
    rows = rows.with_columns(filled(templates["meter"]).alias("meter"))
    rows = rows.with_columns(pl.col("meter").alias(column("meter")))
    return rows.with_columns(filled(templates[part]).alias(part) for part in ("asset", "parent"))
