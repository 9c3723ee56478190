"""Files: CSV, gzipped CSV and Parquet as batches of raw cells that know their row numbers."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from wattkeeper.core.errors import EmptyTableError, ImportFileError
from wattkeeper.core.roles import Reject

BLOCK_BYTES = 8 << 20
LONGEST_LINE_BYTES = 64 << 20
PARQUET_ROWS = 1 << 18
SEPARATORS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file. cells: column "row" (file row number) and the wanted columns, null where empty."""

    cells: pl.DataFrame
    rejects: list[Reject]


class Sheet(Protocol):
    """A file that is open for reading. columns: its headers, stripped, in order."""

    columns: list[str]

    def batches(self, wanted: Mapping[str, int]) -> Iterator[Batch]:
        """Yield all rows, a bounded number at a time. wanted: name in the batch → position in the file.

        Raises EmptyTableError where there are none.
        """
        ...


def open_sheet(path: Path) -> Sheet:
    """Open a file by its first bytes, whatever its name. Raises ImportFileError when it is none of ours."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise ImportFileError(f"Cannot read {path}: {error.strerror}.") from error
    if not start:
        raise ImportFileError(f"{path} is empty.")
    return ParquetSheet(path) if start == b"PAR1" else CsvSheet(path, zipped=start[:2] == b"\x1f\x8b")


class ParquetSheet:
    """A Parquet file, read row group by row group. Row 1 is its first row; cells keep their types."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # buffered and without prefetch: a row group may be larger than memory
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        except pa.ArrowInvalid as error:
            raise ImportFileError(f"{path} is not a whole Parquet file: {error}.") from error
        self.columns = [str(name).strip() for name in self._file.schema_arrow.names]

    def batches(self, wanted: Mapping[str, int]) -> Iterator[Batch]:
        """Yield all rows; see Sheet."""
        if not self._file.metadata.num_rows:
            raise EmptyTableError(f"{self._path} has no rows.")
        names = self._file.schema_arrow.names
        for place in wanted.values():
            if pa.types.is_nested(kind := self._file.schema_arrow.types[place]):
                raise ImportFileError(f"{self._path}: column '{self.columns[place]}' holds {kind}, not single values.")
        columns = sorted({names[place] for place in wanted.values()})
        row = 1
        try:
            for part in self._file.iter_batches(batch_size=PARQUET_ROWS, columns=columns):
                frame = pl.DataFrame(pa.Table.from_batches([part]))
                numbers = pl.int_range(row, row + frame.height, dtype=pl.Int64, eager=True).alias("row")
                yield Batch(frame.select(numbers, *(_cells(frame[names[i]]).alias(w) for w, i in wanted.items())), [])
                row += frame.height
        except (pa.ArrowException, OSError) as error:
            raise ImportFileError(f"{self._path} cannot be read after row {row - 1}: {error}.") from error


