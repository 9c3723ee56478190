"""The demo: files like real ones, books that balance, and jobs that got what they really drew."""

from __future__ import annotations

import json

import polars as pl
import pytest

from wattkeeper import demo, loop
from wattkeeper.cli.imports import source_of
from wattkeeper.lake.book import Book


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """The attributed demo week, and the truth about its jobs [J]."""
    root = tmp_path_factory.mktemp("demo")
    files = demo.write(root / "files")
    book = Book.create(root / "book", files.site_file.read_text())
    refused = [r for what, path in files.imports for r in loop.take(book, source_of(book, what, path), 0)[1]]
    loop.attribute(book)
    return book, json.loads(files.truth.read_text()), refused


def test_the_books_balance(week):
    """Every meter and hour of the week, to 0 mJ; nothing was refused."""
    book, _, refused = week
    assert loop.check(book).largest_mj == 0
    assert loop.statement(book).residual_mj == 0
    assert refused == []


def test_jobs_get_what_they_drew(week):
    """Jobs above 5 MJ whose meters were read throughout have their true GPU energy within 0.5 %, half of them within 0.01 %."""
    book, truth, _ = week
    found = (
        book.postings.scan()
        .filter(pl.col("asset").str.contains("/gpu") & pl.col("job_id").is_not_null())
        .group_by("job_id")
        .agg(
            (pl.col("energy_mj").sum() / 1000).alias("energy_j"), (pl.col("covered_ms").sum() / pl.col("held_ms").sum())
        )
        .filter((pl.col("covered_ms") > 0.999) & (pl.col("energy_j") > 5e6))
        .collect()
    )
    off = [abs(e / truth[j] - 1) for j, e, _ in found.iter_rows() if j in truth]

    assert len(off) > 200
    assert max(off) < 0.005
    assert sorted(off)[len(off) // 2] < 1e-4


def test_everything_that_goes_wrong_shows(week):
    """Eight resets, four failed reads, gaps; held idle, unaccounted at the PDU that reads 3 % high, failed jobs."""
    made = loop.statement(week[0])
    found = dict(made.findings.select("kind", "count").iter_rows())

    assert (found["reset"], found["glitch"]) == (8, 4)
    assert found["gap"] >= 36
    assert made.energy_mj("held_idle") > 0
    r2 = week[0].postings.scan().filter((pl.col("asset") == "r2") & (pl.col("account") == "unaccounted"))
    rack = week[0].meter_hours.scan().filter(pl.col("asset") == "r2").select(pl.col("energy_mj").sum()).collect().item()
    assert r2.select(pl.col("energy_mj").sum()).collect().item() / rack == pytest.approx(0.03 / 1.03, abs=0.002)
    assert {"FAILED", "CANCELLED", "TIMEOUT"} <= set(made.failed["state"])


def test_sunday_has_25_hours(week):
    """The clock goes back: 25 hours stand on the Sunday."""
    sunday = week[0].postings.scan().filter(pl.col("day") == "2026-10-25").select(pl.col("hour_ms").n_unique())

    assert sunday.collect().item() == 25


def test_the_same_seed_makes_the_same_week(tmp_path):
    """Two runs write the same accounting and the same truth."""
    one, two = demo.write(tmp_path / "1", seed=3), demo.write(tmp_path / "2", seed=3)

    assert one.truth.read_text() == two.truth.read_text()
    assert (tmp_path / "1" / "sacct.txt").read_text() == (tmp_path / "2" / "sacct.txt").read_text()
