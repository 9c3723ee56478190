"""hwmon sensors as meters.

Linux shows a folder per chip with `name`, `powerN_average` or `powerN_input` in microwatts and `energyN_input` in
microjoules (Documentation/hwmon/sysfs-interface). The number of a chip changes from boot to boot, so meters are known
by driver and device. What a sensor measures only its driver's name tells; what no driver here places is left.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wattkeeper.core.assets import Asset, Meter, natural
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.core.sysfs import DeniedError, count, text, this_node
from wattkeeper.core.worker import Worker
from wattkeeper.integrations.hwmon.link import Config

_T = TypeVar("_T")

_FILE = re.compile(r"(power|energy)(\d+)_(average|input)$")

GPU_DRIVERS = frozenset({"amdgpu", "i915", "xe"})
RANKS = {"gpu": 35, "cpu": 22, "node": 50}
"""Below NVML, DCGM and RAPL, which read the same hardware closer; an ACPI meter is what IPMI shows."""

SENSOR_RANK = 60

_FIRST = ("power1", "energy1")

_SOCKET = re.compile(r"(?:Grace Power Socket |Esocket)(\d+)$")


def devices(config: Config) -> list[Device]:
    """Return the device that a table names."""
    return [HwmonDevice(config)]


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor: chip as `driver@device`, number such as power1, its label, its file."""

    driver: str
    device: str
    number: str
    label: str
    file: Path

    @property
    def quantity(self) -> str:
        """What it reports."""
        return "power" if self.number.startswith("power") else "energy_counter"

    def meter(self, asset: str, source: str, rank: int) -> Meter:
        """Return the meter it is on an asset."""
        key = f"{self.driver}@{self.device}/{self.number}"
        return Meter(f"{asset}:{key}:{source}:{self.quantity}", asset, self.quantity, source, rank)


