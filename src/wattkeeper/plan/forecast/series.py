"""What a forecast is made from: an hourly past without holes, in whole days that end at the origin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DAY, WEEK = 24, 168

LEAST = 4 * WEEK
"""Hours of past that a forecast needs."""


def filled(history: Floats) -> Floats:
    """Return a past without holes: an hour without value takes that of the day before, else of the next day that has one.

    Only for what is computed from; errors are never measured against a value that was filled in. An hour of the day
    that has no value at all takes the mean of the rest. Where no value is known at all there is none to give: NaN stays.
    """
    gone = np.isnan(history)
    if gone.all() or not gone.any():
        return history
    short = -len(history) % DAY
    days = np.concatenate((np.full(short, np.nan), history)).reshape(-1, DAY)
    known = ~np.isnan(days)
    rows = np.arange(len(days))[:, None]
    before = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    after = np.minimum.accumulate(np.where(known, rows, len(days))[::-1], axis=0)[::-1]
    source = np.where(before >= 0, before, np.where(after < len(days), after, 0))
    whole = np.take_along_axis(days, source, axis=0)
    return np.where(np.isnan(whole), np.nanmean(history), whole).reshape(-1)[short:]


def days_of(history: Floats) -> Floats:
    """Return the last whole days up to the origin, (days, 24); the first column is the origin's hour of the day."""
    return history[len(history) % DAY :].reshape(-1, DAY)
