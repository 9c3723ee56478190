"""The source: one file on disk, read as its layout says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from wattkeeper.config import CsvConfig
from wattkeeper.core.roles import Intake
from wattkeeper.integrations.csvfile.assets import read_assets
from wattkeeper.integrations.csvfile.jobs import read_allocations, read_jobs
from wattkeeper.integrations.csvfile.link import open_sheet
from wattkeeper.integrations.csvfile.meter import Readings
from wattkeeper.integrations.csvfile.signal import Signals
from wattkeeper.integrations.csvfile.table import Table

READERS: dict[str, Callable[[Table], Iterator[Intake]]] = {
    "readings": lambda table: Readings(table).read(),
    "jobs": read_jobs,
    "allocations": read_allocations,
    "signals": lambda table: Signals(table).read(),
    "assets": read_assets,
}


class CsvSource:
    """A CSV file (gzipped or not) or a Parquet file of readings, jobs, allocations, signals or assets.

    name: what the layout is called; it is the source of the meters that the file declares. declared: the asset of each
    meter that the site file has, which a layout without an asset leaves to it.
    """

    def __init__(self, path: Path, layout: CsvConfig, name: str, declared: Mapping[str, str] | None = None) -> None:
        self._path, self._layout, self._name = path, layout, name
        self._declared = declared or {}

    def read(self) -> Iterator[Intake]:
        """Yield the good rows in batches of bounded size, with the bad ones as rejects.

        Raises ImportFileError for what is wrong with the file as a whole; batches before a break in it stay good.
        """
        sheet = open_sheet(self._path)
        yield from READERS[self._layout.kind](Table(self._path, self._layout, self._name, sheet, self._declared))
