"""Quantiles of a forecast from the errors that its model made: split conformal, hour ahead by hour ahead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wattkeeper.plan.forecast.backtest import Rolled
from wattkeeper.plan.forecast.series import Floats

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)

NEAR_HOURS = 2
"""Errors of so many hours ahead on either side count for an hour: they are of about the same hour of the day."""

WINDOW = 120
"""Origins whose errors count: older ones are of another season."""


def quantiles(point: Floats, errors: Floats, levels: Sequence[float] = LEVELS, *, floor: float = -np.inf) -> Floats:
    """Return a forecast's quantiles, (levels, hours), rising in level at every hour.

    point: (hours,). errors: (origins, hours), what came less what was forecast, NaN where unknown. The quantile of n
    errors is the ⌈level (n + 1)⌉-th smallest, and by symmetry below one half (Vovk et al. 2005; Lei et al. 2018): as
    many of the next values lie below it as should, on average, where days are exchangeable. floor: least value.
    """
    hours = len(point)
    found = np.full((len(levels), hours), np.nan)
    for h in range(hours):
        near = errors[-WINDOW:, max(h - NEAR_HOURS, 0) : h + NEAR_HOURS + 1]
        known = np.sort(near[~np.isnan(near)])
        if len(known):
            found[:, h] = point[h] + known[[_rank(level, len(known)) for level in levels]]
    return np.asarray(np.maximum(found, floor), np.float64)


def _rank(level: float, n: int) -> int:
    """Return the place, from 0, of the order statistic that stands for a level."""
    if level >= 0.5:
        return min(int(np.ceil(level * (n + 1))), n) - 1
    return max(int(np.floor(level * (n + 1))), 1) - 1


def rolled_quantiles(
    rolled: Sequence[Rolled], picks: Sequence[int], levels: Sequence[float] = LEVELS, *, floor: float = -np.inf
) -> Floats:
    """Return the quantiles that would have been told at each origin, (origins, levels, hours); NaN before any error.

    picks: which model was used at each origin; its own errors until then make its quantiles.
    """
    found = np.empty((len(picks), len(levels), rolled[0].made.shape[1]))
    for i, pick in enumerate(picks):
        one = rolled[pick]
        before = one.known_at(int(one.origins[i]))[:i]
        found[i] = quantiles(one.made[i], before, levels, floor=floor)
    return found
