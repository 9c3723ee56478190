"""From the journal into the book: everything once, whatever breaks in between."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.books.small import SITE, START, node
from wattkeeper import loop
from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.batch import METADATA_KEY, Batch, encode
from wattkeeper.core.errors import BatchError
from wattkeeper.core.live import Loss, Sample
from wattkeeper.lake import fold as folding
from wattkeeper.lake.batches import AHEAD_MS, decode
from wattkeeper.lake.book import Book
from wattkeeper.lake.fold import journal_root
from wattkeeper.lake.journal import Journal, Reader
from wattkeeper.lake.state import State
from wattkeeper.report.tables import to_json

GPU = Meter("n1/gpu0:nvml:energy_counter", "n1/gpu0", "energy_counter", "nvml")
NOW = START + 86_400_000


def batch(number, sender="n1/a", rows=4, meter=GPU):
    """One batch: `rows` readings 15 s apart at 100 W, going on where the batch before ended."""
    times = [START + (number * rows + i) * 15_000 for i in range(rows)]
    return Batch(f"{sender}/{number}", [Sample(meter.id, t, (t - START) * 100) for t in times], [], [meter])


def made(tmp_path):
    return Book.create(tmp_path / "book", SITE + node("n1", 1))


def journaled(book, *batches, writer="server"):
    journal = Journal(journal_root(book.root), writer)
    for b in batches:
        journal.append(b if isinstance(b, bytes) else encode(b))
    journal.close()


def times(book):
    """Return the times that are in the book, as often as they are there, from 0 [15 s]."""
    return sorted((t - START) // 15_000 for t in book.readings.table.scan().collect()["time_ms"].to_list())


def offsets(book):
    """Return the times that are in the book, as often as they are there [ms from START]."""
    return sorted(t - START for t in book.readings.table.scan().collect()["time_ms"].to_list())


def test_readings_are_on_disk_before_the_journal_gives_them_up(tmp_path, monkeypatch):
    """The file of the readings, its entry in the log, and their folders, in this order: a loss of power costs nothing."""
    book, done, real = made(tmp_path), [], os.fsync

    def noted(opened):
        done.append(Path(f"/proc/self/fd/{opened}").readlink())
        real(opened)

    forget = Reader.forget
    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Reader, "forget", lambda *a: (done.append("forgotten"), forget(*a)))
    journaled(book, batch(0))
    done.clear()
    loop.fold(book, NOW)

    table = book.readings.table
    (file,) = [table.root / f.path for f in table.files()]
    entry = table.root / "_delta_log" / f"{table.version():020}.json"
    order = [done.index(p) for p in (file, entry, "forgotten")]
    assert order == sorted(order)
    assert {file.parent, file.parent.parent, table.root, entry.parent} <= set(done[: order[-1]])


def test_batches_come_into_the_book_once_and_give_their_disk_back(tmp_path):
    book = made(tmp_path)
    journaled(book, batch(0), batch(1))

    done = loop.fold(book, NOW)

    assert (done.batches, done.readings, done.again, done.refused) == (2, 8, 0, [])
    assert times(book) == list(range(8))
    assert loop.fold(book, NOW).batches == 0
    loop.attribute(book)
    # 7 steps of 15 s at 100 W are 10 500 J
    assert book.postings.scan().select(pl.col("energy_mj").sum()).collect().item() == 10_500_000


def test_a_batch_sent_again_or_out_of_order_is_one_batch(tmp_path):
    """Within a fold, over folds, and after the book was opened anew."""
    book = made(tmp_path)
    journaled(book, batch(2), batch(0), batch(2))
    assert loop.fold(book, NOW).again == 1
    journaled(book, batch(1), batch(0))
    done = loop.fold(Book(book.root), NOW)

    assert (done.batches, done.again) == (1, 1)
    assert times(book) == list(range(12))
    assert book.state.seen(["n1/a"]) == {"n1/a": [[0, 2]]}


@pytest.mark.parametrize(("owner", "step"), [(Reader, "forget"), (State, "see"), (State, "log_import"), (Book, "take")])
def test_a_fold_that_breaks_off_anywhere_is_made_good_by_the_next(tmp_path, monkeypatch, owner, step):
    """Whatever step fails, more batches come, and what was taken is sent again: each reading is in the book once."""
    book = made(tmp_path)
    journaled(book, batch(0), batch(1))

    def broken(*_args, **_kwargs):
        raise OSError("the machine stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, broken)
        with pytest.raises(OSError, match="stopped here"):
            loop.fold(book, NOW)
    journaled(book, batch(2), batch(1))
    loop.fold(Book(book.root), NOW)

    assert times(book) == list(range(12))
    assert book.state.seen(["n1/a"]) == {"n1/a": [[0, 2]]}


def test_a_long_journal_is_folded_in_pieces(tmp_path):
    book = made(tmp_path)
    journaled(book, *(batch(i) for i in range(10)))
    done = folding.fold(book, NOW, piece_rows=12)

    assert done.readings == 40
    assert sorted(f.rows for f in book.readings.table.files()) == [4, 12, 12, 12]
    assert times(book) == list(range(40))


def test_several_writers_are_folded_each_from_its_own_place(tmp_path):
    book = made(tmp_path)
    journaled(book, batch(0), batch(1), writer="one")
    journaled(book, batch(2), writer="two")
    loop.fold(book, NOW)
    journaled(book, batch(3), writer="two")
    loop.fold(book, NOW)

    assert times(book) == list(range(16))


def test_a_journal_begun_anew_is_not_taken_for_the_old_one(tmp_path):
    """After its folder was deleted, positions begin again; what is in the new one counts."""
    book = made(tmp_path)
    journaled(book, batch(0), batch(1))
    loop.fold(book, NOW)
    for path in (journal_root(book.root) / "server").iterdir():
        path.unlink()
    journaled(book, batch(2))
    loop.fold(book, NOW)

    assert times(book) == list(range(12))


def test_what_fits_nowhere_is_kept_aside_until_it_does(tmp_path):
    """A node in a rack, and a meter, that nobody declared: told, kept, and taken once the site file has them."""
    book = made(tmp_path)
    racked = Batch("x1/a/0", [Sample("x", START + 100, 5)], [Asset("x1", "node", "r7")], [Meter("x", "x1", "power")])
    sited = Batch("z/a/0", [Sample("z", START + 400, 5)], [Asset("z", "site")], [Meter("z", "z", "power")])
    mixed = Batch("n1/a/1", [Sample(GPU.id, START + 200, 7), Sample("y", START + 300, 8)])
    journaled(book, batch(0), racked, mixed, b"not a batch", mixed, sited)

    done = loop.fold(book, NOW)

    assert (done.readings, done.aside, done.again) == (5, 3, 1)
    assert sorted((r.source, r.reason) for r in done.refused) == [
        ("batch x1/a/0", "1 readings are kept aside: Asset 'x1' stands in 'r7', which is not declared."),
        ("batch z/a/0", "1 readings are kept aside: A batch cannot bring a site. Declare it in the site file."),
        ("journal server", "1 readings of unknown meter 'y' are kept aside: declare it in the site file under [[meter]]"),
        ("journal server", "a batch is kept aside: not a whole Arrow stream: Expected to read 544501614 metadata bytes, "
                           "but only read 7"),
    ]  # fmt: skip
    assert offsets(book) == [0, 200, 15_000, 30_000, 45_000]
    assert len(loop.fold(book, NOW).refused) == 4  # the first batch had brought a meter: all was tried again
    assert loop.fold(Book(book.root), NOW).refused == []

    y = "[[meter]]\nid = 'y'\nasset = 'n1'\nquantity = 'power'\n"
    book.write_site_file(SITE + node("n1", 1) + "[[asset]]\nid = 'r7'\nkind = 'rack'\nparent = 'a'\n" + y)
    done = loop.fold(Book(book.root), NOW)

    assert (done.readings, done.aside, len(done.refused)) == (2, 1, 2)
    assert offsets(book) == [0, 100, 200, 300, 15_000, 30_000, 45_000]
    assert [data for _, data in Reader(book.root, "aside").read()] == [b"not a batch", encode(sited)]


def test_a_fold_that_breaks_off_after_keeping_aside_takes_it_once(tmp_path, monkeypatch):
    book = made(tmp_path)
    journaled(book, Batch("n1/a/0", [Sample("y", START, 8)]))

    def broken(*_args, **_kwargs):
        raise OSError("the machine stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(Book, "take", broken)
        with pytest.raises(OSError, match="stopped here"):
            loop.fold(book, NOW)
    loop.fold(book, NOW)
    assert len(list(Reader(book.root, "aside").read())) == 2
    book.write_site_file(SITE + node("n1", 1) + "[[meter]]\nid = 'y'\nasset = 'n1'\nquantity = 'power'\n")
    loop.fold(book, NOW)

    assert offsets(book) == [0]


def test_when_too_much_is_aside_the_loss_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(folding, "ASIDE_BYTES", 1000)
    book = made(tmp_path)
    journaled(book, Batch("n1/a/0", [Sample("y", START + i, 8) for i in range(100)]))
    (unknown, lost) = loop.fold(book, NOW).refused

    assert unknown.reason.startswith("100 readings of unknown meter 'y' are kept aside")
    assert lost.reason.startswith(
        f"100 readings are lost: The journal {book.root}/aside is at its limit of 1000 bytes."
    )


def test_what_an_agent_could_not_keep_is_in_the_book_once(tmp_path):
    """Told with a batch that comes twice, once by another agent's number: one loss; `meters` and the statement say it."""
    book = made(tmp_path)
    loss = Loss(GPU.id, START, START + 60_000, 41)
    told = replace(batch(1), lost=[loss])
    journaled(book, batch(0), told, told, replace(told, id="n1/b/1"))
    loop.fold(book, NOW)
    loop.attribute(book)
    statement = loop.statement(book)

    assert book.state.losses(START, NOW) == [loss]
    assert book.state.losses(START + 60_001, NOW) == []
    assert loop.meter_summary(book, None).filter(pl.col("meter") == GPU.id)["lost"].to_list() == [41]
    assert statement.lost == (loss,)
    assert statement.lost_line.startswith("41 readings of 1 meter were thinned or left out by agents")
    assert to_json(statement)["lost"] == [loss._asdict()]


