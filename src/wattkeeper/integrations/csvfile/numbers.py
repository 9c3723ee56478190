"""Numbers: from what a cell says to the integers and reals the book keeps, with the reason where that fails."""

from __future__ import annotations

from decimal import Decimal

import polars as pl

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
    why = (
        _unreadable(cells, text, real, what)
        .when(real < 0)
        .then(pl.lit(f"{what} is negative"))
        .when(~fits)
        .then(pl.lit(f"{what} is too large for its unit"))
    )
    return _with_reason(text, product.cast(pl.Int64, strict=False), why)


def read_reals(cells: pl.Series, *, what: str, factor: float = 1.0, decimal: str = ".") -> pl.DataFrame:
    """Return one row per cell: value, cell × factor (float64), and why, as read_integers does."""
    text = _normal(cells, decimal)
    real = text.cast(pl.Float64, strict=False)
    return _with_reason(text, pl.lit(real) * factor, _unreadable(cells, text, real, what))


def _normal(cells: pl.Series, decimal: str) -> pl.Series:
    """Return numbers as they are and all else as text with a point for its decimal mark."""
    if cells.dtype.is_numeric() and not cells.dtype.is_decimal():
        return cells.alias("cell")
    text = cells.cast(pl.String).alias("cell")
    return text.str.replace(",", ".", literal=True) if decimal == "," else text


def _unreadable(cells: pl.Series, text: pl.Series, real: pl.Series, what: str) -> pl.Expr:  # a chain still open
    blank = text.cast(pl.String).is_in([str(s) for s in SENTINELS]) | real.is_in([float(s) for s in SENTINELS])
    return (
        pl.when(cells.is_null())
        .then(pl.lit(f"{what} is missing"))
        .when(real.is_null())
        .then(pl.lit(f"{what} is not a number"))
        .when(~real.is_finite())
        .then(pl.lit(f"{what} is not finite"))
        .when(blank)
        .then(pl.lit(f"{what} is a sentinel: the instrument had no reading"))
    )


def _with_reason(text: pl.Series, value: pl.Expr, why: pl.Expr) -> pl.DataFrame:
    frame = text.to_frame().select(value.alias("value"), why.alias("why"))
    return frame.with_columns(pl.when(pl.col("why").is_null()).then("value"))
