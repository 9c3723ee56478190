"""The table of hwmon in the site file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class SensorConfig(BaseModel):
    """One sensor that no driver's name places, such as a rail of a board."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chip: str = Field(description="The chip as discovery names it: driver, or driver@device where there are several.")
    sensor: str = Field(description="The sensor's label, or its number such as power1 or energy2.")
    asset: str = Field(description="The asset it measures.")
    source: str = Field("hwmon-sensor", description="Sensors of one source and asset add up, others only confirm.")


class Config(BaseModel):
    """This machine's hwmon sensors: `[[agent.hwmon]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field("", description="The node's asset. Default: the machine's name without its domain.")
    parent: str = Field(
        "", description="What the node stands in, if the site file does not say. Default: its default_parent."
    )
    path: Path = Field(Path("/sys/class/hwmon"), description="Where the kernel shows the sensors.")
    timeout_s: float = Field(10.0, gt=0, description="Longest time a sample may take; ACPI asks the BMC [s].")
    sensor: list[SensorConfig] = Field(default_factory=list, description="Further sensors to read.")
