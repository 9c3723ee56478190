"""`wattkeeper plan` as a user meets it: a queue file and a book in, a plan with its bound out."""

from __future__ import annotations

import json

import polars as pl
import pytest

from tests.cli import keys
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
        "Starts UTC",
        "saved ",
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


def test_the_page_says_what_is_saved_and_how_good_a_plan_can_be(made, tmp_path):
    """Its title, the totals and what could not be planned, beside the Gantt; nothing is asked of a network.

    train and sweep saved: run now takes 1 750 + 250 and 25 (or more) g, the plan 500 and 275.
    """
    pytest.importorskip("altair")
    assert plan(made, "--figure", tmp_path / "plan.html", "--delay", 0).returncode == 3
    told = json.loads(plan(made, "--json", "--delay", 0).stdout)
    whole = (tmp_path / "plan.html").read_text()
    text = whole.partition("<script")[0]

    assert "<h1>Plan of queue.csv</h1>" in text
    for words in (
        "Saved carbon",
        "Saved money",
        "Above the bound",
        "Delay, mean of a job",
        "2 of 4",
        "run now",
        "planned",
    ):
        assert words in text
    assert f"{told['saved']['carbon_g'] / 1000:.2f} kg" in text
    assert "huge: it asks for 64 GPUs" in text
    assert told["saved"]["carbon_g"] == pytest.approx(told["now"]["carbon_g"] - told["planned"]["carbon_g"])
    assert told["saved"]["carbon_part"] == pytest.approx(told["saved"]["carbon_g"] / told["now"]["carbon_g"])
    assert told["currency"] == "EUR"
    assert 'src="http' not in whole


def test_every_key_of_the_json_is_told(made):
    keys.check("plan", json.loads(plan(made, "--json").stdout))


def test_a_figure_of_another_kind_is_refused_before_planning(made, tmp_path):
    """The queue does not even exist."""
    done = run("plan", tmp_path / "none.csv", "--book", made / "book", "--figure", tmp_path / "plan.doc")

    assert done.returncode == 1
    assert "A figure cannot be written as '.doc'" in done.stderr


def test_a_figure_without_a_place_is_refused_before_planning(made, tmp_path):
    """The queue does not even exist."""
    done = run("plan", tmp_path / "none.csv", "--book", made / "book", "--figure", tmp_path / "none" / "plan.svg")

    assert done.returncode == 1
    assert f"there is no directory {tmp_path / 'none'}. Make it first." in done.stderr


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


@pytest.mark.parametrize("more", [("--hours", "inf"), ("--hours", 1e7, "--slot", 1)])
def test_more_slots_than_any_plan_has_are_wrong_usage(made, more):
    done = plan(made, *more)

    assert done.returncode == 2
    assert "is over 1,000,000 slots of" in " ".join(done.stderr.replace("│", " ").split())


def test_hours_beyond_the_forecast_are_told(made):
    """Two days on, only b has an intensity (a constant one): what may only run at a has no place, and says why."""
    words = ("--book", made / "book", "--from", "2026-10-03", "--hours", 6, "--gpus", "b=2", "--json")
    queue = made / "later.csv"
    queue.write_text("job_id,gpus,duration_h,power_w,sites\nx,1,1,500,a\ny,1,1,500,\n")
    found = json.loads(run("plan", queue, *words).stdout)

    assert found["skipped"]["x"].startswith("no forecast for a between 2026-10-03T00:00:00Z and")
    assert found["planned"]["jobs"] == 1
    assert found["notes"] == ["signal 'intensity:A' has values from 2026-10-01T00:00:00Z to 2026-10-01T06:00:00Z only"]


USERS = """job_id,user,gpus,duration_h,power_w,deadline,sites,duration_quantiles
j1,ada,4,2,500,2026-10-01T06:00,a,
j2,bo,2,1,500,2026-10-01T06:00,a;b,
j3,bo,1,4,500,2026-10-01T06:00,b,50@1;90@2
"""


def test_the_next_plan_keeps_what_it_can(made, tmp_path):
    """An hour later j2 is gone, j1 stands where it stood, and j4 is new: it wants both GPUs of b, so j3 makes way for it.

    The prices are of the hours that are left.
    """
    first, then = tmp_path / "first.csv", tmp_path / "then.csv"
    first.write_text(USERS)
    then.write_text(USERS.replace("j2,bo", "j4,cy"))
    words = ("--book", made / "book", "--gpus", "b=2")
    before = run("plan", first, *words, "--from", "2026-10-01", "--hours", 6, "--json")
    (tmp_path / "plan.json").write_text(before.stdout)
    again = (*words, "--from", "2026-10-01T01:00", "--hours", 5, "--previous", tmp_path / "plan.json")
    told = json.loads(run("plan", then, *again, "--json").stdout)
    old, new = ({j["job_id"]: j for j in t["jobs"]} for t in (json.loads(before.stdout), told))
    shown = run("plan", then, *again)

    assert new["j1"]["planned"] == old["j1"]["planned"]
    assert {j: line["beside_previous"] for j, line in new.items()} == {"j1": "kept", "j3": "moved", "j4": "new"}
    assert len(told["prices"]["gpu_g"]["a"]) == len(json.loads(before.stdout)["prices"]["gpu_g"]["a"]) - 1 == 5
    assert shown.returncode == 0, shown.stderr
    assert "Beside the previous plan: 1 jobs keep their place, 1 move, 1 are new." in " ".join(shown.stdout.split())
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80


