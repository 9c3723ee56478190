"""The device as the agent meets it: stable ids, absent values, a service that goes away and comes back, log-in, TLS."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest
from pydantic import ValidationError

from tests.daemons import free_port
from tests.integrations.redfish.fakes import FakeService
from tests.integrations.redfish.server import Server, put, tree_of
from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.redfish.link import Config
from wattkeeper.integrations.redfish.meter import RedfishDevice, devices

V1 = "/redfish/v1"
NOW_S = 1_795_000_000.0


def link(uri):
    return {"@odata.id": uri}


def server_pages(power=400.0, *, energy=None, state="Enabled", **more):
    """Return a server with one chassis whose EnvironmentMetrics tell power, and energy where it is given."""
    metrics = {"@odata.id": f"{V1}/Chassis/1/EnvironmentMetrics", "PowerWatts": {"Reading": power}, **more}
    if energy is not None:
        metrics["EnergyJoules"] = energy
    return [
        {
            "@odata.id": f"{V1}/Chassis/1",
            "ChassisType": "RackMount",
            "Status": {"State": state},
            "EnvironmentMetrics": link(f"{V1}/Chassis/1/EnvironmentMetrics"),
        },
        metrics,
    ]


def report_pages(values, **definition):
    """Return a service with telemetry: a root, a report of these values, and its definition."""
    service, name = f"{V1}/TelemetryService", "Power"
    report, made = f"{service}/MetricReports/{name}", f"{service}/MetricReportDefinitions/{name}"
    return [
        {"@odata.id": V1, "Chassis": link(f"{V1}/Chassis"), "TelemetryService": link(service)},
        {"@odata.id": service, "MetricReports": link(f"{service}/MetricReports")},
        {"@odata.id": f"{service}/MetricReports", "Members": [link(report)]},
        {"@odata.id": report, "MetricReportDefinition": link(made), "MetricValues": values},
        {"@odata.id": made, **definition},
    ]


def told(value, when, uri=f"{V1}/Chassis/1/EnvironmentMetrics#/PowerWatts/Reading", **more):
    return {"MetricProperty": uri, "MetricValue": value, "Timestamp": when, **more}


def device_of(url, **table):
    (device,) = devices(Config(url=url, asset="n01", timeout_s=5, **table))
    return device


def once(tree, root, **table):
    """Return what one discovery and one sample give."""

    async def ask(url):
        device = device_of(url, **table)
        try:
            return await device.discover(), {s.meter: s for s in await device.sample()}
        finally:
            await device.close()

    with Server(tree, root) as server:
        return asyncio.run(ask(server.url))


def test_ids_are_stable_and_samples_are_of_declared_meters(tmp_path):
    """Two discoveries of one device and one of another, after a restart, give the same meters."""

    async def ask(url):
        first, second = device_of(url), device_of(url)
        found = [await first.discover(), await first.discover(), await second.discover()]
        samples = await first.sample()
        for device in (first, second):
            await device.close()
            await device.close()
        return found, samples, await first.sample(), await first.close()

    tree = tree_of(server_pages(energy={"Reading": 7.5}), tmp_path / "tree")
    with Server(tree, tmp_path) as server:
        found, samples, after_close, _closed = asyncio.run(ask(server.url))

    assert found[0].meters == found[1].meters == found[2].meters
    assert [(s.meter, s.value) for s in samples] == [
        ("n01:Chassis/1/EnvironmentMetrics#/PowerWatts:redfish:power", 400_000),
        ("n01:Chassis/1/EnvironmentMetrics#/EnergyJoules:redfish:energy_counter", 7_500),
    ]
    assert len(after_close) == 2  # a closed device opens again


def test_sampling_discovers_first(tmp_path):
    """No call of discover is needed."""

    async def ask(url):
        device = device_of(url)
        try:
            return await device.sample()
        finally:
            await device.close()

    with Server(tree_of(server_pages(), tmp_path / "tree"), tmp_path) as server:
        assert [s.value for s in asyncio.run(ask(server.url))] == [400_000]


@pytest.mark.parametrize("absent", [None, "NaN", "n/a", -1, True, 0, [], {}])
def test_what_is_no_reading_gives_no_sample(absent, tmp_path):
    """Null, text, sentinels and the 0 W of a node without a meter are absent, at discovery and later."""
    tree = tree_of(server_pages(energy={"Reading": 5}), tmp_path / "tree")

    async def ask(url):
        device = device_of(url)
        await device.discover()
        before = [s.value for s in await device.sample()]
        for page in server_pages(absent, energy={"Reading": 6}):
            put(tree, page)
        after = [s.value for s in await device.sample()]
        meters = [m.quantity for m in (await device.discover()).meters]
        await device.close()
        return before, after, meters

    with Server(tree, tmp_path) as server:
        before, after, meters = asyncio.run(ask(server.url))

    assert before == [400_000, 5_000]
    assert after == [6_000]
    assert meters == ["energy_counter"]


@pytest.mark.parametrize("state", ["Disabled", "Absent", "UnavailableOffline"])
def test_a_disabled_sensor_gives_no_sample(state, tmp_path):
    """A reading means nothing while its resource is not at work."""
    pages = server_pages(Status={"State": state})
    found, samples = once(tree_of(pages, tmp_path / "tree"), tmp_path)

    assert (found.meters, samples) == ([], {})


def test_zero_is_a_reading_where_nothing_may_be_plugged_in(tmp_path):
    """A rack PDU with nothing behind it draws 0 W."""
    _found, samples = once(tree_of(server_pages(0), tmp_path / "tree"), tmp_path, kind="rack")

    assert [s.value for s in samples.values()] == [0]


def test_lifetime_reading_is_preferred_to_one_that_can_be_reset(tmp_path):
    """LifetimeReading 90 J against 2 J since somebody reset it."""
    energy = {"Reading": 2, "LifetimeReading": 90, "SensorResetTime": "2026-01-01T00:00:00Z"}
    found, samples = once(tree_of(server_pages(energy=energy), tmp_path / "tree"), tmp_path)
    (counter,) = (m.id for m in found.meters if m.quantity == "energy_counter")

    assert counter.endswith("#/EnergyJoules/LifetimeReading:redfish:energy_counter")
    assert samples[counter].value == 90_000


def test_joules_are_preferred_to_kilowatt_hours(tmp_path):
    """Both excerpts count the same energy: one meter."""
    pages = server_pages(energy={"Reading": 3_600_500.0}, EnergykWh={"Reading": 1})
    _found, samples = once(tree_of(pages, tmp_path / "tree"), tmp_path)

    assert sorted(s.value for s in samples.values()) == [400_000, 3_600_500_000]


def test_one_sensor_under_many_uris_is_one_meter(tmp_path):
    """A GPU's sensor shows under its chassis, its processor and the chassis' sensors."""
    sensor = f"{V1}/Chassis/GPU1/Sensors/Power"
    excerpt = {"Reading": 300, "DataSourceUri": sensor}
    gpu = f"{V1}/Systems/1/Processors/GPU1"
    pages = [
        *server_pages(),
        {"@odata.id": V1, "Chassis": link(f"{V1}/Chassis"), "Systems": link(f"{V1}/Systems")},
        {
            "@odata.id": f"{V1}/Chassis/GPU1",
            "ChassisType": "Component",
            "Sensors": link(f"{V1}/Chassis/GPU1/Sensors"),
            "EnvironmentMetrics": link(f"{V1}/Chassis/GPU1/EnvironmentMetrics"),
            "Links": {"Processors": [link(gpu)], "ContainedBy": link(f"{V1}/Chassis/1")},
        },
        {"@odata.id": f"{V1}/Chassis/GPU1/EnvironmentMetrics", "PowerWatts": excerpt},
        {"@odata.id": f"{V1}/Chassis/GPU1/Sensors", "Members": [link(sensor)]},
        {"@odata.id": sensor, "ReadingType": "Power", "ReadingUnits": "W", "Reading": 301, "PhysicalContext": "GPU"},
        {"@odata.id": f"{V1}/Systems", "Members": [link(f"{V1}/Systems/1")]},
        {"@odata.id": f"{V1}/Systems/1", "Processors": link(f"{V1}/Systems/1/Processors")},
        {"@odata.id": f"{V1}/Systems/1/Processors", "Members": [link(gpu)]},
        {
            "@odata.id": gpu,
            "ProcessorType": "GPU",
            "EnvironmentMetrics": link(f"{gpu}/EnvironmentMetrics"),
            "Links": {"Chassis": link(f"{V1}/Chassis/GPU1")},
        },
        {"@odata.id": f"{gpu}/EnvironmentMetrics", "PowerWatts": excerpt},
    ]
    found, _samples = once(tree_of(pages, tmp_path / "tree"), tmp_path)

    assert [(m.asset, m.id) for m in found.meters] == [
        ("n01/gpu0", "n01/gpu0:Chassis/GPU1/Sensors/Power:redfish:power"),
        ("n01", "n01:Chassis/1/EnvironmentMetrics#/PowerWatts:redfish:power"),
    ]


def chassis(name, power=None, **more):
    """Return a chassis, with metrics where it has power."""
    uri = f"{V1}/Chassis/{name}"
    pages = [{"@odata.id": uri, "EnvironmentMetrics": link(f"{uri}/EnvironmentMetrics"), **more}]
    if power is not None:
        pages.append({"@odata.id": f"{uri}/EnvironmentMetrics", "PowerWatts": {"Reading": power}})
    return pages


@pytest.mark.parametrize(
    ("pages", "watts"),
    [
        # a blade in an enclosure that is metered, by either link: the enclosure
        ([*chassis("E", 900), *chassis("B", 300, Links={"ContainedBy": link(f"{V1}/Chassis/E")})], [900]),
        ([*chassis("E", 900, Links={"Contains": [link(f"{V1}/Chassis/B")]}), *chassis("B", 300)], [900]),
        # in an enclosure that is not, or that this service does not show: the blade
        ([*chassis("E"), *chassis("B", 300, Links={"ContainedBy": link(f"{V1}/Chassis/E")})], [300]),
        (chassis("B", 300, Links={"ContainedBy": link(f"{V1}/Chassis/Elsewhere")}), [300]),
        # a shelf whose every chassis calls itself a module
        (chassis("M", 300, ChassisType="Module"), [300]),
        # a module beside the machine is a part of it
        ([*chassis("A", 70, ChassisType="Module"), *chassis("B", 300, ChassisType="RackMount")], [300]),
    ],
)
def test_which_chassis_is_the_machine(pages, watts, tmp_path):
    """The outermost one that is metered, and no part of it again."""
    _found, samples = once(tree_of(pages, tmp_path / "tree"), tmp_path)

    assert [s.value for s in samples.values()] == [w * 1000 for w in watts]


def test_processors_shown_by_two_systems_are_numbered_once(tmp_path):
    """The host's view has no meters; the board's has them, and an empty socket between its two GPUs."""

    def system(name, *gpus):
        uri = f"{V1}/Systems/{name}"
        yield {"@odata.id": uri, "Processors": link(f"{uri}/Processors")}
        places = [f"{uri}/Processors/GPU_{i}" for i in range(len(gpus))]
        yield {"@odata.id": f"{uri}/Processors", "Members": [link(place) for place in reversed(places)]}
        for place, power in zip(places, gpus, strict=True):
            state = {"State": "Absent" if power == 0 else "Enabled"}
            yield {
                "@odata.id": place, "ProcessorType": "GPU", "Status": state,
                "EnvironmentMetrics": link(f"{place}/EnvironmentMetrics"),
            }  # fmt: skip
            if power is not None:
                yield {"@odata.id": f"{place}/EnvironmentMetrics", "PowerWatts": {"Reading": power}}

    names = ("Board", "AHost")
    pages = [
        *server_pages(),
        {"@odata.id": V1, "Chassis": link(f"{V1}/Chassis"), "Systems": link(f"{V1}/Systems")},
        {"@odata.id": f"{V1}/Systems", "Members": [link(f"{V1}/Systems/{name}") for name in names]},
        *system("AHost", None, None, None),
        *system("Board", 101, 0, 103),
    ]
    found, samples = once(tree_of(pages, tmp_path / "tree"), tmp_path)
    asset = {m.id: m.asset for m in found.meters}

    assert {asset[s.meter]: s.value for s in samples.values()} == {
        "n01/gpu0": 101_000, "n01/gpu2": 103_000, "n01": 400_000,
    }  # fmt: skip


def test_supplies_by_the_schema_are_one_source_and_their_joules_are_left(tmp_path):
    """Two supplies' metrics add up; EnergyJoules of supplies wraps, an absent supply is none."""
    at = f"{V1}/Chassis/1/PowerSubsystem"
    pages = [
        {"@odata.id": f"{V1}/Chassis/1", "PowerSubsystem": link(at)},
        {"@odata.id": at, "PowerSupplies": link(f"{at}/PowerSupplies")},
        {"@odata.id": f"{at}/PowerSupplies", "Members": [link(f"{at}/PowerSupplies/{i}") for i in (1, 2, 3)]},
    ]
    for i in (1, 2, 3):
        uri = f"{at}/PowerSupplies/{i}"
        status = {"State": "Absent" if i == 3 else "Enabled"}
        pages.append({"@odata.id": uri, "Status": status, "Metrics": link(f"{uri}/Metrics")})
        metrics = {"InputPowerWatts": {"Reading": 100 * i}, "OutputPowerWatts": {"Reading": 90 * i}}
        energies = {"EnergykWh": {"Reading": i}, "EnergyJoules": {"Reading": 107_382}}
        pages.append({"@odata.id": f"{uri}/Metrics", **metrics, **energies})
    found, samples = once(tree_of(pages, tmp_path / "tree"), tmp_path, kind="rack")
    sums: dict[tuple[str, str], int] = {}
    for meter in found.meters:
        key = meter.source, meter.quantity
        sums[key] = sums.get(key, 0) + samples[meter.id].value

    assert sums == {
        ("redfish-psu", "power"): 300_000,
        ("redfish-psu-out", "power"): 270_000,
        ("redfish-psu", "energy_counter"): 3 * 3_600_000_000,
    }


