"""NVIDIA GPUs by FakeNvml, which speaks the interface of nvidia-ml-py; no GPU is here."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import pynvml
import pytest

from tests.fake_nvml import FakeGpu, FakeNvml, eight
from wattkeeper.core.errors import MissingExtraError, SourceError
from wattkeeper.integrations.nvml import link
from wattkeeper.integrations.nvml.link import Config, Library
from wattkeeper.integrations.nvml.meter import NvmlDevice

NOW_S = 1_795_000_000.0
NOT_SUPPORTED, GPU_IS_LOST = 3, 15


def device_of(library, **more):
    return NvmlDevice(Config(node="n01", **{"check_s": 0.001, **more}), library=lambda: library, clock=lambda: NOW_S)


def ask(call):
    return asyncio.run(call)


def values_of(device):
    return {s.meter: s.value for s in ask(device.sample())}


@pytest.mark.parametrize("name", [n for n in vars(Library) if n.startswith("nvml")])
def test_the_fake_and_our_view_have_the_signatures_of_the_library(name):
    """Names of arguments, their order and defaults; pynvml has no types."""

    def shape(function):
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values() if p.name != "self"]

    assert shape(getattr(pynvml, name)) == shape(getattr(FakeNvml, name)) == shape(getattr(Library, name))


def test_counter_both_powers_and_utilisation_of_each_gpu():
    """627.4 W mean, 626.26 W now; three readings before: 5 000 000 + 4 × 62 740 mJ; 98 % is 980 000 ppm."""
    library = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b", busy_percent=0))
    device = device_of(library, parent="rack")
    found = ask(device.discover())
    samples = ask(device.sample())

    assert [(a.id, a.kind, a.parent, a.max_power_w) for a in found.assets] == [
        ("n01", "node", "rack", None), ("n01/gpu0", "gpu", "n01", 700.0), ("n01/gpu1", "gpu", "n01", 700.0),
    ]  # fmt: skip
    assert found.assets[1].model == "NVIDIA H200"
    assert found.doubts == []
    assert [(m.quantity, m.source, m.rank) for m in found.meters[:4]] == [
        ("energy_counter", "nvml", 10), ("power", "nvml", 10), ("power", "nvml-instant", 12),
        ("utilisation", "nvml-util", 30),
    ]  # fmt: skip
    assert {s.meter for s in samples} == {m.id for m in found.meters}
    assert [s.value for s in samples] == [5_250_960, 627_400, 626_260, 980_000, 5_250_960, 627_400, 626_260, 0]
    assert {s.time_ms for s in samples} == {1_795_000_000_000}
    assert samples[0].meter == "n01/gpu0:GPU-a:nvml:energy_counter"
    assert ask(device.discover()).meters == found.meters


def test_a_board_without_counter_and_fields_is_read_by_its_power():
    """Pascal: no counter, no fields; nvmlDeviceGetPowerUsage stands in, and discovery says what that is worth."""
    library = FakeNvml(FakeGpu("GPU-a", "Tesla P100", 181_000, None, fields={}))
    device = device_of(library)
    found = ask(device.discover())

    assert [m.quantity for m in found.meters] == ["power", "utilisation"]
    assert found.doubts[0].startswith("n01/gpu0 has no energy counter: its energy is summed from power samples")
    assert values_of(device)["n01/gpu0:GPU-a:nvml:power"] == 181_000


@pytest.mark.parametrize("power_mw", [0, None])
def test_what_is_not_supported_is_absent_and_never_zero(power_mw):
    """A guest's GPU says NOT_SUPPORTED, or 0, to everything but how busy it is."""
    gpu = FakeGpu("GPU-a", "GRID V100D-8Q", power_mw or 0, None, fields={}, busy_percent=55)
    if power_mw is None:
        gpu.fails["nvmlDeviceGetPowerUsage"] = NOT_SUPPORTED
    device = device_of(FakeNvml(gpu))
    found = ask(device.discover())

    assert [m.quantity for m in found.meters] == ["utilisation"]
    assert "n01/gpu0 (GRID V100D-8Q) tells neither energy nor power" in found.doubts[0]
    assert values_of(device) == {"n01/gpu0:GPU-a:nvml-util:utilisation": 550_000}


