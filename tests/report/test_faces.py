"""The page: opens offline in a real browser, asks for nothing, and lets no job name out of its cell."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import polars as pl
import pytest
from rich.console import Console

from tests.books.small import HOUR, SITE, START, book, counter, held, node, power
from wattkeeper import loop
from wattkeeper.core.roles import Intake, SignalInfo
from wattkeeper.core.schema import JOBS, SIGNALS
from wattkeeper.report.figures import figures
from wattkeeper.report.html import to_html
from wattkeeper.report.statement import Statement
from wattkeeper.report.tables import to_json
from wattkeeper.report.terminal import render
from wattkeeper.report.words import carbon, count, energy, grouped, percent

EVIL = "<script>document.title='owned'</script>"


@pytest.fixture
def statement(tmp_path) -> Statement:
    """A node at 1000 W with a GPU at 600 W, one job whose name is hostile."""
    made = book(tmp_path, "name = 'Test'\n" + SITE + "intensity = 300.0\n" + node("n1", 1),
                [power("n1", 1000), counter("n1/gpu0", 600)], [held("j1", "n1"), held("j1", "n1/gpu0")])  # fmt: skip
    row = dict.fromkeys(JOBS.schema.names()) | {
        "job_id": "j1", "name": EVIL, "user": EVIL, "state": "FAILED", "start_ms": START, "end_ms": START + HOUR - 1,
    }  # fmt: skip
    made.take(Intake("t", jobs=pl.DataFrame([row], schema=JOBS.schema)), now_ms=1)
    return loop.statement(made)


def test_totals_and_their_uncertainty(statement):
    """1 kWh from the node's own meter at ±5 %: 1000 Wh × 5 % / √3 = 28.9 Wh, however it divides inside."""
    assert statement.meter_mj == 3_600_000_000
    assert statement.residual_mj == 0
    assert statement.uncertainty_mj / 3_600_000 == pytest.approx(1000 * 0.05 / 3**0.5)
    assert statement.total("carbon_g") == pytest.approx(300.0)


def test_a_rack_with_its_energy_by_account(tmp_path):
    """n1 (600 W, held) and n2 (400 W, free) in r1, n3 (300 W, free) outside: r1 has 0.6 + 0.4 kWh, no rack 0.3."""
    rack = '[[asset]]\nid = "r1"\nkind = "rack"\nparent = "a"\n'
    nodes = "".join(f'[[nodes]]\nnames = "{n}"\nparent = "{p}"\n' for n, p in (("n1", "r1"), ("n2", "r1"), ("n3", "a")))
    made = book(tmp_path, "name = 'Test'\n" + SITE + rack + nodes,
                [power("n1", 600), power("n2", 400), power("n3", 300)], [held("j1", "n1")])  # fmt: skip
    cut = loop.statement(made, by="rack")
    parts = ("rack", "energy_mj", "job_mj", "idle_mj", "held_idle_mj", "overhead_mj", "unaccounted_mj")
    rows = cut.rows.select(parts).rows()

    assert rows == [("r1", 3_600_000_000, 2_160_000_000, 1_440_000_000, 0, 0, 0),
                    (None, 1_080_000_000, 0, 1_080_000_000, 0, 0, 0)]  # fmt: skip
    assert sum(cut.rows["energy_mj"]) == cut.meter_mj
    out = Console(width=80, file=io.StringIO())
    out.print(render(cut))
    assert "in no rack" in out.file.getvalue()
    assert "in no rack" in to_html(cut)


def test_a_level_that_the_site_lacks_says_so(statement, tmp_path):
    """Without a hall there are no rows, and one line says why on each face."""
    made = book(tmp_path / "b", "name = 'Test'\n" + SITE + node("n1", 1), [power("n1", 1000)], [])
    cut = loop.statement(made, by="hall")
    said = "No hall is declared in the site file, so nothing can be told by hall."
    out = Console(width=80, file=io.StringIO())
    out.print(render(cut))

    assert cut.rows.height == 0
    assert said in out.file.getvalue()
    assert said in to_html(cut)
    assert to_json(cut)["note"] == said


