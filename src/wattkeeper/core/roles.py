"""What an integration can be: a source of readings, of jobs or of signals. `core/live.py` has what is read live.

An integration turns what it talks to into an `Intake`: tables in the schemas of `core/schema.py`, the assets and
meters it met, and the rows it had to refuse. Nothing here knows where a book is or how it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.live import Loss
from wattkeeper.core.schema import ALLOCATIONS, JOBS, READINGS, SIGNALS


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not imported: where it stands, what it said, and why it was refused.

    row: 1-based line or row number in the file, header included; 0 where there is none.
    """

    source: str
    row: int
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A job that holds GPUs of a scheduler.

    gpus: None where its count cannot be read. where: its nodes, or its site. end_ms: when its time limit ends, None where
    it has none. odd: what of it cannot be read, "" where all can.
    """

    job_id: str
    gpus: float | None
    where: list[str]
    end_ms: int | None
    odd: str = ""


@dataclass(frozen=True, slots=True)
class SignalInfo:
    """Where a signal's values come from: these words travel with every number made from it.

    kind: intensity, price, water or pue. unit: g/kWh, EUR/kWh, L/kWh or ratio.
    method: for intensity "average" or "marginal", and "lifecycle" or "direct".
    note: what the user should know, such as a shift in time.
    """

    id: str
    kind: str
    unit: str
    provider: str
    version: str = ""
    method: str = ""
    note: str = ""


@dataclass(slots=True)
class Intake:
    """One batch on its way into a book. The meters of `readings` may be text, or an Enum in the order of their names.

    replaces: (signal, start_ms, end_ms): rows of the signal that start there give way to those of the batch, so that a
    value that its publisher revised is not kept twice. losses: readings that were taken and are nowhere.
    """

    source: str
    assets: list[Asset] = field(default_factory=list)
    meters: list[Meter] = field(default_factory=list)
    readings: pl.DataFrame = field(default_factory=READINGS.empty)
    jobs: pl.DataFrame = field(default_factory=JOBS.empty)
    allocations: pl.DataFrame = field(default_factory=ALLOCATIONS.empty)
    signals: pl.DataFrame = field(default_factory=SIGNALS.empty)
    signal_infos: list[SignalInfo] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    replaces: list[tuple[str, int, int]] = field(default_factory=list)


class Source(Protocol):
    """Anything that can be imported: it yields batches of bounded size, in any order."""

    def read(self) -> Iterator[Intake]:
        """Yield what there is. Raises SourceError or ImportFileError when nothing more can be had."""
        ...
