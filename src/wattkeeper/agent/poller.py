"""One device, read at a fixed rate, whatever it does."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

from wattkeeper.agent.build import Planned
from wattkeeper.core.errors import WattkeeperError
from wattkeeper.core.live import Discovery, Sample

log = logging.getLogger("wattkeeper.agent")

STEADY = 3
"""So many good readings in a row end a fault; one that comes and goes is told once."""

BACKOFF_S = 1.0
"""A device that fails is tried again after this, or after its period if that is longer; twice as long each time [s]."""


class Sink(Protocol):
    """Where readings go."""

    def declare(self, found: Discovery) -> None:
        """Take the assets and meters that a device has."""

    def add(self, samples: Sequence[Sample]) -> None:
        """Take values."""


def fraction(text: str) -> float:
    """Return a number in [0, 1) that is always the same for a text and spreads over many: no two agents in step."""
    return zlib.crc32(text.encode()) / 2**32


class Poller:
    """Reads one device.

    Readings are due at phase + k·period on the monotone clock, so that no delay adds up; what a slow or failing device
    makes it miss is counted and not made up for. missed: readings that did not happen. fault: what is wrong, "" if nothing.
    """

    def __init__(self, planned: Planned, sink: Sink, *, seed: str, backoff_max_s: float, rediscover_s: float) -> None:
        self.device, self.period_s, self.give_up_s = planned.device, planned.period_s, planned.give_up_s
        self.readings, self.missed, self.fault = 0, 0, ""
        self._sink, self._backoff_max_s = sink, max(backoff_max_s, planned.period_s)
        self._part = fraction(f"{seed}/{self.device.name}")
        self._rediscover_s = rediscover_s * (0.9 + 0.2 * self._part)
        self._discovered_s: float | None = None
        self._failures = self._good = 0
        self._doubts: set[str] = set()

    async def run(self) -> None:
        """Read for ever."""
        loop = asyncio.get_running_loop()
        begin_s = due_s = loop.time() + self._part * self.period_s
        while True:
            await asyncio.sleep(max(due_s - loop.time(), 0.0))
            worked = await self.cycle()
            wait_s = 0.0 if worked else self._backoff_s()
            earliest_s = max(loop.time() + wait_s, due_s + self.period_s / 2)
            after = math.ceil((earliest_s - begin_s) / self.period_s - 1e-6)
            self.missed += after - round((due_s - begin_s) / self.period_s) - worked
            due_s = begin_s + after * self.period_s

    async def cycle(self) -> bool:
        """Read once; return whether that worked. Nothing a device does gets out of here but being cancelled."""
        now_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self.give_up_s):
                if self._discovered_s is None or now_s - self._discovered_s >= self._rediscover_s:
                    self._meet(await self.device.discover())
                    self._discovered_s = now_s
                samples = await self.device.sample()
        except WattkeeperError as error:
            return self._failed(str(error))
        except TimeoutError:
            return self._failed(
                f"{self.device.name} did not keep its own time limit: given up after {self.give_up_s:g} s. "
                "Restart it, or raise give_up_s of its table."
            )
        except Exception as error:
            return self._failed(
                f"{self.device.name}: {type(error).__name__}: {error}. This is a fault in its integration; please report it."
            )
        self._sink.add(samples)
        self.readings += len(samples)
        self._worked()
        return True

    def _meet(self, found: Discovery) -> None:
        self._sink.declare(found)
        for doubt in found.doubts:
            if doubt not in self._doubts:
                self._doubts.add(doubt)
                log.warning("%s", doubt)

    def _worked(self) -> None:
        self._failures, self._good = 0, self._good + 1
        if self.fault and self._good >= STEADY:
            log.info("%s is read again; %d readings were missed since the start.", self.device.name, self.missed)
            self.fault = ""

    def _failed(self, fault: str) -> bool:
        if not self.fault:
            log.warning("%s", fault)
        self.fault, self._good, self._discovered_s = fault, 0, None
        self._failures += 1
        return False

    def _backoff_s(self) -> float:
        """Return how long to wait: twice as long after each failure, spread so that not all come back at once."""
        full_s = max(BACKOFF_S, self.period_s) * 2.0 ** min(self._failures - 1, 30)
        return min(full_s, self._backoff_max_s) * (0.75 + 0.25 * fraction(f"{self._part}{self._failures}"))


class WallClock:
    """Notices when the wall clock is set: stamps come from it, the schedule does not."""

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        monotone: Callable[[], float] = time.monotonic,
        limit_s: float = 2.0,
    ) -> None:
        self._wall, self._monotone, self._limit_s = wall, monotone, limit_s
        self._offset_s = wall() - monotone()
        self.jumps = 0

    def check(self) -> float:
        """Return by how much the clock was set since the last look [s], 0 where it was not; tell it once."""
        offset_s = self._wall() - self._monotone()
        jump_s, self._offset_s = offset_s - self._offset_s, offset_s
        if abs(jump_s) <= self._limit_s:
            return 0.0
        self.jumps += 1
        if jump_s > 0:
            told = "forward by %.1f s, or the machine slept. Readings carry the new time."
        else:
            told = "back by %.1f s. Readings are left out until it has passed the last one's time."
        log.warning(f"The clock of this machine was set {told} Is NTP running?", abs(jump_s))
        return jump_s
