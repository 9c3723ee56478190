"""The table of NVML in the site file, and the part of the library `pynvml` that is used."""

# ruff: noqa: N802, N803 - the names are those of the library

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

from pydantic import BaseModel, ConfigDict, Field

from wattkeeper.core.errors import MissingExtraError


class Config(BaseModel):
    """This machine's NVIDIA GPUs: `[[agent.nvml]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field("", description="The node's asset. Default: the machine's name without its domain.")
    parent: str = Field(
        "", description="What the node stands in, if the site file does not say. Default: its default_parent."
    )
    check_s: float = Field(0.5, ge=0, le=10, description="Discovery watches for so long whether counters move [s].")
    timeout_s: float = Field(10.0, gt=0, description="Longest time one reading of all GPUs may take [s].")


class Library(Protocol):
    """What is used of the module `pynvml` (nvidia-ml-py 12 and later), by its own names and arguments."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None:
        """Load the driver's interface."""

    def nvmlShutdown(self) -> None:
        """Let go of it."""

    def nvmlDeviceGetCount(self) -> int:
        """Return how many GPUs there are."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        """Return a GPU, in the order of PCI addresses."""

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        """Return GPU-…"""

    def nvmlDeviceGetName(self, handle: Any) -> str:
        """Return the model, such as NVIDIA H200."""

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        """Return energy since the driver was loaded [mJ]."""

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        """Return power [mW]: a mean over 1 s since GA102, the power now up to GA100."""

    def nvmlDeviceGetFieldValues(self, handle: Any, fieldIds: Sequence[Any]) -> Sequence[Any]:
        """Return c_nvmlFieldValue_t of each field, given as number or (number, scope)."""

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        """Return gpu and memory [percent]."""

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: Any) -> list[int]:
        """Return least and greatest power limit [mW]."""

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: Any) -> int:
        """Return the power limit it is made for [mW]."""

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:
        """Return the power limit that holds [mW]."""

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        """Return why clocks are held down, one bit each."""

    def nvmlDeviceGetMigMode(self, device: Any) -> list[int]:
        """Return whether MIG is on, and whether it will be after a reset."""

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Any) -> int:
        """Return how many MIG devices there can be."""

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Any, index: int) -> Any:
        """Return a MIG device: a compute instance of a GPU instance."""

    def nvmlDeviceGetGpuInstanceId(self, device: Any) -> int:
        """Return the GPU instance that a MIG device belongs to."""

    def nvmlDeviceGetAttributes(self, device: Any) -> Any:
        """Return gpuInstanceSliceCount and more of a MIG device."""

    def nvmlDeviceGetGpuInstanceProfileInfo(self, device: Any, profile: int, version: int = 2) -> Any:
        """Return what a profile is; Not Supported where this GPU has none of that size."""


def load() -> Library:
    """Return the library. Raises MissingExtraError where it is not installed."""
    try:
        return cast("Library", importlib.import_module("pynvml"))
    except ImportError as error:
        raise MissingExtraError("wattkeeper.integrations.nvml", error.name or "pynvml", "nvml") from error
