"""Readings that do not fit the book are kept aside with the reason, and come back when the site file is put right."""

from __future__ import annotations

import polars as pl
import pytest

from tests.books.small import SITE, START
from wattkeeper import loop
from wattkeeper.core.assets import Meter
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.live import Sample
from wattkeeper.lake.book import Book
from wattkeeper.lake.fold import journal_root
from wattkeeper.lake.journal import Journal

NOW = START + 86_400_000
POWER = Meter("n1:p", "n1", "power", "script")
KWH = Meter("n1:i", "n1", "energy_interval", "meter", interval_ms=60_000)
BUSY = Meter("n1/gpu0:u", "n1/gpu0", "utilisation", "script")


def site(max_power_w):
    return f"{SITE}[[nodes]]\nnames = 'n1'\nparent = 'a'\ngpus = 1\nmax_power_w = {max_power_w}\n"


def batch(number, meter, *values):
    """Return readings 60 s apart, from as many minutes after START as the batches before had."""
    at = START + number * len(values) * 60_000
    samples = [Sample(meter.id, at + i * 60_000, v) for i, v in enumerate(values)]
    return encode(Batch(f"n1/{meter.id}/{number}", samples, [], [meter]))


def journaled(book, *batches):
    journal = Journal(journal_root(book.root), "server")
    journal.append_many(batches)
    journal.close()


def ledger(book):
    loop.attribute(book)
    assert loop.check(book).largest_mj == 0
    return {name: t.scan().collect().sort(pl.all()) for name, t in book.ledger.items()}


def test_power_above_a_limit_that_is_too_low_waits_until_the_limit_is_put_right(tmp_path):
    """With 100 W, 1.2 × that is taken and no more. The ledger is then that of a book that had 1000 W from the start."""
    batches = [batch(i, POWER, 90_000, 120_000, 120_001, 400_000) for i in range(3)]
    wrong, right = Book.create(tmp_path / "wrong", site(100)), Book.create(tmp_path / "right", site(1000))
    for book in (wrong, right):
        journaled(book, *batches)
    done = loop.fold(wrong, NOW)

    assert (done.readings, done.aside) == (6, 6)
    why = (
        "6 readings of meter 'n1:p' are kept aside: up to 400 W, and 'n1' cannot draw more than 100 W; "
        "is the unit right? Else set max_power_w of 'n1' in the site file"
    )
    assert [(r.source, r.reason) for r in done.refused] == [("journal server", why)]
    assert loop.kept_aside(Book(wrong.root), NOW) == [why]
    loop.attribute(wrong)

    wrong.write_site_file(site(1000))
    waiting = "6 readings that were kept aside fit the book now. Run: wattkeeper attribute"
    assert loop.kept_aside(Book(wrong.root), NOW) == [waiting]
    assert (loop.fold(Book(wrong.root), NOW).readings, loop.fold(right, NOW).readings) == (6, 12)
    assert loop.kept_aside(Book(wrong.root), NOW) == []
    ours, theirs = ledger(Book(wrong.root)), ledger(right)
    assert all(ours[name].equals(theirs[name]) for name in theirs)
    # trapezoids of 60 s: 3 × (105 + 120.0005 + 260.0005) W and between them 2 × 245 W, × 60 s
    assert ours["postings"]["energy_mj"].sum() == 3 * 60 * (105_000 + 120_000 + 260_000) + 3 * 60 + 2 * 60 * 245_000


def test_a_limit_of_a_gpu_and_energy_of_intervals(tmp_path):
    """100 W over a minute are 6 000 J: 7 200 J are taken, and 1 mJ more is not."""
    book = Book.create(tmp_path / "b", site(100))
    journaled(book, batch(0, KWH, 7_200_000, 7_200_001))

    (refused,) = loop.fold(book, NOW).refused
    assert refused.reason.startswith(
        "1 readings of meter 'n1:i' are kept aside: up to 120 W, and 'n1' cannot draw more"
    )


@pytest.mark.parametrize(
    ("meter", "value", "why"),
    [
        (POWER, -1500, "down to -1.5 W, and 'n1' cannot draw less than 0 W; is the sign right?"),
        (KWH, -60_000, "down to -1 W, and 'n1' cannot draw less than 0 W; is the sign right?"),
        (BUSY, 1_010_000, "101 % to 101 %, and it is 0 % to 100 %; is the unit right?"),
        (BUSY, 97_000_000, "9,700 % to 9,700 %, and it is 0 % to 100 %; is the unit right?"),
        (BUSY, -1, "-0.0001 % to -0.0001 %, and it is 0 % to 100 %; is the unit right?"),
    ],
)
def test_what_no_asset_can_have_is_kept_aside(tmp_path, meter, value, why):
    book = Book.create(tmp_path / "b", site(1000))
    journaled(book, batch(0, meter, 0, value))
    done = loop.fold(book, NOW)

    assert (done.readings, done.aside) == (1, 1)
    assert [r.reason for r in done.refused] == [f"1 readings of meter '{meter.id}' are kept aside: {why}"]


def test_what_is_kept_aside_twice_by_a_crash_counts_once_and_nothing_of_it_is_dropped(tmp_path, monkeypatch):
    """Before the crash y is unknown; after it y is known and above its limit: both were kept aside under one id."""
    book = Book.create(tmp_path / "b", site(100))
    mixed = Batch("n1/m/0", [Sample("y", START, 5), Sample("n1:p", START, 200_000)], [], [POWER])
    journaled(book, encode(mixed))

    def broken(*_args, **_kwargs):
        raise OSError("the machine stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(Book, "take", broken)
        with pytest.raises(OSError, match="stopped here"):
            loop.fold(book, NOW)
    y = "[[meter]]\nid = 'y'\nasset = 'n1'\nquantity = 'power'\n"
    book.write_site_file(site(100) + y)
    loop.fold(Book(book.root), NOW)
    book.write_site_file(site(1000) + y)
    loop.fold(Book(book.root), NOW)

    kept = book.readings.table.scan().select("meter", "value").unique().collect()
    assert sorted(kept.rows()) == [("n1:p", 200_000), ("y", 5)]
    assert loop.kept_aside(Book(book.root), NOW) == []
