"""RAPL on trees of files like those of a two-socket server."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.rapl.link import Config
from wattkeeper.integrations.rapl.meter import RaplDevice, devices

RANGE_UJ = 262_143_328_850
"""max_energy_range_uj of a Xeon."""


def zone(root: Path, name: str, told: str, energy_uj: object, range_uj: int = RANGE_UJ) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{told}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (folder / "enabled").write_text("0\n")  # power limiting is off, counting is not
    return folder


@pytest.fixture
def server(tmp_path):
    """Two sockets with memory, their parts, the platform twice, and the first package again by MMIO."""
    zone(tmp_path, "intel-rapl:0", "package-0", 258_218_293_244)
    zone(tmp_path, "intel-rapl:0:0", "core", 1)
    zone(tmp_path, "intel-rapl:0:1", "dram", 65_532_605_987)
    zone(tmp_path, "intel-rapl:1", "package-1", 1_999)
    zone(tmp_path, "intel-rapl:1:0", "dram", 2_000)
    zone(tmp_path, "intel-rapl:2", "psys", 900_000_000)
    zone(tmp_path, "intel-rapl:3", "psys", 900_000_001)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 258_218_293_244)
    (tmp_path / "intel-rapl").mkdir()  # the control type, no zone
    return tmp_path


def device_of(root, **more):
    return RaplDevice(Config(node="n01", path=root, **more), clock=lambda: 1_795_000_000.0004)


def ask(call):
    return asyncio.run(call)


def test_packages_memory_and_platform_once_each(server):
    """Millijoules are floored: 258 218 293 244 µJ is 258 218 293 mJ, 1 999 µJ is 1 mJ."""
    device = device_of(server, parent="rack")
    found, samples = ask(device.discover()), ask(device.sample())

    assert {s.meter: s.value for s in samples} == {
        "n01/cpu0:package-0:rapl:energy_counter": 258_218_293,
        "n01/dram0:package-0/dram:rapl:energy_counter": 65_532_605,
        "n01/cpu1:package-1:rapl:energy_counter": 1,
        "n01/dram1:package-1/dram:rapl:energy_counter": 2,
        "n01:psys:rapl:energy_counter": 900_000,
    }
    assert [(a.id, a.kind, a.parent) for a in found.assets] == [
        ("n01", "node", "rack"),
        ("n01/cpu0", "cpu", "n01"),
        ("n01/dram0", "dram", "n01"),
        ("n01/cpu1", "cpu", "n01"),
        ("n01/dram1", "dram", "n01"),
    ]
    assert {s.time_ms for s in samples} == {1_795_000_000_000}
    assert found.doubts == []
    assert ask(device.discover()).meters == found.meters == ask(device_of(server).discover()).meters


def test_the_meter_knows_where_its_counter_wraps(server):
    """262 143 328 850 µJ, rounded to whole millijoules; psys is asked last."""
    meters = ask(device_of(server).discover()).meters

    assert {m.wrap_mj for m in meters} == {262_143_329}
    assert {m.rank for m in meters if m.asset == "n01"} == {55}
    assert {m.rank for m in meters if m.asset != "n01"} == {20}


def test_dies_of_a_package_add_up(tmp_path):
    """Two meters of one source and quantity on one CPU."""
    zone(tmp_path, "intel-rapl:0", "package-0-die-0", 5_000)
    zone(tmp_path, "intel-rapl:1", "package-0-die-1", 7_000)
    meters = ask(device_of(tmp_path).discover()).meters

    assert [(m.asset, m.source) for m in meters] == [("n01/cpu0", "rapl")] * 2
    assert len({m.id for m in meters}) == 2


def test_zones_inside_their_packages_are_found(tmp_path):
    """A container may see the tree of devices and not the flat links to it."""
    package = zone(tmp_path, "intel-rapl:0", "package-0", 5_000)
    zone(package, "intel-rapl:0:0", "dram", 7_000)

    assert [s.value for s in ask(device_of(tmp_path).sample())] == [5, 7]


def test_mmio_stands_in_where_there_is_no_msr(tmp_path):
    """Some kernels have only these zones."""
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000)

    assert [s.value for s in ask(device_of(tmp_path).sample())] == [5]


@pytest.mark.parametrize("told", ["", "garbage", "-5", "0"])
def test_a_counter_that_says_nothing_gives_no_sample(server, told):
    """Never 0; the others go on."""
    (server / "intel-rapl:1/energy_uj").write_text(told)

    assert "n01/cpu1:package-1:rapl:energy_counter" not in {s.meter for s in ask(device_of(server).sample())}
    assert len(ask(device_of(server).sample())) == 4


def test_a_zone_that_counts_nothing_is_doubted(server):
    """0 at discovery."""
    (server / "intel-rapl:1:0/energy_uj").write_text("0")

    assert [d.partition(" ")[2] for d in ask(device_of(server).discover()).doubts] == [
        "is always 0: the zone counts nothing on this machine."
    ]


@pytest.mark.parametrize("all_of_them", [True, False])
def test_permission_denied_is_explained(all_of_them):
    """The sentence names the file, the reason and both cures; what can be read is read."""
    root = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's folders are closed to other users
    root.chmod(0o755)
    for i in range(2):
        file = zone(root, f"intel-rapl:{i}", f"package-{i}", 5_000) / "energy_uj"
        file.chmod(0o400 if all_of_them or i else 0o444)
        if os.geteuid() != 0:
            file.chmod(0o000 if all_of_them or i else 0o444)
    said = r"energy_uj may not be read \(.* Since Linux 5.10 only root .*CAP_DAC_READ_SEARCH, .*chgrp wattkeeper"
    device = device_of(root)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(65_534)
    try:
        if all_of_them:
            for call in (device.discover, device.sample):
                with pytest.raises(SourceError, match=said):
                    ask(call())
        else:
            (doubt,) = ask(device.discover()).doubts
            assert "(1 of 2 counters)" in doubt
            assert [s.meter for s in ask(device.sample())] == ["n01/cpu0:package-0:rapl:energy_counter"]
    finally:
        if as_root:
            os.seteuid(0)
        shutil.rmtree(root)


def test_counters_that_vanish_and_return(server, tmp_path_factory):
    """The module is unloaded: a fault that says so; loaded again: the same meters."""
    device = device_of(server)
    before = ask(device.sample())
    away = tmp_path_factory.mktemp("away")
    for folder in server.iterdir():
        folder.rename(away / folder.name)
    for said in ("no longer has RAPL counters", "has no RAPL package. Load intel_rapl_msr"):
        with pytest.raises(SourceError, match=said):
            ask(device.sample())
    for folder in away.iterdir():
        folder.rename(server / folder.name)

    assert ask(device.sample()) == before
    ask(device.close())
    ask(device.close())


def test_the_node_is_this_machine_by_default(server):
    """Its name without the domain."""
    (device,) = devices(Config(path=server))

    assert device.name == f"rapl {os.uname().nodename.partition('.')[0]}"


def test_a_counter_that_does_not_answer_holds_up_no_loop(server):
    """A read that hangs ends with a sentence after its limit, while the loop goes on; the next one is good again."""
    device = device_of(server, timeout_s=0.2)
    file = server / "intel-rapl:1" / "energy_uj"

    async def main():
        await device.discover()
        file.unlink()
        os.mkfifo(file)  # to open it waits for a writer
        ticks = asyncio.create_task(asyncio.sleep(0.05))
        with pytest.raises(SourceError, match=r"rapl n01: .* did not answer within 0.2 s. Is a CPU going offline"):
            await device.sample()
        ticked = ticks.done()
        with file.open("w") as pipe:
            pipe.write("1999")
        file.unlink()
        file.write_text("1999")
        samples = await device.sample()
        await device.close()
        return ticked, len(samples)

    assert ask(main()) == (True, 5)
