"""What past jobs tell of those to come."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from wattkeeper.core.roles import Intake
from wattkeeper.core.schema import JOBS
from wattkeeper.lake.book import Book
from wattkeeper.plan.problem import Grid
from wattkeeper.planning import Usual, read_queue
from wattkeeper.planning.usual import CHANCES, quantiles

HOUR = 3_600_000


def ended(
    job: str, hours: float, user: str = "ada", name: str = "train", state: str = "COMPLETED"
) -> dict[str, object]:
    return dict.fromkeys(JOBS.schema.names()) | {
        "job_id": job, "user": user, "name": name, "state": state, "start_ms": 0, "end_ms": round(hours * HOUR),
    }  # fmt: skip


@pytest.fixture
def book(tmp_path):
    """ada's ten jobs named train took 1 to 10 h, one that failed 99 h, one named eval 20 h; bo has two jobs."""
    made = Book.create(tmp_path / "book", '[[site]]\nid = "a"\n')
    rows = [ended(f"t{h}", h) for h in range(1, 11)]
    rows += [ended("f", 99, state="FAILED"), ended("e", 20, name="eval"), ended("b1", 1, "bo"), ended("b2", 2, "bo")]
    made.take(Intake("t", jobs=pl.DataFrame(rows, schema=JOBS.schema)), now_ms=1)
    return made


def test_quantiles_of_the_jobs_of_that_name(book):
    """Of ten, ranks ceil(p × 11): 6, 9 and 10; 95 % would need an eleventh. With another name the
    eleven that did not fail: ranks 6, 9 and 11."""
    usual = Usual(book)

    assert usual.within_h("ada", "train") == [(0.5, 6.0), (0.75, 9.0), (0.9, 10.0)]
    assert usual.within_h("ada", "new") == [(0.5, 6.0), (0.75, 9.0), (0.9, 20.0)]
    assert usual.within_h("bo", "train") == []
    assert usual.notes == (
        "durations of 1 jobs are quantiles of their users' past jobs of the same name, at most their time limit",
        "durations of 1 jobs are quantiles of their users' past jobs, at most their time limit",
    )


def test_a_further_job_is_within_a_quantile_as_often_as_told():
    """4000 times eleven lognormal durations: the last is within the quantiles of the first ten at least that often."""
    draws = np.random.default_rng(0).lognormal(0, 1, (4000, 11))
    for i, chance in enumerate(CHANCES[:3]):
        hits = [row[10] <= quantiles(row[:10].tolist())[i][1] for row in draws]
        assert np.mean(hits) >= chance - 4 * (chance * (1 - chance) / 4000) ** 0.5


def test_a_waiting_job_takes_them_up_to_its_time_limit(book, tmp_path):
    """Limit 8 h: 50 % within 6 h, 75 % and 90 % within 8 h. A job that says its duration itself keeps to that."""
    base = {
        "job_state": "PENDING", "user_name": "ada", "name": "train", "tres_req_str": "gres/gpu=4", "time_limit": 480,
    }  # fmt: skip
    jobs = [
        {**base, "job_id": 1, "comment": "wattkeeper: power_w=500"},
        {**base, "job_id": 2, "comment": "wattkeeper: power_w=500, duration_h=3"},
    ]
    (tmp_path / "q.json").write_text(json.dumps({"jobs": jobs}))
    (one, two), _ = read_queue(tmp_path / "q.json", Grid(0, HOUR, 24), Usual(book), confidence=0.9)

    assert one.within == [(0.5, 6 * HOUR), (0.75, 8 * HOUR), (0.9, 8 * HOUR)]
    assert (one.duration_ms, one.confidence) == (8 * HOUR, 0.9)
    assert (two.within, two.duration_ms) == ([], 3 * HOUR)
