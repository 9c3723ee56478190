"""RAPL zones as meters.

Linux shows one folder per zone, `intel-rapl:0`, `intel-rapl:0:0` (Documentation/power/powercap), also on AMD. `name` is
package-0, package-0-die-1, dram, core, uncore or psys; `energy_uj` counts microjoules and starts again at
`max_energy_range_uj`. psys contains the packages, a package its cores; the MMIO zones are the same counters again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wattkeeper.core.assets import Asset, Meter, natural
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.core.sysfs import DeniedError, count, text, this_node
from wattkeeper.core.worker import Worker
from wattkeeper.integrations.rapl.link import Config

_T = TypeVar("_T")

RANK = 20
PSYS_RANK = 55
"""Below the server's own controller: whether psys is wired to all of the board is the maker's choice."""

DENIED = (
    "Since Linux 5.10 only root reads these counters. Give the agent's service "
    "AmbientCapabilities=CAP_DAC_READ_SEARCH, or a group the files: chgrp wattkeeper {files}; chmod g+r {files}."
)

_PACKAGE = re.compile(r"package-(\d+)(?:-die-(\d+))?$")


def devices(config: Config) -> list[Device]:
    """Return the device that a table names."""
    return [RaplDevice(config)]


@dataclass(frozen=True, slots=True)
class _Zone:
    meter: Meter
    file: Path


class RaplDevice:
    """The RAPL zones of this machine. clock: seconds since 1970."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._node = config.node or this_node()
        self._zones: list[_Zone] | None = None
        self.name = f"rapl {self._node}"
        self._worker = Worker(self.name)

    async def discover(self) -> Discovery:
        """Return CPUs and memory with their counters. Raises SourceError where there are none, or none may be read."""
        return await self._in_time(self._discover)

    async def sample(self) -> list[Sample]:
        """Return the counters. Raises SourceError where none can be read."""
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
                "Is a CPU going offline? See dmesg."
            ) from error

    def _discover(self) -> Discovery:
        zones = _zones(self._config.path, self._node)
        if not zones:
            raise SourceError(
                f"{self.name}: {self._config.path} has no RAPL package. "
                "Load intel_rapl_msr (also on AMD); a virtual machine has none."
            )
        denied = [zone for zone in zones if _denied(zone.file)]
        if len(denied) == len(zones):
            raise self._refusal(denied)
        self._zones = zones
        found = Discovery(meters=[zone.meter for zone in zones])
        found.assets.append(Asset(self._node, "node", self._config.parent))
        for asset in dict.fromkeys(zone.meter.asset for zone in zones):
            if asset != self._node:
                kind = "cpu" if asset.rpartition("/")[2].startswith("cpu") else "dram"
                found.assets.append(Asset(asset, kind, self._node))
        if denied:
            found.doubts.append(str(self._refusal(denied)))
        found.doubts += [
            f"{zone.file} is always 0: the zone counts nothing on this machine." for zone in zones if _empty(zone.file)
        ]
        return found

    def _sample(self) -> list[Sample]:
        if self._zones is None:
            self._discover()
        samples, denied, zones = [], [], self._zones or []
        for zone in zones:
            try:
                energy_uj = count(zone.file)
            except DeniedError:
                denied.append(zone)
                continue
            if energy_uj:  # 0 is a zone that counts nothing, or the one reading in 262 kJ that nobody misses
                samples.append(Sample(zone.meter.id, round(self._clock() * 1000), energy_uj // 1000))
        if not samples and denied:
            raise self._refusal(denied)
        if not samples:
            self._zones = None
            raise SourceError(
                f"{self.name}: {self._config.path} no longer has RAPL counters. Is intel_rapl_msr still loaded?"
            )
        return samples

    def _refusal(self, denied: list[_Zone]) -> SourceError:
        files = f"{self._config.path}/*/energy_uj"
        return SourceError(
            f"{self.name}: {denied[0].file} may not be read ({len(denied)} of {len(self._zones or denied)} counters). "
            + DENIED.format(files=files)
        )


def _zones(root: Path, node: str) -> list[_Zone]:
    """Return what there is to read, each domain once: MSR zones before their copies by MMIO."""
    folders: dict[str, Path] = {}
    for top in root.glob("*rapl*:*"):
        for folder in (top, *top.glob(f"{top.name}:*")):
            folders.setdefault(folder.name, folder)
    names = {name: text(folder / "name") or "" for name, folder in folders.items()}
    found: dict[str, _Zone] = {}
    for name in sorted(folders, key=lambda n: ("mmio" in n, natural(n))):
        placed = _place(names[name], names.get(name.rpartition(":")[0], ""))
        if placed is None or placed[0] in found:
            continue
        domain, asset = placed
        folder = folders[name]
        wrap_uj = count(folder / "max_energy_range_uj") or 0
        meter = Meter(
            f"{node}/{asset}:{domain}:rapl:energy_counter" if asset else f"{node}:{domain}:rapl:energy_counter",
            f"{node}/{asset}" if asset else node,
            "energy_counter",
            "rapl",
            RANK if asset else PSYS_RANK,
            wrap_mj=round(wrap_uj / 1000),
        )
        found[domain] = _Zone(meter, folder / "energy_uj")
    return list(found.values())


def _place(name: str, above: str) -> tuple[str, str] | None:
    """Return domain and asset below the node ("" for the node itself); None for parts of what is taken."""
    if name == "psys":
        return "psys", ""
    if match := _PACKAGE.match(name):
        return name, f"cpu{match[1]}"
    if name == "dram" and (match := _PACKAGE.match(above)):
        return f"{above}/dram", f"dram{match[1]}"
    return None


def _denied(file: Path) -> bool:
    try:
        count(file)
    except DeniedError:
        return True
    return False


def _empty(file: Path) -> bool:
    try:
        return count(file) == 0
    except DeniedError:
        return False
