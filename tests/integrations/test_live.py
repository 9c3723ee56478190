"""What the agent relies on in each integration that is read live: entry point, table, page, extra."""

from __future__ import annotations

import asyncio
import importlib
import tomllib
import typing
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest
from pydantic import BaseModel

import wattkeeper.integrations
from tests.daemons import free_port
from wattkeeper.core.errors import SourceError

NAMES = [
    "amdsmi",
    "bacnet",
    "cray",
    "hwmon",
    "ipmi",
    "modbus",
    "mqtt",
    "nut",
    "nvml",
    "prometheus",
    "rapl",
    "redfish",
    "snmp",
]
FOLDER = Path(wattkeeper.integrations.__file__).parent


def page_of(name):
    return (FOLDER / name / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_entry_point_takes_the_table_of_its_link(name):
    """`devices` of the entry point, and the model that its argument names, which is `link.Config`."""
    (point,) = entry_points(group="wattkeeper.devices", name=name)
    model = typing.get_type_hints(point.load())["config"]

    assert model is importlib.import_module(f"wattkeeper.integrations.{name}.link").Config
    assert issubclass(model, BaseModel)
    assert all(field.description for field in model.model_fields.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_on_its_page_is_a_table_that_works(name):
    """The README's TOML is validated, and gives devices with names of their own."""
    text = page_of(name).partition("```toml\n")[2].partition("```")[0]
    tables = tomllib.loads(text)["agent"][name]
    (point,) = entry_points(group="wattkeeper.devices", name=name)
    make = point.load()
    model = typing.get_type_hints(make)["config"]
    made = [device for table in tables for device in make(model.model_validate(table))]

    assert len(made) == len({device.name for device in made}) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_its_parts_and_the_package_its_extra(name):
    """Needs, quantities with units, known limits; `pip install wattkeeper[NAME]`."""
    page = page_of(name)

    assert all(part in page for part in ("## Needs", "## Quantities", "unit there", "## Known limits"))
    assert name in metadata("wattkeeper").get_all("Provides-Extra")


def absent(name, root):
    """Return a table of something that is not there."""
    network = {"host": "127.0.0.1", "port": free_port(), "asset": "n01", "user": "u", "timeout_s": 2}
    return {
        "redfish": {"url": f"http://127.0.0.1:{free_port()}", "asset": "n01"},
        "ipmi": network,
        "prometheus": {"url": f"http://127.0.0.1:{free_port()}/metrics"},
        "snmp": {"host": "127.0.0.1", "port": free_port(), "asset": "n01", "timeout_s": 0.5},
        "amdsmi": {"node": "n01"},
        "nvml": {"node": "n01"},
        "bacnet": {
            "timeout_s": 0.3,
            "discover_timeout_s": 0.3,
            "device": [
                {"address": f"127.0.0.1:{free_port()}", "object": [{"object": "analog-input,1", "asset": "hall-1"}]}
            ],
        },
        "modbus": {
            "host": "127.0.0.1",
            "port": free_port(),
            "meter": [{"profile": "sunspec", "asset": "hall-1"}],
        },
        "mqtt": {
            "host": "127.0.0.1",
            "port": free_port(),
            "topic": [{"topic": "{asset}", "preset": "tasmota", "nodes": "n01"}],
        },
        "nut": {"port": free_port(), "ups": [{"name": "u", "asset": "rack-a1"}]},
    }.get(name, {"node": "n01", "path": root})


HERE = {"amdsmi": "/dev/kfd", "nvml": "/dev/nvidiactl"}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in HERE or not Path(HERE[n]).exists()])
def test_what_is_not_there_is_named_and_can_be_closed(name, tmp_path):
    """Each call fails by itself, as often as it is made, with the device's name; closing never fails."""
    (point,) = entry_points(group="wattkeeper.devices", name=name)
    make = point.load()
    (device,) = make(typing.get_type_hints(make)["config"].model_validate(absent(name, tmp_path)))

    async def ask():
        for call in (device.sample, device.discover, device.sample):
            with pytest.raises(SourceError) as caught:
                await call()
            assert device.name in str(caught.value)
        await device.close()
        await device.close()

    asyncio.run(ask())
