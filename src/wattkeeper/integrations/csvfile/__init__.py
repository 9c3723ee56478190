"""CSV, gzipped CSV and Parquet files of readings, jobs, allocations, signals and assets."""

from wattkeeper.integrations.csvfile.layouts import BUILTIN, find_layout
from wattkeeper.integrations.csvfile.source import CsvSource

__all__ = ["BUILTIN", "CsvSource", "find_layout"]
