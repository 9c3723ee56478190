"""Forecasts of a zone's signal: the model that wins a rolling back-test, its quantiles, and how well all would have done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.attribution import Progress
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.roles import Intake, SignalInfo
from wattkeeper.core.schema import SIGNALS
from wattkeeper.core.signal import FORECAST
from wattkeeper.core.units import MS_PER_DAY, MS_PER_HOUR
from wattkeeper.grid.published import carboncast_mape_pct
from wattkeeper.grid.series import Hourly
from wattkeeper.loop import quiet
from wattkeeper.plan.forecast.backtest import Rolled, chosen, judged, origins_of, roll, then
from wattkeeper.plan.forecast.conformal import LEVELS, rolled_quantiles
from wattkeeper.plan.forecast.models import MODELS, Beside, Model, priced
from wattkeeper.plan.forecast.scores import coverage, mae, mape_pct, pinball
from wattkeeper.plan.forecast.series import DAY, LEAST

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROLLED_DAYS = 365
"""Days of the rolling back-test: its last ones choose the model (`judged`), all calibrate its quantiles."""
PAST_DAYS = 3 * 366
"""Past that models learn from."""
STALE_HOURS = 72
"""A signal that ends longer ago than this is fetched first, not forecast."""
WARM_DAYS = 180
"""Origins before the scored ones, where there are any, from which the first choice and the first quantiles come."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast of hours from start_ms on. quantiles: (levels, hours); mae: by model in the back-test that chose, over the
    last `days` forecasts, one a day."""

    info: SignalInfo
    issued_ms: int
    start_ms: int
    values: Floats
    levels: tuple[float, ...]
    quantiles: Floats
    model: str
    mae: dict[str, float]
    days: int


@dataclass(frozen=True, slots=True)
class Score:
    """How one model did, by day ahead. mape_pct is None where a value that came is 0."""

    model: str
    mape_pct: tuple[float | None, ...]
    mae: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Backtest:
    """All models on the same origins. chosen: the model that was best until then, day by day; picks: how often which.

    pinball and coverage are those of the chosen model's quantiles; published: CarbonCast's MAPE by day ahead [%].
    """

    info: SignalInfo
    start_ms: int
    end_ms: int
    origins: int
    scores: tuple[Score, ...]
    picks: dict[str, int]
    levels: tuple[float, ...]
    pinball: float | None
    coverage: tuple[float | None, ...]
    published: tuple[float, ...] | None


def models_of(*, trees: bool) -> tuple[Model, ...]:
    """Return the models to try. Raises MissingExtraError for trees without the extra `forecast`."""
    if not trees:
        return MODELS
    from wattkeeper.plan.forecast.trees import trees as boosted  # noqa: PLC0415 - heavy, and optional

    return (*MODELS, boosted())


def forecast(
    hourly: Hourly,
    issued_ms: int,
    hours: int,
    *,
    models: Sequence[Model] = MODELS,
    levels: Sequence[float] = LEVELS,
    prices: Hourly | None = None,
    progress: Progress = quiet,
) -> Forecast:
    """Forecast the hours from the full hour after issued_ms on, from what was known then.

    Values after issued_ms are not looked at, but for day-ahead prices that were published by then (`prices_until_ms`).
    Raises ConfigError where the past is too short or ends too long ago, or where no price of the hours ahead is there.
    """
    start_ms = -(-issued_ms // MS_PER_HOUR) * MS_PER_HOUR
    past = _past(hourly, issued_ms)
    late = (start_ms - hourly.start_ms) // MS_PER_HOUR - len(past)
    past = past[-PAST_DAYS * DAY :]
    if late > STALE_HOURS:
        raise ConfigError(
            f"{hourly.info.id} has no value after {iso(start_ms - late * MS_PER_HOUR)}, {late} h before the forecast. "
            "Fetch it first, or issue the forecast --at an earlier time."
        )
    reach = late + hours
    _enough(past, hours, late)
    models = _with_prices(models, prices, start_ms - (late + len(past)) * MS_PER_HOUR, len(past), issued_ms)
    rolled = _roll_all(past, models, origins_of(len(past), DAY, ROLLED_DAYS), reach, progress)
    errors_of, judges = judged(rolled, len(past))
    pick = int(np.argmin(errors_of))
    made = models[pick].fit(past, reach)(past)
    floor = _floor(hourly.info)
    picks = [*chosen(rolled)[1], pick]
    found = rolled_quantiles([then(r, len(past), made) for r in rolled], picks, levels, floor=floor)[-1]
    means = {r.model: error for r, error in zip(rolled, errors_of, strict=True)}
    return Forecast(
        hourly.info, issued_ms, start_ms, np.maximum(made, floor)[late:], tuple(levels), found[:, late:],
        models[pick].name, means, judges,
    )  # fmt: skip


def backtest(
    hourly: Hourly,
    hours: int,
    days: int,
    *,
    models: Sequence[Model] = MODELS,
    levels: Sequence[float] = LEVELS,
    prices: Hourly | None = None,
    progress: Progress = quiet,
) -> Backtest:
    """Score all models on the last days of a signal: a forecast a day, each from what was known then."""
    series = hourly.values[-PAST_DAYS * DAY :]
    _enough(series, hours)
    start_ms = hourly.end_ms - len(series) * MS_PER_HOUR
    last = len(series) - hours
    models = _with_prices(models, prices, start_ms, last, start_ms + last * MS_PER_HOUR)
    rolled = _roll_all(series, models, origins_of(len(series), hours, days + WARM_DAYS), hours, progress)
    taken, picks = chosen(rolled)
    told = rolled_quantiles(rolled, picks, levels, floor=_floor(hourly.info))
    scored = slice(-days, None)
    every = [_cut(r, scored) for r in (*rolled, taken)]
    names = [models[p].name for p in picks[scored]]
    first_ms = hourly.end_ms - (len(series) - int(every[0].origins[0])) * MS_PER_HOUR
    return Backtest(
        hourly.info, first_ms, hourly.end_ms, len(every[0].origins),
        tuple(Score(r.model, tuple(mape_pct(r)), tuple(mae(r))) for r in every),
        {n: names.count(n) for n in dict.fromkeys(names)}, tuple(levels),
        pinball(every[-1].came, told[scored], levels), tuple(coverage(every[-1].came, told[scored])),
        carboncast_mape_pct(zone_of(hourly.info)) if hourly.info.kind == "intensity" else None,
    )  # fmt: skip


def prices_until_ms(issued_ms: int) -> int:
    """Return until when the day-ahead prices of Europe's coupled auction are known at an instant [ms].

    Those of a day, midnight to midnight in Central Europe, are published about 12:45 there the day before: by 12:00 UTC.
    22:00 UTC is never after the end of a day.
    """
    day_ms, time_ms = divmod(issued_ms, MS_PER_DAY)
    return (day_ms + (time_ms >= 12 * MS_PER_HOUR)) * MS_PER_DAY + 22 * MS_PER_HOUR


def _with_prices(
    models: Sequence[Model], prices: Hourly | None, start_ms: int, origin: int, issued_ms: int
) -> Sequence[Model]:
    """Return the models, and one more where prices are given: told so many hours of them as an origin knows.

    The back-test's origins are at the same hour of the day as this one, and so know as many.
    """
    if prices is None:
        return models
    origin_ms = start_ms + origin * MS_PER_HOUR
    until_ms = min(prices_until_ms(issued_ms), prices.end_ms)
    known = (until_ms - origin_ms) // MS_PER_HOUR
    if known < 1 or prices.start_ms > origin_ms - LEAST * MS_PER_HOUR:
        raise ConfigError(
            f"{prices.info.id} has values from {iso(prices.start_ms)} to {iso(prices.end_ms)}: a forecast from "
            f"{iso(origin_ms)} needs four weeks of prices before it and those after it. Fetch them, or leave --prices out."
        )
    values = np.full(origin + known, np.nan)
    at = (prices.start_ms - start_ms) // MS_PER_HOUR
    part = prices.values[max(-at, 0) : origin + known - at]
    values[max(at, 0) : max(at, 0) + len(part)] = part
    return (*models, priced(Beside(values, int(known))))


def zone_of(info: SignalInfo) -> str:
    """Return the zone in a signal's id; "" where it has none."""
    return info.id.partition(":")[2].partition(":")[0]


