"""Small tables of inputs, such as limits and requests: all rows at once, and the first that cannot be read ends it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from wattkeeper.core.errors import ImportFileError
from wattkeeper.integrations.csvfile.link import open_sheet
from wattkeeper.integrations.csvfile.numbers import read_reals
from wattkeeper.integrations.csvfile.times import read_times


def read_rows(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    reals: Collection[str] = (),
    times: Collection[str] = (),
) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of a file: number in the file, and cells by column. Other columns of the file are left.

    reals: columns of floats; times: of instants [ms UTC], as UTC where they have no offset; all others are text. An
    empty cell of an optional column is None; an optional column that the file lacks is absent.
    Raises ImportFileError with the column or the row.
    """
    sheet = open_sheet(path)
    if missing := [c for c in required if c not in sheet.columns]:
        may = f"; it may have {', '.join(optional)}" if optional else ""
        raise ImportFileError(f"{path} has no column '{missing[0]}'. It needs {', '.join(required)}{may}.")
    wanted = [c for c in (*required, *optional) if c in sheet.columns]
    if twice := [c for c in wanted if sheet.columns.count(c) > 1]:
        raise ImportFileError(f"{path} has two columns '{twice[0]}'. Leave out one of them.")
    found = []
    # a batch has a column "row" of its own, which counts the rows of the file
    for batch in sheet.batches({f"file {c}": sheet.columns.index(c) for c in wanted}):
        if batch.rejects:
            raise ImportFileError(f"{path} row {batch.rejects[0].row}: {batch.rejects[0].reason}.")
        cells: dict[str, list[Any]] = {}
        for name in wanted:
            column = batch.cells[f"file {name}"]
            if name in times:
                read = read_times(column, what=name, layout="", timezone="UTC")
            elif name in reals:
                read = read_reals(column, what=name)
            else:
                text = column.cast(pl.String)
                read = pl.select(value=text, why=pl.when(text.is_null()).then(pl.lit(f"{name} is missing")))
            cells[name] = read["time_ms" if name in times else "value"].to_list()
            for row, raw, why in zip(batch.cells["row"], column, read["why"], strict=True):
                if why and (raw is not None or name in required):
                    raise ImportFileError(f"{path} row {row}: {why}.")
        for k, row in enumerate(batch.cells["row"]):
            found.append((row, {name: values[k] for name, values in cells.items()}))
    return found
