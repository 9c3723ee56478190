"""What the commands print and how they end: wrong usage, paths that cannot be written, Ctrl-C, tables, limits."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import typing
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from wattkeeper import cli, config, loop
from wattkeeper.cli.imports import refusals
from wattkeeper.cli.init import STARTER
from wattkeeper.cli.meters import beside
from wattkeeper.cli.statement import Bearer, By
from wattkeeper.core.roles import Reject
from wattkeeper.lake.book import Book
from wattkeeper.report.statement import BY, WHOSE

ROOT = Path(__file__).parents[2]
SITE = """name = "Small"
[[site]]
id = "a"
timezone = "Europe/Berlin"
{values}
[[asset]]
id = "r1"
kind = "rack"
parent = "a"
[[nodes]]
names = "n1"
parent = "r1"
gpus = 4
[[nodes]]
names = "n2-with-a-name-longer-than-any-terminal-has-room-for-in-a-column"
parent = "a"
[csv.power]
kind = "readings"
wide = true
columns = {{ time = "time" }}
quantity = "power"
unit = "W"
asset = "{{column}}"
[csv.rack]
kind = "readings"
columns = {{ time = "time" }}
meter = "pdu"
asset = "r1"
quantity = "power"
unit = "W"
"""
LONG = "n2-with-a-name-longer-than-any-terminal-has-room-for-in-a-column"


def call(monkeypatch, *words) -> tuple[int, str, str]:
    """Run wattkeeper here; return exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "argv", ["wattkeeper", *map(str, words)])
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Make a book of n1 (800 W of it four GPUs at 100 W, in rack r1 at 900 W) and n2 (400 W, in no rack) for an hour.

    Job 7 of ann holds two of n1's four GPUs, the cluster could not say which; 100 to 150 are known by name alone.
    """

    def made(values: str) -> Path:
        root = tmp_path_factory.mktemp("faces")
        book = Book.create(root / "book", SITE.format(values=values))
        times = [f"2026-10-07T10:{m:02d}:00+02:00" for m in range(60)] + ["2026-10-07T11:00:00+02:00"]
        gpus = ",".join(f"n1/gpu{i}" for i in range(4))
        files = {
            "power": [f"time,n1,{LONG},{gpus}", *(f"{t},800,400,100,100,100,100" for t in times)],
            "rack": ["time,value", *(f"{t},900" for t in times)],
        }
        for layout, lines in files.items():
            (root / f"{layout}.csv").write_text("\n".join(lines))
            _take(book, layout, root / f"{layout}.csv")
        head = "JobID|State|User|Start|End|NodeList|AllocTRES"
        held = "|2026-10-07T08:00:00|2026-10-07T09:00:00|"
        jobs = [
            f"7|COMPLETED|ann{held}n1|cpu=1,gres/gpu=2,node=1",
            *(f"{i}|FAILED|bob{held}|" for i in range(100, 151)),
        ]
        (root / "sacct.txt").write_text("\n".join([head, *jobs]))
        _take(book, "sacct", root / "sacct.txt")
        loop.attribute(book)
        return book.root

    return made


def _take(book: Book, what: str, path: Path) -> None:
    from wattkeeper.cli.imports import source_of

    assert loop.take(book, source_of(book, what, path), 0)[1] == []


@pytest.fixture(scope="module")
def book(make):
    """The book with an intensity and a price, both constant."""
    return make('intensity = 400.0\nprice = 0.5\ncurrency = "CHF"')


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["statement", "--by", "bogus"], "'bogus' is no cut. Choose from job, user"),
        (["statement", "--full-cost", "--by", "node"], "Use --full-cost with --by job, user, project."),
        (["statement", "--period", "garbage"], "Period 'garbage' is not a year"),
        (["statement", "--by", "x"], "'--by': 'x' is no cut. Choose from job, user, project"),
        (["meters", "--period", "garbage"], "Period 'garbage' is not a year"),
        (["plan", "queue.csv", "--gpus", "4"], "--gpus 4 cannot be read. Write --gpus SITE=NUMBER."),
        (["plan", "queue.csv", "--from", "soon"], "'soon' is not a time."),
    ],
)
def test_wrong_usage_exits_with_2(monkeypatch, words, message):
    """What cannot be meant is told before any book is opened."""
    code, out, err = call(monkeypatch, *words)

    assert (code, out) == (2, "")
    assert [message in line for line in err.splitlines()].count(True) == 1


@pytest.mark.parametrize(
    ("gap_pct", "words"),
    [
        (None, ""),
        (-3.25, "−3.2 %"),
        (199.9, "+199.9 %"),
        (25519.0, "256 times"),
        (250.0, "3.5 times"),
        (1e9, "over 1000 times"),
    ],
)
def test_a_meter_of_something_else_is_told_as_a_factor(gap_pct, words):
    """25 519 % more is 256.19 times as much: a wrong unit, not a disagreement."""
    assert beside(gap_pct) == words


def test_top_says_how_old_a_book_is(monkeypatch, book):
    """Its newest reading is of October 2026: nothing is drawn now, and the reader is told since when."""
    code, out, _ = call(monkeypatch, "top", "--once", "--book", book)

    assert code == 1
    assert "The book's newest reading is of 2026-10-07 09:00 UTC, " in out
    assert " d" in out.partition("09:00 UTC, ")[2].partition(" ago.")[0]


def test_the_cuts_are_those_of_the_statement():
    """The command's list, which loads fast, is the report's."""
    assert (typing.get_args(By), typing.get_args(Bearer)) == (BY, WHOSE)


@pytest.mark.parametrize("words", [["statement", "--html", "/proc/x/y.html"], ["init", "/proc/x"]])
def test_a_path_that_cannot_be_written_is_one_line(monkeypatch, book, words):
    """File and reason, exit code 1."""
    code, _, err = call(monkeypatch, *words, *(["--book", book] if words[0] == "statement" else []))

    assert (code, err) == (1, f"wattkeeper: {words[-1]}: No such file or directory\n")


@pytest.mark.parametrize("module", ["typer", "polars"])
def test_ctrl_c_while_modules_load_says_nothing(tmp_path, module):
    """Whether before the command line is there or while a command loads what it needs: 130, no traceback."""
    stop = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    (tmp_path / f"{module}.py").write_text(stop)
    done = subprocess.run(
        [sys.executable, "-m", "wattkeeper", "check", "--book", "x"],
        capture_output=True, text=True, check=False, timeout=50, env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_notes_of_a_statement(monkeypatch, book):
    """What was split by count, one job in the singular, constants with their value, the period said once."""
    _, out, _ = call(monkeypatch, "statement", "--book", book)
    flat = " ".join(out.split())

    # the job has 200 of 400 Wh of the GPUs, by count, and 200 of 400 Wh that n1 drew beside them
    assert "0.200 kWh, 50.0 % of jobs' energy, was split by count: the cluster could not say which GPU." in flat
    assert "intensity: intensity:a [g/kWh], site file, constant, 400" in flat
    assert "price: price:a [CHF/kWh], site file, constant, 0.5" in flat
    assert out.splitlines()[1] == "2026-10-07 10:00 to 2026-10-07 11:00 Europe/Berlin"
    assert not [line for line in out.splitlines() if line.strip() == "kWh"]
    assert "unaccounted  [kWh]" in out


def test_nodes_are_a_level_like_racks(monkeypatch, book):
    """n1 and n2 are nodes; what r1 has beyond n1 (100 Wh) is in no node. The CSV has names, and numbers that read well."""
    _, out, _ = call(monkeypatch, "statement", "--book", book, "--by", "node", "--csv")
    rows = [line.split(",") for line in out.splitlines()]
    energy = [(r[0], r[-1]) for r in rows]
    found = json.loads(call(monkeypatch, "statement", "--book", book, "--by", "node", "--json")[1])["rows"]

    assert energy == [("node", "energy_kwh"), ("n1", "0.8"), (LONG, "0.4"), ("in no node", "0.1")]
    assert [(r["node"], r["energy_kwh"]) for r in found] == [("n1", 0.8), (LONG, 0.4), (None, 0.1)]
    assert "\nnobody," in call(monkeypatch, "statement", "--book", book, "--by", "user", "--csv")[1]
    assert "\nin no rack," in call(monkeypatch, "statement", "--book", book, "--by", "rack", "--csv")[1]


def test_full_cost_fits_the_terminal(monkeypatch, book):
    """All 1.3 kWh of the hour are job 7's, at 400 g and 0.5 CHF a kWh."""
    _, out, _ = call(monkeypatch, "statement", "--book", book, "--full-cost")
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("by job"))

    assert " ".join(lines[at].split()) == "by job user kWh full kWh full CO2e full CHF"
    assert " ".join(lines[at + 1].split()) == "7 ann 0.400 1.300 0.52 kg 0.65"
    assert max(map(len, lines)) <= 80


