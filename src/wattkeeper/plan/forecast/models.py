"""Models of an hourly series: seasonal baselines and ridge regressions on the last days.

Each takes the past up to the origin and returns the hours after it. Weekdays and hours are counted from the origin, so
no clock is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wattkeeper.plan.forecast.series import DAY, WEEK, Floats, days_of, filled

Predict = Callable[[Floats], Floats]
"""Past up to an origin → the hours after it."""


@dataclass(frozen=True, slots=True)
class Model:
    """A way to forecast. fit: past and hours wanted → a function of a past that may be longer.

    refit_days: after so many days a back-test fits anew; 0 for what learns nothing.
    """

    name: str
    about: str
    fit: Callable[[Floats, int], Predict]
    refit_days: int = 0


def _last(past: Floats, hours: int) -> Floats:
    """Return the last hours without holes; from all of the past where that leaves an hour of the day without a value."""
    found = filled(past[-hours:])
    return filled(past)[-hours:] if np.isnan(found).any() else found


def persistence(_history: Floats, hours: int) -> Predict:
    """Fit nothing: the last value holds."""
    return lambda past: np.full(hours, _last(past, WEEK)[-1])


def _repeat(period: int) -> Callable[[Floats, int], Predict]:
    """Return a model in which the last period comes again and again."""

    def fit(_history: Floats, hours: int) -> Predict:
        turns = -(-hours // period)
        return lambda past: np.tile(_last(past, 4 * WEEK)[-period:], turns)[:hours]

    return fit


def profile(_history: Floats, hours: int, weeks: int = 4) -> Predict:
    """Fit nothing: the mean of the same hour of the week over four weeks."""

    def predict(past: Floats) -> Floats:
        mean = _last(past, weeks * WEEK).reshape(weeks, WEEK).mean(axis=0)
        return np.tile(mean, -(-hours // WEEK))[:hours]

    return predict


_PENALTY = (3.0, 30.0, 100.0, 300.0)
"""Penalty on standardised features by day ahead, the last for all days after: the further, the less is to be learned."""
_PLENTY_DAYS = 300
"""Days to learn from with which the penalties are as above."""
_SEASON_DAYS = 28
"""Half-life of a day in the mean day, and the first days that are not learned from."""
_LOOK_DAYS = 8
_LEAST_DAYS = 8
"""Days to learn from; with fewer the profile stands in."""
_CUT_HOURS = WEEK
"""Targets beyond a week are forecast as the same hour within it: what is that far no longer depends on today."""


@dataclass(frozen=True, slots=True)
class Beside:
    """Another hourly series that begins with the one forecast, of which `known` hours after each origin are told."""

    values: Floats
    known: int

    def seen_from(self, end: int, days: int) -> Floats:
        """Return what is told at each of some origins a day apart, the last at hour `end`, (days, 24 + known).

        The day before an origin and the hours known after it, less the mean of the four weeks before it.
        """
        reach = end + self.known
        whole = filled(np.concatenate((self.values[:reach], np.full(max(reach - len(self.values), 0), np.nan))))
        sums = np.concatenate(([0.0], np.cumsum(whole)))
        at = end - DAY * np.arange(days - 1, -1, -1)
        level = (sums[at] - sums[at - _SEASON_DAYS * DAY]) / (_SEASON_DAYS * DAY)
        return np.asarray(whole[at[:, None] + np.arange(-DAY, self.known)] - level[:, None], np.float64)


def ridge(history: Floats, hours: int, beside: Beside | None = None) -> Predict:
    """Fit a ridge regression of each hour ahead on the last days, both less the mean day before the origin.

    Features of an origin: the 24 hours before it, the means of the last eight days, the mean day of the week before,
    the weekday, the season of the year, and what is told of a series beside it. All hours of a day ahead are solved at
    once. No forecast leaves the range of what was.
    """
    ahead = min(hours, _CUT_HOURS)
    span = -(-ahead // DAY)
    days = days_of(filled(history))
    told = ~np.isnan(days_of(history))
    last = len(days) - span
    origins = np.arange(_SEASON_DAYS, last + 1)
    if len(origins) < _LEAST_DAYS:
        return profile(history, hours)
    x, season = _features(days, origins)
    if beside is not None:
        x = np.concatenate((x, beside.seen_from(len(history) - (span * DAY), len(origins))), axis=1)
    at = origins[:, None] + np.arange(span)
    y = days[at].reshape(len(origins), -1)[:, :ahead] - np.tile(season, (1, span))[:, :ahead]
    sound = told[at].reshape(len(origins), -1)[:, :ahead].mean(axis=1) > 0.5
    if sound.sum() < _LEAST_DAYS:
        return profile(history, hours)
    x, y = x[sound], y[sound]
    centre, width = x.mean(axis=0), x.std(axis=0) + 1e-9
    scaled, mean = (x - centre) / width, y.mean(axis=0)
    low, high = np.nanmin(history), np.nanmax(history)
    weights = _solved(scaled.T @ scaled, scaled.T @ (y - mean), max(_PLENTY_DAYS / len(x), 1.0) ** 2)

    def predict(past: Floats) -> Floats:
        known = days_of(filled(past))
        now, day = _features(known, np.array([len(known)]), turn=len(days) - len(known))
        if beside is not None:
            now = np.concatenate((now, beside.seen_from(len(past), 1)), axis=1)
        found = ((now - centre) / width @ weights + mean)[0] + np.tile(day[0], span)[:ahead]
        found = np.clip(found, low, high)
        if hours <= ahead:
            return np.asarray(found, np.float64)
        return np.concatenate((found, np.tile(found[-WEEK:], -(-hours // WEEK))))[:hours]

    return predict


def _solved(gram: Floats, target: Floats, scarce: float) -> Floats:
    """Return the weights of each hour ahead, (features, hours), penalised by its day, and more where days are scarce."""
    parts = np.split(target, range(DAY, target.shape[1], DAY), axis=1)
    eye = np.eye(len(gram))
    penalties = [scarce * _PENALTY[min(d, len(_PENALTY) - 1)] for d in range(len(parts))]
    solved = [np.linalg.solve(gram + p * eye, part) for p, part in zip(penalties, parts, strict=True)]
    return np.concatenate(solved, axis=1)


def blend(history: Floats, hours: int, beside: Beside | None = None) -> Predict:
    """Fit two ridge regressions, of the values and of their logarithms, and take the mean of what they say.

    The first tends to the mean of what may come, the second to its median, which is lower where high values stand out.
    Where a value is not above 0 the first stands alone.
    """
    plain = ridge(history, hours, beside)
    if not (history[~np.isnan(history)] > 0).all():
        return plain
    logs = ridge(np.log(history), hours, beside)

    def predict(past: Floats) -> Floats:
        if not (past[~np.isnan(past)] > 0).all():
            return plain(past)
        return np.asarray((plain(past) + np.exp(logs(np.log(past)))) / 2, np.float64)

    return predict


def _features(days: Floats, origins: np.ndarray, turn: int = 0) -> tuple[Floats, Floats]:
    """Return features, (origins, 24 + 8 + 24 + 7 + 2), and the mean day before each origin, (origins, 24).

    In the mean a day counts half as much as one four weeks after it. turn: days by which `days` is shorter at its end
    than the past a model was fitted to, for weekday and season.
    """
    weights = 2.0 ** ((np.arange(len(days)) - len(days)) / _SEASON_DAYS)[:, None]
    season = np.cumsum(days * weights, axis=0)[origins - 1] / np.cumsum(weights, axis=0)[origins - 1]
    look = days[origins[:, None] - np.arange(_LOOK_DAYS, 0, -1)] - season[:, None, :]
    since = len(days) - origins + turn
    year = 2 * np.pi * since / 365.25
    parts = (
        look[:, -1], look.mean(axis=2), look[:, :-1].mean(axis=1), np.eye(7)[since % 7],
        np.sin(year)[:, None], np.cos(year)[:, None],
    )  # fmt: skip
    return np.concatenate(parts, axis=1), season


PERSISTENCE = Model("persistence", "the last value holds", persistence)

MODELS: tuple[Model, ...] = (
    PERSISTENCE,
    Model("day", "the same hour of the last day", _repeat(DAY)),
    Model("week", "the same hour of the last week", _repeat(WEEK)),
    Model("profile", "mean of the same hour of the week over four weeks", profile),
    Model("ridge", "ridge regression on the last eight days", ridge, refit_days=1),
    Model("blend", "mean of ridge regressions of the values and of their logarithms", blend, refit_days=1),
)


def priced(prices: Beside) -> Model:
    """Return a model that is told day-ahead prices: the blend, with the prices among its features."""

    def fit(history: Floats, hours: int) -> Predict:
        return blend(history, hours, prices)

    return Model("prices", "the blend, told day-ahead prices", fit, refit_days=1)