def test_the_newest_value_of_a_report_counts(tmp_path):
    """Reports that append hold many values of one meter, here two, the newest first."""
    values = [told("412.5", "2026-11-21T03:00:00+01:00"), told("410.0", "2026-11-21T01:59:59Z")]
    _found, samples = once(tree_of([*server_pages(), *report_pages(values)], tmp_path / "tree"), tmp_path)
    (sample,) = samples.values()

    assert (sample.value, sample.time_ms) == (412_500, 1_795_226_400_000)  # 02:00:00 UTC


@pytest.mark.parametrize("metric", [{}, {"MetricId": "Mean"}])
def test_means_and_extremes_of_a_report_are_no_samples(metric, tmp_path):
    """What a report computes over an hour is not what a meter shows: the page is read."""
    values = [told("9999", "2026-11-21T03:00:00Z", **metric)]
    definition = {"Metrics": [{"CollectionFunction": "Maximum", **metric}]}
    pages = [*server_pages(), *report_pages(values, **definition)]
    _found, samples = once(tree_of(pages, tmp_path / "tree"), tmp_path)

    assert [s.value for s in samples.values()] == [400_000]


def test_a_clock_that_was_never_set_is_replaced_by_ours(tmp_path):
    """1970 says nothing; the value does."""
    tree = tree_of([*server_pages(), *report_pages([told("412.5", "1970-01-01T00:00:09Z")])], tmp_path / "tree")

    async def ask(url):
        device = RedfishDevice(Config(url=url, asset="n01"), "n01", clock=lambda: NOW_S)
        samples = await device.sample()
        await device.close()
        return samples

    with Server(tree, tmp_path) as server:
        (sample,) = asyncio.run(ask(server.url))
    assert (sample.value, sample.time_ms) == (412_500, 1_795_000_000_000)


