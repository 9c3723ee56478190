"""What is read live: a device that an agent discovers and samples. Imports little, so that an agent stays small."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from wattkeeper.core.assets import Asset, Meter


class Sample(NamedTuple):
    """One value read live: which meter, when it was true [ms UTC], and the value in the unit of the meter's quantity.

    mJ for energy_counter and energy_interval, mW for power, ppm for utilisation. What a device did not tell, or told
    with a value that means "none", is no sample at all: never 0.
    """

    meter: str
    time_ms: int
    value: int


class Loss(NamedTuple):
    """Readings of one meter that an agent took and a book will not have: so many, between two instants [ms UTC].

    An energy counter read before and after keeps its energy over them; of power and utilisation the book has means.
    """

    meter: str
    start_ms: int
    end_ms: int
    readings: int

    def joined(self, other: Loss) -> Loss:
        """Return this and another loss of the same meter as one."""
        start_ms, end_ms = min(self.start_ms, other.start_ms), max(self.end_ms, other.end_ms)
        return Loss(self.meter, start_ms, end_ms, self.readings + other.readings)


@dataclass(slots=True)
class Discovery:
    """What a device turned out to have.

    doubts: sentences about what looks wrong and how to put it right, one each; they are what `doctor` prints.
    """

    assets: list[Asset] = field(default_factory=list)
    meters: list[Meter] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


class Device(Protocol):
    """Something that is read live, over a bus or a network: a GPU driver, a BMC, a PDU, a meter.

    Each call ends by itself within the device's own time-out and raises SourceError, naming the device and what to do,
    where nothing could be had. A device that tells a part yields that part.
    """

    name: str

    async def discover(self) -> Discovery:
        """Return the assets and meters it has. Ids are the same at each call and after a restart."""
        ...

    async def sample(self) -> list[Sample]:
        """Return one value of each meter that could be read; discovers first where that has not been done."""
        ...

    async def close(self) -> None:
        """Let go of connections and handles. A device that was never used, or is closed already, does nothing."""
        ...
