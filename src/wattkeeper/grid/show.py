"""What is shown of a signal: its course with gaps and the forecast ahead, and errors by day, as rows and plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.signal import FORECAST
from wattkeeper.core.units import MS_PER_DAY, MS_PER_HOUR
from wattkeeper.grid.forecast import Backtest, Forecast
from wattkeeper.grid.series import Hourly, read_hourly
from wattkeeper.lake.book import Book
from wattkeeper.plan.forecast.scores import blocks
from wattkeeper.plan.forecast.series import DAY
from wattkeeper.report.signals import course as draw

Floats = NDArray[np.float64]

SHOWN_MS = 7 * MS_PER_DAY
"""How much is shown where no start is given [ms]."""


@dataclass(frozen=True, slots=True)
class Course:
    """A signal's hours, those forecast after them, and the forecast's (low, high) band."""

    hourly: Hourly
    ahead: Hourly | None = None
    band: tuple[Floats, Floats] | None = None


def read_course(book: Book, info: SignalInfo, start_ms: int | None, end_ms: int | None) -> Course:
    """Return the hours asked for, and what the newest forecast says of the hours after them, unless an end is given."""
    whole = read_hourly(book, info, None, end_ms)
    first_ms = max(whole.end_ms - SHOWN_MS, whole.start_ms) if start_ms is None else start_ms
    hourly = read_hourly(book, info, first_ms, end_ms)
    infos = book.state.signal_infos()
    name = f"{info.id}{FORECAST}"
    if end_ms is not None or name not in infos:
        return Course(hourly)
    ahead = read_hourly(book, infos[name])
    later = max((hourly.end_ms - ahead.start_ms) // MS_PER_HOUR, 0)
    if later >= len(ahead.values):
        return Course(hourly)

    def after(one: str) -> Floats:
        values = read_hourly(book, infos[one], ahead.start_ms, ahead.end_ms).values
        return values[later:]

    edges = [f"{name}:q10", f"{name}:q90"]
    band = (after(edges[0]), after(edges[1])) if all(e in infos for e in edges) else None
    return Course(hourly, Hourly(infos[name], ahead.start_ms + later * MS_PER_HOUR, ahead.values[later:]), band)


def columns(hourly: Hourly, ahead: Hourly | None, width: int) -> tuple[list[float | None], list[str], list[str], int]:
    """Return values, marks and styles of at most `width` columns, and the hours in one; a gap in any hour is shown."""
    parts = [hourly.values] if ahead is None else [hourly.values, _joined(hourly, ahead)]
    values = np.concatenate(parts)
    known = len(hourly.values)
    each = max(1, -(-len(values) // width))
    found: list[float | None] = []
    marks, styles = [], []
    day = ""
    for at in range(0, len(values), each):
        part = values[at : at + each]
        found.append(None if np.isnan(part).any() else float(part.mean()))
        today = iso(hourly.start_ms + at * MS_PER_HOUR)[5:10]
        marks.append(today if today != day else "")
        day = today
        styles.append("green" if at < known else "cyan")
    return found, marks, styles, each


def _joined(hourly: Hourly, ahead: Hourly) -> Floats:
    """Return the hours after a course, NaN between its end and the forecast's start."""
    wait = max((ahead.start_ms - hourly.end_ms) // MS_PER_HOUR, 0)
    return np.concatenate((np.full(wait, np.nan), ahead.values))


def course(found: Course) -> dict[str, Any]:
    """Return the figure as a Vega-Lite spec."""
    info = found.hourly.info
    points = _points(found.hourly, "forecast" if FORECAST in info.id else "measured")
    if found.ahead is not None:
        points += _points(found.ahead, "forecast", found.band)
    gaps = [{"start": iso(a), "end": iso(b)} for a, b in found.hourly.gaps()]
    return draw(points, gaps, info.unit, info.id)


def _points(hourly: Hourly, what: str, band: tuple[Floats, Floats] | None = None) -> list[dict[str, Any]]:
    """Return a row an hour, and one at the end that holds the last step."""
    rows = []
    for i, value in enumerate([*hourly.values.tolist(), hourly.values[-1]]):
        at = min(i, len(hourly.values) - 1)
        row = {"time": iso(hourly.start_ms + i * MS_PER_HOUR), "value": _told(value), "what": what}
        if band is not None:
            row |= {"low": _told(band[0][at]), "high": _told(band[1][at])}
        rows.append(row)
    return rows


def _told(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def as_hourly(made: Forecast) -> Hourly:
    """Return a forecast's values as a series."""
    return Hourly(made.info, made.start_ms, made.values)


def band(made: Forecast) -> tuple[Floats, Floats]:
    """Return the least and greatest quantile of a forecast."""
    return made.quantiles[0], made.quantiles[-1]


def daily(made: Forecast) -> list[tuple[int, list[float]]]:
    """Return for each 24 hours ahead when they begin [ms] and the means of the forecast and its quantiles."""
    rows = np.vstack((made.values, made.quantiles))
    return [(made.start_ms + a * MS_PER_HOUR, rows[:, a:b].mean(axis=1).tolist()) for a, b in blocks(rows.shape[1])]


def hour_names(days: int) -> list[str]:
    """Return the names of days ahead: 1-24, 25-48 and so on."""
    return [f"{d * DAY + 1}-{(d + 1) * DAY}" for d in range(days)]


def error_rows(done: Backtest) -> tuple[list[dict[str, Any]], str]:
    """Return rows of model, hours and error, and what the error is: MAPE [%], or for a price the mean error."""
    percent = done.info.kind != "price" and all(v is not None for s in done.scores for v in s.mape_pct)
    rows = []
    for score in done.scores:
        values = score.mape_pct if percent else score.mae
        names = hour_names(len(values))
        rows += [{"model": score.model, "hours": n, "error": v} for n, v in zip(names, values, strict=True)]
    if percent and done.published:
        names = hour_names(len(done.published))
        rows += [{"model": "CarbonCast", "hours": n, "error": v} for n, v in zip(names, done.published, strict=True)]
    return rows, "MAPE [%]" if percent else f"mean absolute error [{done.info.unit}]"


def to_json(found: Course) -> dict[str, Any]:
    """Return a course as plain data; None where a value is missing."""
    hourly = found.hourly
    data: dict[str, Any] = _about(hourly.info) | {
        "start": iso(hourly.start_ms),
        "hourly": [_told(v) for v in hourly.values],
        "gaps": [{"start": iso(a), "end": iso(b)} for a, b in hourly.gaps()],
    }
    if found.ahead is not None:
        data["forecast"] = {"start": iso(found.ahead.start_ms), "hourly": [_told(v) for v in found.ahead.values]}
    return data


def forecast_json(made: Forecast) -> dict[str, Any]:
    """Return a forecast as plain data."""
    return _about(made.info) | {
        "issued": iso(made.issued_ms),
        "start": iso(made.start_ms),
        "model": made.model,
        "judged_days": made.days,
        "mae": made.mae,
        "hourly": [_told(v) for v in made.values],
        "quantiles": {
            f"{q * 100:g}": [_told(v) for v in row] for q, row in zip(made.levels, made.quantiles, strict=True)
        },
    }


def backtest_json(done: Backtest) -> dict[str, Any]:
    """Return a back-test as plain data."""
    names = hour_names(len(done.scores[0].mae))
    return _about(done.info) | {
        "start": iso(done.start_ms),
        "end": iso(done.end_ms),
        "forecasts": done.origins,
        "models": {
            s.model: {
                "mape_pct": dict(zip(names, s.mape_pct, strict=True)), "mae": dict(zip(names, s.mae, strict=True)),
            }
            for s in done.scores
        },
        "chosen_days": done.picks,
        "pinball": done.pinball,
        "coverage": {f"{q * 100:g}": c for q, c in zip(done.levels, done.coverage, strict=True)},
        "carboncast_mape_pct": done.published,
    }  # fmt: skip


def _about(info: SignalInfo) -> dict[str, Any]:
    return {
        "signal": info.id,
        "unit": info.unit,
        "provider": info.provider,
        "version": info.version,
        "method": info.method,
    }