@pytest.mark.parametrize(
    "lost",
    [{"m": 1}, [["m", START, START]], [["m", START, START - 1, 1]], [["m", START, START, 0]], [["m", 0, 1, 1]],
     [["m", START, START, 1.5]], [["", START, START, 1]]],
)  # fmt: skip
def test_a_loss_that_is_none_refuses_its_batch(lost):
    with pytest.raises(BatchError, match=r"loss|'lost' is not a list"):
        decode(encode(Batch("n1/a/1", [], lost=lost)), NOW)


def test_a_batch_may_bring_its_assets_and_declare_them_in_an_earlier_one(tmp_path):
    book = made(tmp_path)
    one = Batch("n2/a/0", [], [Asset("n2", "node", "a"), Asset("n2/gpu0", "gpu", "n2")])
    meter = Meter("n2/gpu0:x", "n2/gpu0", "power")
    two = Batch("n2/a/1", [Sample("n2/gpu0:x", START, 5)], [Asset("n2/gpu1", "gpu", "n2")], [meter])
    journaled(book, one, two)

    assert loop.fold(book, NOW).refused == []
    assert times(book) == [0]
    assert {"n2", "n2/gpu0", "n2/gpu1"} <= set(book.tree().assets)


def test_folding_waits_while_the_book_is_being_written(tmp_path):
    """Two openers of one book: the second fold begins after the first writer has let go, and nothing is lost."""
    book = made(tmp_path)
    journaled(book, batch(0))
    done = []
    other = threading.Thread(target=lambda: done.append(loop.fold(Book(book.root), NOW).batches))
    with book.writing():
        other.start()
        other.join(0.3)
        assert done == []
    other.join()

    assert done == [1]


