"""From the tables of the site file to devices."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from wattkeeper.config import AgentConfig, validate
from wattkeeper.core.errors import ConfigError, MissingExtraError
from wattkeeper.core.live import Device

GROUP = "wattkeeper.devices"

LOCAL = ("nvml", "amdsmi", "rapl", "cray", "hwmon", "ipmi")
"""Integrations that read this machine without being told anything; ipmi then asks the machine's own controller."""

QUICK = frozenset({"nvml", "amdsmi", "rapl", "cray"})
QUICK_PERIOD_S, PERIOD_S = 5.0, 15.0
"""How often a device is read where its table does not say: a counter in this machine, and all else [s]."""


class Common(BaseModel):
    """Keys that may stand in each table `[[agent.NAME]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    period_s: float | None = Field(
        None, ge=0.05, description="How often it is read [s]. Default: 5 for nvml, amdsmi, rapl, cray; 15 for others."
    )
    give_up_s: float = Field(
        300.0, gt=0, description="A call that breaks its own time limit is ended after this, at most [s]."
    )


@dataclass(frozen=True, slots=True)
class Planned:
    """A device with how often it is read and when a call to it is given up [s]; kind: the name of its integration."""

    kind: str
    device: Device
    period_s: float
    give_up_s: float


def build(config: AgentConfig) -> list[Planned]:
    """Return the devices of all tables. Raises ConfigError naming the table at fault."""
    planned = [
        one
        for kind, tables in config.tables.items()
        for i, table in enumerate(tables, 1)
        for one in build_one(kind, table, f"[[agent.{kind}]] number {i}" if len(tables) > 1 else f"[[agent.{kind}]]")
    ]
    seen: set[str] = set()
    for one in planned:
        if one.device.name in seen:
            raise ConfigError(f"[[agent.{one.kind}]]: {one.device.name} is named twice. Remove one of its tables.")
        seen.add(one.device.name)
    return planned


def build_one(kind: str, table: dict[str, Any], where: str) -> list[Planned]:
    """Return the devices of one table. Raises ConfigError naming it as `where`."""
    common = validate(Common, {k: v for k, v in table.items() if k in Common.model_fields}, where)
    rest = {k: v for k, v in table.items() if k not in Common.model_fields}
    make, model = _integration(kind, where)
    period_s = common.period_s or (QUICK_PERIOD_S if kind in QUICK else PERIOD_S)
    return [Planned(kind, device, period_s, common.give_up_s) for device in make(validate(model, rest, where))]


def model_of(kind: str, where: str) -> type[BaseModel]:
    """Return the model of an integration's table. Raises ConfigError naming `where` if there is no such integration."""
    return _integration(kind, where)[1]


def _integration(kind: str, where: str) -> tuple[Callable[[Any], list[Device]], type[BaseModel]]:
    """Return what makes the devices of an integration, and the model of its table, from its entry point."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in points:
        raise ConfigError(f"{where}: no integration is named '{kind}'. There are {', '.join(sorted(points))}.")
    try:
        make = points[kind].load()
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{where}", error.name or kind, kind) from error
    return make, typing.get_type_hints(make)["config"]
