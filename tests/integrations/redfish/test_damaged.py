"""Damaged pages: whatever a controller writes, discovery ends, and what is sound still counts."""

from __future__ import annotations

import copy
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integrations.redfish.server import RECORDED
from wattkeeper.integrations.redfish.link import Config
from wattkeeper.integrations.redfish.meter import RedfishDevice
from wattkeeper.integrations.redfish.points import find
from wattkeeper.integrations.redfish.values import address, number, pointed, time_ms
from wattkeeper.integrations.redfish.walk import _next, inlined

pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded data are not here")

JUNK = [
    None,
    "",
    "x",
    0,
    -1,
    1e308,
    True,
    [],
    {},
    [1],
    [None],
    {"@odata.id": 5},
    {"@odata.id": None},
    "1970-01-01T00:00:00Z",
]


def pages_of(*folders):
    found = {}
    for folder in folders:
        for file in sorted((RECORDED / folder).rglob("*.json")):
            if "invalid" in file.name:
                continue  # not JSON; the link refuses it
            page = json.loads(file.read_text())
            if isinstance(page, dict) and "@odata.id" in page:
                found[page["@odata.id"].rstrip("/")] = page
                found.update(inlined(page))
    return found


@pytest.fixture(scope="module")
def trees():
    gb300 = {
        uri: page for uri, page in pages_of("supermicro-gb300").items()
        if any(part in uri for part in ("GPU_0", "CPU_0", "Chassis_0", "Telemetry", "PDB_0")) or uri.count("/") < 5
    }  # fmt: skip
    shelf = pages_of("lambdalabs/powershelf_delta")
    return [
        gb300,
        shelf,
        pages_of("hpe"),
        pages_of("telegraf/dell"),
        pages_of("dmtf/public-pdu"),
        pages_of("dmtf/public-power-shelf"),
    ]


def damage(dice, node):
    """Replace one value somewhere below a node, or take it away."""
    while node:
        key = dice.choice(sorted(node) if isinstance(node, dict) else range(len(node)))
        below = node[key]
        if isinstance(below, dict | list) and below and dice.random() < 0.5:
            node = below
            continue
        if dice.random() < 0.2:
            del node[key]
        else:
            node[key] = copy.deepcopy(dice.choice(JUNK))
        return


def ask(pages, config):
    found, points = find(pages, config, "n01")
    device = RedfishDevice(config, "n01")
    device._points = points
    device._choose_reports(pages)
    got = {}
    for uri in device._reports:
        device._take_report(uri, pages[uri], got)
    for point in points:
        point.read(pages.get(point.uri, {}))
    for uri, page in pages.items():
        if uri.startswith("/redfish/v1"):
            _next(uri, page)
            list(inlined(page))
    assert {m.id for m in found.meters} == {p.meter.id for p in points}
    assert len({m.id for m in found.meters}) == len(found.meters)
    assert all(sample.value >= 0 and sample.time_ms > 0 for sample in got.values())


def test_discovery_survives_any_damage(trees):
    """Four hundred times three values of one tree are replaced by junk."""
    config = Config(url="http://bmc", asset="n01", parent="dc", outlets={"A1": "n02"}, kind="rack")
    for seed in range(400):
        dice = random.Random(seed)
        pages = dict(dice.choice(trees))
        uris = [uri for uri in sorted(pages) if uri.count("/") < 9]
        for uri in dice.choices(uris, k=3):
            pages[uri] = copy.deepcopy(pages[uri])
            damage(dice, pages[uri])
        try:
            ask(pages, config)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.none()), st.just({})))
def test_numbers_are_finite_and_not_negative_or_none(value):
    """Whatever stands there."""
    found = number(value)

    assert found is None or 0 <= found < float("inf")


@given(st.text())
def test_times_and_addresses_of_any_text(text):
    """None, or after 2000; an address keeps no trailing slash."""
    when = time_ms(text)

    assert when is None or when >= 946_684_800_000
    assert not address(text).endswith("/")
    assert len(list(pointed({"a": [1, {"b": 2}]}, text))) >= 1


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-06-29T08:05:27.513+00:00", 1_782_720_327_513),
        ("2016-07-25T11:27:59.795513984+02:00", 1_469_438_879_795),
        ("2026-06-29T08:05:27Z", 1_782_720_327_000),
        ("2026-06-29T08:05:27", 1_782_720_327_000),
        ("1970-01-01T00:00:00.000+00:00", None),
        ("2026-13-29T08:05:27Z", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_times_of_the_schema(text, ms):
    """Any number of digits, any offset; without one it is UTC."""
    assert time_ms(text) == ms
