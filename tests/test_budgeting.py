"""Budgets from a book: who holds which GPUs, what they draw by the ledger, and which rack they stand in."""

from __future__ import annotations

import numpy as np
import pytest

from wattkeeper import loop
from wattkeeper.budgeting import Setting, always, book_jobs, budget, check_rows, read_jobs, read_limits
from wattkeeper.core.errors import ConfigError, ImportFileError, UnknownNameError
from wattkeeper.lake.book import Book
from wattkeeper.plan.budget import BudgetError
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

    assert {c.job: (c.rows, pytest.approx(c.power_w)) for c in found.budget.caps} == {
        "x": (("r1",), 400), "z": (("r2",), 400)
    }  # fmt: skip


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


def test_a_row_within_a_row_counts_towards_both(book, tmp_path):
    """Node a-n0001 stands in r1: a wide limit of the node does not free x from the 1.6 kW of r1, less its base of 0.4."""
    (tmp_path / "curves.csv").write_text("job_id,curve\nx,250@0.5;500@1\n")
    running, _ = book_jobs(book, NOON, tmp_path / "curves.csv", {"r1", "a-n0001"})
    limits = always(9.0, {"r1": 1.6, "a-n0001": 5.0})
    (found,) = budget(running, limits, Setting())
    (less,) = budget(running, limits, Setting(base_kw={"a-n0001": 0.4}))

    assert {c.job: (c.rows, pytest.approx(c.power_w)) for c in found.budget.caps} == {
        "x": (("a-n0001", "r1"), 400), "z": ((), 400)
    }  # fmt: skip
    assert {c.job: pytest.approx(c.power_w) for c in less.budget.caps} == {"x": 300, "z": 400}


def test_what_would_limit_nothing_is_refused(tmp_path):
    """A row that no job stands in, a limit or a job that ends before it starts, a job twice, a limit or base below 0."""

    def jobs(*rows: str):
        (tmp_path / "jobs.csv").write_text("\n".join(["job_id,gpus,curve,row,start,end", *rows, ""]))
        return read_jobs(tmp_path / "jobs.csv")

    def limits(row: str):
        (tmp_path / "limits.csv").write_text(f"start,end,limit_kw,row\n{row}\n")
        return read_limits(tmp_path / "limits.csv")

    fine = jobs("x,1,300@0.5;700@1,r1;room,,")
    assert fine[0].load.rows == ("r1", "room")
    with pytest.raises(ConfigError, match=r"Row 'r2' has a limit and no job\. The jobs stand in r1, room\."):
        check_rows(fine, always(1.0, {"r2": 1.0}))
    with pytest.raises(ImportFileError, match="row 3: job x is there twice"):
        jobs("x,1,700@1,,,", "x,1,700@1,,,")
    with pytest.raises(ImportFileError, match="row 2: its end 2026-01-01T00:00:00Z is not after its start"):
        jobs("x,1,700@1,,2026-01-02T00:00Z,2026-01-01T00:00Z")
    with pytest.raises(ImportFileError, match="row 2: its end 2026-01-01T14:00:00Z is not after its start"):
        limits("2026-01-01T17:00Z,2026-01-01T14:00Z,3,")
    with pytest.raises(ImportFileError, match="row 2: limit_kw is below 0"):
        limits("2026-01-01T14:00Z,2026-01-01T17:00Z,-3,")
    with pytest.raises(ConfigError, match="The base of 'r1' is below 0 kW"):
        budget(fine, always(1.0, {}), Setting(base_kw={"r1": -1.0}))
    with pytest.raises(BudgetError, match=r"The site cannot be kept: power that no cap changes takes 1\.0 kW more"):
        budget(fine, always(1.0, {}), Setting(base_kw={"": 2.0}))
