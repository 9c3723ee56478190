"""What each integration is tried against: something that answers, as a table of the site file and a way to start it.

An integration that is read live has an entry here; `test_devices.py` fails for one that has not.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import Daemon, free_port
from wattkeeper.core.live import Device

Going = AbstractContextManager[None]


@dataclass(frozen=True)
class Peer:
    """Something to talk to: its table, and `up`, within which it answers; `make` where no entry point can make it.

    comes_back: whether it can be gone and come back while a device lives.
    """

    table: dict[str, Any]
    up: Callable[[], Going]
    make: Callable[[], Device] | None = None
    comes_back: bool = True


def _listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


PEERS: dict[str, Callable[[Path], Peer]] = {}
RECORDED: dict[str, tuple[str, Callable[[Path], Peer]]] = {}
"""Further peers, each a recording of a device: its name → the integration that reads it, and how to start it."""


def peer(make: Callable[[Path], Peer]) -> Callable[[Path], Peer]:
    """Enter a peer under its function's name."""
    PEERS[make.__name__] = make
    return make


@contextmanager
def moved(folder: Path) -> Iterator[None]:
    """Have a folder where it belongs only within."""
    away = folder.with_name(f"{folder.name}-away")
    if away.exists():
        away.rename(folder)
    try:
        yield
    finally:
        folder.rename(away)


@peer
def rapl(root: Path) -> Peer:
    from tests.integrations.rapl.test_rapl import zone

    zones = root / "powercap"
    zone(zones, "intel-rapl:0", "package-0", 258_218_293_244)
    zone(zones, "intel-rapl:0:0", "dram", 65_532_605_987)
    return Peer({"node": "n01", "path": str(zones)}, lambda: moved(zones))


@peer
def hwmon(root: Path) -> Peer:
    from tests.integrations.hwmon.test_hwmon import chip

    chip(root, 0, "power_meter", "ACPI000D:00", power1_average=432_000_000)
    return Peer({"node": "n01", "path": str(root / "class")}, lambda: moved(root / "class"))


@peer
def cray(root: Path) -> Peer:
    from tests.integrations.cray.test_cray import FILES, write

    counters = root / "pm_counters"
    counters.mkdir()
    write(counters, FILES)
    return Peer({"node": "nid1", "path": str(counters)}, lambda: moved(counters))


@peer
def amdsmi(_root: Path) -> Peer:
    """The fake library: no AMD GPU is here."""
    from tests.integrations.amdsmi.test_amdsmi import FakeAmdSmi, device_of

    library = FakeAmdSmi({}, {})
    library.gone = True

    @contextmanager
    def up() -> Iterator[None]:
        library.gone = False
        try:
            yield
        finally:
            library.gone, library.open = True, 0

    return Peer({"node": "n01"}, up, lambda: device_of(library))


@peer
def nvml(_root: Path) -> Peer:
    """The fake library: no NVIDIA GPU is here. One of the two GPUs is under MIG."""
    from tests.fake_nvml import FakeGpu, FakeNvml
    from tests.integrations.nvml.test_nvml import device_of

    library = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b", mig=[(1, 3), (2, 4)]))
    library.loaded = False

    @contextmanager
    def up() -> Iterator[None]:
        library.loaded = True
        try:
            yield
        finally:
            library.loaded, library.open = False, 0

    return Peer({"node": "n01"}, up, lambda: device_of(library))


@peer
def redfish(root: Path) -> Peer:
    from tests.integrations.redfish.server import Server, tree_of

    at = "/redfish/v1/Chassis/1"
    power = {"PowerControl": [{"@odata.id": f"{at}/Power#/PowerControl/0", "MemberId": "0", "PowerConsumedWatts": 612}]}
    pages = [
        {"@odata.id": at, "Id": "1", "ChassisType": "RackMount", "Power": {"@odata.id": f"{at}/Power"}},
        {"@odata.id": f"{at}/Power", "Id": "Power", **power},
    ]
    tree, port = tree_of(pages, root / "tree"), free_port()

    @contextmanager
    def up() -> Iterator[None]:
        with Server(tree, root, port=port):
            yield

    return Peer({"url": f"http://127.0.0.1:{port}", "asset": "n01", "timeout_s": 5}, up)


def _redfish_tree(name: str, tree: Callable[[Path, Path], Path], **table: Any) -> None:
    """Enter a recorded Redfish service; tree: how to lay out a recording in a folder."""

    def make(root: Path) -> Peer:
        from tests.integrations.redfish import server

        if not server.RECORDED.is_dir():
            pytest.skip("the recorded data are not here")
        laid_out, port = tree(server.RECORDED, root / "tree"), free_port()

        @contextmanager
        def up() -> Iterator[None]:
            with server.Server(laid_out, root, port=port):
                yield

        return Peer({"url": f"http://127.0.0.1:{port}", "asset": "n01", "timeout_s": 20, **table}, up)

    RECORDED[f"redfish-{name}"] = ("redfish", make)


def _flat(folder: str) -> Callable[[Path, Path], Path]:
    def lay_out(recorded: Path, tree: Path) -> Path:
        from tests.integrations.redfish.server import flat

        return flat(recorded / folder, tree)

    return lay_out


def _dell(recorded: Path, tree: Path) -> Path:
    from tests.integrations.redfish.server import tree_of

    pages = ("dell_power", "dell_chassis")
    return tree_of([json.loads((recorded / f"telegraf/dell/{name}.json").read_text()) for name in pages], tree)


