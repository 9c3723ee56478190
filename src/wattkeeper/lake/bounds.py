"""What a reading can be: the bounds that tell energy from an instrument's fault, equal for imports and for folding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.assets import MARGIN, AssetTree, Meter
from wattkeeper.core.units import PPM

Int64s = NDArray[np.int64]

ANY = 2**62
"""No reading is as large: a bound that none is outside of."""


class Bounds:
    """The bounds of what some meters can read, by the assets they measure.

    Power and energy of an interval lie between 0 and 1.2 × the asset's ceiling, utilisation between 0 and 1. Counters have
    none here: they are looked at step by step when they are read. Meters that nobody knows have none either.
    """

    def __init__(self, meters: Mapping[str, Meter], tree: AssetTree) -> None:
        self._meters, self._tree = meters, tree
        self._bounded = {m.id for m in meters.values() if m.quantity != "energy_counter" and m.asset in tree.assets}

    def outside(self, names: Sequence[str], index: NDArray[np.integer], value: Int64s) -> NDArray[np.bool_]:
        """Return which readings no such asset can have: (n,). index: (n,) place of each one's meter in `names`."""
        if self._bounded.isdisjoint(names):
            return np.zeros(len(value), np.bool_)
        least, largest = np.array([self._of(name) for name in names], np.int64).reshape(len(names), 2).T
        outside: NDArray[np.bool_] = (value < least[index]) | (value > largest[index])
        return outside

    def why(self, name: str, least: int, largest: int) -> str:
        """Return what is wrong with readings of a meter that are outside, from the least to the largest, and the cure."""
        meter = self._meters[name]
        asset = self._tree[meter.asset]
        if meter.quantity == "utilisation":
            return f"{least / 10_000:,g} % to {largest / 10_000:,g} %, and it is 0 % to 100 %; is the unit right?"
        span_ms = _span_ms(meter)
        if largest <= self._of(name)[1]:
            return f"down to {least / span_ms:,g} W, and '{asset.id}' cannot draw less than 0 W; is the sign right?"
        return (
            f"up to {largest / span_ms:,.0f} W, and '{asset.id}' cannot draw more than {asset.ceiling_w:,.0f} W; "
            f"is the unit right? Else set max_power_w of '{asset.id}' in the site file"
        )

    def _of(self, name: str) -> tuple[int, int]:
        """Return the least and the largest value of a meter."""
        if name not in self._bounded:
            return -ANY, ANY
        meter = self._meters[name]
        if meter.quantity == "utilisation":
            return 0, PPM
        ceiling_w = self._tree[meter.asset].ceiling_w
        return 0, round(MARGIN * ceiling_w * _span_ms(meter)) if ceiling_w else ANY


def _span_ms(meter: Meter) -> int:
    """Return the time over which a value is the energy [ms]: mW is mJ in a second."""
    return meter.interval_ms if meter.quantity == "energy_interval" else 1000