def test_a_broken_balance_is_loud(statement):
    """A meter that says 5 mJ more than the postings is told on every face."""
    wrong = replace(statement, meter_mj=statement.meter_mj + 5)

    assert wrong.residual_mj == -5
    assert "DIFFERENCE -5 mJ" in wrong.balance_line
    out = Console(width=80, file=io.StringIO())
    out.print(render(wrong))
    assert "do NOT balance: -5 mJ" in out.file.getvalue()
    assert "do not balance: -5 mJ" in to_html(wrong)


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_the_page_opens_offline_and_is_safe(statement, tmp_path):
    """In Chromium: charts are drawn, nothing is asked for, nothing is complained of, a hostile name stays text."""
    from playwright.sync_api import sync_playwright

    page_file = tmp_path / "report.html"
    page_file.write_text(to_html(statement), "utf-8")
    said, asked = [], []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page()
        page.on("console", lambda m: said.append(m.text))
        page.on("pageerror", lambda e: said.append(str(e)))
        page.on("request", lambda r: asked.append(r.url))
        page.goto(page_file.as_uri())
        page.wait_for_selector("#chart-energy svg")
        title, text = page.title(), page.inner_text("main")
        wide = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()

    assert said == []
    assert [page_file.as_uri()] == asked
    assert title == "Test"
    assert EVIL in text  # shown, not run
    assert "add up to the meters to 0 mJ" in text
    assert wide


def test_charts_stand_on_the_sites_clock(tmp_path):
    """09:00 UTC is 11:00 in Berlin; over the night when the clock is put back the charts say UTC."""
    made = book(tmp_path, "name = 'Test'\n" + SITE + "timezone = 'Europe/Berlin'\n" + node("n1", 1),
                [power("n1", 1000)])  # fmt: skip
    statement = loop.statement(made)
    x = figures(statement)["energy"]
    later = statement.hours.with_columns(pl.col("hour_ms") + 17 * 24 * HOUR)  # 2025-10-26
    changed = figures(replace(statement, hours=pl.concat([statement.hours, later])))["energy"]

    assert [r["time"] for r in x["data"]["values"]] == ["2025-10-09T11:00:00Z"]
    assert x["encoding"]["x"]["title"] == "Europe/Berlin"
    assert [r["time"] for r in changed["data"]["values"]] == ["2025-10-09T09:00:00Z", "2025-10-26T09:00:00Z"]
    assert changed["encoding"]["x"]["title"] == "UTC"


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_the_page_is_whole_at_every_width(tmp_path):
    """One hour has labels on its axis; the full-cost table fits 1000 px; at 400 px a shadow says that tables scroll."""
    from playwright.sync_api import sync_playwright

    site = SITE + "timezone = 'Europe/Berlin'\nintensity = 300.0\nprice = 0.3\n"
    made = book(tmp_path, "name = 'Test'\n" + site + node("n1", 1), [power("n1", 1000)], [held("long-job-name", "n1")])
    row = dict.fromkeys(JOBS.schema.names()) | {
        "job_id": "long-job-name", "name": "pretraining-of-a-model", "user": "somebody", "project": "a-project",
        "state": "COMPLETED", "start_ms": START, "end_ms": START + HOUR,
    }  # fmt: skip
    made.take(Intake("t", jobs=pl.DataFrame([row], schema=JOBS.schema)), now_ms=1)
    page_file = tmp_path / "report.html"
    page_file.write_text(to_html(loop.statement(made, full=True)), "utf-8")
    cut = "[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.goto(page_file.as_uri())
        page.wait_for_selector("#chart-energy svg")
        labels, cut_at_1000 = page.inner_text("#chart-energy"), page.evaluate(cut)
        heads = page.inner_text("main")
        page.set_viewport_size({"width": 400, "height": 800})
        cut_at_400 = page.evaluate(cut)
        shadow = page.evaluate("getComputedStyle(document.querySelector('.scroll')).backgroundAttachment")
        browser.close()

    assert "Thu 11:00" in labels
    assert "Full EUR" in heads
    assert (cut_at_1000, cut_at_400) == (False, True)
    assert shadow == "local, local, scroll, scroll"


