"""Durations that are known by quantiles: how long to hold room for a job, and what it is expected to draw meanwhile.

A job ends within each stated time with the stated chance, and within its longest time for sure. Between two quantiles,
and from 0 to the first, all durations are alike likely, so the quantile function is a line from corner to corner.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def whole_slots(ms: Floats, slot_ms: int) -> Floats:
    """Return how many slots are held for a time, at least one; what sums of floats add to a whole one is no slot more."""
    return np.maximum(np.ceil(np.round(ms / slot_ms, 9)), 1.0)


def corners(longest_ms: Floats, chance: Floats, within_ms: Floats) -> tuple[Floats, Floats]:
    """Return the corners of the quantile functions: chance and time [ms], (n, k + 2) each.

    longest_ms: (n,). chance, within_ms: (n, k) rising, NaN where a job has fewer; with none its duration is certain.
    """
    n, sure = len(longest_ms), np.isnan(chance).all(1)
    inside = np.isnan(chance)
    p = np.column_stack((np.zeros(n), np.where(inside, 1.0, chance), np.ones(n)))
    t = np.column_stack((np.where(sure, longest_ms, 0.0), np.where(inside, longest_ms[:, None], within_ms), longest_ms))
    return p, t


def quantile_ms(p: Floats, t: Floats, chance: Floats) -> Floats:
    """Return the time within which each job has ended with a chance, (n,) [ms]."""
    found = t[:, 0].copy()
    for k in range(p.shape[1] - 1):
        wide = p[:, k + 1] - p[:, k]
        part = np.divide(np.clip(chance - p[:, k], 0.0, wide), wide, out=np.zeros_like(wide), where=wide > 0)
        found += np.where(part >= 1.0, t[:, k + 1] - found, part * (t[:, k + 1] - t[:, k]))
    return found


def mean_until_ms(p: Floats, t: Floats, until_ms: Floats) -> Floats:
    """Return how long each job is expected to run until a time after its start at the latest, E[min(T, until)], (n,)."""
    found = np.zeros(len(until_ms))
    for k in range(p.shape[1] - 1):
        low, high = t[:, k], t[:, k + 1]
        cut = np.clip(until_ms, low, high)
        wide = high - low
        ended = np.divide(cut - low, wide, out=np.zeros_like(wide), where=wide > 0)
        found += (p[:, k + 1] - p[:, k]) * np.where(
            until_ms >= high, (low + high) / 2, np.where(until_ms <= low, until_ms, 0.0)
        )
        inside = (until_ms > low) & (until_ms < high)
        found += (p[:, k + 1] - p[:, k]) * np.where(inside, ended * (low + cut) / 2 + (1 - ended) * until_ms, 0.0)
    return found