class HwmonDevice:
    """The hwmon sensors of this machine. clock: seconds since 1970."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._node = config.node or this_node()
        self._meters: list[tuple[Meter, Path]] = []
        self.name = f"hwmon {self._node}"
        self._worker = Worker(self.name)

    async def discover(self) -> Discovery:
        """Return what the sensors measure. Raises SourceError where there are none, or they do not answer in time."""
        return await self._in_time(self._discover)

    async def sample(self) -> list[Sample]:
        """Return the sensors' values. Raises SourceError where none can be read."""
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
                "Is the controller busy? Read power over Redfish or IPMI instead, or raise timeout_s."
            ) from error

    def _discover(self) -> Discovery:
        sensors = find(self._config.path)
        if not sensors:
            raise SourceError(
                f"{self.name}: {self._config.path} has no power or energy sensor. Load the driver, such as acpi_power_meter."
            )
        placed = [*self._declared(sensors), *_placed(sensors, self._node)]
        taken: dict[Path, Meter] = {}
        for sensor, meter in placed:
            taken.setdefault(sensor.file, meter)
        self._meters = [(meter, file) for file, meter in taken.items()]
        found = Discovery(meters=list(taken.values()))
        found.assets.append(Asset(self._node, "node", self._config.parent))
        for meter in found.meters:
            name = meter.asset.removeprefix(f"{self._node}/").rstrip("0123456789")
            if meter.source == "hwmon" and name in ("gpu", "cpu") and meter.asset not in {a.id for a in found.assets}:
                found.assets.append(Asset(meter.asset, name, self._node))
        left = [f"{s.driver}@{s.device} {s.label or s.number}" for s in sensors if s.file not in taken]
        if left:
            more = f" and {len(left) - 4} more" if len(left) > 4 else ""
            found.doubts.append(
                f"Not read, as no driver says what they contain: {', '.join(left[:4])}{more}. "
                "Place those you need with [[agent.hwmon.sensor]]."
            )
        return found

    def _declared(self, sensors: list[Sensor]) -> list[tuple[Sensor, Meter]]:
        """Return the sensors that the site file places. Raises SourceError for one that is not there."""
        placed = []
        for one in self._config.sensor:
            match = [
                s for s in sensors
                if one.chip in (s.driver, f"{s.driver}@{s.device}") and one.sensor in (s.number, s.label)
            ]  # fmt: skip
            if len(match) != 1:
                what = "has no" if not match else f"has {len(match)} of"
                raise SourceError(
                    f"{self.name}: {self._config.path} {what} chip '{one.chip}' with sensor '{one.sensor}'. "
                    f"It has {', '.join(f'{s.driver}@{s.device} {s.label or s.number}' for s in sensors[:8])}."
                )
            placed.append((match[0], match[0].meter(one.asset, one.source, SENSOR_RANK)))
        return placed

    def _sample(self) -> list[Sample]:
        if not self._meters:
            self._discover()
        samples, denied = [], None
        for meter, file in self._meters:
            try:
                value = count(file)
            except DeniedError as error:
                denied = error
                continue
            if value is not None and (value or meter.quantity == "power"):
                samples.append(Sample(meter.id, round(self._clock() * 1000), value // 1000))
        if not samples and denied:
            raise SourceError(
                f"{self.name}: {denied} Run the agent as a user who may, or give the file to its group."
            ) from denied
        if not samples and self._meters:
            self._meters = []  # chips may have got other numbers
            raise SourceError(
                f"{self.name}: {self._config.path} has sensors, and none tells a value. Is a driver being reloaded?"
            )
        return samples


def find(root: Path) -> list[Sensor]:
    """Return all power and energy sensors, chips in the order of their devices; of one number the average."""
    sensors = []
    for chip in sorted(root.glob("hwmon*"), key=lambda c: natural(c.name)):
        folder = chip if (chip / "name").exists() else chip / "device"
        driver = text(folder / "name") or ""
        device = (chip / "device").resolve().name if (chip / "device").exists() else chip.resolve().name
        files: dict[str, Path] = {}
        for file in sorted(folder.glob("*_*"), key=lambda f: natural(f.name)):
            if match := _FILE.match(file.name):
                files.setdefault(f"{match[1]}{match[2]}", file)  # "average" sorts before "input"
        for number, file in files.items():
            told = text(folder / f"{number}_label") or _oem(folder, number)
            sensors.append(Sensor(driver, device, number, told, file))
    return sorted(sensors, key=lambda s: natural(s.device))


def _oem(folder: Path, number: str) -> str:
    """Return what an ACPI meter says it measures: NVIDIA Grace has one for each rail."""
    for where in (folder, folder / "device"):
        if told := text(where / f"{number}_oem_info"):
            return told
    return ""


def _placed(sensors: list[Sensor], node: str) -> list[tuple[Sensor, Meter]]:
    """Return the sensors whose driver tells what they measure."""
    placed = []
    plain = [s for s in sensors if s.driver == "power_meter" and not s.label]
    gpus = list(dict.fromkeys(s.device for s in sensors if s.driver in GPU_DRIVERS))
    cards = Counter((s.device, s.quantity) for s in sensors if s.driver in GPU_DRIVERS and s.label == "card")
    for sensor in sensors:
        socket = _SOCKET.match(sensor.label)
        if sensor.driver in ("power_meter", "amd_energy") and socket:
            placed.append((sensor, sensor.meter(f"{node}/cpu{int(socket[1])}", "hwmon", RANKS["cpu"])))
        elif len(plain) == 1 and sensor is plain[0]:
            placed.append((sensor, sensor.meter(node, "hwmon", RANKS["node"])))
        elif sensor.driver in GPU_DRIVERS:
            whole = sensor.label == "card" if cards[sensor.device, sensor.quantity] else sensor.number in _FIRST
            if whole:
                asset = f"{node}/gpu{gpus.index(sensor.device)}"
                placed.append((sensor, sensor.meter(asset, "hwmon", RANKS["gpu"])))
    return placed
