"""AMD GPUs as meters.

The energy accumulator is multiplied by its resolution, 15.259 µJ on most chips, told with each reading. It is wrong on some
chips and drivers (ROCm/amdsmi#22, #38), so discovery compares it with the power and leaves it where they disagree.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.driver import Driver
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.core.sysfs import this_node
from wattkeeper.integrations.amdsmi.link import Config, Library, load

RANK = 12

_T = TypeVar("_T")


def devices(config: Config) -> list[Device]:
    """Return the device that a table names."""
    return [AmdDevice(config)]


@dataclass(frozen=True, slots=True)
class _Reader:
    """One meter, and how its value is asked for: None where there is none."""

    meter: Meter
    read: Callable[[], int | None]


class AmdDevice:
    """The AMD GPUs of this machine. library: stands in for ROCm's. clock: seconds since 1970."""

    def __init__(
        self, config: Config, *, library: Callable[[], Library] = load, clock: Callable[[], float] = time.time
    ) -> None:
        self._config, self._clock = config, clock
        self._node = config.node or this_node()
        self._readers: list[_Reader] = []
        self.name = f"amdsmi {self._node}"
        self._driver = Driver(
            self.name, library, start=lambda lib: lib.amdsmi_init(), stop=lambda lib: lib.amdsmi_shut_down(),
            errors=lambda lib: lib.AmdSmiException, fault=self._fault, cure="See dmesg for amdgpu.",
        )  # fmt: skip

    async def discover(self) -> Discovery:
        """Return the GPUs and their meters. Raises SourceError where the driver does not answer."""
        return await self._driver.run(self._discover, self._config.timeout_s + self._config.check_s)

    async def sample(self) -> list[Sample]:
        """Return the values. Raises SourceError where none can be read."""
        if not self._readers:
            await self.discover()
        return await self._driver.run(self._sample, self._config.timeout_s)

    async def close(self) -> None:
        """Let go of the driver's interface."""
        self._readers = []
        await self._driver.close(self._config.timeout_s)

    def _fault(self, error: Exception) -> SourceError:
        self._driver.library, self._readers = None, []
        return SourceError(
            f"{self.name} fails: {str(error).strip() or type(error).__name__}. "
            "Is the amdgpu driver loaded, and may the agent open /dev/kfd and /dev/dri (groups render and video)?"
        )

    def _discover(self) -> Discovery:
        library = self._driver.open()
        try:
            handles = library.amdsmi_get_processor_handles()
            infos = [library.amdsmi_get_gpu_asic_info(handle) for handle in handles]
            uuids = [str(library.amdsmi_get_gpu_device_uuid(handle)) for handle in handles]
        except library.AmdSmiException as error:
            raise self._fault(error) from error
        starts = [_ask(library, library.amdsmi_get_energy_count, handle) for handle in handles]
        time.sleep(self._config.check_s)
        found, readers = Discovery(), []
        found.assets.append(Asset(self._node, "node", self._config.parent))
        packages: dict[str, int] = {}
        for i, (handle, info, uuid) in enumerate(zip(handles, infos, uuids, strict=True)):
            asset = f"{self._node}/gpu{i}"
            found.assets.append(Asset(asset, "gpu", self._node, _told(info, "market_name")))
            first = packages.setdefault(_told(info, "asic_serial") or uuid, i)
            if first == i:
                readers += self._metered(library, handle, starts[i], asset, uuid, found)
            else:
                found.doubts.append(
                    f"{asset} is part of the package of {self._node}/gpu{first}, whose meter counts both: read there, once."
                )
            busy = _Reader(
                Meter(f"{asset}:{uuid}:amdsmi:utilisation", asset, "utilisation", "amdsmi", RANK),
                _activity(library, handle),
            )
            readers += [busy] if busy.read() is not None else []
        self._readers = readers
        found.meters = [reader.meter for reader in readers]
        if not handles:
            found.doubts.append(f"{self._node} has no AMD GPU that the driver shows.")
        return found

    def _metered(
        self, library: Library, handle: Any, start: dict[str, Any], asset: str, uuid: str, found: Discovery
    ) -> list[_Reader]:
        """Return counter and power of a package, as far as it has them and they agree."""
        readers = []
        energy, power = _energy(library, handle), _power(library, handle)
        end = _ask(library, library.amdsmi_get_energy_count, handle)
        if _counted_mj(end) is not None:
            fault = _disagreement(start, end, power())
            if fault:
                found.doubts.append(
                    f"{asset}: {fault} The counter is not used, power is. A newer driver may put it right."
                )
            else:
                meter = Meter(f"{asset}:{uuid}:amdsmi:energy_counter", asset, "energy_counter", "amdsmi", RANK)
                readers.append(_Reader(meter, energy))
        if power() is not None:
            readers.append(_Reader(Meter(f"{asset}:{uuid}:amdsmi:power", asset, "power", "amdsmi", RANK), power))
        if not readers:
            found.doubts.append(f"{asset} tells neither energy nor power. Virtual functions and guests have no meter.")
        return readers

    def _sample(self) -> list[Sample]:
        self._driver.open()
        samples = []
        for reader in self._readers:
            value = reader.read()
            if value is not None:
                samples.append(Sample(reader.meter.id, round(self._clock() * 1000), value))
        if self._readers and not samples:
            raise self._fault(RuntimeError("no GPU tells a value any more"))
        return samples


