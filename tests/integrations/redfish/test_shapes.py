"""Small trees written by hand after the shape of makers' services: which of several numbers is the machine's.

The makers' documentation and public tools name the properties and ids; the numbers are made up.
"""

from __future__ import annotations

import pytest

from tests.integrations.redfish.server import tree_of
from tests.integrations.redfish.test_device import V1, link, once

CHASSIS, SYSTEM = f"{V1}/Chassis/1", f"{V1}/Systems/1"


def legacy(controls, supplies=()):
    """A server with the deprecated Power page and one system."""
    return [
        {"@odata.id": V1, "Chassis": link(f"{V1}/Chassis"), "Systems": link(f"{V1}/Systems")},
        {"@odata.id": f"{V1}/Systems", "Members": [link(SYSTEM)]},
        {"@odata.id": SYSTEM},
        {"@odata.id": CHASSIS, "ChassisType": "RackMount", "Power": link(f"{CHASSIS}/Power")},
        {"@odata.id": f"{CHASSIS}/Power", "PowerControl": list(controls), "PowerSupplies": list(supplies)},
    ]


def control(name, watts, related=SYSTEM):
    return {"Name": name, "PowerConsumedWatts": watts, "RelatedItem": [link(related)]}


def sensors(*told):
    """A server whose chassis has only sensors: (id, further properties)."""
    at = f"{CHASSIS}/Sensors"
    return [
        {"@odata.id": CHASSIS, "ChassisType": "RackMount", "Sensors": link(at)},
        {"@odata.id": at, "Members": [link(f"{at}/{name}") for name, _more in told]},
        *({"@odata.id": f"{at}/{name}", "Id": name, **more} for name, more in told),
    ]


def power(reading, **more):
    return {"ReadingType": "Power", "ReadingUnits": "W", "Reading": reading, **more}


def read(pages, tmp_path, **table):
    """Return doubts, and values by asset, source and quantity."""
    found, samples = once(tree_of(pages, tmp_path / "tree"), tmp_path, **table)
    values: dict[tuple[str, str, str], list[int]] = {}
    for meter in found.meters:
        if meter.id in samples:
            values.setdefault((meter.asset, meter.source, meter.quantity), []).append(samples[meter.id].value)
    return found.doubts, values


@pytest.mark.parametrize(
    ("controls", "watts"),
    [
        # Lenovo: the server first, then parts of it that relate to the same system
        ([control("Server Power Control", 431), control("CPU Sub-system Power", 120)], [431]),
        # the same where the server's is null: no part stands in for it
        ([control("Server Power Control", None), control("CPU Sub-system Power", 120)], []),
        ([control("Server Power Control", None), control("Power of processor", 120, f"{SYSTEM}/Processors/1")], []),
        # an enclosure's own number is null, its system tells it
        ([control("Chassis", None, CHASSIS), control("System Power Control", 431)], [431]),
        # of another chassis: not ours
        ([control("Chassis", None, CHASSIS), control("Shelf", 900, f"{V1}/Chassis/2")], []),
        ([{"Name": "System Power Control", "PowerConsumedWatts": "431"}], [431]),
        ([{"Name": "Off", "PowerConsumedWatts": 431, "Status": {"State": "UnavailableOffline"}}], []),
    ],
)
def test_which_power_control_is_the_machine(controls, watts, tmp_path):
    """Never a part of it, and never two."""
    _doubts, values = read(legacy(controls), tmp_path)

    assert values == ({("n01", "redfish-power", "power"): [w * 1000 for w in watts]} if watts else {})