_redfish_tree("gb300", _flat("supermicro-gb300"))
_redfish_tree("hpe", _flat("hpe"))
_redfish_tree("dell", _dell)
_redfish_tree("delta-shelf", lambda recorded, _: recorded / "lambdalabs/powershelf_delta/redfish/v1", kind="rack")
_redfish_tree("dmtf-pdu", lambda recorded, _: recorded / "dmtf/public-pdu", kind="rack", outlets={"A1": "n07"})
_redfish_tree("dmtf-telemetry", lambda recorded, _: recorded / "dmtf/public-telemetry")
_redfish_tree("dmtf-server", lambda recorded, _: recorded / "dmtf/public-rackmount1")


def _snmp_recording(name: str, **table: Any) -> None:
    """Enter a recorded SNMP agent, played by snmpsim."""

    def make(root: Path) -> Peer:
        from tests.integrations.snmp import peers

        if not peers.RECORDED.is_dir():
            pytest.skip("the recorded data are not here")
        port = free_port()

        @contextmanager
        def up() -> Iterator[None]:
            with peers.Simulator(root / "snmpsim", {name: peers.RECORDED / f"librenms/{name}.snmprec"}, port):
                yield

        told = {"host": "127.0.0.1", "port": port, "asset": "r2", "community": name, "timeout_s": 10, "tries": 2}
        return Peer({**told, **table}, up)

    RECORDED[f"snmp-{name}"] = ("snmp", make)


_snmp_recording("sentry4", inlets={"AA": "r2", "BA": "r3"})
_snmp_recording("raritan-pdu_px3", outlets={"1": "n01", "2": "n02"})


@peer
def ipmi(root: Path) -> Peer:
    from tests.integrations.ipmi.test_ipmi import Controller, has

    if not has("ipmi-dcmi"):
        pytest.skip("ipmi-dcmi (FreeIPMI) is not installed")
    port = free_port()

    @contextmanager
    def up() -> Iterator[None]:
        with Controller(root, port):
            yield

    table = {
        "host": "127.0.0.1",
        "port": port,
        "asset": "n01",
        "user": "monitor",
        "password": "geheim",
        "timeout_s": 20,
    }
    table |= {"cipher_suite": 3}
    return Peer(table, up)


@peer
def snmp(root: Path) -> Peer:
    from tests.integrations.snmp.peers import SNMPD, Snmpd
    from tests.integrations.snmp.test_snmpd import PDU

    if SNMPD is None:
        pytest.skip("snmpd is not installed")
    port = free_port()

    @contextmanager
    def up() -> Iterator[None]:
        with Snmpd(root / "snmpd", PDU, port):
            yield

    return Peer(
        {"host": "127.0.0.1", "port": port, "asset": "pdu1", "community": "read", "timeout_s": 3, "tries": 2}, up
    )


@peer
def modbus(root: Path) -> Peer:
    from tests.integrations.modbus.server import Server
    from tests.integrations.modbus.test_modbus import sdm630

    port = free_port()

    @contextmanager
    def up() -> Iterator[None]:
        with Server(root, {1: sdm630()}, port=port):
            yield

    meter = {"unit": 1, "profile": "eastron-sdm630", "asset": "r2"}
    return Peer({"host": "127.0.0.1", "port": port, "meter": [meter]}, up)


@peer
def nut(root: Path) -> Peer:
    from tests.integrations.nut.server import DRIVERS, Upsd

    if not (DRIVERS / "dummy-ups").exists():
        pytest.skip("dummy-ups (nut-server) is not installed")
    port = free_port()

    @contextmanager
    def up() -> Iterator[None]:
        with Upsd(root, {"one": {"ups.status": "OL", "ups.realpower": "1234.5"}}, port=port):
            yield

    return Peer({"port": port, "ups": [{"name": "one", "asset": "r2"}]}, up)


@peer
def mqtt(root: Path) -> Peer:
    import shutil

    from paho.mqtt import publish

    from tests.integrations.mqtt.broker import Broker

    if not shutil.which("mosquitto"):
        pytest.skip("mosquitto is not installed")
    port = free_port()

    @contextmanager
    def up() -> Iterator[None]:
        with Broker(root, port=port):
            told = json.dumps({"kwh": 1.956, "w": 9, "t": time.time()})
            publish.single("power/n01", told, qos=1, retain=True, hostname="127.0.0.1", port=port)
            yield

    readings = [
        {"value": "/kwh", "time": "/t", "quantity": "energy_counter", "unit": "kWh"},
        {"value": "/w", "time": "/t"},
    ]
    topic = {"topic": "power/{asset}", "nodes": "n01", "reading": readings}
    return Peer({"host": "127.0.0.1", "port": port, "topic": [topic]}, up)


@peer
def bacnet(root: Path) -> Peer:
    from tests.integrations.bacnet.server import Server, free_udp_port
    from tests.integrations.bacnet.test_bacnet import accumulator, point

    port = free_udp_port()

    @contextmanager
    def up() -> Iterator[None]:
        with Server(root, {"analog-input,1": point(48.5), "accumulator,1": accumulator(5)}, port=port):
            yield

    objects = [{"object": name, "asset": "r2"} for name in ("analog-input,1", "accumulator,1")]
    return Peer({"timeout_s": 1, "device": [{"address": f"127.0.0.1:{port}", "object": objects}]}, up)


@peer
def prometheus(root: Path) -> Peer:
    """A file server that shows a page as an exporter does, in a process of its own."""
    page = root / "metrics"
    page.write_text(
        'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-1",Hostname="n01"} 5000000\n'
        'DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-1",Hostname="n01"} 312.5\n'
        'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1",Hostname="n01"} 87\n'
    )
    port = free_port()

    @contextmanager
    def up() -> Iterator[None]:
        command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(root)]
        server = Daemon("exporter", command, root)
        server.wait_ready(lambda: _listens(port))
        try:
            yield
        finally:
            server.stop()

    return Peer({"url": f"http://127.0.0.1:{port}/metrics"}, up)
