"""`wattkeeper grid` as a user meets it: fetched from a fake service, shown with its gaps, forecast, scored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from tests.integrations import services
from tests.integrations.services import KEY, FakeService, hours, moment, ms
from wattkeeper.lake.book import Book

START, END = ms("2026-01-05T00:00+00:00"), ms("2026-03-02T00:00+00:00")
HOLE = ms("2026-02-28T06:00+00:00")


def answer(path, params, headers):
    """Answer as Electricity Maps does, with two hours that have no value."""
    body = json.loads(services.electricitymaps(path, params, headers))
    for row in body["data"]:
        if row["datetime"] in {moment(HOLE), moment(HOLE + services.HOUR)}:
            row["carbonIntensity"] = None
    return json.dumps(body)


def run(*words, key=KEY):
    """Run wattkeeper in a process of its own, with a key in its environment."""
    command = [sys.executable, "-c", "from wattkeeper.cli import main; main()", *map(str, words)]
    env = os.environ | {"ELECTRICITYMAPS_TOKEN": key, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A book with eight weeks of a zone, fetched."""
    root = tmp_path_factory.mktemp("grid")
    with FakeService(answer) as service:
        site = f'[[site]]\nid = "a"\n[grid.electricitymaps]\nurl = "{service.url}"\npace_s = 0\nretries = 0\n'
        (root / "site.toml").write_text(site)
        assert run("init", root / "book", "--site-file", root / "site.toml").returncode == 0
        words = ("--zone", "DE", "--provider", "electricitymaps", "--from", moment(START), "--to", moment(END))
        done = run("grid", "fetch", *words, "--book", root / "book")
        assert done.returncode == 0, done.stderr
        assert KEY not in done.stdout + done.stderr
        assert f"intensity:DE:electricitymaps:lifecycle: {len(hours(START, END)) - 2:,} values came" in done.stdout
        assert 'intensity = "intensity:DE:electricitymaps:lifecycle"' in done.stdout
        assert len(service.asked) == 6
        service.faults = [(401, {}, f"bad token {KEY}")]
        refused = run("grid", "fetch", *words[:4], "--book", root / "book")
        assert refused.returncode == 1
        assert "refuses us (status 401)" in refused.stderr
        assert KEY not in refused.stderr
        end = moment(ms("2026-02-27T00:00+00:00"))
        there = run("grid", "fetch", *words[:5], moment(START), "--to", end, "--book", root / "book")
        assert "0 values came" in there.stdout
        assert "The book has all of that time. --again, with --from, reads it again." in there.stdout
    return root / "book"


def test_what_was_revised_is_told(tmp_path):
    """One of three hours is revised and one withdrawn; an estimate is counted; then nothing comes, and nothing goes."""
    start, end = (moment(ms(f"2026-02-01T{h}:00+00:00")) for h in ("00", "03"))

    def body(*told):
        rows = [
            {"zone": "DE", "datetime": f"2026-02-01T0{h}:00:00.000Z", "carbonIntensity": v, "isEstimated": h == 1}
            for h, v in enumerate(told)
        ]
        return 200, {}, json.dumps({"data": rows})

    with FakeService(services.electricitymaps) as service:
        site = f'[[site]]\nid = "a"\n[grid.electricitymaps]\nurl = "{service.url}"\npace_s = 0\nretries = 0\n'
        (tmp_path / "site.toml").write_text(site)
        assert run("init", tmp_path / "b", "--site-file", tmp_path / "site.toml").returncode == 0
        words = ("grid", "fetch", "--zone", "DE", "--provider", "electricitymaps", "--from", start, "--to", end)
        service.faults = [body(300, 310, 320), body(300, 305.5, None), body()]
        first, second, third = (run(*words, "--again", "--book", tmp_path / "b") for _ in range(3))

    assert "1 of 3 values are estimates of the provider" in first.stdout
    assert "1 value was revised, the first at 2026-02-01T01:00:00Z from 310 to 305.5 g/kWh" in second.stdout
    assert "1 value was withdrawn and now missing, the first at 2026-02-01T02:00:00Z" in second.stdout
    assert "No value came for that time; what the book has is kept." in third.stderr
    shown = run("grid", "show", "--zone", "DE", "--from", start, "--to", end, "--json", "--book", tmp_path / "b")
    assert json.loads(shown.stdout)["hourly"] == [300.0, 305.5, None]


def test_a_fetch_that_is_killed_goes_on_where_it_was(tmp_path):
    """SIGKILL while the third of four chunks is awaited: two are kept, the next run asks for what follows, once each."""
    reached, free = threading.Event(), threading.Event()
    calls = []

    def slow(path, params, headers):
        calls.append(params["start"])
        if len(calls) == 3:
            reached.set()
            free.wait(60)
        return services.electricitymaps(path, params, headers)

    start, end = ms("2026-01-01T00:00+00:00"), ms("2026-02-10T00:00+00:00")
    with FakeService(slow) as service:
        site = f'[[site]]\nid = "a"\n[grid.electricitymaps]\nurl = "{service.url}"\npace_s = 0\nretries = 0\n'
        (tmp_path / "site.toml").write_text(site)
        assert run("init", tmp_path / "b", "--site-file", tmp_path / "site.toml").returncode == 0
        words = ["grid", "fetch", "--zone", "DE", "--provider", "electricitymaps", "--to", moment(end)]
        command = [sys.executable, "-c", "from wattkeeper.cli import main; main()", *words, "--from", moment(start)]
        env = os.environ | {"ELECTRICITYMAPS_TOKEN": KEY}
        with subprocess.Popen([*command, "--book", tmp_path / "b"], env=env, stdout=subprocess.DEVNULL) as process:
            assert reached.wait(120)
            process.kill()
        free.set()
        done = run(*words, "--book", tmp_path / "b")

    assert done.returncode == 0, done.stderr
    # twenty days are kept, and the last three of them are read again
    assert calls[3:] == ["2026-01-18T00:00:00Z", "2026-01-28T00:00:00Z", "2026-02-07T00:00:00Z"]
    rows = Book(tmp_path / "b").signal_rows("intensity:DE:electricitymaps:lifecycle")
    assert sorted(rows["start_ms"].to_list()) == list(hours(start, end))


