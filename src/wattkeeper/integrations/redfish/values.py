"""What a Redfish page says, as numbers: units, states, times, and the address under which a value is known.

Names and meanings are those of DMTF DSP0268 (schemas 2025.4): Sensor, EnvironmentMetrics, Power, MetricReport.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from wattkeeper.core.clock import to_ms
from wattkeeper.core.units import ENERGY_UNITS_MJ, POWER_UNITS_MW

UNITS: dict[str, tuple[str, float]] = {
    **{unit: ("power", size) for unit, size in POWER_UNITS_MW.items()},
    **{unit: ("energy_counter", size) for unit, size in ENERGY_UNITS_MJ.items()},
    "kW.h": ("energy_counter", ENERGY_UNITS_MJ["kWh"]),
    "W.h": ("energy_counter", ENERGY_UNITS_MJ["Wh"]),
    "Watts": ("power", POWER_UNITS_MW["W"]),
    "Joules": ("energy_counter", ENERGY_UNITS_MJ["J"]),
}
"""Unit as a service writes it → quantity, and its size in the unit we keep. DSP0268 wants UCUM, where kWh is kW.h."""

READING_TYPES = {"Power": "W", "EnergyJoules": "J", "EnergykWh": "kWh", "EnergyWh": "Wh"}
"""Sensor.ReadingType → the unit it stands for where ReadingUnits is missing."""

NO_VALUE_STATES = frozenset({"Absent", "Disabled", "UnavailableOffline", "StandbyOffline", "Deferring"})
"""Resource.Status.State in which a reading means nothing."""

EPOCH_MS = 946_684_800_000
"""2000-01-01: clocks that say less were never set."""

LIMIT_WORDS = frozenset({
    "limit", "limits", "cap", "capacity", "budget", "threshold", "tdp", "rated", "setpoint", "max", "maximum", "min",
    "minimum", "peak", "average", "avg", "allowed", "allocated", "headroom", "available", "requested", "nominal",
})  # fmt: skip
"""Words in the id of a sensor of ReadingType Power that is no consumption; nor is NVIDIA's EDP, a design point."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?$", re.IGNORECASE)


def number(value: Any) -> float | None:
    """Return a reading as a number; None for null, NaN, text, booleans and what is below zero."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


def time_ms(value: Any) -> int | None:
    """Return a Redfish date-time [ms UTC]; None where there is none, or it comes from a clock that was never set."""
    match = _TIME.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    seconds, fraction, zone = match.groups()
    zone = "+00:00" if zone in (None, "Z", "z") else zone
    try:
        moment = datetime.fromisoformat(seconds + (fraction or "")[:7] + zone)
    except ValueError:
        return None
    found = to_ms(moment.astimezone(UTC))
    return found if found >= EPOCH_MS else None


def enabled(page: Any) -> bool:
    """Return whether a resource is there and at work; a resource without a state is."""
    status = page.get("Status") if isinstance(page, dict) else None
    return not (isinstance(status, dict) and str(status.get("State")) in NO_VALUE_STATES)


def unit_of(sensor: Any) -> str:
    """Return a power or energy sensor's unit, one of UNITS; "" where it measures something else, or nobody knows what."""
    told = label(sensor, "ReadingUnits")
    return (told if told in UNITS else "") if told else READING_TYPES.get(label(sensor, "ReadingType"), "")


def is_limit(name: str) -> bool:
    """Return whether a sensor of ReadingType Power is a limit or a statistic by its id: no field of the schema says."""
    found = words(name)
    return bool(found & LIMIT_WORDS) or any(word.startswith("edp") for word in found)


def words(name: str) -> set[str]:
    """Return the words of an id in any spelling: total_power_in, TotalPowerIn, "Total Power In"."""
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))


def address(uri: Any) -> str:
    """Return one spelling of where a value lives: no trailing slash, no pointer to a sensor's own Reading."""
    path, _, pointer = uri.partition("#") if isinstance(uri, str) else ("", "", "")
    pointer = f"/{pointer.strip('/')}".removesuffix("/Reading").strip("/")
    return path.rstrip("/") + (f"#/{pointer}" if pointer else "")


def pointed(page: Any, pointer: str) -> Iterator[Any]:
    """Yield the page and each object on the way to a JSON pointer (RFC 6901); it ends early where there is none."""
    yield page
    for step in filter(None, pointer.split("/")):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(page, dict) and key in page:
            page = page[key]
        elif isinstance(page, list) and key.isdigit() and int(key) < len(page):
            page = page[int(key)]
        else:
            yield None
            return
        yield page


def label(page: Any, name: str) -> str:
    """Return a property that is a text, such as an enumeration; "" where it is not."""
    value = page.get(name) if isinstance(page, dict) else None
    return value if isinstance(value, str) else ""


def links(page: Any, *names: str) -> list[str]:
    """Return the URIs behind a property, or behind a property of Links: one, many or none."""
    for name in names:
        page = page.get(name) if isinstance(page, dict) else None
    found = page if isinstance(page, list) else [page]
    return [str(one["@odata.id"]).rstrip("/") for one in found if isinstance(one, dict) and one.get("@odata.id")]
