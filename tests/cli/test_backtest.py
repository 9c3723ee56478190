"""`wattkeeper backtest` as a user meets it."""

from __future__ import annotations

import json

import pytest

from tests.cli import keys
from tests.cli.test_commands import run

SITE = """[[site]]
id = "a"
intensity = "intensity:A"
price = 0.5
[csv.ci]
kind = "signals"
columns = { start = "time", value = "g" }
signal = "intensity:A"
unit = "g/kWh"
"""
HISTORY = """job_id,gpus,duration_h,power_w,release,deadline
train,2,2,500,2026-10-01T00:00,2026-10-01T06:00
sweep,1,1,500,2026-10-01T00:30,2026-10-01T04:00
huge,64,1,500,2026-10-01T00:00,
back,1,1,500,2026-10-01T03:00,2026-10-01T02:00
odd,1,x,500,2026-10-01T00:00,
"""
HOURS = [400, 300, 100, 90, 300, 400]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A book with a day and a half of intensity, and a history with three rows that cannot be run."""
    root = tmp_path_factory.mktemp("backtest")
    (root / "site.toml").write_text(SITE)
    rows = [f"2026-10-0{1 + i // 24}T{i % 24:02d}:00:00Z,{HOURS[i % 6]}\n" for i in range(36)]
    (root / "ci.csv").write_text("time,g\n" + "".join(rows))
    (root / "history.csv").write_text(HISTORY)
    assert run("init", root / "book", "--site-file", root / "site.toml").returncode == 0
    assert run("import", "csv", root / "ci.csv", "--as", "ci", "--book", root / "book").returncode == 0
    return root


def backtest(root, *more):
    return run("backtest", root / "history.csv", "--book", root / "book", "--gpus", 4, *more)


def test_json_has_every_policy_and_every_reason(made):
    """Both jobs in 100 and 90: 0.5 × 90 and 1 × (100 + 90), against 1 × (400 + 300) and 0.5 × 300 now."""
    done = backtest(made, "--json")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    rows = {row["policy"]: row for row in found["policies"]}

    assert rows["run now"]["carbon_g"] == pytest.approx(850)
    assert rows["planner"]["carbon_g"] == pytest.approx(235)
    assert rows["planner"]["saving"] == pytest.approx(1 - 235 / 850)
    assert found["bound_weighed_g"] <= 235
    assert found["counterfactual"].startswith("each job at its release")
    assert found["skipped"] == {
        "huge": "it asks for 64 GPUs and the cluster has 4",
        "back": "its deadline 2026-10-01T02:00:00Z is not after its release 2026-10-01T03:00:00Z",
    }
    assert found["refused"] == [{"row": 6, "reason": "duration_h is not a number", "job_id": "odd"}]


def test_the_table_fits_the_terminal_and_the_page_opens_offline(made, tmp_path):
    """Every policy, what is saved against what, and what was left out, in 80 columns; the page links to nothing."""
    pytest.importorskip("altair")
    done = backtest(made, "--html", tmp_path / "page.html", "--policy", "planner", "--policy", "threshold")

    assert done.returncode == 3, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    for words in ("run now", "planner", "clairvoyant", "Saved is against run now", "huge: it asks", "row 6:"):
        assert words in done.stdout
    assert "elastic" not in done.stdout
    page = (tmp_path / "page.html").read_text()
    assert all(
        words in page for words in ("<h1>Back-test of a</h1>", "clairvoyant", "Saved is against run now", "kg CO2e")
    )
    assert 'src="http' not in page


def test_jobs_that_do_not_end_are_told(made, tmp_path):
    """Sixty jobs of 6 min hold an hour each of the only GPU, and the signal ends after 36 h: the reason and the cure are
    told, and the figure draws no bound, which is of all jobs. In slots of 6 min they are done in 6 h."""
    pytest.importorskip("altair")
    rows = [f"j{i},1,0.1,500,2026-10-01T00:00,2026-10-01T04:00\n" for i in range(60)]
    (tmp_path / "short.csv").write_text("job_id,gpus,duration_h,power_w,release,deadline\n" + "".join(rows))

    def ran(slot):
        page = tmp_path / f"{slot}.html"
        words = ("--gpus", 1, "--policy", "threshold", "--slot", slot, "--html", page, "--json")
        done = run("backtest", tmp_path / "short.csv", "--book", made / "book", *words)
        assert done.returncode == 0, done.stderr
        return {row["policy"]: row["unplaced"] for row in json.loads(done.stdout)["policies"]}, page.read_text()

    left, page = ran(60)
    assert left["run now"] > 0
    assert f"Up to {max(left.values())} jobs of 60 did not end" in page
    assert "take a shorter --slot than 60 min" in page
    assert '"name": "bound' not in page

    left, page = ran(6)
    assert max(left.values()) == 0
    assert "did not end in that time" not in page
    assert '"name": "bound' in page


def test_several_sites_fit_the_terminal(made, tmp_path):
    """No cell of eleven columns is cut in 80."""
    (tmp_path / "site.toml").write_text(SITE + SITE.partition("[csv")[0].replace('"a"', '"b"'))
    assert run("init", tmp_path / "book", "--site-file", tmp_path / "site.toml").returncode == 0
    assert run("import", "csv", made / "ci.csv", "--as", "ci", "--book", tmp_path / "book").returncode == 0
    done = run(
        "backtest", made / "history.csv", "--book", tmp_path / "book", "--gpus", "a=4", "--gpus", "b=4",
        "--policy", "planner", "--policy", "cleanest site",
    )  # fmt: skip

    assert done.returncode == 3, done.stderr
    table = done.stdout.split("Intensity:")[0]
    assert "Moved" in table
    assert "…" not in table
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_options_of_the_book_s_jobs_are_refused_beside_a_file(made):
    """They would change nothing, and nobody would know."""
    for words in (("--move", "0.5:10"), ("--period", "2026-10")):
        done = backtest(made, *words)
        assert done.returncode == 2
        assert "--period and --move are for the book's jobs." in done.stderr


def test_every_key_of_the_json_is_told(made):
    keys.check("backtest", json.loads(backtest(made, "--json", "--policy", "threshold").stdout))


def test_faults_are_one_line(made):
    """An unknown zone, a history outside the signal, a policy that does not exist."""
    faults = [
        (backtest(made, "--signal", "intensity:XX"), "No intensity signal named 'intensity:XX' in this book. Known: inten"),
        (backtest(made, "--policy", "best"), "There is no policy 'best'."),
        (run("backtest", "--book", made / "book"), "There are no jobs to run again."),
    ]  # fmt: skip
    for done, words in faults:
        assert done.returncode == 1, done.stdout
        assert words in done.stderr
        assert "Traceback" not in done.stderr
