"""Recorded trees behind a real mock-up server: each value that must be read, and each that must not."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest

from tests.integrations.redfish.server import RECORDED, Server, flat, tree_of
from wattkeeper.core.clock import to_ms
from wattkeeper.integrations.redfish.link import Config
from wattkeeper.integrations.redfish.meter import devices

pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded data are not here")


def read(tree, root, **table):
    """Return what is discovered on a tree, and the samples by asset, source and quantity, then sensor."""

    async def ask(url):
        (device,) = devices(Config(url=url, asset="n01", **table))
        try:
            return await device.discover(), await device.sample()
        finally:
            await device.close()

    with Server(tree, root) as server:
        found, samples = asyncio.run(ask(server.url))
    kinds = {meter.id: (meter.asset, meter.source, meter.quantity) for meter in found.meters}
    assert {sample.meter for sample in samples} <= set(kinds)
    assert len({sample.meter for sample in samples}) == len(samples)
    values: dict[tuple[str, str, str], dict[str, int]] = {}
    for sample in samples:
        sensor = sample.meter.split(":")[1].rpartition("/")[2]
        values.setdefault(kinds[sample.meter], {})[sensor] = sample.value
    return found, values, samples


@pytest.fixture(scope="module")
def gb300(tmp_path_factory):
    """The tree of a Supermicro GB300 NVL node."""
    return flat(RECORDED / "supermicro-gb300", tmp_path_factory.mktemp("gb300"))


@pytest.fixture(scope="module")
def gb300_read(gb300, tmp_path_factory):
    return read(gb300, tmp_path_factory.mktemp("log"), parent="dc")


def test_gb300_gpus_have_power_and_energy_from_one_report(gb300_read):
    """Four GPUs: 232.168 + 238.654 + 242.523 + 240.424 = 953.769 W; energies in joules, GPU 0 63.925864 kWh."""
    _found, values, _samples = gb300_read
    power = [values[f"n01/gpu{i}", "redfish", "power"][f"HGX_GPU_{i}_Power_0"] for i in range(4)]
    energy = [values[f"n01/gpu{i}", "redfish", "energy_counter"][f"HGX_GPU_{i}_Energy_0"] for i in range(4)]

    assert power == [232_168, 238_654, 242_523, 240_424]
    assert sum(power) == 953_769
    assert energy == [230_133_110_593, 235_283_630_109, 241_983_598_581, 238_842_704_434]
    assert round(energy[0] / 3.6e9, 6) == 63.925864


def test_gb300_cpus_are_the_processors_and_not_a_rail_or_a_limit(gb300_read):
    """86.664 W and 90.502 W; EnvironmentMetrics of each CPU points to the 6 W of a SoC rail."""
    found, values, _samples = gb300_read

    assert values["n01/cpu0", "redfish", "power"] == {"ProcessorModule_0_CPU_0_Power_0": 86_664}
    assert values["n01/cpu1", "redfish", "power"] == {"ProcessorModule_1_CPU_0_Power_0": 90_502}
    assert values["n01/cpu0", "redfish", "energy_counter"] == {"ProcessorModule_0_CPU_0_Energy_0": 98_557_141_321}
    assert sum("SocPower_0, which measures SystemBoard" in doubt for doubt in found.doubts) == 2
    assert not [m for m in found.meters if "EDP" in m.id or "Vreg" in m.id or "DRAM" in m.id]


def test_gb300_node_is_one_meter_and_not_the_sum_of_all_chassis(gb300_read):
    """The node draws 1361.533741 W, rounded to whole milliwatts."""
    found, values, _samples = gb300_read

    assert values["n01", "redfish", "power"] == {"Chassis_0_TotalHSC_Power_0": 1_361_534}
    assert [m.asset for m in found.meters].count("n01") == 1
    assert [(a.id, a.kind, a.parent) for a in found.assets[:2]] == [("n01", "node", "dc"), ("n01/cpu0", "cpu", "n01")]
    assert {a.id for a in found.assets} == {"n01", *(f"n01/gpu{i}" for i in range(4)), "n01/cpu0", "n01/cpu1"}
    assert len(found.meters) == 4 * 2 + 2 * 2 + 1
    assert {a.max_power_w for a in found.assets if a.kind == "gpu"} == {1400}  # PowerLimitWatts.AllowableMax
    assert {a.max_power_w for a in found.assets if a.kind == "cpu"} == {None}


def test_gb300_time_stamps_are_those_of_each_value(gb300_read):
    """The sensors say 1970; the report stamps GPU 0's power 08:05:27.503 and its energy ten milliseconds later."""
    found, _values, samples = gb300_read
    stamp = {sample.meter.split("/")[-1].split(":")[0]: sample.time_ms for sample in samples}
    at = to_ms(datetime(2026, 6, 29, 8, 5, 27, tzinfo=UTC))

    assert stamp["HGX_GPU_0_Power_0"] == at + 503
    assert stamp["HGX_GPU_0_Energy_0"] == at + 513
    assert stamp["HGX_GPU_3_Energy_0"] == at + 435
    assert any("Set NTP on the controller" in doubt for doubt in found.doubts)


