"""Operating emissions rates of a region, a month a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, SourceError, StatusError, UnknownZoneError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.spans import Stretch, checked, instant_ms, tidy
from wattkeeper.core.units import MS_PER_DAY
from wattkeeper.integrations.watttime.link import WHERE, Config, Link

G_PER_LB = 453.59237
NO_SUCH = (400, 403, 404)
METHODS = {"co2_moer": "marginal, direct", "co2_aoer": "average, direct"}


class WattTime:
    """One rate of one region."""

    chunk_ms = 30 * MS_PER_DAY  # 32 days are allowed
    revised_ms = 2 * MS_PER_DAY
    ahead_ms = 0

    def __init__(self, zone: str, kind: str, config: Config) -> None:
        if kind != "intensity":
            raise ConfigError(f"WattTime publishes intensity, no {kind}.")
        self.zone, self._config = tidy(zone), config
        method = METHODS[config.signal_type]
        self.info = SignalInfo(
            f"intensity:{self.zone}:watttime:{method.partition(',')[0]}", "intensity", "g/kWh", "WattTime", "", method
        )
        self._link = Link(config)

    def read(self, start_ms: int, end_ms: int) -> Stretch:
        """Return what is published for a span. Raises SourceError."""
        params = {
            "region": self.zone, "signal_type": self._config.signal_type, "start": iso(start_ms), "end": iso(end_ms),
        }  # fmt: skip
        if self._config.model_date:
            params["model_date"] = self._config.model_date
        try:
            body = self._link.json("v3/historical", params)
        except StatusError as error:
            self._must_exist(error)
            raise
        try:
            meta, rows = body["meta"], body["data"]
            self._expect(meta)
            step_ms = int(meta["data_point_period_seconds"]) * 1000
            starts = [(instant_ms(row["point_time"]), row["value"]) for row in rows]
            return Stretch([(t, t + step_ms, float(v) * G_PER_LB / 1000) for t, v in starts if v is not None])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._link.web.strange(f"{type(error).__name__}: {error}") from error

    def _expect(self, meta: Mapping[str, Any]) -> None:
        """Raise SourceError where an answer is of another region, rate, unit or model than the first."""
        asked = {"region": self.zone, "signal_type": self._config.signal_type, "units": "lbs_co2_per_mwh"}
        for key, want in asked.items():
            if (got := meta.get(key)) != want:
                raise SourceError(f"WattTime was asked for {key} '{want}' and answers with '{got}'.")
        model = str((meta.get("model") or {}).get("date", ""))
        if self.info.version not in ("", f"v3, model {model}"):
            raise SourceError(f"WattTime changed its model to {model} while it was read. Run it again.")
        if (wanted := self._config.model_date) and model != wanted:
            raise SourceError(f"WattTime was asked for model_date '{wanted}' and answers with '{model}'.")
        self.info = SignalInfo(
            self.info.id, "intensity", "g/kWh", "WattTime", f"v3, model {model}", METHODS[self._config.signal_type]
        )

    def _must_exist(self, error: StatusError) -> None:
        """Raise UnknownZoneError where the account has no such region, and that is why the service said no."""
        if error.status not in NO_SUCH:
            return
        try:
            told = self._link.json("v3/my-access", {})["signal_types"]
            regions = {r["region"] for s in told if s["signal_type"] == self._config.signal_type for r in s["regions"]}
        except (SourceError, KeyError, TypeError):
            return
        if regions and self.zone not in regions:
            what = f"WattTime, for {self._config.signal_type} and this account,"
            raise UnknownZoneError(what, self.zone, regions) from error

    def close(self) -> None:
        """Let go of connections."""
        self._link.web.__exit__()


def provider(zone: str, kind: str, config: Mapping[str, Any]) -> WattTime:
    """Return the publisher of a region's rate. Raises ConfigError."""
    return WattTime(zone, kind, checked(Config, config, WHERE))
