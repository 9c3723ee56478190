"""AMD GPUs by a fake of ROCm's library that speaks its interface, as of amdsmi 7.0."""

from __future__ import annotations

import asyncio
import importlib.util
import threading

import pytest

from wattkeeper.core.errors import MissingExtraError, SourceError
from wattkeeper.integrations.amdsmi import link
from wattkeeper.integrations.amdsmi.link import Config
from wattkeeper.integrations.amdsmi.meter import AmdDevice

NOW_S = 1_795_000_000.0
TICK_UJ = 15.259
NONE = "N/A"


class FakeAmdSmi:
    """GPUs as dicts: watts, ticks, what its counter really counts, activity, serial. Time runs 1 s with each reading."""

    class AmdSmiException(Exception):  # noqa: N818 - the library's name
        """Base of the library's faults."""

    def __init__(self, *gpus: dict) -> None:
        self.gpus = [
            {"watts": 500, "ticks": 1_000_000, "counts_w": 500, "busy": 87, "serial": f"0x{i + 1}", **g}
            for i, g in enumerate(gpus)
        ]
        self.open, self.gone, self.hang = 0, False, threading.Event()
        self.hang.set()

    def _check(self):
        self.hang.wait(10)
        if self.gone or not self.open:
            raise self.AmdSmiException("AMDSMI_STATUS_NOT_INIT - Device not initialized")

    def amdsmi_init(self):
        if self.gone:
            raise self.AmdSmiException("AMDSMI_STATUS_DRIVER_NOT_LOADED - Driver not loaded")
        self.open += 1

    def amdsmi_shut_down(self):
        self._check()
        self.open -= 1

    def amdsmi_get_processor_handles(self):
        self._check()
        return list(range(len(self.gpus)))

    def amdsmi_get_gpu_device_uuid(self, handle):
        return f"uuid-{handle}"

    def amdsmi_get_gpu_asic_info(self, handle):
        return {"market_name": "AMD Instinct MI300X", "asic_serial": self.gpus[handle]["serial"], "oam_id": handle}

    def amdsmi_get_energy_count(self, handle):
        self._check()
        gpu = self.gpus[handle]
        if gpu["ticks"] is None:
            raise self.AmdSmiException("AMDSMI_STATUS_NOT_SUPPORTED - Feature not supported")
        gpu["ns"] = gpu.get("ns", 0) + 1_000_000_000
        gpu["ticks"] += round(gpu["counts_w"] * 1e6 / TICK_UJ) if gpu["ticks"] else 0
        return {"energy_accumulator": gpu["ticks"], "counter_resolution": TICK_UJ, "timestamp": gpu["ns"]}

    def amdsmi_get_power_info(self, handle):
        self._check()
        watts = self.gpus[handle]["watts"]
        mean = self.gpus[handle].get("mean", NONE)
        return {"current_socket_power": watts, "average_socket_power": mean, "power_limit": 750_000_000}

    def amdsmi_get_gpu_activity(self, handle):
        self._check()
        return {"gfx_activity": self.gpus[handle]["busy"], "umc_activity": 3, "mm_activity": NONE}


def device_of(library, **more):
    return AmdDevice(Config(node="n01", check_s=0, **more), library=lambda: library, clock=lambda: NOW_S)


def ask(call):
    return asyncio.run(call)


def test_counter_power_and_utilisation_of_each_gpu():
    """500 W; ticks of 15.259 µJ; 87 % is 870 000 ppm."""
    library = FakeAmdSmi({}, {"watts": 140, "counts_w": 140, "busy": 0})
    device = device_of(library, parent="rack")
    found = ask(device.discover())
    samples = {s.meter: s for s in ask(device.sample())}

    assert [(a.id, a.kind, a.parent) for a in found.assets] == [
        ("n01", "node", "rack"), ("n01/gpu0", "gpu", "n01"), ("n01/gpu1", "gpu", "n01"),
    ]  # fmt: skip
    assert found.assets[1].model == "AMD Instinct MI300X"
    assert found.doubts == []
    assert set(samples) == {m.id for m in found.meters}
    assert samples["n01/gpu0:uuid-0:amdsmi:power"].value == 500_000
    assert samples["n01/gpu0:uuid-0:amdsmi:energy_counter"].value == round(library.gpus[0]["ticks"] * TICK_UJ / 1000)
    assert samples["n01/gpu0:uuid-0:amdsmi:utilisation"].value == 870_000
    assert samples["n01/gpu1:uuid-1:amdsmi:utilisation"].value == 0
    assert {s.time_ms for s in samples.values()} == {1_795_000_000_000}
    assert ask(device.discover()).meters == found.meters


