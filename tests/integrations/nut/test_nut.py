"""UPS, PDUs and transfer switches through a real upsd: recorded devices, drivers that die, what is only a guess."""

from __future__ import annotations

import asyncio
import time

import pytest
from pydantic import ValidationError

from tests.integrations.nut.server import DRIVERS, RECORDED, Upsd
from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.nut.link import Config
from wattkeeper.integrations.nut.meter import devices
from wattkeeper.integrations.nut.variables import estimate, output

pytestmark = pytest.mark.skipif(not (DRIVERS / "dummy-ups").exists(), reason="dummy-ups (nut-server) is not installed")

THREE = {f"output.L{n}.realpower": f"{n}000.5" for n in (1, 2, 3)}
WRITTEN = {
    "rack": {"device.type": "ups", "ups.status": "OL", "ups.realpower": "1234.5", "input.realpower": "1300", **THREE},
    "hall": {"device.type": "ups", "ups.status": "OL", "output.phases": "3", **THREE},
    "load": {"ups.status": "OL", "ups.load": "27.5", "ups.realpower.nominal": "2700", "ups.power.nominal": "3000"},
    "gain": {"ups.status": "OL", "ups.realpower": "13000", "input.realpower": "1300"},
    "starting": {"ups.status": "WAIT"},
    "battery": {"ups.status": "OB DISCHRG", "ups.realpower": "1200", "input.realpower": "0"},
}
RECORDINGS = {
    "ats": "APC__AP7724__snmp-ups__2.7.4.1__01.dev",
    "e9395": "Eaton__9395__snmp-ups__2.4.3__01.dev",
    "e93pm": "Eaton__93PM__snmp-ups__2.7.4__01.dev",
    "epdu": "Eaton__EPDU_MI_38U-A__snmp-ups__2.7.4__01.dev",
    "p9355": "Powerware__9355__bcmxcp__2.6.0__01.dev",
    "px2": "Raritan__PX2-1486__snmp-ups__2.7.4-12-gf1a0d64__01.dev",
    "gxt2": "Liebert__GXT2-1500RT120__snmp-ups__2.4.3__01.dev",
    "netys": "Socomec_Sicon__NETYS_RT_1-1__snmp-ups__2.6.4__01.dev",
}


@pytest.fixture(scope="module")
def upsd(tmp_path_factory):
    recorded = {name: RECORDED / file for name, file in RECORDINGS.items()} if RECORDED.exists() else {}
    with Upsd(tmp_path_factory.mktemp("nut"), {**WRITTEN, **recorded}) as running:
        yield running


def table(port, ups, **more):
    return Config(port=port, ups=[{"name": ups, **({"asset": "a"} | more)}], timeout_s=10)


def once(upsd, ups, **more):
    """Return discovery and asset → value of one sample."""

    async def ask():
        (device,) = devices(table(upsd.port, ups, **more))
        try:
            return await device.discover(), {s.meter.partition(":")[0]: s.value for s in await device.sample()}
        finally:
            await device.close()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("ups", "more", "expected"),
    [
        ("e9395", {"input_asset": "i"}, {"a": 117_298_000, "i": 126_799_000}),  # 34656+43783+38859, 42182+42366+42251
        ("e93pm", {"input_asset": "i"}, {"a": 0, "i": 902_000}),  # nothing behind it; its own losses 314+292+296
        ("epdu", {"outlets": {"group.2": "b", "1": "c"}}, {"a": 6_000, "b": 4_000}),  # outlet 1 has no metering
        ("px2", {}, {"a": 3_000}),
        ("ats", {"asset": "", "outlets": {"group.1": "t", "group.2": "b1", "group.3": "b2"}},
         {"t": 1_701_000, "b1": 884_000, "b2": 839_000}),
        ("p9355", {}, {}),  # 0.0 W although 0.2 to 0.3 A flow
        ("gxt2", {}, {}),
        ("netys", {"estimate": True}, {}),  # its load of 300 % is none
    ],
)  # fmt: skip
def test_recorded_devices(ups, more, expected, upsd):
    """Watts as the dumps have them; VA is never read as W, and what is not told is absent."""
    if not RECORDED.exists():
        pytest.skip(f"{RECORDED} is not there")

    assert once(upsd, ups, **more)[1] == expected