def test_gaps_are_shown(book, tmp_path):
    """The chart in the terminal names the two hours; the figure shades them and opens offline."""
    done = run("grid", "show", "--zone", "DE", "--from", "2026-02-27", "--html", tmp_path / "de.html", "--book", book)
    page = (tmp_path / "de.html").read_text("utf-8")

    assert done.returncode == 0, done.stderr
    assert "2 of 72 h are missing:" in done.stdout
    assert "2026-02-28T06:00:00Z to 2026-02-28T08:00:00Z" in done.stdout
    assert '"end":"2026-02-28T08:00:00Z"' in page.replace(" ", "")
    assert "<script src=" not in page


def test_a_course_in_json(book):
    """Null where nothing is known: never 0."""
    done = run(
        "grid",
        "show",
        "--zone",
        "DE",
        "--from",
        "2026-02-28T05:00",
        "--to",
        "2026-02-28T09:00",
        "--json",
        "--book",
        book,
    )
    told = json.loads(done.stdout)

    assert told["hourly"] == [150.0, None, None, 180.0]
    assert told["gaps"] == [{"start": "2026-02-28T06:00:00Z", "end": "2026-02-28T08:00:00Z"}]
    assert (told["provider"], told["method"]) == ("Electricity Maps", "average, lifecycle")


def test_a_forecast_is_made_and_kept(book, tmp_path):
    """Each day is like the one before, so tomorrow is told to the gram; the model and its error are named."""
    words = ("--zone", "DE", "--hours", 48, "--at", moment(END), "--quantiles", "10,90", "--book", book)
    done = run("grid", "forecast", *words, "--json", "--html", tmp_path / "f.svg")
    told = json.loads(done.stdout)
    shown = run("grid", "show", "--zone", "DE", "--json", "--book", book)

    assert done.returncode == 0, done.stderr
    assert told["hourly"][:3] == pytest.approx([100.0, 110.0, 120.0])
    assert told["model"] == "day"
    assert told["mae"]["day"] < told["mae"]["persistence"]
    assert sorted(told["quantiles"]) == ["10", "90"]
    assert json.loads(shown.stdout)["forecast"]["start"] == "2026-03-02T00:00:00Z"
    assert (tmp_path / "f.svg").read_text("utf-8").startswith("<svg")


def test_a_forecast_in_the_terminal(book):
    """A chart, means by day, and how the model was chosen."""
    done = run("grid", "forecast", "--zone", "DE", "--hours", 24, "--at", moment(END), "--book", book)

    assert done.returncode == 0, done.stderr
    assert "Model: day, least mean error over" in done.stdout
    assert "Kept as intensity:DE:electricitymaps:lifecycle:forecast" in done.stdout


def test_a_back_test_in_the_terminal(book, tmp_path):
    """Errors by day ahead beside persistence and the published figures, pinball and coverage, and the figure."""
    done = run("grid", "backtest", "--zone", "DE", "--days", 7, "--html", tmp_path / "b.svg", "--book", book)

    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert rows["hours"] == ["ahead", "1-24", "25-48", "49-72", "73-96"]
    assert rows["CarbonCast"] == ["13.29", "17.20", "18.19", "19.73"]
    assert float(rows["chosen"][0]) < float(rows["persistence"][0])
    assert "pinball loss" in done.stdout
    assert (tmp_path / "b.svg").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("show", "--zone", "FR"), "No intensity of a zone named 'FR' in this book. Known: DE."),
        (("fetch", "--zone", "DE", "--provider", "nobody"), "No provider named 'nobody'."),
        (
            ("fetch", "--zone", "GB", "--provider", "ukgrid"),
            "was never fetched into this book. Give --from the first time.",
        ),
        (("forecast", "--zone", "DE", "--quantiles", "0,50"), "--quantiles '0,50' cannot be read."),
        (
            ("forecast", "--zone", "DE", "--prices", "intensity:DE:electricitymaps:lifecycle"),
            "'intensity:DE:electricitymaps:lifecycle' is a signal of intensity, not of prices.",
        ),
        (("forecast", "--zone", "DE", "--at", "2026-01-20"), "h of past are too few to judge a forecast of 96 h by"),
        (("show", "--zone", "DE", "--from", "2026-03-01", "--to", "2026-02-01"), "--from must lie before --to"),
        (("show", "--zone", "DE", "--from", "2036-03-01"), "not after 2036-03-01T00:00:00Z. Fetch or import more"),
        (("show", "--zone", "DE", "--to", "2016-03-01"), "not before 2016-03-01T00:00:00Z. Fetch or import more"),
        (("show", "--zone", "XX", "--figure", "none/of.html"), "there is no directory none. Make it first."),
    ],
)
def test_faults_are_one_line(book, words, told):
    """What, where, and what to do; no traceback."""
    done = run("grid", *words, "--book", book)

    assert done.returncode == 1
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
