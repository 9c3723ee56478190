"""What a crash, a foreign directory and a full disk do to a book: nothing that is not told or made good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from tests.books.small import HOUR, SITE, START, book, counter, held, node, watts
from wattkeeper import loop
from wattkeeper.core.errors import BookError, ConfigError
from wattkeeper.core.roles import Intake
from wattkeeper.lake.book import Book
from wattkeeper.lake.state import facts

KILLED_AT = [
    "wattkeeper.lake.delta.Table.commit",
    "wattkeeper.lake.state.State.settle",
    "wattkeeper.lake.delta.Table.write",
]


@pytest.mark.parametrize("where", KILLED_AT)
def test_a_kill_during_attribution_leaves_a_book_that_heals(tmp_path, where):
    """kill -9 at any commit: the next attribution gives the ledger an undisturbed one gives."""
    meters = [counter("n1/gpu0", 500)]
    expected = book(tmp_path / "whole", SITE + node("n1", 1), meters, [held("j1", "n1/gpu0")])
    hurt = Book.create(tmp_path / "hurt", SITE + node("n1", 1))
    rows = pl.DataFrame([held("j1", "n1/gpu0")], schema=hurt.allocations_table.spec.schema, orient="row")
    hurt.take(Intake("t", meters=[meters[0][0]], readings=meters[0][1], allocations=rows), now_ms=0)
    module, _, method = where.rpartition(".")
    script = f"""
        import os, signal
        from pathlib import Path
        from wattkeeper import loop
        from wattkeeper.lake.book import Book
        from {module.rpartition(".")[0]} import {module.rpartition(".")[2]} as hit
        hit.{method} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
        loop.attribute(Book(Path({str(tmp_path / "hurt")!r})))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, env=os.environ.copy())
    assert done.returncode == -signal.SIGKILL

    loop.attribute(Book(tmp_path / "hurt"))

    assert watts(Book(tmp_path / "hurt")) == watts(expected) == {"j1": 500.0}
    assert loop.check(Book(tmp_path / "hurt")).largest_mj == 0


@pytest.mark.parametrize("gone", ["postings", "job_days", "meter_hours"])
@pytest.mark.parametrize("how", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["missing", "empty"])
def test_files_of_the_ledger_that_power_took_are_made_anew(tmp_path, gone, how):
    """What a log names and the disk does not have is no reason to keep a broken book: looking at every day mends it."""
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)], [held("j1", "n1/gpu0")])
    files = list((made.root / gone).glob("site=*/*/*.parquet"))
    assert files
    for path in files:
        how(path)

    assert loop.attribute(made).units == 0  # nothing has changed: no day is looked at
    loop.attribute(Book(made.root), everything=True)

    assert watts(Book(made.root)) == {"j1": 500.0}
    assert loop.check(Book(made.root)).largest_mj == 0
    assert loop.attribute(Book(made.root), everything=True).units == 0


def test_the_same_batch_twice_changes_nothing(tmp_path):
    """Importing again what is there leaves the same ledger and attributes no unit anew."""
    meters = [counter("n1/gpu0", 500)]
    made = book(tmp_path, SITE + node("n1", 1), meters, [held("j1", "n1/gpu0")])
    made.take(Intake("t", meters=[meters[0][0]], readings=meters[0][1]), now_ms=1)

    assert loop.attribute(made).units == 0
    assert {"j1": 500.0} == watts(made)


