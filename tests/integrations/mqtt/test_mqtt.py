"""What is published to a real mosquitto: presets, kept and stale messages, a broker that goes away, accounts, TLS."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from tests.daemons import free_port
from tests.integrations.mqtt.broker import Broker
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.mqtt.link import Config, presets
from wattkeeper.integrations.mqtt.meter import MqttDevice, devices
from wattkeeper.integrations.mqtt.payload import NOTHING, parse, pointed, scaled, time_ms

pytestmark = pytest.mark.skipif(not shutil.which("mosquitto"), reason="mosquitto is not installed")

NOW_MS = 1_795_000_000_000
NOW_S = NOW_MS / 1000


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("mqtt")) as running:
        yield running


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now_s = NOW_S

    def __call__(self):
        return self.now_s


def table(broker, *topics, **more):
    return Config(host="127.0.0.1", port=broker.port, topic=list(topics), **{"listen_s": 5, **more})


def values(samples):
    """Return (asset, quantity) → (value, time) of samples."""
    return {(s.meter.partition(":")[0], s.meter.rpartition(":")[2]): (s.value, s.time_ms) for s in samples}


def told(broker, messages, *topics, **more):
    """Return discovery and sample of a device that was listening when these messages came, topic → payload."""

    async def ask():
        device = MqttDevice(table(broker, *topics, **more), clock=Clock())
        before = broker.daemon.log.read_text(errors="replace").count("Sending SUBACK")
        found = asyncio.create_task(device.discover())
        await broker.subscribed(before + 1)
        for topic, payload in messages.items():
            await broker.publish(topic, payload)
        try:
            return await found, values(await device.sample())
        finally:
            await device.close()

    return asyncio.run(ask())


def power(topic="power/{asset}", value="/w", **more):
    """Return a table of one reading in watts."""
    return {"topic": topic, "reading": [{"value": value, **more}]}


PUBLISHED = {
    "tasmota": (
        "plug7",
        {"tele/plug7/SENSOR": '{"Time":"2026-11-20T18:59:50","ENERGY":{"Total":1.956,"Power":9,"Voltage":231}}'},
        (7_041_600_000, 9_000),
    ),
    "shelly-switch": (
        "hall/plug7",
        {"hall/plug7/status/switch:1": '{"id":1,"apower":8.9,"aenergy":{"total":6.532,"by_minute":[45.199,47.141]}}'},
        (23_515_200, 8_900),
    ),
    "shelly-pm1": (
        "plug7",
        {
            "plug7/status/pm1:1": '{"id":1,"voltage":230.1,"apower":0.0,"aenergy":{"total":0.001,"minute_ts":1795000000}}'
        },
        (3_600, 0),
    ),
    "shelly-em": (
        "meter",
        {
            "meter/status/em:1": '{"id":1,"a_act_power":2300.5,"total_current":33.1,"total_act_power":7589.123}',
            "meter/status/emdata:1": '{"id":1,"a_total_act_energy":11.0,"total_act":31234567.89,"total_act_ret":0.0}',
        },
        (112_444_444_404_000, 7_589_123),
    ),
    "shelly-em1": (
        "meter",
        {
            "meter/status/em1:1": '{"id":1,"act_power":1146.7,"pf":0.98}',
            "meter/status/em1data:1": '{"id":1,"total_act_energy":2.5,"total_act_ret_energy":0.1}',
        },
        (9_000_000, 1_146_700),
    ),
    "zigbee2mqtt": (
        "zigbee2mqtt/plug7",
        {"zigbee2mqtt/plug7": '{"state":"ON","linkquality":68,"power":12,"energy":1.23,"voltage":231}'},
        (4_428_000_000, 12_000),
    ),
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_each_preset_reads_what_its_devices_publish(preset, broker):
    """kWh × 3.6e9, Wh × 3.6e6, to the millijoule; the time is ours where none is told."""
    topic, messages, (energy_mj, power_mw) = PUBLISHED[preset]

    found, got = told(broker, messages, {"topic": topic, "preset": preset, "asset": "n01", "channel": 1})

    assert got == {("n01", "energy_counter"): (energy_mj, NOW_MS), ("n01", "power"): (power_mw, NOW_MS)}
    assert len(found.meters) == 2
    assert found.doubts == []
    assert [m.resolution_mj for m in found.meters if m.quantity == "power"] == [0]


def test_no_preset_is_untested():
    """Each file that comes along is read above."""
    assert set(presets()) == set(PUBLISHED)


def test_ids_hold_host_topic_and_place(broker):
    """And are the same each time."""
    found = [
        told(broker, {"power/n01": {"w": 1}}, power(quantity="power", unit="kW") | {"nodes": "n01"}, listen_s=0.5)[0]
        for _ in range(2)
    ]

    assert found[0].meters == found[1].meters
    assert [m.id for m in found[0].meters] == [f"n01:127.0.0.1/{broker.port}/power/n01/w:mqtt:power"]
    assert [(m.rank, m.max_gap_ms) for m in found[0].meters] == [(60, 900_000)]


def test_nodes_are_declared_before_they_publish(broker):
    """n01 to n03, of which one is silent and told so; a fourth that publishes is not ours."""
    messages = {"power/n01": {"w": 100}, "power/n03": {"w": "300.5"}, "power/n04": {"w": 400}}

    found, got = told(broker, messages, power() | {"nodes": "n[01-03]", "parent": "rack-a1"}, listen_s=0.7)

    assert got == {("n01", "power"): (100_000, NOW_MS), ("n03", "power"): (300_500, NOW_MS)}
    assert [m.asset for m in found.meters] == ["n01", "n02", "n03"]
    assert [(a.id, a.kind, a.parent) for a in found.assets] == [(f"n0{n}", "node", "rack-a1") for n in (1, 2, 3)]
    assert len(found.doubts) == 1
    assert "nothing came on power/n02 within 0.7 s" in found.doubts[0]


def test_names_in_topics_can_stand_for_assets(broker):
    """A plug's name → what it feeds; in a part of a level too."""
    messages = {"plug-a/w": "1.5", "plug-b/w": "2.5", "plug-c/w": "3.5"}

    _found, got = told(broker, messages, power("plug-{asset}/w", "") | {"assets": {"a": "n01", "b": "n02"}})

    assert got == {("n01", "power"): (1_500, NOW_MS), ("n02", "power"): (2_500, NOW_MS)}