def test_gb300_a_stale_value_is_read_from_its_sensor(gb300, tmp_path):
    """The report calls HSC 0 stale (693.04 W), so its sensor is asked: 705.306748 W; HSC 1 stands in the report."""
    rails = [
        {"uri": f"/redfish/v1/Chassis/PDB_0/Sensors/PDB_0_HSC_{i}_Pwr_0", "asset": "n01", "source": "hsc"}
        for i in range(2)
    ]
    _found, values, _samples = read(gb300, tmp_path, sensor=rails)

    assert values["n01", "hsc", "power"] == {"PDB_0_HSC_0_Pwr_0": 705_307, "PDB_0_HSC_1_Pwr_0": 668_497}


def test_gb300_without_reports_the_sensors_tell_the_same_machine(gb300, tmp_path):
    """705.306748 + 656.226993 = 1361.533741 W, what the report said of the node."""
    rails = [
        {"uri": f"/redfish/v1/Chassis/PDB_0/Sensors/PDB_0_HSC_{i}_Pwr_0", "asset": "n01", "source": "hsc"}
        for i in range(2)
    ]
    found, values, samples = read(gb300, tmp_path, sensor=rails, reports=False)

    assert values["n01", "hsc", "power"] == {"PDB_0_HSC_0_Pwr_0": 705_307, "PDB_0_HSC_1_Pwr_0": 656_227}
    assert values["n01/gpu0", "redfish", "power"].keys() == {"HGX_GPU_0_Power_0"}
    assert len(samples) == len(found.meters) == 15
    assert min(sample.time_ms for sample in samples) > to_ms(datetime(2026, 7, 1, tzinfo=UTC))  # never 1970


def test_delta_power_shelf_takes_lifetime_energy_and_never_the_short_accumulators(tmp_path):
    """1749 W in; six supplies, 46.15 + 61.31 + 48.89 + 65.51 + 1.85 + 14.97 = 238.68 kWh, one source, so they add."""
    tree = RECORDED / "lambdalabs/powershelf_delta/redfish/v1"
    found, values, _samples = read(tree, tmp_path, kind="rack", parent="hall")
    energy = values["n01", "redfish-psu", "energy_counter"]

    assert values["n01", "redfish-total", "power"] == {"total_power_in": 1_749_000}
    kwh = [46.15, 61.31, 48.89, 65.51, 1.85, 14.97]
    assert energy == {f"ps{i + 1}_total_energy_in": round(kwh[i] * 3.6e9) for i in range(6)}
    assert sum(energy.values()) == 859_248_000_000  # 238.68 kWh
    assert len(found.meters) == 7


def test_delta_output_of_the_shelf_can_be_placed(tmp_path):
    """1674 W go out to the rack, 95.7 % of what comes in."""
    out = {"uri": "/redfish/v1/Chassis/PowerShelf_0/Sensors/total_power_out", "asset": "busbar"}
    _found, values, _samples = read(
        RECORDED / "lambdalabs/powershelf_delta/redfish/v1", tmp_path, kind="rack", sensor=[out]
    )

    assert values["busbar", "redfish-sensor", "power"] == {"total_power_out": 1_674_000}


@pytest.mark.parametrize("tree", ["powershelf_none", "gb300_happypath"])
def test_a_service_without_metering_says_so(tree, tmp_path):
    """No meter, no sample, and a sentence."""
    found, values, _samples = read(RECORDED / f"lambdalabs/{tree}/redfish/v1", tmp_path)

    assert (found.meters, values) == ([], {})
    assert "has no power or energy value that can be read" in found.doubts[-1]


def test_pdu_and_the_outlets_that_are_named(tmp_path):
    """RackPDU 1: 6438 W, 56438 kWh; A1: 197.4 W, 36166 kWh (PowerWatts says more than Sensor PowerA1); A4, A5: none."""
    feeds = {"A1": "n07", "A4": "n08", "A5": "n09"}
    found, values, _samples = read(RECORDED / "dmtf/public-pdu", tmp_path, kind="rack", outlets=feeds)

    assert values == {
        ("n01", "redfish", "power"): {"PDUPower": 6_438_000},
        ("n01", "redfish", "energy_counter"): {"PDUEnergy": 56_438 * 3_600_000_000},
        ("n07", "redfish-outlet", "power"): {"PowerA1": 197_400},
        ("n07", "redfish-outlet", "energy_counter"): {"EnergyA1": 36_166 * 3_600_000_000},
    }
    assert any("does not meter outlet A4, A5" in doubt for doubt in found.doubts)
    assert any("meters outlets A2, A3, B1, B2, B3, C1, C2, C3: say what they feed" in doubt for doubt in found.doubts)


