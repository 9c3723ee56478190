"""The room between the book and the planner: signals onto slots, rows into jobs."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from tests.books.small import SITE, START, book, counter, held, node, power
from wattkeeper.core.errors import ImportFileError
from wattkeeper.core.roles import Intake, SignalInfo
from wattkeeper.core.schema import JOBS, SIGNALS
from wattkeeper.core.signal import Signal
from wattkeeper.lake.book import Book
from wattkeeper.plan.problem import Grid, Level, Weights
from wattkeeper.planning import Usual, mean_over, outlook, read_queue, with_forecast

HOUR = 3_600_000


def test_a_signal_is_averaged_over_each_slot():
    """100 for 15 min and 300 for 45: 250. A slot that is only partly covered has no value."""
    breaks = np.array([0, HOUR // 4, HOUR, HOUR + 1], np.int64)
    signal = Signal(breaks, np.array([100.0, 300.0, 7.0]), SignalInfo("s", "intensity", "g/kWh", "test"))
    mean = mean_over(signal, Grid(0, HOUR, 3))

    assert mean[0] == pytest.approx(250.0)
    assert np.isnan(mean[1:]).all()


def test_a_constant_holds_in_every_slot():
    """A number in the site file is the mean of every slot."""
    signal = Signal.constant(42.0, SignalInfo("s", "intensity", "g/kWh", "test"))

    assert mean_over(signal, Grid(5, HOUR, 3)).tolist() == [42.0, 42.0, 42.0]


def test_rows_become_jobs(tmp_path):
    """Every column, and what is left out; rows that cannot be read are refused with their number."""
    path = tmp_path / "queue.csv"
    path.write_text(
        "job_id,gpus,duration_h,power_w,release,deadline,tier,sites,levels,suspendable,resume_min,resume_kwh\n"
        "full,8,1.5,400,2026-10-01T01:00Z,2026-10-02T00:00Z,deadline,a;b:2.5:30,1.06@0.8;1.25@0.7,yes,6,0.25\n"
        "bare,1,1,300,,,,,,,,\n"
        "cap,1,1,300,,,,,half,,,\n"
        "move,1,1,300,,,,a:x:y,,,,\n"
        "rest,1,1,300,,,,,,maybe,,\n"
        "when,1,1,300,soon,,,,,,,\n"
        ",1,1,300,,,,,,,,\n"
    )
    jobs, rejects = read_queue(path, Grid(1_790_812_800_000, HOUR, 4))
    full, bare = jobs

    assert (full.gpus, full.duration_ms, full.resume_ms, full.resume_kwh) == (8, 3 * HOUR // 2, HOUR // 10, 0.25)
    assert dict(full.sites) == {"a": (0.0, 0), "b": (2.5, HOUR // 2)}
    assert list(full.levels) == [Level(1.06, 0.8), Level(1.25, 0.7)]
    assert full.suspendable
    assert (bare.release_ms, bare.deadline_ms, bare.tier) == (1_790_812_800_000, None, "elastic")
    assert [(r.row, r.reason) for r in rejects] == [
        (4, "levels has 'half'; write SLOWDOWN@POWER such as 1.06@0.8, parted by ;"),
        (5, "sites has 'a:x:y'; write SITE or SITE:KWH:MINUTES, parted by ;"),
        (6, "suspendable is 'maybe', neither yes nor no"),
        (7, "release cannot be read as ISO 8601"),
        (8, "job_id is missing"),
    ]


def test_hours_a_signal_lacks_come_from_its_newest_forecast(tmp_path):
    """Hour 0 is known, 100 g; hours 1 and 2 are forecast, 150 and 160; hour 3 nobody knows. Hour 0's forecast is not used."""
    kept = Book.create(tmp_path / "book", '[[site]]\nid = "a"\n')
    infos = [SignalInfo(i, "intensity", "g/kWh", "test") for i in ("intensity:A", "intensity:A:forecast")]
    rows = [("intensity:A", 0, HOUR, 100.0)]
    rows += [("intensity:A:forecast", h * HOUR, (h + 1) * HOUR, v) for h, v in enumerate((90.0, 150.0, 160.0))]
    kept.take(Intake("test", signals=pl.DataFrame(rows, SIGNALS.schema, orient="row"), signal_infos=infos), 0)
    signal = Signal.from_table(kept.signal_rows("intensity:A"), infos[0])
    values, used = with_forecast(kept, signal, Grid(0, HOUR, 4))
    known, none = with_forecast(kept, signal, Grid(0, HOUR, 1))

    assert values.tolist()[:3] == [100.0, 150.0, 160.0]
    assert np.isnan(values[3])
    assert used == infos[1]
    assert (known.tolist(), none) == ([100.0], None)


