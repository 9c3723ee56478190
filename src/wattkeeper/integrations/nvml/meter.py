"""NVIDIA GPUs as meters.

The driver counts each GPU's energy in millijoules since it was loaded (Volta and later), every 20 to 100 ms. Power is
read beside it, as a mean over a second and as it is now: it stands in where there is no counter, and confirms it where
there is one. Of a Grace superchip the module's power contains CPU and memory too: it is a meter of the node.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.driver import Driver
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.core.sysfs import this_node
from wattkeeper.integrations.nvml.link import Config, Library, load

RANK, INSTANT_RANK, UTILISATION_RANK, MODULE_RANK = 10, 12, 30, 70
"""As DCGM, which asks the same driver. Modules are less than a node, so any other meter of the node is better."""

ENERGY, AVERAGE, INSTANT, MODULE = 83, 185, 186, (186, 1)
"""Fields NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, POWER_AVERAGE and POWER_INSTANT of the GPU, and the latter of the module
(NVML_POWER_SCOPE_MODULE): one call for all."""

POWER_FIELDS = {AVERAGE: ("nvml", RANK), INSTANT: ("nvml-instant", INSTANT_RANK)}

ABSENT = frozenset({2, 3, 4, 6, 13, 21, 25, 26, 27})
"""NVML_ERROR_INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, FUNCTION_NOT_FOUND, NO_DATA,
ARGUMENT_VERSION_MISMATCH, DEPRECATED, NOT_READY: this GPU has no such value. All others are faults."""

CURES = {
    9: "Load the driver: modprobe nvidia, and see dmesg.",
    12: "Install NVIDIA's driver, or in a container give the agent the capability utility of its runtime.",
    15: "It fell off the bus: see dmesg for Xid 79, and reset or reboot.",
    16: "Reset it with nvidia-smi --gpu-reset, or reboot.",
    18: "The driver was updated while its old library is loaded: restart the agent.",
}
"""What to do, by NVML error."""

HELD_DOWN = {
    0x08: "hardware slowdown", 0x20: "heat (software)", 0x40: "heat (hardware)", 0x80: "the power brake of its supply",
}  # fmt: skip
"""nvmlClocksEventReasons that no one wants; a power cap is said by the limit."""

_VALUE = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal"}
_WHOLE = {7: 4, 4: 3}
"""Slices of a whole GPU → NVML_GPU_INSTANCE_PROFILE_7_SLICE and _4_SLICE."""

_T = TypeVar("_T")


def devices(config: Config) -> list[Device]:
    """Return the device that a table names."""
    return [NvmlDevice(config)]


@dataclass(slots=True)
class _Gpu:
    """One GPU: where it is asked, and the meter of each value it has, by field."""

    handle: Any
    uuid: str
    asset: str
    counter: Meter | None = None
    busy: Meter | None = None
    plain: Meter | None = None
    fields: dict[Any, Meter] = field(default_factory=dict)

    @property
    def meters(self) -> list[Meter]:
        """Its meters."""
        return [m for m in (self.counter, *self.fields.values(), self.plain, self.busy) if m is not None]


class NvmlDevice:
    """The NVIDIA GPUs of this machine. library: stands in for the driver's. clock: seconds since 1970."""

    def __init__(
        self, config: Config, *, library: Callable[[], Library] = load, clock: Callable[[], float] = time.time
    ) -> None:
        self._config, self._clock = config, clock
        self._node = config.node or this_node()
        self._gpus: list[_Gpu] = []
        self._numbers: dict[str, int] = {}
        self.name = f"nvml {self._node}"
        self._driver = Driver(
            self.name, library, start=lambda lib: lib.nvmlInit(), stop=lambda lib: lib.nvmlShutdown(),
            errors=lambda lib: lib.NVMLError, fault=self._fault, cure="See dmesg for NVRM and Xid.",
        )  # fmt: skip

    async def discover(self) -> Discovery:
        """Return the GPUs, their MIG instances and meters. Raises SourceError where the driver does not answer."""
        return await self._driver.run(self._discover, self._config.timeout_s + self._config.check_s)

    async def sample(self) -> list[Sample]:
        """Return the values. Raises SourceError once where a GPU is lost; the others are there again at the next call."""
        if not self._gpus:
            await self.discover()
        return await self._driver.run(self._sample, self._config.timeout_s)

    async def close(self) -> None:
        """Let go of the driver's interface."""
        await self._driver.close(self._config.timeout_s)

    def _drop(self) -> None:
        """Forget handles, which a reload of the driver makes worthless."""
        self._gpus = []
        self._driver.drop()

    def _fault(self, error: Exception, asset: str = "") -> SourceError:
        self._drop()
        what = f"{asset} fails" if asset else "the driver fails"
        return SourceError(
            f"{self.name}: {what}: {_said(error)}. {CURES.get(_code(error), 'See dmesg for NVRM and Xid.')}"
        )

    # what there is

    def _discover(self) -> Discovery:
        self._drop()  # a lost GPU, or one that came back, shows only after a new start
        library = self._driver.open()
        found = Discovery([Asset(self._node, "node", self._config.parent)])
        try:
            present = self._present(library, found)
            if not present:
                found.doubts.append(f"{self._node} has no NVIDIA GPU that the driver shows.")
            self._number([uuid for _handle, uuid in present])
            gpus = [_Gpu(handle, uuid, f"{self._node}/gpu{self._numbers[uuid]}") for handle, uuid in present]
            before = [_ask(library, library.nvmlDeviceGetTotalEnergyConsumption, gpu.handle) for gpu in gpus]
            if any(before):
                time.sleep(self._config.check_s)
            for gpu, start_mj in zip(gpus, before, strict=True):
                self._meet(library, gpu, start_mj, found)
        except library.NVMLError as error:
            raise self._fault(error) from error
        self._gpus = gpus
        return found

    def _present(self, library: Library, found: Discovery) -> list[tuple[Any, str]]:
        """Return handles and UUIDs of the GPUs that answer; those that are lost are doubts."""
        present = []
        for index in range(library.nvmlDeviceGetCount()):
            try:
                handle = library.nvmlDeviceGetHandleByIndex(index)
                present.append((handle, library.nvmlDeviceGetUUID(handle)))
            except library.NVMLError as error:
                cure = CURES.get(_code(error), "See dmesg for NVRM and Xid.")
                found.doubts.append(f"{self.name}: GPU {index} in the driver's order: {_said(error)}. {cure}")
        return present

    def _number(self, uuids: list[str]) -> None:
        """Give each GPU its number in the node: what it had before, else its place, else the next free one."""
        taken = {self._numbers[uuid] for uuid in uuids if uuid in self._numbers}
        for place, uuid in enumerate(uuids):
            if uuid not in self._numbers:
                self._numbers[uuid] = place if place not in taken else max(taken) + 1
                taken.add(self._numbers[uuid])

    def _meet(self, library: Library, gpu: _Gpu, start_mj: int | None, found: Discovery) -> None:
        """Find out what one GPU has."""
        model = library.nvmlDeviceGetName(gpu.handle)
        bounds_mw = _ask(library, library.nvmlDeviceGetPowerManagementLimitConstraints, gpu.handle)
        ceiling_w = bounds_mw[1] / 1000 if bounds_mw and bounds_mw[1] else None
        found.assets.append(Asset(gpu.asset, "gpu", self._node, model, ceiling_w))
        told = _fields(library, gpu.handle, [ENERGY, AVERAGE, INSTANT, MODULE])
        self._find_power(library, gpu, told)
        self._find_counter(library, gpu, start_mj, told.get(ENERGY), found)
        if not gpu.meters:
            found.doubts.append(
                f"{gpu.asset} ({model}) tells neither energy nor power, as virtual and old GPUs do. "
                "Measure the node, or read it on the host."
            )
        if _busy(library, gpu.handle) is not None:
            gpu.busy = self._meter(gpu, "utilisation", "nvml-util", UTILISATION_RANK)
        found.meters += gpu.meters
        found.doubts += _limits(library, gpu)
        self._find_mig(library, gpu, model, found)

    def _meter(self, gpu: _Gpu, quantity: str, source: str, rank: int) -> Meter:
        return Meter(f"{gpu.asset}:{gpu.uuid}:{source}:{quantity}", gpu.asset, quantity, source, rank)

    def _find_power(self, library: Library, gpu: _Gpu, told: dict[Any, int]) -> None:
        for key, (source, rank) in POWER_FIELDS.items():
            if key in told:
                gpu.fields[key] = self._meter(gpu, "power", source, rank)
        if not gpu.fields and _power(library, gpu.handle) is not None:
            gpu.plain = self._meter(gpu, "power", "nvml", RANK)
        if MODULE in told:
            meter = f"{self._node}:{gpu.uuid}:nvml-module:power"
            gpu.fields[MODULE] = Meter(meter, self._node, "power", "nvml-module", MODULE_RANK)

    def _find_counter(
        self, library: Library, gpu: _Gpu, start_mj: int | None, field_mj: int | None, found: Discovery
    ) -> None:
        """Take the counter: as a field where that shows the same number, else by the call of its own."""
        if not start_mj:
            if gpu.meters:
                found.doubts.append(
                    f"{gpu.asset} has no energy counter: its energy is summed from power samples, which see a part of "
                    "the time only (a quarter on A100 and H100)."
                )
            return
        end_mj = _ask(library, library.nvmlDeviceGetTotalEnergyConsumption, gpu.handle)
        if end_mj == start_mj and gpu.meters and self._config.check_s:
            found.doubts.append(
                f"{gpu.asset} has an energy counter that stands still at {start_mj} mJ while it draws power. It is not "
                "used; a newer driver may put it right."
            )
            return
        meter = self._meter(gpu, "energy_counter", "nvml", RANK)
        if field_mj is not None and end_mj is not None and start_mj <= field_mj <= end_mj:
            gpu.fields = {ENERGY: meter, **gpu.fields}
        else:
            gpu.counter = meter

    def _find_mig(self, library: Library, gpu: _Gpu, model: str, found: Discovery) -> None:
        """Add MIG instances; compute instances that share one are one."""
        mode = _ask(library, library.nvmlDeviceGetMigMode, gpu.handle)
        if not mode or not mode[0]:
            return
        whole = next(
            (
                slices
                for slices, profile in _WHOLE.items()
                if _ask(library, library.nvmlDeviceGetGpuInstanceProfileInfo, gpu.handle, profile) is not None
            ),
            None,
        )
        if whole is None:
            whole = 7
            found.doubts.append(f"{gpu.asset} does not tell how many slices it has; 7 are taken.")
        seen = set()
        for index in range(_ask(library, library.nvmlDeviceGetMaxMigDeviceCount, gpu.handle) or 0):
            mig = _ask(library, library.nvmlDeviceGetMigDeviceHandleByIndex, gpu.handle, index)
            instance = _ask(library, library.nvmlDeviceGetGpuInstanceId, mig) if mig is not None else None
            size = _ask(library, library.nvmlDeviceGetAttributes, mig) if instance is not None else None
            if size is None or instance in seen:
                continue
            seen.add(instance)
            part = min(size.gpuInstanceSliceCount / whole, 1.0)
            found.assets.append(Asset(f"{gpu.asset}/{instance}", "mig", gpu.asset, model, slice=part))
        if not seen:
            found.doubts.append(
                f"{gpu.asset} has MIG on and no instance: nothing can run on it. See nvidia-smi mig -lgi."
            )

    # what it says

    def _sample(self) -> list[Sample]:
        library = self._driver.open()
        samples: list[Sample] = []
        for gpu in self._gpus:
            try:
                self._read(library, gpu, samples)
            except library.NVMLError as error:
                raise self._fault(error, gpu.asset) from error
        if not samples and any(gpu.meters for gpu in self._gpus):
            self._drop()
            raise SourceError(f"{self.name}: no GPU tells a value any more. Is the driver being reloaded? See dmesg.")
        return samples

    def _read(self, library: Library, gpu: _Gpu, samples: list[Sample]) -> None:
        """Add a GPU's values, the counter first, each group with the time it was read."""
        if gpu.counter is not None:
            energy_mj = _ask(library, library.nvmlDeviceGetTotalEnergyConsumption, gpu.handle)
            if energy_mj:
                samples.append(Sample(gpu.counter.id, round(self._clock() * 1000), energy_mj))
        if gpu.fields or gpu.plain:
            told = _fields(library, gpu.handle, list(gpu.fields)) if gpu.fields else {}
            now_ms = round(self._clock() * 1000)
            samples += [Sample(meter.id, now_ms, told[key]) for key, meter in gpu.fields.items() if key in told]
            if gpu.plain and (power_mw := _power(library, gpu.handle)) is not None:
                samples.append(Sample(gpu.plain.id, now_ms, power_mw))
        if gpu.busy is not None and (busy_ppm := _busy(library, gpu.handle)) is not None:
            samples.append(Sample(gpu.busy.id, round(self._clock() * 1000), busy_ppm))


