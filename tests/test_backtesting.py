"""Back-tests between a book and the policies: which jobs, which hours, which words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from wattkeeper import loop
from wattkeeper.backtesting import Setting, backtest, to_json
from wattkeeper.core.errors import ConfigError, SignalGapError, UnknownNameError
from wattkeeper.core.roles import Intake, SignalInfo
from wattkeeper.core.schema import SIGNALS
from wattkeeper.histories import book_history, read_history
from wattkeeper.lake.book import Book
from wattkeeper.plan.problem import Job
from wattkeeper.plan.simulate.cluster import Fleet, Stretches, intake
from wattkeeper.plan.simulate.foresight import ForesightError

HOUR = 3_600_000
START = 1_760_000_400_000
GRID = Path(__file__).parents[2] / "shared" / "data" / "grid" / "intensity"
JOBS = Path(__file__).parents[2] / "shared" / "data" / "jobs"


def book_of(root: Path, values: list[float], start_ms: int = START, more: str = "") -> Book:
    """Return a book of one site with an hourly intensity from start_ms on."""
    book = Book.create(root / "book", f"[[site]]\nid = 'a'\nintensity = 'intensity:x'\nprice = 0.5\n{more}")
    edges = start_ms + HOUR * np.arange(len(values) + 1)
    rows = pl.DataFrame(
        {"signal": "intensity:x", "start_ms": edges[:-1], "end_ms": edges[1:], "value": np.array(values, float)}
    )
    info = SignalInfo("intensity:x", "intensity", "g/kWh", "test", method="average")
    book.take(Intake("test", signals=rows.select(SIGNALS.schema.names()), signal_infos=[info]), now_ms=0)
    return book


def jobs_at(*hours: float, **more: object) -> list[Job]:
    """Return jobs of one GPU, one hour and 1 kW, released at these hours."""
    return [Job(f"j{i}", 1, HOUR, 1000.0, START + round(h * HOUR), **more) for i, h in enumerate(hours)]


def test_savings_name_what_they_are_against(tmp_path):
    """Now at 400, alone or planned at 100 two hours later: 75 % less, and each says against what."""
    book = book_of(tmp_path, [400, 300, 100, 500, 500, 500])
    found = backtest(book, [], jobs_at(0), gpus={"a": 1}, setting=Setting(slack_ms=3 * HOUR))
    rows = {row.policy: row for row in found.rows}

    assert list(rows) == ["run now", "lowest window", "wait awhile", "threshold", "elastic", "planner", "clairvoyant"]
    assert rows["run now"].saving == 0.0
    for name in ("lowest window", "planner", "clairvoyant"):
        assert rows[name].carbon_g == pytest.approx(100)
        assert rows[name].saving == pytest.approx(0.75)
        assert (rows[name].delay_mean_h, rows[name].cost) == (2.0, pytest.approx(0.5))
        assert rows[name].regret_g == pytest.approx(0.0)
    assert rows["run now"].regret_g == pytest.approx(300)
    assert rows["run now"].above_bound == pytest.approx(3.0)
    told = to_json(found)
    assert (found.undated, told["jobs_without_deadline"]) == (1, 1)
    assert told["counterfactual"].startswith("each job at its release at its own site, first come")
    assert told["sites"][0]["intensity"] == {"id": "intensity:x", "provider": "test", "method": "average"}


def test_holds_that_do_not_see_each_other_collide(tmp_path):
    """Three jobs on one GPU want the same hour: one gets it, the others are late; the planner spreads them."""
    book = book_of(tmp_path, [400, 100, 90, 300, 900, 900, 900])
    found = backtest(book, [], jobs_at(0, 0, 0), gpus={"a": 1}, setting=Setting(slack_ms=3 * HOUR))
    rows = {row.policy: row for row in found.rows}

    assert rows["lowest window"].carbon_g == pytest.approx(90 + 300 + 900)
    assert rows["lowest window"].missed == 1
    assert rows["lowest window"].above_bound is None  # the bound is of plans that keep deadlines
    assert rows["planner"].carbon_g == pytest.approx(100 + 90 + 300)
    assert (rows["planner"].missed, rows["planner"].unplaced) == (0, 0)


def test_idle_power_is_not_saved(tmp_path):
    """Of 1 kW a GPU draws 400 W whether held or not: 0.6 kWh move from 400 to 100 g."""
    book = book_of(tmp_path, [400, 300, 100, 500, 500, 500])
    found = backtest(
        book, ["a"], jobs_at(0), gpus={"a": 1}, setting=Setting(slack_ms=3 * HOUR, idle_w=400.0), names=["planner"]
    )

    assert [r.policy for r in found.rows] == ["run now", "planner", "clairvoyant"]
    assert found.rows[0].carbon_g - found.rows[1].carbon_g == pytest.approx(0.6 * 300)


def test_faults_say_what_and_where(tmp_path):
    """An unknown site, signal, policy, forecast; missing hours, before and within; no GPUs; nothing to run."""
    book = book_of(tmp_path, [400.0] * 6)
    soon = Setting(slack_ms=2 * HOUR)
    faults = [
        (ConfigError, "The site file has no site 'b'. It has a.", {"sites": ["b"]}),
        (UnknownNameError, "No intensity signal named 'XX' in this book. Known: intensity:x.", {"signals": {"a": "XX"}}),
        (ConfigError, "There is no policy 'best'. Choose from run now,", {"names": ["best"]}),
        (UnknownNameError, "No intensity signal named 'oracle'", {"setting": replace(soon, forecast="oracle")}),
        (ConfigError, "An error goes with a perfect forecast only", {"setting": replace(soon, forecast="x", error=0.1)}),
        (ConfigError, "Say how many with --gpus", {"gpus": {}}),
        (ConfigError, "There are no jobs to run again", {"jobs": []}),
        (ConfigError, "None of the 1 jobs can be run again. The first, j0: it asks for 1 GPUs", {"gpus": {"a": 0.5}}),
        (SignalGapError, "The signals end before the first job's release 2025-10-09T17:00:00Z", {"jobs": jobs_at(8)}),
        (SignalGapError, "no intensity for 3 of 9 slots, the first at 2025-10-09T06:00:00Z", {"jobs": jobs_at(-3, 2)}),
        (ForesightError, "needs the signal of the day before", {"setting": Setting(slack_ms=2 * HOUR, forecast="day-before")}),
    ]  # fmt: skip
    for kind, words, change in faults:
        given = {"sites": [], "jobs": jobs_at(2), "gpus": {"a": 1}, "setting": soon, **change}
        sites, jobs = given.pop("sites"), given.pop("jobs")
        with pytest.raises(kind, match=words.replace(".", r"\.")):
            backtest(book, sites, jobs, **given)


def test_what_cannot_be_is_left_out_with_its_reason(tmp_path):
    """A job of 11 years (and no memory for it), one below 0 W, one of 1e300 W; and where none is left, the first reason."""
    book = book_of(tmp_path, [400.0] * 6)
    (fine,) = jobs_at(0)
    odd = [
        replace(fine, id="long", duration_ms=100_000 * HOUR),
        replace(fine, id="below", power_w=-5.0),
        replace(fine, id="huge", power_w=1e300),
    ]
    soon = Setting(slack_ms=2 * HOUR)
    found = backtest(book, [], [fine, *odd], gpus={"a": 1}, setting=soon, names=["threshold"])

    assert found.jobs == 1
    assert found.skipped == {
        "long": "it lasts 100000 h, longer than the signals reach",
        "below": "its power is -0.005 kW for each GPU; give one between 0 and 100",
        "huge": "its power is 1e+297 kW for each GPU; give one between 0 and 100",
    }
    with pytest.raises(ConfigError, match=r"None of the 1 jobs can be run again\. The first, long: it lasts 100000 h"):
        backtest(book, [], odd[:1], gpus={"a": 1}, setting=soon)
    (tmp_path / "h.csv").write_text(
        "job_id,gpus,duration_h,power_w,release,sites\n"
        "a,1,1,nan,2026-01-01T00:00Z,\nb,1,1e300,9,2026-01-01T00:00Z,\nc,1,1,9,2026-01-01T00:00Z,a:1:inf\n"
    )
    jobs, rejects = read_history(tmp_path / "h.csv")
    assert [r.reason for r in rejects] == [
        "power_w is not finite",
        "duration_h has a time of more than a thousand years",
        "sites has 'a:1:inf'; write SITE or SITE:KWH:MINUTES, parted by ;",
    ]  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"None of the 3 jobs can be run again\. The first, row 2: power_w is not finite"
    ):
        backtest(book, [], jobs, gpus={"a": 1}, setting=soon, rejects=rejects)


def test_no_policy_plans_beyond_the_end_of_the_signal(tmp_path):
    """6 h are known, mean 250 g. Slack would let j0 wait until after them: it runs in the best hour of the six. The
    third of three jobs released in the last hour on one GPU is pushed past the end, at 250 g; one at 06:30 has no slot.
    """
    book = book_of(tmp_path, [400, 300, 150, 250, 200, 200])
    one = backtest(book, [], jobs_at(2), gpus={"a": 1}, setting=Setting(slack_ms=24 * HOUR))
    three = backtest(
        book, [], jobs_at(0, 5, 5, 5.5), gpus={"a": 1}, setting=Setting(slack_ms=24 * HOUR), names=["planner"]
    )
    rows = {row.policy: row for row in three.rows}

    assert (one.cut, one.known_ms) == (1, START + 6 * HOUR)
    assert {row.carbon_g for row in one.rows if row.policy != "run now"} == {150.0}
    assert three.skipped == {
        "j3": "its release 2025-10-09T14:30:00Z leaves no slot before the signal ends 2025-10-09T15:00:00Z"
    }
    # now: 400, 200, and one pushed over at the mean of the known hours; planned: 150 in place of 400
    assert rows["run now"].carbon_g == pytest.approx(400 + 200 + 250)
    assert rows["clairvoyant"].carbon_g == pytest.approx(150 + 200 + 250)
    assert (rows["run now"].missed, rows["run now"].unplaced, rows["run now"].after_kwh) == (1, 0, pytest.approx(1.0))


def two_sites(root: Path) -> Book:
    """Return a book of a dirty site and a clean one whose last hours are dirty too."""
    book = book_of(
        root, [400, 300, 200, 500, 500, 500], more="pue = 1.0\n[[site]]\nid = 'b'\nintensity = 'intensity:y'\n"
    )
    info = SignalInfo("intensity:y", "intensity", "g/kWh", "test")
    edges = START + HOUR * np.arange(7)
    rows = pl.DataFrame(
        {"signal": "intensity:y", "start_ms": edges[:-1], "end_ms": edges[1:], "value": [50.0, 60, 70, 80, 90, 250]}
    )
    book.take(Intake("test", signals=rows.select(SIGNALS.schema.names()), signal_infos=[info]), now_ms=0)
    return book


def test_time_and_place_are_told_apart(tmp_path):
    """Two jobs at a, 1 h of slack. Moving takes 0.1 kWh at b's mean of 100 g (10 g) and an hour; b has one GPU.

    Now: 2 × 400. By time alone: both at 200 in the third hour. By place alone: both go to b, where they are an hour later;
    one runs at 60, the other waits for it and runs at 70. The planner can do no better.
    """
    book = two_sites(tmp_path)
    jobs = jobs_at(0, 0, sites={"a": (0.0, 0), "b": (0.1, HOUR)})
    found = backtest(book, [], jobs, gpus={"a": 2, "b": 1}, setting=Setting(slack_ms=2 * HOUR))
    rows = {row.policy: row for row in found.rows}

    assert [(s.site, s.gpus, s.signal.id) for s in found.stages] == [("a", 2, "intensity:x"), ("b", 1, "intensity:y")]
    assert rows["run now"].carbon_g == pytest.approx(800)
    assert rows["clairvoyant at home"].carbon_g == rows["lowest window"].carbon_g == pytest.approx(400)
    assert (rows["cleanest site"].carbon_g, rows["cleanest site"].moved) == (pytest.approx(60 + 70 + 20), 2)
    assert rows["cleanest site"].energy_kwh == pytest.approx(2.2)
    for name in ("planner", "clairvoyant"):
        assert (rows[name].carbon_g, rows[name].moved, rows[name].missed) == (pytest.approx(60 + 70 + 20), 2, 0)
    assert (rows["planner at home"].carbon_g, rows["planner at home"].moved) == (pytest.approx(400), 0)
    assert found.bound_g <= 150


def test_a_site_that_a_job_may_not_use_is_not_used(tmp_path):
    """One may run at a only, one needs more GPUs than b has; the third goes to b."""
    book = two_sites(tmp_path)
    jobs = [
        replace(jobs_at(0)[0], id="bound", sites={"a": (0.0, 0)}),
        replace(jobs_at(0)[0], id="gang", gpus=2),
        replace(jobs_at(0)[0], id="free"),
    ]
    found = backtest(book, [], jobs, gpus={"a": 4, "b": 1}, setting=Setting(slack_ms=0), names=["planner"])

    assert {row.policy: row.moved for row in found.rows} == {
        "run now": 0, "planner": 1, "clairvoyant at home": 0, "clairvoyant": 1,
    }  # fmt: skip


def test_a_recorded_forecast_misleads_as_it_did_then(tmp_path):
    """The forecast says 01:00 is lowest (90); it was 300, and 100 was to be had at 02:00. A hole in it is told."""
    book = book_of(tmp_path, [400, 300, 100, 500, 500, 500])
    info = SignalInfo("ahead", "intensity", "g/kWh", "test")
    edges = START + HOUR * np.arange(7)
    seen = pl.DataFrame(
        {"signal": "ahead", "start_ms": edges[:-1], "end_ms": edges[1:], "value": [400.0, 90, 100, 500, 500, 500]}
    )
    book.take(Intake("test", signals=seen.select(SIGNALS.schema.names()).head(5), signal_infos=[info]), now_ms=0)
    setting = Setting(slack_ms=3 * HOUR, forecast="ahead")
    with pytest.raises(ForesightError, match="lacks 1 of the slots"):
        backtest(book, [], jobs_at(0), gpus={"a": 1}, setting=setting)
    book.take(Intake("test", signals=seen.select(SIGNALS.schema.names()), signal_infos=[info]), now_ms=0)
    found = {row.policy: row.carbon_g for row in backtest(book, [], jobs_at(0), gpus={"a": 1}, setting=setting).rows}

    assert found["lowest window"] == pytest.approx(300)
    assert found["clairvoyant"] == pytest.approx(100)


def test_a_history_file_needs_releases(tmp_path):
    """A row without a release is refused: history is about when jobs came."""
    path = tmp_path / "history.csv"
    path.write_text("job_id,gpus,duration_h,power_w,release\nx,1,1,300,2026-10-01T00:00Z\ny,1,1,300,\n")
    jobs, rejects = read_history(path)

    assert [job.id for job in jobs] == ["x"]
    assert [r.reason for r in rejects] == ["job y has no release"]


def test_a_history_knows_how_long_each_job_took(tmp_path):
    """Quantiles of a queue do not make a job of the past longer or shorter than it was."""
    path = tmp_path / "history.csv"
    path.write_text(
        "job_id,gpus,duration_h,power_w,release,duration_quantiles,confidence_pct\n"
        "x,1,4,300,2026-10-01T00:00Z,50@1;90@3,90\n"
    )
    (job,), rejects = read_history(path)

    assert not rejects
    assert (job.duration_ms, job.within) == (4 * HOUR, ())


def test_a_books_own_jobs_run_again(tmp_path):
    """A simulated month in the ledger, read back: same GPUs, durations and power; run now draws the same energy."""
    book = book_of(tmp_path, [400, 300, 100, 200, 500, 500, 100, 50] * 4, more="[[site]]\nid = 'other'\n")
    jobs = np.arange(3)
    start_ms = START + HOUR * np.array([0, 1, 4])
    held = Stretches(
        jobs,
        start_ms,
        start_ms + HOUR * np.array([2, 1, 2]),
        np.array([2, 1, 4]),
        np.array([10**6, 400_000, 2 * 10**6]),
    )
    book.take(intake(Fleet("a", 8, 4), held, ["x", "y", "z"], (START, START + 8 * HOUR), 60_000), now_ms=0)
    loop.attribute(book)
    found, rejects = book_history(book, [], START, START + 8 * HOUR)
    part, _ = book_history(book, ["a"], START + HOUR, START + 4 * HOUR)
    assert found[0].sites == {"a": (0.0, 0)}

    assert rejects == []
    assert [(j.id, j.gpus, j.duration_ms, j.power_w, j.release_ms) for j in found] == [
        ("x", 2, 2 * HOUR, 500.0, START),
        ("y", 1, HOUR, 400.0, START + HOUR),
        ("z", 4, 2 * HOUR, 500.0, START + 4 * HOUR),
    ]
    assert [j.id for j in part] == ["y"]
    assert book_history(book, ["other"], START, START + 8 * HOUR) == ([], [])  # all of them ran at a
    run = backtest(book, ["a"], found, setting=Setting(slack_ms=4 * HOUR), names=[])
    ledger = (
        book.postings.scan().filter(pl.col("job_id").is_not_null()).select(pl.col("carbon_g").sum()).collect().item()
    )
    assert run.stages[0].gpus == 8
    assert run.rows[0].energy_kwh == pytest.approx(2 + 0.4 + 4)
    assert run.rows[0].carbon_g == pytest.approx(ledger)


def test_a_recorded_history_on_a_recorded_grid(tmp_path):
    """Two days of a public trace on 100 GPUs and the German grid: orders that must hold between the policies."""
    trace, series = JOBS / "pai_100k.csv.gz", GRID / "DE-LU_2023_hourly.csv.gz"
    if not trace.exists() or not series.exists():
        pytest.skip("the recordings are not here")
    year = pl.read_csv(series)["Carbon Intensity gCO₂eq/kWh (LCA)"].to_list()
    book = book_of(tmp_path, year[:240], 1_672_531_200_000)
    rows = pl.read_csv(trace).filter((pl.col("arrival_time") < 48) & (pl.col("cpus") <= 100))
    jobs = [
        Job(f"j{i}", gpus, round(h * HOUR), 500.0, 1_672_531_200_000 + round(at * HOUR))
        for i, (at, h, gpus) in enumerate(rows.iter_rows())
    ]
    found = backtest(book, [], jobs, gpus={"a": 200}, setting=Setting())
    rows = {row.policy: row for row in found.rows}

    assert found.jobs > 200
    assert all(row.unplaced == 0 for row in found.rows)
    assert rows["clairvoyant"].carbon_g < rows["run now"].carbon_g
    assert rows["clairvoyant"].above_bound < 0.02
    assert rows["planner"].missed <= rows["lowest window"].missed
    energy = [row.energy_kwh for name, row in rows.items() if name != "elastic"]
    assert max(energy) == pytest.approx(min(energy), rel=1e-9)