def test_who_publishes_is_found_by_listening(broker):
    """{asset} without names is a wildcard; who comes after discovery is declared by the next."""

    async def ask():
        device = MqttDevice(table(broker, power("rack/{asset}/power/{asset}"), listen_s=0.6), clock=Clock())
        before = broker.daemon.log.read_text(errors="replace").count("Sending SUBACK")
        first = asyncio.create_task(device.discover())
        await broker.subscribed(before + 1)
        await broker.publish("rack/n01/power/n01", {"w": 100})
        await broker.publish("rack/n02/power/n05", {"w": 200})  # {asset} is the same name in both places
        found = [m.asset for m in (await first).meters]
        await broker.publish("rack/n02/power/n02", {"w": 200})
        got = values(await device.sample())
        again = [m.asset for m in (await device.discover()).meters]
        last = values(await device.sample())
        await device.close()
        return found, got, again, last

    found, got, again, last = asyncio.run(ask())

    assert (found, again) == (["n01"], ["n01", "n02"])
    assert set(got) == {("n01", "power")}
    assert last == {("n01", "power"): (100_000, NOW_MS), ("n02", "power"): (200_000, NOW_MS)}


def test_nobody_publishes(broker):
    """A doubt with what to do, and no fault before max_age_s has passed."""
    found, got = told(broker, {}, power("nobody/{asset}"), listen_s=0.3)

    assert (found.meters, got) == ([], {})
    assert "nobody published on nobody/{asset}. Raise listen_s, or name `nodes`" in found.doubts[0]


def kept(broker, payload, **more):
    """Return discovery and sample where the broker has kept this payload from before."""

    async def ask():
        await broker.publish("kept/n01", payload, retain=True)
        device = MqttDevice(table(broker, power("kept/n01", **more) | {"asset": "n01"}, listen_s=0.4), clock=Clock())
        found = await device.discover()
        got = values(await device.sample())
        await broker.publish("kept/n01", {"w": 7})
        async with asyncio.timeout(10):
            while not (live := values(await device.sample())):
                await asyncio.sleep(0.02)
        await device.close()
        await broker.publish("kept/n01", "", retain=True)
        return found, got, live

    return asyncio.run(ask())


