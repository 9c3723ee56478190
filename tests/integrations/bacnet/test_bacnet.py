"""BACnet objects of a device in another process: units, faults, counters, devices that can do little, that go away."""

from __future__ import annotations

import asyncio
import math
import socket

import pytest
from pydantic import ValidationError

from tests.integrations.bacnet.server import INSTANCE, Server, free_udp_port
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.units import float32_step
from wattkeeper.integrations.bacnet.link import Config
from wattkeeper.integrations.bacnet.meter import devices

NORMAL = [0, 0, 0, 0]
FAULT, OVERRIDDEN, OUT_OF_SERVICE = [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]


def point(value, units="kilowatts", **more):
    """Return the properties of an object that is well."""
    return {"presentValue": value, "units": units, "statusFlags": NORMAL, "outOfService": False, **more}


def accumulator(count, units="kilowattHours", **scale):
    return point(count, units, scale=scale or {"integerScale": 0}, maxPresValue=999_999_999)


def table(address, *objects, **more):
    """Return a table of one device whose objects, by name, measure assets a, b, c …"""
    placed = [one if isinstance(one, dict) else {"object": one, "asset": "abcdefg"[n]} for n, one in enumerate(objects)]
    return Config(device=[{"address": address, "object": placed} | more.pop("device", {})], **{"timeout_s": 5} | more)


async def once(config):
    """Return discovery, and asset → value of one sample."""
    (device,) = devices(config)
    try:
        return await device.discover(), {s.meter.partition(":")[0]: s.value for s in await device.sample()}
    finally:
        await device.close()


def ask(root, told, *objects, **more):
    """Return discovery and sample of objects of a device that has these."""
    with Server(root, told) as server:
        return asyncio.run(once(table(server.address, *(objects or told), **more)))


def test_power_and_energy_in_their_units(tmp_path):
    """48.5 kW, 7 589 123 W, a counter of 123 456 × 0.1 kWh, 31 234 567.875 kWh as a double, 250 MWh, 5 000 kJ, 7 J."""
    told = {
        "analog-input,1": point(48.5),
        "analog-value,2": point(7_589_123.0, "watts"),
        "accumulator,1": accumulator(123_456, integerScale=-1),
        "large-analog-value,1": point(31_234_567.875, "kilowattHours"),
        "positive-integer-value,1": point(250, "megawattHours"),
        "integer-value,1": point(5_000, "kilojoules"),
        "accumulator,2": accumulator(14, "joules", floatScale=0.5),
    }

    found, got = ask(tmp_path, told)

    assert got == {
        "a": 48_500_000,
        "b": 7_589_123_000,
        "c": 44_444_160_000_000,  # 12 345.6 kWh × 3.6e9
        "d": 112_444_444_350_000_000,
        "e": 900_000_000_000_000,
        "f": 5_000_000_000,
        "g": 7_000,
    }
    assert [m.quantity for m in found.meters] == ["power"] * 2 + ["energy_counter"] * 5
    assert found.doubts == []


def test_meters_know_where_a_counter_starts_again(tmp_path):
    """An accumulator of 999 999 999 × 0.1 kWh wraps to 0 at one more; ids hold device and object."""
    told = {"accumulator,1": accumulator(5, integerScale=-1), "analog-input,1": point(1.0)}
    with Server(tmp_path, told) as server:
        found, _got = asyncio.run(once(table(server.address, *told)))

    assert [m.wrap_mj for m in found.meters] == [10**9 * 360_000_000, 0]
    assert [m.resolution_mj for m in found.meters] == [360_000_000, 0]
    assert [m.id for m in found.meters] == [
        f"a:{server.address}/accumulator,1:bacnet:energy_counter",
        f"b:{server.address}/analog-input,1:bacnet:power",
    ]


NONE = {
    "is fault": {"statusFlags": FAULT},
    "is overridden": {"statusFlags": OVERRIDDEN},
    "is out-of-service": {"statusFlags": OUT_OF_SERVICE},
    "is out-of-service:": {"outOfService": True},
    "has reliability no-sensor": {"reliability": "noSensor"},
    "has reliability communication-failure": {"reliability": "communicationFailure"},
    "has the value nan": {"presentValue": "nan"},
    "has the value inf": {"presentValue": "inf"},
    "has the value -3.5": {"presentValue": -3.5},
}


def test_what_is_no_reading_is_absent_and_told(tmp_path):
    """A fault, a value that somebody set by hand, NaN and negative power; the object beside them is read."""
    told = {f"analog-input,{n}": point(48.5) | change for n, change in enumerate(NONE.values())}
    objects = [{"object": name, "asset": name} for name in told]

    found, got = ask(
        tmp_path, {**told, "analog-input,99": point(1.5)}, *objects, {"object": "analog-input,99", "asset": "b"}
    )

    assert got == {"b": 1_500_000}
    assert len(found.meters) == len(NONE) + 1
    assert [f"analog-input,{n} {said}" in found.doubts[n] for n, said in enumerate(NONE)] == [True] * len(NONE)
    assert len(found.doubts) == len(NONE)


