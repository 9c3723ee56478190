"""hwmon on trees of files like the kernel's."""

from __future__ import annotations

import asyncio
import os

import pytest

from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.hwmon.link import Config
from wattkeeper.integrations.hwmon.meter import HwmonDevice, devices


def chip(root, number, driver, device, **files):
    folder, real = root / "class" / f"hwmon{number}", root / "devices" / device
    folder.mkdir(parents=True)
    real.mkdir(parents=True, exist_ok=True)
    (folder / "device").symlink_to(real)
    for name, told in {"name": driver, **files}.items():
        (folder / name).write_text(f"{told}\n")
    return folder


def device_of(root, **more):
    return HwmonDevice(Config(node="n01", path=root / "class", **more), clock=lambda: 1_795_000_000.0)


def ask(call):
    return asyncio.run(call)


def read(root, **more):
    device = device_of(root, **more)
    found, samples = ask(device.discover()), ask(device.sample())
    assert {s.meter for s in samples} <= {m.id for m in found.meters}
    return found, {s.meter: s.value for s in samples}


def test_an_acpi_meter_is_the_node_and_its_average_counts(tmp_path):
    """432 000 000 µW is 432 000 mW; the cap is no reading."""
    chip(tmp_path, 3, "power_meter", "ACPI000D:00", power1_average=432_000_000, power1_input=1, power1_cap=900_000_000)
    found, values = read(tmp_path, parent="rack")

    assert values == {"n01:power_meter@ACPI000D:00/power1:hwmon:power": 432_000}
    assert [(a.id, a.kind, a.parent) for a in found.assets] == [("n01", "node", "rack")]
    assert found.doubts == []


def test_another_number_after_a_boot_is_the_same_meter(tmp_path):
    """hwmon3 today, hwmon5 tomorrow."""
    folder = chip(tmp_path, 3, "power_meter", "ACPI000D:00", power1_average=432_000_000)
    before, _values = read(tmp_path)
    folder.rename(tmp_path / "class/hwmon5")

    assert read(tmp_path)[0].meters == before.meters


def test_gpus_in_the_order_of_their_addresses(tmp_path):
    """An AMD card with power, an Intel card with energies: the card's, not the package's, which is part of it."""
    chip(tmp_path, 1, "xe", "0000:c3:00.0", energy1_input=5_000_000, energy1_label="card",
         energy2_input=4_000_000, energy2_label="pkg", power1_cap=1)  # fmt: skip
    chip(tmp_path, 2, "amdgpu", "0000:03:00.0", power1_average=75_000_000, power1_label="PPT")
    chip(tmp_path, 0, "nvme", "nvme0", temp1_input=40_000)
    found, values = read(tmp_path)

    assert values == {
        "n01/gpu0:amdgpu@0000:03:00.0/power1:hwmon:power": 75_000,
        "n01/gpu1:xe@0000:c3:00.0/energy1:hwmon:energy_counter": 5_000,
    }
    assert [(a.id, a.kind) for a in found.assets] == [("n01", "node"), ("n01/gpu0", "gpu"), ("n01/gpu1", "gpu")]
    assert "xe@0000:c3:00.0 pkg" in found.doubts[0]


def test_grace_counts_its_sockets_and_not_their_rails_or_the_module(tmp_path):
    """Four meters of one socket: Module contains the GPU, CPU and SysIO are parts of Grace."""
    rails = ("Module Power Socket 0", "Grace Power Socket 0", "CPU Power Socket 0", "SysIO Power Socket 0")
    for i, rail in enumerate(rails):
        chip(tmp_path, i, "power_meter", f"ACPI000D:0{i}", power1_average=(i + 1) * 100_000_000)
        (tmp_path / f"devices/ACPI000D:0{i}/power1_oem_info").write_text(rail)
    found, values = read(tmp_path)

    assert values == {"n01/cpu0:power_meter@ACPI000D:01/power1:hwmon:power": 200_000}
    assert len(found.doubts) == 1
    assert "Module Power Socket 0" in found.doubts[0]


def test_amd_energy_counts_sockets_and_not_cores(tmp_path):
    """Ecore counters are parts of their socket."""
    chip(tmp_path, 0, "amd_energy", "amd_energy.0", energy1_input=9, energy1_label="Ecore000",
         energy2_input=7_000_500, energy2_label="Esocket1")  # fmt: skip

    assert read(tmp_path)[1] == {"n01/cpu1:amd_energy@amd_energy.0/energy2:hwmon:energy_counter": 7_000}


def test_a_rail_is_read_where_it_is_placed(tmp_path):
    """By its label, or its number."""
    chip(tmp_path, 0, "ina3221", "1-0040", power1_input=12_345_678, power1_label="VDD_IN", power2_input=5)
    found, values = read(tmp_path, sensor=[{"chip": "ina3221", "sensor": "VDD_IN", "asset": "n01"}])

    assert values == {"n01:ina3221@1-0040/power1:hwmon-sensor:power": 12_345}
    assert "ina3221@1-0040 power2" in found.doubts[0]
    with pytest.raises(SourceError, match=r"has no chip 'ina3221' with sensor 'VIN'\. It has ina3221@1-0040 VDD_IN"):
        read(tmp_path, sensor=[{"chip": "ina3221", "sensor": "VIN", "asset": "n01"}])


@pytest.mark.parametrize("told", ["", "-1", "N/A"])
def test_what_is_no_reading_gives_no_sample(tmp_path, told):
    """The other sensor goes on."""
    chip(tmp_path, 0, "amdgpu", "0000:03:00.0", power1_average=75_000_000, energy1_input=told)

    assert list(read(tmp_path)[1].values()) == [75_000]


def test_drivers_that_go_and_come_back(tmp_path):
    """No sensor: what to load. Back: the same meters."""
    folder = chip(tmp_path, 0, "power_meter", "ACPI000D:00", power1_average=432_000_000)
    device = device_of(tmp_path)
    before = ask(device.sample())
    folder.rename(tmp_path / "away")
    for said in ("none tells a value", "has no power or energy sensor. Load the driver"):
        with pytest.raises(SourceError, match=said):
            ask(device.sample())
    (tmp_path / "away").rename(folder)

    assert ask(device.sample()) == before
    ask(device.close())
    ask(device.close())


def test_a_driver_that_hangs_ends_in_time(tmp_path):
    """A pipe that nobody writes blocks like a driver that waits for the BMC."""
    folder = chip(tmp_path, 0, "power_meter", "ACPI000D:00", power1_average=432_000_000)
    (device,) = devices(Config(node="n01", path=tmp_path / "class", timeout_s=0.2))
    ask(device.discover())
    file = folder / "power1_average"
    file.unlink()
    os.mkfifo(file)

    async def hang():
        with pytest.raises(SourceError, match=r"did not answer within 0.2 s.*raise timeout_s"):
            await device.sample()
        os.close(os.open(file, os.O_RDWR | os.O_NONBLOCK))  # lets the thread go

    ask(hang())
    file.unlink()
    file.write_text("433000000")
    assert [s.value for s in ask(device.sample())] == [433_000]
