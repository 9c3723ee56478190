"""Scores of forecasts: errors by day ahead, pinball loss and coverage of quantiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wattkeeper.plan.forecast.backtest import Rolled
from wattkeeper.plan.forecast.series import DAY, Floats


def blocks(hours: int) -> list[tuple[int, int]]:
    """Return the days ahead as [first, after) hours, counted from 0: 1-24 h is (0, 24)."""
    return [(a, min(a + DAY, hours)) for a in range(0, hours, DAY)]


def mape_pct(rolled: Rolled) -> list[float | None]:
    """Return the mean absolute percentage error by day ahead [%]; None where a value that came is 0."""
    found: list[float | None] = []
    for a, b in blocks(rolled.made.shape[1]):
        came = rolled.came[:, a:b]
        known = ~np.isnan(came)
        if not known.any() or (came[known] == 0).any():
            found.append(None)
        else:
            found.append(float(100 * np.mean(np.abs(rolled.errors[:, a:b][known]) / np.abs(came[known]))))
    return found


def mae(rolled: Rolled) -> list[float | None]:
    """Return the mean absolute error by day ahead, in the series' unit."""
    errors = [np.abs(rolled.errors[:, a:b]) for a, b in blocks(rolled.made.shape[1])]
    return [float(np.nanmean(e)) if np.isfinite(e).any() else None for e in errors]


def pinball(came: Floats, made: Floats, levels: Sequence[float]) -> float | None:
    """Return the mean pinball loss over levels and hours. came: (m, hours); made: (m, levels, hours)."""
    over = came[:, None, :] - made
    level = np.asarray(levels)[None, :, None]
    loss = np.maximum(level * over, (level - 1) * over)
    return float(np.nanmean(loss)) if np.isfinite(loss).any() else None


def coverage(came: Floats, made: Floats) -> list[float | None]:
    """Return for each level the share of values that came at or below its quantile; None where none is known."""
    found: list[float | None] = []
    for k in range(made.shape[1]):
        known = ~np.isnan(came) & ~np.isnan(made[:, k])
        found.append(float(np.mean(came[known] <= made[:, k][known])) if known.any() else None)
    return found
