"""net-snmp's own agent: users of version 3, passwords that are wrong, restarts, counters that are set to 0."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from tests.daemons import free_port
from tests.integrations.snmp.peers import SNMPD, Snmpd
from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.snmp.link import Config
from wattkeeper.integrations.snmp.meter import SnmpDevice

pytestmark = pytest.mark.skipif(SNMPD is None, reason="snmpd and snmpset are not here (packages snmpd, snmp)")

RPDU2 = "1.3.6.1.4.1.318.1.1.26.4.3.1"
NOW_S = 1_795_000_000.0
USERS = [
    'createUser sha SHA-256 "auth-secret" AES "priv-secret"',
    'createUser one SHA "auth-secret" AES "auth-secret"',
    'createUser old MD5 "auth-secret" DES "priv-secret"',
    'createUser long SHA "auth-secret" AES-256 "priv-secret"',
    'createUser cisco SHA "auth-secret" AES-256-C "priv-secret"',
    'createUser middle SHA "auth-secret" AES-192 "priv-secret"',
    'createUser plain SHA-512 "auth-secret"',
    "createUser open",
    "rouser sha priv",
    "rouser one priv",
    "rouser old priv",
    "rouser long priv",
    "rouser cisco priv",
    "rouser middle priv",
    "rouser plain auth",
    "rouser open noauth",
]
PDU = [
    "sysObjectID 1.3.6.1.4.1.318.1.3.4.6",
    f"override {RPDU2}.5.1 integer 27",
    f"override -rw {RPDU2}.9.1 integer 19677",
    "rwcommunity write",
    "rocommunity read",
]


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    with Snmpd(tmp_path_factory.mktemp("snmpd"), USERS + PDU) as one:
        yield one


def device_of(port, **table):
    config = Config(host="localhost", port=port, asset="rack", timeout_s=3, tries=2, **table)
    return SnmpDevice(config, "rack", clock=lambda: NOW_S)


def v3(user, auth, priv, **more):
    secrets = {"auth_password": "auth-secret", "priv_password": "priv-secret"}
    return {"version": "3", "user": user, "auth": auth, "priv": priv, **secrets, **more}


def sampled(device):
    return {one.meter.rpartition(":")[2]: one.value for one in asyncio.run(device.sample())}


BOTH = {"energy_counter": 7_083_720_000_000, "power": 270_000}


@pytest.mark.parametrize(
    "table",
    [
        v3("sha", "SHA-256", "AES"),
        v3("one", "SHA", "AES", priv_password=""),  # the same password for both
        v3("old", "MD5", "DES"),
        v3("long", "SHA", "AES-256"),
        v3("cisco", "SHA", "AES-256-C"),
        v3("middle", "SHA", "AES-192"),
        v3("plain", "SHA-512", "none"),
        v3("open", "none", "none", auth_password=""),
        {"community": "read"},
        {"community": "read", "version": "1"},
    ],
    ids=["SHA-256 AES", "SHA AES", "MD5 DES", "AES-256", "AES-256-C", "AES-192", "SHA-512", "open", "v2c", "v1"],
)
def test_every_way_to_log_in(agent, table):
    """The name localhost is looked up; the same two values each time."""
    assert sampled(device_of(agent.port, **table)) == BOTH


def test_passwords_can_come_from_files(agent, tmp_path):
    """With a line end, as editors leave it."""
    files = {}
    for name, secret in (("auth", "auth-secret"), ("priv", "priv-secret")):
        (tmp_path / name).write_text(f"{secret}\n")
        files[f"{name}_password_file"] = tmp_path / name

    table = {"version": "3", "user": "sha", "auth": "SHA-256", "priv": "AES", **files}
    assert sampled(device_of(agent.port, **table)) == BOTH


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            v3("sha", "SHA-256", "AES", auth_password="not-secret"),
            "refuses user 'sha'. Check user, auth, auth_password",
        ),
        (v3("nobody", "SHA-256", "AES"), "refuses user 'nobody'"),
        (v3("sha", "SHA", "AES"), "refuses user 'sha'"),
        (v3("sha", "SHA-256", "none"), "refuses user 'sha'"),
        (v3("long", "SHA", "AES-256-C"), "does not answer. Check address, network and priv"),
        (v3("sha", "SHA-256", "AES", priv_password="not-secret"), "does not answer. Check address, network and priv"),
        ({"community": "not-secret"}, "does not answer. Check address, network and community"),
    ],
    ids=["password", "user", "algorithm", "no priv", "keys made otherwise", "priv password", "community"],
)
def test_what_is_wrong_is_said_and_not_shown(agent, table, said):
    """The fault names the device and the key; no secret."""
    with pytest.raises(SourceError) as caught:
        sampled(device_of(agent.port, **table))

    assert f"snmp localhost:{agent.port} {said}" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_agent_that_started_again_is_read_again(tmp_path):
    """Its engine has another boot and another time; the next sample is right, of the same meters."""
    with Snmpd(tmp_path / "a", USERS + PDU) as agent:
        device = device_of(agent.port, **v3("sha", "SHA-256", "AES"))
        before = asyncio.run(device.sample())
        agent.restart()
        assert asyncio.run(device.sample()) == before


def test_an_agent_that_was_replaced_is_read(tmp_path):
    """Another engine answers at the address, with other keys from the same passwords."""
    port = free_port()
    device = device_of(port, **v3("sha", "SHA-256", "AES"))
    with Snmpd(tmp_path / "a", USERS + PDU, port):
        assert sampled(device) == BOTH
    with Snmpd(tmp_path / "b", USERS + PDU, port):
        assert sampled(device) == BOTH


def test_an_agent_that_goes_away_is_named_and_comes_back(tmp_path):
    """A fault, and the same meters afterwards."""
    port = free_port()
    device = device_of(port, community="read")
    with Snmpd(tmp_path / "a", PDU, port):
        before = asyncio.run(device.sample())
    with pytest.raises(SourceError, match=f"snmp localhost:{port} does not answer"):
        asyncio.run(device.sample())
    with Snmpd(tmp_path / "a", PDU, port):
        assert asyncio.run(device.sample()) == before


def test_a_counter_that_was_set_to_0_is_passed_on(agent):
    """19677 → 3 tenths of a kWh: the curve knows what a reset is, the reading is what the device says."""
    device = device_of(agent.port, community="read")
    assert sampled(device) == BOTH
    for value, energy_mj in ((3, 1_080_000_000), (0, 0), (19677, 7_083_720_000_000)):
        target = ["-v2c", "-c", "write", f"127.0.0.1:{agent.port}", f"{RPDU2}.9.1", "i", str(value)]
        subprocess.run(["snmpset", *target], check=True, capture_output=True)
        assert sampled(device)["energy_counter"] == energy_mj


def test_a_value_that_goes_away_is_no_sample(agent):
    """-1 is none; the other value stays."""
    device = device_of(agent.port, community="read")
    assert sampled(device) == BOTH
    write = ["snmpset", "-v2c", "-c", "write", f"127.0.0.1:{agent.port}", f"{RPDU2}.9.1", "i"]
    try:
        subprocess.run([*write, "-1"], check=True, capture_output=True)
        assert sampled(device) == {"power": 270_000}
    finally:
        subprocess.run([*write, "19677"], check=True, capture_output=True)


def test_many_devices_share_one_loop(agent):
    """Sixty at once over one thread, each with its own user and clock."""

    async def all_of_them():
        devices = [device_of(agent.port, **v3("sha", "SHA-256", "AES")) for _ in range(60)]
        return await asyncio.gather(*(device.sample() for device in devices))

    found = asyncio.run(all_of_them())
    assert {tuple(one.value for one in samples) for samples in found} == {(7_083_720_000_000, 270_000)}
