"""Modbus meters against pymodbus's server: each register map, SunSpec, gateways, what is absent, what goes away."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.daemons import free_port
from tests.integrations.modbus.server import Server, words
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.integrations.modbus.checks import doubts
from wattkeeper.integrations.modbus.link import Config
from wattkeeper.integrations.modbus.meter import devices, spans
from wattkeeper.integrations.modbus.profile import BUILT_IN, profiles

MODELS = Path(__file__).resolve().parents[3] / "../shared/data/devices/sunspec"


def config(port, *units, profile="eastron-sdm630", **more):
    """Return a table of units that all have one profile, each on an asset p<unit>."""
    meters = [{"unit": unit, "profile": profile, "asset": f"p{unit}"} for unit in units or (1,)]
    return Config(host="127.0.0.1", port=port, meter=meters, **{"timeout_s": 5, **more})


def values(samples):
    """Return quantity → value of the samples of one device."""
    return {s.meter.rpartition(":")[2]: s.value for s in samples}


def once(root, tables, profile, *, framing="tcp", **more):
    """Return discovery, the values of one sample, and the requests of it, of one unit with these registers."""

    async def ask(port):
        (device,) = devices(config(port, profile=profile, framing=framing, **more))
        try:
            found = await device.discover()
            asked = len(server.requests())
            return found, values(await device.sample()), asked
        finally:
            await device.close()

    with Server(root, {1: tables}, framing=framing) as server:
        found, got, asked = asyncio.run(ask(server.port))
        return found, got, [request[1:] for request in server.requests()[asked:]]


def sdm630(power_w=7_589.0, energy_kwh=1_234.5, **more):
    """Return the input registers of an SDM630, 0 to 79: 230 V, 10 to 12 A, power factor 1, or what is given."""
    block = words("float32", *[0.0] * 40)
    place = {0: 230.0, 2: 231.0, 4: 229.0, 6: 10.0, 8: 11.0, 10: 12.0, 12: 2_300.0, 14: 2_541.0, 16: 2_748.0}
    place |= {30: 1.0, 32: 1.0, 34: 1.0, 52: power_w, 72: energy_kwh}
    for address, value in {**place, **{int(k[1:]): v for k, v in more.items()}}.items():
        block[address : address + 2] = words("float32", value)
    return {"input": {0: block}}


def low(kind, *numbers):
    return words(kind, *numbers, order="little")


VOLTS, AMPS, WATTS = (230.0, 231.0, 229.0), (10.0, 11.0, 12.0), (2_300.0, 2_541.0, 2_748.0)
KILOWATTS = tuple(w / 1000 for w in WATTS)
SCHNEIDER = {
    "holding": {
        2999: words("float32", *AMPS),
        3027: words("float32", *VOLTS),
        3053: words("float32", *KILOWATTS, 7.5),
        3203: words("int64", 31_234_567_891),
    }
}
GAVAZZI = {
    0: low("int32", 2300, 2310, 2290),
    0x0C: low("int32", 10_000, 11_000, 12_000, 23_000, 25_410, 27_480),
    0x28: low("int32", 75_891),
}
READINGS = {
    "janitza-umg": (
        {
            "holding": {
                19000: words("float32", *VOLTS),
                19012: words("float32", *AMPS),
                19020: words("float32", *WATTS, 7_589.5),
                19068: words("float32", 65_536.5),
            }
        },
        {"power": 7_589_500, "energy_counter": 235_931_400_000},  # 65 536.5 Wh × 3.6e6 mJ
    ),
    "janitza-b": (
        {
            "holding": {
                0x4A38: words("float32", *VOLTS),
                0x4A44: words("float32", *AMPS),
                0x4A4C: words("float32", *WATTS),
                0x4A64: words("float32", 1.0, 1.0, 1.0),
                0x4A7C: words("float32", 2.5),
            }
        },
        {"energy_counter": 9_000_000},
    ),
    "schneider-pm5000": (SCHNEIDER, {"power": 7_500_000, "energy_counter": 112_444_444_407_600_000}),
    "schneider-iem3000": (SCHNEIDER, {"power": 7_500_000, "energy_counter": 112_444_444_407_600_000}),
    "eastron-sdm630": (sdm630(), {"power": 7_589_000, "energy_counter": 4_444_200_000_000}),
    "eastron-sdm120": (
        {
            "input": {
                0: words("float32", 230.0),
                6: words("float32", 10.0),
                12: words("float32", 2_300.0),
                30: words("float32", 1.0),
                72: words("float32", 0.25),
            }
        },
        {"power": 2_300_000, "energy_counter": 900_000_000},
    ),
    "carlo-gavazzi-em340": (
        {"input": {**GAVAZZI, 0x2E: words("int16", 1000, -1000, 1000), 0x34: low("int32", 123_457)}},
        {"power": 7_589_100, "energy_counter": 44_444_520_000_000},  # 12 345.7 kWh
    ),
    "carlo-gavazzi-em24": (
        {"input": {**GAVAZZI, 0x32: words("int16", 1000, 1000, 1000), 0x42: low("int32", 123_457)}},
        {"power": 7_589_100, "energy_counter": 44_444_520_000_000},
    ),
    "abb-b": (
        {
            "holding": {
                0x5000: words("uint64", 1_234_567),
                0x5B00: words("uint32", 2300, 2310, 2290),
                0x5B0C: words("uint32", 1000, 1100, 1200),
                0x5B14: words("int32", 758_901, 230_000, 254_100, 274_800),
                0x5B3B: words("int16", 1000, 1000, 1000),
            }
        },
        {"power": 7_589_010, "energy_counter": 44_444_412_000_000},  # 12 345.67 kWh
    ),
    "siemens-pac": (
        {
            "holding": {
                1: words("float32", *VOLTS),
                13: words("float32", *AMPS),
                25: words("float32", *WATTS),
                37: words("float32", 1.0, 1.0, 1.0),
                65: words("float32", 7_589.0),
                801: words("float64", 31_234_567_890.125),
            }
        },
        {"power": 7_589_000, "energy_counter": 112_444_444_404_450_000},
    ),
    "socomec-countis-e4": (
        {
            "holding": {
                0xC558: words("uint32", 23_000, 23_100, 22_900),
                0xC560: words("uint32", 10_000, 11_000, 12_000),
                0xC568: words("int32", 759),
                0xC570: words("int32", 230, 254, 275),
                0xC582: words("int32", 1000, 1000, 1000),
                0xC652: words("uint32", 12_345),
            }
        },
        {"power": 7_590_000, "energy_counter": 44_442_000_000_000},
    ),
}


STEPS_MJ = {
    "janitza-umg": 28_125,  # 65 536.5 Wh in a float32: 2⁻⁷ Wh
    "janitza-b": 1,  # 2⁻²² Wh
    "schneider-pm5000": 3_600_000,
    "schneider-iem3000": 3_600_000,
    "eastron-sdm630": 439_453,  # 1234.5 kWh: 2⁻¹³ kWh
    "eastron-sdm120": 107,  # 0.25 kWh: 2⁻²⁵ kWh
    "carlo-gavazzi-em340": 360_000_000,
    "carlo-gavazzi-em24": 360_000_000,
    "abb-b": 36_000_000,
    "siemens-pac": 0,  # a double
    "socomec-countis-e4": 3_600_000_000,
}
"""The least step of each counter, at the readings above."""


@pytest.mark.parametrize("name", READINGS)
def test_each_profile_reads_its_meter(name, tmp_path):
    """Registers as the maker's manual places them; 230 × 10 + 231 × 11 + 229 × 12 = 7589 VA, which agrees."""
    tables, expected = READINGS[name]

    found, got, _asked = once(tmp_path, tables, name)

    assert got == expected
    assert {m.quantity: m.resolution_mj for m in found.meters} == {q: STEPS_MJ[name] * (q != "power") for q in expected}
    assert found.doubts == []