def test_a_kept_message_without_time_is_of_any_age(broker):
    """It is no reading and told so; the next live one is."""
    found, got, live = kept(broker, {"w": 5})

    assert got == {}
    assert "kept/n01 was kept by the broker and tells no time" in found.doubts[0]
    assert live == {("n01", "power"): (7_000, NOW_MS)}


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [(60, {("n01", "power"): (5_000, NOW_MS - 60_000)}), (901, {}), (-901, {})],
)
def test_a_kept_message_with_time_is_as_old_as_it_says(age_s, expected, broker):
    """A minute old is read with that time, 15 minutes and a second is not, nor what comes from the future."""
    assert kept(broker, {"w": 5, "t": iso(NOW_MS - age_s * 1000)}, time="/t")[1] == expected


def test_an_old_kept_message_does_not_replace_a_newer_value(broker):
    """After the connection was made anew the broker tells what it kept a minute ago; ten seconds ago there was more."""

    async def ask():
        device = MqttDevice(table(broker, power("o/n01", time="/t") | {"asset": "n01"}), clock=Clock())
        await broker.publish("o/n01", {"w": 5, "t": NOW_S - 60}, retain=True)
        await device.discover()
        got = [values(await device.sample())]
        await broker.publish("o/n01", {"w": 9, "t": NOW_S - 10})
        async with asyncio.timeout(10):
            while (now := values(await device.sample())) == got[0]:
                await asyncio.sleep(0.02)
        await device.close()
        await device.sample()
        got += [now, values(await device.sample())]  # the broker has answered since, and kept messages came before
        await device.close()
        await broker.publish("o/n01", "", retain=True)
        return [one["n01", "power"] for one in got]

    assert asyncio.run(ask()) == [(5_000, NOW_MS - 60_000), (9_000, NOW_MS - 10_000), (9_000, NOW_MS - 10_000)]


def test_a_clock_that_is_off_is_told(broker):
    """Ten minutes behind: read, as it is younger than max_age_s, and doubted."""
    found, got = told(broker, {"c/n01": {"w": 5, "t": NOW_S - 600}}, power("c/n01", time="/t") | {"asset": "n01"})

    assert got == {("n01", "power"): (5_000, NOW_MS - 600_000)}
    assert "c/n01 tells a time 600 s behind ours" in found.doubts[0]


def test_a_value_that_is_not_renewed_becomes_absent_and_then_a_fault(broker):
    """One of two goes silent: the other is read. Both: an error that names the topics."""

    async def ask():
        clock = Clock()
        device = MqttDevice(table(broker, power("s/{asset}") | {"nodes": "n[1-2]"}, max_age_s=60), clock=clock)
        before = broker.daemon.log.read_text(errors="replace").count("Sending SUBACK")
        found = asyncio.create_task(device.discover())
        await broker.subscribed(before + 2)
        await broker.publish("s/n1", {"w": 1})
        await broker.publish("s/n2", {"w": 2})
        await found
        got = [values(await device.sample())]
        clock.now_s += 50
        await broker.publish("s/n1", {"w": 3})
        async with asyncio.timeout(10):
            while values(await device.sample())["n1", "power"][0] != 3_000:
                await asyncio.sleep(0.02)
        clock.now_s += 11
        got.append(values(await device.sample()))
        clock.now_s += 50
        with pytest.raises(
            SourceError, match=r"has had nothing for 60 s on s/\{asset\}. Check that they still publish"
        ):
            await device.sample()
        await device.close()
        return got

    both, one = asyncio.run(ask())

    assert both == {("n1", "power"): (1_000, NOW_MS), ("n2", "power"): (2_000, NOW_MS)}
    assert one == {("n1", "power"): (3_000, NOW_MS + 50_000)}


