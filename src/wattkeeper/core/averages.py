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

from wattkeeper.core.errors import ConfigError

AVERAGE = "average:"
"""Begins what a site file writes for a yearly average, as intensity: average:DE."""


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

    Raises ConfigError with the nearest names: no region is ever guessed.
    """
    table = averages()
    if name in table:
        return table[name]
    near = [one for one in table if name and name.lower() in one.lower()]
    near += [one for one in get_close_matches(name.lower(), list(table), 5, 0.7) if one not in near]
    known = f" Near it are {', '.join(near[:8])}." if near else ""
    cure = "Countries are ISO codes (DE), cloud regions gcp:europe-west3, aws:eu-central-1, azure:westeurope."
    raise ConfigError(f"No yearly average named '{name}'.{known} {cure}")


@cache
def averages() -> dict[str, Average]:
    """Return the whole table by name."""
    text = files("wattkeeper.core").joinpath("averages.csv").read_text("utf-8")
    return {row["name"]: _average(row) for row in csv.DictReader(text.splitlines())}


def _average(row: dict[str, str]) -> Average:
    intensity = float(row["intensity_g_per_kwh"])
    return Average(row["name"], row["kind"], intensity, int(row["year"]), row["boundary"], row["source"])
