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

    Each hour ahead is told as a mean of the forecast's hours around it, with the weights that would have been best over
    the last eight weeks (least squares). Noise that is independent from slot to slot so cancels in part, a constant bias
    in full; a forecast that was exact stays as it is. Nothing of what is still to come is looked at.
    """

    def __init__(self, foresight: Foresight, slots_a_day: int) -> None:
        self._told, self._day = foresight, slots_a_day
        self._learns = foresight.seen is not None and foresight.seen is not foresight.true
        self._ahead, self._learnt = foresight.seen, -1

    def at(self, slot: int) -> Floats:
        """Return what is known in a slot, (sites, slots), as Foresight.at; the weights are learned anew each day."""
        found = self._told.at(slot)
        if self._learns and self._ahead is not None:
            today = slot // self._day
            if today > self._learnt and today >= _LEARN_DAYS[0]:
                self._ahead, self._learnt = self._mend(slot), today
            found[:, slot + 1 :] = self._ahead[:, slot + 1 :]
        return found

    def _mend(self, slot: int) -> Floats:
        seen = self._told.seen
        assert seen is not None  # only where there is something to mend
        rows = np.empty_like(seen)
        past = slice(max(slot - _LEARN_DAYS[1] * self._day, 0), slot)
        for i, (told, came) in enumerate(zip(seen, self._told.true, strict=True)):
            around = np.lib.stride_tricks.sliding_window_view(np.pad(told, _AROUND, mode="edge"), 2 * _AROUND + 1)
            centre, off = told[past].mean(), float((came[past] - told[past]).mean())
            x = around[past] - centre
            y = came[past] - told[past] - off
            weights = np.linalg.solve(x.T @ x + 1e-6 * np.trace(x.T @ x) * np.eye(x.shape[1]), x.T @ y)
            rows[i] = told + off + (around - centre) @ weights
        return rows


_AROUND = 3
"""Slots on either side of one that its forecast is weighed with."""
_LEARN_DAYS = (3, 56)
"""Days of forecasts that must have come true before anything is learned from them, and that are looked back on."""


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
        raise ForesightError("A forecast from the day before needs the signal of the day before the first job.")
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
