"""Templates: names made from cells, such as "{host}/gpu{gpu}"."""

from __future__ import annotations

import re

import polars as pl

_FIELD = re.compile(r"\{([^{}]*)\}")


def fields(*templates: str) -> list[str]:
    """Return what stands in braces, without them."""
    return _FIELD.findall(" ".join(templates))


def column(field: str) -> str:
    """Return the name a field's column has in a batch: the field in its braces, so that it is none of ours."""
    return f"{{{field}}}"


def filled(template: str) -> pl.Expr:
    """Return a text with each field taken from its column, null where one of them is."""
    pieces = _FIELD.split(template)
    return pl.concat_str(pl.col(column(p)) if place % 2 else pl.lit(p) for place, p in enumerate(pieces))