def test_a_value_that_goes_missing_gives_no_sample():
    """Instant power NOT_SUPPORTED from now on, 65 535 % busy: the others go on."""
    gpu = FakeGpu("GPU-a")
    device = device_of(FakeNvml(gpu))
    ask(device.discover())
    del gpu.fields[186]
    gpu.busy_percent = 65_535

    assert list(values_of(device)) == ["n01/gpu0:GPU-a:nvml:energy_counter", "n01/gpu0:GPU-a:nvml:power"]


@pytest.mark.parametrize("what", ["absent", "another number"])
def test_a_counter_that_is_no_field_is_asked_for_by_its_own_call(what):
    """An old driver has no field 83; one that shows another number there is not believed."""
    gpu = FakeGpu("GPU-a", field_energy=False)
    if what == "another number":
        gpu.fields[83] = 7
    device = device_of(FakeNvml(gpu))
    found = ask(device.discover())

    assert found.doubts == []
    assert values_of(device)["n01/gpu0:GPU-a:nvml:energy_counter"] == 5_000_000 + 3 * 62_740


def test_a_counter_that_stands_still_while_power_is_drawn_is_left():
    """At 0.4 mW per tenth of a second nothing is added."""
    library = FakeNvml(FakeGpu("GPU-a", power_mw=4))
    found = ask(device_of(library).discover())

    assert [m.quantity for m in found.meters] == ["power", "power", "utilisation"]
    assert "stands still at 5000000 mJ while it draws power" in found.doubts[0]


def test_mig_instances_are_assets_with_their_part_of_the_slices():
    """3g and 2g of seven, two compute instances sharing one GPU instance; no utilisation under MIG."""
    library = FakeNvml(FakeGpu("GPU-a", mig=[(1, 3), (1, 3), (5, 2)]), FakeGpu("GPU-b", "A30", mig=[(3, 1)], slices=4))
    device = device_of(library)
    found = ask(device.discover())

    assert [(a.id, a.kind, a.parent, a.slice) for a in found.assets if a.kind == "mig"] == [
        ("n01/gpu0/1", "mig", "n01/gpu0", 3 / 7), ("n01/gpu0/5", "mig", "n01/gpu0", 2 / 7),
        ("n01/gpu1/3", "mig", "n01/gpu1", 1 / 4),
    ]  # fmt: skip
    assert {m.asset for m in found.meters} == {"n01/gpu0", "n01/gpu1"}
    assert {m.quantity for m in found.meters} == {"energy_counter", "power"}


def test_mig_calls_are_made_at_discovery_only():
    """They take 50 to 100 ms each: a reading makes one call for each GPU, counter and powers as fields."""
    library = FakeNvml(FakeGpu("GPU-a", mig=[(1, 3)]))
    device = device_of(library)
    ask(device.sample())
    before = library.calls
    ask(device.sample())

    assert library.calls - before == 1


def test_a_module_is_a_meter_of_the_node_and_not_of_the_gpu():
    """GH200: the module's 612 W hold the GPU's 450 W and the CPU."""
    fields = {185: 451_000, 186: 450_000, (186, 1): 612_000}
    device = device_of(FakeNvml(FakeGpu("GPU-a", "NVIDIA GH200 480GB", 450_000, fields=fields)))
    found = ask(device.discover())
    (module,) = [m for m in found.meters if m.source == "nvml-module"]

    assert (module.asset, module.quantity, module.rank) == ("n01", "power", 70)
    assert values_of(device)[module.id] == 612_000
    assert [m.source for m in found.meters if m.asset == "n01/gpu0"] == ["nvml", "nvml", "nvml-instant", "nvml-util"]