def test_supplies_of_a_server_whose_control_is_null(tmp_path):
    """Two inputs, 210.5 + 190 W; the third supply is absent and says what it last said."""
    supplies = [
        {"MemberId": "0", "PowerInputWatts": 210.5, "PowerCapacityWatts": 1600, "Status": {"State": "Enabled"}},
        {"MemberId": "1", "PowerInputWatts": 190, "PowerCapacityWatts": 1600},
        {"MemberId": "2", "PowerInputWatts": 77, "PowerCapacityWatts": 1600, "Status": {"State": "Absent"}},
    ]
    _doubts, values = read(legacy([control("System", None)], supplies), tmp_path)

    assert values == {("n01", "redfish-psu", "power"): [210_500, 190_000]}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        # OpenBMC without EnvironmentMetrics: a total
        ([("power_total_power", power(612.5))], {("n01", "redfish-total", "power"): [612_500]}),
        # OpenBMC, supplies only, no PhysicalContext: inputs add up, outputs and limits are none
        (
            [
                ("power_ps0_input_power", power(300)), ("power_ps1_input_power", power(310)),
                ("power_ps0_output_power", power(280)), ("power_ps0_input_power_limit", power(2000)),
            ],
            {("n01", "redfish-psu", "power"): [300_000, 310_000]},
        ),
        # iDRAC: consumption of the board; the headroom is none
        (
            [("SystemBoardPwrConsumption", power(224)), ("PowerHeadroom", power(1176))],
            {("n01", "redfish-total", "power"): [224_000]},
        ),
        # kilowatts, milliwatts and a unit that is written out
        ([("total_power", power(0.6125, ReadingUnits="kW"))], {("n01", "redfish-total", "power"): [612_500]}),
        ([("total_power", power(612_500, ReadingUnits="mW"))], {("n01", "redfish-total", "power"): [612_500]}),
        ([("total_power", power(612, ReadingUnits="Watts"))], {("n01", "redfish-total", "power"): [612_000]}),
        # no unit: the type says it; a unit that is none of power: nothing says what it is
        ([("total_power", {"ReadingType": "Power", "Reading": 612})], {("n01", "redfish-total", "power"): [612_000]}),
        ([("total_power", power(61, ReadingUnits="%"))], {}),
        ([("total_power", power(None))], {}),
        ([("total_power", power(612, Status={"State": "UnavailableOffline"}))], {}),
        # GPUs, fans and processors of a machine are not the machine
        ([("Total_GPU_Power", power(2000)), ("total_fan_power", power(70))], {}),
    ],
)  # fmt: skip
def test_sensors_that_are_the_machine_by_their_ids(told, expected, tmp_path):
    """In milliwatts, each once."""
    _doubts, values = read(sensors(*told), tmp_path)

    assert values == expected


def metrics(**more):
    uri = f"{CHASSIS}/EnvironmentMetrics"
    return [
        {"@odata.id": CHASSIS, "ChassisType": "RackMount", "EnvironmentMetrics": link(uri)},
        {"@odata.id": uri, **more},
    ]


def test_a_counter_that_stands_at_0_is_none(tmp_path):
    """400 W flow and 0 kWh are counted: the books would have the node draw nothing. Power is used, and it is said."""
    doubts, values = read(metrics(PowerWatts={"Reading": 400}, EnergykWh={"Reading": 0}), tmp_path)

    assert values == {("n01", "redfish", "power"): [400_000]}
    assert any("EnergykWh stands at 0 although power flows" in doubt for doubt in doubts)


def test_a_counter_at_0_of_what_draws_nothing_is_one(tmp_path):
    """An outlet strip just set up: 0 W and 0 kWh."""
    told = {"PowerWatts": {"Reading": 0}, "EnergykWh": {"Reading": 0}}
    _doubts, values = read(metrics(**told), tmp_path, kind="rack")

    assert values == {("n01", "redfish", "power"): [0], ("n01", "redfish", "energy_counter"): [0]}


def test_kilowatt_hours_where_joules_stand_at_0(tmp_path):
    """EnergyJoules 0 is a property that nobody fills; 12.5 kWh = 45 000 000 J."""
    told = {"PowerWatts": {"Reading": 400}, "EnergyJoules": {"Reading": 0}, "EnergykWh": {"Reading": 12.5}}
    _doubts, values = read(metrics(**told), tmp_path)

    assert values["n01", "redfish", "energy_counter"] == [45_000_000_000]