@pytest.mark.parametrize(
    "payload",
    ["", "on", "null", "{}", '{"w": null}', '{"w": "n/a"}', '{"w": NaN}', '{"w": Infinity}', '{"w": -1}', '{"w": true}',
     '{"w": [1]}', '{"w": 1e30}', '{"W": 1}', b"\xff\xfe", "[" * 5000],
)  # fmt: skip
def test_what_is_no_value_is_absent_and_told(payload, broker):
    """Text, null, NaN, what is negative or huge, or elsewhere; the next message is read."""

    async def ask():
        device = MqttDevice(table(broker, power("bad/n01") | {"asset": "n01"}, listen_s=0.3), clock=Clock())
        before = broker.daemon.log.read_text(errors="replace").count("Sending SUBACK")
        found = asyncio.create_task(device.discover())
        await broker.subscribed(before + 1)
        await broker.publish("bad/n01", payload)
        found, got = await found, await device.sample()
        await broker.publish("bad/n01", {"w": 0})
        async with asyncio.timeout(10):
            while not (live := values(await device.sample())):
                await asyncio.sleep(0.02)
        await device.close()
        return found, got, live

    found, got, live = asyncio.run(ask())

    assert got == []
    assert "bad/n01 has no power at '/w'" in found.doubts[0]
    assert len(found.doubts[0]) < 250
    assert live == {("n01", "power"): (0, NOW_MS)}


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [("", {"a/b": [1, {"c~d": 2}]}), ("/a~1b/0", 1), ("/a~1b/1/c~0d", 2), ("/a~1b/2", NOTHING), ("/x", NOTHING),
     ("/a~1b/x", NOTHING), ("/a~1b/0/0", NOTHING)],
)  # fmt: skip
def test_json_pointers(pointer, expected):
    """RFC 6901: ~1 is a slash, ~0 a tilde, numbers count in lists."""
    assert pointed({"a/b": [1, {"c~d": 2}]}, pointer) == expected


@pytest.mark.parametrize(
    ("told", "zone", "expected"),
    [
        ("2026-11-18T11:06:40Z", None, 1_795_000_000_000),
        ("2026-11-18T12:06:40.250+01:00", None, 1_795_000_000_250),
        ("2026-11-18T12:06:40", None, None),
        ("2026-11-18T12:06:40", "Europe/Berlin", 1_795_000_000_000),
        (1_795_000_000, None, 1_795_000_000_000),
        (Decimal("1795000000.5"), None, 1_795_000_000_500),
        (1_795_000_000_250, None, 1_795_000_000_250),
        ("1970-01-01T00:00:10Z", None, None),
        (10, None, None),
        (10**15, None, None),
        (True, None, None),
        (None, None, None),
        ("yesterday", None, None),
        (float("nan"), None, None),
    ],
)
def test_time_stamps(told, zone, expected):
    """ISO 8601 with its zone or the site's, seconds, milliseconds; clocks that were never set tell none."""
    assert time_ms(told, ZoneInfo(zone) if zone else None) == expected


def test_steps_of_counters_are_known(broker):
    """Tasmota tells three decimals of a kWh; step is that of a counter of one's own."""
    reading = {"value": "/e", "quantity": "energy_counter", "unit": "Wh", "step": 0.5}
    config = table(
        broker,
        {"topic": "x", "preset": "tasmota", "asset": "n01"},
        {"topic": "y", "asset": "n02", "reading": [reading]},
        listen_s=0.1,
    )

    async def ask():
        (device,) = devices(config)
        found = await device.discover()
        await device.close()
        return found

    found = asyncio.run(ask())

    assert sorted(m.resolution_mj for m in found.meters) == [0, 1_800_000, 3_600_000]


def test_decimals_are_exact():
    """0.1 + 0.2 of a kWh is not 0.30000000000000004 of one."""
    assert scaled(parse(b"0.3"), "energy_counter", "kWh") == 1_080_000_000
    assert scaled(parse(b"31234567.890123"), "energy_counter", "kWh") == 112_444_444_404_442_800


def test_a_broker_that_goes_away_is_one_error_and_comes_back(tmp_path):
    """Values that are still fresh are told again when it is back; it takes a new one too."""

    async def ask():
        port = free_port()
        with Broker(tmp_path, port=port) as broker:
            device = MqttDevice(table(broker, power("g/n01") | {"asset": "n01"}), clock=Clock())
            found = asyncio.create_task(device.discover())
            await broker.subscribed(1)
            await broker.publish("g/n01", {"w": 1})
            await found
            first = values(await device.sample())
        with pytest.raises(SourceError, match=f"^{device.name} cannot be used: .*Check host, port, tls and network"):
            await device.sample()
        with Broker(tmp_path, port=port) as broker:
            still = values(await device.sample())
            await broker.publish("g/n01", {"w": 2})
            async with asyncio.timeout(10):
                while (last := values(await device.sample())) == still:
                    await asyncio.sleep(0.02)
            await device.close()
            await device.close()
        return [one["n01", "power"][0] for one in (first, still, last)]

    assert asyncio.run(ask()) == [1_000, 1_000, 2_000]