def test_limits_and_what_holds_a_gpu_down_are_doubts():
    """A cap of 400 W of 700 W, heat and power brake; a software power cap alone is said by the limit."""
    found = ask(device_of(FakeNvml(FakeGpu("GPU-a", limit_mw=400_000, reasons=0x40 | 0x80 | 0x04))).discover())

    assert found.doubts == [
        "n01/gpu0 is limited to 400 W of 700 W. If nobody wants that: nvidia-smi --power-limit.",
        "n01/gpu0 is slowed down by heat (hardware), the power brake of its supply. See to its cooling and supply.",
    ]


def test_a_lost_gpu_is_one_fault_and_the_others_go_on():
    """The fault names the GPU and Xid 79; the seven others keep their numbers and meters, and so does it when back."""
    library = eight()
    device = device_of(library)
    before = values_of(device)
    library.gpus[3].lost = True
    with pytest.raises(SourceError, match=r"nvml n01: n01/gpu3 fails: GPU is lost\. It fell off the bus.*Xid 79"):
        ask(device.sample())

    assert set(before) - set(values_of(device)) == {m for m in before if "/gpu3:" in m}
    assert "GPU 3 in the driver's order: GPU is lost" in ask(device.discover()).doubts[0]
    library.gpus[3].lost = False
    ask(device.discover())
    assert set(values_of(device)) == set(before)


def test_a_gpu_that_is_no_longer_listed_leaves_the_numbers_of_the_others():
    """Without GPU-0 the driver lists GPU-1 first; it stays gpu1. A new board takes the place that is free."""
    library = FakeNvml(FakeGpu("GPU-0"), FakeGpu("GPU-1"))
    device = device_of(library)
    ask(device.discover())
    library.gpus.pop(0)
    assert [a.id for a in ask(device.discover()).assets] == ["n01", "n01/gpu1"]
    library.gpus.insert(0, FakeGpu("GPU-9"))

    assert [m.id for m in ask(device.discover()).meters if m.quantity == "energy_counter"] == [
        "n01/gpu0:GPU-9:nvml:energy_counter", "n01/gpu1:GPU-1:nvml:energy_counter",
    ]  # fmt: skip


def test_a_driver_reload_is_one_fault_and_comes_back():
    """While it is away it is named; the counter starts from its new value and no handle of before is used."""
    library = FakeNvml(FakeGpu("GPU-a"))
    device = device_of(library)
    before = set(values_of(device))
    library.loaded = False
    with pytest.raises(SourceError, match=r"n01/gpu0 fails: Unknown Error"):
        ask(device.sample())
    with pytest.raises(SourceError, match=r"the driver fails: Driver Not Loaded. Load the driver: modprobe nvidia"):
        ask(device.sample())
    library.loaded, library.open, library.gpus[0].energy_mj = True, 0, 100

    assert set(values_of(device)) == before
    assert values_of(device)["n01/gpu0:GPU-a:nvml:energy_counter"] == 100 + 5 * 62_740
    ask(device.close())
    ask(device.close())
    assert library.open == 0


def test_a_driver_that_hangs_ends_in_time_and_is_not_asked_again_and_again():
    """A call that hangs in the kernel holds one thread; what was asked meanwhile is forgotten."""
    library = FakeNvml(FakeGpu("GPU-a"))
    device = device_of(library, timeout_s=0.05)
    ask(device.discover())
    calls = library.calls
    library.hang.clear()

    async def hang():
        for _ in range(3):
            with pytest.raises(SourceError, match=r"did not answer within 0.05 s. See dmesg"):
                await device.sample()

    ask(hang())
    library.hang.set()
    assert len(ask(device_of(library).sample())) == 4
    ask(device.close())
    assert library.calls - calls < 40


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a driver")
def test_the_real_module_without_a_driver_says_what_to_install():
    """libnvidia-ml.so.1 is not there."""
    with pytest.raises(SourceError, match=r"NVML Shared Library Not Found\. Install NVIDIA's driver"):
        ask(NvmlDevice(Config(node="n01")).discover())


def test_without_the_module_the_extra_is_named(monkeypatch):
    """pip install 'wattkeeper[nvml]'."""

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(link.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"wattkeeper\[nvml\]"):
        link.load()