def test_the_meters_keep_to_a_line_each(monkeypatch, book):
    """A long name ends in an ellipsis, numbers stay whole, and no line is wider than a terminal."""
    _, out, _ = call(monkeypatch, "meters", "--book", book)
    lines = out.splitlines()

    assert len(lines) == 1 + 7  # n1, its GPUs, n2, pdu
    assert max(map(len, lines)) <= 80
    assert next(line.split() for line in lines if "…" in line)[1:] == ["power", "yes", "0.400", "100.0", "%"]


def test_a_job_is_told_on_the_sites_clock(monkeypatch, book):
    """Its money has a currency, its times the site's zone; assets beyond --most are counted."""
    _, out, _ = call(monkeypatch, "job", "7", "--book", book, "--most", "2")
    lines = out.splitlines()

    assert lines[1] == "2026-10-07 10:00:00 to 2026-10-07 11:00:00 Europe/Berlin"
    assert "0.16 kg CO2e, 0.20 CHF; covered 100.0" in lines[2]
    assert "… and 3 more; --most or --json shows them." in out


def test_a_job_without_a_price_names_none(monkeypatch, make):
    """Neither price nor intensity: no dash stands in for them."""
    _, out, _ = call(monkeypatch, "job", "7", "--book", make(""))

    assert out.splitlines()[2] == "0.400 kWh ± 0.012 kWh; covered 100.0\u2009%, of it held idle 0.000 kWh"
    assert "–" not in out