def test_power_below_the_resolution_is_told(upsd):
    """A 9355 that rounds 150 W to 0: no reading, and why."""
    if not RECORDED.exists():
        pytest.skip(f"{RECORDED} is not there")

    found, _got = once(upsd, "p9355")

    assert len(found.meters) == 1
    assert "is 0 W although output.L1.current is 0.2 A: the load is below its resolution" in found.doubts[0]


def test_a_total_is_preferred_to_phases(upsd):
    """ups.realpower where it is told, else the three phases: 1000.5 + 2000.5 + 3000.5."""
    found, got = once(upsd, "rack", parent="hall-1")
    assert got == {"a": 1_234_500}
    assert [m.id for m in found.meters] == [f"a:127.0.0.1/{upsd.port}/rack/ups.realpower:nut:power"]
    assert [(a.id, a.kind, a.parent) for a in found.assets] == [("a", "rack", "hall-1")]
    assert found.doubts == []

    found, got = once(upsd, "hall")
    assert got == {"a": 6_001_500}
    assert [m.id for m in found.meters] == [f"a:127.0.0.1/{upsd.port}/hall/output.*.realpower:nut:power"]


def test_what_it_feeds_stands_in_what_its_input_is_measured_for(upsd):
    """The rack in the hall that the UPS's input stands for, what an outlet feeds in the rack, the hall in the site."""
    found, _got = once(upsd, "rack", input_asset="i", parent="dc", outlets={"1": "n01", "2": "n01"})

    assert [(a.id, a.kind, a.parent) for a in found.assets] == [
        ("i", "hall", "dc"),
        ("a", "rack", "i"),
        ("n01", "node", "a"),
    ]


def test_load_is_a_guess_that_has_to_be_asked_for(upsd):
    """27.5 % of 2700 W are 742.5 W: told as a doubt, read only with estimate, as a source of its own and of low rank."""
    found, got = once(upsd, "load")
    assert (found.meters, got) == ([], {})
    assert (
        "With estimate = true it would be guessed from ups.load×ups.realpower.nominal: 742.5 W now" in found.doubts[0]
    )

    found, got = once(upsd, "load", estimate=True)
    assert got == {"a": 742_500}
    assert [(m.source, m.rank, m.accuracy_pct) for m in found.meters] == [("nut-estimate", 95, 25.0)]
    assert "is guessed from ups.load×ups.realpower.nominal" in found.doubts[0]


def test_a_device_that_gives_more_than_it_takes_is_doubted(upsd):
    """13 kW out of 1.3 kW is a scale; 1.2 kW out of a battery is not."""
    assert "gives 13000 W and takes 1300 W" in once(upsd, "gain")[0].doubts[0]
    assert once(upsd, "battery", input_asset="i")[1] == {"a": 1_200_000, "i": 0}
    assert once(upsd, "battery", input_asset="i")[0].doubts == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"ups.realpower": ""}, None),
        ({"ups.realpower": "n/a"}, None),
        ({"ups.realpower": "nan"}, None),
        ({"ups.power": "500"}, None),
        ({"ups.realpower": "-5"}, None),
        ({"output.phases": "3", "output.L1.realpower": "5", "output.L2.realpower": "5"}, None),
        ({"output.L1.realpower": "5"}, None),
        ({"output.phases": "1.00", "output.L1.realpower": "5"}, 5_000),
        ({"ups.realpower": "0", "ups.load": "0"}, 0),
        ({"ups.realpower": "0", "ups.load": "3"}, None),
        ({"input.realpower": "7", "device.type": "ups"}, None),
        ({"input.realpower": "7", "device.type": "pdu"}, 7_000),
    ],
)
def test_what_is_output_power(variables, expected):
    """Text, NaN, VA, a phase that is missing, a load that is rounded away, and a UPS's input are none."""
    found = output(variables)

    assert (found.power_mw if found else None) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ups.power": "500", "output.powerfactor": "0.9"}, 450_000),
        ({"ups.power": "500", "output.powerfactor": "0.9", "output.phases": "3"}, None),
        ({"ups.power": "500"}, None),
        ({"ups.load": "50", "ups.power.nominal": "3000"}, None),
        ({"ups.load": "0", "ups.realpower.nominal": "3000"}, 0),
        ({"ups.load": "131", "ups.realpower.nominal": "3000"}, None),
        ({"ups.load": "-1", "ups.realpower.nominal": "3000"}, None),
    ],
)
def test_what_can_be_estimated(variables, expected):
    """VA and a measured power factor, or load and nominal watts; never VA alone, nor one phase of three."""
    found = estimate(variables)

    assert (found.power_mw if found else None) == expected