def test_accounts(tmp_path):
    """A wrong password is refused with its cure; the right one is read from a file and shown nowhere."""
    secret = tmp_path / "mqtt.secret"
    secret.write_text("s3cret\n")

    async def ask(broker):
        wrong = MqttDevice(table(broker, power("a/n01") | {"asset": "n01"}, user="monitor", password="wr0ng"))
        with pytest.raises(SourceError, match="Check user and password") as caught:
            await wrong.sample()
        assert "wr0ng" not in str(caught.value)
        config = table(broker, power("a/n01") | {"asset": "n01"}, user="monitor", password_file=secret, qos=1)
        device = MqttDevice(config, clock=Clock())
        found = asyncio.create_task(device.discover())
        await broker.subscribed(1)
        await broker.publish("a/n01", {"w": 4})
        await found
        got = values(await device.sample())
        await device.close()
        return got

    with Broker(tmp_path, users={"monitor": "s3cret"}) as broker:
        assert asyncio.run(ask(broker)) == {("n01", "power"): (4_000, NOW_MS)}
    assert "s3cret" not in repr(table(broker, power() | {"nodes": "n1"}, password="s3cret"))


@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")  # paho drops a socket that it refused
def test_tls(tmp_path):
    """A self-signed certificate is refused, taken with its own authority, and taken without checking."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip

    async def ask(broker):
        strict = MqttDevice(table(broker, power("t/n01") | {"asset": "n01"}, tls=True))
        with pytest.raises(SourceError, match=r"CERTIFICATE_VERIFY_FAILED.*Check ca_file"):
            await strict.sample()
        got = []
        for more in ({"ca_file": cert}, {"verify": False}):
            config = table(broker, power("t/n01", time="/t") | {"asset": "n01"}, tls=True, listen_s=0.1, **more)
            device = MqttDevice(config, clock=Clock())
            got.append(await device.sample())
            await device.close()
        return got

    with Broker(tmp_path, tls=(cert, key)) as broker:
        assert asyncio.run(ask(broker)) == [[], []]  # connected; nobody publishes


def test_a_port_that_says_nothing_is_given_up():
    """In timeout_s, with the option's name."""

    async def ask():
        writers = []

        async def silent(_reader, writer):
            writers.append(writer)

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        (device,) = devices(Config(host="127.0.0.1", port=port, timeout_s=0.3, topic=[power() | {"nodes": "n1"}]))
        try:
            await device.sample()
        finally:
            await device.close()
            server.close()
            for writer in writers:
                writer.close()
                await writer.wait_closed()

    with pytest.raises(
        SourceError,
        match=r"mqtt 127.0.0.1:\d+ did not answer within 0.3 s. Check host, port and tls, or raise timeout_s",
    ):
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ({"topic": "a/{asset}"}, "give either preset or reading"),
        ({"topic": "a/{asset}", "preset": "tasmota", "reading": [{}]}, "give either preset or reading"),
        ({"topic": "a", "preset": "tasmoto", "asset": "n"}, "there is no preset 'tasmoto'; choose one of shelly-em, "),
        ({"topic": "a", "reading": [{}]}, "give either asset, or a topic with {asset}"),
        ({"topic": "a/{asset}", "reading": [{}], "asset": "n"}, "give either asset, or a topic with {asset}"),
        ({"topic": "{asset}", "reading": [{}], "nodes": "n1", "assets": {"a": "b"}}, "give one of"),
        ({"topic": "a/+", "reading": [{}], "asset": "n"}, "write {asset} where the topic differs"),
        ({"topic": "a-{asset}", "reading": [{}]}, "a level of the topic of its own"),
        ({"topic": "a", "reading": [{"unit": "kWh"}], "asset": "n"}, "unit 'kWh' is none of power; choose one of uW"),
        ({"topic": "a", "reading": [{"value": "w"}], "asset": "n"}, "should match pattern"),
        ({"topic": "a", "reading": [{"step": 1}], "asset": "n"}, "step is that of a counter"),
    ],
)
def test_a_wrong_table_says_what_to_write(topic, said):
    """What the site file's check shows."""
    with pytest.raises(ValidationError) as caught:
        Config(host="h", topic=[topic])
    assert said in str(caught.value)


def test_default_ports_are_those_of_the_protocol():
    """1883, and 8883 with TLS."""
    topics = [power() | {"nodes": "n1"}]

    assert [Config(host="h", topic=topics, **more).real_port for more in ({}, {"tls": True}, {"port": 9})] == [
        1883,
        8883,
        9,
    ]
