"""`wattkeeper budget` as a user meets it."""

from __future__ import annotations

import json

import pytest

from tests.cli import keys
from tests.cli.test_commands import run

JOBS = """job_id,gpus,curve,tier,floor,row,start,end
chat,8,400@0.9;700@1,critical,,r1,,
train,16,400@0.86;550@0.95;700@1,deadline,0.9,r1,,
sweep,32,300@0.7;700@1,elastic,,r2,,2026-10-01T14:00
"""
LIMITS = """start,end,limit_kw,row
2026-10-01T12:00,2026-10-01T16:00,40,
2026-10-01T12:00,2026-10-01T13:00,16.8,r1
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "jobs.csv").write_text(JOBS)
    (tmp_path / "limits.csv").write_text(LIMITS)
    return tmp_path


def test_caps_over_time_in_json(files):
    """40 kW at a PUE of 1.25 is 32 kW; 2 kW are no GPU's. chat and train take 16.8, sweep gets 13.2 kW of its 22.4."""
    done = run("budget", files / "jobs.csv", "--limits", files / "limits.csv", "--pue", 1.25, "--base", "=2",
               "--margin", 0, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    stretches = json.loads(done.stdout)["stretches"]
    caps = [{c["job_id"]: c["cap_w"] for c in one["caps"]} for one in stretches]

    assert [one["start"][11:16] for one in stretches] == ["12:00", "13:00", "14:00"]
    # 12:00: row r1 has 16.8 / 1.25 = 13.44 kW: chat 5.6, train 7.84 (490 W); sweep the rest of 30 kW: 16.56 (517.5 W)
    assert caps[0] == {"chat": 700, "train": pytest.approx(490), "sweep": pytest.approx(517.5)}
    assert stretches[0]["gpu_power_w"] == {"": pytest.approx(30_000), "r1": pytest.approx(13_440)}
    # 13:00: the row is free again: 5.6 + 11.2, and 13.2 kW for sweep, 412.5 W each: 0.7 + 0.3 × 112.5 / 400
    assert caps[1] == {"chat": 700, "train": 700, "sweep": pytest.approx(412.5)}
    assert stretches[1]["loss_gpus"] == pytest.approx(32 * (1 - 0.7 - 0.3 * 112.5 / 400))
    # 14:00: sweep has ended
    assert caps[2] == {"chat": 700, "train": 700}


def test_the_table_fits_the_terminal(files):
    done = run("budget", files / "jobs.csv", "--limit", 30, "--margin", 0.1)

    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert all(words in done.stdout for words in ("now ", "Caps from now on", "sweep", "Throughput"))


def test_what_cannot_be_kept_is_refused_with_its_floor(files):
    """15 kW: chat 5.6 and train's floor of 0.9 (466.7 W, 7.5 kW) fit, sweep's lowest 300 W do not. At 5 kW not even chat."""
    low = run("budget", files / "jobs.csv", "--limit", 15, "--margin", 0)
    none = run("budget", files / "jobs.csv", "--limits", files / "limits.csv", "--margin", 0.95)

    assert low.returncode == none.returncode == 1
    assert (
        "The site cannot be kept within 15.0 kW: the floors of tier 'elastic' need 9.6 kW on top of 13.1 kW of the tiers "
        "above it, 7.7 kW too much. Its largest: sweep 9.6 kW."
    ) in low.stderr
    assert (
        "From 2026-10-01T12:00:00Z on: Row r1 cannot be kept within 0.8 kW: the floors of tier 'critical'"
        in none.stderr
    )


def test_faults_are_one_line(files):
    """No limit, a curve that cannot be read, a missing column, a time that is none, jobs outside of all limits."""
    over_time = ("--limits", files / "limits.csv")
    cases = [
        ((), JOBS, "There is no limit. Give --limit KW"),
        (("--limit", 9), JOBS.replace("400@0.9;700@1", "400-700"), "row 2: curve has '400-700'; write WATTS@THROUGHPUT"),
        (("--limit", 9), "job_id,gpus\nx,1\n", "has no column 'curve'"),
        (("--limit", 9), JOBS.replace("2026-10-01T14:00", "noon"), "row 4: end cannot be read"),
        (("--limit", 9), JOBS.replace("deadline", "gold"), "Job train: its tier is none of critical, deadline, elastic."),
        (over_time, "job_id,gpus,curve,end,row\nx,1,700@1,2020-01-01,r1\n", "No job runs while a limit holds."),
        (over_time, "job_id,gpus,curve\nx,1,700@1\n", "Row 'r1' has a limit and no job. No job has a row."),
    ]  # fmt: skip
    for options, text, words in cases:
        (files / "jobs.csv").write_text(text)
        done = run("budget", files / "jobs.csv", *options)
        assert done.returncode == 1
        assert words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--row", "r1"), "--row r1 cannot be read. Write --row ROW=NUMBER."),
        (("--row", "r1=nan"), "--row r1=nan cannot be. Give a number of at least 0."),
        (("--base", "=inf"), "--base =inf cannot be. Give a number of at least 0."),
        (("--base", "=-1"), "--base =-1 cannot be. Give a number of at least 0."),
    ],
)
def test_numbers_that_cannot_be_are_wrong_usage(files, option, words):
    done = run("budget", files / "jobs.csv", "--limit", 30, *option)

    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


def test_the_page_and_the_keys(files):
    """Title, limits and the totals of the worst time; every key of the JSON is told; a limit without an end is drawn too."""
    pytest.importorskip("altair")
    words = (files / "jobs.csv", "--limits", files / "limits.csv", "--margin", 0)
    done = run("budget", *words, "--json", "--figure", files / "caps.html")
    text = (files / "caps.html").read_text().partition("<script")[0]
    always = run("budget", files / "jobs.csv", "--limit", 30, "--figure", files / "caps.svg")

    assert done.returncode == 0, done.stderr
    assert "<h1>Power budget of jobs.csv</h1>" in text
    assert all(one in text for one in ("Most lost", "10-01 12:00", "One cap for all"))
    keys.check("budget", json.loads(done.stdout))
    assert always.returncode == 0, always.stderr
    assert (files / "caps.svg").stat().st_size < 100_000
    assert max(len(line) for line in always.stdout.splitlines()) <= 80