def test_no_profile_is_untested():
    """Each file that comes along is read above, or is one of SunSpec."""
    assert {n for n, p in profiles().items() if not p.models} == set(READINGS)


def model(number, size, nothing=(0x8000,), **points):
    """Return a SunSpec model: id, length, and points at their offsets from the id, all others not implemented."""
    body = [number, size, *(list(nothing) * size)[:size]]
    for at, registers in points.items():
        body[int(at[1:]) : int(at[1:]) + len(registers)] = registers
    return body


def integer_meter(*, power=2204, power_sf=2, energy=3_123_456_789, energy_sf=1):
    """Return a three-phase meter, model 203: 400.0 V, 200 A, pf 91.8 %."""
    return model(
        203, 105,
        _3=words("int16", 2000, 2000, 2000, -1), _8=words("int16", 4000, 4000, 4000), _15=words("int16", -1),
        _18=words("int16", power, 735, 735, 734, power_sf), _34=words("int16", 918, 918, 918, -1),
        _46=words("uint32", energy), _54=words("int16", energy_sf),
    )  # fmt: skip


def float_meter(energy=16_777_216.0):
    """Return a three-phase meter, model 213."""
    return model(
        213, 124, words("float32", math.nan), _28=words("float32", 220_400.5), _68=words("float32", energy),
    )  # fmt: skip


