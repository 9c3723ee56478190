"""What can be known of a signal ahead: all of it, with a given error, or only what the day before was like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.errors import WattkeeperError

Floats = NDArray[np.float64]


class ForesightError(WattkeeperError):
    """A forecast that cannot be made from what is there."""


@dataclass(frozen=True, slots=True)
class Foresight:
    """A signal over slots, true: (slots,), and how it looks from each slot.

    seen: (slots,) as a forecast shows it, the same from every slot; None to roll it: each slot then looks like the
    same time of the last 24 hours. before: the true values of the day before the first slot, one a slot.
    """

    true: Floats
    seen: Floats | None
    before: Floats

    @property
    def still(self) -> bool:
        """Whether the forecast of a slot stays the same until it comes."""
        return self.seen is not None

    def at(self, slot: int) -> Floats:
        """Return what is known in a slot, (slots,): the truth up to and with it, then the forecast."""
        if self.seen is not None:
            return np.concatenate((self.true[: slot + 1], self.seen[slot + 1 :]))
        known = np.concatenate((self.before, self.true[: slot + 1]))
        last_day = known[-len(self.before) :]
        ahead = len(self.true) - slot - 1
        return np.concatenate((self.true[: slot + 1], np.resize(last_day, ahead)))


def perfect(true: Floats) -> Foresight:
    """Return foresight without error."""
    return Foresight(true, true, true[:0])


def erring(true: Floats, error: float, seed: int) -> Foresight:
    """Return foresight that is off by Gaussian noise, independent in each slot.

    error: its standard deviation over the mean of the signal. This is the error model of P. Wiesner et al., Let's Wait
    Awhile, Middleware '21, §4.3; real forecasts err less at random and more far ahead.
    """
    noise = np.random.default_rng(seed).normal(0.0, error * float(true.mean()), len(true))
    return Foresight(true, true + noise, true[:0])


def recorded(true: Floats, seen: Floats) -> Foresight:
    """Return foresight as a forecast that was made then. Raises ForesightError where it has no value."""
    if np.isnan(seen).any():
        raise ForesightError(
            f"The forecast has no value for {int(np.isnan(seen).sum())} of {len(seen)} slots. Import it for all."
        )
    return Foresight(true, seen, true[:0])


def rolled(true: Floats, before: Floats) -> Foresight:
    """Return foresight that knows the past only: each day ahead looks like the 24 hours that are just over.

    before: the true values of the day before the first slot. Raises ForesightError where some are missing.
    """
    if not len(before) or np.isnan(before).any():
        raise ForesightError("A forecast from the day before needs the signal of the day before the first job.")
    return Foresight(true, None, before)
