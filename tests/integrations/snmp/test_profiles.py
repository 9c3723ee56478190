"""Profiles: ours are complete, yours are files, and a wrong one is refused with file and key."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.integrations.snmp.fake_agent import FakeAgent
from tests.integrations.snmp.test_device import OBJECT_ID, sampled, served
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.integrations.snmp.link import Config
from wattkeeper.integrations.snmp.meter import SnmpDevice, devices
from wattkeeper.integrations.snmp.profile import BUILT_IN, candidates, load, profiles_of
from wattkeeper.integrations.snmp.readings import read

NEW = """
title = "A strip of mine"
match = ["1.3.6.1.4.1.99999.1"]
probe = "1.3.6.1.4.1.99999.1.5"

[[group]]
level = "inlet"
label = "{1}"
whole = 1
value = [
    { quantity = "power", oid = "1.3.6.1.4.1.99999.1.5.*", unit = "W", scale = 0.1, absent = [65535] },
    { quantity = "energy_counter", oid = "1.3.6.1.4.1.99999.1.6.*", unit = "kWh", scale = 0.01, wrap = 1000000 },
]
"""


def test_a_new_model_is_a_new_file(tmp_path):
    """No code: a folder with one file, named in the table; 1234 tenths of a watt, 42 hundredths of a kWh."""
    (tmp_path / "mine.toml").write_text(NEW)
    told = {OBJECT_ID: "oid:1.3.6.1.4.1.99999.1.7", "1.3.6.1.4.1.99999.1.5.1": 1234, "1.3.6.1.4.1.99999.1.6.1": 42}
    agent = FakeAgent(told)
    with served(agent) as port:
        (device,) = devices(Config(host="127.0.0.1", port=port, asset="rack", profiles=tmp_path))
        found = asyncio.run(device.discover())
        assert sampled(device) == {"inlet-1:snmp:power": 123_400, "inlet-1:snmp:energy_counter": 1_512_000_000}
        agent.show("1.3.6.1.4.1.99999.1.5.1", 65_535)
        assert sampled(device).keys() == {"inlet-1:snmp:energy_counter"}
        with pytest.raises(SourceError, match=r"unknown model: sysObjectID 1\.3\.6\.1\.4\.1\.99999\.1\.7"):
            asyncio.run(SnmpDevice(Config(host="127.0.0.1", port=port, asset="rack"), "rack").discover())

    assert {m.wrap_mj for m in found.meters} == {0, 36_000_000_000_000}


def test_a_file_of_yours_goes_before_ours(tmp_path):
    """Under the same name."""
    (tmp_path / "raritan.toml").write_text(NEW)

    assert profiles_of(tmp_path)["raritan"].title == "A strip of mine"
    assert profiles_of()["raritan"].title.startswith("Raritan")


def test_a_profile_can_be_named(tmp_path):
    """For a model whose sysObjectID is another maker's."""
    (tmp_path / "mine.toml").write_text(NEW)
    told = {OBJECT_ID: "oid:1.3.6.1.4.1.8072.3.2.10", "1.3.6.1.4.1.99999.1.5.1": 10}
    with served(FakeAgent(told)) as port:
        config = Config(host="127.0.0.1", port=port, asset="rack", profiles=tmp_path, profile="mine")
        assert sampled(SnmpDevice(config, "rack")) == {"inlet-1:snmp:power": 1000}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("title =", "titel ="), r"titel: Extra inputs are not permitted|title: Field required"),
        (('unit = "W"', 'unit = "A"'), r"group\.0\.value\.0: 'A' is no unit of power: MW, W, kW, mW, uW"),
        (('"power"', '"watts"'), r"group\.0\.value\.0\.quantity: Input should be"),
        (("scale = 0.1", "scale = 0"), r"group\.0\.value\.0\.scale: Input should be greater than 0"),
        (("scale = 0.1", 'scale = "ten"'), r"group\.0\.value\.0\.scale: Input should be a valid decimal"),
        (("99999.1.5.*", "99999.1.5.x"), r"group\.0\.value\.0\.oid: String should match pattern"),
        (("99999.1.6.*", "99999.1.6.*.*"), r"group\.0: its values have different numbers of \* in oid"),
        (('label = "{1}"', 'label = "{2}"'), r"group\.0: \{2\} is asked for, and oid has 1 \*"),
        (('label = "{1}"\n', ""), r"group\.0: label is missing"),
        (("whole = 1", "whole = 0"), r"no group says whole"),
        (("whole = 1", 'level2 = "x"'), r"group\.0\.level2: Extra inputs are not permitted"),
        (("absent = [65535]", 'decimals = "1.3.6.{2}"'), r"group\.0\.value\.0: \{2\} is asked for"),
        (("absent = [65535]", 'present = "1.3.6.{1}"'), r"group\.0\.value\.0: present and present_if go together"),
        (("absent = [65535]", "wrap = 5"), r"group\.0\.value\.0: only an energy_counter has a wrap"),
        (('["1.3.6.1.4.1.99999.1"]', '["apc"]'), r"match has 'apc', which is no OID"),
        (("[[group]]", "[[group]"), r"cannot be read: .*line"),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(tmp_path, change, said):
    """When the site file is read, not when the PDU answers."""
    assert change[0] in NEW
    (tmp_path / "mine.toml").write_text(NEW.replace(*change, 1))
    with pytest.raises(ConfigError, match=rf"Profile {re.escape(str(tmp_path / 'mine.toml'))}:? ({said})"):
        devices(Config(host="p", asset="r", profiles=tmp_path))


