"""The table of pm_counters in the site file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """This node's pm_counters: `[[agent.cray]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field("", description="The node's asset. Default: the machine's name without its domain.")
    parent: str = Field(
        "", description="What the node stands in, if the site file does not say. Default: its default_parent."
    )
    path: Path = Field(Path("/sys/cray/pm_counters"), description="Where the counters are.")
    timeout_s: float = Field(10.0, gt=0, description="Longest time a sample may take [s].")
    stale_s: float = Field(5.0, gt=0, description="Without an update for so long the counters have stopped [s].")
