"""Any series as an intensity or price: what a site's own exporter says of its grid, its contract or its roof."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.spans import Stretch, checked, tidy
from wattkeeper.core.units import MS_PER_DAY
from wattkeeper.integrations.prometheus.api import data_of, seconds
from wattkeeper.integrations.prometheus.link import Access, connect

WHERE = "grid.prometheus"
GRAMS = {"g/kWh": 1.0, "kg/kWh": 1000.0, "kg/MWh": 1.0, "t/MWh": 1000.0, "lb/MWh": 0.45359237}


class Config(BaseModel):
    """`[grid.prometheus]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https?://", description="Address of the server, with its path prefix.")
    intensity: str = Field("", description="Selector of the intensity; {zone} is filled in.")
    intensity_unit: str = Field("g/kWh", description="Its unit: g/kWh, kg/kWh, kg/MWh, t/MWh or lb/MWh.")
    price: str = Field("", description="Selector of the price; {zone} is filled in.")
    price_unit: str = Field("EUR/kWh", description="Its unit: a currency per kWh or MWh.")
    method: str = Field("", description="What the intensity is: average or marginal, lifecycle or direct.")
    price_method: str = Field("", description="What the price is, such as day-ahead.")
    hold_s: int = Field(3600, gt=0, description="Longest time a sample holds [s]; after that comes a gap.")
    token_file: Path | None = Field(
        None, description="File that holds the bearer token. Default: WATTKEEPER_PROMETHEUS_TOKEN, or none."
    )
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the server's certificate.")
    retries: int = Field(5, ge=0, description="How often a request that failed is tried again.")


class PrometheusSignal:
    """One series as a signal. A sample holds until the next, at most hold_s."""

    chunk_ms = MS_PER_DAY
    revised_ms = 3_600_000
    ahead_ms = 0

    def __init__(self, zone: str, kind: str, config: Config) -> None:
        selectors = {"intensity": config.intensity, "price": config.price}
        if not selectors.get(kind):
            raise ConfigError(f"[{WHERE}] has no selector for {kind}. Set {kind} = 'metric{{zone=\"{{zone}}\"}}'.")
        self._config, self._url = config, config.url.rstrip("/")
        self._selector = selectors[kind].replace("{zone}", tidy(zone))
        unit, self._factor = _unit(kind, config)
        method = config.price_method if kind == "price" else config.method
        self.info = SignalInfo(f"{kind}:{zone}:prometheus", kind, unit, f"Prometheus {self._url}", "", method)
        self._client = connect(Access(token=_token(config), ca_file=config.ca_file, retries=config.retries))

    def read(self, start_ms: int, end_ms: int) -> Stretch:
        """Return the samples of a span, as they were scraped. Raises SourceError where several series match."""
        hold_ms = self._config.hold_s * 1000
        query = f"{self._selector}[{end_ms - start_ms + hold_ms}ms]"
        params = {"query": query, "time": seconds(end_ms - 1)}
        rows = data_of(self._client, self._url, "query", params, start_ms)["result"]
        if len(rows) > 1:
            raise SourceError(f"{len(rows)} series match {self._selector} at {self._url}. Add matchers until one does.")
        samples = [(round(float(t) * 1000), float(v)) for t, v in rows[0]["values"]] if rows else []
        found = Stretch()
        for (at_ms, value), (next_ms, _) in pairwise([*samples, (end_ms, 0.0)]):
            begin, until = max(at_ms, start_ms), min(next_ms, at_ms + hold_ms, end_ms)
            if begin < until and value == value:  # noqa: PLR0124 - NaN
                found.rows.append((begin, until, value * self._factor))
        return found

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()


def _token(config: Config) -> str:
    if config.token_file is None:
        return os.environ.get("WATTKEEPER_PROMETHEUS_TOKEN", "")
    try:
        return config.token_file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read token_file {config.token_file} of [{WHERE}]: {error}.") from error


def _unit(kind: str, config: Config) -> tuple[str, float]:
    """Return the unit that is kept and the factor to it. Raises ConfigError for a unit that we do not know."""
    if kind == "intensity":
        if config.intensity_unit not in GRAMS:
            raise ConfigError(f"[{WHERE}] intensity_unit is '{config.intensity_unit}'. Use one of {', '.join(GRAMS)}.")
        return "g/kWh", GRAMS[config.intensity_unit]
    currency, _, energy = config.price_unit.partition("/")
    if energy not in {"kWh", "MWh"} or not currency:
        raise ConfigError(f"[{WHERE}] price_unit is '{config.price_unit}'. Use a currency per kWh or MWh.")
    return f"{currency}/kWh", 1.0 if energy == "kWh" else 0.001


def provider(zone: str, kind: str, config: Mapping[str, Any]) -> PrometheusSignal:
    """Return the publisher of a series. Raises ConfigError."""
    return PrometheusSignal(zone, kind, checked(Config, config, WHERE))