def test_an_old_forecast_is_told(tmp_path):
    """It begins at 0 and is used from hour 30 on: 30 h old. From hour 20 on it is fresh enough."""
    kept = Book.create(tmp_path / "book", '[[site]]\nid = "a"\nintensity = "intensity:A"\n')
    infos = [SignalInfo(i, "intensity", "g/kWh", "test") for i in ("intensity:A", "intensity:A:forecast")]
    rows = [("intensity:A", 0, HOUR, 100.0)]
    rows += [("intensity:A:forecast", h * HOUR, (h + 1) * HOUR, 150.0) for h in range(96)]
    kept.take(Intake("test", signals=pl.DataFrame(rows, SIGNALS.schema, orient="row"), signal_infos=infos), 0)
    (tmp_path / "q.csv").write_text("job_id,gpus,duration_h,power_w\nx,1,1,500\n")

    def notes(hour: int) -> tuple[str, ...]:
        grid = Grid(hour * HOUR, HOUR, 6)
        return outlook(kept, tmp_path / "q.csv", grid=grid, weights=Weights(), gpus={"a": 1}, power_kw={}).notes

    assert notes(20) == ()
    assert notes(30) == (
        "forecast 'intensity:A:forecast' begins at 1970-01-01T00:00:00Z, 30 h before the plan: make a newer one with "
        "wattkeeper grid forecast",
    )


def test_what_a_users_jobs_drew_stands_for_what_nobody_says(tmp_path):
    """ada's job drew 600 W on one GPU and 400 W of its node, bo's 300 W on one GPU: 1000 W, 300 W, and 650 W for others."""
    site = "name = 'T'\n" + SITE + node("n1", 1) + node("n2", 1)
    meters = [power("n1", 1000), counter("n1/gpu0", 600), counter("n2/gpu0", 300)]
    made = book(tmp_path, site, meters, [held("j1", "n1/gpu0"), held("j2", "n2/gpu0")])
    rows = [
        dict.fromkeys(JOBS.schema.names()) | {"job_id": j, "user": u, "start_ms": START}
        for j, u in (("j1", "ada"), ("j2", "bo"))
    ]
    made.take(Intake("t", jobs=pl.DataFrame(rows, schema=JOBS.schema)), now_ms=1)
    usual = Usual(made)

    assert [usual.power_w(u) for u in ("ada", "bo", "eve")] == pytest.approx([1000, 300, 650])
    assert usual.notes == (
        "power_w of 2 jobs is the mean of their users' past jobs on the ledger",
        "power_w of 1 jobs is the mean of all past jobs on the ledger",
    )


ODD = [
    ("duration_h", "1e308", "duration_h has a time of more than a thousand years"),
    ("resume_min", "1e306", "resume_min has a time of more than a thousand years"),
    ("sites", "a:1:inf", "sites has 'a:1:inf'; write SITE or SITE:KWH:MINUTES, parted by ;"),
    ("sites", "a:nan:1", "sites has 'a:nan:1'; write SITE or SITE:KWH:MINUTES, parted by ;"),
    ("duration_quantiles", "50@inf", "duration_quantiles has '50@inf'"),
    ("duration_quantiles", "nan@1", "duration_quantiles has 'nan@1'"),
    ("profile", "inf@1", "profile has 'inf@1'"),
    ("profile", "1e308@1", "profile has a time of more than a thousand years"),
    ("levels", "nan@nan", "levels has 'nan@nan'"),
    ("curve", "nan@1;300@1", "curve has 'nan@1'"),
]


