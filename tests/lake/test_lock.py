"""The book's lock: one writer at a time, among threads of one `Book` and among processes, and a long wait is told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading

import pytest

from tests.books.small import SITE, START, node
from wattkeeper import loop
from wattkeeper.core.assets import Meter
from wattkeeper.core.roles import Intake
from wattkeeper.core.schema import READINGS
from wattkeeper.lake import lock as locking
from wattkeeper.lake.book import Book
from wattkeeper.lake.lock import WritingLock

METER = Meter("n1:p", "n1", "power")


def test_threads_of_one_book_write_one_after_the_other(tmp_path):
    """Eight threads take a batch each through one and the same Book: all are there, each once."""
    import polars as pl

    book = Book.create(tmp_path / "b", SITE + node("n1", 0))
    start = threading.Barrier(8)
    faults = []

    def take(i):
        rows = pl.DataFrame(
            [(METER.id, START + i * 100 + k, 1) for k in range(50)], schema=READINGS.schema, orient="row"
        )
        start.wait()
        try:
            book.take(Intake(f"t{i}", meters=[METER], readings=rows), now_ms=0)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=take, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert faults == []
    kept = book.readings.table.scan().collect()["time_ms"].sort().to_list()
    assert kept == [START + i * 100 + k for i in range(8) for k in range(50)]


def test_within_the_lock_once_more_is_the_same_and_others_wait(tmp_path):
    lock, order = WritingLock(tmp_path / "lock"), []

    def other():
        with lock.held():
            order.append("other")

    with lock.held(), lock.held():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


@pytest.mark.parametrize("same_book", [True, False])
def test_a_long_wait_is_told_once_with_who_and_since_when(tmp_path, monkeypatch, same_book):
    monkeypatch.setattr(locking, "SAY_AFTER_S", 0.1)
    told, said = [], threading.Event()

    def say(words):
        told.append(words)
        said.set()

    first = WritingLock(tmp_path / "lock", say)
    second = first if same_book else WritingLock(tmp_path / "lock", say)

    def other():
        with second.held():
            pass

    with first.held():
        thread = threading.Thread(target=other)
        thread.start()
        assert said.wait(30)
    thread.join()
    (words,) = told
    since = r"has been writing to it since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(rf"Waiting for the book {tmp_path}: process {os.getpid()} \(.+\) {since}\.", words)


def test_a_command_says_on_standard_error_for_whom_it_waits(tmp_path):
    book = Book.create(tmp_path / "b", SITE + node("n1", 0))
    command = [sys.executable, "-m", "wattkeeper", "attribute", "--book", str(book.root)]
    with book.writing():
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = waiting.stderr.readline()
    out, rest = waiting.communicate(timeout=60)

    assert line.startswith(f"Waiting for the book {book.root}: process {os.getpid()} (")
    assert (waiting.returncode, rest) == (0, "")
    assert "Looked at 0 days" in out
    assert loop.check(book).largest_mj == 0
