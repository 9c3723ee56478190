"""UPS, PDUs and transfer switches as meters of what they feed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.integrations.nut.link import Config, Link, UpsConfig
from wattkeeper.integrations.nut.variables import ESTIMATES, Power, estimate, intake, outlet, output

RANK, ESTIMATE_RANK = 45, 95
"""Behind what measures a rack or hall for billing, and far behind anything that measures at all."""

ESTIMATE_ACCURACY_PCT = 25.0
"""Load comes in steps of 1 to 3 %, and of apparent or real power depending on the maker."""

GAIN = 1.02
"""A device that gives more than this times what it takes has something wrong."""

Variables = Mapping[str, str]


def devices(config: Config) -> list[Device]:
    """Return one device for each UPS that a table names."""
    return [NutDevice(config, ups) for ups in config.ups]


class Point(NamedTuple):
    """One meter, and how its power is had from the variables."""

    meter: Meter
    read: Callable[[Variables], Power | None]


class NutDevice:
    """One UPS, PDU or transfer switch. clock: seconds since 1970; upsd tells no times."""

    def __init__(self, config: Config, ups: UpsConfig, *, clock: Callable[[], float] = time.time) -> None:
        self._ups, self._clock = ups, clock
        self._link = Link(config, ups.name)
        self._where = f"{config.host}/{config.port}/{ups.name}"
        self._points: list[Point] = []
        self.name = self._link.name

    async def discover(self) -> Discovery:
        """Return what it measures, and what it only could estimate. Raises SourceError where upsd does not answer."""
        variables = await self._link.variables()
        found = Discovery(assets=self._assets())
        self._points = []
        for asset, what, read in self._wanted():
            power = read(variables)
            if power is None:
                found.doubts.append(self._untold(what, variables))
                continue
            if power.reason:
                found.doubts.append(f"{self.name}: {power.reason}. It gives no reading until it is above.")
            self._points.append(Point(self._meter(asset, power.key), read))
        found.meters += [point.meter for point in self._points]
        found.doubts += self._wrong(variables)
        return found

    async def sample(self) -> list[Sample]:
        """Return the power that its variables tell. Raises SourceError where upsd or its driver does not answer."""
        if not self._points:
            await self.discover()
        variables = await self._link.variables()
        time_ms = round(self._clock() * 1000)
        samples = []
        for meter, read in self._points:
            power = read(variables)
            if power is not None and power.power_mw is not None and f"/{power.key}:" in meter.id:
                samples.append(Sample(meter.id, time_ms, power.power_mw))
        return samples

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one."""
        await self._link.close()

    def _assets(self) -> list[Asset]:
        """Return what it measures: what it feeds stands in what its input is measured for, and in what `parent` says."""
        ups = self._ups
        several = [Asset(ups.input_asset, "hall", ups.parent)] if ups.input_asset else []
        if ups.asset:
            several.append(Asset(ups.asset, ups.kind, ups.input_asset or ups.parent))
        several += [Asset(name, "node", ups.asset or ups.input_asset or ups.parent) for name in ups.outlets.values()]
        return list({asset.id: asset for asset in reversed(several)}.values())[::-1]

    def _wanted(self) -> Iterator[tuple[str, str, Callable[[Variables], Power | None]]]:
        """Yield each asset, what is to be read for it, and how."""
        if self._ups.asset:
            yield self._ups.asset, "output", self._output
        if self._ups.input_asset:
            yield self._ups.input_asset, "input", intake
        for name, asset in self._ups.outlets.items():
            yield asset, f"outlet {name}", partial(outlet, name=name)

    def _output(self, variables: Variables) -> Power | None:
        return output(variables) or (estimate(variables) if self._ups.estimate else None)

    def _meter(self, asset: str, key: str) -> Meter:
        source = "nut-estimate" if key in ESTIMATES else "nut"
        meter_id = f"{asset}:{self._where}/{key}:{source}:power"
        if key in ESTIMATES:
            return Meter(meter_id, asset, "power", source, ESTIMATE_RANK, accuracy_pct=ESTIMATE_ACCURACY_PCT)
        return Meter(meter_id, asset, "power", source, RANK)

    def _untold(self, what: str, variables: Variables) -> str:
        guess = estimate(variables) if what == "output" else None
        cure = "Measure it at a meter or PDU."
        if guess is not None and guess.power_mw is not None:
            cure = f"With estimate = true it would be guessed from {guess.key}: {guess.power_mw / 1000:g} W now."
        return f"{self.name} tells no real power of its {what}. {cure}"

    def _wrong(self, variables: Variables) -> list[str]:
        said = [
            f"{self.name} has no power meter: {point.meter.asset} is guessed from {key}, within some "
            f"{ESTIMATE_ACCURACY_PCT:g} %. Any meter beside it is preferred."
            for point in self._points
            for key in ESTIMATES
            if f"/{key}:" in point.meter.id
        ]
        gives, takes = output(variables), intake(variables)
        if gives and takes and gives.power_mw and takes.power_mw and gives.power_mw > GAIN * takes.power_mw:
            battery = "OB" in variables.get("ups.status", "").split()
            if not battery:
                said.append(
                    f"{self.name} gives {gives.power_mw / 1000:g} W and takes {takes.power_mw / 1000:g} W. "
                    "Check the scales of its driver."
                )
        return said