def test_a_late_piece_recomputes_only_what_it_touches(tmp_path):
    """Readings that arrive late for one of two nodes leave the other node's lines alone."""
    one, two = counter("n1/gpu0", 500), counter("n2/gpu0", 300)
    early = (two[0], two[1].filter(pl.col("time_ms") < START + HOUR // 2))
    made = book(tmp_path, SITE + node("n[1-2]", 1), [one, early])
    made.take(Intake("t", readings=two[1].filter(pl.col("time_ms") >= START + HOUR // 2)), now_ms=1)
    done = loop.attribute(made)

    assert {"idle": 800.0} == watts(made)
    assert done.units == 2  # n2 and the site above it, not n1


def test_a_new_day_opens_only_the_last_hours_of_the_day_before(tmp_path):
    """The ledger's files of the earlier hours stay as they are; the whole is what one attribution of both days gives."""
    meter, rows = counter("n1/gpu0", 500, hours=20)
    first = rows.filter(pl.col("time_ms") < START + 15 * HOUR)
    made = book(tmp_path / "a", SITE + node("n1", 1), [(meter, first)], [held("j1", "n1/gpu0", end=START + 20 * HOUR)])
    before = {f.path for f in made.postings.files()}
    made.take(Intake("t", readings=rows.filter(pl.col("time_ms") >= START + 15 * HOUR)), now_ms=1)
    loop.attribute(made)
    after = {f.path for f in made.postings.files()}
    whole = book(tmp_path / "b", SITE + node("n1", 1), [(meter, rows)], [held("j1", "n1/gpu0", end=START + 20 * HOUR)])

    assert {p.rpartition("/")[2][:5] for p in before - after} == {"tail-"}
    assert {p.rpartition("/")[2][:5] for p in before & after} == {"head-"}
    for table in ("postings", "meter_hours"):
        one, other = (getattr(b, table).scan().collect().sort(pl.all()) for b in (made, whole))
        assert one.equals(other)


def test_readings_of_one_instant_that_differ_collapse_the_same_way_in_any_order(tmp_path):
    """Of two values for one meter and instant the larger stands, whichever came first."""
    results = []
    for first, second in ((100, 200), (200, 100)):
        meter, rows = counter("n1/gpu0", 360)
        made = Book.create(tmp_path / str(first), SITE + node("n1", 1))
        for extra in (first, second):
            twisted = rows.with_columns(
                pl.when(pl.col("time_ms") == START + HOUR).then(pl.col("value") + extra).otherwise("value")
            )
            made.take(Intake("t", meters=[meter], readings=twisted), now_ms=0)
        loop.attribute(made)
        results.append(made.postings.scan().select(pl.col("energy_mj").sum()).collect().item())

    assert [360 * HOUR + 200] * 2 == results


def test_readings_of_an_unknown_meter_are_refused_and_the_rest_is_kept(tmp_path):
    """Readings that name no meter are told with the cure; the others count."""
    meter, rows = counter("n1/gpu0", 500)
    made = Book.create(tmp_path / "b", SITE + node("n1", 1))
    stray = rows.head(3).with_columns(pl.lit("stray").alias("meter"))
    refused = made.take(Intake("file.csv", meters=[meter], readings=pl.concat([rows, stray])), now_ms=0)
    loop.attribute(made)

    assert ["3 readings of unknown meter 'stray': declare it in the site file under [[meter]]"] == [
        r.reason for r in refused
    ]
    assert {"idle": 500.0} == watts(made)


def test_a_directory_that_is_no_book_is_refused(tmp_path):
    """A missing book is told with the command that makes one; a full directory is left alone."""
    with pytest.raises(BookError, match="wattkeeper init"):
        Book(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("mine")
    with pytest.raises(BookError, match="not empty"):
        Book.create(tmp_path / "x", SITE)


def test_a_full_disk_loses_nothing_that_was_there(tmp_path, monkeypatch):
    """A write that fails for lack of space leaves the book as it was; the same import works once there is space."""
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)])
    meter, rows = counter("n1/gpu0", 500, hours=2)
    real = Path.mkdir

    def full(self, *args, **kwargs):
        if "readings" in self.parts:
            raise OSError(28, "No space left on device")
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        with pytest.raises(OSError, match="No space left"):
            made.take(Intake("t", meters=[meter], readings=rows), now_ms=1)
    assert {"idle": 500.0} == watts(made)

    fresh = Book(tmp_path / "book")
    fresh.take(Intake("t", meters=[meter], readings=rows), now_ms=2)
    loop.attribute(fresh)
    assert {"idle": 1000.0} == watts(fresh)  # two hours' energy over one hour's milliseconds


def test_vacuum_deletes_what_was_replaced_and_nothing_that_is_there(tmp_path):
    """After a late piece the old files go, with their indexes; the ledger and the next attribution are as before."""
    meter, rows = counter("n1/gpu0", 500)
    early = rows.filter(pl.col("time_ms") < START + HOUR // 2)
    made = book(tmp_path, SITE + node("n1", 1), [(meter, early)])
    made.take(Intake("t", readings=rows.filter(pl.col("time_ms") >= START + HOUR // 2)), now_ms=1)
    loop.attribute(made)
    here = {f.path for t in (made.readings.table, *made.ledger.values()) for f in t.files()}
    (made.readings.table.root / "left-by-a-crash.parquet").write_bytes(b"x" * 1000)

    tried = made.vacuum(0, dry_run=True)
    assert made.vacuum(0, dry_run=False) == tried
    left = {p.name for t in (made.readings.table, *made.ledger.values()) for p in t.root.rglob("*.parquet")}

    assert {p.rpartition("/")[2] for p in here} == {p for p in left if "checkpoint" not in p}
    assert len(list(made.readings.index_root.glob("*.npz"))) == len(made.readings.table.files())
    assert watts(Book(tmp_path / "book")) == {"idle": 500.0}
    assert loop.attribute(Book(tmp_path / "book"), everything=True).units == 0
    assert tried[0] >= 4
    assert tried[1] > 1000


def test_a_dry_vacuum_counts_the_log_that_would_go(tmp_path):
    """A log of 40 days ago, with two checkpoints since: the dry run deletes nothing, and tells the very files and bytes."""
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)])
    table = made.findings
    for day in range(25):
        table.drop(table.files())
        table.write(table.spec.empty().with_columns(pl.lit("a").alias("site")), ("a", f"{day}"))
        table.commit()
    loop.attribute(made)
    log = table.root / "_delta_log"
    for path in log.iterdir():
        os.utime(path, (path.stat().st_mtime - 40 * 86_400,) * 2)
    before = {p: p.stat().st_size for t in (made.readings.table, *made.plain_tables, *made.ledger.values())
              for p in t.root.rglob("*") if p.is_file()}  # fmt: skip

    tried = made.vacuum(30, dry_run=True)
    assert all(p.exists() for p in before)
    assert made.vacuum(30, dry_run=False) == tried
    gone = {p: size for p, size in before.items() if not p.exists()}

    assert tried == (len(gone), sum(gone.values()))
    assert sum(p.parent == log for p in gone) >= 20


def test_a_book_attributed_daily_and_vacuumed_weekly_stays_bounded(tmp_path):
    """Files of each log stop growing after the days that are kept; kept versions open, and so does the statement.

    A day passes by setting back the time of every file of the logs. With 30 days kept, a log of one commit a day, four
    more for each vacuum and a checkpoint in ten commits holds under 100 files, whether after a hundred days or a year.
    """
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)])
    table = made.findings
    logs = [t.root / "_delta_log" for t in (made.readings.table, *made.plain_tables, *made.ledger.values())]
    sizes, opened = [], []
    for day in range(1, 366):
        table.drop(table.files())
        table.write(table.spec.empty().with_columns(pl.lit("a").alias("site")), ("a", f"{day}"))
        table.commit()
        opened.append(table.version())
        for path in (p for log in logs for p in log.iterdir()):
            then = path.stat().st_mtime - 86_400
            os.utime(path, (then, then))
        if day % 7 == 0:
            loop.attribute(made)
            made.vacuum(30, dry_run=False)
            sizes.append(len(list((table.root / "_delta_log").iterdir())))

    assert max(sizes[5:]) <= max(sizes[:5]) + 10 <= 100
    for version in opened[-28:]:
        table.scan(version).collect()
    assert watts(Book(tmp_path / "book")) == {"idle": 500.0}
    assert loop.statement(Book(tmp_path / "book")).meter_mj == 500 * HOUR


def test_another_process_goes_on_after_the_log_it_knew_was_cleaned(tmp_path):
    """A server that opened the book long ago sees what came since, and can still write."""
    first = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)], [held("j1", "n1/gpu0")])
    server = Book(tmp_path / "book")
    seen = [t.version() for t in (server.readings.table, *server.plain_tables, *server.ledger.values())]
    meter, rows = counter("n1/gpu0", 500, hours=2)
    first.take(Intake("t", meters=[meter], readings=rows), now_ms=1)
    loop.attribute(first)
    first.vacuum(0, dry_run=False)
    first.vacuum(0, dry_run=False)
    now = [t.version() for t in (server.readings.table, *server.plain_tables, *server.ledger.values())]

    assert all(new > old for new, old in zip(now, seen, strict=True))
    assert watts(server) == watts(first)
    meter, rows = counter("n1/gpu0", 500, hours=3)
    server.take(Intake("t", meters=[meter], readings=rows), now_ms=2)
    loop.attribute(server)
    assert loop.statement(Book(tmp_path / "book")).meter_mj == 3 * 500 * HOUR


