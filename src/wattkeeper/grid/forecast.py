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
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.grid.published import carboncast_mape_pct
from wattkeeper.grid.series import Hourly
from wattkeeper.loop import quiet
from wattkeeper.plan.forecast.backtest import Rolled, chosen, judged, origins_of, roll
from wattkeeper.plan.forecast.conformal import LEVELS, quantiles, rolled_quantiles
from wattkeeper.plan.forecast.models import MODELS, Model
from wattkeeper.plan.forecast.scores import coverage, mae, mape_pct, pinball
from wattkeeper.plan.forecast.series import DAY, LEAST

Floats = NDArray[np.float64]

ROLLED_DAYS = 120
"""Days of the rolling back-test: its last ones choose the model (`judged`), all calibrate its quantiles."""
PAST_DAYS = 3 * 366
"""Past that models learn from."""
STALE_HOURS = 72
"""A signal that ends longer ago than this is fetched first, not forecast."""
WARM_DAYS = 90
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
    progress: Progress = quiet,
) -> Forecast:
    """Forecast the hours from the full hour after issued_ms on, from what was known then.

    Values after issued_ms are not looked at. Raises ConfigError where the past is too short or ends too long ago.
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
    rolled = _roll_all(past, models, reach, ROLLED_DAYS, progress)
    errors_of, judges = judged(rolled, len(past))
    pick = int(np.argmin(errors_of))
    made = models[pick].fit(past, reach)(past)
    floor = -np.inf if hourly.info.kind == "price" else 0.0
    errors = rolled[pick].known_at(len(past))
    found = quantiles(made, errors, tuple(levels), floor=floor)
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
    progress: Progress = quiet,
) -> Backtest:
    """Score all models on the last days of a signal: a forecast a day, each from what was known then."""
    series = hourly.values[-PAST_DAYS * DAY :]
    rolled = _roll_all(series, models, hours, days + WARM_DAYS, progress)
    taken, picks = chosen(rolled)
    floor = -np.inf if hourly.info.kind == "price" else 0.0
    told = rolled_quantiles(rolled, picks, levels, floor=floor)
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


def _roll_all(past: Floats, models: Sequence[Model], hours: int, days: int, progress: Progress) -> list[Rolled]:
    origins = origins_of(len(past), hours, days)
    if len(origins) < 7:
        need = LEAST + hours + 6 * DAY
        raise ConfigError(
            f"{len(past)} h of past are too few to judge a forecast of {hours} h by; {need} h are needed."
        )
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
