"""A PDU, UPS or meter that speaks SNMP as a device that is read live: energy counters first, power beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import NamedTuple

from wattkeeper.config import expand_hosts
from wattkeeper.core.assets import Asset, Meter, undeclared
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.integrations.snmp.checks import doubts, of_whole
from wattkeeper.integrations.snmp.link import Config, Link
from wattkeeper.integrations.snmp.profile import Profile, Value, candidates, filled, profiles_of
from wattkeeper.integrations.snmp.readings import MOST, Raw, Reading, number, present, read, worth

DESCRIPTION, OBJECT_ID, UP_TIME = "1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.2.0", "1.3.6.1.2.1.1.3.0"

RANK = 40

COARSE_S = 300
"""An energy counter that takes longer for one step says little about short jobs."""


class Point(NamedTuple):
    """One meter and where its value stands. size: what one step of the raw number is in mJ or mW, as a fraction."""

    meter: Meter
    oid: str
    value: Value
    row: tuple[str, ...]
    size: tuple[int, int]

    @property
    def oids(self) -> list[str]:
        """What to ask for: whether it is there, then the value."""
        return [*([filled(self.value.present, self.row)] if self.value.present else []), self.oid]

    def read(self, told: dict[str, Raw]) -> int | None:
        """Return the value in mJ or mW; None where there is none."""
        raw = worth(self.value, told.get(self.oid))
        if raw is None or raw < 0 or not present(self.value, self.row, told):
            return None
        over, under = self.size
        found = round(raw * over / under)
        return found if found < MOST else None


def devices(config: Config) -> list[Device]:
    """Return one device for each that a table names. Raises ConfigError where a profile is wrong."""
    known = profiles_of(config.profiles)
    if config.profile and config.profile not in known:
        raise ConfigError(
            f"No SNMP profile named '{config.profile}'. Known: {', '.join(sorted(known))}. "
            "Correct profile in [[agent.snmp]], or put the file in the folder that profiles names."
        )
    assets = expand_hosts(config.assets) if config.assets else [config.asset]
    return [SnmpDevice(config, asset) for asset in assets]


class SnmpDevice:
    """One PDU, UPS or meter. clock: seconds since 1970; SNMP values carry no time."""

    def __init__(self, config: Config, asset: str, *, clock: Callable[[], float] = time.time) -> None:
        self._config, self._asset, self._clock = config, asset, clock
        self._inlets = {name: fed.replace("{asset}", asset) for name, fed in config.inlets.items()}
        self._feeds = {name: fed.replace("{asset}", asset) for name, fed in config.outlets.items()}
        self._link = Link(config.host.replace("{asset}", asset), config)
        self.name = self._link.name
        self._points: list[Point] | None = None
        self._up_time = -1

    async def readings(self) -> tuple[Profile, list[Reading], str]:
        """Return the profile that fits, everything it can read, and the model. Raises SourceError."""
        limit_s = self._config.discover_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._look()
        except TimeoutError as error:
            raise self._late(limit_s, "discover_timeout_s") from error

    async def discover(self) -> Discovery:
        """Return the assets and meters it has. Raises SourceError where it does not answer or is of an unknown model."""
        profile, told, model = await self.readings()
        found = Discovery()
        found.assets.append(Asset(self._asset, self._config.kind, self._config.parent, model))
        points = self._whole(told, found) + self._outlets(told, found)
        found.meters = [point.meter for point in points]
        found.assets += [Asset(fed, self._config.kind, self._config.parent) for fed in self._fed()]
        found.assets += undeclared(found.meters, found.assets, found.assets[0])
        found.doubts += doubts(self.name, told)
        if not points:
            found.doubts.append(
                f"{self.name}: profile {profile.name} finds neither power nor energy. "
                "Is it a metered model? Else correct profile, or write one for it."
            )
        self._points = points
        return found

    def _fed(self) -> list[str]:
        return sorted({*self._inlets.values()} - {self._asset})

    async def sample(self) -> list[Sample]:
        """Return one value of each meter that could be read. Raises SourceError where it does not answer."""
        if self._points is None:
            await self.discover()
        told, times_ms = await self._read()
        up_time = number(told.get(UP_TIME))
        if up_time is not None and up_time < self._up_time:
            await self.discover()  # it started again: rows and scales may be others
            told, times_ms = await self._read()
            up_time = number(told.get(UP_TIME))
        self._up_time = int(up_time) if up_time is not None else -1
        return [
            Sample(point.meter.id, times_ms[point.oid], value)
            for point in self._points or []
            if (value := point.read(told)) is not None
        ]

    async def close(self) -> None:
        """Do nothing: no socket is open between calls."""

    async def _read(self) -> tuple[dict[str, Raw], dict[str, int]]:
        """Return values and the times at which they came [ms UTC]; what came before a fault counts."""
        told: dict[str, Raw] = {}
        times_ms: dict[str, int] = {}
        oids = [UP_TIME, *(oid for point in self._points or [] for oid in point.oids)]
        try:
            async with asyncio.timeout(self._config.timeout_s):
                async for part in self._link.parts(oids):
                    told |= part
                    times_ms |= dict.fromkeys(part, round(self._clock() * 1000))
        except TimeoutError as error:
            if not told:
                raise self._late(self._config.timeout_s, "timeout_s") from error
        except SourceError:
            if not told:
                raise
        return told, times_ms

    async def _look(self) -> tuple[Profile, list[Reading], str]:
        """Read by the closest profile that finds what the whole device draws; else by the closest that fits."""
        about = await self._link.get([OBJECT_ID, DESCRIPTION])
        object_id, description = _text(about.get(OBJECT_ID)), _text(about.get(DESCRIPTION))
        closest: tuple[Profile, list[Reading], str] | None = None
        async for profile in self._fitting(object_id):
            told = await self._link.get(profile.scalars)
            for root in profile.roots:
                told |= await self._link.walk(root)
            found = read(profile, told)
            closest = closest or (profile, found, _text(told.get(profile.model)) or description)
            if of_whole(found, "power") or of_whole(found, "energy_counter"):
                return profile, found, _text(told.get(profile.model)) or description
        if closest is None:
            raise SourceError(
                f"{self.name} is of an unknown model: sysObjectID {object_id or 'none'}, '{description[:60]}'. "
                "Name the profile of a like model in [[agent.snmp]], or write one."
            )
        return closest

    async def _fitting(self, object_id: str) -> AsyncIterator[Profile]:
        known = profiles_of(self._config.profiles)
        if self._config.profile:
            yield known[self._config.profile]
            return
        for profile in candidates(known.values(), object_id):
            if await self._link.has(profile.probe):
                yield profile

    def _whole(self, told: list[Reading], found: Discovery) -> list[Point]:
        """Take what the whole device draws: energy, and power; of other levels where the first has not both."""
        energies, powers = of_whole(told, "energy_counter"), of_whole(told, "power")
        apart = bool(energies and powers) and energies[0].level != powers[0].level
        points = [*self._points_of(energies, RANK), *self._points_of(powers, RANK + apart)]
        rows = {one.label for one in energies or powers}
        if self._inlets:
            if missing := sorted(self._inlets.keys() - rows):
                found.doubts.append(
                    f"{self.name} has no inlet {', '.join(missing)}. It has {', '.join(sorted(rows)) or 'none'}: "
                    "correct inlets."
                )
        elif (
            len(rows) > 1
            and (energies or powers)[0].whole == 1
            and (energies or powers)[0].level not in ("phase", "output")
        ):
            found.doubts.append(
                f"{self.name} has inlets {', '.join(sorted(rows))}, added up as {self._asset}. Where they feed "
                f'different things, say which: inlets = {{ "{min(rows)}" = "{self._asset}" }}.'
            )
        self._say_coarse(energies, powers, found)
        return points

    def _points_of(self, rows: list[Reading], rank: int) -> list[Point]:
        source = "snmp" if rows and rows[0].whole == 1 else f"snmp-{rows[0].level}" if rows else ""
        inlets = self._inlets
        return [
            self._point(one, inlets.get(one.label, self._asset), source, rank)
            for one in rows
            if one.label in inlets or not inlets
        ]

    def _outlets(self, told: list[Reading], found: Discovery) -> list[Point]:
        """Take the outlets that the site file names."""
        rows = [one for one in told if one.level == "outlet" and one.quantity in ("energy_counter", "power")]
        metered = list(dict.fromkeys(one.label for one in rows))
        if missing := [outlet for outlet in self._feeds if outlet not in metered]:
            found.doubts.append(
                f"{self.name} does not meter outlet {', '.join(missing)}. It meters "
                f"{', '.join(metered) or 'none'}: correct outlets, or measure otherwise."
            )
        if unnamed := [one for one in metered if one not in self._feeds]:
            found.doubts.append(
                f"{self.name} meters outlets {', '.join(unnamed)}: say what they feed, "
                f'outlets = {{ "{unnamed[0]}" = "n01" }}.'
            )
        return [
            self._point(one, self._feeds[one.label], "snmp-outlet", RANK) for one in rows if one.label in self._feeds
        ]

    def _point(self, one: Reading, asset: str, source: str, rank: int) -> Point:
        row = f"{one.level}-{one.label}" if one.label else one.level
        size = (one.step * one.size).as_integer_ratio()
        meter = Meter(
            f"{asset}:{self._link.place}/{row}:{source}:{one.quantity}",
            asset,
            one.quantity,
            source,
            rank,
            accuracy_pct=5.0,
            wrap_mj=one.spec.wrap * size[0] // size[1],
            resolution_mj=size[0] // size[1] if one.quantity == "energy_counter" else 0,
        )
        return Point(meter, one.oid, one.spec, one.index, size)

    def _say_coarse(self, energies: list[Reading], powers: list[Reading], found: Discovery) -> None:
        power_w = sum((one.base for one in powers), Decimal(0))
        if not energies or not power_w:
            return
        step_wh = max(one.step * one.size for one in energies) / 3_600_000
        if (every_s := float(step_wh / power_w * 3600)) > COARSE_S:
            found.doubts.append(
                f"{self.name} counts energy in steps of {float(step_wh):g} Wh, one in {every_s:.0f} s at "
                f"{float(power_w):.0f} W: measure what runs for minutes at the node."
            )

    def _late(self, limit_s: float, option: str) -> SourceError:
        return SourceError(
            f"{self.name} did not answer within {limit_s:g} s. Check address and network, or raise {option}."
        )


def _text(raw: Raw) -> str:
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "replace").strip("\0 \t\r\n")
    return raw if isinstance(raw, str) else ""
