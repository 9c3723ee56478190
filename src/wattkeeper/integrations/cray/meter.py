"""pm_counters as meters.

Each file holds a number, its unit and the microsecond at which it was true: `4709337659 J 1784929200280410 us`. The node
controller writes all of them about ten times a second (`raw_scan_hz`) and then raises `freshness`: readings between
two equal values of it belong together. `startup` changes when the controller starts, and the joules with it;
`generation` when a power cap is set.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from wattkeeper.core.assets import Asset, Meter, natural
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.core.sysfs import text, this_node
from wattkeeper.core.worker import Worker
from wattkeeper.integrations.cray.link import Config

_T = TypeVar("_T")

RANK = 25
TRIES = 3

EPOCH_MS = 946_684_800_000
"""2000-01-01: a stamp before it is from a clock that was never set."""

_FILE = re.compile(r"(?:(accel|cpu|memory)(\d*)_)?(energy|power)$")
_VALUE = re.compile(r"(\d{1,15})\s+(J|W)(?:\s+(\d{1,18})\s+us)?$")

_ASSETS = {"accel": "gpu", "cpu": "cpu", "memory": "dram"}
_UNITS = {"energy": ("energy_counter", "J"), "power": ("power", "W")}


def devices(config: Config) -> list[Device]:
    """Return the device that a table names."""
    return [CrayDevice(config)]


class _State(NamedTuple):
    """What tells whether the counters live: all of None where a kernel does not show it."""

    freshness: str | None
    startup: str | None


class CrayDevice:
    """The pm_counters of this node. clock: seconds since 1970."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._node = config.node or this_node()
        self._files: dict[Path, Meter] = {}
        self._seen: tuple[str | None, float] = ("", 0.0)
        self.name = f"cray {self._node}"
        self._worker = Worker(self.name)

    async def discover(self) -> Discovery:
        """Return the node and its parts with their counters. Raises SourceError where there are none."""
        return await self._in_time(self._discover)

    async def sample(self) -> list[Sample]:
        """Return the counters of one scan of the controller. Raises SourceError where they are gone or have stopped."""
        return await self._in_time(self._sample)

    async def close(self) -> None:
        """Let the thread end: no file stays open."""
        self._worker.close()

    async def _in_time(self, work: Callable[[], _T]) -> _T:
        try:
            return await self._worker.run(work, self._config.timeout_s)
        except TimeoutError as error:
            raise SourceError(
                f"{self.name}: {self._config.path} did not answer within {self._config.timeout_s:g} s. "
                "Is the node controller busy? See its log."
            ) from error

    def _discover(self) -> Discovery:
        files = _files(self._config.path, self._node)
        if not files:
            raise SourceError(
                f"{self.name}: {self._config.path} has no counters. Only HPE Cray EX and XC nodes have them."
            )
        self._files = files
        found = Discovery(meters=list(files.values()))
        found.assets.append(Asset(self._node, "node", self._config.parent))
        for asset in dict.fromkeys(meter.asset for meter in files.values()):
            if asset != self._node:
                kind = asset.rpartition("/")[2].rstrip("0123456789")
                found.assets.append(Asset(asset, kind, self._node))
        if self._state().freshness is None:
            found.doubts.append(f"{self._config.path}/freshness is missing: counters that stop cannot be told.")
        return found

    def _sample(self) -> list[Sample]:
        if not self._files:
            self._discover()
        state, samples = self._state(), list[Sample]()
        for _ in range(TRIES):
            before = state
            samples = self._read()
            state = self._state()
            if state == before:
                break  # else the controller wrote in between, and the numbers are of two scans
        if not samples:
            self._files = {}
            raise SourceError(
                f"{self.name}: {self._config.path} can no longer be read. Is the node controller's driver loaded?"
            )
        self._check(state)
        return samples

    def _state(self) -> _State:
        return _State(text(self._config.path / "freshness"), text(self._config.path / "startup"))

    def _check(self, state: _State) -> None:
        now_s = self._clock()
        if state.freshness is None or state.freshness != self._seen[0]:
            self._seen = (state.freshness, now_s)
            return
        silent_s = now_s - self._seen[1]
        if silent_s > self._config.stale_s:
            raise SourceError(
                f"{self.name}: {self._config.path} has not been updated for {silent_s:.0f} s. "
                "The node controller has stopped counting; see its log."
            )

    def _read(self) -> list[Sample]:
        samples = []
        for file, meter in self._files.items():
            match = _VALUE.match(text(file) or "")
            if match is None or (meter.quantity == "energy_counter" and int(match[1]) == 0):
                continue
            when_ms = int(match[3] or 0) // 1000
            stamp_ms = when_ms if when_ms >= EPOCH_MS else round(self._clock() * 1000)
            samples.append(Sample(meter.id, stamp_ms, int(match[1]) * 1000))
        return samples


def _files(root: Path, node: str) -> dict[Path, Meter]:
    """Return the files that can be read, with their meters, the node's own first.

    Where single CPUs are counted, `cpu` and `memory` without a number are their sums, and left.
    """
    named = {}
    for file in sorted(root.glob("*"), key=lambda f: (f.name not in ("energy", "power"), natural(f.name))):
        match = _FILE.match(file.name)
        if match and _VALUE.match(text(file) or ""):
            named[file] = match
    single = {match[1] for match in named.values() if match[2]}
    files = {}
    for file, match in named.items():
        part, number, what = match.groups()
        if part and not number and part in single:
            continue
        quantity, unit = _UNITS[what]
        if f" {unit}" not in (text(file) or ""):
            continue
        asset = f"{node}/{_ASSETS[part]}{number or 0}" if part else node
        files[file] = Meter(f"{asset}:{part or 'node'}{number or ''}:cray:{quantity}", asset, quantity, "cray", RANK)
    return files
