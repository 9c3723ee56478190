"""Batches: everything once, declared before it is needed, nothing lost without being said."""

from __future__ import annotations

import asyncio
import json
import logging

import pyarrow as pa
import pytest

from tests.agent.virtual import virtually
from wattkeeper.agent import outbox as module
from wattkeeper.agent.outbox import Outbox
from wattkeeper.core.assets import Asset, AssetTree, Meter
from wattkeeper.core.errors import JournalError, JournalFullError
from wattkeeper.core.live import Discovery, Sample

GPU = Discovery([Asset("n01/gpu0", "gpu", "n01")], [Meter("g", "n01/gpu0", "energy_counter", "nvml", 10)])


class FakeDisk:
    """Keeps batches, or raises what it is told to."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.error: Exception | None = None

    async def __call__(self, batch: bytes) -> None:
        if self.error:
            raise self.error
        self.kept.append(batch)

    @property
    def tables(self):
        return [pa.ipc.open_stream(b).read_all() for b in self.kept]

    @property
    def heads(self):
        return [json.loads(t.schema.metadata[b"wattkeeper"]) for t in self.tables]

    @property
    def values(self):
        return [v for t in self.tables for v in t["value"].to_pylist()]


def outbox_of(disk, *, tree=None, batch_s=10.0, batch_rows=1000):
    return Outbox("n01", disk, tree or AssetTree({}), batch_s=batch_s, batch_rows=batch_rows)


def samples(*values):
    return [Sample("g", 1_795_000_000_000 + v, v) for v in values]


def test_what_is_new_is_declared_once_and_before_its_readings():
    """The first batch has asset, node and meter; the second nothing; a changed asset goes out again."""
    disk = FakeDisk()

    async def main():
        box = outbox_of(disk)
        for found in (GPU, GPU, Discovery([Asset("n01/gpu0", "gpu", "n01", "H200")], GPU.meters)):
            box.declare(found)
            box.add(samples(1))
            await box.flush()

    virtually(main)
    assert [[a["id"] for a in h["assets"]] for h in disk.heads] == [["n01/gpu0", "n01"], [], ["n01/gpu0"]]
    assert [len(h["declared"]) for h in disk.heads] == [1, 0, 0]
    assert disk.heads[0]["assets"][1] == {**disk.heads[0]["assets"][1], "kind": "node", "parent": ""}
    run = disk.heads[0]["id"].split("/")[1]
    assert [h["id"] for h in disk.heads] == [f"n01/{run}/{i:06}" for i in (1, 2, 3)]


def test_assets_of_the_site_file_go_along_with_all_above_them_but_the_site():
    """A PDU on rack-1 of a declared tree: the receiver learns rack and hall, and knows its own sites."""
    tree = AssetTree.of([Asset("a", "site"), Asset("h1", "hall", "a"), Asset("rack-1", "rack", "h1")])
    disk = FakeDisk()

    async def main():
        box = outbox_of(disk, tree=tree)
        box.declare(Discovery(meters=[Meter("pdu", "rack-1", "power", "snmp")]))
        await box.flush()

    virtually(main)
    assert [(a["id"], a["kind"], a["parent"]) for a in disk.heads[0]["assets"]] == [
        ("rack-1", "rack", "h1"), ("h1", "hall", "a"),
    ]  # fmt: skip
    assert disk.tables[0].num_rows == 0


def test_assets_and_meters_are_told_again_each_hour():
    """A receiver that has lost them learns them anew."""
    disk = FakeDisk()

    async def main():
        box = outbox_of(disk)
        box.declare(GPU)
        for _ in range(3):
            box.add(samples(1))
            await box.flush()
            await asyncio.sleep(1801)

    virtually(main)
    assert [len(h["declared"]) for h in disk.heads] == [1, 0, 1]


def test_a_batch_goes_out_after_its_time_or_when_it_is_full():
    """Nothing for 25 s makes no batch; 3 rows of at most 3 go at once."""
    disk = FakeDisk()

    async def main():
        box = outbox_of(disk, batch_rows=3)
        task = asyncio.create_task(box.run())
        await asyncio.sleep(25)
        empty = len(disk.kept)
        box.add(samples(1, 2, 3))
        await asyncio.sleep(0.001)
        full = len(disk.kept)
        box.add(samples(4))
        await asyncio.sleep(10)
        task.cancel()
        return empty, full

    assert virtually(main) == (0, 1)
    assert [t["value"].to_pylist() for t in disk.tables] == [[1, 2, 3], [4]]


@pytest.mark.parametrize(
    "error", [JournalError("The journal is on a bad disk."), JournalFullError("At its limit."), TimeoutError()]
)
def test_a_disk_that_takes_nothing_costs_nothing_while_memory_lasts(caplog, error):
    """Ten batches wait and go out in order; one line when it begins and one when it ends."""
    caplog.set_level(logging.INFO)
    disk = FakeDisk()
    disk.error = error

    async def main():
        box = outbox_of(disk)
        box.declare(GPU)
        for i in range(10):
            box.add(samples(i))
            await box.flush()
        waiting = box.waiting
        disk.error = None
        await box.flush()
        return waiting, box.waiting, box.lost

    assert virtually(main) == (10, 0, 0)
    assert disk.values == list(range(10))
    assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]


def test_when_memory_is_full_too_the_oldest_is_kept_and_the_loss_is_told_and_counted(caplog, monkeypatch):
    """Room for about three batches: the first ones survive; what was declared with lost ones is declared again."""
    caplog.set_level(logging.INFO)
    disk = FakeDisk()
    disk.error = JournalFullError("At its limit.")

    async def main():
        box = outbox_of(disk)
        box.declare(GPU)
        for i in range(10):
            if i == 8:
                box.declare(Discovery(meters=[Meter("late", "n01/gpu0", "power", "nvml")]))
            box.add(samples(i))
            await box.flush()
            if i == 2:
                monkeypatch.setattr(module, "HELD_BYTES", sum(len(h.data) for h in box._held))
        disk.error = None
        box.add(samples(10))
        await box.flush()
        return box.lost

    assert virtually(main) == 7  # 3 … 9
    assert disk.values == [0, 1, 2, 10]
    assert [d["id"] for d in disk.heads[-1]["declared"]] == ["late"]
    assert [r.levelname for r in caplog.records] == ["ERROR", "ERROR", "INFO"]
    assert "LOST from now on. At its limit." in caplog.records[1].message
    assert "7 were lost" in caplog.records[2].message
