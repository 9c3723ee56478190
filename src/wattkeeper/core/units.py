"""Units: what a source says, as the integers we keep.

Energy is kept in millijoules, power in milliwatts, utilisation in parts per million, all int64: integers add
without rounding, so books can close to zero. 1 mW over 1 ms is 1 µJ.
"""

from __future__ import annotations

import math

MJ_PER_KWH = 3_600_000_000
MS_PER_HOUR = 3_600_000
MS_PER_DAY = 86_400_000
PPM = 1_000_000

ENERGY_UNITS_MJ: dict[str, float] = {
    "uJ": 1e-3,
    "mJ": 1.0,
    "J": 1e3,
    "kJ": 1e6,
    "MJ": 1e9,
    "Wh": 3.6e6,
    "kWh": 3.6e9,
    "MWh": 3.6e12,
}
"""Millijoules in one unit of energy."""

POWER_UNITS_MW: dict[str, float] = {"uW": 1e-3, "mW": 1.0, "W": 1e3, "kW": 1e6, "MW": 1e9}
"""Milliwatts in one unit of power."""

RATIO_UNITS_PPM: dict[str, float] = {"ratio": 1e6, "percent": 1e4}
"""Parts per million in one unit of utilisation."""

UNITS_OF_QUANTITY: dict[str, dict[str, float]] = {
    "energy_counter": ENERGY_UNITS_MJ,
    "energy_interval": ENERGY_UNITS_MJ,
    "power": POWER_UNITS_MW,
    "utilisation": RATIO_UNITS_PPM,
}
"""For each quantity a meter can report: the units it may come in and their size in the unit we keep."""


def kwh(energy_mj: float) -> float:
    """Return millijoules as kilowatt-hours."""
    return energy_mj / MJ_PER_KWH


def float32_step(value: float) -> float:
    """Return how far the next 32-bit float is from a value, which is the least step of a counter kept in one."""
    return 2.0 ** (math.frexp(value)[1] - 24) if value else 0.0
