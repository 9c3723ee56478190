"""Modbus units as meters: energy and power of a register map, read in as few requests as will do."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from fractions import Fraction

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.core.units import float32_step
from wattkeeper.integrations.modbus.checks import coarse, doubts
from wattkeeper.integrations.modbus.link import Config, Line, Link, MeterConfig, RefusedError
from wattkeeper.integrations.modbus.profile import LARGEST, Point, Profile, chosen, profiles
from wattkeeper.integrations.modbus.sunspec import chain, meters

RANK = 35
"""Below what reads a GPU or a processor itself, above what PDUs and controllers tell of a whole node or rack."""

QUANTITIES = {"energy": "energy_counter", "power": "power"}

MOST_EXPONENT = 10
"""A SunSpec scale factor is within ±10; anything else is none."""

APART = -1
"""Values that no request may share, even side by side."""

Words = dict[int, int]


def devices(config: Config) -> list[Device]:
    """Return one device for each unit that a table names; they share its connection."""
    known = profiles(config.profiles)
    line = Line(config)
    return [ModbusDevice(config, one, chosen(one.profile, known), line) for one in config.meter]


class ModbusDevice:
    """One unit. clock: seconds since 1970, as meters' own clocks are seldom set."""

    def __init__(
        self,
        config: Config,
        meter: MeterConfig,
        known: tuple[Profile, ...],
        line: Line,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._meter, self._known, self._clock = meter, known, clock
        self._link = Link(line, config, meter.unit)
        self._where = f"{config.host}/{config.port}/{meter.unit}"
        self.name = self._link.name
        self._profile, self._base = known[0], 0
        self._meters: dict[str, Meter] = {}
        self._level = 0

    async def discover(self) -> Discovery:
        """Return what the unit measures, and what does not agree. Raises SourceError where it does not answer."""
        found = Discovery(assets=[Asset(self._meter.asset, self._meter.kind, self._meter.parent)])
        async with self._link.turn(discover=True):
            self._level = 0
            found.doubts += await self._find()
            words = await self._read(self._profile.points)
            self._level = 0  # what is sampled may stand together
            points = self._profile.points
            values = {name: value for name, point in points.items() if (value := self._value(point, words)) is not None}
            self._meters = {
                name: self._as_meter(quantity, points[name], words)
                for name, quantity in QUANTITIES.items()
                if name in values and 0 <= values[name] <= LARGEST
            }
        found.meters += self._meters.values()
        if not self._meters:
            found.doubts.append(
                f"{self.name} tells neither energy nor power by the profile '{self._profile.name}'. Choose another."
            )
        found.doubts += doubts(self.name, _readable(values))
        found.doubts += coarse(self.name, found.meters, points["energy"].type if "energy" in points else "")
        return found

    async def sample(self) -> list[Sample]:
        """Return energy and power, where the unit tells them. Raises SourceError where it does not answer."""
        if not self._meters:
            await self.discover()
        try:
            async with self._link.turn():
                words = await self._read(self._meters)
                values = {m.id: self._value(self._profile.points[name], words) for name, m in self._meters.items()}
        except RefusedError:
            self._meters = {}  # another meter may stand there now
            raise
        time_ms = round(self._clock() * 1000)
        return [
            Sample(meter, time_ms, round(value))
            for meter, value in values.items()
            if value is not None and 0 <= value <= LARGEST
        ]

    async def close(self) -> None:
        """Leave the line; the next call connects again."""
        self._link.close()

    async def _find(self) -> list[str]:
        """Find the model in a SunSpec chain; a plain profile is where it is. Return doubts."""
        if not self._known[0].models:
            return []
        models = await chain(self._link)
        if not models:
            raise SourceError(f"{self.name} has no SunSpec marker at 40000, 0 or 50000. Name the profile of its maker.")
        found = meters(models, self._known)
        if not found:
            told = ", ".join(str(model) for model, _address in models[:12])
            raise SourceError(f"{self.name} has SunSpec models {told}, and no meter (201 to 214) among them.")
        (self._profile, self._base), *more = found
        return [
            f"{self.name} has a further SunSpec meter at {address}, which is not read. Read it by a unit id of its own."
            for _profile, address in more
        ]

    async def _read(self, names: Iterable[str]) -> Words:
        """Read the registers of some points, within a turn. Raises RefusedError where the unit has none of them."""
        wanted = set()
        for name in names:
            point = self._profile.points[name]
            wanted.add((self._base + point.address, point.count))
            if point.scale_address is not None:
                wanted.add((self._base + point.scale_address, 1))
        words: Words = {}
        refused: list[RefusedError] = []
        await self._fetch(wanted, self._level, words, refused)
        if refused and not words:
            raise refused[0]
        return words

    async def _fetch(
        self, wanted: Collection[tuple[int, int]], level: int, words: Words, refused: list[RefusedError]
    ) -> None:
        """Read what is wanted; a request that is refused is split, first at its gaps, then into single values."""
        together = (self._profile.together, 0, APART)[level]
        for start, count in spans(wanted, together, self._profile.longest):
            inside = [one for one in wanted if start <= one[0] < start + count]
            try:
                words.update(enumerate(await self._link.read(self._profile.table, start, count), start))
            except RefusedError as error:
                if len(inside) == 1:
                    refused.append(error)
                    continue
                self._level = max(self._level, level + 1)
                await self._fetch(inside, level + 1, words, refused)

    def _registers(self, point: Point, words: Words) -> list[int] | None:
        found = [words.get(self._base + point.address + at) for at in range(point.count)]
        return None if None in found else [word for word in found if word is not None]

    def _scale(self, point: Point, words: Words) -> Fraction | None:
        """Return the size of one count in mW, mJ, V, A or 1; None where its scale register tells none."""
        exponent = 0
        if point.scale_address is not None:
            word = words.get(self._base + point.scale_address)
            if word is None:
                return None
            exponent = word - 0x1_0000 if word & 0x8000 else word
            if abs(exponent) > MOST_EXPONENT:
                return None
        metered = point.unit not in ("V", "A", "ratio", "percent")
        factor = Fraction(str(self._meter.factor)) if metered else Fraction(1)
        return point.size * Fraction(10) ** exponent * factor

    def _value(self, point: Point, words: Words) -> Fraction | None:
        registers, scale = self._registers(point, words), self._scale(point, words)
        if registers is None or scale is None:
            return None
        raw = point.raw(registers, self._profile.order)
        return None if raw is None else Fraction(raw) * scale

    def _as_meter(self, quantity: str, point: Point, words: Words) -> Meter:
        asset = self._meter.asset
        size = self._scale(point, words) or Fraction(0)
        wrap = Fraction(point.wrap or 0) * size
        raw = point.raw(self._registers(point, words) or [], self._profile.order)
        step = Fraction(float32_step(float(raw or 0)) if point.type == "float32" else "int" in point.type) * size
        return Meter(
            f"{asset}:{self._where}:modbus:{quantity}",
            asset,
            quantity,
            "modbus",
            RANK,
            accuracy_pct=self._profile.accuracy_pct,
            wrap_mj=round(wrap) if wrap <= LARGEST else 0,
            resolution_mj=round(step) if quantity == "energy_counter" else 0,
        )


def spans(wanted: Collection[tuple[int, int]], together: int, longest: int) -> list[tuple[int, int]]:
    """Return the requests (address, count) that cover what is wanted, over gaps of at most `together` registers."""
    found: list[tuple[int, int]] = []
    for address, count in sorted(wanted):
        if found:
            start, size = found[-1]
            end = max(start + size, address + count)
            if address - (start + size) <= together and end - start <= longest:
                found[-1] = (start, end - start)
                continue
        found.append((address, count))
    return found


def _readable(values: dict[str, Fraction]) -> dict[str, float]:
    """Return values in W, V, A and 1, without the energy."""
    return {
        name: float(value / 1000 if name.startswith("power") and "factor" not in name else value)
        for name, value in values.items()
        if name != "energy"
    }