def test_pdu_outlets_by_their_own_meters(tmp_path):
    """All eleven outlets named: nine have meters."""
    names = ["A1", "A2", "A3", "A4", "A5", "B1", "B2", "B3", "C1", "C2", "C3"]
    found, _values, _samples = read(
        RECORDED / "dmtf/public-pdu", tmp_path, kind="rack", outlets={name: f"n{name}" for name in names}
    )
    metered = {m.asset for m in found.meters if m.source == "redfish-outlet" and m.quantity == "power"}

    assert metered == {f"n{name}" for name in names} - {"nA4", "nA5"}


def test_hpe_legacy_power_and_its_own_fields_where_they_are_placed(tmp_path):
    """565 W; outputs 222 + 200 + 86 + 57 = 565 W confirm; the mean of 20 minutes (521) and the capacity are no sample."""
    placed = [
        {"uri": f"/redfish/v1/Chassis/1/Power#/Oem/Hpe/PowerMetric/{name}Watts", "asset": f"n01/{name}"}
        for name in ("Cpu", "Dimm", "Gpu", "Fan")
    ]
    tree = flat(RECORDED / "hpe", tmp_path / "tree")
    found, values, _samples = read(tree, tmp_path, sensor=placed)
    outputs = values["n01", "redfish-psu-out", "power"]

    assert values["n01", "redfish-power", "power"] == {"PowerConsumedWatts": 565_000}
    assert sorted(m.id for m in found.meters if m.source == "redfish-psu-out") == [
        f"n01:Chassis/1/Power#/PowerSupplies/{i}/LastPowerOutputWatts:redfish-psu-out:power" for i in range(4)
    ]
    assert outputs == {"LastPowerOutputWatts": 57_000}  # the last of four of this name
    assert sum(s.value for s in _samples if "redfish-psu-out" in s.meter) == 565_000
    for name, watts in (("Cpu", 134), ("Dimm", 24), ("Gpu", 135)):
        assert values[f"n01/{name}", "redfish-sensor", "power"] == {f"{name}Watts": watts * 1000}
    assert ("n01/Fan", "redfish-sensor", "power") not in values
    assert any("nothing to read at" in doubt and "FanWatts" in doubt for doubt in found.doubts)


def test_dell_takes_what_is_measured_and_not_the_nameplate(tmp_path):
    """429 W; output 203 W is measured; PowerInputWatts 900 equals Range1MaxInputPowerWatts; the limit 348 is none."""
    dell = RECORDED / "telegraf/dell"
    pages = [json.loads((dell / f"{name}.json").read_text()) for name in ("dell_power", "dell_chassis")]
    found, values, _samples = read(tree_of(pages, tmp_path / "tree"), tmp_path)

    assert values == {
        ("n01", "redfish-power", "power"): {"PowerConsumedWatts": 429_000},
        ("n01", "redfish-psu-out", "power"): {"PowerOutputWatts": 203_000},
    }
    assert any("PowerInputWatts 900 of PSU.Slot.1 is its nameplate" in doubt for doubt in found.doubts)


def test_mockup_servers_with_both_faces_use_one_and_confirm_with_the_other(tmp_path):
    """EnvironmentMetrics 374 W and legacy Power 344 W contradict each other: two sources, never a sum."""
    found, values, _samples = read(RECORDED / "dmtf/public-rackmount1", tmp_path)
    ranks = {m.source: m.rank for m in found.meters if m.asset == "n01"}

    assert values["n01", "redfish", "power"] == {"TotalPower": 374_000}
    assert values["n01", "redfish-power", "power"] == {"PowerConsumedWatts": 344_000}
    assert values["n01", "redfish-psu", "power"] == {"PS1InputPower": 937_400}  # PS2 is absent
    assert ranks["redfish"] < ranks["redfish-power"] < ranks["redfish-psu-out"]


def test_four_chassis_of_one_service_are_four_sources(tmp_path):
    """Trays of one enclosure may contain each other: the books use one; a report's newest value of each counts."""
    found, values, samples = read(RECORDED / "dmtf/public-telemetry", tmp_path)
    stamps = {s.meter.split("/")[1]: s.time_ms for s in samples if "PowerConsumedWatts" in s.meter}

    assert len({m.source for m in found.meters if "PowerConsumedWatts" in m.id}) == 4
    assert values["n01", "redfish-power/Tray_1", "power"] == {"PowerConsumedWatts": 107_000}
    assert stamps["Tray_1"] == to_ms(datetime(2016, 11, 8, 19, 25, tzinfo=UTC))  # 14:25 at −05:00


def test_power_shelf_by_the_schema(tmp_path):
    """PowerEquipment/PowerShelves/1/Metrics stands for the shelf."""
    _found, values, _samples = read(RECORDED / "dmtf/public-power-shelf", tmp_path, kind="rack")

    assert values["n01", "redfish", "power"] == {"PDUPower": 6_438_000}
    assert values["n01", "redfish", "energy_counter"] == {"PDUEnergy": 56_438 * 3_600_000_000}