def test_a_folder_that_is_not_there_is_said(tmp_path):
    """With the key to correct."""
    with pytest.raises(ConfigError, match=r"Profile folder .* is not there\. Correct profiles"):
        devices(Config(host="p", asset="r", profiles=tmp_path / "none"))


@pytest.mark.parametrize("file", sorted(BUILT_IN.glob("*.toml")), ids=lambda file: file.stem)
def test_each_of_ours_is_whole(file):
    """It loads, has a level that is the whole device with watts or energy, and names no OID twice."""
    profile = load(file)
    whole = [value.quantity for group in profile.group if group.whole == 1 for value in group.value]
    places = [(v.oid, v.quantity) for group in profile.group for v in group.value]

    assert {"power", "energy_counter"} & set(whole)
    assert len(places) == len(set(places))


@pytest.mark.parametrize(
    ("object_id", "names"),
    [
        ("1.3.6.1.4.1.318.1.3.4.6", ["apc-rpdu2", "apc-rpdu", "apc-ups", "ups-mib"]),
        ("1.3.6.1.4.1.318.1.3.27", ["apc-ups", "ups-mib"]),
        ("1.3.6.1.4.1.13742.6", ["raritan", "ups-mib"]),
        ("1.3.6.1.4.1.13742.4", ["raritan-px1", "ups-mib"]),
        ("1.3.6.1.4.1.232.165.5", ["hpe-ipdu", "ups-mib"]),
        ("1.3.6.1.4.1.21239.42.1.53", ["geist", "ups-mib"]),
        ("1.3.6.1.4.1.21239.2", ["geist-v3", "geist", "ups-mib"]),
        ("1.3.6.1.4.1.13742.60", ["ups-mib"]),  # another enterprise's number, not a part of 6
        ("1.3.6.1.4.1.534.6.6.7", ["eaton-epdu", "ups-mib"]),
        ("1.3.6.1.4.1.534.6.6.6", ["ups-mib"]),
        ("1.3.6.1.4.1.34278.8.6", ["janitza-umg96", "ups-mib"]),
        ("1.3.6.1.4.1.34278.10.4", ["janitza-umg604", "ups-mib"]),
    ],
)
def test_which_profiles_may_fit(object_id, names):
    """The closest first; which one it is, its probe says."""
    assert [p.name for p in candidates(profiles_of().values(), object_id)] == names


