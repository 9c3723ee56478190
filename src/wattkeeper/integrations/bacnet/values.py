"""What an object's properties say: quantity, unit, and a value that is a reading.

Names and numbers are those of ASHRAE 135: BACnetEngineeringUnits, BACnetStatusFlags, BACnetReliability, and Scale of
the Accumulator object (12.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from wattkeeper.core.units import ENERGY_UNITS_MJ, POWER_UNITS_MW

ENGINEERING_UNITS = {
    47: "W", 48: "kW", 49: "MW", 132: "mW",
    16: "J", 17: "kJ", 126: "MJ", 18: "Wh", 19: "kWh", 146: "MWh",
}  # fmt: skip
"""BACnetEngineeringUnits → our name; all others are neither power nor energy."""

SIZES = {**POWER_UNITS_MW, **ENERGY_UNITS_MJ}

FAULT, OVERRIDDEN, OUT_OF_SERVICE = 1, 2, 3
"""Places in status-flags that say that present-value is not what is measured now."""

FLAGS = {FAULT: "fault", OVERRIDDEN: "overridden", OUT_OF_SERVICE: "out-of-service"}

LARGEST = 2**62
"""A value above is garbage: 146 years of a gigawatt, in mJ."""

Properties = Mapping[str, Any]
"""Property → value of one object, without those that it does not have."""


def unit_of(properties: Properties) -> str:
    """Return the unit an object tells, "" where it is neither power nor energy."""
    units = properties.get("units")
    return ENGINEERING_UNITS.get(int(units), "") if isinstance(units, int) else ""


def quantity_of(unit: str) -> str:
    """Return what a unit measures."""
    return "power" if unit in POWER_UNITS_MW else "energy_counter"


def scale_of(properties: Properties) -> Fraction | None:
    """Return what one count of an object is in its unit: 1, or the scale of an accumulator; None for one that is none."""
    scale = properties.get("scale")
    if scale is None:
        return Fraction(1)
    exponent, factor = getattr(scale, "integerScale", None), getattr(scale, "floatScale", None)
    if exponent is not None:
        return Fraction(10) ** int(exponent) if abs(int(exponent)) <= 20 else None
    return Fraction(str(float(factor))) if factor is not None and math.isfinite(factor) and factor > 0 else None


def why_not(properties: Properties) -> str:
    """Return why an object's value is no reading now; "" where it is one."""
    flags = properties.get("status-flags")
    if flags is not None:
        for place, what in FLAGS.items():
            if len(flags) > place and flags[place]:
                return f"is {what}"
    if properties.get("out-of-service"):
        return "is out-of-service"
    reliability = properties.get("reliability")
    if reliability is not None and int(reliability) != 0:
        return f"has reliability {reliability}"
    if _number(properties) is None:
        return f"has the value {properties.get('present-value', 'none')!s}"
    return ""


def value_of(properties: Properties, size: Fraction) -> int | None:
    """Return the value in mW or mJ, size being one count; None where it is no reading."""
    if why_not(properties):
        return None
    number = _number(properties)
    value = None if number is None else Fraction(number) * size
    return round(value) if value is not None and value <= LARGEST else None


def _number(properties: Properties) -> int | float | None:
    told = properties.get("present-value")
    if isinstance(told, bool) or not isinstance(told, int | float) or not math.isfinite(told) or told < 0:
        return None
    return told
