"""A Redfish service as a device that is read live: reports first, which hold many values with their own time stamps."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

from wattkeeper.config import expand_hosts
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.integrations.redfish.link import ROOT, Config, Link, Page, PageError
from wattkeeper.integrations.redfish.points import Point, find
from wattkeeper.integrations.redfish.values import address, links, pointed, time_ms
from wattkeeper.integrations.redfish.walk import inlined, walk

FROZEN_S = 60.0
"""A report whose newest time stamp has not moved for so long is dead; its values are then read one by one."""

WHOLE = 4
"""From this many sensors of one collection on, the collection is asked for all of them at once."""

SKEW_MS = 120_000
"""A service's clock that is further from ours than this is doubted."""


def devices(config: Config) -> list[Device]:
    """Return one device for each service that a table names."""
    if not config.nodes:
        return [RedfishDevice(config, config.asset)]
    return [RedfishDevice(config, node) for node in expand_hosts(config.nodes)]


class RedfishDevice:
    """One Redfish service: a server's controller, a power shelf, a rack PDU.

    clock: seconds since 1970, for values that carry no time of their own.
    """

    def __init__(self, config: Config, asset: str, *, clock: Callable[[], float] = time.time) -> None:
        self._config, self._asset, self._clock = config, asset, clock
        self._link = Link(config.url.replace("{node}", asset), config)
        self.name = self._link.name
        self._points: list[Point] | None = None
        self._homes: dict[str, str] = {}
        self._reports: list[str] = []
        self._averages: dict[str, frozenset[str]] = {}
        self._moved: dict[str, tuple[int, float]] = {}

    async def discover(self) -> Discovery:
        """Return the assets and meters it has. Raises SourceError where it does not answer in time."""
        limit_s = self._config.discover_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                pages, homes, problems = await walk(self._link, self._config.parallel)
        except TimeoutError as error:
            raise self._late(limit_s, "discover_timeout_s") from error
        found, points = find(pages, self._config.model_copy(update={"url": self._link.url}), self._asset)
        closed = [said for said in problems if "refuses us" in said or f"{ROOT}/Chassis " in said]
        if closed and not points:
            raise SourceError(closed[0])
        self._points, self._homes = points, homes
        self._choose_reports(pages)
        found.doubts += [*self._clock_doubt(pages), *problems]
        return found

    async def sample(self) -> list[Sample]:
        """Return one value of each meter that could be read. Raises SourceError where none could be had."""
        if self._points is None:
            await self.discover()
        got: dict[str, Sample] = {}
        faults: list[SourceError] = []
        try:
            async with asyncio.timeout(self._config.timeout_s):
                await self._read(got, faults)
        except TimeoutError as error:
            if not got:
                raise self._late(self._config.timeout_s, "timeout_s") from error
        if faults and not got:
            raise faults[0]
        return list(got.values())

    async def close(self) -> None:
        """Log out and let go of the connections; the next call opens them again."""
        await self._link.close()

    async def _read(self, got: dict[str, Sample], faults: list[SourceError]) -> None:
        """Read the reports, then the pages of the points that no report told."""
        gate = asyncio.Semaphore(self._config.parallel)

        async def get(uri: str) -> Page | None:
            async with gate:
                try:
                    return await self._link.get(uri)
                except SourceError as error:
                    faults.append(error)
                    return None

        async def from_report(uri: str) -> None:
            if (page := await get(uri)) is not None:
                self._take_report(uri, page, got)

        async def from_pages(uri: str, points: list[Point]) -> None:
            if (page := await get(uri)) is None:
                failed.extend(points)
                return
            pages = {uri: page, **dict(inlined(page))}
            now_ms = round(self._clock() * 1000)
            for point in points:
                if (told := point.read(pages.get(point.uri, {}))) is not None:
                    got[point.meter.id] = Sample(point.meter.id, told[1] or now_ms, told[0])

        failed: list[Point] = []
        await asyncio.gather(*map(from_report, self._reports))
        left = [point for point in self._points or [] if point.meter.id not in got]
        if all(isinstance(fault, PageError) for fault in faults):  # else it is silent, and the rest would only wait
            await asyncio.gather(*(from_pages(uri, points) for uri, points in self._by_page(left).items()))
        orphans = [point for point in failed if point.uri in self._homes]
        if orphans and all(isinstance(fault, PageError) for fault in faults):
            faults.clear()
            await asyncio.gather(*(from_pages(uri, points) for uri, points in self._by_page(orphans, 1).items()))

    def _by_page(self, points: list[Point], whole: int = WHOLE) -> dict[str, list[Point]]:
        """Return which page to ask for which points: a collection where `whole` or more of its members are wanted."""
        alike = Counter(self._homes[point.uri] for point in points if point.uri in self._homes)
        pages: dict[str, list[Point]] = {}
        for point in points:
            home = self._homes.get(point.uri, "")
            pages.setdefault(home if alike[home] >= whole else point.uri, []).append(point)
        return pages

    def _take_report(self, uri: str, report: Page, got: dict[str, Sample]) -> None:
        """Take the newest value of each point from a report that still moves."""
        now_s = self._clock()
        values = list(_values(report, self._averages[uri]))
        newest = max((when for _key, _value, when in values if when is not None), default=0)
        before, since_s = self._moved.get(uri, (-1, now_s))
        self._moved[uri] = (newest, now_s if newest != before else since_s)
        if newest and newest == before and now_s - since_s > FROZEN_S:
            return
        by_key = {point.key: point for point in self._points or [] if point.reported}
        for key, reading, when in values:
            point = by_key.get(key)
            value = point.scaled(reading) if point else None
            if point is None or value is None:
                continue
            sample = Sample(point.meter.id, when if when is not None else round(now_s * 1000), value)
            old = got.get(sample.meter)
            if old is None or old.time_ms <= sample.time_ms:
                got[sample.meter] = sample

    def _choose_reports(self, pages: dict[str, Page]) -> None:
        """Remember which reports hold values of our points, as few as will do."""
        self._reports, self._averages, self._moved = [], {}, {}
        left = {point.key for point in self._points or [] if point.reported}
        for uri in _report_uris(pages) if self._config.reports else []:
            averages = _averages(pages, uri)
            told = (
                {key for key, _value, _when in _values(pages[uri], averages)} & left if averages is not None else set()
            )
            if averages is not None and told:
                left -= told
                self._reports.append(uri)
                self._averages[uri] = averages

    def _clock_doubt(self, pages: dict[str, Page]) -> list[str]:
        newest = [
            max((when for _key, _value, when in _values(pages[uri], self._averages[uri]) if when), default=0)
            for uri in self._reports
        ]
        skew_ms = max(newest, default=0) - round(self._clock() * 1000)
        if not any(newest) or abs(skew_ms) <= SKEW_MS:
            return []
        told, way = iso(max(newest)), "ahead of" if skew_ms > 0 else "behind"
        return [
            f"{self.name} stamps its values {told}, {abs(skew_ms) // 1000} s {way} this machine's clock. "
            "Set NTP on the controller, or set reports = false."
        ]

    def _late(self, limit_s: float, option: str) -> SourceError:
        return SourceError(
            f"{self.name} did not answer within {limit_s:g} s. Check address and network, or raise {option}."
        )


