"""The intensity of a mix from named factors, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wattkeeper.core.mix import intensity_of_mix
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.signal import Signal

INFO = SignalInfo("x", "intensity", "g/kWh", "test")


def power(*mw, step=10):
    """Return generation in steps of ten milliseconds."""
    return Signal(np.arange(len(mw) + 1) * step, np.array(mw, np.float64), INFO)


def test_each_kind_counts_with_its_factor():
    """(300 MW coal × 820 + 100 MW wind × 11) / 400 MW = 617.75 g/kWh; direct is 300 × 760 / 400 = 570."""
    mix = {"coal": power(300), "wind": power(100)}

    assert intensity_of_mix(mix, "lifecycle")[1].tolist() == [617.75]
    assert intensity_of_mix(mix, "direct")[1].tolist() == [570.0]


def test_a_mix_without_its_coal_is_no_mix():
    """In the second step the coal is not told: no value, and the instant is named. A sliver of oil may be missing."""
    mix = {"coal": power(300, np.nan, 300), "wind": power(100, 100, 100), "oil": power(1, 1, np.nan)}
    _, values, lacking = intensity_of_mix(mix, "lifecycle")

    assert np.isnan(values).tolist() == [False, True, False]
    assert lacking == [10]
    assert values[2] == pytest.approx(617.75)


def test_kinds_may_come_in_steps_of_their_own():
    """Gas by 20 ms, solar by 10 ms: 490 and 45 mix to 267.5 and then to (490 + 3 × 45) / 4 = 156.25."""
    edges, values, _ = intensity_of_mix({"gas": power(100, step=20), "solar": power(100, 300)}, "lifecycle")

    assert edges.tolist() == [0, 10, 20]
    assert values.tolist() == [267.5, 156.25]


def test_less_than_nothing_is_nothing():
    """A plant that draws power for itself at night takes no carbon out of the grid."""
    assert intensity_of_mix({"gas": power(100), "solar": power(-5)}, "lifecycle")[1].tolist() == [490.0]


def test_nothing_generated_has_no_intensity():
    """Zero of everything, and nothing told at all."""
    assert np.isnan(intensity_of_mix({"gas": power(0)}, "lifecycle")[1]).all()
    assert intensity_of_mix({}, "lifecycle")[1].tolist() == []
