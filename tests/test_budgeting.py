"""Budgets from a book: who holds which GPUs, what they draw by the ledger, and which rack they stand in."""

from __future__ import annotations

import numpy as np
import pytest

from wattkeeper import loop
from wattkeeper.budgeting import Setting, always, book_jobs, budget
from wattkeeper.core.errors import ConfigError, ImportFileError, UnknownNameError
from wattkeeper.lake.book import Book
from wattkeeper.plan.simulate.cluster import Fleet, Stretches, intake

HOUR = 3_600_000
START = 1_760_000_400_000
NOON = START + 4 * HOUR


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A book of two nodes of 4 GPUs: x holds 4 at 500 W, y 2 at 300 W and is over, z 2 at 400 W on the other node."""
    site = "[[site]]\nid = 'a'\n" + "".join(
        f"[[asset]]\nid = '{rack}'\nkind = 'rack'\nparent = 'a'\n[[asset]]\nid = '{node}'\nkind = 'node'\nparent = '{rack}'\n"
        for rack, node in (("r1", "a-n0001"), ("r2", "a-n0002"))
    )
    found = Book.create(tmp_path_factory.mktemp("budget") / "book", site)
    held = Stretches(
        np.arange(3), START + HOUR * np.array([0, 0, 1]), START + HOUR * np.array([6, 2, 6]), np.array([4, 2, 2]),
        np.array([4 * 500_000, 2 * 300_000, 2 * 400_000]),
    )  # fmt: skip
    batch = intake(Fleet("a", 8, 4), held, ["x", "y", "z"], (START, START + 6 * HOUR), 60_000)
    batch.assets = [one for one in batch.assets if one.kind != "node"]
    assert found.take(batch, now_ms=0) == []
    loop.attribute(found)
    return found


def test_jobs_without_a_curve_count_at_what_they_draw(book, tmp_path):
    """x 4 × 500 W has a curve and gives: 2.5 kW for the site leave it 1.7 kW, 425 W each. z is left at 400 W."""
    (tmp_path / "curves.csv").write_text("job_id,curve,tier\nx,300@0.6;500@1,elastic\n")
    running, lone = book_jobs(book, NOON, tmp_path / "curves.csv", set())
    (found,) = budget(running, always(2.5, {}), Setting())

    assert lone == ["z"]
    assert {c.job: (c.gpus, pytest.approx(c.power_w)) for c in found.budget.caps} == {"x": (4, 425), "z": (2, 400)}
    assert found.budget.loss == pytest.approx(4 * (1 - (0.6 + 0.4 * 125 / 200)))


def test_a_row_is_any_asset_above(book, tmp_path):
    """r1 holds x alone: 1.6 kW are 400 W each, though the site has room; z stands in r2."""
    (tmp_path / "curves.csv").write_text("job_id,curve\nx,300@0.6;500@1\n")
    running, _ = book_jobs(book, NOON, tmp_path / "curves.csv", {"r1", "r2"})
    (found,) = budget(running, always(9.0, {"r1": 1.6, "r2": 1.0}), Setting())

    assert {c.job: (c.row, pytest.approx(c.power_w)) for c in found.budget.caps} == {"x": ("r1", 400), "z": ("r2", 400)}


def test_what_the_book_does_not_know_is_refused(book, tmp_path):
    """A job that is over, a time without jobs, an asset that is none, and a job across two rows."""
    (tmp_path / "curves.csv").write_text("job_id,curve\ny,300@1\n")
    with pytest.raises(ImportFileError, match="row 2: job y holds no GPUs at 2025-10-09T13:00:00Z by the book"):
        book_jobs(book, NOON, tmp_path / "curves.csv", set())
    with pytest.raises(ConfigError, match="No job holds GPUs at 2025-10-10"):
        book_jobs(book, NOON + 24 * HOUR, None, set())
    with pytest.raises(UnknownNameError, match="No asset named 'r9'"):
        book_jobs(book, NOON, None, {"r9"})
    with pytest.raises(ConfigError, match="Job x holds GPUs under a-n0001/gpu0 and none, and has one cap"):
        book_jobs(book, NOON, None, {"a-n0001/gpu0"})


def test_a_book_that_ended_long_ago_does_not_tell_who_runs_now(book):
    """A job whose end nobody told would hold its GPUs for ever: past a day after the ledger's end nothing is guessed."""
    with pytest.raises(ConfigError, match=r"The ledger ends at 2025-10-\S+Z, and the caps are for 2025-11-08"):
        book_jobs(book, NOON + 30 * 24 * HOUR, None, set())