def test_a_job_without_energy_says_so(monkeypatch, book):
    """Job 100 held nothing: no zero is printed for it."""
    code, out, _ = call(monkeypatch, "job", "100", "--book", book)

    assert code == 0
    assert out.splitlines()[-1] == "It has no energy on the ledger."
    assert "0.000" not in out


def test_a_job_that_is_not_there_names_those_alike(monkeypatch, book):
    """Of 52 jobs those that begin most alike, and an ellipsis for the rest."""
    code, _, err = call(monkeypatch, "job", "1499", "--book", book)

    assert code == 1
    assert err == ("wattkeeper: No job named '1499' in this book. Known: 149, 140, 141, 142, 143, 144, 145, 146, ….\n")


def test_refused_rows_are_told_by_reason():
    """In order of their rows, each with what it said; rows with one reason share a line."""
    much = [Reject("p.csv", n, "power: value is not a number", f"much{n}") for n in range(3, 8)]
    told = refusals([Reject("p.csv", 2, "time is missing", ", 5"), *much, Reject("p.csv", 9, "x", "y" * 70)])

    assert told == [
        "p.csv:2: time is missing (, 5)",
        "p.csv: power: value is not a number: 5 rows: 3 (much3), 4 (much4), 5 (much5), …",
        f"p.csv:9: x ({'y' * 60}…)",
    ]


def test_an_import_names_assets_met_for_the_first_time(monkeypatch, make, tmp_path):
    """A misspelled host shows before it is on the books; refused rows come in order."""
    (tmp_path / "p.csv").write_text("time,n1,nn2\n2026-10-08T10:00Z,1,x\n2026-10-08T10:01Z,y,5\n")
    site = SITE.format(values="").replace('asset = "{column}"', 'asset = "{column}"\nparent = "a"', 1)
    Book.create(tmp_path / "book", site)
    code, out, err = call(
        monkeypatch, "import", "csv", tmp_path / "p.csv", "--as", "power", "--book", tmp_path / "book"
    )

    assert code == 3
    assert "2 rows taken, 2 refused." in out
    assert "New to the book: 1 node, such as nn2." in out
    assert err.splitlines() == [
        f"  {tmp_path / 'p.csv'}:2: nn2: value is not a number (x)",
        f"  {tmp_path / 'p.csv'}:3: n1: value is not a number (y)",
    ]


def test_a_book_without_a_ledger_is_not_said_to_balance(monkeypatch, tmp_path):
    """There is nothing to compare: exit code 1, and what to do."""
    Book.create(tmp_path / "book", STARTER.format(timezone="UTC"))
    code, out, err = call(monkeypatch, "check", "--book", tmp_path / "book")

    assert (code, out) == (1, "")
    assert err.startswith(f"wattkeeper: There is nothing to check in {tmp_path / 'book'} yet.")


@pytest.mark.parametrize("name", ["starter", *(p.name for p in sorted((ROOT / "examples").glob("*.toml")))])
def test_examples_and_the_starter_can_be_attributed(tmp_path, name):
    """Each value a site file shows, the starter's comments too, is one that a book takes."""
    text = STARTER.format(timezone="UTC") if name == "starter" else (ROOT / "examples" / name).read_text("utf-8")
    if name == "starter":
        shown = [line.removeprefix("# ") for line in text.splitlines()[1:]]
        text = "\n".join(line.replace('"intensity:DE-LU"', '"average:DE"') for line in shown)
        assert '"average:DE"\n' in STARTER
    book = Book.create(tmp_path / "book", text)
    (tmp_path / "p.csv").write_text("time,meter,value\n2026-10-07T10:00Z,m,0\n2026-10-07T11:00Z,m,3600000000\n")
    first = next(a.id for a in config.parse(text).assets().walk() if a.kind == "node")
    (tmp_path / "book" / "site.toml").write_text(
        f'{text}\n[[meter]]\nid = "m"\nasset = "{first}"\nquantity = "energy_counter"\nmax_gap_ms = 7200000\n'
    )
    book = Book(tmp_path / "book")
    _take(book, "readings", tmp_path / "p.csv")
    loop.attribute(book)

    assert loop.statement(book).total("carbon_g") > 0
