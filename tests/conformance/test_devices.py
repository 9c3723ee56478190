"""What every live integration keeps, asked of each against something that answers."""

from __future__ import annotations

import asyncio
import time
import typing
from importlib.metadata import entry_points

import polars as pl
import pytest

from tests.conformance.peers import PEERS, RECORDED
from wattkeeper import loop
from wattkeeper.agent.build import build
from wattkeeper.agent.look import Seen, as_toml, asked, snippet
from wattkeeper.agent.run import Agent
from wattkeeper.config import load_agent
from wattkeeper.core.assets import KINDS, QUANTITIES
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.errors import SourceError
from wattkeeper.core.roles import Intake
from wattkeeper.core.schema import READINGS
from wattkeeper.lake.book import Book

NAMES = sorted(entry.name for entry in entry_points(group="wattkeeper.devices"))
SITE = "[[site]]\nid = 'dc'\n[[asset]]\nid = 'r1'\nkind = 'rack'\nparent = 'dc'\n"
DAY_MS = 86_400_000
LONGEST_S = 60
"""No call may hang; a device's own time-outs are far below this."""


def test_each_integration_has_something_to_be_tried_against():
    assert NAMES == sorted(PEERS)


@pytest.fixture(params=[*NAMES, *RECORDED])
def peer(request, tmp_path):
    """An integration, and something that it reads."""
    name, make = RECORDED.get(request.param) or (request.param, PEERS[request.param])
    return name, make(tmp_path)


@pytest.fixture
def make(peer):
    """Make the device anew, as after a restart of the agent."""
    name, tried = peer
    if tried.make is not None:
        return tried.make
    (entry,) = entry_points(group="wattkeeper.devices", name=name)
    config = typing.get_type_hints(entry.load())["config"].model_validate(tried.table)
    return lambda: entry.load()(config)[0]


def ask(*calls):
    """Run some calls, one after the other, in one event loop; return what they gave."""

    async def all_of_them():
        async with asyncio.timeout(LONGEST_S):
            return [await call() for call in calls]

    return asyncio.run(all_of_them())


def test_what_is_found_is_whole_and_the_same_each_time(peer, make):
    """Ids are unique, do not change with a second look or a restart, and every meter stands on an asset that is known."""
    with peer[1].up():
        first, again = ask((device := make()).discover, device.discover, device.close)[:2]
        after = ask((other := make()).discover, other.close)[0]

    assert first.assets == again.assets == after.assets
    assert first.meters == again.meters == after.meters
    assert first.meters
    known = {a.id for a in first.assets}
    assert len({m.id for m in first.meters}) == len(first.meters)
    assert len(known) == len(first.assets)
    assert {m.asset for m in first.meters} <= known
    assert {a.parent for a in first.assets} <= known | {""}
    assert {a.kind for a in first.assets} <= set(KINDS) - {"site"}
    assert {m.quantity for m in first.meters} <= set(QUANTITIES)
    assert all(m.source and m.max_gap_ms > 0 and m.accuracy_pct > 0 for m in first.meters)
    assert all(doubt.endswith(".") and "\n" not in doubt for doubt in first.doubts)


def test_what_is_read_belongs_to_what_was_found(peer, make):
    """One value of a meter at a time, whole, not below zero, with a time; a first sample needs no discovery."""
    with peer[1].up():
        device = make()
        samples, found, more, _ = ask(device.sample, device.discover, device.sample, device.close)

    assert samples
    for some in (samples, more):
        assert {s.meter for s in some} <= {m.id for m in found.meters}
        assert len({s.meter for s in some}) == len(some)
        assert all(type(s.value) is int and type(s.time_ms) is int for s in some)
        assert all(s.value >= 0 and 0 < s.time_ms < time.time() * 1000 + 3650 * DAY_MS for s in some)
    counters = {m.id for m in found.meters if m.quantity == "energy_counter"}
    before = {s.meter: s for s in samples if s.meter in counters}
    assert all(s.value >= before[s.meter].value for s in more if s.meter in before)


def test_calls_at_once_do_not_disturb_each_other(peer, make):
    async def at_once():
        async with asyncio.timeout(LONGEST_S):
            device = make()
            given = await asyncio.gather(device.sample(), device.discover(), device.sample())
            await device.close()
            return given

    with peer[1].up():
        first, found, second = asyncio.run(at_once())

    assert {s.meter for s in first} == {s.meter for s in second} <= {m.id for m in found.meters}


def test_gone_is_told_by_name_and_back_is_read_again(peer, make):
    """The same device object, before, without and with its peer; the fault is one line and names it."""
    if not peer[1].comes_back:
        pytest.skip("cannot be gone and come back here")

    async def tried():
        async with asyncio.timeout(LONGEST_S):
            device = make()
            with peer[1].up():
                before = await device.sample()
            with pytest.raises(SourceError) as gone:
                await device.sample()
            with peer[1].up():
                back = await device.sample()
            await device.close()
            return device.name, before, str(gone.value), back

    name, before, said, back = asyncio.run(tried())

    assert name in said
    assert "\n" not in said
    assert {s.meter for s in back} == {s.meter for s in before}


def test_closing_is_harmless_before_and_twice(peer, make):
    with peer[1].up():
        ask((device := make()).close, device.close)
        ask((device := make()).sample, device.close, device.close)


def test_what_it_tells_makes_a_book_that_balances(peer, make, tmp_path):
    """An hour of its samples, moved in time, attributed: the postings add up to its meters to 0 mJ."""
    with peer[1].up():
        device = make()
        found, samples, _ = ask(device.discover, device.sample, device.close)
    assert encode(Batch("t/1", samples, found.assets, found.meters))
    quantity = {m.id: m.quantity for m in found.meters}
    start_ms = 1_760_000_400_000
    rows = [
        (s.meter, start_ms + i * 60_000, s.value + (i * 60_000 * 50 if quantity[s.meter] == "energy_counter" else 0))
        for s in samples
        for i in range(61)
    ]
    book = Book.create(tmp_path / "book", SITE)
    readings = pl.DataFrame(rows, schema=READINGS.schema, orient="row")
    refused = book.take(Intake("agent", found.assets, found.meters, readings), now_ms=0)
    loop.attribute(book)
    balance = loop.check(book)

    assert refused == []
    assert balance.largest_mj == 0
    assert balance.compared > 0


def test_what_discover_prints_is_a_site_file_that_reads_it(peer, make, tmp_path):
    """The table as it would be typed, the file as it is printed, and an agent that runs on that file."""
    name, tried = peer
    address = str(tried.table.get("url") or tried.table.get("host") or "")
    settings = [f"{k}={as_toml(v)}" for k, v in tried.table.items() if k not in ("url", "host")]
    devices, table = asked(name, address, settings)
    Book.create(tmp_path / "book", SITE)
    with tried.up():
        found, _ = ask((device := make()).discover, device.close)
        text = snippet([Seen(name, device.name, found)], "t", keep={"book": str(tmp_path / "book")}, table=table)
        (tmp_path / "site.toml").write_text(text)
        file = load_agent(tmp_path / "site.toml")
        done = asyncio.run(Agent(file, build(file.agent)).once()) if tried.make is None else None

    assert table == tried.table
    assert [one.device.name for one in devices] == [one.device.name for one in build(file.agent)] == [device.name]
    assert done is None or (done.faults == {} and done.readings >= len(found.meters))