def sunspec(base, *models):
    chain = [word for one in [model(1, 66), *models] for word in one]
    return {"holding": {base: [0x5375, 0x6E53, *chain, 0xFFFF, 0]}}


@pytest.mark.parametrize("base", [0, 40_000, 50_000])
def test_a_sunspec_meter_is_found_wherever_its_chain_begins(base, tmp_path):
    """2204 × 10² W; 3 123 456 789 × 10 Wh × 3.6e6 mJ; the counter wraps at 2³² of its counts."""
    found, got, asked = once(tmp_path, sunspec(base, integer_meter()), "sunspec")

    assert got == {"power": 220_400_000, "energy_counter": 112_444_444_404_000_000}
    assert found.meters[0].wrap_mj == 2**32 * 10 * 3_600_000
    assert found.doubts == []
    assert asked == [(3, base + 2 + 68 + 18, 37)]  # power to the scale of energy, in one request


def test_a_sunspec_meter_with_floats(tmp_path):
    """220 400.5 W, 2²⁴ Wh; phases that are NaN are not compared."""
    found, got, _asked = once(tmp_path, sunspec(40_000, model(701, 20), float_meter()), "sunspec")

    assert got == {"power": 220_400_500, "energy_counter": 60_397_977_600_000}
    assert found.doubts == []


def test_a_second_sunspec_meter_is_told(tmp_path):
    """Only the first is read; the other may be a unit of its own."""
    found, got, _asked = once(tmp_path, sunspec(0, integer_meter(), float_meter()), "sunspec")

    assert got["power"] == 220_400_000
    assert "a further SunSpec meter at 177" in found.doubts[0]


def test_a_chain_without_an_end_mark_ends_where_the_registers_do(tmp_path):
    """Some devices leave the mark out; what comes after the last model is an illegal address."""
    chain = sunspec(40_000, integer_meter())
    chain["holding"][40_000] = chain["holding"][40_000][:-2]

    found, got, _asked = once(tmp_path, chain, "sunspec")

    assert got["power"] == 220_400_000
    assert found.doubts == []


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"power": -32_768}, {"energy_counter"}),
        ({"power_sf": -32_768}, {"energy_counter"}),
        ({"power_sf": 11}, {"energy_counter"}),
        ({"energy": 0}, {"power"}),
        ({"energy": 0xFFFF_FFFF}, {"power"}),
        ({"energy_sf": -32_768}, {"power"}),
    ],
)
def test_what_sunspec_calls_not_implemented_is_absent(change, left, tmp_path):
    """0x8000, a scale factor of 0x8000 or out of range, and an accumulator of 0 or of all ones are no reading."""
    found, got, _asked = once(tmp_path, sunspec(0, integer_meter(**change)), "sunspec")

    assert set(got) == {m.quantity for m in found.meters} == left


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"holding": {0: [1, 2, 3]}}, "has no SunSpec marker at 40000, 0 or 50000"),
        (sunspec(0, model(103, 50)), "has SunSpec models 1, 103, and no meter"),
    ],
)
def test_a_unit_without_a_sunspec_meter_says_so(tables, said, tmp_path):
    """No marker, or a chain that has an inverter and no meter."""
    with pytest.raises(SourceError, match=said):
        once(tmp_path, tables, "sunspec")


