"""Hourly carbon intensity and day-ahead prices, ten days a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, SourceError, StatusError, UnknownZoneError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.spans import Stretch, checked, instant_ms, tidy, told
from wattkeeper.core.units import MS_PER_DAY, MS_PER_HOUR
from wattkeeper.integrations.electricitymaps.link import WHERE, Config, connect

NO_SUCH = (400, 404)
PATHS = {"intensity": "carbon-intensity/past-range", "price": "price-day-ahead/past-range"}

SANDBOX = "SANDBOX"
"""Keys of the sandbox get values that are made up; they say so."""


class ElectricityMaps:
    """One signal of one zone."""

    chunk_ms = 10 * MS_PER_DAY
    revised_ms = 3 * MS_PER_DAY

    def __init__(self, zone: str, kind: str, config: Config) -> None:
        if kind not in PATHS:
            raise ConfigError(f"Electricity Maps publishes {' and '.join(PATHS)}, no {kind}.")
        self.zone, self.kind, self._config = tidy(zone), kind, config
        self.ahead_ms = MS_PER_DAY if kind == "price" else 0
        self._web = connect(config)
        self._unit = ""
        self.info = self._info("")

    def _info(self, currency: str) -> SignalInfo:
        version = self._config.version
        if self.kind == "price":
            unit = f"{currency}/kWh" if currency else ""
            return SignalInfo(
                f"price:{self.zone}:electricitymaps", "price", unit, "Electricity Maps", version, "day-ahead"
            )
        boundary = self._config.boundary
        notes = [
            *(["flow-traced"] if version == "v4" else []),
            *([] if self._config.estimated else ["without values that are estimated"]),
        ]
        return SignalInfo(
            f"intensity:{self.zone}:electricitymaps:{boundary}", "intensity", "g/kWh", "Electricity Maps", version,
            f"average, {boundary}", ", ".join(notes),
        )  # fmt: skip

    def read(self, start_ms: int, end_ms: int) -> Stretch:
        """Return what is published for a span. Raises SourceError."""
        params = {
            "zone": self.zone, "start": iso(start_ms), "end": iso(end_ms), "temporalGranularity": "hourly",
            "disableCallerLookup": "true",
        }  # fmt: skip
        if self.kind == "intensity":
            params["emissionFactorType"] = self._config.boundary
            if self._config.version == "v4":
                params["flowTraced"] = "true"
            params["disableEstimations"] = "false" if self._config.estimated else "true"
        try:
            body = self._web.json(f"{self._config.version}/{PATHS[self.kind]}", params)
        except StatusError as error:
            self._must_exist(error)
            raise
        try:
            self._expect(body)
            return self._stretch(body["data"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._web.strange(f"{type(error).__name__}: {error}") from error

    def _stretch(self, rows: list[dict[str, Any]]) -> Stretch:
        found, estimated = Stretch(), []
        for row in rows:
            start_ms = instant_ms(row["datetime"])
            self._expect(row)
            if self.kind == "price":
                self._expect_unit(row["unit"])
            value = row["carbonIntensity" if self.kind == "intensity" else "value"]
            if value is None:
                continue
            if row.get("isEstimated"):
                if not self._config.estimated:
                    estimated.append(start_ms)
                    continue
                found.estimated.add(start_ms)
            scale = 1.0 if self.kind == "intensity" else 0.001
            found.rows.append((start_ms, start_ms + MS_PER_HOUR, float(value) * scale))
        found.refused = told(estimated, "the value is an estimate, and the site file takes none")
        return found

    def _expect(self, row: Mapping[str, Any]) -> None:
        """Raise SourceError where an answer or a row of it is of another zone, boundary or step, or made up."""
        if SANDBOX in f"{row.get('_disclaimer')} {row.get('estimationMethod')}".upper():
            raise SourceError(
                "Electricity Maps sends made-up values, as it does for keys of its sandbox. Use a full key."
            )
        asked: dict[str, Any] = {"zone": self.zone, "temporalGranularity": "hourly"}
        if self.kind == "intensity":
            asked |= {"emissionFactorType": self._config.boundary, "flowTraced": True}
        for key, want in asked.items():
            if (got := row.get(key, want)) != want:
                raise SourceError(f"Electricity Maps was asked for {key} '{want}' and answers with '{got}'.")

    def _expect_unit(self, unit: str) -> None:
        """Raise SourceError where a price is not per MWh, or in another currency than the ones before."""
        currency, _, energy = unit.partition("/")
        if energy != "MWh" or not currency or (self._unit and currency != self._unit):
            raise SourceError(f"Electricity Maps gives prices in '{unit}', not in one currency per MWh.")
        if not self._unit:
            self._unit, self.info = currency, self._info(currency)

    def _must_exist(self, error: StatusError) -> None:
        """Raise UnknownZoneError where that is why the service said no, SourceError where it lacks our version."""
        version = self._config.version
        if error.status not in NO_SUCH:
            return
        try:
            zones = self._web.json(f"{version}/zones")
        except StatusError as other:
            if (error.status, other.status) == (404, 404):
                raise SourceError(f"{error} It may not know {version}: try another version in [{WHERE}].") from error
            return
        except SourceError:
            return
        if isinstance(zones, dict) and zones and self.zone not in zones:
            raise UnknownZoneError("Electricity Maps", self.zone, zones) from error

    def close(self) -> None:
        """Let go of connections."""
        self._web.__exit__()


def provider(zone: str, kind: str, config: Mapping[str, Any]) -> ElectricityMaps:
    """Return the publisher of a zone's intensity or price. Raises ConfigError."""
    return ElectricityMaps(zone, kind, checked(Config, config, WHERE))
