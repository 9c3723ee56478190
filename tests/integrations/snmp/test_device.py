"""What real agents cannot be made to do on purpose, with fake ones: too big answers, lost packets, circles, restarts."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from socket import AF_INET, SOCK_DGRAM, socket

import pytest
from pydantic import ValidationError

from tests.daemons import free_port
from tests.integrations.snmp.fake_agent import FakeAgent
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.integrations.snmp.link import Config, Link
from wattkeeper.integrations.snmp.meter import SnmpDevice, devices

OBJECT_ID, UP_TIME = "1.3.6.1.2.1.1.2.0", "1.3.6.1.2.1.1.3.0"
EPDU = "1.3.6.1.4.1.534.6.6.7"
GEIST = "1.3.6.1.4.1.21239.5.2.3"


@contextmanager
def served(agent):
    """Serve a fake agent at a free port, in a thread."""
    wire = socket(AF_INET, SOCK_DGRAM)
    wire.bind(("127.0.0.1", 0))
    over = threading.Event()

    def work():
        while not over.is_set():
            request, sender = wire.recvfrom(65_535)
            if request and (response := agent.answer(request)) is not None:
                wire.sendto(response, sender)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield wire.getsockname()[1]
    finally:
        over.set()
        with socket(AF_INET, SOCK_DGRAM) as last:
            last.sendto(b"", wire.getsockname())
        thread.join()
        wire.close()


def device_of(port, **more):
    return SnmpDevice(Config(host="127.0.0.1", port=port, asset="rack", **{"timeout_s": 3, **more}), "rack")


def epdu(outlets):
    """An Eaton ePDU with outlets of n × 10 W and n kWh."""
    told = {OBJECT_ID: f"oid:{EPDU}", f"{EPDU}.3.5.1.4.0.1": sum(n * 10 for n in range(1, outlets + 1))}
    told[f"{EPDU}.3.5.1.5.0.1"] = 5_000_000
    for n in range(1, outlets + 1):
        told |= {f"{EPDU}.6.5.1.3.0.{n}": n * 10, f"{EPDU}.6.5.1.4.0.{n}": n * 1000}
    return told


def sampled(device):
    return {one.meter.partition("/")[2]: one.value for one in asyncio.run(device.sample())}


@pytest.mark.parametrize("version", ["1", "2c"])
@pytest.mark.parametrize("most", [1, 5, 999])
def test_an_answer_that_is_too_big_is_asked_for_in_parts(most, version):
    """20 outlets and the whole, whatever number of values the agent takes at once; afterwards it is asked for no more."""
    agent = FakeAgent(epdu(20), most=most)
    feeds = {str(n): f"n{n:02d}" for n in range(1, 21)}
    with served(agent) as port:
        device = device_of(port, outlets=feeds, version=version, timeout_s=10)
        got = sampled(device)
        before = agent.counts["requests"]
        again = sampled(device)
        requests = agent.counts["requests"] - before

    expected = {"inlet-1:snmp:power": 2_100_000, "inlet-1:snmp:energy_counter": 18_000_000_000_000}
    expected |= {f"outlet-{n}:snmp-outlet:power": n * 10_000 for n in range(1, 21)}
    expected |= {f"outlet-{n}:snmp-outlet:energy_counter": n * 3_600_000_000 for n in range(1, 21)}
    assert got == again == expected
    assert requests <= {1: 43, 5: 16, 999: 2}[most]


def test_a_value_that_is_missing_leaves_the_others():
    """In version 1 one missing object spoils the whole answer; it is found by halves."""
    agent = FakeAgent(epdu(6))
    with served(agent) as port:
        device = device_of(port, outlets={str(n): f"n{n}" for n in range(1, 7)}, version="1", timeout_s=10)
        before = sampled(device)
        del agent.objects[tuple(map(int, f"{EPDU}.6.5.1.3.0.4".split(".")))]
        after = sampled(device)

    assert before.keys() - after.keys() == {"outlet-4:snmp-outlet:power"}
    assert len(after) == 13


def test_a_lost_packet_is_sent_again():
    """One in three is lost, and nothing is missing."""
    agent = FakeAgent(epdu(3), lose=3)
    with served(agent) as port:
        device = device_of(port, timeout_s=0.6, discover_timeout_s=20)
        asyncio.run(device.discover())
        got = [sampled(device) for _ in range(4)]

    assert got == [{"inlet-1:snmp:power": 60_000, "inlet-1:snmp:energy_counter": 18_000_000_000_000}] * 4


def test_a_silent_device_is_asked_once_until_it_answers():
    """Tries are for lost packets, not for what is switched off: thousands must not wait for it."""
    agent = FakeAgent(epdu(1))
    with served(agent) as port:
        device = device_of(port, timeout_s=0.3)
        sampled(device)
        agent.lose = 1
        for _ in range(2):
            with pytest.raises(SourceError, match=f"snmp 127.0.0.1:{port} does not answer"):
                sampled(device)
        asked = agent.asked
        with pytest.raises(SourceError):
            sampled(device)
        assert agent.asked == asked + 1
        agent.lose = 0

        assert len(sampled(device)) == 2


def test_a_device_that_started_again_is_discovered_again():
    """New firmware may count in other units: here decimals go from 0 to 1."""
    told = {
        OBJECT_ID: "oid:1.3.6.1.4.1.13742.6",
        "1.3.6.1.4.1.13742.6.5.2.3.1.4.1.1.5": 1665,
        "1.3.6.1.4.1.13742.6.3.3.4.1.7.1.1.5": 0,
    }
    agent = FakeAgent(told)
    with served(agent) as port:
        device = device_of(port)
        assert sampled(device) == {"inlet-I1:snmp:power": 1_665_000}
        agent.up_s -= 100
        sampled(device)
        agent.show("1.3.6.1.4.1.13742.6.5.2.3.1.4.1.1.5", 16_650)
        agent.show("1.3.6.1.4.1.13742.6.3.3.4.1.7.1.1.5", 1)
        agent.up_s += 100

        assert sampled(device) == {"inlet-I1:snmp:power": 1_665_000}


def test_a_sensor_that_is_not_available_is_none():
    """Its number stays in the table, and is not read; a sensor with unreadable decimals is not guessed."""
    sensor = "1.3.6.1.4.1.13742.6.5.2.3.1.{}.1.1.{}"
    told = {OBJECT_ID: "oid:1.3.6.1.4.1.13742.6"}
    for kind, raw in ((5, 1665), (8, 74_057_676)):
        told |= {sensor.format(4, kind): raw, sensor.format(2, kind): 1}
        told[f"1.3.6.1.4.1.13742.6.3.3.4.1.7.1.1.{kind}"] = 0
    agent = FakeAgent(told)
    with served(agent) as port:
        device = device_of(port)
        assert sampled(device).keys() == {"inlet-I1:snmp:power", "inlet-I1:snmp:energy_counter"}
        agent.show(sensor.format(2, 5), 2)
        assert sampled(device).keys() == {"inlet-I1:snmp:energy_counter"}
        agent.show("1.3.6.1.4.1.13742.6.3.3.4.1.7.1.1.8", -1)
        (only,) = [one for one in asyncio.run(device.readings())[1] if one.quantity != "power"] or [None]

    assert only is None


def test_phases_are_the_whole_where_there_is_no_total():
    """Some models have no total: 198 + 436 + 382 W and three counters."""
    told = {OBJECT_ID: "oid:1.3.6.1.4.1.21239.42.1.52"}
    for n, (power_w, energy_wh) in enumerate(((198, 2_353_700), (436, 2_262_146), (382, 3_868_060)), 1):
        told |= {f"{GEIST}.2.1.12.{n}": power_w, f"{GEIST}.2.1.15.{n}": energy_wh}
    with served(FakeAgent(told)) as port:
        device = device_of(port)
        found = asyncio.run(device.discover())
        got = sampled(device)

    assert sum(value for meter, value in got.items() if meter.endswith("snmp-phase:power")) == 1_016_000
    assert sum(v for m, v in got.items() if m.endswith("snmp-phase:energy_counter")) == 8_483_906 * 3_600_000
    assert {(m.source, m.rank) for m in found.meters} == {("snmp-phase", 40)}


def test_energy_goes_before_power_of_a_better_level():
    """The total has watts only, the phases have counters: these are rank 40, the watts 41."""
    told = {OBJECT_ID: "oid:1.3.6.1.4.1.21239.42.1.52", f"{GEIST}.1.1.9.1": 400}
    told |= {f"{GEIST}.2.1.15.{n}": 1_000_000 for n in (1, 2, 3)}
    with served(FakeAgent(told)) as port:
        found = asyncio.run(device_of(port).discover())

    assert sorted((m.rank, m.source, m.quantity) for m in found.meters) == [
        *[(40, "snmp-phase", "energy_counter")] * 3,
        (41, "snmp", "power"),
    ]


def test_a_counter_that_stands_still_is_not_used():
    """0 kWh while 900 W flow: a PDU without an energy meter; its watts count, and it is said."""
    told = {OBJECT_ID: "oid:1.3.6.1.4.1.232.165.11", "1.3.6.1.4.1.232.165.11.2.1.1.5.1": 900}
    told["1.3.6.1.4.1.232.165.11.2.1.1.6.1"] = 0
    with served(FakeAgent(told)) as port:
        found = asyncio.run(device_of(port).discover())

    assert [m.quantity for m in found.meters] == ["power"]
    assert any("an energy counter of its inlet stands at 0 although power flows" in said for said in found.doubts)


def test_0_watts_beside_amperes_is_no_reading():
    """A UPS card that fills in what it does not measure: 230 V × 4.8 A and 0 W."""
    told = {OBJECT_ID: "oid:1.3.6.1.4.1.705.1"}
    told |= {f"1.3.6.1.2.1.33.1.4.4.1.{column}.1": raw for column, raw in ((2, 230), (3, 48), (4, 0), (5, 12))}
    with served(FakeAgent(told)) as port:
        found = asyncio.run(device_of(port).discover())

    assert found.meters == []
    assert any("output L1 says 0 W although 1104 VA flow" in said for said in found.doubts)


def test_a_name_with_a_dead_address_goes_to_the_next(monkeypatch):
    """Nobody listens at the first one."""

    async def both(_loop, _host, port, **_more):
        return [(2, 2, 17, "", ("127.0.0.9", port)), (2, 2, 17, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", both)
    with served(FakeAgent(epdu(1))) as port:
        assert len(sampled(SnmpDevice(Config(host="pdu.mgmt", port=port, asset="rack", timeout_s=3), "rack"))) == 2


def test_a_cord_without_a_counter_leaves_energy_to_no_one():
    """Of two cords one has a counter: their sum would be half the truth, so watts are used for both."""
    sentry = "1.3.6.1.4.1.1718.4.1.3.3.1"
    told = {OBJECT_ID: "oid:1.3.6.1.4.1.1718.4", f"{sentry}.3.1.1": 100, f"{sentry}.3.2.1": 200}
    told |= {f"{sentry}.10.1.1": 5000, f"{sentry}.10.2.1": -1}
    with served(FakeAgent(told)) as port:
        got = sampled(device_of(port))

    told[f"{sentry}.10.2.1"] = 0  # it has one, and it stands still
    with served(FakeAgent(told)) as port:
        stands = sampled(device_of(port))

    assert got == stands == {"cord-1-1:snmp:power": 100_000, "cord-2-1:snmp:power": 200_000}


def test_units_of_a_chain_have_names_of_their_own():
    """Outlet 1 of the first unit is "1", of the second "1/1"."""
    told = {OBJECT_ID: f"oid:{EPDU}"}
    for unit in (0, 1):
        told |= {f"{EPDU}.3.5.1.4.{unit}.1": 100 + unit, f"{EPDU}.6.5.1.3.{unit}.1": 50 + unit}
    with served(FakeAgent(told)) as port:
        got = sampled(device_of(port, outlets={"1": "n01", "1/1": "n02"}))

    assert got == {
        "inlet-1:snmp:power": 100_000,
        "inlet-1/1:snmp:power": 101_000,
        "outlet-1:snmp-outlet:power": 50_000,
        "outlet-1/1:snmp-outlet:power": 51_000,
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {f"{GEIST}.2.1.12.2": 4360},
            "phase 2 tells 4360 W, and its volts × amperes × power factor give 433 W, 1 to 10",
        ),
        ({f"{GEIST}.1.1.9.1": 10_160}, "3 phases together tell 1016 W, and the whole device 10160 W, 1 to 10"),
        ({f"{GEIST}.1.1.12.1": 84_839}, "3 phases together tell 8483906 Wh, and the whole device 84839 Wh, 1 to 100"),
        ({f"{GEIST}.6.1.12.1": 2000}, "2 outlets together tell 2516 W, and the whole device 1016 W"),
    ],
)
def test_readings_that_cannot_both_be_true_are_doubted(change, said):
    """A divisor wrong by ten or a hundred is named with its factor."""
    told = {OBJECT_ID: "oid:1.3.6.1.4.1.21239.42.1.52", f"{GEIST}.1.1.9.1": 1016, f"{GEIST}.1.1.12.1": 8_483_906}
    rows = ((198, 2_353_700, 2350, 95, 88), (436, 2_262_146, 2341, 187, 99), (382, 3_868_060, 2365, 170, 94))
    for n, row in enumerate(rows, 1):
        told |= {f"{GEIST}.2.1.{column}.{n}": raw for column, raw in zip((12, 15, 4, 8, 14), row, strict=True)}
    told |= {f"{GEIST}.6.1.12.1": 500, f"{GEIST}.6.1.12.2": 516}

    def doubts(shown):
        with served(FakeAgent(shown)) as port:
            return [d for d in asyncio.run(device_of(port).discover()).doubts if "scale" in d]

    assert doubts(told) == []
    assert len(found := doubts(told | change)) >= 1
    assert any(f"{said}" in one for one in found)


def test_a_device_that_counts_in_circles_ends():
    """Its rows repeat for ever; discovery ends all the same, with what was read."""

    class FakeCircle(FakeAgent):
        def _next(self, oid):
            found, value = super()._next(oid)
            start = tuple(map(int, f"{EPDU}.6.5.1.3.0".split(".")))
            return (
                (found, value) if found[: len(start)] == start or oid[: len(start)] != start else super()._next(start)
            )

    with served(FakeCircle(epdu(3))) as port:
        device = device_of(port, discover_timeout_s=20)
        assert len(sampled(device)) == 2


def test_a_device_without_bulk_requests_is_walked_step_by_step():
    """Some answer GETBULK with an error and nothing else."""

    class FakeNoBulk(FakeAgent):
        def _bulk(self, asked, single, repeat):
            return []

    with served(FakeNoBulk(epdu(3))) as port:
        got = sampled(device_of(port, outlets={"3": "n03"}, discover_timeout_s=20))

    assert got["outlet-3:snmp-outlet:power"] == 30_000
    assert len(got) == 4


def test_nothing_there_is_said_within_the_time():
    """A port where nobody listens, a name that nobody has."""
    with pytest.raises(SourceError, match=r"does not answer\. Check address, network and community"):
        asyncio.run(device_of(free_port()).discover())
    with pytest.raises(SourceError, match=r"snmp nowhere\.invalid: no such host"):
        asyncio.run(SnmpDevice(Config(host="nowhere.invalid", asset="r"), "r").sample())


def test_garbage_is_a_fault():
    """What is no SNMP is said, not raised as something else."""

    class FakeNoise(FakeAgent):
        def answer(self, request):
            return b"\xff\xff not SNMP"

    with served(FakeNoise({})) as port, pytest.raises(SourceError, match=f"snmp 127.0.0.1:{port} "):
        asyncio.run(device_of(port, timeout_s=0.5).discover())


def test_one_table_names_many_devices():
    """{asset} stands for each."""
    made = devices(Config(host="pdu-{asset}.mgmt", assets="rack-[01-03]"))

    assert [d.name for d in made] == [f"snmp pdu-rack-0{n}.mgmt" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"host": "p"}, "give either asset, or assets"),
        ({"host": "p", "assets": "r[1-2]"}, "host has no {asset}"),
        ({"host": "{asset}", "assets": "r[1-2]", "inlets": {"1": "r"}}, "what inlets and outlets feed needs {asset}"),
        ({"host": "p", "asset": "r", "version": "3"}, "user is missing"),
        ({"host": "p", "asset": "r", "user": "u"}, "user is for version 3"),
        ({"host": "p", "asset": "r", "version": "3", "user": "u", "priv": "AES"}, "priv needs auth"),
        (
            {"host": "p", "asset": "r", "version": "3", "user": "u", "auth": "SHA"},
            "auth_password or auth_password_file",
        ),
        ({"host": "p", "asset": "r", "community": "x", "community_file": "f"}, "give community or community_file"),
    ],
)
def test_a_table_that_cannot_work_is_refused(table, said):
    """The site file's error names the cure."""
    with pytest.raises(ValidationError, match=said):
        Config.model_validate(table)


def test_outlets_of_many_devices_have_the_asset_in_their_name():
    """Each rack's outlet 1 feeds a node of its own."""
    with served(FakeAgent(epdu(1))) as port:
        table = {"host": "127.0.0.1", "port": port, "asset": "r7", "outlets": {"1": "{asset}-n01"}}
        got = asyncio.run(SnmpDevice(Config(**table), "r7").sample())

    assert {one.meter.partition(":")[0] for one in got} == {"r7", "r7-n01"}


def test_a_profile_that_is_not_known_is_named():
    """With those that are."""
    with pytest.raises(ConfigError, match=r"No SNMP profile named 'apc'. Known: apc-rpdu, apc-rpdu2"):
        devices(Config(host="p", asset="r", profile="apc"))


def test_secrets_are_not_in_what_is_printed():
    """Neither in the table's text nor in the device's name."""
    config = Config(host="p", asset="r", version="3", user="u", auth="SHA", auth_password="geheim123")

    assert "geheim" not in repr(config) + str(config) + devices(config)[0].name
    assert Link("p", config).name == "snmp p"
