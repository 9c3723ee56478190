"""FakeNvml: NVIDIA GPUs by the interface of `pynvml`, for machines without one.

Signatures, error classes and structures are those of nvidia-ml-py; behaviour is that of nvml.h and of captures (H200 at
627 W, no utilisation under MIG, NOT_SUPPORTED for what a board has not).
"""

# ruff: noqa: N802, N803 - the names are those of the library
from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pynvml

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


@dataclass
class FakeGpu:
    """One GPU. fails: NVML error by the name of the call; fields: what is not in it is NOT_SUPPORTED."""

    uuid: str
    name: str = "NVIDIA H200"
    power_mw: int = 627_400
    energy_mj: int | None = 5_000_000
    busy_percent: int = 98
    fields: dict[Any, int] = field(default_factory=lambda: {185: 627_400, 186: 626_260})
    mig: list[tuple[int, int]] | None = None
    slices: int = 7
    limit_mw: int = 700_000
    reasons: int = 0
    fails: dict[str, int] = field(default_factory=dict)
    lost: bool = False
    field_energy: bool = True

    def count(self) -> int:
        """Return the counter after another tenth of a second."""
        self.energy_mj += self.power_mw // 10 if self.energy_mj else 0
        return self.energy_mj


class FakeNvml:
    """The driver of some GPUs. Each reading of a counter adds a tenth of a second of the GPU's power to it."""

    NVMLError = pynvml.NVMLError

    def __init__(self, *gpus: FakeGpu) -> None:
        self.gpus = list(gpus)
        self.open, self.loaded, self.calls = 0, True, 0
        self.hang = threading.Event()
        self.hang.set()

    def _gpu(self, handle: Any, call: str) -> FakeGpu:
        self.hang.wait(10)
        self.calls += 1
        if not self.open:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        if not self.loaded:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)
        gpu = handle if isinstance(handle, FakeGpu) else handle[0]
        if gpu.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if call in gpu.fails:
            raise pynvml.NVMLError(gpu.fails[call])
        return gpu

    def nvmlInit(self):
        if not self.loaded:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        self.open += 1

    def nvmlShutdown(self):
        if not self.open:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        self.open -= 1

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        self._gpu(self.gpus[index], "nvmlDeviceGetHandleByIndex")
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle):
        return self._gpu(handle, "nvmlDeviceGetUUID").uuid

    def nvmlDeviceGetName(self, handle):
        return self._gpu(handle, "nvmlDeviceGetName").name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        gpu = self._gpu(handle, "nvmlDeviceGetTotalEnergyConsumption")
        if gpu.energy_mj is None:
            raise pynvml.NVMLError(NOT_SUPPORTED)
        return gpu.count()

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._gpu(handle, "nvmlDeviceGetPowerUsage").power_mw

    def nvmlDeviceGetFieldValues(self, handle, fieldIds):
        gpu = self._gpu(handle, "nvmlDeviceGetFieldValues")
        values = (pynvml.c_nvmlFieldValue_t * len(fieldIds))()
        for value, asked in zip(values, fieldIds, strict=True):
            number, scope = asked if isinstance(asked, tuple) else (asked, 0)
            value.fieldId, value.scopeId = number, scope
            key = (number, scope) if scope else number
            if key == 83 and gpu.field_energy and gpu.energy_mj:
                value.valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
                value.value.ullVal = gpu.count()
            elif key in gpu.fields:
                value.valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
                value.value.uiVal = gpu.fields[key]
            else:
                value.nvmlReturn = NOT_SUPPORTED
        return values

    def nvmlDeviceGetUtilizationRates(self, handle):
        gpu = self._gpu(handle, "nvmlDeviceGetUtilizationRates")
        if gpu.mig is not None:
            raise pynvml.NVMLError(NOT_SUPPORTED)
        rates = pynvml.c_nvmlUtilization_t()
        rates.gpu, rates.memory = gpu.busy_percent, 40
        return rates

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle):
        self._gpu(handle, "nvmlDeviceGetPowerManagementLimitConstraints")
        return [200_000, 700_000]

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle):
        self._gpu(handle, "nvmlDeviceGetPowerManagementDefaultLimit")
        return 700_000

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return self._gpu(handle, "nvmlDeviceGetEnforcedPowerLimit").limit_mw

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return self._gpu(handle, "nvmlDeviceGetCurrentClocksThrottleReasons").reasons

    def nvmlDeviceGetMigMode(self, device):
        gpu = self._gpu(device, "nvmlDeviceGetMigMode")
        return [int(gpu.mig is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, device):
        return self._gpu(device, "nvmlDeviceGetMaxMigDeviceCount").slices

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device, index):
        gpu = self._gpu(device, "nvmlDeviceGetMigDeviceHandleByIndex")
        if index >= len(gpu.mig or []):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return (gpu, gpu.mig[index])

    def nvmlDeviceGetGpuInstanceId(self, device):
        self._gpu(device, "nvmlDeviceGetGpuInstanceId")
        return device[1][0]

    def nvmlDeviceGetAttributes(self, device):
        self._gpu(device, "nvmlDeviceGetAttributes")
        attributes = pynvml.c_nvmlDeviceAttributes()
        attributes.gpuInstanceSliceCount = device[1][1]
        return attributes

    def nvmlDeviceGetGpuInstanceProfileInfo(self, device, profile, version=2):
        gpu = self._gpu(device, "nvmlDeviceGetGpuInstanceProfileInfo")
        sizes = {7: pynvml.NVML_GPU_INSTANCE_PROFILE_7_SLICE, 4: pynvml.NVML_GPU_INSTANCE_PROFILE_4_SLICE}
        if profile != sizes.get(gpu.slices):
            raise pynvml.NVMLError(NOT_SUPPORTED)
        return pynvml.c_nvmlGpuInstanceProfileInfo_v2_t()


def eight() -> FakeNvml:
    """Return a node of eight H200."""
    return FakeNvml(*(FakeGpu(f"GPU-{i}") for i in range(8)))
