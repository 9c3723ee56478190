"""Recordings of real devices, served by snmpsim and read by the device: each value by hand, and what is not a value."""

from __future__ import annotations

import asyncio
import json
import re
from decimal import Decimal

import pytest

from tests.integrations.snmp.peers import RECORDED, Simulator
from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.snmp.link import Config
from wattkeeper.integrations.snmp.meter import SnmpDevice

pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded data are not here")

NOW_S = 1_795_000_000.0
NOW_MS = 1_795_000_000_000


def community(file):
    """Community of a recording: folder and name."""
    return file.removesuffix(".snmprec").replace("/", "-")


def expected():
    return json.loads((RECORDED / "expected.json").read_text()) if RECORDED.is_dir() else {}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    files = {community(str(f.relative_to(RECORDED))): f for f in sorted(RECORDED.glob("*/*.snmprec"))}
    with Simulator(tmp_path_factory.mktemp("snmpsim"), files) as one:
        yield one


def device_of(simulator, name, **more):
    config = Config(
        host="127.0.0.1", port=simulator.port, asset="rack", community=community(name), timeout_s=20, **more
    )
    return SnmpDevice(config, "rack", clock=lambda: NOW_S)


def discover_and_sample(device):
    async def both():
        return await device.discover(), await device.sample()

    return asyncio.run(both())


@pytest.mark.parametrize("file", sorted(expected()))
def test_the_readings_worked_out_by_hand(simulator, file):
    """84 values of nine devices: W, kWh, V, A, VA, var, Hz, power factors, and four that must not be there."""
    _profile, readings, _model = asyncio.run(device_of(simulator, file).readings())
    read = {one.oid: one for one in readings}

    for one in expected()[file]:
        found = read.get(one["oid"])
        told = None if found is None else (float(found.value), found.unit)
        assert told == (None if one["value"] is None else (one["value"], one["unit"])), one["quantity"]


def test_there_are_84_of_them():
    """Nine files; four values are absent on purpose: three sensors, and a column that means nothing."""
    values = [one for file in expected().values() for one in file]

    assert (len(expected()), len(values)) == (9, 84)
    assert sum(one["value"] is None for one in values) == 4


@pytest.mark.parametrize(
    ("file", "samples"),
    [
        # 1967.7 kWh × 3.6e9 mJ; 27 × 10 W, not the phase's 250 W
        ("librenms/apc_ap8959eu3", {"inlet-1:snmp:energy_counter": 7_083_720_000_000, "inlet-1:snmp:power": 270_000}),
        ("librenms/apc_ap8853", {"inlet-1:snmp:energy_counter": 12_646_080_000_000, "inlet-1:snmp:power": 1_140_000}),
        ("nav/apc-pdu", {"device:snmp:power": 0}),
        (
            "librenms/sentry4",
            {
                "cord-AA:snmp:energy_counter": 3_217_320_000_000,  # 893.7 kWh
                "cord-BA:snmp:energy_counter": 9_237_240_000_000,  # 2565.9 kWh
                "cord-AA:snmp:power": 1_701_000,
                "cord-BA:snmp:power": 1_265_000,
            },
        ),
        # 74 057 676 Wh × 3.6e6 mJ
        (
            "librenms/raritan-pdu_px3",
            {"inlet-I1:snmp:energy_counter": 266_607_633_600_000, "inlet-I1:snmp:power": 1_665_000},
        ),
        ("librenms/raritan-pdu_px2", {"inlet-I1:snmp:power": 138_000}),
        ("nav/raritan", {"inlet-I1:snmp:energy_counter": 2_797_329_600_000, "inlet-I1:snmp:power": 654_000}),
        # the total, 1584 W and 8 185 493 Wh, not the feed
        ("librenms/eatonpdu_2", {"inlet-1:snmp:energy_counter": 29_467_774_800_000, "inlet-1:snmp:power": 1_584_000}),
        (
            "librenms/vertiv-pdu_mg02e4w1",
            {"inlet-1:snmp:energy_counter": 30_542_061_600_000, "inlet-1:snmp:power": 1_017_000},
        ),
        # 116 988 788 × 0.1 kWh
        (
            "librenms/janitza_generic",
            {"device:snmp:energy_counter": 42_115_963_680_000_000, "device:snmp:power": 136_678_000},
        ),
        (  # 959375 × 0.1 kWh
            "librenms/liebert",
            {"inlet-1-1:snmp:energy_counter": 345_375_000_000_000, "inlet-1-1:snmp:power": 2_411_000},
        ),
        (  # 20450 × 0.1 kWh
            "librenms/liebert_mph2rg",
            {"inlet-1-1:snmp:energy_counter": 7_362_000_000_000, "inlet-1-1:snmp:power": 514_000},
        ),
        ("librenms/hpe-mapdu_pdu2", {"inlet-0:snmp:power": 97_000}),
        # three lines of one output
        (
            "librenms/eaton-mgeups_93ps",
            {"output-L1:snmp:power": 400_000, "output-L2:snmp:power": 1_100_000, "output-L3:snmp:power": 1_600_000},
        ),
    ],
)
def test_what_becomes_samples(simulator, file, samples):
    """Only what the whole device draws, in mJ and mW, stamped with our clock."""
    device = device_of(simulator, file)
    found, got = discover_and_sample(device)
    prefix = f"rack:127.0.0.1:{simulator.port}/"

    assert {one.meter.removeprefix(prefix): one.value for one in got} == samples
    assert {one.time_ms for one in got} == {NOW_MS}
    assert {m.id for m in found.meters} == {one.meter for one in got}
    assert {(m.asset, m.source, m.rank) for m in found.meters} == {("rack", "snmp", 40)}


