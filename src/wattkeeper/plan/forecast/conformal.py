"""Quantiles of a forecast from the errors that its model made, and from how well the quantiles before them held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.forecast.backtest import Rolled
from wattkeeper.plan.forecast.scores import blocks
from wattkeeper.plan.forecast.series import Floats

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)

NEAR_HOURS = 2
"""Errors of so many hours ahead on either side count for an hour: they are of about the same hour of the day."""

WINDOW = 365
"""Origins whose errors count."""

SCALE_DAYS = 14
"""Half-life of an error in the size that errors are expected to have."""

MOST_SCALES = 20.0
"""An error of more than so many times the size expected counts as that many: one spike rules no year."""

PULL, KEEP = 0.15, 0.95
"""Shift of a quantile, in sizes expected, for each share by which it held too seldom, and what is left a day later."""

_LEAST_SCALE = 1e-12


def rolled_quantiles(
    rolled: Sequence[Rolled], picks: Sequence[int], levels: Sequence[float] = LEVELS, *, floor: float = -np.inf
) -> Floats:
    """Return the quantiles told at each origin, (origins, levels, hours), rising in level; NaN before any error is known.

    rolled: the models' forecasts at origins a day apart; picks: which one was used at each origin, whose own errors until
    then make its quantiles. floor: least value.

    Each error is told in the size expected of it when the forecast was made, the mean of the absolute errors of that day
    ahead, the recent ones counting more. The quantile of n such errors is the ⌈level (n + 1)⌉-th smallest, and by
    symmetry below one half: locally weighted split conformal (Lei et al. 2018, §5.2). It is shifted by what the last
    days teach: up where more values than it should have come above it, else down, and less so each day after (quantile
    tracking with decay: Gibbs and Candès 2021; Angelopoulos, Candès and Tibshirani 2023).
    """
    level = np.asarray(levels, np.float64)
    days = blocks(rolled[0].made.shape[1])
    found = np.full((len(picks), len(level), rolled[0].made.shape[1]), np.nan)
    scaled = {p: _scaled(rolled[p].errors, days) for p in set(picks)}
    shift = np.zeros(len(level))
    for i, pick in enumerate(picks):
        shift = KEEP * shift + PULL * _missed(rolled[0].came, found, level, i, days)
        size, known = scaled[pick]
        spread = _ranked(known[max(i - WINDOW, 0) : i], level) + shift[:, None]
        found[i] = rolled[pick].made[i] + np.sort(spread * size[i], axis=0)
    return np.asarray(np.maximum(found, floor), np.float64)


def _scaled(errors: Floats, days: list[tuple[int, int]]) -> tuple[Floats, Floats]:
    """Return the size expected of each error, (origins, hours), and the errors told in it.

    Row i of those, (origins, hours, near), is what is known at origin i + 1 and was not at origin i. Errors made before
    any size was known are told in the first that was.
    """
    known = np.stack([_expected(np.abs(errors[:, a:b]), d + 1) for d, (a, b) in enumerate(days)], axis=1)
    line = _by_hour(known, days)
    size, told = np.full_like(errors, np.nan), np.full_like(errors, np.nan)
    for d, (a, b) in enumerate(days):
        sure = np.flatnonzero(~np.isnan(known[:, d]))
        if len(sure):
            size[sure, a:b] = line[sure, a:b]
            measure = line[np.maximum(np.arange(len(line)), sure[0]), a:b]
            ratio = np.clip(errors[:, a:b] / measure, -MOST_SCALES, MOST_SCALES)
            told[d:, a:b] = ratio[: len(ratio) - d]
    wide = np.pad(told, ((0, 0), (NEAR_HOURS, NEAR_HOURS)), constant_values=np.nan)
    near = np.lib.stride_tricks.sliding_window_view(wide, 2 * NEAR_HOURS + 1, axis=1)
    return size, near


def _by_hour(sizes: Floats, days: list[tuple[int, int]]) -> Floats:
    """Return sizes of days ahead, (origins, days), by hour: that of the middle of a day, and on a line between middles.

    A day ahead of which none is known yet has that of the day before it.
    """
    carried = sizes.copy()
    for d in range(1, len(days)):
        carried[:, d] = np.where(np.isnan(carried[:, d]), carried[:, d - 1], carried[:, d])
    hours, middles = np.arange(days[-1][1]) + 0.5, [(a + b) / 2 for a, b in days]
    found = np.stack([np.interp(hours, middles, row) for row in carried])
    return np.asarray(np.maximum(found, _LEAST_SCALE), np.float64)


def _expected(sizes: Floats, wait: int) -> Floats:
    """Return the weighted mean of the sizes, (origins, hours), that are known at each origin: those `wait` before it.

    NaN where none is known yet.
    """
    fade = 0.5 ** (1 / SCALE_DAYS)
    found = np.full(len(sizes), np.nan)
    total = weight = 0.0
    for i, row in enumerate(sizes[: max(len(sizes) - wait, 0)]):
        known = row[~np.isnan(row)]
        total, weight = fade * total, fade * weight
        if len(known):
            total, weight = total + float(known.mean()), weight + 1
        if weight:
            found[i + wait] = total / weight
    return found


def _missed(came: Floats, told: Floats, level: Floats, i: int, days: list[tuple[int, int]]) -> Floats:
    """Return by how much each quantile held too seldom in the days ahead that ended at origin i, (levels,)."""
    misses = []
    for d, (a, b) in enumerate(days):
        j = i - 1 - d
        if j < 0:
            break
        here, line = came[j, None, a:b], told[j, :, a:b]
        known = ~np.isnan(here) & ~np.isnan(line)
        if known.any():
            held = np.where(here == line, level[:, None], here < line)
            misses.append(level - (held * known).sum(axis=1) / known.sum(axis=1))
    return np.mean(misses, axis=0) if misses else np.zeros(len(level))


def _ranked(known: NDArray[np.float64], level: Floats) -> Floats:
    """Return the order statistics that stand for the levels, (levels, hours), of errors (origins, hours, near)."""
    hours = known.shape[1]
    ordered = np.sort(known.transpose(1, 0, 2).reshape(hours, -1), axis=1)
    n = (~np.isnan(ordered)).sum(axis=1)
    high = np.minimum(np.ceil(level[:, None] * (n + 1)), n) - 1
    low = np.maximum(np.floor(level[:, None] * (n + 1)), 1) - 1
    place = np.maximum(np.where(level[:, None] >= 0.5, high, low), 0).astype(np.int64)
    if not ordered.shape[1]:
        return np.full((len(level), hours), np.nan)
    return np.take_along_axis(ordered, place.T, axis=1).T
