"""From what an exporter says, a float, to the integers we keep; and why some of them are refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.units import PPM, UNITS_OF_QUANTITY
from wattkeeper.integrations.prometheus.names import PERCENT_OR_RATIO, Variable

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_BLANKS = (2.0**47, 2.0**63)
"""DCGM's marks for blank, not found, not supported: 140737488355328 and 9223372036854775792, and a few above each."""


def to_integers(values: Floats, variable: Variable) -> tuple[NDArray[np.int64], list[tuple[str, Bools]]]:
    """Return values in mJ, mW or ppm (0 where refused), and the reasons with the values they refuse.

    values: (n,) float64 in the variable's unit. Rounds half to even. A value is refused for one reason only.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = values * (_size(values, variable) * variable.scale)
        refused: list[tuple[str, Bools]] = []
        taken = np.ones(len(values), np.bool_)
        for reason, faulty in _faults(values, scaled, variable):
            mask = faulty & taken
            if mask.any():
                refused.append((reason, mask))
                taken &= ~mask
        return np.where(taken, np.rint(scaled), 0.0).astype(np.int64), refused


def _faults(values: Floats, scaled: Floats, variable: Variable) -> list[tuple[str, Bools]]:
    """Return what can be wrong with a value, and where it is; NaN compares false everywhere but in its own line."""
    faults = [
        ("not a number", np.isnan(values)),
        ("infinite", np.isinf(values)),
        ("a mark for 'no value' of DCGM", _blank(values)),
        ("negative", values < 0),
    ]
    if variable.quantity == "utilisation":
        faults.append(("a utilisation above 100 %", np.rint(scaled) > PPM))
    if variable.unit == PERCENT_OR_RATIO and _unit_of_ratio(values) is None:
        faults.append(("either 1 % (DCGM 4.6) or 100 % (DCGM 4.7), and no other value tells which", values == 1))
    return [*faults, ("too large", scaled >= 2.0**62)]


def _blank(values: Floats) -> Bools:
    """Return which values are marks: within 16 of 2⁴⁷, or near 2⁶³, where doubles stand 1024 apart."""
    return (np.abs(values - _BLANKS[0]) <= 16) | (np.abs(values - _BLANKS[1]) <= 2048)


def _size(values: Floats, variable: Variable) -> float:
    """Return the size of the variable's unit in ours."""
    sizes = UNITS_OF_QUANTITY[variable.quantity]
    unit = variable.unit if variable.unit != PERCENT_OR_RATIO else _unit_of_ratio(values) or "percent"
    return sizes[unit]


def _unit_of_ratio(values: Floats) -> str | None:
    """Return "percent" where a value is above 1, "ratio" where one lies between 0 and 1; None where nothing tells."""
    sound = values[np.isfinite(values) & (values >= 0) & (values <= 100)]
    if (sound > 1).any():
        return "percent"
    return "ratio" if ((sound > 0) & (sound < 1)).any() else None