def test_optional_properties_may_be_missing(tmp_path):
    """Status flags and reliability that are not there are no fault; 0 W are a reading."""
    told = {
        "analog-input,1": point(0.0, reliability="noFaultDetected"),
        "analog-input,2": {"presentValue": 2.0, "units": "watts"},
    }

    assert ask(tmp_path, told)[1] == {"a": 0, "b": 2_000}


def test_units_that_are_none_have_to_be_given(tmp_path):
    """noUnits needs `unit`; a unit that disagrees with the site file is doubted; amperes are no power."""
    told = {
        "analog-input,1": point(3.0, "noUnits"),
        "analog-input,2": point(3.0, "noUnits"),
        "analog-input,3": point(3.0, "watts"),
        "analog-input,4": point(3.0, "amperes"),
    }
    objects = [
        "analog-input,1",
        {"object": "analog-input,2", "asset": "b", "unit": "kWh", "kind": "cooling", "parent": "hall-1"},
        {"object": "analog-input,3", "asset": "c", "unit": "kW"},
        "analog-input,4",
        "analog-input,9",
    ]

    found, got = ask(tmp_path, told, *objects)

    assert got == {"b": 10_800_000_000, "c": 3_000_000}
    assert [(a.id, a.kind, a.parent) for a in found.assets] == [
        ("b", "cooling", "hall-1"),
        ("c", "rack", ""),
    ]
    assert [
        "analog-input,1 tells no unit that is power or energy (no-units)" in found.doubts[0],
        "analog-input,3 says W, the site file kW, which is used" in found.doubts[1],
        "analog-input,4 tells no unit that is power or energy (amperes)" in found.doubts[2],
        "analog-input,9 is not there" in found.doubts[3],
    ] == [True] * 4


def test_a_counter_in_a_float_that_has_become_coarse_is_told(tmp_path):
    """2 GWh in a 32-bit float of kWh steps by 125 Wh; the same in a double does not."""
    told = {
        "analog-value,1": point(2_000_000.0, "kilowattHours"),
        "analog-value,2": point(1_000_000.0, "kilowattHours"),
        "large-analog-value,1": point(2_000_000.0, "kilowattHours"),
    }

    found, _got = ask(tmp_path, told)

    assert len(found.doubts) == 1
    assert "analog-value,1 keeps its energy in a 32-bit float, which by now steps by 125 Wh" in found.doubts[0]


@pytest.mark.parametrize(
    ("value", "step"), [(0.0, 0.0), (1.0, 2**-23), (1.5, 2**-23), (2.0**24, 2.0), (2.0**31, 256.0), (math.pi, 2**-22)]
)
def test_the_step_of_a_32_bit_float(value, step):
    """24 bits from the first to the last."""
    assert float32_step(value) == step


def test_without_objects_discovery_lists_what_tells_power_or_energy(tmp_path):
    """And reads nothing; temperatures and states are left out."""
    told = {
        "analog-input,1": point(48.5, objectName="Main feed"),
        "analog-input,2": point(21.0, "degreesCelsius"),
        "accumulator,7": accumulator(5) | {"objectName": "Main energy"},
        "binary-input,1": {"presentValue": 0, "statusFlags": NORMAL, "outOfService": False},
    }
    told["binary-input,1"]["polarity"] = "normal"

    with Server(tmp_path, told) as server:
        found, got = asyncio.run(once(table(server.address, device={"instance": INSTANCE})))

    assert (found.meters, got) == ([], {})
    assert found.doubts == [
        f'bacnet {server.address} has analog-input,1 "Main feed" [kW], accumulator,7 "Main energy" [kWh]. '
        "Place those you need with [[agent.bacnet.device.object]]."
    ]


def test_one_request_for_many_objects(tmp_path):
    """25 objects are two requests for a sample; a device that cannot split its answers is asked in halves."""
    told = {f"analog-input,{n}": point(float(n), "watts") for n in range(1, 26)}
    objects = [{"object": name, "asset": f"a{n}"} for n, name in enumerate(told, 1)]
    expected = {f"a{n}": n * 1000 for n in range(1, 26)}

    with Server(tmp_path, told) as server:
        assert asyncio.run(once(table(server.address, *objects)))[1] == expected
        assert [line for line in server.log() if line != "ready"] == ["several 20", "several 5"] * 2
    with Server(tmp_path, told, longest=480) as server:
        assert asyncio.run(once(table(server.address, *objects)))[1] == expected
        assert "several 20" in server.log()
        assert "several 10" in server.log()