def test_a_report_that_no_longer_moves_is_left_for_the_pages(tmp_path):
    """After a minute with the same time stamp the sensor itself is read: 400 W now, not 412.5 W then."""
    tree = tree_of([*server_pages(), *report_pages([told("412.5", "2026-11-21T03:00:00Z")])], tmp_path / "tree")
    now = [NOW_S]

    async def ask(url):
        device = RedfishDevice(Config(url=url, asset="n01"), "n01", clock=lambda: now[0])
        values = []
        for now[0] in (NOW_S, NOW_S + 59, NOW_S + 61):
            values += [s.value for s in await device.sample()]
        await device.close()
        return values

    with Server(tree, tmp_path) as server:
        assert asyncio.run(ask(server.url)) == [412_500, 412_500, 400_000]


def test_a_service_that_goes_away_is_named_and_comes_back(tmp_path):
    """The fault names address and cure; the next call after the restart reads again, with the same meters."""
    tree, port = tree_of(server_pages(), tmp_path / "tree"), free_port()

    async def ask():
        device = device_of(f"http://127.0.0.1:{port}")
        with Server(tree, tmp_path, port=port):
            first = await device.sample()
        for call in (device.sample, device.discover):
            with pytest.raises(SourceError, match=rf"127.0.0.1:{port} does not answer: .*Check address and network"):
                await call()
        with Server(tree, tmp_path, port=port):
            again = await device.sample()
        await device.close()
        return first, again

    first, again = asyncio.run(ask())
    assert [(s.meter, s.value) for s in first] == [(s.meter, s.value) for s in again]


