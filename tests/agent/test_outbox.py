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


T0 = 1_795_000_000_000


def outbox_of(disk, *, tree=None, batch_s=10.0, batch_rows=1000):
    return Outbox("n01", disk, tree or AssetTree({}), batch_s=batch_s, batch_rows=batch_rows)


def samples(*values):
    return [Sample("g", T0 + v, v) for v in values]


def test_what_is_new_is_declared_once_and_before_its_readings():
    """The first batch has asset, node and meter; the second nothing; a changed asset goes out again."""
    disk = FakeDisk()

    async def main():
        box = outbox_of(disk)
        for i, found in enumerate((GPU, GPU, Discovery([Asset("n01/gpu0", "gpu", "n01", "H200")], GPU.meters))):
            box.declare(found)
            box.add(samples(i))
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
        for i in range(3):
            box.add(samples(i))
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


def test_when_memory_is_full_too_detail_goes_and_the_loss_is_told_and_counted(caplog, monkeypatch):
    """Forty batches of one reading, room for about five: the first stays as it was, first and last reading are there,
    what is missing is what the batches say was lost."""
    caplog.set_level(logging.INFO)
    disk = FakeDisk()
    disk.error = JournalFullError("At its limit.")
    monkeypatch.setattr(module, "HELD_BYTES", 5000)

    async def main():
        box = outbox_of(disk)
        box.declare(GPU)
        for i in range(40):
            box.add(samples(i))
            await box.flush()
            assert sum(map(len, box._held)) <= 5000
        disk.error = None
        await box.flush()
        return box.lost

    lost = virtually(main)
    told = [loss for head in disk.heads for loss in head.get("lost", [])]
    assert lost > 20
    assert len(disk.values) + lost == 40
    assert disk.values[0] == 0
    assert disk.values[-1] == 39
    assert disk.values == sorted(disk.values)
    assert told == [["g", 1_795_000_000_001, told[0][2], lost]]
    assert [r.levelname for r in caplog.records] == ["ERROR", "ERROR", "INFO"]
    assert "detail is LOST from now on. At its limit." in caplog.records[1].message
    assert f"{lost} were lost" in caplog.records[2].message


def test_what_cannot_be_thinned_is_given_up_newest_first_and_declared_again(monkeypatch):
    """Energy of intervals has no reading to spare: the oldest batches stay, the loss is in the next one."""
    disk = FakeDisk()
    disk.error = JournalError("The disk is gone.")
    monkeypatch.setattr(module, "HELD_BYTES", 6000)
    late = Meter("late", "n01/gpu0", "energy_interval", "nvml", interval_ms=60_000)

    async def main():
        box = outbox_of(disk)
        box.declare(Discovery(GPU.assets, [Meter("g", "n01/gpu0", "energy_interval", "nvml", interval_ms=60_000)]))
        for i in range(12):
            if i == 11:
                box.declare(Discovery(GPU.assets, [late]))
            box.add(samples(*range(10 * i, 10 * i + 10)))
            await box.flush()
        disk.error = None
        box.add(samples(120))
        await box.flush()
        return box.lost

    lost = virtually(main)
    kept = 120 - lost
    assert 0 < lost < 120
    assert disk.values == [*range(kept), 120]
    told = [tuple(loss) for head in disk.heads for loss in head.get("lost", [])]
    assert sorted(told) == [("g", T0 + i, T0 + i, 1) for i in range(kept, 120)]
    assert [d["id"] for d in disk.heads[-1]["declared"]] == ["late"]


def test_times_of_a_meter_only_rise(caplog):
    """100 s, back to 40 s, on to 101 s: what was stamped before is left out, told once, and a loss; others go on."""
    disk = FakeDisk()

    async def main():
        box = outbox_of(disk)
        box.add([Sample("g", T0 + 100_000, 1), Sample("h", T0, 1)])
        box.add([Sample("g", T0 + 40_000, 2), Sample("h", T0 + 1000, 2)])
        box.add([Sample("g", T0 + 100_000, 3)])
        box.add([Sample("g", T0 + 99_999, 4)])
        await box.flush()
        box.add([Sample("g", T0 + 101_000, 5)])
        await box.flush()
        return box.lost

    assert virtually(main) == 2
    assert disk.values == [1, 1, 2, 5]
    assert [head.get("lost") for head in disk.heads] == [None, [["g", T0 + 100_000, T0 + 101_000, 2]]]
    assert ["g is stamped 60.0 s before its last reading" in r.message for r in caplog.records] == [True]


def test_a_time_that_no_book_takes_holds_up_none_after_it():
    """Two days ahead for one reading, then right again: the next reading is taken at once."""
    disk = FakeDisk()

    async def main():
        box = outbox_of(disk)
        for time_ms in (T0, T0 + 2 * 86_400_000, T0 + 1000, T0 + 2000):
            box.add([Sample("g", time_ms, 1)])
        await box.flush()
        return box.lost

    assert virtually(main) == 0
    assert len(disk.values) == 4


def test_values_of_one_device_may_come_in_any_order():
    """A report with its newest value first: all are taken; the same report again adds nothing."""
    disk = FakeDisk()

    async def main():
        box = outbox_of(disk)
        report = [Sample("g", T0 + t, t) for t in (3000, 1000, 2000)]
        box.add(report)
        box.add(report)
        await box.flush()

    virtually(main)
    assert disk.values == [3000, 1000, 2000]
