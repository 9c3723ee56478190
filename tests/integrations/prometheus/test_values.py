"""From floats to our integers: exact, and nothing that is no measurement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.integrations.prometheus.names import VARIABLE_MAP
from wattkeeper.integrations.prometheus.values import to_integers


def one(name: str, *values: float):
    """Return the integers and reasons for some values of a metric."""
    integers, refused = to_integers(np.array(values, np.float64), VARIABLE_MAP[name][0])
    return integers.tolist(), [(reason, mask.tolist()) for reason, mask in refused]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 126_272_101_025, 126_272_101_025),  # mJ as they are
        ("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 126_272_101, 126_272_101_000),  # J × 1000
        ("DCGM_FI_DEV_POWER_USAGE", 412.331, 412_331),  # W × 1000
        ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.25, 250_000),  # ratio × 10⁶
        ("DCGM_FI_DEV_GPU_UTIL", 37, 370_000),  # percent × 10⁴
        ("node_rapl_package_joules_total", 258_218.293244, 258_218_293),  # 258 218 293.244 mJ
        ("node_rapl_package_joules_total", 0.0005, 0),  # 0.5 mJ: half to even
        ("node_rapl_package_joules_total", 0.0015, 2),  # 1.5 mJ: half to even
        ("rPDU2DeviceStatusPower", 613, 6_130_000),  # hundredths of a kW: 6130 W
    ],
)
def test_units_become_ours(name, value, kept):
    """Each metric's unit is brought to mJ, mW or ppm, rounded half to even."""
    assert ([kept], []) == one(name, value)


BLANK = "a mark for 'no value' of DCGM"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        *[("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", float(2**63 - 16 + i), BLANK) for i in range(4)],
        *[("DCGM_FI_DEV_POWER_USAGE", 140_737_488_355_328.0 + i, BLANK) for i in range(4)],
        ("DCGM_FI_DEV_GPU_UTIL", 9_223_372_036_854_775_794.0, BLANK),
        ("DCGM_FI_DEV_POWER_USAGE", float("nan"), "not a number"),
        ("DCGM_FI_DEV_POWER_USAGE", float("inf"), "infinite"),
        ("DCGM_FI_DEV_POWER_USAGE", -1.0, "negative"),
        ("rPDU2DeviceStatusPower", -1.0, "negative"),  # PowerNet-MIB: -1 where the model cannot measure
        ("DCGM_FI_DEV_GPU_UTIL", 101.0, "a utilisation above 100 %"),
        ("DCGM_FI_PROF_SM_ACTIVE", 1.01, "a utilisation above 100 %"),
        ("node_rapl_package_joules_total", 1e16, "too large"),
    ],
)
def test_what_is_no_measurement_is_refused(name, value, reason):
    """Marks, NaN, infinities, negatives and impossible values are refused, with the reason."""
    _, refused = one(name, value)

    assert [(reason, [True])] == refused


def test_a_bad_value_costs_only_itself():
    """The values around a mark stay as they are, and each bad value has one reason."""
    integers, refused = one("DCGM_FI_DEV_POWER_USAGE", 300.0, 2.0**47, -5.0, 3000.0)

    assert [300_000, 0, 0, 3_000_000] == integers
    assert [(BLANK, [False, True, False, False]), ("negative", [False, False, True, False])] == refused


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ((0.0, 55.0, 1.0), [0, 550_000, 10_000]),  # a value above 1: percent, as in DCGM 4.6
        ((0.0, 0.55, 1.0), [0, 550_000, 1_000_000]),  # a value between 0 and 1: a ratio, as in DCGM 4.7
    ],
)
def test_gpu_util_ratio_is_percent_or_ratio_as_its_values_tell(values, kept):
    """DCGM 4.6 and 4.7 give one name two scales; the series tells which it is."""
    assert (kept, []) == one("DCGM_FI_DEV_GPU_UTIL_RATIO", *values)


def test_gpu_util_ratio_is_refused_where_nothing_tells_its_scale():
    """A series of zeros and ones: zero is zero either way, one may be 1 % or 100 %."""
    integers, refused = one("DCGM_FI_DEV_GPU_UTIL_RATIO", 0.0, 1.0)

    assert 0 == integers[0]
    assert [("either 1 % (DCGM 4.6) or 100 % (DCGM 4.7), and no other value tells which", [False, True])] == refused


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=20))
def test_every_value_is_kept_in_its_bounds_or_refused_once(values):
    """Whatever an exporter says: no warning, no overflow, and at most one reason a value."""
    for name in ("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_GPU_UTIL", "node_rapl_package_joules_total"):
        integers, refused = one(name, *values)
        times_refused = np.sum([mask for _, mask in refused], axis=0) if refused else np.zeros(len(values))
        assert set(times_refused.tolist()) <= {0, 1}
        assert all(0 <= i < 2**62 for i in integers)