def test_a_service_that_accepts_and_is_silent_ends_in_time():
    """The time-out is the device's own; it is named with the option that raises it."""

    async def ask():
        over = asyncio.Event()

        async def silent(_reader, writer):
            await over.wait()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        device = RedfishDevice(
            Config(url=f"http://127.0.0.1:{port}", asset="n01", timeout_s=30, discover_timeout_s=0.3), "n01"
        )
        with pytest.raises(SourceError, match=r"did not answer within 0.3 s.*discover_timeout_s"):
            await device.sample()
        await device.close()
        server.close()
        over.set()
        await asyncio.sleep(0.05)

    asyncio.run(ask())


@pytest.mark.parametrize("body", ["<html>login</html>", "[1]", '{"PowerWatts": '])
def test_a_page_that_is_no_resource_is_a_doubt(body, tmp_path):
    """The rest of the tree still counts."""
    tree = tree_of([*server_pages(), {"@odata.id": f"{V1}/Chassis/1/Power"}], tmp_path / "tree")
    (tree / "Chassis/1/EnvironmentMetrics/index.json").write_text(body)
    legacy = {"@odata.id": f"{V1}/Chassis/1", "Power": link(f"{V1}/Chassis/1/Power")}
    put(tree, {**legacy, "EnvironmentMetrics": link(f"{V1}/Chassis/1/EnvironmentMetrics")})
    put(tree, {"@odata.id": f"{V1}/Chassis/1/Power", "PowerControl": [{"PowerConsumedWatts": "431"}]})
    found, samples = once(tree, tmp_path)

    assert [s.value for s in samples.values()] == [431_000]
    assert any("EnvironmentMetrics is no" in d or "EnvironmentMetrics answers" in d for d in found.doubts)


