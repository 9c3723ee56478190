"""Intensity from hourly generation by fuel, ten days a request and 5000 rows a page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from wattkeeper.core.clock import to_ms
from wattkeeper.core.errors import ConfigError, SourceError, UnknownZoneError
from wattkeeper.core.mix import CONTEXT_MS, FACTORS_NAME, intensity_of_mix
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.signal import Signal
from wattkeeper.core.spans import Stretch, checked, tidy, told
from wattkeeper.core.units import MS_PER_DAY, MS_PER_HOUR
from wattkeeper.integrations.eia.link import WHERE, Config, connect

FUEL_MAP = {
    "COL": "coal", "NG": "gas", "OIL": "oil", "NUC": "nuclear", "WAT": "hydro", "SUN": "solar", "WND": "wind",
    "GEO": "geothermal", "BM": "biomass", "SNB": "solar", "WNB": "wind", "OTH": "unknown", "UNK": "unknown",
}  # fmt: skip
STORAGE = frozenset({"BAT", "PS", "UES", "OES"})
"""What was stored was generated before: it is not counted twice."""
PAGE = 5000


class Eia:
    """The intensity of what one balancing authority generates."""

    chunk_ms = 10 * MS_PER_DAY
    revised_ms = 3 * MS_PER_DAY
    ahead_ms = 0

    def __init__(self, zone: str, kind: str, config: Config) -> None:
        if kind != "intensity":
            raise ConfigError(f"EIA publishes generation, from which intensity follows, and no {kind}.")
        self.zone, self._config = tidy(zone), config
        self.info = SignalInfo(
            f"intensity:{self.zone}:eia:{config.boundary}", "intensity", "g/kWh", "US EIA-930",
            f"v2, {FACTORS_NAME}", f"average, {config.boundary}", "generation in the zone; trade and storage left out",
        )  # fmt: skip
        self._web = connect(config)

    def read(self, start_ms: int, end_ms: int) -> Stretch:
        """Return the intensity of a span, judged with the week before it. Raises SourceError."""
        rows = self._rows(start_ms - CONTEXT_MS, end_ms)
        if not rows:
            self._must_exist()
        try:
            parts = self._parts(rows)
        except (KeyError, TypeError, ValueError) as error:
            raise self._web.strange(f"{type(error).__name__}: {error}") from error
        breaks_ms = np.arange(start_ms - CONTEXT_MS, end_ms + 1, MS_PER_HOUR, dtype=np.int64)
        mix = {}
        for kind, hours in parts.items():
            power = np.array([hours.get(t, np.nan) for t in breaks_ms[:-1].tolist()])
            mix[kind] = Signal(breaks_ms, power, self.info)
        edges, values, lacking = intensity_of_mix(mix, self._config.boundary)
        found = Stretch([r for r in Stretch.of(edges, values).rows if r[0] >= start_ms])
        lacking = [t for t in lacking if t >= start_ms]
        found.refused = told(lacking, "a fuel that other hours have is missing; the hour stays a gap")
        return found

    def _rows(self, start_ms: int, end_ms: int) -> list[dict[str, Any]]:
        """Return all pages. A period is named by the hour's end, so the first hour is named one later."""
        rows: list[dict[str, Any]] = []
        while True:
            params = {
                "frequency": "hourly", "data[0]": "value", "facets[respondent][]": self.zone,
                "start": _period(start_ms + MS_PER_HOUR), "end": _period(end_ms),
                "sort[0][column]": "period", "sort[0][direction]": "asc",
                "sort[1][column]": "fueltype", "sort[1][direction]": "asc",
                "offset": str(len(rows)), "length": str(PAGE),
            }  # fmt: skip
            body = self._web.json("v2/electricity/rto/fuel-type-data/data/", params)
            try:
                page, total = list(body["response"]["data"]), int(body["response"]["total"])
            except (KeyError, TypeError, ValueError) as error:
                raise self._web.strange(f"{type(error).__name__}: {error}") from error
            rows += page
            if len(rows) >= total:
                return rows
            if not page:
                raise SourceError(f"EIA promised {total} rows and sent {len(rows)}. Run it again.")

    def _must_exist(self) -> None:
        """Raise UnknownZoneError where the EIA lists respondents, and not this one: to it that is no fault."""
        try:
            body = self._web.json("v2/electricity/rto/fuel-type-data/facet/respondent/")
            known = {facet["id"] for facet in body["response"]["facets"]}
        except (SourceError, KeyError, TypeError):
            return
        if known and self.zone not in known:
            raise UnknownZoneError("EIA", self.zone, known)

    def _parts(self, rows: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
        """Return MWh by kind of generation and start of the hour [ms].

        A row that comes twice, as on two pages, counts once; names of one fuel that differ in their letters add up.
        """
        told = {(row["period"], row["fueltype"], row.get("type-name")): row for row in rows}
        parts: dict[str, dict[int, float]] = defaultdict(dict)
        for row in told.values():
            self._add(parts, row)
        return parts

    def _add(self, parts: dict[str, dict[int, float]], row: Mapping[str, Any]) -> None:
        if row["respondent"] != self.zone:
            raise SourceError(f"EIA was asked for '{self.zone}' and answers with '{row['respondent']}'.")
        if row["value-units"] != "megawatthours":
            raise SourceError(f"EIA gives generation in '{row['value-units']}', not in megawatthours.")
        fuel, value = row["fueltype"], row["value"]
        if fuel in STORAGE or value in (None, ""):
            return
        if fuel not in FUEL_MAP:
            raise SourceError(f"EIA has a fuel '{fuel}' that we do not know.")
        end_ms = to_ms(datetime.strptime(row["period"], "%Y-%m-%dT%H").replace(tzinfo=UTC))
        hours = parts[FUEL_MAP[fuel]]
        hours[end_ms - MS_PER_HOUR] = hours.get(end_ms - MS_PER_HOUR, 0.0) + float(value)

    def close(self) -> None:
        """Let go of connections."""
        self._web.__exit__()


def _period(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%dT%H}"


def provider(zone: str, kind: str, config: Mapping[str, Any]) -> Eia:
    """Return the publisher of a balancing authority's intensity. Raises ConfigError."""
    return Eia(zone, kind, checked(Config, config, WHERE))