def test_readings_that_come_during_an_attribution_are_attributed_by_the_next(tmp_path, monkeypatch):
    """A fold in another process just before an attribution strikes its days off the list waits until that is done."""
    book = made(tmp_path)
    journaled(book, batch(0))
    loop.fold(book, NOW)
    journaled(book, batch(1))
    other = threading.Thread(target=lambda: loop.fold(Book(book.root), NOW))
    settle = State.settle

    def late(*args):
        other.start()
        other.join(1)
        settle(*args)

    with monkeypatch.context() as patch:
        patch.setattr(State, "settle", late)
        loop.attribute(book)
    other.join()
    loop.attribute(book)

    # 7 steps of 15 s at 100 W are 10 500 J
    assert book.postings.scan().select(pl.col("energy_mj").sum()).collect().item() == 10_500_000


@given(st.lists(st.integers(0, 12), max_size=30))
@settings(max_examples=200)
def test_numbers_seen_are_kept_as_runs(numbers):
    """A number is new once; the runs are those of the set of numbers."""

    seen = folding._Seen({})
    for at, number in enumerate(numbers):
        assert seen.add(f"s/{number}") == (number not in numbers[:at])
    there = sorted(set(numbers))
    runs = [[n for n in there if n in range(a, b + 1)] for a, b in seen.runs.get("s", [])]
    assert [n for run in runs for n in run] == there
    assert all(b[0] - a[-1] > 1 for a, b in pairwise(runs))


