"""Layouts: the ready-made ones, and finding one by name."""

from __future__ import annotations

from collections.abc import Mapping

from wattkeeper.config import CsvConfig
from wattkeeper.core.errors import ConfigError


def _electricity_maps(zone: str, value: str) -> CsvConfig:
    return CsvConfig(
        kind="signals",
        columns={"start": "Datetime (UTC)", "value": value},
        signal=f"intensity:{{{zone}}}",
        unit="g/kWh",
        method="average, lifecycle",
        provider="Electricity Maps",
    )


BUILTIN: dict[str, CsvConfig] = {
    "readings": CsvConfig(kind="readings"),
    "jobs": CsvConfig(kind="jobs"),
    "allocations": CsvConfig(kind="allocations"),
    "signals": CsvConfig(kind="signals"),
    "assets": CsvConfig(kind="assets"),
    "electricitymaps": _electricity_maps("Zone Id", "Carbon Intensity gCO₂eq/kWh (LCA)"),
    "electricitymaps-2025": _electricity_maps("Zone id", "Carbon intensity gCO₂eq/kWh (Life cycle)"),
}
"""Layouts that need no entry in the site file. The first five are our own tables, with our own column names;
the Electricity Maps portal renamed its columns, in 2025, so its exports have two layouts."""


def find_layout(name: str, own: Mapping[str, CsvConfig]) -> CsvConfig:
    """Return a layout of the site file, else a ready-made one. Raises ConfigError when neither has the name."""
    if name in own:
        return own[name]
    if name in BUILTIN:
        return BUILTIN[name]
    mine = f"The site file has {', '.join(own)}; r" if own else "R"
    raise ConfigError(
        f"No CSV layout named '{name}'. {mine}eady-made are {', '.join(BUILTIN)}. "
        f"Describe it under [csv.{name}] in the site file."
    )