def test_a_device_without_read_property_multiple_is_asked_one_by_one(tmp_path):
    """It is tried once; from then on each property is a request, and what it does not have is absent."""
    told = {"analog-input,1": point(48.5), "analog-input,2": point(2.0) | {"statusFlags": FAULT}}
    with Server(tmp_path, told, together=False) as server:
        found, got = asyncio.run(once(table(server.address, *told, "analog-input,3")))
        asked = server.log()

    assert got == {"a": 48_500_000}
    assert len(found.meters) == 2
    assert [line for line in asked if line.startswith("several")] == ["several 3"]
    assert asked.count("one analog-input,1 present-value") == 2


def test_a_device_is_found_by_its_number(tmp_path):
    """Who-Is for 1234, asked of an address; nobody is 99."""
    told = {"analog-input,1": point(48.5)}
    with Server(tmp_path, told) as server:
        config = table(server.address, *told, device={"instance": INSTANCE})
        assert asyncio.run(once(config))[1] == {"a": 48_500_000}
        assert f"who {INSTANCE}" in server.log()
        wrong = table(server.address, *told, device={"instance": 99}, timeout_s=0.4)
        with pytest.raises(SourceError, match="nobody says it is device 99"):
            asyncio.run(once(wrong))

    with pytest.raises(SourceError, match='by broadcast, which needs local = "ADDRESS/MASK:47808"'):
        asyncio.run(once(table("", *told, device={"instance": INSTANCE})))


def test_two_devices_share_a_port_of_ours(tmp_path):
    """Sampled at once; one that is closed does not end the other, and opens again."""
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()

    async def several(first, second):
        placed = [
            {"address": server.address, "object": [{"object": "analog-input,1", "asset": asset}]}
            for server, asset in ((first, "a"), (second, "b"))
        ]
        one, two = devices(Config(device=placed, timeout_s=5))
        got = [samples[0].value for samples in await asyncio.gather(one.sample(), two.sample())]
        await one.close()
        got += [samples[0].value for samples in await asyncio.gather(two.sample(), one.sample())]
        for device in (one, two, one):
            await device.close()
        return got

    with (
        Server(tmp_path / "1", {"analog-input,1": point(1.0)}) as first,
        Server(tmp_path / "2", {"analog-input,1": point(2.0)}) as second,
    ):
        assert asyncio.run(several(first, second)) == [1_000_000, 2_000_000, 2_000_000, 1_000_000]


def test_a_device_that_goes_away_is_one_error_and_comes_back(tmp_path):
    """The same meter before and after; while it is away, its name and what to do."""

    async def story():
        (device,) = devices(table(f"127.0.0.1:{port}", "analog-input,1", timeout_s=0.7))
        with Server(tmp_path, {"analog-input,1": point(1.0)}, port=port):
            first = await device.sample()
        with pytest.raises(SourceError, match=f"^{device.name} did not answer within 0.7 s. Check address and network"):
            await device.sample()
        with Server(tmp_path, {"analog-input,1": point(2.0)}, port=port):
            last = await device.sample()
        await device.close()
        return first, last

    port = free_udp_port()
    first, last = asyncio.run(story())

    assert [s.meter for s in first] == [s.meter for s in last]
    assert [s.value for s in (*first, *last)] == [1_000_000, 2_000_000]


def test_none_of_the_objects_is_there(tmp_path):
    """An error with the way to find out which there are."""
    with pytest.raises(SourceError, match=r"has none of analog-input,7\. Leave out its objects once"):
        ask(tmp_path, {"analog-input,1": point(1.0)}, "analog-input,7")


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ({}, "give address or instance"),
        ({"address": "10.0.0.1", "object": [{"object": "analog-in,1", "asset": "a"}]}, "should match pattern"),
        (
            {"address": "10.0.0.1", "object": [{"object": "analog-input,1", "asset": "a", "unit": "A"}]},
            "neither power nor",
        ),
    ],
)
def test_a_wrong_table_says_what_to_write(device, said):
    """What the site file's check shows."""
    with pytest.raises(ValidationError, match=said):
        Config(device=[device])


def test_wrong_addresses_are_told():
    """The device's and ours."""
    with pytest.raises(SourceError, match="bacnet meter-one is no BACnet address"):
        asyncio.run(once(table("meter-one", "analog-input,1")))
    with pytest.raises(ConfigError, match='local = "here" is no address of ours'):
        asyncio.run(once(table("127.0.0.1", "analog-input,1", local="here")))


def test_a_port_that_another_program_has_is_told():
    """And an address that is not this machine's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(SourceError, match=f"our port 127.0.0.1/8:{port} is not to be had: Address already in use"):
            asyncio.run(once(table("127.0.0.1", "analog-input,1", local=f"127.0.0.1/8:{port}")))
    with pytest.raises(SourceError, match="is not to be had: Cannot assign requested address"):
        asyncio.run(once(table("127.0.0.1", "analog-input,1", local="203.0.113.9/24:47808")))
