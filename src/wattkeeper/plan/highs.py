"""HiGHS with a programme loaded: min cost · x, where 0 ≤ x ≤ upper and low ≤ A x ≤ high."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.errors import MissingExtraError

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]


def highspy() -> Any:
    """Return the module. Raises MissingExtraError without the extra `polish`."""
    try:
        import highspy as found  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingExtraError("wattkeeper.plan", "highspy", "polish") from error
    return found


def load(
    cost: Floats,
    upper: Floats,
    low: Floats,
    high: Floats,
    matrix: tuple[Int64s, Int64s, Floats],
    *,
    integers: int = 0,
    **options: Any,
) -> Any:
    """Return HiGHS, silent, with the programme loaded.

    cost, upper: (columns,). low, high: (rows,). matrix: begin (columns + 1,), row and value in CSC form. integers: how many
    columns, the first ones, must be whole. Raises MissingExtraError without the extra `polish`.
    """
    module = highspy()
    lp = module.HighsLp()
    lp.num_col_, lp.num_row_ = len(cost), len(low)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, np.zeros(len(cost)), upper
    lp.row_lower_, lp.row_upper_ = low, high
    lp.a_matrix_.format_ = module.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix
    if integers:
        kinds = module.HighsVarType
        lp.integrality_ = [kinds.kInteger] * integers + [kinds.kContinuous] * (len(cost) - integers)
    highs = module.Highs()
    for name, value in ({"output_flag": False} | options).items():
        highs.setOptionValue(name, value)
    highs.passModel(lp)
    return highs
