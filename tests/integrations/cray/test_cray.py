"""pm_counters on trees of files in the node controller's format."""

from __future__ import annotations

import asyncio
import os

import pytest

from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.cray.link import Config
from wattkeeper.integrations.cray.meter import CrayDevice, devices

NOW_S = 1_784_929_201.0
STAMP_US = 1_784_929_200_280_410
FILES = {
    "energy": f"4709337659 J {STAMP_US} us",
    "power": f"1210 W {STAMP_US} us",
    "accel0_energy": f"208970342 J {STAMP_US} us",
    "accel0_power": f"232 W {STAMP_US} us",
    "accel3_energy": f"208970343 J {STAMP_US} us",
    "cpu_energy": f"1000 J {STAMP_US} us",
    "memory_power": f"48 W {STAMP_US} us",
    "accel0_power_cap": "560 W",
    "power_cap": "0 W",
    "cpu0_temp": f"41 C {STAMP_US} us",
    "freshness": "1234",
    "generation": "7",
    "startup": f"{STAMP_US}",
    "raw_scan_hz": "10",
    "version": "2",
}


@pytest.fixture
def node(tmp_path):
    write(tmp_path, FILES)
    return tmp_path


def write(root, files):
    for name, told in files.items():
        (root / name).write_text(f"{told}\n")


def device_of(root, now=None, **more):
    return CrayDevice(Config(node="nid1", path=root, **more), clock=lambda: now[0] if now else NOW_S)


def ask(call):
    return asyncio.run(call)


def test_node_and_parts_with_the_controllers_time(node):
    """1 J is 1000 mJ; 1 784 929 200 280 410 µs is …280 ms; caps and temperatures are no meters."""
    device = device_of(node, parent="cab1")
    found, samples = ask(device.discover()), ask(device.sample())

    assert {s.meter: s.value for s in samples} == {
        "nid1:node:cray:energy_counter": 4_709_337_659_000,
        "nid1:node:cray:power": 1_210_000,
        "nid1/gpu0:accel0:cray:energy_counter": 208_970_342_000,
        "nid1/gpu0:accel0:cray:power": 232_000,
        "nid1/gpu3:accel3:cray:energy_counter": 208_970_343_000,
        "nid1/cpu0:cpu:cray:energy_counter": 1_000_000,
        "nid1/dram0:memory:cray:power": 48_000,
    }
    assert {s.time_ms for s in samples} == {1_784_929_200_280}
    assert [(a.id, a.kind, a.parent) for a in found.assets] == [
        ("nid1", "node", "cab1"),
        ("nid1/gpu0", "gpu", "nid1"),
        ("nid1/gpu3", "gpu", "nid1"),
        ("nid1/cpu0", "cpu", "nid1"),
        ("nid1/dram0", "dram", "nid1"),
    ]
    assert ask(device.discover()).meters == found.meters


def test_single_cpus_are_preferred_to_their_sum(node):
    """cpu_energy is cpu0_energy + cpu1_energy, and counted once."""
    write(node, {"cpu0_energy": f"400 J {STAMP_US} us", "cpu1_energy": f"600 J {STAMP_US} us"})
    meters = ask(device_of(node).discover()).meters

    assert [m.id for m in meters if "/cpu" in m.asset] == [
        "nid1/cpu0:cpu0:cray:energy_counter",
        "nid1/cpu1:cpu1:cray:energy_counter",
    ]


def test_a_scan_that_is_written_while_we_read_is_read_again(node, monkeypatch):
    """Freshness moves once in between: the second reading counts, all of one scan."""
    device = device_of(node)
    ask(device.discover())
    read, calls = device._read, []

    def torn():
        calls.append(1)
        if len(calls) == 1:
            samples = read()
            write(node, {"freshness": "1235", "energy": f"4709337780 J {STAMP_US + 100_000} us"})
            return samples
        return read()

    monkeypatch.setattr(device, "_read", torn)
    samples = {s.meter: s for s in ask(device.sample())}

    assert len(calls) == 2
    assert samples["nid1:node:cray:energy_counter"] == (
        "nid1:node:cray:energy_counter",
        1_784_929_200_380,
        4_709_337_780_000,
    )


def test_counters_that_stop_are_said_and_come_back(node):
    """Freshness that stands still for more than five seconds is a fault, not a reading."""
    now = [NOW_S]
    device = device_of(node, now)
    assert len(ask(device.sample())) == 7
    now[0] += 5.0
    assert len(ask(device.sample())) == 7
    now[0] += 0.5
    with pytest.raises(SourceError, match=r"has not been updated for 6 s\. The node controller"):
        ask(device.sample())
    write(node, {"freshness": "1300"})
    assert len(ask(device.sample())) == 7


@pytest.mark.parametrize("told", ["", "n/a", "-3 J 1 us", "12 kJ 5 us", "0 J 0 us"])
def test_what_is_no_reading_gives_no_sample(node, told):
    """The others go on."""
    device = device_of(node)
    ask(device.discover())
    write(node, {"energy": told})

    assert "nid1:node:cray:energy_counter" not in {s.meter for s in ask(device.sample())}
    assert len(ask(device.sample())) == 6


def test_a_clock_that_was_never_set_is_replaced_by_ours(node):
    """A stamp of 1970."""
    write(node, {"power": "1211 W 99 us"})
    samples = {s.meter: s for s in ask(device_of(node).sample())}

    assert samples["nid1:node:cray:power"].time_ms == 1_784_929_201_000


def test_a_node_without_counters_says_so_and_they_may_come_back(node, tmp_path_factory):
    """Gone, a fault; there again, the same meters."""
    device = device_of(node)
    before = ask(device.sample())
    for name in FILES:
        (node / name).unlink()
    for said in ("can no longer be read", "has no counters. Only HPE Cray"):
        with pytest.raises(SourceError, match=said):
            ask(device.sample())
    write(node, FILES)

    assert ask(device.sample()) == before
    ask(device.close())
    ask(device.close())


def test_without_freshness_a_doubt(node):
    """Old kernels."""
    (node / "freshness").unlink()
    (device,) = devices(Config(node="nid1", path=node))

    assert any("counters that stop cannot be told" in doubt for doubt in ask(device.discover()).doubts)
    assert len(ask(device.sample())) == 7


def test_files_that_do_not_answer_hold_up_no_loop(node):
    """A read that hangs ends with a sentence after its limit, while the loop goes on; the next one is good again."""
    device = device_of(node, timeout_s=0.2)
    told = (node / "power").read_text()

    async def main():
        await device.discover()
        (node / "power").unlink()
        os.mkfifo(node / "power")  # to open it waits for a writer
        ticks = asyncio.create_task(asyncio.sleep(0.05))
        with pytest.raises(
            SourceError, match=r"cray nid1: .* did not answer within 0.2 s. Is the node controller busy"
        ):
            await device.sample()
        ticked = ticks.done()
        with (node / "power").open("w") as pipe:
            pipe.write(told)
        (node / "power").unlink()
        (node / "power").write_text(told)
        samples = await device.sample()
        await device.close()
        return ticked, len(samples)

    assert ask(main()) == (True, 7)