def test_the_sunspec_profiles_are_those_of_the_standard():
    """Each address, type and scale register equals what the model's definition gives."""
    if not MODELS.exists():
        pytest.skip(f"{MODELS} is not there")
    names = {"power": "W", "energy": "TotWhImp", "voltage": "PhVph", "current": "Aph", "power_factor": "PFph"}
    checked = 0
    for profile in (p for p in profiles().values() if p.models):
        for number in profile.models:
            points, at = {}, 0
            for point in json.loads((MODELS / f"model_{number}.json").read_text())["group"]["points"]:
                points[point["name"]] = (at, point)
                at += point["size"]
            for name, mine in profile.points.items():
                what, _, phase = name.partition("_l")
                theirs = ("Wph" if what == "power" and phase else names[what]) + ("", "A", "B", "C")[int(phase or 0)]
                at, point = points[theirs]
                scale = points[point["sf"]][0] if "sf" in point else None
                kind = point["type"].replace("acc32", "uint32")
                assert (mine.address, mine.type, mine.scale_address) == (at, kind, scale), f"{number} {theirs}"
                checked += 1

    assert checked == 8 * 14


@pytest.mark.parametrize(
    ("profile", "at", "nothing"),
    [
        ("eastron-sdm630", ("input", 52), words("float32", math.nan)),
        ("eastron-sdm630", ("input", 52), words("float32", math.inf)),
        ("eastron-sdm630", ("input", 52), words("float32", -math.inf)),
        ("eastron-sdm630", ("input", 52), words("float32", 3e38)),
        ("carlo-gavazzi-em340", ("input", 0x28), low("int32", 0x7FFF_FFFF)),
        ("carlo-gavazzi-em340", ("input", 0x28), low("uint32", 0x8000_0000)),
        ("abb-b", ("holding", 0x5B14), words("int32", 0x7FFF_FFFF)),
    ],
)
def test_no_value_is_no_sample(profile, at, nothing, tmp_path):
    """NaN, infinity, what no power can be, and the largest of a type; the energy beside it is read."""
    tables = json.loads(json.dumps(READINGS[profile][0]))
    table, address = at
    start, block = next(
        (int(a), b) for a, b in tables[table].items() if int(a) <= address < int(a) + len(b)
    )  # fmt: skip
    block[address - start : address - start + len(nothing)] = nothing

    found, got, _asked = once(tmp_path, tables, profile)

    assert set(got) == {m.quantity for m in found.meters} == {"energy_counter"}


def test_a_value_that_goes_and_comes_is_absent_in_between(tmp_path):
    """The meter keeps its id; a NaN and what is negative in between give no sample of it and no fault."""

    async def ask():
        (device,) = devices(config(port))
        got = []
        for power_w in (100.0, math.nan, -5.0, 200.0):
            with Server(tmp_path, {1: sdm630(power_w)}, port=port):
                got.append(values(await device.sample()).get("power"))
        await device.close()
        return got

    port = free_port()
    assert asyncio.run(ask()) == [100_000, None, None, 200_000]


def test_zero_watts_are_a_reading(tmp_path):
    """A panel with everything off draws nothing, and its counter may stand at 0."""
    _found, got, _asked = once(
        tmp_path, sdm630(0.0, 0.0, _12=0.0, _14=0.0, _16=0.0, _6=0.0, _8=0.0, _10=0.0), "eastron-sdm630"
    )

    assert got == {"power": 0, "energy_counter": 0}


