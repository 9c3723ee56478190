"""An exporter's page as a device that is read live: dcgm-exporter, node-exporter, IPMI, Redfish and PDU exporters."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from wattkeeper.config import expand_hosts
from wattkeeper.core.errors import ImportFileError, SourceError
from wattkeeper.core.live import Device, Discovery, Sample
from wattkeeper.core.roles import Intake
from wattkeeper.core.worker import Worker
from wattkeeper.integrations.prometheus.exposition import ExpositionSource
from wattkeeper.integrations.prometheus.link import Access, Config
from wattkeeper.integrations.prometheus.series import Options

_T = TypeVar("_T")


def devices(config: Config) -> list[Device]:
    """Return one device for each exporter that a table names."""
    if not config.nodes:
        return [ExporterDevice(config, config.url, config.host)]
    return [ExporterDevice(config, config.url.replace("{node}", n), n) for n in expand_hosts(config.nodes)]


class ExporterDevice:
    """One page in the text exposition format. clock: seconds since 1970, for samples without a time of their own."""

    def __init__(self, config: Config, url: str, host: str, *, clock: Callable[[], float] = time.time) -> None:
        self._config, self._url, self._clock = config, url, clock
        self._options = Options(host=host, host_pattern=config.host_pattern)
        self._access = Access(
            token=config.secret("token"), user=config.user, password=config.secret("password"),
            ca_file=config.ca_file, timeout_s=config.timeout_s, retries=0,
        )  # fmt: skip
        self.name = f"prometheus {url}"
        self._worker = Worker(self.name)

    async def discover(self) -> Discovery:
        """Return what the page speaks of. Raises SourceError where it cannot be read or says no power nor energy."""
        page = await self._page()
        if not page.meters:
            raise SourceError(
                f"{self.name} shows no power, energy or utilisation that we know. Is it the right exporter?"
            )
        assets = [replace(a, parent=self._config.parent) if a.parent == "" else a for a in page.assets]
        doubts = [f"{self.name}: {r.reason}." for r in page.rejects]
        return Discovery(assets, page.meters, doubts)

    async def sample(self) -> list[Sample]:
        """Return one value of each meter on the page. Raises SourceError where it cannot be read."""
        page = await self._page()
        newest = page.readings.sort("time_ms").group_by("meter", maintain_order=True).last()
        return [Sample(*row) for row in newest.select("meter", "time_ms", "value").iter_rows()]

    async def close(self) -> None:
        """Let the thread end: no connection stays open."""
        self._worker.close()

    async def _page(self) -> Intake:
        try:
            return await self._worker.run(self._read, self._config.timeout_s + 1.0)
        except TimeoutError as error:
            raise SourceError(
                f"{self.name} did not answer within {self._config.timeout_s:g} s. Is the exporter overloaded? "
                "Raise timeout_s, or period_s of its table."
            ) from error

    def _read(self) -> Intake:
        source = ExpositionSource(self._url, round(self._clock() * 1000), options=self._options, access=self._access)
        try:
            return next(iter(source.read()))
        except ImportFileError as error:
            raise SourceError(f"{self.name}: {error}") from error
        except SourceError as error:
            raise SourceError(f"{self.name}: {error}") from error
