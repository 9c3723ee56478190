"""What is published to a broker, as meters: the newest value of each, as long as it is not too old."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from wattkeeper.config import expand_hosts
from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.clock import zone
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.core.units import ENERGY_UNITS_MJ
from wattkeeper.integrations.mqtt.link import Config, Link, ReadingConfig, TopicConfig
from wattkeeper.integrations.mqtt.payload import NOTHING, parse, pointed, scaled, time_ms

RANK = 60
"""Behind all that is read from the hardware itself: a broker's publishers are of every kind."""

SKEW_MS = 120_000
"""A publisher's clock that is further from ours than this is doubted."""

LEAST_GAP_MS = 300_000

MOST_SHOWN = 60


def devices(config: Config) -> list[Device]:
    """Return the device that a table names."""
    return [MqttDevice(config)]


class Point(NamedTuple):
    """One value of one topic: its meter, how it is read, and the asset as the site should know it."""

    meter: Meter
    reading: ReadingConfig
    asset: Asset


class Pattern(NamedTuple):
    """Topics that differ in the asset, for whoever publishes."""

    regex: re.Pattern[str]
    reading: ReadingConfig
    topic: TopicConfig


class MqttDevice:
    """One broker. clock: seconds since 1970, for messages that carry no time of their own."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._zone = zone(config.zone) if config.zone else None
        self._points: dict[str, list[Point]] = defaultdict(list)
        self._patterns: list[Pattern] = []
        subscriptions = [s for topic in config.topic for s in self._place(topic)]
        self._link = Link(config, list(dict.fromkeys(subscriptions)), self._take)
        self._latest: dict[str, Sample] = {}
        self._faults: dict[str, str] = {}
        self._declared: set[str] = set()
        self._news = asyncio.Event()
        self._since_s = 0.0
        self.name = self._link.name

    async def discover(self) -> Discovery:
        """Return what is declared and who publishes, after listening. Raises SourceError without a broker."""
        await self._listen()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.listen_s):
                while self._patterns or not self._complete():
                    self._news.clear()
                    await self._news.wait()
        found = Discovery()
        for point in self._all():
            if point.asset.id not in {asset.id for asset in found.assets}:
                found.assets.append(point.asset)
            found.meters.append(point.meter)
        self._declared = {meter.id for meter in found.meters}
        found.doubts += self._doubts()
        return found

    async def sample(self) -> list[Sample]:
        """Return the newest values. Raises SourceError without a broker, and where all have been silent for too long."""
        if not self._declared:
            await self.discover()
        await self._listen()
        age_ms = round(self._config.max_age_s * 1000)
        now_ms = round(self._clock() * 1000)
        fresh = [
            sample
            for meter, sample in self._latest.items()
            if meter in self._declared and abs(now_ms - sample.time_ms) <= age_ms
        ]
        if not fresh and self._clock() - self._since_s > self._config.max_age_s:
            raise SourceError(
                f"{self.name} has had nothing for {self._config.max_age_s:g} s on {', '.join(self._topics())}. "
                "Check that they still publish, and to this broker."
            )
        return fresh

    async def close(self) -> None:
        """Disconnect; the next call connects again."""
        await self._link.close()

    async def _listen(self) -> None:
        await self._link.listen()
        self._since_s = self._since_s or self._clock()

    def _place(self, topic: TopicConfig) -> Iterator[str]:
        """Remember the points or patterns of a table, and yield what to subscribe to."""
        names = {name: name for name in expand_hosts(topic.nodes)} if topic.nodes else topic.assets
        for reading in topic.readings():
            if topic.asset:
                names = {"": topic.asset}
            if names:
                for name, asset in names.items():
                    where = reading.topic.replace("{asset}", name)
                    self._points[where].append(self._point(topic, reading, where, asset))
                    yield where
            else:
                parts = [re.escape(part) for part in reading.topic.split("{asset}")]
                regex = re.compile("([^/]+)".join(parts[:2]) + "".join(f"\\1{part}" for part in parts[2:]))
                self._patterns.append(Pattern(regex, reading, topic))
                yield reading.topic.replace("{asset}", "+")

    def _point(self, topic: TopicConfig, reading: ReadingConfig, where: str, asset: str) -> Point:
        place = f"{self._config.host}/{self._config.real_port}/{where}{reading.value}"
        meter = Meter(
            f"{asset}:{place}:mqtt:{reading.quantity}",
            asset,
            reading.quantity,
            "mqtt",
            RANK,
            resolution_mj=round(reading.step * ENERGY_UNITS_MJ[reading.unit]) if reading.step else 0,
            max_gap_ms=max(LEAST_GAP_MS, round(self._config.max_age_s * 1000)),
        )
        return Point(meter, reading, Asset(asset, topic.kind, topic.parent))

    def _take(self, where: str, payload: bytes, kept: bool) -> None:
        """Keep what a message tells. One that the broker kept, and that carries no time, may be of any age."""
        if where not in self._points:
            for pattern in self._patterns:
                if match := pattern.regex.fullmatch(where):
                    self._points[where].append(self._point(pattern.topic, pattern.reading, where, match[1]))
        now_ms = round(self._clock() * 1000)
        page = parse(payload)
        for meter, reading, _asset in self._points.get(where, []):
            told = pointed(page, reading.value)
            value = scaled(told, reading.quantity, reading.unit)
            if value is None:
                shown = payload[:MOST_SHOWN] if told is NOTHING or not reading.value else told
                self._faults[meter.id] = (
                    f"{where} has no {reading.quantity} at '{reading.value}': {shown!r}. Check its reading and unit."
                )
                continue
            stamp = time_ms(pointed(page, reading.time), self._zone) if reading.time else None
            if stamp is None and kept:
                self._faults[meter.id] = (
                    f"{where} was kept by the broker and tells no time, so it may be of any age: waiting for the next."
                )
                continue
            self._faults.pop(meter.id, None)
            sample = Sample(meter.id, stamp if stamp is not None else now_ms, value)
            old = self._latest.get(meter.id)
            if not kept or old is None or old.time_ms <= sample.time_ms:
                self._latest[meter.id] = sample
        self._news.set()

    def _all(self) -> Iterator[Point]:
        for where in sorted(self._points):
            yield from self._points[where]

    def _complete(self) -> bool:
        return all(point.meter.id in self._latest for point in self._all())

    def _topics(self) -> list[str]:
        return list(dict.fromkeys(reading.topic for topic in self._config.topic for reading in topic.readings()))[:4]

    def _doubts(self) -> list[str]:
        now_ms = round(self._clock() * 1000)
        said = [f"{self.name}: {fault}" for fault in self._faults.values()]
        silent = {
            where: None
            for where, points in sorted(self._points.items())
            for point in points
            if point.meter.id not in self._latest and point.meter.id not in self._faults
        }
        if silent:
            more = f" and {len(silent) - 4} more" if len(silent) > 4 else ""
            said.append(
                f"{self.name}: nothing came on {', '.join(list(silent)[:4])}{more} within {self._config.listen_s:g} s. "
                "Check the topic and the account's rights, or raise listen_s where it publishes more seldom."
            )
        if self._patterns and not self._points:
            said.append(
                f"{self.name}: nobody published on {', '.join(self._topics())}. Raise listen_s, or name `nodes`."
            )
        for where, points in sorted(self._points.items()):
            skews = [self._latest[p.meter.id].time_ms - now_ms for p in points if p.meter.id in self._latest]
            skew_ms = max(skews, key=abs, default=0)
            if abs(skew_ms) > SKEW_MS:
                way = "ahead of" if skew_ms > 0 else "behind"
                said.append(
                    f"{self.name}: {where} tells a time {abs(skew_ms) // 1000} s {way} ours. "
                    "Check its clock and `zone`, and that it still publishes."
                )
        return said