def _ask(library: Library, call: Callable[..., _T], *arguments: Any) -> _T | None:
    """Return an answer; None where this GPU has none. Raises NVMLError for faults."""
    try:
        return call(*arguments)
    except library.NVMLError as error:
        if _code(error) in ABSENT:
            return None
        raise


def _fields(library: Library, handle: Any, keys: list[Any]) -> dict[Any, int]:
    """Return the fields that have a value [mJ, mW]; 0 and a field filled with ones are none."""
    values = _ask(library, library.nvmlDeviceGetFieldValues, handle, keys) or ()
    told = {}
    for key, value in zip(keys, values, strict=False):
        if value.nvmlReturn == 0 and value.valueType in _VALUE:
            number = round(getattr(value.value, _VALUE[value.valueType]))
            if 0 < number < (2**63 if key == ENERGY else 0xFFFF_FFFF):
                told[key] = number
    return told


def _power(library: Library, handle: Any) -> int | None:
    return _ask(library, library.nvmlDeviceGetPowerUsage, handle) or None


def _busy(library: Library, handle: Any) -> int | None:
    """Return how much of the time anything ran [ppm]."""
    told = _ask(library, library.nvmlDeviceGetUtilizationRates, handle)
    return told.gpu * 10_000 if told is not None and told.gpu <= 100 else None


def _limits(library: Library, gpu: _Gpu) -> list[str]:
    """Return what holds a GPU down."""
    said = []
    made_for_mw = _ask(library, library.nvmlDeviceGetPowerManagementDefaultLimit, gpu.handle)
    holds_mw = _ask(library, library.nvmlDeviceGetEnforcedPowerLimit, gpu.handle)
    if made_for_mw and holds_mw and holds_mw < made_for_mw:
        said.append(
            f"{gpu.asset} is limited to {holds_mw / 1000:g} W of {made_for_mw / 1000:g} W. "
            "If nobody wants that: nvidia-smi --power-limit."
        )
    reasons = _ask(library, library.nvmlDeviceGetCurrentClocksThrottleReasons, gpu.handle) or 0
    if held := [name for bit, name in HELD_DOWN.items() if reasons & bit]:
        said.append(f"{gpu.asset} is slowed down by {', '.join(held)}. See to its cooling and supply.")
    return said


def _code(error: Exception) -> int:
    return int(getattr(error, "value", 999))


def _said(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