def test_users_have_a_table_and_the_quantile_is_said(made, tmp_path):
    """Who waits longest comes first; the note says for which quantile GPUs are held."""
    queue = tmp_path / "queue.csv"
    queue.write_text(USERS)
    done = run("plan", queue, "--book", made / "book", "--gpus", "b=2", "--from", "2026-10-01", "--hours", 6)
    text = " ".join(done.stdout.split())

    assert done.returncode == 0, done.stderr
    assert "User Jobs GPUs Saves" in text
    assert text.index(" ada 1 4 ") < text.index(" bo 2 3 ")
    assert "GPUs are held for the quantile of 90 %" in text
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_what_cannot_go_on_is_one_line(made, tmp_path):
    """A file that is no plan, other slots, a start before the old one or between its slots, polish beside previous."""
    (tmp_path / "odd.json").write_text("{}")
    (tmp_path / "plan.json").write_text(plan(made, "--json").stdout)
    old = ("--previous", tmp_path / "plan.json")
    (empty := tmp_path / "empty.json").write_text("")
    book = ("plan", made / "queue.csv", "--book", made / "book", "--gpus", "b=2", "--hours", 2)
    faults = [
        (plan(made, "--previous", tmp_path / "odd.json"), 1, "is not what wattkeeper plan --json prints"),
        (plan(made, "--previous", empty), 1, "empty.json line 1 is no JSON"),
        (plan(made, "--previous", tmp_path / "none.json"), 1, "none.json: No such file"),
        (run(*book, "--from", "2026-10-01", "--slot", 30, *old), 1, "has slots of 60 min. Plan with --slot 60."),
        (run(*book, "--from", "2026-10-01T00:30", *old), 1, "Begin it with one of those slots."),
        (run(*book, "--from", "2026-09-30", *old), 1, "Begin it with one of those slots."),
        (plan(made, *old, "--polish", 1), 2, "--polish moves jobs that --previous keeps"),
    ]
    for done, code, words in faults:
        assert done.returncode == code, done.stderr
        assert words in " ".join(done.stderr.replace("│", " ").split())
        assert "Traceback" not in done.stderr


BAD = [
    ("late,1,1,500,2026-10-01T05:00,2026-10-01T04:00,a,,", "is not after its release 2026-10-01T05:00:00Z"),
    (
        "over,1,1,500,,2026-09-30T04:00,a,,",
        "its deadline 2026-09-30T04:00:00Z is over before the plan begins at 2026-10",
    ),
    (
        "past,1,1,500,2026-09-29,2026-09-30T04:00,a,,",
        "its deadline 2026-09-30T04:00:00Z is over before the plan begins",
    ),
    ("huge,64,1,500,,,a,,", "it asks for 64 GPUs and the largest of its sites (a) has 4"),
    ("inf,1,1,inf,,,a,,", "power_w is not finite"),
    ("nan,1,1,nan,,,a,,", "power_w is not finite"),
    ("long,1,9,500,,,a,,", "it needs 9 slots of 60 min, and between its release and the end of the horizon lie 6"),
    ("lost,1,1,500,,,z,,", "none of its sites is known; known are a, b"),
]


def test_a_job_that_cannot_be_is_named_and_the_others_are_planned(made, tmp_path):
    """Deadline before release, too large, infinite and NaN power, too long, unknown site: a sentence each, exit code 3."""
    queue = tmp_path / "queue.csv"
    queue.write_text("\n".join([QUEUE.splitlines()[0], *(row for row, _ in BAD), "good,1,1,500,,,a,,"]) + "\n")
    words = ("--book", made / "book", "--gpus", "b=2", "--from", "2026-10-01", "--hours", 6)
    done, told = run("plan", queue, *words), json.loads(run("plan", queue, *words, "--json").stdout)
    text = " ".join(done.stdout.split())

    assert done.returncode == 3
    for _, why in BAD:
        assert why in text
    assert told["planned"]["jobs"] == 1
    assert "Traceback" not in done.stderr


