"""What can be known of a signal ahead: all of it, with a given error, or only what the day before was like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.errors import WattkeeperError
from wattkeeper.plan.forecast.models import ridge
from wattkeeper.plan.forecast.series import DAY, LEAST, WEEK

Floats = NDArray[np.float64]


class ForesightError(WattkeeperError):
    """A forecast that cannot be made from what is there."""


@dataclass(frozen=True, slots=True)
class Foresight:
    """A signal of some sites over slots, true: (sites, slots), and how it looks from each slot.

    seen: (sites, slots) as a forecast shows it, the same from every slot; None where it is made anew. made: (days,
    sites, slots) the forecast of each day, made in its first slot, of what comes after that; None to let the hours ahead
    look like the last 24. before: the true values before the first slot, of a day at least where the last hours count.
    """

    true: Floats
    seen: Floats | None
    before: Floats
    day: int = 0
    made: Floats | None = None

    def moves(self, slot: int) -> bool:
        """Return whether a slot shows the hours ahead otherwise than the slot before it did."""
        return self.seen is None and (self.made is None or slot % self.day == 0)

    def at(self, slot: int) -> Floats:
        """Return what is known in a slot, (sites, slots): the truth up to and with it, then the forecast."""
        found = np.empty_like(self.true)
        found[:, : slot + 1] = self.true[:, : slot + 1]
        if self.seen is not None:
            found[:, slot + 1 :] = self.seen[:, slot + 1 :]
        elif self.made is not None:
            found[:, slot + 1 :] = self.made[slot // self.day, :, slot + 1 :]
        else:
            day = self.before.shape[1]
            known = np.concatenate((self.before, self.true[:, : slot + 1]), axis=1)[:, -day:]
            ahead = self.true.shape[1] - slot - 1
            found[:, slot + 1 :] = np.tile(known, (1, -(-ahead // day)))[:, :ahead]
        return found


class Mended:
    """A foresight whose forecast is weighed by what it was worth before: for the planner, which may learn.

    The signal and the error of its forecast count as two stationary processes, whose autocovariances the last eight
    weeks tell. The hours ahead are their mean given all that is known: the signal and the errors so far, and the
    forecast (kriging; N. Cressie, The origins of kriging, Mathematical Geology 22(3), 1990). Noise that is independent
    from slot to slot so cancels in great part, a constant bias in full; a forecast that was exact stays as it is.
    Nothing of what is still to come is looked at.
    """

    def __init__(self, foresight: Foresight, slots_a_day: int) -> None:
        self._told, self._past = foresight, _LEARN_DAYS * slots_a_day
        self._learns = foresight.seen is not None and foresight.seen is not foresight.true

    def at(self, slot: int) -> Floats:
        """Return what is known in a slot, (sites, slots), as Foresight.at."""
        found = self._told.at(slot)
        if self._learns and slot + 1 >= _LEAST:
            for row, told in zip(found, self._told.seen, strict=True):  # type: ignore[arg-type]
                first = max(slot + 1 - self._past, 0)
                row[slot + 1 :] = _weighed(row[first : slot + 1], told[first:])
        return found


def _weighed(came: Floats, told: Floats) -> Floats:
    """Return a forecast as it is worth: told is what it said of the slots that came and of those after them."""
    n, off = len(came), float((came - told[: len(came)]).mean())
    error, found = told[:n] + off - came, told[n:] + off
    ahead = found[:_AHEAD]
    if not len(ahead) or error @ error <= _EXACT * (came @ came):
        return found
    mean = float(np.concatenate((came, ahead)).mean())
    lags, back = _BACK + len(ahead), min(_BACK, n)
    # of the errors' autocovariance only what so many slots can tell, so that noise does not look like a wave
    sure = np.clip(1 - np.arange(lags) / min(max(n / _BACK * 3, 1), lags), 0, 1)
    signal, spread = _given(came[-back:] - mean, _autocovariance(came - mean, lags), len(ahead))
    astray, doubt = _given(error[-back:], _autocovariance(error, lags) * sure, len(ahead))
    new = ahead - astray - mean - signal
    found[: len(ahead)] = mean + signal + spread @ np.linalg.solve(spread + doubt, new)
    return found


def _autocovariance(values: Floats, lags: int) -> Floats:
    """Return the autocovariance of values about 0 at lags 0, 1, …; the biased estimate, which no variance contradicts."""
    n = len(values)
    return np.array([values[: n - k] @ values[k:] / n if k < n else 0.0 for k in range(lags)])


def _given(past: Floats, covariance: Floats, ahead: int) -> tuple[Floats, Floats]:
    """Return the mean (ahead,) and covariance (ahead, ahead) of what comes after the past of a stationary process."""
    n = len(past)
    at = np.arange(n + ahead)
    whole = covariance[np.abs(at[:, None] - at[None, :])]
    known = whole[:n, :n] + _ROUGH * covariance[0] * np.eye(n)
    weights = np.linalg.solve(known, whole[:n, n:]).T
    return weights @ past, whole[n:, n:] - weights @ whole[:n, n:]


_LEARN_DAYS = 56
"""Days that are looked back on."""
_LEAST, _BACK, _AHEAD = 24, 24, 168
"""Slots that must have come before anything is learned; the last ones that count on their own; those ahead that are weighed."""
_EXACT = 1e-18
"""Squared error over squared signal under which a forecast counts as exact."""
_ROUGH = 1e-3
"""Part of the variance that each known value is taken to be off by, so that the sums stay well behaved."""


def perfect(true: Floats) -> Foresight:
    """Return foresight without error. true, here and below: (sites, slots), or (slots,) of one site."""
    true = np.atleast_2d(true)
    return Foresight(true, true, true[:, :0])


def erring(true: Floats, error: float, seed: int) -> Foresight:
    """Return foresight that is off by Gaussian noise, independent in each slot.

    error: its standard deviation over the mean of each site's signal. This is the error model of P. Wiesner et al.,
    Let's Wait Awhile, Middleware '21, §4.3; real forecasts err less at random and more far ahead.
    """
    true = np.atleast_2d(true)
    noise = np.random.default_rng(seed).normal(0.0, 1.0, true.shape) * (error * true.mean(1, keepdims=True))
    return Foresight(true, true + noise, true[:, :0])


def recorded(true: Floats, seen: Floats) -> Foresight:
    """Return foresight as a forecast that was made then. Raises ForesightError where it has no value."""
    true, seen = np.atleast_2d(true), np.atleast_2d(seen)
    if np.isnan(seen).any():
        raise ForesightError(
            f"The forecast lacks {int(np.isnan(seen).sum())} of the slots that are run again. Import it for all."
        )
    return Foresight(true, seen, true[:, :0])


def rolled(true: Floats, before: Floats) -> Foresight:
    """Return foresight that knows the past only: each day ahead looks like the 24 hours that are just over.

    before: the true values of the day before the first slot. Raises ForesightError where some are missing.
    """
    true, before = np.atleast_2d(true), np.atleast_2d(before)
    if not before.size or np.isnan(before).any():
        raise ForesightError(
            "A forecast from the day before needs the signal of the day before the first job. Import it, or take jobs "
            "of a later --period."
        )
    return Foresight(true, None, before)


def forecast(true: Floats, before: Floats | Sequence[Floats]) -> Foresight:
    """Return foresight by our own regression on the past, made anew each day; slots of an hour.

    before: of each site the true hours before the first slot, four weeks at least. Raises ForesightError where there are
    fewer.
    """
    true = np.atleast_2d(true)
    pasts = [before] if isinstance(before, np.ndarray) and before.ndim == 1 else list(before)
    for past in pasts:
        if len(past) < LEAST or np.isnan(past[-LEAST:]).any():
            raise ForesightError(
                f"A forecast by regression needs the signal of {LEAST // WEEK} weeks before the first job."
            )
    slots = true.shape[1]
    made = np.full((-(-slots // DAY), *true.shape), np.nan, np.float32)
    for d in range(len(made)):
        hours = slots - d * DAY - 1
        for i, past in enumerate(pasts):
            known = np.concatenate((past, true[i, : d * DAY + 1]))
            if hours:
                made[d, i, d * DAY + 1 :] = np.maximum(ridge(known, hours)(known), 0.0)
    return Foresight(true, None, true[:, :0], DAY, made)
