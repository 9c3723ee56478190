"""Every element of the planning problem reaches a user: the same job from a CSV, Slurm and Kueue queue, with its sum."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from wattkeeper.core.roles import Intake, SignalInfo
from wattkeeper.core.schema import SIGNALS
from wattkeeper.lake.book import Book
from wattkeeper.plan.problem import Grid, Weights
from wattkeeper.planning import Outlook, outlook, read_limits

HOUR = 3_600_000
START = 1_790_812_800_000  # 2026-10-01
SITE = """[[site]]
id = "a"
intensity = "intensity:A"
pue = "pue:A"
price = 0.1
water = 2.0
[[site]]
id = "b"
intensity = 250.0
price = 0.0
water = 0.0
"""
INTENSITY = [400.0, 300, 100, 120, 300, 400]
PUE = [1.0, 1, 2, 1.5, 1, 1]
# site a, g per kWh of IT energy: 400, 300, 200, 180, 300, 400; site b: 250
BASE = {"job_id": "j", "user": "ada", "gpus": "2", "duration_h": "1", "power_w": "500", "sites": "a"}
"""1 kW for an hour; alone, at site a: 180 g in hour 3."""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """A book with six hours of intensity and PUE at site a."""
    made = Book.create(tmp_path_factory.mktemp("reach") / "book", SITE)
    infos = [
        SignalInfo("intensity:A", "intensity", "g/kWh", "test"),
        SignalInfo("pue:A", "pue", "ratio", "test"),
    ]
    rows = [
        (name, START + h * HOUR, START + (h + 1) * HOUR, float(value))
        for name, values in (("intensity:A", INTENSITY), ("pue:A", PUE))
        for h, value in enumerate(values)
    ]
    made.take(Intake("test", signals=pl.DataFrame(rows, SIGNALS.schema, orient="row"), signal_infos=infos), 0)
    return made


def csv(folder: Path, *jobs: dict[str, str]) -> Path:
    """Write a queue file."""
    columns = list(dict.fromkeys(k for job in jobs for k in job))
    rows = [",".join(job.get(c, "") for c in columns) for job in jobs]
    (folder / "q.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")
    return folder / "q.csv"


def slurm(folder: Path, *jobs: dict[str, str]) -> Path:
    """Write what squeue --json prints: what Slurm knows as it says it, the rest in the comment."""

    def epoch(text: str | None) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) if text else 0

    told = [
        {
            "job_id": job["job_id"], "job_state": ["PENDING"], "user_name": job["user"], "name": "train",
            "tres_req_str": f"cpu=8,gres/gpu={job['gpus']}", "time_limit": round(float(job["duration_h"]) * 60),
            "eligible_time": epoch(job.get("release")), "deadline": epoch(job.get("deadline")),
            "comment": "wattkeeper: " + ", ".join(f"{k}={v}" for k, v in job.items() if k not in NATIVE and v),
        }
        for job in jobs
    ]  # fmt: skip
    (folder / "q.json").write_text(json.dumps({"jobs": told}))
    return folder / "q.json"


NATIVE = {"job_id", "user", "gpus", "duration_h", "release", "deadline"}


def kueue(folder: Path, *jobs: dict[str, str]) -> Path:
    """Write Workloads: GPUs and time limit in their spec, the rest as annotations."""
    told = [
        {
            "kind": "Workload",
            "metadata": {
                "name": job["job_id"],
                "annotations": {
                    f"wattkeeper.io/{k.replace('_', '-')}": v
                    for k, v in job.items()
                    if k not in {"job_id", "gpus", "duration_h"} and v
                },
            },
            "spec": {
                "maximumExecutionTimeSeconds": round(float(job["duration_h"]) * 3600),
                "podSets": [
                    {
                        "count": int(job["gpus"]),
                        "template": {"spec": {"containers": [{"resources": {"requests": {"nvidia.com/gpu": "1"}}}]}},
                    }
                ],
            },
        }
        for job in jobs
    ]
    (folder / "q.json").write_text(json.dumps({"kind": "List", "items": told}))
    return folder / "q.json"


def planned(book: Book, queue: Path, weights: Weights | None = None, **more: object) -> Outlook:
    """Plan a queue over the six hours on 4 GPUs at a and 2 at b."""
    setting: dict[str, object] = {"gpus": {"a": 4, "b": 2}, "power_kw": {}, **more}
    return outlook(book, queue, grid=Grid(START, HOUR, 6), weights=weights or Weights(), **setting)  # type: ignore[arg-type]


CASES: list[tuple[str, dict[str, str], Weights, dict[str, object], float]] = [
    ("intensity and PUE over time", {}, Weights(), {}, 180),
    ("deadline", {"deadline": "2026-10-01T02:00:00"}, Weights(), {}, 300),
    ("release", {"release": "2026-10-01T03:30:00"}, Weights(), {}, 300),
    ("tier: critical is not touched", {"tier": "critical"}, Weights(), {}, 400),
    ("gang: 2 GPUs at b", {"sites": "b"}, Weights(), {}, 250),
    # an hour of 2 GPUs costs 200: 400, or 300 + 200; at a tenth of that 300 + 20, 200 + 40, 180 + 60
    ("delay", {}, Weights(delay_g_per_gpu_h=100), {}, 400),
    ("delay weight", {"delay_weight": "0.1"}, Weights(delay_g_per_gpu_h=100), {}, 240),
    # 1 kWh at 250 and 0.1 kWh of moving; the hour it takes keeps it from the first slot only
    ("allowed sites and data moved", {"sites": "b:0.1:60", "deadline": "2026-10-01T02:00:00"}, Weights(), {}, 275),
    # 2 kWh would cost 200 + 180; 1.5 kWh over three hours (200 + 180 + 300) / 2
    ("cap levels", {"duration_h": "2", "levels": "1.5@0.5"}, Weights(), {}, 340),
    # at 100 W of 500 W and half the speed: 0.2 × (200 + 180)
    ("cap levels of a measured curve", {"curve": "100@0.5;500@1"}, Weights(), {}, 76),
    ("a curve beside what the node draws", {"power_w": "600", "curve": "100@0.5;500@1"}, Weights(), {}, 152),
    # 1 kWh in the first hour, nothing in the second
    ("energy profile", {"duration_h": "2", "profile": "1@500;1@0"}, Weights(), {}, 180),
    ("power budget: 1.2 kW at PUE 1", {}, Weights(), {"power_kw": {"a": 1.2}}, 300),
    # 180 + 1000 × 0.1 × 1.5
    ("price", {}, Weights(money_g=1000), {}, 330),
    # 180 + 10 × 2 × 1.5
    ("water", {}, Weights(water_g_per_l=10), {}, 210),
    # held for 2 of 4 hours, 0.75 kWh in the first and 0.4 in the second: 0.75 × 200 + 0.4 × 180
    (
        "uncertain duration",
        {"duration_h": "4", "duration_quantiles": "50@1;90@2", "confidence_pct": "90"},
        Weights(),
        {},
        222,
    ),
    ("confidence for all", {"duration_h": "4", "duration_quantiles": "50@1;90@2"}, Weights(), {"confidence": 0.9}, 222),
    # ada's mean delay t hours on 2 GPUs: 400, 300 + 30, 200 + 120
    ("fairness", {}, Weights(fairness_g=30), {}, 320),
]


@pytest.mark.parametrize("write", [csv, slurm, kueue])
@pytest.mark.parametrize(("what", "cells", "weights", "more", "weighed_g"), CASES, ids=[c[0] for c in CASES])
def test_each_element_counts(book, tmp_path, write, what, cells, weights, more, weighed_g):
    """One job, one sum, from three kinds of queue."""
    found = planned(book, write(tmp_path, BASE | cells), weights, **more)

    assert found.rejects == ()
    assert found.made.problem.skipped == {}
    assert found.planned.weighed_g == pytest.approx(weighed_g)
    assert found.bound_g <= weighed_g + 1e-6


@pytest.mark.parametrize("write", [csv, slurm, kueue])
@pytest.mark.parametrize(("minutes", "weighed_g"), [("0", 498), ("6", 700)])
def test_suspending_around_limits_over_time(book, tmp_path, write, minutes, weighed_g):
    """No GPUs in hours 2 and 4. Two hours of work: 300 + 180 and 0.1 kWh to resume at 180; or 400 + 300 in one piece.

    With 6 min to resume a slot more is held, and hour 3 alone is not enough for both.
    """
    limits = tmp_path / "limits.csv"
    limits.write_text(
        "site,start,end,gpus\na,2026-10-01T02:00Z,2026-10-01T03:00Z,0\na,2026-10-01T04:10Z,2026-10-01T04:20Z,1\n"
    )
    job = {"duration_h": "2", "suspendable": "yes", "resume_min": minutes, "resume_kwh": "0.1"}
    found = planned(book, write(tmp_path, BASE | job), limits=read_limits(limits))

    assert found.planned.weighed_g == pytest.approx(weighed_g)


def test_two_gangs_do_not_share_a_slot(book, tmp_path):
    """3 GPUs each of 4: one takes 1.5 kWh at 180, the other at 200."""
    jobs = [BASE | {"job_id": name, "gpus": "3"} for name in ("x", "y")]

    assert planned(book, csv(tmp_path, *jobs)).planned.weighed_g == pytest.approx(1.5 * (180 + 200))


def test_who_waits_and_who_saves_is_told_user_by_user(book, tmp_path):
    """bo's critical job runs at once; ada's waits 3 h, saves 400 − 180 and, at 0.1 a kWh, 0.1 × (1 − 1.5)."""
    jobs = [BASE, BASE | {"job_id": "k", "user": "bo", "tier": "critical"}, BASE | {"job_id": "n", "user": ""}]
    ada, bo = planned(book, csv(tmp_path, *jobs)).users

    assert (ada.user, ada.jobs, ada.gpus, ada.delay_h, ada.delay_now_h) == ("ada", 1, 2.0, 3.0, 0.0)
    assert (ada.saved_g, ada.saved_cost) == (pytest.approx(220), pytest.approx(-0.05))
    assert (bo.user, bo.delay_h, bo.saved_g) == ("bo", 0.0, 0.0)


def test_which_quantile_was_used_is_said(book, tmp_path):
    """In a note, and in the JSON with the hours held and expected."""
    from wattkeeper.planning import to_json

    job = {"duration_h": "4", "duration_quantiles": "50@1;90@2"}
    found = planned(book, csv(tmp_path, BASE | job, BASE | {"job_id": "sure"}), confidence=0.9)
    told = {j["job_id"]: j for j in to_json(found)["jobs"]}

    assert found.notes == (
        "1 durations are known by quantiles: GPUs are held for the quantile of 90 %, which is the chance that a deadline is "
        "kept; energy, carbon and cost are expected values",
    )
    assert [told["j"][k] for k in ("confidence", "held_h", "expected_h")] == [0.9, 2.0, pytest.approx(1.15)]
    assert "held_h" not in told["sure"]


def test_a_profile_stands_for_duration_and_power(book, tmp_path):
    """Both columns may be empty then; elsewhere they may not."""
    profiled = BASE | {"duration_h": "", "power_w": "", "profile": "1@500;1@0"}
    found = planned(book, csv(tmp_path, profiled, BASE | {"job_id": "k", "power_w": ""}))

    assert found.planned.weighed_g == pytest.approx(180)
    assert [(r.text, r.reason) for r in found.rejects] == [("k", "power_w is missing")]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"profile": "1h@500"}, "profile has '1h@500'; write HOURS@WATTS such as 0.5@700, parted by ;"),
        ({"curve": "400"}, "curve has '400'; write WATTS@THROUGHPUT such as 400@0.86, parted by ;"),
        ({"curve": "400@0.8;700@1"}, "curve needs rising WATTS@THROUGHPUT, a power_w of at least its last watts"),
        ({"duration_quantiles": "p90=3"}, "duration_quantiles has 'p90=3'; write PERCENT@HOURS such as 90@5.5"),
    ],
)
def test_cells_that_make_no_sense_are_named(book, tmp_path, cells, words):
    (reject,) = planned(book, csv(tmp_path, BASE | cells, BASE | {"job_id": "k"})).rejects

    assert words in reject.reason


def test_a_job_that_would_be_late_run_now_is_told(book, tmp_path):
    """First come first served, two hours of all GPUs keep the other from its deadline: the sums hold 1 and 2 jobs."""
    whole = BASE | {"gpus": "4"}
    late = whole | {"job_id": "k", "deadline": "2026-10-01T01:00:00"}
    found = planned(book, csv(tmp_path, whole | {"duration_h": "2"}, late))

    assert (found.now.jobs, found.planned.jobs) == (1, 2)
    assert "1 jobs would miss their deadline run now: they are in the sums of the plan alone" in found.notes


def test_no_cost_is_told_where_a_price_is_not_known(tmp_path):
    """Site a has a price in its first hour only, b none: a job there has no cost, nor has a sum that holds it."""
    made = Book.create(tmp_path / "book", SITE.replace("price = 0.1", 'price = "price:A"').replace("price = 0.0\n", ""))
    infos = [
        SignalInfo("intensity:A", "intensity", "g/kWh", "test"),
        SignalInfo("pue:A", "pue", "ratio", "test"),
        SignalInfo("price:A", "price", "EUR/kWh", "test"),
    ]
    values = {"intensity:A": [1.0, 9, 9, 9, 9, 9], "pue:A": [1.0] * 6, "price:A": [0.2]}
    rows = [
        (name, START + h * HOUR, START + (h + 1) * HOUR, v) for name, vs in values.items() for h, v in enumerate(vs)
    ]
    made.take(Intake("test", signals=pl.DataFrame(rows, SIGNALS.schema, orient="row"), signal_infos=infos), 0)
    first = BASE | {"user": "ada"}
    later = BASE | {"job_id": "k", "release": "2026-10-01T01:00:00", "user": "bo"}
    alone = planned(made, csv(tmp_path, first))
    both = planned(made, csv(tmp_path, first, later | {"sites": "a;zz", "dead_line": "x"}))
    there = planned(made, csv(tmp_path, first | {"sites": "b"}))

    assert (alone.planned.cost, alone.lines[0].saved_cost) == (pytest.approx(0.2), pytest.approx(0.0))
    assert (both.now.cost, both.planned.cost, there.planned.cost) == (None, None, None)
    assert [(line.job, line.saved_cost) for line in both.lines] == [("j", pytest.approx(0.0)), ("k", None)]
    assert {user.user: user.saved_cost for user in both.users} == {"ada": pytest.approx(0.0), "bo": None}
    assert both.planned.carbon_g == pytest.approx(10.0)
    assert [note for note in both.notes if "price" in note] == [
        "signal 'price:A' (from 2026-10-01T00:00:00Z to 2026-10-01T01:00:00Z) and its forecast lack 5 of 6 slots, in "
        "which no price is told",
        "b names no price, and no price is told of jobs there",
    ]
    assert "columns of the queue that are not used: dead_line" in both.notes
    assert "jobs name sites that the book does not have, which are left out: zz" in both.notes
