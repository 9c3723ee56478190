"""Yearly average carbon intensities of countries and cloud regions, each with its source; used only when named.

The table is `averages.csv` beside this file. Countries go by ISO 3166 code, cloud regions by provider and name. Two
boundaries stand in it and must not be compared with each other: lifecycle (fuel supply and plants included) and
direct (what leaves the stack).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from wattkeeper.core.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Average:
    """One row. kind: country or region. boundary: lifecycle or direct. source: who published it, and where."""

    name: str
    kind: str
    intensity_g_per_kwh: float
    year: int
    boundary: str
    source: str


def average(name: str) -> Average:
    """Return the average of a country such as DE or a cloud region such as aws:us-east-1.

    Raises UnknownNameError with the nearest names: no region is ever guessed.
    """
    table = averages()
    if name in table:
        return table[name]
    near = [known for known in table if name and name.lower() in known.lower()]
    near += [known for known in get_close_matches(name.lower(), list(table), 5, 0.7) if known not in near]
    cure = "Countries are ISO codes (DE), cloud regions gcp:europe-west3, aws:eu-central-1, azure:westeurope."
    raise UnknownNameError("yearly average", name, near, cure)


@cache
def averages() -> dict[str, Average]:
    """Return the whole table by name."""
    text = files("wattkeeper.footprint").joinpath("averages.csv").read_text("utf-8")
    return {row["name"]: _average(row) for row in csv.DictReader(text.splitlines())}


def _average(row: dict[str, str]) -> Average:
    intensity = float(row["intensity_g_per_kwh"])
    return Average(row["name"], row["kind"], intensity, int(row["year"]), row["boundary"], row["source"])