def test_the_sample_on_the_page_is_a_profile_and_all_are_listed(tmp_path):
    """The second TOML of the page loads; the table names each file."""
    page = (BUILT_IN.parent / "README.md").read_text()
    (tmp_path / "sample.toml").write_text(page.split("```toml\n")[2].partition("```")[0])

    assert load(tmp_path / "sample.toml").group[0].value[0].absent == [65_535]
    listed = {name for row in re.findall(r"^\| ([a-z0-9, -]+) \|", page, re.MULTILINE) for name in row.split(", ")}
    assert {file.stem for file in BUILT_IN.glob("*.toml")} <= listed


APC_UPS, XUPS, SENTRY3 = "1.3.6.1.4.1.318.1.1.1.4", "1.3.6.1.4.1.534.1.4.4.1", "1.3.6.1.4.1.1718.3.2"
HPE, HPE3, UMG96 = "1.3.6.1.4.1.232.165", "1.3.6.1.4.1.232.165.11", "1.3.6.1.4.1.34278"
EPDU, UPS_PHASE, UPS_MIB = "1.3.6.1.4.1.534.6.6.7.3", "1.3.6.1.4.1.318.1.1.1.9.3.3.1", "1.3.6.1.2.1.33.1.4.4.1"
PX1, GEIST, GEIST3 = "1.3.6.1.4.1.13742.4.1", "1.3.6.1.4.1.21239.5.2.3", "1.3.6.1.4.1.21239.2.25.1"