def _energy(library: Library, handle: Any) -> Callable[[], int | None]:
    """Return a way to ask for cumulative energy [mJ]."""

    def read() -> int | None:
        return _counted_mj(_ask(library, library.amdsmi_get_energy_count, handle))

    return read


def _counted_mj(told: dict[str, Any]) -> int | None:
    ticks = _number(told.get("energy_accumulator", told.get("power")))  # "power" until ROCm 6.2
    size_uj = _number(told.get("counter_resolution"))
    return round(ticks * size_uj / 1000) if ticks and size_uj else None


def _power(library: Library, handle: Any) -> Callable[[], int | None]:
    """Return a way to ask for power [mW]: of the socket now, else its mean."""

    def read() -> int | None:
        told = _ask(library, library.amdsmi_get_power_info, handle)
        for name in ("current_socket_power", "average_socket_power"):
            watts = _number(told.get(name))
            if watts:
                return round(watts * 1000)
        return None

    return read


def _activity(library: Library, handle: Any) -> Callable[[], int | None]:
    """Return a way to ask for utilisation [ppm]."""

    def read() -> int | None:
        percent = _number(_ask(library, library.amdsmi_get_gpu_activity, handle).get("gfx_activity"))
        return round(percent * 10_000) if percent is not None and percent <= 100 else None

    return read


def _disagreement(start: dict[str, Any], end: dict[str, Any], power_mw: int | None) -> str:
    """Return how a counter disagrees with the power between two readings, by the counter's own clock; "" else."""
    before, after = _counted_mj(start), _counted_mj(end)
    begin_ns, end_ns = _number(start.get("timestamp")), _number(end.get("timestamp"))
    if before is None or after is None or power_mw is None or begin_ns is None or end_ns is None or end_ns <= begin_ns:
        return ""
    counted_mw = (after - before) / (end_ns - begin_ns) * 1e9
    if power_mw / 5 <= counted_mw <= power_mw * 5:
        return ""
    return f"its energy counter says {counted_mw / 1000:.1f} W while its power is {power_mw / 1000:.1f} W."


def _ask(library: Library, call: Callable[[Any], dict[str, Any]], handle: Any) -> dict[str, Any]:
    """Return an answer; nothing where this GPU does not have it."""
    try:
        return call(handle)
    except library.AmdSmiException:
        return {}


def _number(value: Any) -> float | None:
    """Return a value that is one: not "N/A", not a field filled with ones."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return None if value in (0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF) else value


def _told(info: dict[str, Any], name: str) -> str:
    """Return a text that says something."""
    value = str(info.get(name) or "")
    return "" if value == "N/A" or not value.strip("0x") else value
