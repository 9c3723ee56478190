"""Half-hourly intensity of Great Britain, thirteen days a request; half-hours without an actual value stay gaps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from wattkeeper.core.errors import ConfigError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.spans import Stretch, checked, instant_ms
from wattkeeper.core.units import MS_PER_DAY
from wattkeeper.integrations.ukgrid.link import WHERE, Config, connect


class UkGrid:
    """The national intensity."""

    chunk_ms = 13 * MS_PER_DAY  # 14 days are allowed
    revised_ms = 2 * MS_PER_DAY
    ahead_ms = 0

    def __init__(self, zone: str, kind: str, config: Config) -> None:
        if kind != "intensity":
            raise ConfigError(f"The Carbon Intensity API publishes intensity, no {kind}.")
        if zone != "GB":
            raise ConfigError(f"The Carbon Intensity API knows zone GB, not '{zone}'. Its regions have forecasts only.")
        self.info = SignalInfo(
            "intensity:GB:ukgrid", "intensity", "g/kWh", "NESO Carbon Intensity API", "v2", "average, direct",
            "generation in Great Britain and imports, with losses",
        )  # fmt: skip
        self._web = connect(config)

    def read(self, start_ms: int, end_ms: int) -> Stretch:
        """Return what is published for a span. Raises SourceError."""
        body = self._web.json(f"intensity/{_minute(start_ms)}/{_minute(end_ms)}")
        try:
            rows = [(instant_ms(r["from"]), instant_ms(r["to"]), r["intensity"]["actual"]) for r in body["data"]]
            return Stretch([(a, b, float(v)) for a, b, v in rows if v is not None])
        except (KeyError, TypeError, ValueError) as error:
            raise self._web.strange(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Let go of connections."""
        self._web.__exit__()


def _minute(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%dT%H:%MZ}"


def provider(zone: str, kind: str, config: Mapping[str, Any]) -> UkGrid:
    """Return the publisher of Great Britain's intensity. Raises ConfigError."""
    return UkGrid(zone, kind, checked(Config, config, WHERE))