def test_a_period_without_jobs_has_no_empty_table(tmp_path):
    """One line stands in for the breakdown on each face."""
    made = book(tmp_path, "name = 'Test'\n" + SITE + node("n1", 1), [power("n1", 1000)])
    cut = loop.statement(made)
    out = Console(width=80, file=io.StringIO())
    out.print(render(cut))

    assert "No job has energy in this period." in out.file.getvalue()
    assert "by job" not in out.file.getvalue()
    assert "No job has energy in this period." in to_html(cut)


def test_numbers_read_well():
    """Thin spaces, true minus, kg and t, a dash for what is unknown."""
    assert grouped(-1234567.891, 1) == "−1\u2009234\u2009567.9"
    assert [energy(3.6e9), energy(3.6e14 * 1.5)] == ["1.000 kWh", "150.000 MWh"]
    assert [carbon(1500), carbon(2.5e7), carbon(None)] == ["1.50 kg", "25.000 t", "–"]
    assert [percent(0.123), percent(None)] == ["12.3\u2009%", "–"]
    assert [count(1, "day"), count(2, "day"), count(4000, "glitch")] == ["1 day", "2 days", "4\u2009000 glitches"]


def test_energy_without_a_price_is_told_as_energy_without_intensity_is(tmp_path):
    """A price for a quarter of the hour and 2 L/kWh: 75 % of 1 kWh has no price, and 2 L are told."""
    made = book(tmp_path, SITE + "intensity = 300.0\n" + node("n1", 0), [power("n1", 1000)])
    rows = pl.DataFrame([("p", START, START + HOUR // 4, 0.2)], schema=SIGNALS.schema, orient="row")
    made.take(Intake("t", signals=rows, signal_infos=[SignalInfo("p", "price", "EUR/kWh", "t")]), now_ms=1)
    made.write_site_file(SITE + "intensity = 300.0\nprice = 'p'\nwater = 2.0\n" + node("n1", 0))
    loop.attribute(made)
    told = loop.statement(made)

    assert told.unvalued == {"intensity": 0.0, "price": 0.75, "water": 0.0}
    assert told.total("cost") == pytest.approx(0.05)  # 0.25 kWh × 0.2
    told_json = to_json(told)
    assert [told_json[f"energy_without_{k}"] for k in ("intensity", "price", "water")] == [0.0, 0.75, 0.0]
    console = Console(file=io.StringIO(), width=80)
    console.print(render(told))
    words = " ".join(console.file.getvalue().split())
    assert "Water: 2.0 L. No price is known for 75.0 % of the energy; its cost is left out." in words
    assert "75.0 % of energy without price" in " ".join(to_html(told).split())


def test_a_job_that_ended_as_it_began_has_ended(tmp_path):
    """j1 drew 1 kWh over the hour, j0 lasted no time at all: two jobs ended, at half a kilowatt-hour each."""
    made = book(tmp_path, SITE + node("n1", 1), [power("n1/gpu0", 1000)], [held("j1", "n1/gpu0")])
    ends = {"j1": START + HOUR, "j0": START + 1000, "later": START + 40 * 24 * HOUR}
    starts = {"j1": START, "j0": START + 1000, "later": START + 40 * 24 * HOUR}
    jobs = pl.DataFrame(
        [{"job_id": j, "start_ms": starts[j], "end_ms": ends[j], "state": "COMPLETED"} for j in ends],
        schema_overrides=JOBS.schema,
    )
    made.take(Intake("t", jobs=pl.concat([JOBS.empty(), jobs], how="diagonal")), now_ms=1)
    loop.attribute(made)
    told = loop.statement(made, "2025-10")

    assert told.jobs_ended == 2
    assert told.kwh_per_job == pytest.approx(0.5)