def _report_uris(pages: dict[str, Page]) -> list[str]:
    return [uri for uri in links(pages.get(f"{ROOT}/TelemetryService/MetricReports"), "Members") if uri in pages]


def _averages(pages: dict[str, Page], uri: str) -> frozenset[str] | None:
    """Return the MetricIds of a report that are means, extremes or sums over time; None where any value may be one."""
    definition = next(iter(links(pages[uri], "MetricReportDefinition")), "")
    metrics = pages.get(definition, {}).get("Metrics")
    made = [m for m in metrics or [] if isinstance(m, dict) and m.get("CollectionFunction")]
    if any(not m.get("MetricId") for m in made):
        return None
    return frozenset(str(m["MetricId"]) for m in made)


def _values(report: Page, averages: Collection[str]) -> Iterator[tuple[str, Any, int | None]]:
    """Yield address, value and time stamp of what a report tells and does not call stale."""
    values = report.get("MetricValues")
    for one in values if isinstance(values, list) else []:
        if not isinstance(one, dict) or str(one.get("MetricId")) in averages:
            continue
        *_, stale = pointed(one, "/Oem/Nvidia/MetricValueStale")
        if stale is not True:
            yield address(one.get("MetricProperty")), one.get("MetricValue"), time_ms(one.get("Timestamp"))
