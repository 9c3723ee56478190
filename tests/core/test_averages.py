"""The embedded table of yearly averages: every row sourced, found by name, never guessed."""

from __future__ import annotations

import re

import pytest

from wattkeeper.core.averages import average, averages
from wattkeeper.core.errors import ConfigError


def test_countries_and_the_large_clouds_are_there():
    """At least 60 countries, and regions of three providers."""
    names = averages()

    assert sum(row.kind == "country" for row in names.values()) >= 60
    for provider in ("aws:", "gcp:", "azure:"):
        assert sum(name.startswith(provider) for name in names) >= 10


@pytest.mark.parametrize("row", averages().values(), ids=averages())
def test_every_row_has_a_plausible_value_and_a_source(row):
    """0 to 1100 g/kWh, a year, a boundary, and who published it; countries are ISO codes."""
    assert 0 < row.intensity_g_per_kwh < 1100
    assert 2022 <= row.year <= 2024
    assert row.boundary in {"lifecycle", "direct"}
    assert re.match(r"Ember Yearly|EPA eGRID2023|Google region-carbon-info", row.source)
    assert (row.kind == "country") == bool(re.fullmatch(r"[A-Z]{2}", row.name) and row.name != "EU")


@pytest.mark.parametrize(
    ("name", "value", "year", "boundary"),
    [
        ("DE", 344.14, 2024, "lifecycle"),
        ("FR", 44.18, 2024, "lifecycle"),
        ("US", 383.55, 2024, "lifecycle"),
        ("gcp:europe-west3", 275.82, 2024, "direct"),
        ("aws:us-east-1", 270.48, 2023, "direct"),  # SRVC: 596.3 lb/MWh × 0.45359237
        ("azure:westeurope", 253.31, 2024, "lifecycle"),  # the Netherlands
    ],
)
def test_values_as_published(name, value, year, boundary):
    """Spot checks against the sources."""
    row = average(name)

    assert (row.intensity_g_per_kwh, row.year, row.boundary) == (value, year, boundary)


def test_egrid_regions_are_their_pounds_in_grams():
    """Each EPA row names its lb/MWh; × 453.59237 g/lb ÷ 1000 kWh/MWh gives the value, to a hundredth."""
    rows = [row for row in averages().values() if row.source.startswith("EPA")]

    assert len(rows) >= 10
    for row in rows:
        pounds = float(re.search(r"([\d.]+) lb CO2e/MWh", row.source)[1])
        assert abs(row.intensity_g_per_kwh - pounds * 0.45359237) <= 0.005


def test_an_unknown_name_gets_the_nearest_ones():
    """No region is guessed: the user chooses."""
    with pytest.raises(ConfigError) as caught:
        average("us-east-1")
    assert "No yearly average named 'us-east-1'" in str(caught.value)
    assert "aws:us-east-1" in str(caught.value)
    assert "Countries are ISO codes (DE)" in str(caught.value)
    with pytest.raises(ConfigError, match="azure:westeurope"):
        average("azure:west-europe")
