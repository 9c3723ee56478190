"""Embodied carbon: straight line over life, to jobs by device-hours, the rest to idle."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.assets import Asset, AssetTree
from wattkeeper.core.errors import BalanceError
from wattkeeper.footprint.embodied import allocate, grams_per_hour

HOUR = 3_600_000
# 1.7532 kg over 0.2 years: 1753.2 g / (0.2 × 8766 h = 1753.2 h) = 1 g an hour
TREE = AssetTree.of(
    [
        Asset("s", "site"),
        Asset("n1", "node", "s", embodied_kg=1.7532, lifetime_years=0.2),
        Asset("n1/gpu0", "gpu", "n1", embodied_kg=3.5064, lifetime_years=0.2),  # 2 g an hour
        Asset("n1/gpu0/mig0", "mig", "n1/gpu0", slice=0.25),
        Asset("n1/gpu1", "gpu", "n1"),  # no figure
    ]
)


def held(*rows):
    return pl.DataFrame(
        rows, {"asset": pl.String, "account": pl.String, "job_id": pl.String, "held_ms": pl.Int64}, orient="row"
    )


def grams(*rows, hours=10):
    return {(a, c, j): g for a, c, j, g in allocate(held(*rows), TREE, start_ms=0, end_ms=hours * HOUR).rows()}


def test_the_example_of_the_sci_specification():
    """1000 kg over 4 years is around 28 g an hour: 28.54 with its 8760 h a year, 28.52 with our 8766."""
    assert grams_per_hour(1000, 4) == pytest.approx(28.52, abs=0.005)  # 1 000 000 / 35 064
    assert grams_per_hour(1000, 4 * 8760 / 8766) == pytest.approx(28.54, abs=0.005)  # 1 000 000 / 35 040


def test_jobs_carry_the_hours_they_held_and_idle_the_rest():
    """A GPU of 2 g/h, 10 hours: job a 3 h working and 1 h held idle, job b half of it for 2 h; 5 h are left."""
    got = grams(
        ("n1/gpu0", "job", "a", 3 * HOUR),
        ("n1/gpu0", "held_idle", "a", 1 * HOUR),
        ("n1/gpu0", "job", "b", 1 * HOUR),  # 2 h × share 0.5
        ("n1/gpu0", "idle", None, 5 * HOUR),
    )

    assert got["n1/gpu0", "job", "a"] == pytest.approx(8.0)  # 4 h × 2 g
    assert got["n1/gpu0", "job", "b"] == pytest.approx(2.0)
    assert got["n1/gpu0", "idle", None] == pytest.approx(10.0)
    assert got["n1", "idle", None] == pytest.approx(10.0)  # nobody held the node: 10 h × 1 g


def test_overhead_and_unaccounted_hold_nothing():
    """Only jobs hold assets; time on other accounts stays idle."""
    got = grams(("n1", "overhead", None, 4 * HOUR), ("n1", "unaccounted", None, 10 * HOUR))

    assert got["n1", "idle", None] == pytest.approx(10.0)


def test_a_mig_instance_carries_its_slice_of_the_gpu():
    """A quarter of a 2 g/h GPU for 4 hours is 2 g, and the GPU's idle part is that much less."""
    got = grams(("n1/gpu0/mig0", "job", "a", 4 * HOUR))

    assert got["n1/gpu0", "job", "a"] == pytest.approx(2.0)
    assert got["n1/gpu0", "idle", None] == pytest.approx(18.0)


def test_an_asset_without_a_figure_is_left_out():
    """Unknown is not zero: no row says that the GPU carries nothing."""
    assert not [key for key in grams(("n1/gpu1", "job", "a", HOUR)) if key[0] == "n1/gpu1"]


def test_more_held_time_than_time_is_refused():
    """Eleven hours in ten cannot be."""
    with pytest.raises(
        BalanceError, match=r"Jobs held 'n1' for 39600000 ms in 36000000 ms. Check its allocations' shares."
    ):
        grams(("n1", "job", "a", 11 * HOUR))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, HOUR)), max_size=10))
def test_all_of_it_is_allocated(rows):
    """Jobs and idle add up to the straight line: 10 h × 2 g, whoever held how long."""
    got = grams(*(("n1/gpu0", "job", job, ms) for job, ms in rows))

    assert math.isclose(sum(g for (asset, *_), g in got.items() if asset == "n1/gpu0"), 20.0)
    assert all(g >= 0 for g in got.values())