def test_capacity_that_cannot_be_is_refused_in_one_line(made, tmp_path):
    """GPUs below 0, infinite or NaN, a budget below 0, and limits that make no sense."""
    rows = {
        "neg.csv": "site,start,end,gpus\na,2026-10-01T00:00,2026-10-01T01:00,-1\n",
        "turn.csv": "site,start,end,gpus\na,2026-10-01T01:00,2026-10-01T00:00,1\n",
        "none.csv": "site,start,end\na,2026-10-01T00:00,2026-10-01T01:00\n",
        "z.csv": "site,start,end,gpus\nz,2026-10-01T00:00,2026-10-01T01:00,1\n",
        "word.csv": "site,start,end,gpus\na,2026-10-01T00:00,2026-10-01T01:00,few\n",
        "when.csv": "site,start,end,gpus\na,soon,2026-10-01T01:00,1\n",
    }
    for name, text in rows.items():
        (tmp_path / name).write_text(text)
    faults = [
        (("--gpus", "a=-1"), "--gpus a=-1 cannot be. Give a number of at least 0."),
        (("--gpus", "a=inf"), "--gpus a=inf cannot be. Give a number of at least 0."),
        (("--gpus", "a=nan"), "--gpus a=nan cannot be. Give a number of at least 0."),
        (("--power", "a=-5"), "--power a=-5 cannot be. Give a number of at least 0."),
        (("--power", "a=nan"), "--power a=nan cannot be. Give a number of at least 0."),
        (("--limits", tmp_path / "neg.csv"), "row 2: its end is not after its start, or a limit is below 0."),
        (("--limits", tmp_path / "turn.csv"), "row 2: its end is not after its start, or a limit is below 0."),
        (("--limits", tmp_path / "none.csv"), "limits nothing: it has neither a column gpus nor power_kw."),
        (("--limits", tmp_path / "z.csv"), "The site file has no site 'z'. It has a, b."),
        (("--limits", tmp_path / "word.csv"), "row 2: gpus is not a number."),
        (("--limits", tmp_path / "when.csv"), "row 2: start cannot be read as ISO 8601."),
    ]
    for words, why in faults:
        done = plan(made, *words)
        assert done.returncode == (1 if words[0] == "--limits" else 2), (words, done.stdout)
        assert why in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr


def test_signals_that_are_not_there_are_told(made, tmp_path):
    """A signal that was never imported; one that ended before the plan; one that lacks some of its hours."""
    (tmp_path / "site.toml").write_text(SITE.replace("intensity:A", "intensity:ZZ", 1))
    assert run("init", tmp_path / "book", "--site-file", tmp_path / "site.toml").returncode == 0
    queue = tmp_path / "queue.csv"
    queue.write_text("job_id,gpus,duration_h,power_w,sites\nx,1,1,500,a\n")
    words = (queue, "--gpus", "b=1", "--hours", 6, "--from")
    unknown = run("plan", *words, "2026-10-01", "--book", tmp_path / "book")
    stale = run("plan", *words, "2026-10-03", "--book", made / "book")
    missing = run("plan", *words, "2026-10-01T03:00", "--book", made / "book")

    assert unknown.returncode == 1
    assert "takes its intensity from signal 'intensity:ZZ', which the book does not have. Import it first." in " ".join(
        unknown.stderr.split()
    )
    assert stale.returncode == 3
    assert "x: no forecast for a between" in stale.stdout
    assert missing.returncode == 0
    assert "lack 3 of 6 slots, which are planned around" in " ".join(missing.stdout.split())


def test_standard_input_and_an_empty_queue(made, tmp_path):
    """A dash reads a pipe, a pod's List as well as a table; a header alone, an empty List or table is nothing to plan."""
    words = ("--book", made / "book", "--from", "2026-10-01", "--hours", 6, "--gpus", "b=2")
    held = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"phase": "Running"}}
    held["spec"] = {"nodeName": "n1", "containers": [{"resources": {"limits": {"nvidia.com/gpu": 3}}}]}
    job = {"job_id": 7, "job_state": "PENDING", "tres_req_str": "gres/gpu=2", "time_limit": 60}
    queue = json.dumps({"jobs": [{**job, "comment": "wattkeeper: power_w=500, sites=a, tier=elastic"}]})
    done = run("plan", "-", *words, "--json", input=queue)
    table = run("plan", "-", *words, "--json", input="job_id,gpus,duration_h,power_w\nx,1,1,500\n")
    wrong = run("plan", "-", *words, input=queue[:-3])
    (tmp_path / "header.csv").write_text("job_id,gpus,duration_h,power_w\n")
    pl.DataFrame(schema=dict.fromkeys(("job_id", "gpus", "duration_h", "power_w"), pl.String)).write_parquet(
        tmp_path / "header.parquet"
    )
    header, rows = (run("plan", tmp_path / f"header.{end}", *words) for end in ("csv", "parquet"))
    none = run("plan", "-", *words, "--json", input="kind: List\nitems: []\n")
    pods = run("plan", "-", *words, input=json.dumps({"kind": "List", "items": [held]}))

    # 2 × 0.5 kWh × 1.25 at 100 g, in one of the two clean hours
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["planned"]["carbon_g"] == pytest.approx(125)
    assert [j["job_id"] for j in json.loads(table.stdout)["jobs"]] == ["x"]
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("wattkeeper: standard input is not what squeue --json, ")
    for one in (header, rows, pods):
        assert one.returncode == 0, one.stderr
        assert "Nothing to plan: no job of the queue that could be read waits for GPUs." in one.stdout
    assert "1 running jobs hold 3 GPUs of a, each until its time limit." in pods.stdout
    assert (none.returncode, json.loads(none.stdout)["jobs"]) == (0, [])
