"""DCMI power readings as a meter.

DCMI 1.5, "Get Power Reading" (6.6.1): watts now, least, most and mean over a period, and whether measuring is on at all.
The mean is over a window of the controller's own choice, 13 days on one real server, so only the watts now are read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from wattkeeper.config import expand_hosts
from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.errors import SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.core.sysfs import this_node
from wattkeeper.integrations.ipmi.link import Config, Link

RANK = 50
NONE_W = 0xFFFF
"""A 16-bit field that is full has no value."""

_LINE = re.compile(r"^\s*(.+?)\s*:\s+(.*?)\s*$", re.MULTILINE)
_WATTS = re.compile(r"(\d+)\s*watts?$", re.IGNORECASE)
_POWER = ("Current Power", "Instantaneous power reading")
_STATE = ("Power Measurement", "Power reading state is")
_STAMP = ("Time Stamp", "IPMI timestamp")


class BadOutputError(SourceError):
    """What a tool printed is no power reading."""


class Reading(NamedTuple):
    """What a controller told: watts, None where they are no reading, and then why."""

    power_w: int | None
    reason: str = ""


def parse(printed: str) -> Reading:
    """Return the reading in what ipmi-dcmi or ipmitool printed. Raises BadOutputError for anything else."""
    told = dict(_LINE.findall(printed))
    power, state, stamp = (next((told[n] for n in names if n in told), "") for names in (_POWER, _STATE, _STAMP))
    watts = _WATTS.match(power)
    if watts is None:
        raise BadOutputError(f"No power reading in {printed.strip()[:120]!r}. Is this ipmi-dcmi or ipmitool?")
    if state and state.lower() not in ("active", "activated"):
        return Reading(None, f"its power measurement is {state.lower()}")
    power_w = int(watts[1])
    if power_w == 0:
        never = " at a time that was never set" if "1970" in stamp else ""
        return Reading(None, f"it says 0 W{never}, which no server draws")
    if power_w == NONE_W:
        return Reading(None, "it says 65535 W, which means no value")
    return Reading(power_w)


def devices(config: Config) -> list[Device]:
    """Return one device for each controller that a table names."""
    if config.nodes:
        return [IpmiDevice(config, node) for node in expand_hosts(config.nodes)]
    return [IpmiDevice(config, config.asset or this_node())]


class IpmiDevice:
    """One server's controller. clock: seconds since 1970; the controller's own clock is in no known time zone."""

    def __init__(self, config: Config, asset: str, *, clock: Callable[[], float] = time.time) -> None:
        self._config, self._asset, self._clock = config, asset, clock
        self._link = Link(config.host.replace("{node}", asset), config, asset)
        self._meter: Meter | None = None
        self._discovered = False
        self.name = self._link.name

    async def discover(self) -> Discovery:
        """Return the node and its meter, none where the controller measures nothing. Raises SourceError."""
        reading = await self._read()
        found = Discovery()
        found.assets.append(Asset(self._asset, "node", self._config.parent))
        self._meter = Meter(f"{self._asset}:dcmi:ipmi:power", self._asset, "power", "ipmi", RANK)
        self._discovered = True
        if reading.power_w is None:
            self._meter = None
            found.doubts.append(
                f"{self.name} has no power to tell: {reading.reason}. Read it over Redfish, or measure at the PDU."
            )
        else:
            found.meters.append(self._meter)
        return found

    async def sample(self) -> list[Sample]:
        """Return the watts now; none while measuring is off. Raises SourceError where the controller does not answer."""
        if not self._discovered:
            await self.discover()
        reading = await self._read()
        if reading.power_w is None or self._meter is None:
            return []
        return [Sample(self._meter.id, round(self._clock() * 1000), reading.power_w * 1000)]

    async def close(self) -> None:
        """Do nothing: each reading is a session of its own."""

    async def _read(self) -> Reading:
        try:
            return parse(await self._link.power())
        except BadOutputError as error:
            raise SourceError(f"{self.name}: {error}") from error