def _cut(rolled: Rolled, part: slice) -> Rolled:
    return Rolled(rolled.model, rolled.origins[part], rolled.made[part], rolled.came[part])


def _past(hourly: Hourly, issued_ms: int) -> Floats:
    """Return the values up to the last one known at an instant."""
    hours = min(max((issued_ms - hourly.start_ms) // MS_PER_HOUR, 0), len(hourly.values))
    past = hourly.values[:hours]
    known = np.flatnonzero(~np.isnan(past))
    return past[: known[-1] + 1] if len(known) else past[:0]


def _floor(info: SignalInfo) -> float:
    """Return the least value that a signal can have: prices may be negative."""
    return -np.inf if info.kind == "price" else 0.0


def _enough(past: Floats, hours: int, late: int = 0) -> None:
    """Raise ConfigError where fewer than seven forecasts of so many hours could be judged by the past."""
    need = LEAST + late + hours + 6 * DAY
    if len(past) < need:
        fewer = len(past) - need + hours
        cure = f", or forecast at most {fewer} --hours" if fewer >= 1 else ""
        raise ConfigError(
            f"{len(past)} h of past are too few to judge a forecast of {hours} h by; {need} h are needed. "
            f"Fetch more of it{cure}."
        )


def _roll_all(past: Floats, models: Sequence[Model], origins: Ints, hours: int, progress: Progress) -> list[Rolled]:
    rolled = []
    for i, model in enumerate(models):

        def step(done: int, i: int = i, name: str = model.name) -> None:
            progress(name, i * len(origins) + done, len(models) * len(origins))

        rolled.append(roll(past, model, origins, hours, step))
    return rolled


def to_intake(made: Forecast) -> Intake:
    """Return a forecast as signals: the issue under an id of its own, and the newest under one that stays."""
    issue = f"{made.info.id}{FORECAST}@{iso(made.issued_ms)[:16]}Z"
    newest = f"{made.info.id}{FORECAST}"
    ends = [f":q{level * 100:g}" for level in made.levels]
    rows, infos = [], []
    starts = made.start_ms + np.arange(len(made.values), dtype=np.int64) * MS_PER_HOUR
    about = {issue: f"issued {iso(made.issued_ms)}", newest: "the newest issue"}
    for name, when in about.items():
        for end, values in zip(["", *ends], [made.values, *made.quantiles], strict=True):
            what = f"forecast of {made.info.id}, {when}" + (f", quantile {end[2:]} %" if end else "")
            info = replace(made.info, id=name + end, provider="Wattkeeper", version=made.model, note=what)
            infos.append(replace(info, method=", ".join(w for w in (made.info.method, "forecast") if w)))
            columns = {"start_ms": starts, "end_ms": starts + MS_PER_HOUR, "value": values}
            table = pl.DataFrame(columns).filter(pl.col("value").is_not_nan())
            rows.append(table.select(pl.lit(name + end).alias("signal"), "start_ms", "end_ms", "value"))
    forever = [(i.id, 0, 2**62) for i in infos]
    return Intake(
        f"forecast {made.info.id}", signals=pl.concat([SIGNALS.empty(), *rows]), signal_infos=infos, replaces=forever
    )
