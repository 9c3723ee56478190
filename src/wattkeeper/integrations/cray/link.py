"""The table of pm_counters in the site file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """This node's pm_counters: `[[agent.cray]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field("", description="The node's asset. Default: the machine's name without its domain.")
    parent: str = Field("", description="What the node stands in. Left out where the site file declares the node.")
    path: Path = Field(Path("/sys/cray/pm_counters"), description="Where the counters are.")
    stale_s: float = Field(5.0, gt=0, description="Without an update for so long the counters have stopped [s].")