def test_a_log_is_kept_until_someone_asks(tmp_path):
    """What a commit of today does not do by itself: delete versions of more than 30 days ago."""
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)])
    first = made.postings.version()
    for hours in range(2, 26):
        for path in (made.postings.root / "_delta_log").iterdir():
            os.utime(path, (0, 0))
        meter, rows = counter("n1/gpu0", 500, hours=hours)
        made.take(Intake("t", meters=[meter], readings=rows.tail(240)), now_ms=hours)
        loop.attribute(made)

    energy = pl.col("energy_mj").sum()
    assert made.postings.scan(first).select(energy).collect().item() == 500 * HOUR
    assert made.postings.version() > first + 20


def test_vacuum_does_not_touch_a_ledger_that_is_half_made(tmp_path):
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)])
    made.postings.drop(made.postings.files())
    made.postings.commit()
    with pytest.raises(BookError, match=r"broke off. Run: wattkeeper attribute$"):
        made.vacuum(0, dry_run=False)


def test_a_ledger_of_an_earlier_version_says_so(tmp_path):
    """It did not note the site file it was made by, so that nobody can say whether that was edited."""
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)])
    with made.state.engine.begin() as db:
        db.execute(sa.delete(facts).where(facts.c.key == "attributed_by"))
    with pytest.raises(ConfigError, match=r"was made by an earlier version. Run: wattkeeper attribute$"):
        loop.statement(made)
    loop.attribute(made)
    assert loop.statement(made).meter_mj == 500 * HOUR
