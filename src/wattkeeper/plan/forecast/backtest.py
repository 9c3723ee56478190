"""Rolling back-tests: forecasts as they would have been made, day after day, beside what came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.forecast.models import Model
from wattkeeper.plan.forecast.series import DAY, LEAST, Floats

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rolled:
    """Forecasts of one model. origins: (m,) hours of the series at which they were made.

    made, came: (m, hours) float64; came is NaN where no value is known.
    """

    model: str
    origins: Ints
    made: Floats
    came: Floats

    @property
    def errors(self) -> Floats:
        """What came less what was forecast."""
        return self.came - self.made

    def known_at(self, origin: int) -> Floats:
        """Return the errors, (m, hours), NaN where the hour forecast had not passed at an origin."""
        hours = self.origins[:, None] + np.arange(self.made.shape[1])
        return np.where(hours < origin, self.errors, np.nan)


def origins_of(length: int, hours: int, days: int, least: int = LEAST) -> Ints:
    """Return an origin a day for the last days of a series, so that the last forecast ends with it.

    least: hours of past that the first one needs.
    """
    last = length - hours
    found = last - DAY * np.arange(days - 1, -1, -1, dtype=np.int64)
    return found[found >= least]


def roll(
    series: Floats,
    model: Model,
    origins: Sequence[int] | Ints,
    hours: int,
    step: Callable[[int], None] = lambda _done: None,
) -> Rolled:
    """Return the forecasts of a model at some origins, rising; each sees series[:origin] and nothing else."""
    made, came = np.empty((len(origins), hours)), np.full((len(origins), hours), np.nan)
    predict, fitted = None, -1
    for i, origin in enumerate(int(o) for o in origins):
        past = series[:origin]
        if predict is None or (model.refit_days and origin - fitted >= model.refit_days * DAY):
            predict, fitted = model.fit(past, hours), origin
        made[i] = predict(past)
        after = series[origin : origin + hours]
        came[i, : len(after)] = after
        step(i + 1)
    return Rolled(model.name, np.asarray(origins, np.int64), made, came)


def then(rolled: Rolled, origin: int, made: Floats) -> Rolled:
    """Return forecasts and one more, of which nothing has come yet."""
    return Rolled(
        rolled.model, np.append(rolled.origins, origin), np.vstack((rolled.made, made)),
        np.vstack((rolled.came, np.full_like(made, np.nan))),
    )  # fmt: skip


JUDGED_DAYS = 56
"""Last days whose errors choose the model: what was best in another season may not be now."""


def judged(rolled: Sequence[Rolled], origin: int, days: int = JUDGED_DAYS) -> tuple[list[float], int]:
    """Return each model's mean absolute error in what was known at an origin, inf for none, and by how many forecasts.

    Those of the last days count. Hours that one of the models gave no value for are left out for all.
    """
    recent = rolled[0].origins >= origin - DAY * days - rolled[0].made.shape[1]
    errors = np.stack([np.abs(r.known_at(origin)[recent]) for r in rolled])
    told = np.isfinite(errors)
    judges = told.any(axis=(1, 2))
    fair = told[judges].all(axis=0)
    means = [float(e[fair].mean()) if j and fair.any() else np.inf for e, j in zip(errors, judges, strict=True)]
    return means, int(fair.any(axis=1).sum())


def best(rolled: Sequence[Rolled], origin: int, days: int = JUDGED_DAYS) -> int:
    """Return which model had the least error as `judged`. The first of equals wins; 0 where nothing is known."""
    return int(np.argmin(judged(rolled, origin, days)[0]))


def chosen(rolled: Sequence[Rolled]) -> tuple[Rolled, list[int]]:
    """Return the forecasts of the model that was best so far at each origin, and which it was."""
    first = rolled[0]
    picks = [best(rolled, int(o)) for o in first.origins]
    made = np.stack([rolled[p].made[i] for i, p in enumerate(picks)]) if picks else first.made
    return Rolled("chosen", first.origins, made, first.came), picks
