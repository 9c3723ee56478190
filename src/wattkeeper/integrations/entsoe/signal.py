"""Day-ahead prices (A44) and intensity from generation per type (A75), some months a request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.mix import CONTEXT_MS, FACTORS_NAME, intensity_of_mix
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.signal import Signal
from wattkeeper.core.spans import Stretch, checked, instant_ms, tidy, told
from wattkeeper.core.units import MS_PER_DAY
from wattkeeper.integrations.entsoe.link import WHERE, Config, Link, child, children, word
from wattkeeper.integrations.entsoe.zones import eic

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FUEL_MAP = {
    "B01": "biomass", "B02": "coal", "B03": "coal", "B04": "gas", "B05": "coal", "B06": "oil", "B07": "coal",
    "B08": "coal", "B09": "geothermal", "B11": "hydro", "B12": "hydro", "B13": "marine", "B14": "nuclear",
    "B15": "unknown", "B16": "solar", "B17": "unknown", "B18": "wind", "B19": "wind", "B20": "unknown",
}  # fmt: skip
STORAGE = frozenset({"B10", "B25"})
"""Pumped storage and batteries: what was stored was generated before, and is not counted twice."""

DAY_AHEAD = "A01"
"""Kind of contract; answers may hold the prices of intraday auctions (A07) too."""

Point = tuple[int, int, float]
"""Start [ms], end [ms] and value."""


class EntsoE:
    """One signal of one zone."""

    revised_ms = 3 * MS_PER_DAY

    def __init__(self, zone: str, kind: str, config: Config) -> None:
        if kind not in {"intensity", "price"}:
            raise ConfigError(f"ENTSO-E publishes intensity and price, no {kind}.")
        self.zone, self.kind, self._config = tidy(zone), kind, config
        self._eic = eic(zone, kind)
        self.chunk_ms = 90 * MS_PER_DAY if kind == "price" else 30 * MS_PER_DAY  # a year is allowed
        self.ahead_ms = 2 * MS_PER_DAY if kind == "price" else 0
        self.info = self._info("EUR")
        self._link = Link(config)

    def _info(self, currency: str) -> SignalInfo:
        who = "ENTSO-E Transparency Platform"
        if self.kind == "price":
            method = f"day-ahead, auction {self._config.auction}"
            return SignalInfo(f"price:{self.zone}:entsoe", "price", f"{currency}/kWh", who, "A44", method)
        boundary = self._config.boundary
        return SignalInfo(
            f"intensity:{self.zone}:entsoe:{boundary}", "intensity", "g/kWh", who, f"A75, {FACTORS_NAME}",
            f"average, {boundary}", "generation in the zone; trade and storage left out",
        )  # fmt: skip

    def read(self, start_ms: int, end_ms: int) -> Stretch:
        """Return what is published for a span; intensity is judged with the week before it. Raises SourceError."""
        begin_ms = start_ms if self.kind == "price" else start_ms - CONTEXT_MS
        params = {"periodStart": _minute(begin_ms), "periodEnd": _minute(end_ms)}
        if self.kind == "price":
            params |= {
                "documentType": "A44", "contract_MarketAgreement.type": DAY_AHEAD, "in_Domain": self._eic,
                "out_Domain": self._eic,
            }  # fmt: skip
        else:
            params |= {"documentType": "A75", "processType": "A16", "in_Domain": self._eic}
        root = self._link.document(params)
        if root is None:
            return Stretch()
        try:
            return self._prices(root) if self.kind == "price" else self._intensity(root, start_ms)
        except (KeyError, TypeError, ValueError) as error:
            raise self._link.web.strange(f"{type(error).__name__}: {error}") from error

    def _prices(self, root: Element) -> Stretch:
        """Return the prices of the auction wanted. Where it is told in two resolutions, the finer one counts."""
        by_step: dict[int, list[Point]] = {}
        for series in children(root, "TimeSeries"):
            place = word(
                series, "classificationSequence_AttributeInstanceComponent.position", str(self._config.auction)
            )
            if (
                int(place) != self._config.auction
                or word(series, "contract_MarketAgreement.type", DAY_AHEAD) != DAY_AHEAD
            ):
                continue
            unit, currency = word(series, "price_Measure_Unit.name"), word(series, "currency_Unit.name")
            if unit != "MWH" or (self.info.unit != f"{currency}/kWh" and by_step):
                raise SourceError(f"ENTSO-E gives prices in {currency}/{unit}, not in one currency per MWh.")
            self.info = self._info(currency)
            for step_ms, points in _periods(series, "price.amount"):
                by_step.setdefault(step_ms, []).extend(points)
        rows: list[tuple[int, int, float]] = []
        for step_ms in sorted(by_step):
            have = {r[0] // step_ms * step_ms for r in rows}
            rows += [(a, b, v / 1000) for a, b, v in by_step[step_ms] if a not in have]
        return Stretch(sorted(rows))

    def _intensity(self, root: Element, start_ms: int) -> Stretch:
        """Return the intensity from start_ms on."""
        parts: dict[str, list[Point]] = {}
        for series in children(root, "TimeSeries"):
            if child(series, "outBiddingZone_Domain.mRID") is not None:
                continue  # what plants consume
            if (unit := word(series, "quantity_Measure_Unit.name")) != "MAW":
                raise SourceError(f"ENTSO-E gives generation in '{unit}', not in MAW.")
            kind = word(_must(series, "MktPSRType"), "psrType")
            if kind in STORAGE:
                continue
            if kind not in FUEL_MAP:
                raise SourceError(f"ENTSO-E has a type of generation '{kind}' that we do not know.")
            parts.setdefault(kind, []).extend(p for _, points in _periods(series, "quantity") for p in points)
        mix = self._by_kind({code: _signal(points, self.info) for code, points in parts.items()})
        edges, values, lacking = intensity_of_mix(mix, self._config.boundary)
        found = Stretch([r for r in Stretch.of(edges, values).rows if r[0] >= start_ms])
        lacking = [t for t in lacking if t >= start_ms]
        found.refused = told(lacking, "a type of generation that other hours have is missing; the time stays a gap")
        return found

    def _by_kind(self, by_code: Mapping[str, Signal]) -> dict[str, Signal]:
        """Return the sums over types that burn alike; a type that is missing while others are told counts as missing."""
        edges = np.unique(np.concatenate([s.breaks_ms for s in by_code.values()] or [np.zeros(1, np.int64)]))
        sums: dict[str, NDArray[np.float64]] = {}
        for code, signal in by_code.items():
            kind = FUEL_MAP[code]
            sums[kind] = sums.get(kind, 0.0) + signal.at(edges[:-1])
        return {kind: Signal(edges, power, self.info) for kind, power in sums.items()}

    def close(self) -> None:
        """Let go of connections."""
        self._link.web.__exit__()


def _periods(series: Element, name: str) -> Iterator[tuple[int, list[Point]]]:
    """Yield step [ms] and points of each period of a time series.

    Under curve type A03 a position that is left out repeats the one before; under A01 it is a gap.
    """
    repeats = word(series, "curveType", "A01") == "A03"
    for period in children(series, "Period"):
        interval = _must(period, "timeInterval")
        start_ms, end_ms = (instant_ms(word(interval, n)) for n in ("start", "end"))
        step_ms = _step_ms(word(period, "resolution"))
        told_at = sorted((int(word(p, "position")), float(word(p, name))) for p in children(period, "Point"))
        starts = [start_ms + (n - 1) * step_ms for n, _ in told_at]
        if starts and (starts[0] < start_ms or starts[-1] >= end_ms):
            raise ValueError(f"position {told_at[-1][0]} outside its period")
        ends = [*starts[1:], end_ms] if repeats else [t + step_ms for t in starts]
        points = zip(starts, ends, told_at, strict=True)
        yield step_ms, [(t, t + step_ms, v) for a, b, (_, v) in points for t in range(a, b, step_ms)]


def _signal(points: list[Point], info: SignalInfo) -> Signal:
    """Return a step function; of points that come twice the last counts."""
    rows = {a: (b, v) for a, b, v in points}
    breaks: list[int] = []
    values: list[float] = []
    for start, (end, value) in sorted(rows.items()):
        if breaks and breaks[-1] != start:
            values.append(np.nan)
        if not breaks or breaks[-1] != start:
            breaks.append(start)
        values.append(value)
        breaks.append(end)
    return Signal(np.array(breaks or [0], np.int64), np.array(values, np.float64), info)


def _must(element: Element, name: str) -> Element:
    found = child(element, name)
    if found is None:
        raise KeyError(name)
    return found


def _step_ms(resolution: str) -> int:
    match = re.fullmatch(r"PT(\d+)([MH])", resolution)
    if not match:
        raise ValueError(f"resolution {resolution}")
    return int(match[1]) * (60_000 if match[2] == "M" else 3_600_000)


def _minute(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y%m%d%H%M}"


def provider(zone: str, kind: str, config: Mapping[str, Any]) -> EntsoE:
    """Return the publisher of a zone's intensity or price. Raises ConfigError."""
    return EntsoE(zone, kind, checked(Config, config, WHERE))