class CsvSheet:
    """A CSV file with a header, gzipped or not. Row numbers are line numbers; the header is usually line 1.

    The separator is the one of comma, semicolon, tab and bar that the header has most, or the one that a line sep=; before
    the header names, as Excel writes it. A row is one line: a quoted
    cell cannot hold a line end, so a quote that is never closed costs one row and not the rest of the file.
    """

    def __init__(self, path: Path, *, zipped: bool = False) -> None:
        self._path, self._zipped, named = path, zipped, ""
        for first, lines in self._blocks():
            for number, line in enumerate(lines, first):
                if line.strip()[:4].lower() == "sep=" and line.strip()[4:].strip() in SEPARATORS[:2]:
                    named = line.strip()[4:].strip()
                elif line.strip():
                    self._header_row = number
                    self._separator = named or max(SEPARATORS, key=line.count)
                    if "\0" in line:
                        raise ImportFileError(f"{path} is not UTF-8 text. Save it as CSV in UTF-8.")
                    cells = _fields(line, self._separator)
                    self.columns = [cell.strip() for cell in ([line] if isinstance(cells, str) else cells)]
                    return
        raise ImportFileError(f"{path} is empty.")

    def batches(self, wanted: Mapping[str, int]) -> Iterator[Batch]:
        """Yield all rows; see Sheet. Lines with another number of cells than the header are rejected."""
        rows = 0
        for first, lines in self._blocks():
            table = pl.DataFrame({"line": lines}, schema={"line": pl.String}).with_row_index("row", first)
            table = table.with_columns(pl.col("row").cast(pl.Int64), pl.col("line").str.strip_chars_end("\r"))
            table = table.filter((pl.col("row") > self._header_row) & (pl.col("line").str.strip_chars() != ""))
            rows += table.height
            if table.height:
                yield self._split(table, wanted)
        if not rows:
            raise EmptyTableError(f"{self._path} has a header and no rows.")

    def _split(self, table: pl.DataFrame, wanted: Mapping[str, int]) -> Batch:
        line, width = pl.col("line"), len(self.columns)
        odd = line.str.contains_any(['"', "\ufffd", "\0"])
        found = line.str.count_matches(self._separator, literal=True) + 1
        plain = table.filter(~odd & (found == width))
        parts = plain["line"].str.split_exact(self._separator, width - 1).struct.unnest()
        cells = parts.select(pl.nth(place).alias(name) for name, place in wanted.items())
        quoted, rejects = self._split_slowly(table.filter(odd | (found != width)), wanted)
        whole = pl.concat([cells.insert_column(0, plain["row"]), quoted]).sort("row")
        stripped = pl.col(list(wanted)).str.strip_chars()
        return Batch(whole.with_columns(pl.when(stripped != "").then(stripped)), rejects)

    def _split_slowly(self, table: pl.DataFrame, wanted: Mapping[str, int]) -> tuple[pl.DataFrame, list[Reject]]:
        """Return the cells of lines that need a closer look, and those that cannot be understood."""
        good, rejects = [], []
        for number, line in table.iter_rows():
            fields = _fields(line, self._separator)
            if "\ufffd" in line or "\0" in line:
                rejects.append(self._reject(number, "not UTF-8 text", line))
            elif isinstance(fields, str):
                rejects.append(self._reject(number, fields, line))
            elif len(fields) != len(self.columns):
                why = f"{len(fields)} cells where the header has {len(self.columns)}"
                rejects.append(self._reject(number, why, line))
            else:
                good.append((number, *(fields[place] for place in wanted.values())))
        schema = {"row": pl.Int64(), **dict.fromkeys(wanted, pl.String())}
        return pl.DataFrame(good, schema=schema, orient="row"), rejects

    def _reject(self, row: int, reason: str, line: str) -> Reject:
        return Reject(str(self._path), row, reason, line)

    def _blocks(self) -> Iterator[tuple[int, list[str]]]:
        """Yield whole lines, about BLOCK_BYTES at a time, with the number of the first."""
        number, rest = 1, b""
        try:
            with (gzip.open if self._zipped else open)(self._path, "rb") as stream:
                while chunk := stream.read(BLOCK_BYTES):
                    body, newline, rest = (rest + chunk).rpartition(b"\n")
                    if newline:
                        lines = self._text(body, number).split("\n")
                        yield number, lines
                        number += len(lines)
                    if len(rest) > LONGEST_LINE_BYTES:
                        raise ImportFileError(
                            f"{self._path} has a line of over 64 MiB at row {number}: not a CSV file."
                        )
        except (EOFError, OSError, zlib.error) as error:
            raise ImportFileError(f"{self._path} cannot be read after row {number - 1}: {error}.") from error
        if rest:
            yield number, [self._text(rest, number)]

    def _text(self, body: bytes, number: int) -> str:
        if number == 1:
            body = body.removeprefix(b"\xef\xbb\xbf")
        return body.decode("utf-8", "replace")


def _fields(line: str, separator: str) -> list[str] | str:
    """Return the cells of one line, or why they cannot be told apart."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        limit = csv.field_size_limit()
        return (
            f"a cell is longer than {limit:,} characters" if len(line) > limit else "a quote is not closed on its line"
        )


def _cells(column: pl.Series) -> pl.Series:
    """Return a Parquet column: numbers and times as they are, the rest as it would come from a CSV file."""
    if column.dtype.is_numeric() or column.dtype.is_temporal():
        return column
    text = column.cast(pl.String, strict=False).str.strip_chars()
    return text.set(text == "", None)