def pdu(*, whole=900.0, outlets=((230, 2.0, 0.98, 450.8), (230, 2.0, 0.98, 450.8)), mains=None):
    """A rack PDU: what its outlets tell as (volts, amperes, power factor, watts), None for one without a meter."""
    unit = f"{V1}/PowerEquipment/RackPDUs/1"
    pages = [
        {"@odata.id": V1, "Chassis": link(f"{V1}/Chassis"), "PowerEquipment": link(f"{V1}/PowerEquipment")},
        {"@odata.id": CHASSIS, "ChassisType": "RackMount"},
        {"@odata.id": f"{V1}/PowerEquipment", "RackPDUs": link(f"{V1}/PowerEquipment/RackPDUs")},
        {"@odata.id": f"{V1}/PowerEquipment/RackPDUs", "Members": [link(unit)]},
        {"@odata.id": unit, **{name: link(f"{unit}/{name}") for name in ("Metrics", "Mains", "Outlets")}},
        {"@odata.id": f"{unit}/Metrics", "PowerWatts": {"Reading": whole}},
        {"@odata.id": f"{unit}/Mains", "Members": [link(f"{unit}/Mains/1")] if mains else []},
        {"@odata.id": f"{unit}/Outlets", "Members": [link(f"{unit}/Outlets/{i}") for i in range(len(outlets))]},
    ]
    if mains:
        pages.append({"@odata.id": f"{unit}/Mains/1", **mains})
    for i, told in enumerate(outlets):
        page = {"@odata.id": f"{unit}/Outlets/{i}"}
        if told:
            volts, amperes, factor, watts = told
            page |= {"Voltage": {"Reading": volts}, "CurrentAmps": {"Reading": amperes}}
            page["PowerWatts"] = {"Reading": watts, "PowerFactor": factor}
        pages.append(page)
    return pages


def phases(*watts):
    return dict(
        zip(("Line1ToNeutral", "Line2ToNeutral", "Line3ToNeutral"), ({"Reading": w} for w in watts), strict=True)
    )


GOOD = (230, 2.0, 0.98, 450.8)  # 230 V × 2 A × 0.98 = 450.8 W


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, ""),
        ({"outlets": (GOOD, GOOD, None)}, ""),
        # one of three has no meter: the others may be less than the whole, and never more
        ({"whole": 2000, "outlets": (GOOD, GOOD, None)}, ""),
        ({"whole": 500, "outlets": (GOOD, GOOD, None)}, "its 2 outlets together tell 901.6 W, and the whole 500 W"),
        ({"whole": 9000}, "its 2 outlets together tell 901.6 W, and the whole 9000 W"),
        ({"outlets": (GOOD, (230, 20.0, 0.98, 450.8))}, "Outlets/1 tells 450.8 W, and its volts × amperes × power factor "
         "give 4508 W"),
        ({"mains": {"PowerWatts": {"Reading": 905}, "PolyPhasePowerWatts": phases(300, 300, 305)}}, ""),
        ({"mains": {"PowerWatts": {"Reading": 905}, "PolyPhasePowerWatts": phases(30, 30, 30.5)}},
         "Mains/1 tells 905 W, and its phases together 90.5 W"),
        ({"mains": {"PowerWatts": {"Reading": 9050}}}, "its 1 inlets together tell 9050 W, and the whole 900 W"),
        ({"mains": {"PowerWatts": {"Reading": 905, "ApparentVA": 9200, "PowerFactor": 0.98}}},
         "Mains/1 tells 905 W, and its volt-amperes × power factor give 9016 W"),
    ],
)  # fmt: skip
def test_a_pdu_s_readings_that_cannot_both_be_true_are_doubted(told, said, tmp_path):
    """And nothing else is."""
    doubts, _values = read(pdu(**told), tmp_path, kind="rack")
    mine = [doubt for doubt in doubts if "say what they feed" not in doubt]

    assert [said in doubt for doubt in mine] == ([True] if said else [])
