"""`wattkeeper plan` as a user meets it: a queue file and a book in, a plan with its bound out."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_commands import run

SITE = """[[site]]
id = "a"
intensity = "intensity:A"
price = 0.5
pue = 1.25
[[site]]
id = "b"
intensity = 250.0
price = 0.1
[[nodes]]
names = "n1"
parent = "a"
gpus = 4
[csv.ci]
kind = "signals"
columns = { start = "time", value = "g" }
signal = "intensity:A"
unit = "g/kWh"
"""
QUEUE = """job_id,gpus,duration_h,power_w,release,deadline,sites,levels,suspendable
train,4,2,500,2026-10-01T00:00,2026-10-01T06:00,a,,no
sweep,2,1,500,2026-10-01T00:00,2026-10-01T06:00,a;b:0.1:60,,no
huge,64,1,500,,,a,,no
odd,1,x,500,,,a,,no
"""
HOURS = [400, 300, 100, 100, 300, 400]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A book of two sites, six hours of intensity, and a queue with a job too large and a row that cannot be read."""
    root = tmp_path_factory.mktemp("plan")
    (root / "site.toml").write_text(SITE)
    (root / "ci.csv").write_text("time,g\n" + "".join(f"2026-10-01T{h:02d}:00:00Z,{g}\n" for h, g in enumerate(HOURS)))
    (root / "queue.csv").write_text(QUEUE)
    assert run("init", root / "book", "--site-file", root / "site.toml").returncode == 0
    done = run("import", "csv", root / "ci.csv", "--as", "ci", "--book", root / "book")
    assert done.returncode == 0, done.stderr
    return root


def plan(root, *more):
    """Plan the queue over the six hours."""
    words = ("--book", root / "book", "--from", "2026-10-01", "--hours", 6, "--gpus", "b=2", *more)
    return run("plan", root / "queue.csv", *words)


def test_a_plan_in_json(made):
    """The gang takes the two clean hours; the sweep finds them full and waits for none: 300 g beats 250 + 25."""
    done = plan(made, "--json", "--delay", 0)
    assert done.returncode == 3, done.stderr  # huge and odd are told
    found = json.loads(done.stdout)
    jobs = {j["job_id"]: j for j in found["jobs"]}

    # train: 4 kWh × 1.25 × 100 g; now it runs from 00:00 at 400 and 300
    assert jobs["train"]["planned"]["stretches"] == [{"start": "2026-10-01T02:00:00Z", "end": "2026-10-01T04:00:00Z"}]
    assert jobs["train"]["saved_carbon_g"] == pytest.approx(2 * 1.25 * (400 + 300) - 4 * 1.25 * 100)
    # sweep: 1 kWh at b 250 + 0.1 × 250 of transfer, against 1.25 × 300 at a
    assert jobs["sweep"]["planned"]["site"] == "b"
    assert found["planned"]["carbon_g"] == pytest.approx(500 + 275)
    assert found["planned"]["weighed_g"] == pytest.approx(775)
    assert found["bound_weighed_g"] <= 775
    assert found["gap"] == pytest.approx((775 - found["bound_weighed_g"]) / found["bound_weighed_g"])
    assert found["skipped"] == {"huge": "it asks for 64 GPUs and the largest of its sites (a) has 4"}
    assert found["refused"] == [{"row": 5, "reason": "duration_h is not a number", "job_id": "odd"}]


def test_money_can_outweigh_carbon(made):
    """At 2000 g a unit of money, site b (0.1 against 0.5 × 1.25 a kWh) draws the sweep whatever the hour."""
    found = json.loads(plan(made, "--json", "--money", 2000).stdout)

    assert next(j for j in found["jobs"] if j["job_id"] == "sweep")["planned"]["site"] == "b"
    assert found["planned"]["cost"] == pytest.approx(4 * 1.25 * 0.5 + 1.1 * 0.1)


def test_the_table_fits_the_terminal(made):
    """Totals, the bound, the gap, the jobs, and what could not be planned, in 80 columns."""
    done = plan(made)

    assert done.returncode == 3
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    for words in (
        "run now",
        "planned",
        "No plan can be below",
        "train",
        "huge: it asks for 64 GPUs",
        "odd (row 5):",
        "EUR",
        "From UTC",
    ):
        assert words in done.stdout


def test_the_figure_opens_offline(made, tmp_path):
    """An SVG with both Gantt charts; an unknown ending is a fault in one line."""
    pytest.importorskip("altair")
    assert plan(made, "--figure", tmp_path / "plan.svg").returncode == 3
    drawn = (tmp_path / "plan.svg").read_text()
    other = plan(made, "--figure", tmp_path / "plan.doc")

    assert all(word in drawn for word in ("train", "sweep", "run now", "planned", "g CO2e/kWh"))
    assert other.returncode == 1
    assert "A figure cannot be written as '.doc'" in other.stderr


def test_faults_are_one_line(made, tmp_path):
    """A site that does not exist, a site without GPUs, a queue without a column, hours without a forecast."""
    book = ("--book", made / "book", "--from", "2026-10-01", "--hours", 6)
    (tmp_path / "queue.csv").write_text("job_id,gpus\n1,1\n")
    faults = [
        (plan(made, "--gpus", "c=1"), "The site file has no site 'c'."),
        (run("plan", made / "queue.csv", *book), "Site 'b' has no GPUs in the book. Say how many with --gpus b=N."),
        (run("plan", tmp_path / "queue.csv", *book, "--gpus", "b=1"), "has no column 'duration_h'"),
    ]
    for done, words in faults:
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_limit_that_cannot_be_read_is_wrong_usage(made):
    """A number without its site: exit code 2."""
    done = plan(made, "--gpus", "4")

    assert done.returncode == 2
    assert "--gpus 4 cannot be read. Write --gpus SITE=NUMBER." in done.stderr


def test_hours_beyond_the_forecast_are_told(made):
    """Two days on, only b has an intensity (a constant one): what may only run at a has no place, and says why."""
    words = ("--book", made / "book", "--from", "2026-10-03", "--hours", 6, "--gpus", "b=2", "--json")
    queue = made / "later.csv"
    queue.write_text("job_id,gpus,duration_h,power_w,sites\nx,1,1,500,a\ny,1,1,500,\n")
    found = json.loads(run("plan", queue, *words).stdout)

    assert found["skipped"]["x"].startswith("no forecast for a between 2026-10-03T00:00:00Z and")
    assert found["planned"]["jobs"] == 1
    assert found["notes"] == ["signal 'intensity:A' has values from 2026-10-01T00:00:00Z to 2026-10-01T06:00:00Z only"]