def wait_until(probe, seconds=30.0):
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_driver_that_dies_is_one_error_and_comes_back(tmp_path):
    """upsd lives, the driver does not; then it does, with another value and the same id."""

    async def ask(running):
        (device,) = devices(table(running.port, "one"))
        first = await device.sample()
        running.drivers["one"].stop()
        wait_until(lambda: not running.serves("one"))
        with pytest.raises(
            SourceError, match=f"^{device.name} is not read: (DATA-STALE|DRIVER-NOT-CONNECTED). Its driver"
        ):
            await device.sample()
        running.put("one", {"ups.status": "OL", "ups.realpower": "200"})
        running.drivers["one"] = running.driver("one")
        wait_until(lambda: running.serves("one"))
        last = await device.sample()
        await device.close()
        return first, last

    with Upsd(tmp_path, {"one": {"ups.status": "OL", "ups.realpower": "100"}}) as running:
        first, last = asyncio.run(ask(running))

    assert [s.meter for s in first] == [s.meter for s in last]
    assert [s.value for s in (*first, *last)] == [100_000, 200_000]


def test_an_upsd_that_goes_away_is_one_error_and_comes_back(tmp_path):
    """The connection is broken, then refused, then made anew."""

    async def ask():
        with Upsd(tmp_path, {"one": {"ups.status": "OL", "ups.realpower": "100"}}) as running:
            (device,) = devices(table(running.port, "one"))
            first = await device.sample()
        with pytest.raises(SourceError, match=f"^{device.name} cannot be reached: .*that upsd runs"):
            await device.sample()
        with Upsd(tmp_path, {"one": {"ups.status": "OL", "ups.realpower": "200"}}, port=running.port):
            last = await device.sample()
            await device.close()
            again = await device.sample()
            await device.close()
            await device.close()
        return [s.value for s in (*first, *last, *again)]

    assert asyncio.run(ask()) == [100_000, 200_000, 200_000]


def test_a_driver_that_is_starting_is_told(upsd):
    """NUT says WAIT until the driver has asked the device."""
    with pytest.raises(SourceError, match="its driver is still starting"):
        once(upsd, "starting")


def test_an_unknown_ups_is_told(upsd):
    """With the command that lists them."""
    with pytest.raises(SourceError, match=r"nut nobody@127.0.0.1:\d+ is not read: UNKNOWN-UPS. .*upsc -l"):
        once(upsd, "nobody")


def test_a_silent_host_is_given_up():
    """A port that accepts and says nothing, and a sample that is late."""

    async def ask():
        async def silent(_reader, writer):
            writers.append(writer)

        writers = []

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        (device,) = devices(
            Config(port=server.sockets[0].getsockname()[1], timeout_s=0.2, ups=[{"name": "u", "asset": "a"}])
        )
        try:
            await device.sample()
        finally:
            await device.close()
            server.close()
            for writer in writers:
                writer.close()
                await writer.wait_closed()

    with pytest.raises(SourceError, match=r"nut u@127.0.0.1:\d+ did not answer within 0.2 s"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("ups", "said"),
    [
        ([], "at least 1"),
        ([{"name": "u"}], "what does this UPS feed"),
        ([{"name": "u", "input_asset": "i", "estimate": True}], "estimate is about asset, which is missing"),
    ],
)
def test_a_table_that_measures_nothing_is_wrong(ups, said):
    """What the site file's check shows."""
    with pytest.raises(ValidationError, match=said):
        Config(ups=ups)
