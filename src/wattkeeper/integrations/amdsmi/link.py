"""The table of AMD SMI in the site file, and the part of ROCm's library that is used."""

from __future__ import annotations

import contextlib
import importlib
import io
from typing import Any, Protocol, cast

from pydantic import BaseModel, ConfigDict, Field

from wattkeeper.core.errors import MissingExtraError, SourceError


class Config(BaseModel):
    """This machine's AMD GPUs: `[[agent.amdsmi]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field("", description="The node's asset. Default: the machine's name without its domain.")
    parent: str = Field(
        "", description="What the node stands in, if the site file does not say. Default: its default_parent."
    )
    check_s: float = Field(0.5, ge=0, le=10, description="Discovery compares counter and power for so long [s].")
    timeout_s: float = Field(10.0, gt=0, description="Longest time one call may take [s].")


class Library(Protocol):
    """What is used of the module `amdsmi` (AMD SMI Python API, ROCm 6.3 and later)."""

    AmdSmiException: type[Exception]

    def amdsmi_init(self) -> Any:
        """Load the driver's interface."""

    def amdsmi_shut_down(self) -> Any:
        """Let go of it."""

    def amdsmi_get_processor_handles(self) -> list[Any]:
        """Return the GPUs."""

    def amdsmi_get_gpu_device_uuid(self, handle: Any) -> str:
        """Return a GPU's UUID."""

    def amdsmi_get_gpu_asic_info(self, handle: Any) -> dict[str, Any]:
        """Return market_name, asic_serial and more."""

    def amdsmi_get_energy_count(self, handle: Any) -> dict[str, Any]:
        """Return energy_accumulator, counter_resolution [µJ] and timestamp [ns]."""

    def amdsmi_get_power_info(self, handle: Any) -> dict[str, Any]:
        """Return current_socket_power and average_socket_power [W], "N/A" where there is none."""

    def amdsmi_get_gpu_activity(self, handle: Any) -> dict[str, Any]:
        """Return gfx_activity [percent], "N/A" where there is none."""


def load() -> Library:
    """Return the library. Raises MissingExtraError where it is not installed, SourceError where ROCm is missing."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where ROCm is missing it prints, and then raises
            return cast("Library", importlib.import_module("amdsmi"))
    except ImportError as error:
        raise MissingExtraError("wattkeeper.integrations.amdsmi", error.name or "amdsmi", "amdsmi") from error
    except (KeyError, OSError, AttributeError) as error:  # the module is there and libamd_smi.so is not
        raise SourceError(
            f"amdsmi cannot load libamd_smi.so ({error}). Install ROCm's amd-smi-lib, or put its lib folder in "
            "LD_LIBRARY_PATH."
        ) from error
