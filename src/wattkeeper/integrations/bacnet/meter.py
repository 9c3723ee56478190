"""Objects of BACnet devices as meters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.core.units import ENERGY_UNITS_MJ, float32_step
from wattkeeper.integrations.bacnet.link import Config, DeviceConfig, Link, Net, ObjectConfig, Values
from wattkeeper.integrations.bacnet.values import (
    LARGEST,
    SIZES,
    Properties,
    quantity_of,
    scale_of,
    unit_of,
    value_of,
    why_not,
)

RANK = 55
"""Behind what is read from the meter itself: management systems poll slowly and convert what they have."""

SAMPLED = ("present-value", "status-flags", "reliability", "out-of-service")
ASKED = (*SAMPLED, "units", "scale", "max-pres-value")
LISTED = ("units", "object-name")

NUMBERED = ("analog-input", "analog-value", "analog-output", "large-analog-value", "integer-value",
            "positive-integer-value", "accumulator")  # fmt: skip
"""Object types whose present-value is a number with a unit."""

MOST_LISTED = 500

COARSE_MJ = 100 * ENERGY_UNITS_MJ["Wh"]


def devices(config: Config) -> list[Device]:
    """Return one device for each that a table names; they share a port of ours."""
    net = Net(config)
    return [BacnetDevice(config, one, net) for one in config.device]


class Point(NamedTuple):
    """One object: its meter, and the size of one count in mW or mJ."""

    meter: Meter
    name: str
    size: Fraction


class BacnetDevice:
    """One BACnet device. clock: seconds since 1970."""

    def __init__(
        self, config: Config, device: DeviceConfig, net: Net, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._device, self._clock = device, clock
        self._link = Link(net, config, device)
        self._points: list[Point] = []
        self.name = self._link.name

    async def discover(self) -> Discovery:
        """Return what its objects measure, or what it has where none is declared. Raises SourceError."""
        self._link.forget()
        found = Discovery()
        if not self._device.object:
            found.doubts = await self._unplaced()
            return found
        values = await self._link.read([(one.object, ASKED) for one in self._device.object], discover=True)
        if not values:
            raise SourceError(
                f"{self.name} has none of {', '.join(one.object for one in self._device.object[:4])}. "
                "Leave out its objects once: discovery then lists what it has."
            )
        self._points = []
        for one in self._device.object:
            properties = _of(values, one.object)
            point, doubts = self._point(one, properties)
            found.doubts += doubts
            if point is None:
                continue
            self._points.append(point)
            found.meters.append(point.meter)
            if one.asset not in {asset.id for asset in found.assets}:
                found.assets.append(Asset(one.asset, one.kind, one.parent))
        return found

    async def sample(self) -> list[Sample]:
        """Return the values of its objects that are readings now. Raises SourceError where it does not answer."""
        if not self._points:
            await self.discover()
        values = await self._link.read([(point.name, SAMPLED) for point in self._points])
        time_ms = round(self._clock() * 1000)
        told = [(point, value_of(_of(values, point.name), point.size)) for point in self._points]
        return [Sample(point.meter.id, time_ms, value) for point, value in told if value is not None]

    async def close(self) -> None:
        """Leave the port; the next call opens it again."""
        self._link.close()

    def _point(self, one: ObjectConfig, properties: Properties) -> tuple[Point | None, list[str]]:
        """Return an object as a meter, and what is doubtful about it."""
        where = f"{self.name} {one.object}"
        if not properties:
            return None, [f"{where} is not there. Leave out the device's objects once: discovery lists what it has."]
        told = unit_of(properties)
        unit = one.unit or told
        scale = scale_of(properties)
        if not unit or scale is None:
            what = "unit that is power or energy" if not unit else "scale"
            return None, [f"{where} tells no {what} ({properties.get('units', 'none')!s}). Give its unit."]
        doubts = []
        if one.unit and told and told != one.unit:
            doubts.append(f"{where} says {told}, the site file {one.unit}, which is used. Leave out the wrong one.")
        if reason := why_not(properties):
            doubts.append(f"{where} {reason}: it gives no reading until that has passed.")
        quantity = quantity_of(unit)
        size = scale * Fraction(SIZES[unit])
        wrap = (int(properties.get("max-pres-value", -1)) + 1) * size if one.object.startswith("accumulator") else 0
        step_mj = round(_step(one.object, properties) * size) if quantity == "energy_counter" else 0
        if one.object.startswith("analog") and step_mj >= COARSE_MJ:
            doubts.append(
                f"{where} keeps its energy in a 32-bit float, which by now steps by {step_mj / ENERGY_UNITS_MJ['Wh']:g} Wh. "
                "Ask for an accumulator or a large-analog-value of it."
            )
        meter = Meter(
            f"{one.asset}:{self._link.key}/{one.object}:bacnet:{quantity}",
            one.asset,
            quantity,
            "bacnet",
            RANK,
            wrap_mj=round(wrap) if quantity == "energy_counter" and wrap <= LARGEST else 0,
            resolution_mj=step_mj,
        )
        return Point(meter, one.object, size), doubts

    async def _unplaced(self) -> list[str]:
        """Return what a device has that tells power or energy, to be placed in the site file."""
        names = [name for name in await self._link.objects() if name.partition(",")[0] in NUMBERED]
        values = await self._link.read([(name, LISTED) for name in names[:MOST_LISTED]], discover=True)
        listed = [
            f'{name} "{properties.get("object-name", "")!s}" [{unit}]'
            for name in names[:MOST_LISTED]
            if (unit := unit_of(properties := _of(values, name)))
        ]
        more = f" Of {len(names)} objects the first {MOST_LISTED} were looked at." if len(names) > MOST_LISTED else ""
        if not listed:
            return [f"{self.name} has no object whose unit is power or energy.{more} Name object and unit."]
        return [f"{self.name} has {', '.join(listed)}. Place those you need with [[agent.bacnet.device.object]].{more}"]


def _step(name: str, properties: Properties) -> Fraction:
    """Return the least step of a counter in its counts: analog objects are 32-bit floats, of doubles it is not known."""
    if name.startswith("analog"):
        value = properties.get("present-value")
        return Fraction(float32_step(value)) if isinstance(value, float) and math.isfinite(value) else Fraction(0)
    return Fraction(0 if name.startswith("large") else 1)


def _of(values: Values, name: str) -> dict[str, object]:
    return {what: value for (one, what), value in values.items() if one == name}