@pytest.mark.parametrize(("column", "cell", "words"), ODD)
def test_no_cell_ends_a_plan(tmp_path, column, cell, words):
    """What no number is, or none that a clock counts, costs its own row and no other."""
    path = tmp_path / "queue.csv"
    row = {"job_id": "odd", "gpus": "1", "duration_h": "1", "power_w": "300", column: cell}
    good = {**dict.fromkeys(row, ""), "job_id": "good", "gpus": "1", "duration_h": "1", "power_w": "300"}
    path.write_text("\n".join(",".join(line) for line in (row, row.values(), good.values())) + "\n")
    jobs, rejects = read_queue(path, Grid(0, HOUR, 4))

    assert [j.id for j in jobs] == ["good"]
    assert [(r.row, r.text) for r in rejects] == [(2, "odd")]
    assert rejects[0].reason.startswith(words)


def test_a_profile_does_not_say_how_many_gpus(tmp_path):
    path = tmp_path / "queue.csv"
    path.write_text("job_id,gpus,duration_h,power_w,profile\na,,,,1@500\nb,2,,,1@500\n")
    jobs, rejects = read_queue(path, Grid(0, HOUR, 4))

    assert ([j.id for j in jobs], [r.reason for r in rejects]) == (["b"], ["gpus is missing"])


def test_a_job_twice_and_a_file_of_nothing_readable(tmp_path):
    """The second row of a job is refused with its number; so are rows in another encoding, be they all."""
    (twice := tmp_path / "twice.csv").write_text("job_id,gpus,duration_h,power_w\na,1,1,300\nb,1,1,300\na,2,1,300\n")
    (latin := tmp_path / "latin.csv").write_bytes("job_id,gpus,duration_h,power_w\njöb,1,1,300\n".encode("latin1"))
    jobs, rejects = read_queue(twice, Grid(0, HOUR, 4))

    assert [(j.id, j.gpus) for j in jobs] == [("a", 1), ("b", 1)]
    assert [(r.row, r.reason) for r in rejects] == [(4, "another job has the same id")]
    assert [r.reason for r in read_queue(latin, Grid(0, HOUR, 4))[1]] == ["not UTF-8 text"]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("job_id,gpus,gpus,duration_h,power_w", "has two columns 'gpus'"),
        ("JOBID PARTITION NAME USER ST TIME NODES", "no column JobID, State, TimeLimit, the GPUs .* Print: SLURM_TIME"),
        (
            "apiVersion: kueue.x-k8s.io/v1beta1",
            "is not what squeue --json, sacct --json or kubectl get .*: line 3: ",
        ),
    ],
)
def test_a_file_at_fault_as_a_whole(tmp_path, head, words):
    (tmp_path / "queue.csv").write_text(f"{head}\n1,1,1,1,1\n")

    with pytest.raises(ImportFileError, match=words):
        read_queue(tmp_path / "queue.csv", Grid(0, HOUR, 4))


def test_a_schedulers_queue_with_faults(tmp_path):
    """One job is planned; one has a word that no queue has, one nothing that says its power."""
    base = {
        "job_state": "PENDING", "user_name": "ada", "tres_req_str": "gres/gpu=4", "time_limit": 60, "comment": "",
    }  # fmt: skip
    jobs = [
        {**base, "job_id": 1, "comment": "wattkeeper: power_w=500"},
        {**base, "job_id": 2, "comment": "wattkeeper: powre=500"},
        {**base, "job_id": 3},
    ]
    (tmp_path / "q.json").write_text(json.dumps({"jobs": jobs}))
    found, rejects = read_queue(tmp_path / "q.json", Grid(0, 3_600_000, 4))

    assert [(j.id, j.power_w) for j in found] == [("1", 500)]
    assert [(r.text, r.row) for r in rejects] == [("2", 2), ("3", 3)]
    assert rejects[0].reason.startswith("it says 'powre'; a queue has job_id, ")
    assert "no job on the ledger held a GPU" in rejects[1].reason


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"jobs": 1}', '{"items": [{"kind": "Pod"}]}'])
def test_other_json_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "q.json").write_text(text)

    with pytest.raises(ImportFileError, match="is not what squeue --json, sacct --json or kubectl get jobs,pods"):
        read_queue(tmp_path / "q.json", Grid(0, 3_600_000, 4))
