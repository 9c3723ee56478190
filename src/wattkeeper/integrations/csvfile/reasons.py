"""Reasons: why a row is refused, found for whole columns at once."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

Fault = tuple[pl.Expr | pl.Series, str]
"""A test that is true where a row is at fault (null counts as sound), and what is then said."""


def why(faults: Iterable[Fault]) -> pl.Expr:
    """Return the words of the first fault of each row, null for a sound row; a column named why."""
    said = [pl.when(test).then(pl.lit(words)) for test, words in faults]
    return pl.coalesce(pl.lit(None, pl.String), *said).alias("why")


def first(*reasons: pl.Series) -> pl.Series:
    """Return the first reason of each row out of several columns of reasons."""
    return pl.select(why=pl.coalesce(*reasons))["why"]


def where_sound(frame: pl.DataFrame, *faults: Fault) -> pl.DataFrame:
    """Return a frame of value and why with more faults told, and no value where there is one."""
    told = frame.with_columns(why=pl.coalesce("why", why(faults)))
    return told.with_columns(pl.when(pl.col("why").is_null()).then("value"))
