"""Helpers: write a file, read it with a layout, and look at what came in."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pytest

from wattkeeper.config import CsvConfig
from wattkeeper.core.roles import Intake
from wattkeeper.integrations.csvfile import CsvSource


@dataclass
class Imported:
    """All batches of one import, put together."""

    batches: list[Intake]

    def table(self, name):
        return pl.concat([getattr(batch, name) for batch in self.batches])

    def all(self, name):
        return [one for batch in self.batches for one in getattr(batch, name)]

    @property
    def readings(self):
        return self.table("readings").rows()

    @property
    def refused(self):
        """(row, reason) of every reject, by row."""
        return sorted((reject.row, reject.reason) for reject in self.all("rejects"))


@pytest.fixture
def load(tmp_path):
    """Import a text (or bytes) as a file with the layout given in keywords."""

    def load(content, name="file.csv", **layout):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return Imported(list(CsvSource(path, CsvConfig(**layout), "test").read()))

    return load


@pytest.fixture
def load_frame(tmp_path):
    """Import a frame, written as Parquet, with the layout given in keywords."""

    def load_frame(frame, **layout):
        path = tmp_path / "file.parquet"
        frame.write_parquet(path, row_group_size=layout.pop("row_group_size", None))
        return Imported(list(CsvSource(path, CsvConfig(**layout), "test").read()))

    return load_frame