def test_ids_without_a_number_are_known_by_their_whole_name():
    assert folding._parted("n01/5f0c/000042") == ("n01/5f0c", 42)
    assert folding._parted("n01/5f0c") == ("n01/5f0c", 0)
    assert folding._parted("n01/٣") == ("n01/٣", 0)
    assert folding._parted("7" * 40) == ("7" * 40, 0)


def head(**changes):
    """Return an encoded batch of one reading with other metadata; None leaves a key out."""
    table = pa.ipc.open_stream(encode(batch(0, rows=1))).read_all()
    told = json.loads(table.schema.metadata[METADATA_KEY]) | changes
    told = {k: v for k, v in told.items() if v is not None}
    return stream(table.replace_schema_metadata({METADATA_KEY: json.dumps(told)}))


def rows(meter=0, time_ms=START, value=1, schema=None):
    """Return an encoded batch of one reading with other numbers."""
    table = pa.ipc.open_stream(encode(batch(0, rows=1))).read_all()
    schema = (schema or table.schema).with_metadata(table.schema.metadata)
    return stream(pa.table([[meter], [time_ms], [value]], schema=schema))


def stream(table, **options):
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


def nullable():
    return pa.schema([("meter", pa.int32()), ("time_ms", pa.int64()), ("value", pa.int64())])