@pytest.mark.parametrize("file", ["librenms/eatonpdu_dbq", "librenms/enlogic-pdu2", "librenms/dell-rpdu", "nav/P8652"])
def test_an_unknown_model_is_called_so(simulator, file):
    """Its sysObjectID is named, and what to do."""
    device = device_of(simulator, file)
    with pytest.raises(SourceError, match=r"is of an unknown model: sysObjectID .* or write one"):
        asyncio.run(device.discover())


def test_no_recording_is_too_much(simulator):
    """Each is read, or called unknown; none has a negative reading that becomes a sample."""
    read, unknown = [], []
    for file in sorted(RECORDED.glob("*/*.snmprec")):
        name = str(file.relative_to(RECORDED))
        try:
            _found, got = discover_and_sample(device_of(simulator, name))
        except SourceError as error:
            assert "unknown model" in str(error)  # noqa: PT017
            unknown.append(name)
        else:
            assert all(one.value >= 0 for one in got)
            read.append(name)

    assert len(read) == 19
    assert len(unknown) == 23


def test_outlets_that_are_named_are_read(simulator):
    """Outlet 1 of the Raritan feeds n01: its own Wh counter and its watts; an outlet that is not there is said."""
    outlets = {"1": "n01", "24": "n02", "99": "n03"}
    device = device_of(simulator, "librenms/raritan-pdu_px3", outlets=outlets)
    found, got = discover_and_sample(device)
    mine = {one.meter.rpartition("/")[2]: one.value for one in got if one.meter.startswith(("n01:", "n02:"))}
    text = (RECORDED / "librenms/raritan-pdu_px3.snmprec").read_text("latin1")

    def raw(oid):
        return int(re.search(rf"^{re.escape(oid)}\|66\|(\d+)$", text, re.MULTILINE)[1])

    assert mine == {
        f"outlet-{n}:snmp-outlet:{quantity}": raw(f"1.3.6.1.4.1.13742.6.5.4.3.1.4.1.{n}.{kind}") * size
        for n in (1, 24)
        for quantity, kind, size in (("energy_counter", 8, 3_600_000), ("power", 5, 1000))
    }
    assert any("does not meter outlet 99" in said for said in found.doubts)


def test_inlets_can_feed_different_racks(simulator):
    """Two linked cords of one unit; without a word about it they are added up, and that is said."""
    _found, together = discover_and_sample(device_of(simulator, "librenms/sentry4"))
    inlets = {"AA": "rack-1", "XX": "rack-9"}
    found, apart = discover_and_sample(device_of(simulator, "librenms/sentry4", inlets=inlets))

    assert {one.meter.partition(":")[0] for one in together} == {"rack"}
    assert [(one.meter.partition(":")[0], one.value) for one in apart] == [
        ("rack-1", 3_217_320_000_000),
        ("rack-1", 1_701_000),
    ]
    assert any(said.endswith("has no inlet XX. It has AA, BA: correct inlets.") for said in found.doubts)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("librenms/sentry4", "has inlets AA, BA, added up as rack"),
        ("librenms/apc_ap8959eu3", "counts energy in steps of 100 Wh, one in 1333 s at 270 W"),
        ("librenms/huaweiups_ups2000", "output L1 tells 1 W, and its volts × amperes give 1656 W. Check the scale"),
        ("librenms/eatonpdu_2", 'say what they feed, outlets = { "1" = "n01" }'),
        ("librenms/sentry3", "profile sentry3 finds neither power nor energy"),
    ],
)
def test_what_is_doubted(simulator, file, said):
    """Each with what to do."""
    assert any(said in doubt for doubt in asyncio.run(device_of(simulator, file).discover()).doubts)


@pytest.mark.parametrize("file", sorted(expected()))
def test_right_readings_are_not_doubted(simulator, file):
    """No scale of the nine is called wrong: walks are not of one moment, and 1707 W of phases are 1701 W of a cord."""
    found = asyncio.run(device_of(simulator, file).discover())

    assert [said for said in found.doubts if "Check the scale" in said or "stands at 0" in said] == []


def test_version_1_reads_the_same(simulator):
    """Without bulk requests, and with an error where one object is missing."""
    two = discover_and_sample(device_of(simulator, "librenms/sentry4"))
    one = discover_and_sample(device_of(simulator, "librenms/sentry4", version="1"))

    assert one == two


def test_the_model_is_kept(simulator):
    """What the device says it is."""
    found, _got = discover_and_sample(device_of(simulator, "librenms/raritan-pdu_px3", parent="hall"))

    assert [(a.id, a.kind, a.parent, a.model) for a in found.assets] == [("rack", "rack", "hall", "PX3-5493U-K2")]
    assert {m.wrap_mj for m in found.meters if m.quantity == "energy_counter"} == {2**32 * 3_600_000}
    assert all(isinstance(m.wrap_mj, int) for m in found.meters)
    assert Decimal(3_600_000) * 2**32 < 2**62
