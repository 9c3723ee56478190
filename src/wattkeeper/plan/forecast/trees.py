"""Boosted trees, where LightGBM is installed: one model for all hours ahead, fitted to the absolute error."""

from __future__ import annotations

from typing import Any

import numpy as np

from wattkeeper.core.errors import MissingExtraError
from wattkeeper.plan.forecast.models import Model, Predict, profile
from wattkeeper.plan.forecast.series import DAY, WEEK, Floats, filled

_STEP_HOURS = 5
"""Origins that are learned from stand this far apart, so that every hour of the day is met."""
_TARGETS = 12
"""Hours ahead drawn for each origin."""
_FIRST = 4 * WEEK
_PARAMETERS = {
    "objective": "l1", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 50, "feature_fraction": 0.7,
    "bagging_fraction": 0.7, "bagging_freq": 1, "seed": 1, "deterministic": True, "verbose": -1, "num_threads": 1,
}  # fmt: skip
_ROUNDS = 300


def trees() -> Model:
    """Return the model. Raises MissingExtraError without the extra `forecast`."""
    _lightgbm()
    return Model("trees", "gradient-boosted trees (LightGBM)", _fit, refit_days=28)


def _lightgbm() -> Any:
    try:
        import lightgbm  # noqa: PLC0415 - heavy, and optional
    except (ImportError, OSError) as error:  # OSError: libgomp is not there
        raise MissingExtraError("wattkeeper.plan.forecast.trees", "lightgbm", "forecast") from error
    return lightgbm


def _fit(history: Floats, hours: int) -> Predict:
    past = filled(history)
    origins = np.arange(_FIRST, len(past) - hours, _STEP_HOURS)
    if len(origins) < 200:
        return profile(history, hours)
    lightgbm = _lightgbm()
    at = np.repeat(origins, _TARGETS)
    ahead = np.random.default_rng(0).integers(0, hours, len(at))
    x, level = _features(past, at, ahead, end=len(past))
    told = ~np.isnan(history[at + ahead])
    y = (past[at + ahead] - level)[told]
    data = lightgbm.Dataset(x[told], y)
    booster = lightgbm.train(_PARAMETERS, data, num_boost_round=_ROUNDS)
    length = len(past)

    def predict(known: Floats) -> Floats:
        now = filled(known)
        here = np.full(hours, len(now))
        x, level = _features(now, here, np.arange(hours), end=length)
        return np.asarray(booster.predict(x, num_threads=1) + level, np.float64)

    return predict


def _features(past: Floats, origin: np.ndarray, ahead: np.ndarray, *, end: int) -> tuple[Floats, Floats]:
    """Return features of hours ahead of origins, and the level of the last week that values are told against."""
    target = origin + ahead
    days = ahead // DAY + 1
    sums = np.concatenate(([0.0], np.cumsum(past)))

    def mean(hours: int) -> Floats:
        return np.asarray((sums[origin] - sums[origin - hours]) / hours, np.float64)

    level = mean(WEEK)
    same = np.stack([past[target - DAY * (days + k)] for k in range(7)], axis=1) - level[:, None]
    week = past[target - WEEK * (ahead // WEEK + 1)] - level
    weeks = past[target - WEEK * (ahead // WEEK + 2)] - level
    year = 2 * np.pi * (target - end) / (365.25 * DAY)
    rest = (
        week, weeks, past[origin - 1] - level, past[origin - 1] - past[origin - 1 - DAY], mean(DAY) - level,
        mean(4 * WEEK) - level, same.mean(axis=1), ahead, (target - end) % DAY, (target - end) // DAY % 7,
        np.sin(year), np.cos(year),
    )  # fmt: skip
    return np.concatenate((same, np.stack(rest, axis=1)), axis=1), level