def test_negative_power_is_not_read_and_told(tmp_path):
    """A current transformer the wrong way round."""
    found, got, _asked = once(tmp_path, sdm630(-7_589.0, _12=-2_300.0, _14=-2_541.0, _16=-2_748.0), "eastron-sdm630")

    assert set(got) == {"energy_counter"}
    assert ["the wrong way round" in said for said in found.doubts] == [True]


def test_few_requests_are_made(tmp_path):
    """A sample of an SDM630 is one request of 22 registers, discovery one of 74; of a PM5000 two, they stand apart."""
    _found, _got, asked = once(tmp_path, sdm630(), "eastron-sdm630")
    assert asked == [(4, 52, 22)]

    _found, _got, asked = once(tmp_path, SCHNEIDER, "schneider-pm5000")
    assert asked == [(3, 3059, 2), (3, 3203, 4)]


def test_a_meter_that_refuses_to_read_gaps_is_read_in_parts(tmp_path):
    """The joined request is refused once; from then on the values are asked one by one."""

    async def ask(port):
        (device,) = devices(config(port))
        await device.discover()
        before = len(server.requests())
        got = [values(await device.sample()) for _ in range(2)]
        await device.close()
        return got, [request[2:] for request in server.requests()[before:]]

    tables = {"input": {52: words("float32", 7_589.0), 72: words("float32", 1_234.5)}}
    with Server(tmp_path, {1: tables}) as server:
        got, asked = asyncio.run(ask(server.port))

    assert got == [{"power": 7_589_000, "energy_counter": 4_444_200_000_000}] * 2
    assert asked == [(52, 22), (52, 2), (72, 2), (52, 2), (72, 2)]


def test_the_wrong_profile_is_told(tmp_path):
    """None of its registers is there."""
    with pytest.raises(
        SourceError, match=r"has no .* registers? at .* \(exception 2\). Is its profile the right one\?"
    ):
        once(tmp_path, sdm630(), "janitza-umg")


def test_factor_multiplies_what_a_meter_does_not(tmp_path):
    """A CT of 250/5 that the meter does not know of: × 50, power and energy."""

    async def ask(port):
        table = {
            "unit": 1,
            "profile": "eastron-sdm630",
            "asset": "p1",
            "factor": 50,
            "kind": "rack",
            "parent": "hall-1",
        }
        (device,) = devices(Config(host="127.0.0.1", port=port, meter=[table]))
        found = await device.discover()
        got = values(await device.sample())
        await device.close()
        return found, got

    with Server(tmp_path, {1: sdm630()}) as server:
        found, got = asyncio.run(ask(server.port))

    assert got == {"power": 379_450_000, "energy_counter": 222_210_000_000_000}
    assert [(a.id, a.kind, a.parent) for a in found.assets] == [("p1", "rack", "hall-1")]


def test_rtu_frames_in_tcp(tmp_path):
    """What a plain serial server carries: the same registers with a CRC."""
    _found, got, _asked = once(tmp_path, sdm630(), "eastron-sdm630", framing="rtu")

    assert got == {"power": 7_589_000, "energy_counter": 4_444_200_000_000}


def test_units_behind_a_gateway_share_one_connection(tmp_path):
    """Sampled at once, they are asked one after the other; one connection, ended by who closes last."""

    async def ask(port):
        several = devices(config(port, 1, 2, 3))
        got = [values(samples)["power"] for samples in await asyncio.gather(*(d.sample() for d in several))]
        await several[0].close()
        still = server.connections()
        again = values(await several[1].sample())["power"]
        for device in several:
            await device.close()
            await device.close()
        return got, still, again

    with Server(tmp_path, {unit: sdm630(unit * 1_000.0) for unit in (1, 2, 3)}) as server:
        got, still, again = asyncio.run(ask(server.port))
        asked = [unit for unit, *_rest in server.requests()]

    assert (got, still, again) == ([1_000_000, 2_000_000, 3_000_000], 1, 2_000_000)
    assert server.connections() == 1
    assert asked == [1, 2, 3, 1, 2, 3, 2]  # discovery of each, a sample of each, and the last


