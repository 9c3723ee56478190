"""Numbers: from what a cell says to the integers and reals the book keeps, with the reason where that fails."""

from __future__ import annotations

from decimal import Decimal

import polars as pl

from wattkeeper.integrations.csvfile.reasons import Fault, where_sound, why

SENTINELS = (
    9223372036854775807, 9223372036854775792, 9223372036854775793, 9223372036854775794, 9223372036854775795,
    18446744073709551615, -9223372036854775808,  # 64 bits: the largest, the smallest, and DCGM's int64 blanks
    140737488355328, 140737488355329, 140737488355330, 140737488355331,  # DCGM's fp64 blanks
    2147483632, 2147483633, 2147483634, 2147483635, 4294967295,  # DCGM's int32 blanks; 32 bits all set
)  # fmt: skip
"""By these an instrument says "I have no reading" (dcgm_fields.h; the all-ones of a failed register)."""

_EXACT = pl.Decimal(38, 18)
_LARGEST = 9.2e18


def read_integers(cells: pl.Series, *, what: str, factor: Decimal = Decimal(1), decimal: str = ".") -> pl.DataFrame:
    """Return one row per cell: value, cell × factor rounded half to even (int64, not negative), and why.

    Text and integers are multiplied as decimals, so 1.0015 J is 1002 mJ; floats as floats.
    what: name of the column in the reason. why: the reason where there is no value, else null.
    """
    text = _normal(cells, decimal)
    real = text.cast(pl.Float64, strict=False)
    fits = (real * float(factor)).abs() < _LARGEST
    product = (pl.when(fits & real.is_finite()).then(real) * float(factor)).round(0, mode="half_to_even")
    if not text.dtype.is_float():
        exact = (pl.when(fits & (real.abs() < 1e19)).then(pl.col("cell").cast(_EXACT, strict=False))) * factor
        product = pl.coalesce(exact.round(0, mode="half_to_even").cast(pl.Int64), product.cast(pl.Int64))
    faults = [(real < 0, f"{what} is negative"), (~fits, f"{what} is too large for its unit")]
    return _checked(text, product.cast(pl.Int64, strict=False), [*_unreadable(cells, text, real, what), *faults])


def read_reals(cells: pl.Series, *, what: str, factor: float = 1.0, decimal: str = ".") -> pl.DataFrame:
    """Return one row per cell: value, cell × factor (float64), and why, as read_integers does."""
    text = _normal(cells, decimal)
    real = text.cast(pl.Float64, strict=False)
    return _checked(text, pl.lit(real) * factor, _unreadable(cells, text, real, what))


def _normal(cells: pl.Series, decimal: str) -> pl.Series:
    """Return numbers as they are and all else as text with a point for its decimal mark; no other mark stays a point."""
    if cells.dtype.is_numeric() and not cells.dtype.is_decimal():
        return cells.alias("cell")
    text = cells.cast(pl.String).alias("cell")
    return text.str.replace_many({",": ".", ".": ","}) if decimal == "," else text


def _unreadable(cells: pl.Series, text: pl.Series, real: pl.Series, what: str) -> list[Fault]:
    blank = text.cast(pl.String).is_in([str(s) for s in SENTINELS]) | real.is_in([float(s) for s in SENTINELS])
    return [
        (cells.is_null(), f"{what} is missing"),
        (real.is_null(), f"{what} is not a number"),
        (~real.is_finite(), f"{what} is not finite"),
        (blank, f"{what} is a sentinel: the instrument had no reading"),
    ]


def _checked(text: pl.Series, value: pl.Expr, faults: list[Fault]) -> pl.DataFrame:
    return where_sound(text.to_frame().select(value.alias("value"), why(faults)))
