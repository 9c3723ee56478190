"""Time for tests: a loop in which nothing takes any time but what is slept, and devices that do as they are told."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from wattkeeper.agent.build import Planned
from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Discovery, Sample


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still while anything runs and leaps to the next thing that is due."""

    def __init__(self) -> None:
        super().__init__(_Leaping(self))
        self.now_s = 1000.0

    def time(self) -> float:
        return self.now_s


class _Leaping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self._loop.now_s += timeout
        return ready


def virtually(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


async def run_for(seconds: float, *work: Coroutine[Any, Any, Any]) -> None:
    """Let work go on for so long, then end it."""
    tasks = [asyncio.create_task(one) for one in work]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class FakeDevice:
    """A device with one meter. does: what each call to sample does in turn, then the last of it for ever: a number of
    seconds that it takes, or the fault that it raises. asked_s: when it was asked.
    """

    def __init__(self, name: str, does: list[float | Exception] | None = None) -> None:
        self.name, self.does = name, does or [0.0]
        self.asked_s: list[float] = []
        self.discoveries = 0
        self.doubts: list[str] = []

    async def discover(self) -> Discovery:
        self.discoveries += 1
        meter = Meter(f"{self.name}:energy_counter", self.name, "energy_counter", "fake", 10)
        return Discovery([Asset(self.name, "device", "n01")], [meter], list(self.doubts))

    async def sample(self) -> list[Sample]:
        now_s = asyncio.get_running_loop().time()
        self.asked_s.append(now_s)
        what = self.does[min(len(self.asked_s), len(self.does)) - 1]
        if isinstance(what, Exception):
            raise what
        await asyncio.sleep(what)
        return [Sample(f"{self.name}:energy_counter", round(now_s * 1000), len(self.asked_s))]

    async def close(self) -> None:
        pass


class FakeSink:
    """Takes what a poller gives."""

    def __init__(self) -> None:
        self.found: list[Discovery] = []
        self.samples: list[Sample] = []

    def declare(self, found: Discovery) -> None:
        self.found.append(found)

    def add(self, samples: list[Sample]) -> None:
        self.samples += samples


def planned(device: Any, period_s: float = 1.0, give_up_s: float = 300.0) -> Planned:
    """Return a device with its period."""
    return Planned("fake", device, period_s, give_up_s)


AWAY = SourceError("bmc n01 did not answer. Check address and network.")