def test_a_dead_unit_costs_only_itself(tmp_path):
    """Unit 2 does not answer, 3 is told dead by the gateway; 1 is read, before and after, without their late answers."""

    async def ask(port):
        several = devices(config(port, 2, 1, 3, timeout_s=0.3, discover_timeout_s=0.3))
        got = await asyncio.gather(*(d.sample() for d in several), return_exceptions=True)
        for device in several:
            await device.close()
        return [got[0], values(got[1]), got[2]], [d.name for d in several]

    with Server(tmp_path, {n: sdm630() for n in (1, 2, 3)}, faults={2: 0, 3: 11}) as server:
        (silent, well, dead), names = asyncio.run(ask(server.port))

    assert isinstance(silent, SourceError)
    assert str(silent).startswith(f"{names[0]} did not answer within 0.3 s")
    assert well == {"power": 7_589_000, "energy_counter": 4_444_200_000_000}
    assert isinstance(dead, SourceError)
    assert str(dead).startswith(f"{names[2]} does not answer its gateway (exception 11)")
    assert server.connections() == 2  # only the silent one costs the connection


def test_a_meter_that_is_busy_says_so(tmp_path):
    """Exception 6 is no wrong profile."""

    async def ask(port):
        (device,) = devices(config(port))
        try:
            await device.sample()
        finally:
            await device.close()

    with (
        Server(tmp_path, {1: sdm630()}, faults={1: 6}) as server,
        pytest.raises(SourceError, match=r"cannot tell .* now \(exception 6\)"),
    ):
        asyncio.run(ask(server.port))


def test_a_gateway_that_goes_away_is_one_error_and_comes_back(tmp_path, caplog):
    """A sample, then nobody there, then a sample again with the same ids; the library is not heard."""

    async def ask():
        (device,) = devices(config(port))
        with Server(tmp_path, {1: sdm630(100.0)}, port=port):
            first = await device.sample()
        with pytest.raises(SourceError, match=f"^{device.name} cannot be reached. Check host, port"):
            await device.sample()
        with Server(tmp_path, {1: sdm630(200.0)}, port=port):
            last = await device.sample()
        await device.close()
        return first, last

    port = free_port()
    first, last = asyncio.run(ask())

    assert [s.meter for s in first] == [s.meter for s in last]
    assert (values(first)["power"], values(last)["power"]) == (100_000, 200_000)
    assert [r for r in caplog.records if r.levelno > logging.WARNING] == []


def test_a_gateway_that_hangs_up_at_once_is_told():
    """It is tried twice, as a connection may have been idle for too long; many gateways take one client only."""
    tried = []

    async def refuse(_reader, writer):
        tried.append(1)
        writer.close()

    async def ask():
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        (device,) = devices(config(server.sockets[0].getsockname()[1]))
        try:
            await device.sample()
        finally:
            await device.close()
            server.close()

    with pytest.raises(SourceError, match=r"unit 1 breaks the connection off\. Check the network; some gateways"):
        asyncio.run(ask())
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"power": 75_890.0}, "its phases add up to 7589 W, 10 times less"),
        ({"power": 75_890.0}, "V × I × pf give 7589 W, 10 times less"),
        ({"power": 75.89}, "V × I × pf give 7589 W, 100 times more"),
        ({"power_l3": 0.0}, "its phases add up to 4841 W"),
        ({"voltage_l2": 2.5e-41}, "no mains has that"),
        ({"power_factor_l1": 0.1}, "V × I × pf give 5519 W. Check"),
    ],
)
def test_what_does_not_agree_is_told(change, said):
    """Readings that agree give no doubt; a scale, a ratio or a word order that is wrong gives one with its size."""
    agree = {
        "power": 7_589.0, "power_l1": 2_300.0, "power_l2": 2_541.0, "power_l3": 2_748.0,
        "voltage_l1": 230.0, "voltage_l2": 231.0, "voltage_l3": 229.0, "current_l1": 10.0, "current_l2": 11.0,
        "current_l3": 12.0, "power_factor_l1": 1.0, "power_factor_l2": 1.0, "power_factor_l3": 1.0,
    }  # fmt: skip

    assert doubts("m", agree) == []
    assert [said in one for one in doubts("m", agree | change)].count(True) == 1


