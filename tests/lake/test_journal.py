"""The journal: what is in it stays in it, through kills, full disks and torn ends."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattkeeper.core.errors import JournalError, JournalFullError
from wattkeeper.lake.journal import MAGIC, Journal, Position, Reader, writers

HEAD = 8


def batches(journal):
    return [batch for _, batch in journal.read()]


@given(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=4), max_size=12), st.integers(1, 200), st.data())
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out_in_order_whatever_was_forgotten(tmp_path_factory, groups, segment_bytes, data):
    """Groups of batches, small segments, the writer closed and opened anywhere, a prefix forgotten: the rest is there."""
    root = tmp_path_factory.mktemp("journal")
    journal = Journal(root, "w", segment_bytes=segment_bytes)
    for group in groups:
        journal.append_many(group)
        if data.draw(st.booleans()):
            journal.close()
            journal = Journal(root, "w", segment_bytes=segment_bytes)
    flat = [batch for group in groups for batch in group]
    there = list(Reader(root, "w").read())
    assert [batch for _, batch in there] == flat
    assert [p for p, _ in there] == sorted({p for p, _ in there})

    gone = data.draw(st.integers(0, len(flat)))
    if gone:
        journal.forget(there[gone - 1][0])
    assert batches(journal) == flat[gone:]
    journal.close()
    journal = Journal(root, "w", segment_bytes=segment_bytes)
    journal.append(b"next")
    assert batches(Reader(root, "w")) == [*flat[gone:], b"next"]
    assert journal.doubts == []
    journal.close()


@given(
    st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=6), st.integers(0, 400), st.binary(max_size=20)
)
@settings(max_examples=80, deadline=None)
def test_a_torn_end_costs_only_what_was_torn(tmp_path_factory, written, cut, rubbish):
    """Cut anywhere and followed by rubbish, the segment keeps each record that stands whole before the cut."""
    root = tmp_path_factory.mktemp("journal")
    journal = Journal(root, "w")
    ends = [journal.append(b).offset for b in written]
    journal.close()
    path = root / "w" / f"{1:012}.wal"
    cut = min(cut, ends[-1])
    path.write_bytes(path.read_bytes()[:cut] + rubbish)
    whole = [b for b, end in zip(written, ends, strict=True) if end <= cut]

    assert batches(Reader(root, "w"))[: len(whole)] == whole
    journal = Journal(root, "w")
    journal.append(b"next")
    assert batches(journal) == [*whole, b"next"]
    journal.close()


def test_a_torn_end_is_told_in_bytes(tmp_path):
    journal = Journal(tmp_path, "w")
    journal.append(b"whole")
    journal.append(b"torn")
    journal.close()
    path = tmp_path / "w" / f"{1:012}.wal"
    os.truncate(path, path.stat().st_size - 1)

    journal = Journal(tmp_path, "w")

    assert batches(journal) == [b"whole"]
    assert journal.doubts == [f"{path}: 11 bytes of an unfinished batch were cut off."]  # 8 of head, 3 of 4
    assert path.stat().st_size == len(MAGIC) + HEAD + 5


def test_a_damaged_record_in_the_middle_is_left_out_and_told(tmp_path):
    journal = Journal(tmp_path, "w")
    for batch in (b"one", b"two", b"three"):
        journal.append(batch)
    journal.close()
    path = tmp_path / "w" / f"{1:012}.wal"
    bytes_ = bytearray(path.read_bytes())
    bytes_[len(MAGIC) + HEAD + 3 + HEAD] ^= 1  # the t of two
    path.write_bytes(bytes_)

    reader = Reader(tmp_path, "w")

    assert batches(reader) == [b"one", b"three"]
    assert reader.doubts == [f"{path}: bytes 19 to 30 are damaged and were left out."]  # 8 + 8 + 3, and 8 + 3 more


def test_a_kill_loses_nothing_that_append_has_returned_from(tmp_path):
    """A process that says each number after appending it is killed: all it said is there."""
    script = f"""
        from pathlib import Path
        from wattkeeper.lake.journal import Journal
        journal = Journal(Path({str(tmp_path)!r}), "w", segment_bytes=5000)
        i = 0
        while True:
            journal.append(b"%d" % i * 100)
            print(i, flush=True)
            i += 1
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as process:
        said = [process.stdout.readline() for _ in range(200)]
        process.kill()
        said += process.stdout.read().splitlines(keepends=True)
    assert process.returncode == -signal.SIGKILL
    last = max(int(s) for s in said if s.endswith(b"\n"))

    found = batches(Journal(tmp_path, "w"))

    assert found[: last + 1] == [b"%d" % i * 100 for i in range(last + 1)]
    assert len(found) <= last + 2  # one may have been written and not said


def test_a_full_disk_is_one_sentence_and_what_was_there_stays(tmp_path):
    """With a file size limit as the disk's end, the batch that does not fit is refused whole; room makes it go on."""
    journal = Journal(tmp_path, "w")
    journal.append(b"a" * 500)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(JournalError, match=r"cannot be written: File too large\. Make room"):
            journal.append(b"b" * 600)
        for _ in range(5):
            with pytest.raises(JournalError):
                journal.append(b"b" * 1000)
        assert len(list((tmp_path / "w").glob("*.wal"))) == 1  # attempts leave nothing
        assert batches(journal) == [b"a" * 500]
        journal.append(b"c" * 400)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.append(b"d" * 600)

    assert batches(journal) == [b"a" * 500, b"c" * 400, b"d" * 600]
    assert journal.doubts == []


def test_a_spool_at_its_limit_refuses_and_takes_again_after_delivery(tmp_path):
    journal = Journal(tmp_path, "w", limit_bytes=4000)
    for _ in range(39):
        journal.append(b"x" * 92)  # 100 with its head; 39 of them and 4 segments' magic of 8: 3 932
    with pytest.raises(JournalFullError, match="at its limit of 4000 bytes"):
        journal.append(b"x" * 92)
    assert len(batches(journal)) == 39

    journal.forget([position for position, _ in journal.read()][19])
    for _ in range(10):
        journal.append(b"y" * 92)
    assert batches(journal) == [b"x" * 92] * 19 + [b"y" * 92] * 10


def test_a_spool_whose_all_was_delivered_never_stays_full(tmp_path):
    journal = Journal(tmp_path, "w", limit_bytes=1000)
    for _ in range(100):
        journal.forget(journal.append(b"x" * 92))

    assert batches(journal) == []
    assert journal.size_bytes() <= 1000


def test_a_reader_in_the_same_folder_sees_batches_as_they_come_and_may_forget_them(tmp_path):
    journal = Journal(tmp_path, "w", segment_bytes=30)
    reader = Reader(tmp_path, "w")
    journal.append(b"first")
    ((position, _),) = list(reader.read())
    journal.append(b"second" * 9)
    reader.forget(position)

    assert batches(reader) == [b"second" * 9]
    assert reader.forgotten() == Position(1, 21)  # 8 of magic, 8 of head, 5


def test_a_journal_has_one_writer_at_a_time(tmp_path):
    journal = Journal(tmp_path, "w")
    with pytest.raises(JournalError, match="being written by another process"):
        Journal(tmp_path, "w")
    Journal(tmp_path, "other").close()
    journal.close()
    Journal(tmp_path, "w").close()
    assert writers(tmp_path) == ["other", "w"]


def test_a_closed_journal_says_so(tmp_path):
    journal = Journal(tmp_path, "w")
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.append(b"late")


def test_a_journal_needs_none_of_the_heavy_packages():
    code = "import sys, wattkeeper.lake.journal; sys.exit(bool({'polars', 'pyarrow', 'numpy'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
