"""The command line, as a user meets it: files in, statement out, faults in one line, exit codes that mean something."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer

from wattkeeper import cli

SITE = """name = "Two nodes"
[[site]]
id = "a"
timezone = "Europe/Berlin"
intensity = 400.0
price = 0.25
[[nodes]]
names = "n[1-2]"
parent = "a"
[csv.power]
kind = "readings"
wide = true
columns = { time = "time" }
quantity = "power"
unit = "W"
asset = "{column}"
"""


def run(*words, cwd=None, input=None):  # noqa: A002
    """Run wattkeeper in a process of its own, with a text on standard input."""
    command = [sys.executable, "-m", "wattkeeper", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, input=input)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A book of two nodes at 600 W and 400 W for two hours, one job on the first for one of them."""
    root = tmp_path_factory.mktemp("cli")
    (root / "site.toml").write_text(SITE)
    rows = [f"2026-10-07T{h:02d}:{m:02d}:00+02:00,600,400" for h in (10, 11) for m in range(60)]
    (root / "power.csv").write_text("\n".join(["time,n1,n2", *rows, "2026-10-07T12:00:00+02:00,600,400"]))
    (root / "jobs.csv").write_text(
        "job_id,user,state,start,end\n7,ann,FAILED,2026-10-07T10:00:00+02:00,2026-10-07T11:00:00+02:00\n"
    )
    (root / "held.csv").write_text("job_id,asset,start,end\n7,n1,2026-10-07T10:00:00+02:00,2026-10-07T11:00:00+02:00\n")
    path = root / "book"
    assert run("init", path, "--site-file", root / "site.toml").returncode == 0
    for layout, name in (("power", "power.csv"), ("jobs", "jobs.csv"), ("allocations", "held.csv")):
        done = run("import", "csv", root / name, "--as", layout, "--book", path)
        assert done.returncode == 0, done.stderr
    assert run("attribute", "--book", path).returncode == 0
    return path


def test_the_statement_adds_up(book):
    """2 h × 1 kW = 2 kWh: 0.6 for the job, 1.4 idle; 400 g and 0.25 EUR a kWh."""
    found = json.loads(run("statement", "--book", book, "--json").stdout)
    accounts = {a["account"]: a for a in found["accounts"]}

    assert found["balance"]["line"].startswith("meter 2.000 kWh = jobs 0.600 + held idle 0.000 + idle 1.400 +")
    assert found["balance"]["residual_mj"] == 0
    assert accounts["job"]["carbon_g"] == pytest.approx(240)  # 0.6 kWh × 400 g
    assert accounts["idle"]["cost"] == pytest.approx(0.35)  # 1.4 kWh × 0.25
    assert [("FAILED", 1, pytest.approx(0.6))] == [(f["state"], f["jobs"], f["energy_kwh"]) for f in found["failed"]]
    assert found["energy_per_job_kwh"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("by", "first"),
    [
        ("job", "7"),
        ("user", None),
        ("node", "n1"),
        ("account", "idle"),
        ("hour", 1_791_360_000_000),
        ("day", "2026-10-07"),
    ],
)
def test_the_statement_is_cut_by_many_things(book, by, first):
    """Each cut has its own first row; without a job the user is nobody."""
    rows = json.loads(run("statement", "--book", book, "--by", by, "--json").stdout)["rows"]
    key = {"job": "job_id", "hour": "hour_ms"}.get(by, by)

    assert rows[0][key] == first


def test_a_period_cuts_the_ledger(book):
    """A day has what was read on it; for one without readings the days of the ledger are told, in one line."""
    assert "2.000 kWh" in run("statement", "--book", book, "--period", "2026-10-07").stdout
    empty = run("statement", "--book", book, "--period", "2026-10-08", "--json")
    assert (empty.returncode, empty.stdout) == (1, "")
    assert empty.stderr == "wattkeeper: No data in 2026-10-08; the ledger has 2026-10-07 to 2026-10-07.\n"


def test_the_terminal_keeps_to_80_columns(book):
    """No line of the statement is wider than a terminal."""
    done = run("statement", "--book", book)

    assert "The books balance to 0 mJ." in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_csv_is_for_spreadsheets(book):
    """The breakdown has a header and a row per job."""
    lines = run("statement", "--book", book, "--csv").stdout.splitlines()

    assert lines[0].startswith("job_id,energy_mj,")
    assert lines[1].startswith("7,2160000000,")  # 0.6 kWh in mJ