def test_a_mean_stands_in_for_power_now():
    """MI200 and Radeon tell only average_socket_power."""
    samples = {
        s.meter: s.value for s in ask(device_of(FakeAmdSmi({"watts": NONE, "mean": 75, "counts_w": 75})).sample())
    }

    assert samples["n01/gpu0:uuid-0:amdsmi:power"] == 75_000


@pytest.mark.parametrize("counts_w", [0, 1, 50_000])
def test_a_counter_that_disagrees_with_the_power_is_left(counts_w):
    """Standing still, or off by a factor of a hundred, at 500 W."""
    found = ask(device_of(FakeAmdSmi({"counts_w": counts_w})).discover())

    assert [m.quantity for m in found.meters] == ["power", "utilisation"]
    assert f"its energy counter says {counts_w}.0 W while its power is 500.0 W" in found.doubts[0]


@pytest.mark.parametrize("watts", [NONE, 0, 0xFFFF])
@pytest.mark.parametrize("ticks", [None, 0])
def test_what_is_no_reading_gives_no_meter(watts, ticks):
    """A guest's GPU has no meter, but shows how busy it is."""
    found = ask(device_of(FakeAmdSmi({"watts": watts, "ticks": ticks})).discover())

    assert [m.quantity for m in found.meters] == ["utilisation"]
    assert "tells neither energy nor power" in found.doubts[0]


def test_a_value_that_goes_missing_gives_no_sample():
    """The others go on."""
    library = FakeAmdSmi({})
    device = device_of(library)
    ask(device.discover())
    library.gpus[0].update(watts=NONE, busy=0xFFFF)

    assert [s.meter for s in ask(device.sample())] == ["n01/gpu0:uuid-0:amdsmi:energy_counter"]


def test_dies_of_a_package_are_counted_once():
    """Both dies of an MI250X show 400 W of the card: one power meter, two utilisations."""
    card = {"watts": 400, "counts_w": 400, "serial": "0xabc"}
    found = ask(device_of(FakeAmdSmi(card, card, {"serial": NONE}, {"serial": "0x0000"})).discover())

    assert [m.asset for m in found.meters if m.quantity == "power"] == ["n01/gpu0", "n01/gpu2", "n01/gpu3"]
    assert [m.asset for m in found.meters if m.quantity == "utilisation"] == [f"n01/gpu{i}" for i in range(4)]
    assert found.doubts == ["n01/gpu1 is part of the package of n01/gpu0, whose meter counts both: read there, once."]


def test_a_driver_that_goes_away_is_named_and_comes_back():
    """What to check; then the same meters."""
    library = FakeAmdSmi({})
    device = device_of(library)
    before = [s.meter for s in ask(device.sample())]
    library.gone = True
    for _ in range(2):
        with pytest.raises(SourceError, match=r"amdsmi n01 fails: .*Is the amdgpu driver loaded.*render and video"):
            ask(device.sample())
    library.gone = False

    assert [s.meter for s in ask(device.sample())] == before
    ask(device.close())
    ask(device.close())


def test_a_driver_that_hangs_ends_in_time():
    """A GPU in reset blocks its callers."""
    library = FakeAmdSmi({})
    device = device_of(library, timeout_s=0.2)
    ask(device.discover())

    async def hang():
        library.hang.clear()
        with pytest.raises(SourceError, match=r"did not answer within 0.2 s. See dmesg"):
            await device.sample()
        library.hang.set()

    ask(hang())
    assert len(ask(device.sample())) == 3


@pytest.mark.skipif(importlib.util.find_spec("amdsmi") is None, reason="amdsmi is not installed")
def test_the_real_module_without_rocm_says_what_is_missing():
    """Its import fails where libamd_smi.so is not there."""
    try:
        link.load()
    except SourceError as error:
        assert "Install ROCm's amd-smi-lib" in str(error)  # noqa: PT017 - ROCm may be there
    else:
        pytest.skip("this machine has ROCm")


def test_without_the_module_the_extra_is_named(monkeypatch):
    """pip install 'wattkeeper[amdsmi]'."""

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(link.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"wattkeeper\[amdsmi\]"):
        link.load()