@pytest.mark.parametrize(
    ("object_id", "told", "samples"),
    [
        (  # hundredths of a kWh; watts of the load
            "1.3.6.1.4.1.318.1.3.27",
            {f"{APC_UPS}.2.8.0": 378, f"{APC_UPS}.3.6.0": 123_456},
            {"output:snmp:energy_counter": 4_444_416_000_000, "output:snmp:power": 378_000},
        ),
        (
            "1.3.6.1.4.1.534.1",
            {f"{XUPS}.4.1": 4000, f"{XUPS}.4.2": 5000, f"{XUPS}.4.3": 0},
            {"output-L1:snmp:power": 4_000_000, "output-L2:snmp:power": 5_000_000, "output-L3:snmp:power": 0},
        ),
        (  # as told by a ConnectUPS card: 230 V × 1 A, whole amperes
            "1.3.6.1.4.1.534.1",
            {f"{XUPS}.2.1": 230, f"{XUPS}.3.1": 1, f"{XUPS}.4.1": 231},
            {"output-L1:snmp:power": 231_000},
        ),
        (  # tenths of a kWh by infeed; the neutral one says -1 to all; the tower's whole kWh only confirm
            "1.3.6.1.4.1.1718.3",
            {
                **{f"{SENTRY3}.2.1.{c}.1.1": raw for c, raw in ((12, 745), (16, 12_345), (7, 362), (11, 2093))},
                **{f"{SENTRY3}.2.1.{c}.1.2": -1 for c in (7, 11, 12, 16)},
                f"{SENTRY3}.2.1.2.1.1": "AA",
                f"{SENTRY3}.1.1.14.1": 1234,
            },
            {"inlet-AA:snmp:power": 745_000, "inlet-AA:snmp:energy_counter": 4_444_200_000_000},
        ),
        (  # whole kWh over its life; the counter that can be set to 0 is not read
            HPE3,
            {f"{HPE3}.2.1.1.5.1": 154, f"{HPE3}.2.1.1.6.1": 321, f"{HPE3}.2.1.1.8.1": 77},
            {"inlet-1:snmp:power": 154_000, "inlet-1:snmp:energy_counter": 1_155_600_000_000},
        ),
        (  # .4.1 is the sum of energy here, and phase 1's on a UMG 604
            "1.3.6.1.4.1.34278.8.6",
            {f"{UMG96}.2.1.0": 90_000, f"{UMG96}.4.1.0": 5000, f"{UMG96}.3.1.0": 1700, f"{UMG96}.1.13.0": 30_000},
            {"device:snmp:power": 90_000_000, "device:snmp:energy_counter": 1_800_000_000_000},
        ),
        (  # no table of totals: row 4 is the total (type 4), 700 + 800 + 500 W, and not a fourth phase
            "1.3.6.1.4.1.534.6.6.7",
            {
                **{f"{EPDU}.4.1.2.0.1.{row}": row for row in (1, 2, 3, 4)},
                **{f"{EPDU}.4.1.4.0.1.{row}": w for row, w in ((1, 700), (2, 800), (3, 500), (4, 2000))},
                **{f"{EPDU}.4.1.5.0.1.{row}": wh for row, wh in ((1, 7000), (2, 8000), (3, 5000), (4, 20_000))},
            },
            {"inlet-1:snmp-inlet:power": 2_000_000, "inlet-1:snmp-inlet:energy_counter": 72_000_000_000},
        ),
        (  # phases alone add up: 700 + 800 W
            "1.3.6.1.4.1.534.6.6.7",
            {
                f"{EPDU}.4.1.2.0.1.1": 1,
                f"{EPDU}.4.1.2.0.1.2": 2,
                f"{EPDU}.4.1.4.0.1.1": 700,
                f"{EPDU}.4.1.4.0.1.2": 800,
            },
            {"phase-1-1:snmp-phase:power": 700_000, "phase-1-2:snmp-phase:power": 800_000},
        ),
        (  # three phases: the scalars of one are -1
            "1.3.6.1.4.1.318.1.3.5.4",
            {
                f"{APC_UPS}.2.8.0": -1,
                f"{APC_UPS}.3.6.0": -1,
                **{f"{UPS_PHASE}.13.1.{n}": 1000 * n for n in (1, 2, 3)},
            },
            {f"phase-L{n}:snmp-phase:power": 1_000_000 * n for n in (1, 2, 3)},
        ),
        (  # as told by a P9S18A: 228.9 V × 0.37 A × 1.00, 79 W; no counter, phases 2 and 3 not there
            HPE3,
            {
                f"{HPE3}.2.1.1.2.1": 500,
                f"{HPE3}.2.1.1.5.1": 79,
                f"{HPE3}.2.1.1.9.1": 100,
                **{f"{HPE3}.2.2.1.{c}.1.1": raw for c, raw in ((3, 2289), (11, 37), (20, 80))},
                **{f"{HPE3}.2.2.1.{c}.1.{n}": 0 for c in (3, 11, 20) for n in (2, 3)},
            },
            {"inlet-1:snmp:power": 79_000},
        ),
        (  # watts of the unit; watt-hours of its six segments, which are all of it
            f"{HPE}.5",
            {
                f"{HPE}.5.1.2.1.38.1": 2100,
                f"{HPE}.5.1.2.1.39.1": -1,
                **{f"{HPE}.5.2.1.1.9.1.{n}": 100 * n for n in range(1, 7)},
                **{f"{HPE}.5.2.1.1.13.1.{n}": 1000 * n for n in range(1, 7)},
            },
            {
                "device-1:snmp:power": 2_100_000,
                **{f"output-{n}:snmp-output:energy_counter": n * 3_600_000_000 for n in range(1, 7)},
            },
        ),
        (f"{HPE}.3", {f"{HPE}.3.4.4.1.4.1": 1250, f"{HPE}.3.3.4.1.4.1": 0}, {"output-L1:snmp:power": 1_250_000}),
        (f"{HPE}.2", {f"{HPE}.2.3.1.1.4.1": 640, f"{HPE}.2.3.1.1.4.2": -1}, {"device-1:snmp:power": 640_000}),
        (  # as told by a Dominion PX: 2.971 A × 230 V × 0.83 = 567 W; its counter stands at 0 and is none
            "1.3.6.1.4.1.13742.4",
            {
                **{f"{PX1}.20.2.1.{c}.1": raw for c, raw in ((7, 2971), (8, 230_000), (9, 580), (11, 83), (12, 0))},
                f"{PX1}.21.2.1.3.1.1": 2971,
                f"{PX1}.21.2.1.4.1.1": 230_500,
                f"{PX1}.2.2.1.4.3": 2192,
            },
            {"inlet-I1:snmp:power": 580_000},
        ),
        (  # the same before it had a table of inlets
            "1.3.6.1.4.1.13742.4",
            {f"{PX1}.3.1.1.0": 2971, f"{PX1}.3.1.2.0": 230_000, f"{PX1}.3.1.3.0": 580},
            {"device:snmp-device:power": 580_000},
        ),
        (  # as told by an MN03EDR1 without a total: three phases of a delta, 206.8 V × 7.12 A × 0.97 = 1428 W
            "1.3.6.1.4.1.21239.42.1.53",
            {
                **{
                    f"{GEIST}.2.1.{c}.1": raw for c, raw in ((4, 2068), (8, 712), (12, 1434), (14, 97), (15, 5_047_296))
                },
                **{
                    f"{GEIST}.2.1.{c}.2": raw for c, raw in ((4, 2079), (8, 711), (12, 1440), (14, 97), (15, 5_123_811))
                },
                **{f"{GEIST}.4.1.4.{n}": 1226 for n in (1, 2)},
            },
            {
                "phase-1:snmp-phase:power": 1_434_000,
                "phase-2:snmp-phase:power": 1_440_000,
                "phase-1:snmp-phase:energy_counter": 18_170_265_600_000,  # 5 047 296 Wh × 3.6e6 mJ
                "phase-2:snmp-phase:energy_counter": 18_445_719_600_000,
            },
        ),
        (  # phase B's columns follow phase A's: volts, tenths of an ampere, watts, kWh
            "1.3.6.1.4.1.21239.2",
            {
                f"{GEIST3}.{c}.1": raw
                for c, raw in ((5, 40), (6, 230), (8, 21), (10, 470), (13, 50), (14, 231), (18, 0))
            },
            {
                "phase-1-A:snmp:power": 470_000,
                "phase-1-A:snmp:energy_counter": 144_000_000_000,
                "phase-1-B:snmp:power": 0,
                "phase-1-B:snmp:energy_counter": 180_000_000_000,
            },
        ),
        (  # the card's own tree has no watts, the standard one has: tenths of amperes are not asked
            "1.3.6.1.4.1.318.1.3.27",
            {f"{APC_UPS}.3.1.0": 1180, f"{UPS_MIB}.4.1": 354},
            {"output-L1:snmp:power": 354_000},
        ),
    ],
    ids=[
        "apc-ups",
        "eaton-xups",
        "eaton-connectups",
        "sentry3",
        "hpe-pdu3",
        "janitza-umg96",
        "eaton-epdu-total",
        "eaton-epdu-phases",
        "apc-ups-3-phases",
        "hpe-pdu3-p9s18a",
        "hpe-ipdu",
        "hpe-ups",
        "hpe-pdu1",
        "raritan-px1",
        "raritan-px1-unit",
        "geist-delta",
        "geist-v3",
        "apc-ups-by-ups-mib",
    ],
)
def test_models_of_which_no_recording_has_readings(object_id, told, samples):
    """Written from the MIBs, shown by fake agents."""
    with served(FakeAgent({OBJECT_ID: f"oid:{object_id}", **told})) as port:
        config = Config(host="127.0.0.1", port=port, asset="rack")
        assert sampled(SnmpDevice(config, "rack")) == samples


