"""The table of metrics: consistent in itself, and on the integration's page."""

from __future__ import annotations

from pathlib import Path

import pytest

import wattkeeper.integrations.prometheus as package
from wattkeeper.core.assets import KINDS, QUANTITIES
from wattkeeper.core.units import UNITS_OF_QUANTITY
from wattkeeper.integrations.prometheus.names import PERCENT_OR_RATIO, VARIABLE_MAP, variable_of

ALL = [(name, v) for name, variables in VARIABLE_MAP.items() for v in variables]


@pytest.mark.parametrize(("name", "variable"), ALL)
def test_a_variable_has_a_quantity_a_kind_and_a_unit_of_ours(name, variable):
    """Every line of the table speaks of a quantity, kind and unit that the core knows."""
    assert variable.quantity in QUANTITIES
    assert variable.kind in KINDS
    assert variable.unit in {*UNITS_OF_QUANTITY[variable.quantity], PERCENT_OR_RATIO}


def test_one_source_of_an_asset_has_one_rank():
    """The books choose a source by rank; two ranks for one source would make the choice depend on the metric's name."""
    ranks = {}
    for _, v in ALL:
        ranks.setdefault((v.kind, v.source, v.quantity), set()).add(v.rank)

    assert {1} == {len(r) for r in ranks.values()}


def test_a_counter_outranks_the_power_of_the_same_instrument():
    """Energy counters come first: no DCGM power has a lower rank than the DCGM counter."""
    counter = VARIABLE_MAP["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"][0].rank
    powers = [v.rank for name, v in ALL if name.startswith("DCGM") and v.quantity == "power"]

    assert min(powers) >= counter


@pytest.mark.parametrize("zone", ["psys", "core", "uncore"])
def test_overlapping_zones_are_not_taken(zone):
    """psys contains the package and the package contains core and uncore: only package and dram are taken."""
    assert variable_of("kepler_node_cpu_joules_total", {"zone": zone}) is None


def test_package_and_dram_zones_are_cpu_and_dram():
    """Kepler's two zones that do not overlap become two kinds of asset."""
    found = [variable_of("kepler_node_cpu_joules_total", {"zone": z}) for z in ("package", "package-1", "dram")]

    assert ["cpu", "cpu", "dram"] == [v.kind for v in found]


def test_the_same_package_by_mmio_is_not_taken():
    """node-exporter shows a package by MSR and again by MMIO; the second is the same energy."""
    paths = ["/sys/class/powercap/intel-rapl:0", "/sys/class/powercap/intel-rapl-mmio:0"]
    found = [variable_of("node_rapl_package_joules_total", {"path": p}) for p in paths]

    assert [True, False] == [v is not None for v in found]


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("Pwr Consumption", True),
        ("System Power", True),
        ("Total_Power", True),
        ("PS1 Input Power", False),
        ("CPU", False),
    ],
)
def test_only_sensors_of_the_whole_server_are_the_node(name, taken):
    """A power supply or a CPU is a part of the server and not taken for it."""
    assert taken == (variable_of("ipmi_power_watts", {"name": name}) is not None)


def test_every_metric_stands_on_the_page():
    """README.md names each metric that is read."""
    page = (Path(package.__file__).parent / "README.md").read_text("utf-8")

    assert [] == [name for name in VARIABLE_MAP if f"`{name}`" not in page]
