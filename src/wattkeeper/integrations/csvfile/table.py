"""A table: an open file seen through a layout, which knows where our columns stand in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from wattkeeper.config import CsvConfig
from wattkeeper.core.errors import ImportFileError
from wattkeeper.core.roles import Reject
from wattkeeper.integrations.csvfile.layouts import BUILTIN
from wattkeeper.integrations.csvfile.link import Batch, Sheet
from wattkeeper.integrations.csvfile.times import read_times

TIMES = ("time", "start", "end", "submit")
"""Our names of columns that hold instants; a file may also call them time_ms and so on."""


@dataclass(frozen=True, slots=True)
class Table:
    """One file on its way in. name: of the layout, for the sentences that send the user to the site file. declared: the
    asset of each meter that the site file has."""

    path: Path
    layout: CsvConfig
    name: str
    sheet: Sheet
    declared: Mapping[str, str] = field(default_factory=dict)

    def find(self, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, int]:
        """Return where our columns stand in the file; optional ones are left out where it has none.

        Raises ImportFileError for a column that is missing, occurs twice, or is none of ours.
        """
        ours = [*required, *optional]
        if strange := [key for key in self.layout.columns if key not in ours]:
            raise self.fault(f"maps '{strange[0]}', but {self.layout.kind} have only {', '.join(ours)}")
        found = {one: self._place_of(one) for one in ours}
        if missing := [one for one in required if found[one] is None]:
            raise self.lacks(missing[0], f'columns = {{ {missing[0]} = "<one of them>" }}')
        return {one: place for one, place in found.items() if place is not None}

    def place(self, header: str) -> int:
        """Return where a header stands. Raises ImportFileError where it is missing or occurs twice."""
        if not header or header not in self.sheet.columns:
            alike = [c for c in self.sheet.columns if _bracketed(c) == _bracketed(header)]
            near = get_close_matches(header, alike, 1) or ["<one of them>"]
            raise self.lacks(header, f'"{near[0]}" in its place')
        if self.sheet.columns.count(header) > 1:
            raise ImportFileError(f"{self.path} has the column '{header}' twice. Rename one of them in the file.")
        return self.sheet.columns.index(header)

    def batches(self, wanted: Mapping[str, int]) -> Iterator[Batch]:
        """Yield all rows of the file; see Sheet."""
        return self.sheet.batches(wanted)

    def times(self, cells: pl.Series, ours: str, place: int) -> pl.DataFrame:
        """Return the instants of one of our columns as the layout says; see read_times."""
        in_ms = "ms" if self.sheet.columns[place].endswith("_ms") else ""
        layout = self.layout
        return read_times(
            cells,
            what=ours,
            layout=layout.time_format or in_ms,
            timezone=layout.timezone,
            shift_ms=layout.shift_ms,
        )

    def rejects(self, cells: pl.DataFrame, why: pl.Series) -> list[Reject]:
        """Return one reject for each row that has a reason; its text is the cells we looked at."""
        bad = cells.filter(why.is_not_null())
        if bad.is_empty():
            return []
        shown = pl.concat_str(pl.exclude("row").cast(pl.String).fill_null(""), separator=", ")
        rows = zip(bad["row"], why.drop_nulls(), bad.select(text=shown)["text"], strict=True)
        return [Reject(str(self.path), row, reason, text) for row, reason, text in rows]

    def lacks(self, column: str, cure: str) -> ImportFileError:
        """Return the fault of a missing column: what the file has and what to write."""
        has = ", ".join(self.sheet.columns)
        fits = [n for n, one in BUILTIN.items() if one.columns and {*one.columns.values()} <= {*self.sheet.columns}]
        if fits and self.layout is BUILTIN.get(self.name):
            return ImportFileError(f"{self.path} has no column '{column}'. Its columns are those of --as {fits[0]}.")
        where = f"under [csv.{self.name}] in the site file"
        return ImportFileError(f"{self.path} has no column '{column}'. It has: {has}. Write {cure} {where}.")

    def fault(self, what: str) -> ImportFileError:
        """Return the fault of a layout that cannot be used."""
        return ImportFileError(f"Layout '{self.name}' {what}. Correct [csv.{self.name}] in the site file.")

    def _place_of(self, ours: str) -> int | None:
        if ours in self.layout.columns:
            return self.place(self.layout.columns[ours])
        for header in (ours, f"{ours}_ms") if ours in TIMES else (ours,):
            if header in self.sheet.columns:
                return self.place(header)
        return None


def _bracketed(header: str) -> list[str]:
    """Return what stands in brackets: (LCA) and (direct) behind the same words are two quantities."""
    return re.findall(r"\((.*?)\)", header.casefold())