def test_a_row_of_totals_is_no_fourth_phase():
    """700 + 800 + 500 W are the 2000 W of row 4; phases and whole agree, and phases are three."""
    told = {OBJECT_ID: "oid:1.3.6.1.4.1.534.6.6.7"}
    for row, watts in ((1, 700), (2, 800), (3, 500), (4, 2000)):
        told |= {f"{EPDU}.4.1.2.0.1.{row}": row, f"{EPDU}.4.1.4.0.1.{row}": watts}
    with served(FakeAgent(told)) as port:
        device = SnmpDevice(Config(host="127.0.0.1", port=port, asset="rack"), "rack")
        _profile, readings, _model = asyncio.run(device.readings())
        found = asyncio.run(device.discover())

    assert [(one.level, one.label, int(one.value)) for one in readings] == [
        ("inlet", "1", 2000), ("phase", "1-1", 700), ("phase", "1-2", 800), ("phase", "1-3", 500),
    ]  # fmt: skip
    assert found.doubts == []


IPDU, UPS, PDU1 = f"{HPE}.5.2.1.1", f"{HPE}.3", f"{HPE}.2.3"


@pytest.mark.parametrize(
    ("name", "told", "expected"),
    [
        (
            "hpe-pdu3",
            {f"{HPE3}.2.2.1.{c}.1.1": raw for c, raw in ((3, 2289), (10, 3200), (11, 37), (20, 80), (23, 97))},
            "phase 1: voltage 228.9 V, rated_current 32 A, current 0.37 A, power 80 W, power_factor 0.97",
        ),
        (
            "hpe-ipdu",
            {
                f"{IPDU}.{c}.2.6": raw
                for c, raw in ((5, 125), (6, 2095), (7, 175), (8, 366), (9, 359), (10, 98), (13, 7))
            },
            "output 2/6: load 12.5 %, voltage 209.5 V, current 1.75 A, apparent_power 366 VA, power 359 W, "
            "power_factor 0.98, energy_counter 7 Wh",
        ),
        (
            "hpe-ups",
            {f"{UPS}.4.4.1.{c}.2": raw for c, raw in ((2, 230), (3, 5), (4, 1150))},
            "output L2: voltage 230 V, current 5 A, power 1150 W",
        ),
        (
            "hpe-pdu1",
            {f"{PDU1}.2.1.{c}.1.3": raw for c, raw in ((2, 208), (3, 1250), (4, 62))},
            "breaker 1-3: voltage 208 V, current 12.5 A, load 62 %",
        ),
        (
            "raritan-px1",
            {f"{PX1}.2.2.1.{c}.3": raw for c, raw in ((4, 6640), (6, 222_000), (7, 1475), (8, 1542), (31, 12_345))},
            "outlet 3: current 6.64 A, voltage 222 V, power 1475 W, apparent_power 1542 VA, energy_counter 12345 Wh",
        ),
        (
            "apc-ups",
            {f"{UPS_PHASE}.{c}.1.2": raw for c, raw in ((3, 231), (4, 52), (7, 1201), (10, 24), (13, 1190))},
            "phase L2: voltage 231 V, current 5.2 A, apparent_power 1201 VA, load 24 %, power 1190 W",
        ),
        (
            "geist-v3",
            {f"{GEIST3}.{c}.1": raw for c, raw in ((21, 77), (22, 231), (24, 21), (26, 470), (27, 485), (28, 97))},
            "phase 1-C: energy_counter 77 kWh, voltage 231 V, current 2.1 A, power 470 W, apparent_power 485 VA, "
            "power_factor 0.97",
        ),
        (
            "eaton-epdu",
            {f"{EPDU[:-2]}.6.3.1.2.0.1": 118_450, f"{EPDU[:-2]}.6.4.1.3.0.1": 790, f"{EPDU[:-2]}.6.5.1.2.0.1": 93},
            "outlet 1: voltage 118.45 V, current 0.79 A, apparent_power 93 VA",
        ),
        (
            "janitza-umg96",
            {f"{UMG96}.2.{c}.0": raw for c, raw in ((1, 90_000), (2, -4000), (3, 90_100), (4, 999))},
            "device: power 90000 W, reactive_power -4000 var, apparent_power 90100 VA, power_factor 0.999",
        ),
    ],
)
def test_what_a_row_tells_beside_its_energy(name, told, expected):
    """Each column in its unit, by the MIB."""
    readings = read(profiles_of()[name], told)
    row = f"{readings[0].level} {readings[0].label}".strip()
    units = [f"{one.quantity} {one.value.normalize():f} {one.unit}".removesuffix(" 1") for one in readings]

    assert f"{row}: {', '.join(units)}" == expected
    assert {(one.level, one.label) for one in readings} == {(readings[0].level, readings[0].label)}