WRONG = {
    "empty": (b"", "not a whole Arrow stream: Tried reading schema message, was null or length 0"),
    "cut": (
        encode(batch(0))[:-60],
        "not a whole Arrow stream: Expected to be able to read 80 bytes for message body, got 28",
    ),
    "columns": (rows(schema=nullable()), r"columns are \(meter int32, time_ms int64, value int64\), not"),
    "compressed": (
        stream(pa.ipc.open_stream(encode(batch(0))).read_all(), compression="zstd"),
        "buffers are compressed",
    ),
    "no metadata": (stream(pa.table({"a": [1]})), r"columns are \(a int64\), not"),
    "a key missing": (head(declared=None), "has not exactly the keys assets, declared, id, meters"),
    "a key more": (head(extra=1), "has not exactly the keys"),
    "id": (head(id=7), "id and meters must be text of at most 512 printable characters"),
    "line break": (head(id="a\nb"), "id and meters must be text"),
    "meters": (head(meters=[""]), "id and meters must be text"),
    "twice": (head(meters=["a", "a"]), "a meter is named twice"),
    "assets": (head(assets={}), "'assets' is not a list"),
    "asset": (head(assets=[{"kind": "node"}]), "an asset without an id"),
    "asset kind": (head(assets=[{"id": "x", "kind": "boat", "parent": "a"}]), "asset 'x': Asset 'x' has kind 'boat'"),
    "asset key": (
        head(assets=[{"id": "x", "kind": "node", "colour": 1}]),
        "asset 'x' has 'colour', which this version",
    ),
    "asset slice": (
        head(assets=[{"id": "x", "kind": "mig", "parent": "a", "slice": float("nan")}]),
        "slice nan, which is no",
    ),
    "meter gap": (
        head(declared=[{"id": "x", "asset": "y", "quantity": "power", "max_gap_ms": -1}]),
        "-1, which is no amount",
    ),
    "meter type": (head(declared=[{"id": "x", "asset": "y", "quantity": "power", "rank": "1"}]), "'1', not int"),
    "meter lacks": (head(declared=[{"id": "x", "quantity": "power"}]), "meter 'x': .* missing 1 required .*'asset'"),
    "index high": (rows(meter=1), "reading 0 speaks of meter 1, and 1 are named"),
    "index low": (rows(meter=-1), "reading 0 speaks of meter -1, and 1 are named"),
    "old": (rows(time_ms=0), "a reading is of 0 ms, before the year 2000; set the sender's clock"),
    "early": (rows(time_ms=NOW + AHEAD_MS + 1000), "a reading is 86401 s ahead of this clock"),
    "large": (rows(value=2**62), "a value is too large for a meter"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_batch_is_told_in_one_line(wrong):
    data, reason = WRONG[wrong]
    with pytest.raises(BatchError, match=reason) as told:
        decode(data, NOW)
    assert "\n" not in str(told.value)


def test_the_edges_of_what_is_right_are_taken():
    assert decode(rows(time_ms=NOW + AHEAD_MS), NOW).newest_ms() == NOW + AHEAD_MS
    assert decode(rows(time_ms=946_684_800_000, value=2**62 - 1), NOW).value.tolist() == [2**62 - 1]
    assert decode(encode(Batch("n1/a/2", [])), NOW).rows == 0
    assert decode(head(id=""), NOW).id == ""


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "µ c"]), st.integers(946_684_800_000, NOW), st.integers(1 - 2**62, 2**62 - 1)
        )
    )
)
def test_a_batch_is_read_as_it_was_written(rows):
    samples = [Sample(*r) for r in rows]
    got = decode(encode(Batch("n1/a/7", samples, [Asset("x", "node", "a")], [GPU])), NOW)

    read = zip(got.index.tolist(), got.time_ms.tolist(), got.value.tolist(), strict=True)
    assert [Sample(got.meters[i], t, v) for i, t, v in read] == samples
    assert (got.id, got.assets, got.declared) == ("n1/a/7", [Asset("x", "node", "a")], [GPU])


GOOD = encode(batch(0, rows=40))


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 99)
)
@settings(max_examples=400, deadline=None)
def test_damaged_bytes_are_refused_or_read_within_their_bounds(changes, cut):
    """Whatever bytes are changed or missing: a batch with meters for all its readings, or BatchError, never a crash."""
    data = bytearray(GOOD)
    for at, byte in changes:
        data[at] = byte
    try:
        got = decode(bytes(data[: len(data) - cut]), NOW)
    except BatchError:
        return
    assert all(0 <= i < len(got.meters) for i in got.index.tolist())
    assert len(got.index) == len(got.time_ms) == len(got.value)