def test_zero_of_an_unmetered_server_is_explained(tmp_path):
    """PowerConsumedWatts 0 of a running machine."""
    pages = [
        {"@odata.id": f"{V1}/Chassis/1", "Power": link(f"{V1}/Chassis/1/Power")},
        {"@odata.id": f"{V1}/Chassis/1/Power", "PowerControl": [{"PowerConsumedWatts": 0}]},
    ]
    found, samples = once(tree_of(pages, tmp_path / "tree"), tmp_path)

    assert samples == {}
    assert any("says 0 W: the machine has no power meter" in doubt for doubt in found.doubts)


def session_pages():
    pages = [{"@odata.id": V1, "Chassis": link(f"{V1}/Chassis")}, *server_pages()]
    pages.append({"@odata.id": f"{V1}/Chassis", "Members": [link(f"{V1}/Chassis/1")]})
    return {page["@odata.id"]: page for page in pages}


def test_a_session_is_opened_once_renewed_when_it_has_run_out_and_ended():
    """One log-in serves all pages; a service that forgets it is asked for another; closing logs out."""

    async def ask(service):
        device = device_of(service.url, user="monitor", password="geheim")
        await device.discover()
        opened = [service.opened]
        service.tokens.clear()
        values = [s.value for s in await device.sample()]
        opened.append(service.opened)
        await device.close()
        return opened, values

    with FakeService(session_pages()) as service:
        opened, values = asyncio.run(ask(service))
        assert (opened, values, service.tokens) == ([1, 2], [400_000], set())