def test_a_job_and_the_meters(book):
    """A job shows its node, its energy and watts; the meters show what they measured."""
    job = json.loads(run("job", "7", "--book", book, "--json").stdout)
    meters = json.loads(run("meters", "--book", book, "--json").stdout)

    assert (job["energy_mj"], job["user"], job["coverage"]) == (2_160_000_000, "ann", 1.0)
    assert [("n1", 1.2), ("n2", 0.8)] == [(m["asset"], round(m["energy_kwh"], 6)) for m in meters]
    assert "600" in run("job", "7", "--book", book).stdout
    assert run("meters", "--book", book).returncode == 0


def test_check_proves_the_balance(book):
    """The check says how much it compared."""
    assert "The books balance: 4 meter-hours compared, largest difference 0 mJ." in run("check", "--book", book).stdout


def test_a_counter_that_rises_faster_than_its_asset_can_draw_is_told_with_the_cure(tmp_path):
    """450 W for an hour on a GPU said to draw 200 W at most: no step counts, all say so; at 700 W it is 0.45 kWh."""
    counter = '[csv.c]\nkind = "readings"\nmeter = "g0"\nasset = "n1/gpu0"\nquantity = "energy_counter"\nunit = "J"\n'
    site = tmp_path / "site.toml"
    site.write_text(
        '[[site]]\nid = "a"\n[[nodes]]\nnames = "n1"\nparent = "a"\ngpus = 1\ngpu_max_power_w = 200\n' + counter
    )
    rows = [f"2026-10-07T{m // 60:02d}:{m % 60:02d}:00Z,{1_000_000 + 450 * 60 * m}" for m in range(61)]
    (tmp_path / "c.csv").write_text("\n".join(["time,value", *rows]))
    book = tmp_path / "book"
    run("init", book, "--site-file", site)
    run("import", "csv", tmp_path / "c.csv", "--as", "c", "--book", book)
    attributed, checked = run("attribute", "--book", book), run("check", "--book", book)
    stated = run("statement", "--book", book).stdout
    file = book / "site.toml"
    file.write_text(file.read_text().replace("= 200", "= 700"))
    mended = run("attribute", "--book", book)

    told = (
        "meter 'g0' has 60 resets on 2026-10-07, over which only 0.000 kWh are booked: its counter falls, or rises faster "
        "than the 200 W that 'n1/gpu0' can draw; is the unit right? Else set max_power_w of 'n1/gpu0' in the site file\n"
    )
    assert attributed.stdout.endswith(told)
    assert (checked.returncode, checked.stdout.endswith(told)) == (3, True)
    assert "A counter was reset 60 times within a day" in stated
    assert "resets" not in mended.stdout
    assert run("check", "--book", book).returncode == 0
    assert json.loads(run("meters", "--book", book, "--json").stdout)[0]["energy_kwh"] == pytest.approx(0.45)


def test_a_file_with_bad_rows_imports_the_good_ones_and_exits_with_3(book, tmp_path):
    """Bad rows are listed with their number; scripts see it in the exit code."""
    (tmp_path / "bad.csv").write_text(
        "time,n1,n2\n2026-10-07T12:01:00+02:00,600,400\n2026-10-07T12:02:00+02:00,much,400\n"
    )
    done = run("import", "csv", tmp_path / "bad.csv", "--as", "power", "--book", book, "--json")
    found = json.loads(done.stdout)

    assert done.returncode == 3
    assert found["rows"] == 3
    assert [3] == [r["row"] for r in found["refused"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["statement", "--book", "nowhere"], "nowhere is not a book. Make one with: wattkeeper init nowhere"),
        (["job", "99"], "No job named '99' in this book. Known: 7."),
        (["import", "csv", "x.csv", "--as", "nothing"], "nothing"),
        (["import", "sacct", "x.txt"], "Cannot read x.txt"),
        (["import", "prometheus", "http://127.0.0.1:9"], "was never imported into this book. Give --start"),
    ],
)
def test_a_fault_is_one_line(book, words, message):
    """A user's mistake is told in one line on standard error, with exit code 1 and no traceback."""
    book_words = [] if "--book" in words else ["--book", book]
    done = run(*words, *book_words)

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_every_command_has_help_with_an_example():
    """Each command says what it does and shows one use."""
    without = []

    def visit(command, path):
        for name, sub in getattr(command, "commands", {}).items():
            if getattr(sub, "commands", None):
                visit(sub, f"{path} {name}")
            elif "Example: " not in (sub.help or ""):
                without.append(f"{path} {name}")

    visit(typer.main.get_command(cli.app), "wattkeeper")
    assert without == []
