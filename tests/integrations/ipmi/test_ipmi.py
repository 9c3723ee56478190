"""DCMI: recorded outputs of both tools, and both tools against a controller over the network."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.daemons import Daemon, free_port
from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.ipmi.link import Config
from wattkeeper.integrations.ipmi.meter import IpmiDevice, devices, parse

RECORDED = Path(__file__).resolve().parents[3] / "../shared/data/devices/ipmi"
NOW_S = 1_795_000_000.0
ACTIVE, OFF = 0x40, 0x00
TOOLS = ["ipmi-dcmi", "ipmitool"]


def has(tool):
    return shutil.which(tool, path="/usr/sbin:/usr/bin:/usr/local/bin") is not None


def ask(call):
    return asyncio.run(call)


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded data are not here")
def test_the_recorded_outputs():
    """215 W of ipmitool (its mean is over 13 days), 90 W of FreeIPMI, and 0 W deactivated in 1970, which is none."""
    readings = sorted((parse(file.read_text()) for file in RECORDED.glob("*.txt")), key=lambda r: r.power_w or 0)

    assert [r.power_w for r in readings] == [None, 90, 215]
    assert readings[0].reason == "its power measurement is deactivated"


@pytest.mark.parametrize(
    ("printed", "power_w"),
    [
        ("Current Power : 612 Watts\nPower Measurement : Active\n", 612),
        ("Current Power : 612 Watts\nPower Measurement : Not Available\n", None),
        ("Current Power : 65535 Watts\nPower Measurement : Active\n", None),
        ("    Instantaneous power reading:   0 Watts\n    Power reading state is:   activated\n", None),
        ("    Instantaneous power reading:   7 Watts\n    Power reading state is:   deactivated\n", None),
        ("    Instantaneous power reading:   7 Watts\n", 7),
    ],
)
def test_what_is_a_reading(printed, power_w):
    """Off, zero and a full field are none."""
    assert parse(printed).power_w == power_w


@pytest.mark.parametrize("printed", ["", "Current Power : n/a\n", "usage: ipmitool", "Current Power : -5 Watts\n"])
def test_what_is_no_output_of_the_tools(printed):
    """It is shown."""
    with pytest.raises(SourceError, match="No power reading in"):
        parse(printed)


class Controller:
    """A fake BMC in a process of its own."""

    def __init__(self, root: Path, port: int) -> None:
        self.shows, self.port = root / "shows.json", port
        self.show(612, 100, 900, 521, 1_795_000_000, 1000, ACTIVE)
        ready = self.shows.with_suffix(".ready")
        ready.unlink(missing_ok=True)
        script = Path(__file__).with_name("fake_bmc.py")
        self.daemon = Daemon("bmc", [sys.executable, str(script), str(port), str(self.shows)], root)
        self.daemon.wait_ready(ready.exists)

    def show(self, *reading: int) -> None:
        """Change what it shows; one number is a completion code."""
        self.shows.write_text(json.dumps(reading[0] if len(reading) == 1 else reading))

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.daemon.stop()


def device_of(port, tool="auto", **more):
    table = {"user": "monitor", "password": "geheim", "cipher_suite": 3, "timeout_s": 20, **more}
    config = Config(host="127.0.0.1", port=port, asset="n01", tool=tool, **table)
    return IpmiDevice(config, "n01", clock=lambda: NOW_S)


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    with Controller(tmp_path_factory.mktemp("bmc"), free_port()) as one:
        yield one


@pytest.fixture(
    params=[pytest.param(t, marks=pytest.mark.skipif(not has(t), reason=f"{t} is not here")) for t in TOOLS]
)
def tool(request):
    return request.param


def test_both_tools_read_a_controller(controller, tool):
    """612 W, stamped with our clock, one meter of a stable name."""
    device = device_of(controller.port, tool, parent="rack")
    found, samples, again = ask(device.discover()), ask(device.sample()), ask(device.discover())

    assert samples == [("n01:dcmi:ipmi:power", 1_795_000_000_000, 612_000)]
    assert [m.id for m in found.meters] == ["n01:dcmi:ipmi:power"]
    assert found.meters == again.meters
    assert [(a.id, a.kind, a.parent) for a in found.assets] == [("n01", "node", "rack")]
    ask(device.close())
    ask(device.close())


def test_a_controller_that_does_not_measure_gives_no_sample(controller, tool):
    """Off at discovery: no meter, a doubt. Off later: no sample. On again: a sample."""
    device = device_of(controller.port, tool)
    controller.show(0, 0, 0, 0, 0, 0, OFF)
    found = ask(device.discover())
    assert found.meters == []
    assert "Read it over Redfish, or measure at the PDU" in found.doubts[0]

    controller.show(430, 100, 900, 400, 1_795_000_000, 1000, ACTIVE)
    assert len(ask(device.discover()).meters) == 1
    controller.show(430, 100, 900, 400, 1_795_000_000, 1000, OFF)
    assert ask(device.sample()) == []
    controller.show(431, 100, 900, 400, 1_795_000_000, 1000, ACTIVE)
    assert [s.value for s in ask(device.sample())] == [431_000]


def test_a_controller_without_dcmi_says_so(controller, tool):
    """Completion code c1, invalid command."""
    controller.show(0xC1)
    try:
        with pytest.raises(SourceError, match=rf"127.0.0.1:{controller.port} gives {tool} no power reading: "):
            ask(device_of(controller.port, tool).discover())
    finally:
        controller.show(612, 100, 900, 521, 1_795_000_000, 1000, ACTIVE)


def test_a_wrong_password_is_said_and_not_shown(controller, tool, tmp_path):
    """The cure names user, password and cipher suite."""
    secret = tmp_path / "secret"
    secret.write_text("falsch\n")
    device = device_of(controller.port, tool, password="", password_file=secret)
    with pytest.raises(SourceError, match="Check user, password, privilege and cipher_suite") as caught:
        ask(device.sample())

    assert "falsch" not in str(caught.value)


def test_a_controller_that_goes_away_is_named_and_comes_back(tmp_path):
    """Within its time-out a fault; after the restart the same meter."""
    port = free_port()
    device = device_of(port, timeout_s=3)
    with Controller(tmp_path, port):
        before = ask(device.sample())
    with pytest.raises(SourceError, match=rf"127.0.0.1:{port} (did not answer|gives)"):
        ask(device.sample())
    with Controller(tmp_path, port):
        assert ask(device.sample()) == before


def test_in_band_without_a_driver_names_the_modules():
    """This machine has no /dev/ipmi0."""
    if Path("/dev/ipmi0").exists():
        pytest.skip("this machine has a controller")
    (device,) = devices(Config(tool="ipmitool"))
    with pytest.raises(SourceError, match=r"ipmi_si and ipmi_devintf"):
        ask(device.discover())


def test_one_table_names_many_nodes():
    """{node} stands for each."""
    made = devices(Config(host="{node}-bmc", nodes="n[1-3]", user="monitor"))

    assert [d.name for d in made] == ["ipmi n1-bmc:623", "ipmi n2-bmc:623", "ipmi n3-bmc:623"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"host": "b", "user": "u"}, "asset is missing"),
        ({"host": "b", "asset": "n1"}, "user is missing"),
        ({"host": "b", "nodes": "n[1-2]", "user": "u"}, "nodes needs a host with {node}"),
    ],
)
def test_a_table_that_cannot_work_is_refused(table, said):
    """The site file's error names the cure."""
    with pytest.raises(ValidationError, match=said):
        Config.model_validate(table)