@pytest.mark.parametrize(("moved", "values"), [("", [400_000]), ("http://127.0.0.1:{port}", [400_000])])
def test_a_page_with_a_slash_at_its_end_is_found(moved, values):
    """Some controllers know /redfish/v1/Chassis/ only, and say so with status 308, logged in or not."""
    with FakeService(session_pages()) as service:
        service.moved = moved.format(port=service.server.server_port)
        device = device_of(service.url, user="monitor", password="geheim")

        async def ask():
            try:
                return [s.value for s in await device.sample()]
            finally:
                await device.close()

        assert asyncio.run(ask()) == values


def test_a_redirection_to_another_host_is_not_followed():
    """Our session is for this one."""
    with FakeService(session_pages()) as service:
        service.moved = "http://127.0.0.2:9"
        device = device_of(service.url, user="monitor", password="geheim")

        async def ask():
            try:
                await device.sample()
            finally:
                await device.close()

        with pytest.raises(SourceError, match="status 308"):
            asyncio.run(ask())


def test_basic_authentication_opens_no_session():
    """Some services allow few sessions, and some none."""

    async def ask(service):
        device = device_of(service.url, user="monitor", password="geheim", auth="basic")
        values = [s.value for s in await device.sample()]
        await device.close()
        return values

    with FakeService(session_pages()) as service:
        assert (asyncio.run(ask(service)), service.opened) == ([400_000], 0)


def test_without_a_log_in_the_refusal_is_said():
    """The root is open to all (DSP0266), what stands below it is not."""

    async def ask(service):
        device = device_of(service.url)
        for call in (device.discover, device.sample):
            with pytest.raises(SourceError, match=r"refuses us \(status 401\)\. Check user, password and role"):
                await call()
        await device.close()

    with FakeService(session_pages()) as service:
        asyncio.run(ask(service))


def test_a_wrong_password_is_said_and_never_shown(tmp_path):
    """The sentence has the user and the address, not the secret."""
    secret = tmp_path / "secret"
    secret.write_text("falsch\n")

    async def ask(service):
        device = device_of(service.url, user="monitor", password_file=secret)
        with pytest.raises(SourceError, match=r"refuses user 'monitor'\. Check user and password") as caught:
            await device.discover()
        await device.close()
        return str(caught.value)

    with FakeService(session_pages()) as service:
        assert "falsch" not in asyncio.run(ask(service))


def test_certificates_are_checked_unless_told_otherwise(tmp_path):
    """A self-signed certificate is refused, taken with its own authority, and taken without checking."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip

    async def ask(url):
        strict = device_of(url)
        with pytest.raises(SourceError, match=r"CERTIFICATE_VERIFY_FAILED.*Check address, network and certificate"):
            await strict.sample()
        await strict.close()
        values = []
        for table in ({"ca_file": cert}, {"verify": False}):
            device = device_of(url, **table)
            values += [s.value for s in await device.sample()]
            await device.close()
        return values

    with Server(tree_of(server_pages(), tmp_path / "tree"), tmp_path, tls=(cert, key)) as server:
        assert asyncio.run(ask(server.url)) == [400_000, 400_000]


def test_one_table_names_many_nodes():
    """{node} stands for each."""
    made = devices(Config(url="https://{node}-bmc:443", nodes="n[01-03]"))

    assert [device.name for device in made] == [f"redfish https://n0{i}-bmc:443" for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"url": "https://b"}, "give either asset, or nodes"),
        ({"url": "https://b", "nodes": "n[1-2]"}, "url has no {node}"),
        ({"url": "b", "asset": "n"}, "String should match pattern"),
        ({"url": "https://b", "asset": "n", "password": "a", "password_file": "b"}, "not both"),
    ],
)
def test_a_table_that_cannot_work_is_refused(table, said):
    """The site file's error names the cure."""
    with pytest.raises(ValidationError, match=said):
        Config.model_validate(json.loads(json.dumps(table)))