def test_power_without_power_factors_is_held_against_apparent_power():
    """Above V × I, or below a tenth of it, is no power; in between it may be."""
    told = {"voltage_l1": 230.0, "current_l1": 10.0}

    assert [bool(doubts("m", told | {"power": p})) for p in (229.0, 231.0, 2_529.0, 2_531.0)] == [
        True,
        False,
        False,
        True,
    ]


def test_a_float_that_has_become_coarse_is_told(tmp_path):
    """2³¹ Wh in a float32 step by 256 Wh; 2²⁴ by 2."""
    found, _got, _asked = once(tmp_path, sunspec(0, float_meter(2.0**31)), "sunspec")

    assert ["step by 256 Wh" in said for said in found.doubts] == [True]


def test_profiles_of_ones_own(tmp_path):
    """A folder of TOML files; one with the name of ours replaces it."""
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nsource = "manual"\norder = "little"\n[points]\n'
        'power = { address = 7, type = "uint32", unit = "kW", scale = 0.001 }\n'
    )

    _found, got, asked = once(tmp_path, {"holding": {7: low("uint32", 123_456)}}, "mine", profiles=tmp_path)

    assert (got, asked) == ({"power": 123_456_000}, [(3, 7, 2)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 1 2", r"Cannot read the Modbus profile .*mine.toml"),
        ('name = "a"\nsource = "b"\n[points]\n', "points has neither power nor energy"),
        (
            'name = "a"\nsource = "b"\npoints.power = { address = 1, type = "int8", unit = "W" }',
            r"at points.power.type",
        ),
        (
            'name = "a"\nsource = "b"\npoints.power = { address = 1, type = "int16", unit = "kWh" }',
            "is 'kWh'; choose one of",
        ),
        ('name = "a"\nsource = "b"\npoints.powr = { address = 1, type = "int16", unit = "W" }', "no place for 'powr'"),
        (
            'name = "a"\nsource = "b"\nlongest = 1\npoints.power = { address = 1, type = "int32", unit = "W" }',
            "takes 2",
        ),
    ],
)
def test_a_wrong_profile_says_where(text, said, tmp_path):
    """File, place and what to write, in one line."""
    (tmp_path / "mine.toml").write_text(text)

    with pytest.raises(ConfigError, match=said) as caught:
        devices(config(1, profile="mine", profiles=tmp_path))
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_or_folder_is_told():
    """With those that are known."""
    with pytest.raises(ConfigError, match=r"No Modbus profile named 'sdm'\. Known: abb-b, .*sunspec"):
        devices(config(1, profile="sdm"))
    with pytest.raises(ConfigError, match="is no folder"):
        devices(config(1, profiles=Path("/nowhere")))
    with pytest.raises(ValidationError, match="meter"):
        Config(host="h", meter=[])


def test_profiles_name_their_source():
    """Each file says which manual it follows."""
    assert all(len(p.source) > 20 for p in profiles().values())
    assert len(profiles()) == len(list(BUILT_IN.glob("*.toml"))) == 13


@pytest.mark.parametrize(
    ("wanted", "together", "longest", "expected"),
    [
        ([(0, 2), (2, 2)], 0, 125, [(0, 4)]),
        ([(0, 2), (3, 2)], 0, 125, [(0, 2), (3, 2)]),
        ([(0, 2), (3, 2)], 1, 125, [(0, 5)]),
        ([(2, 2), (0, 2)], -1, 125, [(0, 2), (2, 2)]),
        ([(0, 4), (2, 1)], 0, 125, [(0, 4)]),
        ([(0, 2), (2, 2), (4, 2)], 0, 4, [(0, 4), (4, 2)]),
    ],
)
def test_spans(wanted, together, longest, expected):
    """Side by side, over a gap, kept apart, one inside another, and no longer than a unit takes."""
    assert spans(wanted, together, longest) == expected
