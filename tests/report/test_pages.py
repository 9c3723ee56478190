"""Figures of plans, back-tests, routes and budgets: laid out right, told apart by everyone, whole without a network."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.report import backtested, budgeted, charts, planned, routed, words
from wattkeeper.report.page import chart, page, plain_table

H = 3_600_000


def test_lanes_put_jobs_where_gpus_are_free():
    """8 GPUs: a holds 4 and b 4; c of 4 takes b's when b has ended; d of 6 then has none of a's and waits for no one."""
    found = planned.lanes([(0, 4, 4), (0, 2, 4), (2, 4, 4), (4, 6, 6)])

    assert found == [[(0, 4)], [(4, 8)], [(4, 8)], [(0, 6)]]


def test_a_gang_without_a_whole_range_is_drawn_in_parts():
    """1, 1 and 1 of three GPUs; the middle one goes on, so that two at once have the first and the last."""
    found = planned.lanes([(0, 1, 1), (0, 2, 1), (0, 1, 1), (1, 2, 2)])

    assert found[3] == [(0, 1), (2, 3)]


STRETCH = st.tuples(st.integers(0, 30), st.integers(1, 9), st.integers(1, 9)).map(lambda x: (x[0], x[0] + x[1], x[2]))


@given(st.lists(STRETCH, max_size=25))
def test_no_gpu_is_drawn_twice_and_none_above_the_peak(stretches):
    found = planned.lanes(stretches)
    peak = max((sum(n for a, b, n in stretches if a <= t < b) for t in range(40)), default=0)

    for (_, _, gpus), parts in zip(stretches, found, strict=True):
        assert sum(b - a for a, b in parts) == gpus
    for t in range(40):
        held = [
            g
            for (a, b, _), parts in zip(stretches, found, strict=True)
            if a <= t < b
            for x, y in parts
            for g in range(x, y)
        ]
        assert len(held) == len(set(held))
        assert all(g < peak for g in held)


# G. M. Machado et al., IEEE TVCG 15, 1291 (2009), severity 1; rows of linear RGB
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}


def lab(colour, matrix):
    """Return CIE L*a*b* of a colour as a reader with such cones sees it."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(matrix) @ linear, 0, 1)
    rgb_to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = rgb_to_xyz @ seen / np.array([0.95047, 1, 1.08883])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", BLIND)
def test_colours_are_told_apart_whichever_cones_are_lacking(cones):
    """A difference of 10 is plain at a glance (2 is just seen); green beside red of old had 6.4."""
    seen = [lab(c, BLIND[cones]) for c in charts.COLOURS]
    first = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen[:6], 2)]
    every = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]

    assert min(first) > 17
    assert min(every) > 10


def test_words_on_a_colour_are_read():
    """Contrast of 4.5 or more (WCAG 2 AA) with black or white, whichever is chosen."""
    assert [charts.ink_on(c) for c in ("#ffffff", "#000000")] == ["#000000", "#ffffff"]
    for colour in charts.COLOURS:
        light, dark = sorted((luminance(colour), luminance(charts.ink_on(colour))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5, colour


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0, "0 min"), (0.75, "45 min"), (3 + 1 / 3, "3 h 20 min"), (-26, "−26 h"), (1.9999, "2 h"), (28.5, "28 h 30 min"),
     (100, "4 d 4 h"), (96, "4 d"), (None, "–"), (-0.001, "0 min")],
)  # fmt: skip
def test_a_length_of_time_reads_as_people_say_it(hours, text):
    assert words.duration(hours) == text


def test_long_names_are_cut_in_their_middle():
    assert words.short("llama3-70b-pretraining-0007", 15) == "llama3-…ng-0007"
    assert words.short("short", 15) == "short"


def test_little_carbon_is_told_in_grams():
    """Not 0.00 kg."""
    assert [words.carbon(g) for g in (3.44, -5, 12.3, 2.5e7)] == ["3.4 g", "−5.0 g", "0.01 kg", "25.000 t"]


def plan_of(n):
    """Return steps and bars of n jobs on two sites: each runs at a now, and three hours later at b, capped."""
    steps = [planned.Step(s, t * H, (t + 1) * H, 100.0 + t if s == "a" else 50.0) for s in "ab" for t in range(24)]
    bars = []
    for i in range(n):
        start = i % 12
        told = (("why", "other site, lower power"), ("saves", "1.00 kg"), ("delay", "3 h"))
        bars.append(planned.Bar("run now", f"job-{i:04}", "a", "a", 2, start * H, (start + 2) * H, 1.0, told))
        for at in (start + 3, start + 6):  # in two pieces
            bars.append(planned.Bar("planned", f"job-{i:04}", "b", "a", 2, at * H, (at + 1) * H, 0.8, told))
    return steps, bars


def marks_of(spec):
    """Return the data rows of every chart in a spec."""
    found = [spec["data"]["values"]] if "values" in spec.get("data", {}) else []
    for part in ("vconcat", "hconcat", "layer"):
        for one in spec.get(part, []):
            found += marks_of(one)
    return found


def test_few_jobs_have_a_row_each_with_both_bars_and_every_name():
    pytest.importorskip("altair")
    spec = planned.figure(*plan_of(60))
    names = [r["name"] for rows in marks_of(spec) for r in rows if "name" in r]
    blocks = next(rows for rows in marks_of(spec) if rows and "fill" in rows[0])

    assert len(spec["vconcat"]) == 2  # intensity, rows
    assert names == [f"job-{i:04}" for i in sorted(range(60), key=lambda i: (i % 12, i))]
    capped = next(r for r in blocks if r["plan"] == "planned")
    # filled up to 80 % of its height: fill is where the power begins, bottom the foot
    assert (capped["bottom"] - capped["fill"]) / (capped["bottom"] - capped["top"]) == pytest.approx(0.8)
    assert {r["why"] for r in blocks} == {"other site, lower power"}


def test_many_jobs_are_laid_out_as_the_cluster_holds_them():
    """61 are too many for rows: a panel for a site now, and one for b, where they are planned; GPUs at their height."""
    pytest.importorskip("altair")
    spec = planned.figure(*plan_of(61))
    titles = [one.get("title", {}).get("text") for one in spec["vconcat"]]

    assert titles == ["Intensity", "a, run now", "a, planned", "b, run now", "b, planned"]
    assert "not drawn" not in " ".join(planned.notes(plan_of(61)[1]))


def test_beyond_four_thousand_jobs_the_largest_are_drawn_and_the_rest_told():
    _, bars = plan_of(planned.MOST_DRAWN + 5)

    assert planned.notes(bars)[-1] == "5 jobs that hold fewer GPU hours are not drawn."


def budget_rows():
    full = {"critical": 10_000.0, "elastic": 20_000.0}
    return [
        budgeted.Held("site", 0, 4 * H, 60.0, 45_000.0, 30_000.0, full),
        budgeted.Held("site", 4 * H, 8 * H, 40.0, 26_000.0, 30_000.0, full | {"elastic": 16_000.0}),
        budgeted.Held("r1", 4 * H, 8 * H, 20.0, 12_000.0, 12_000.0, {"critical": 10_000.0}),
    ]


def route_rows():
    steps = [planned.Step(s, t * H, (t + 1) * H, 100.0) for s in "ab" for t in range(3)]
    shares = [routed.Share(t * H, (t + 1) * H, "a", "70b", 100.0) for t in range(3)]
    return steps, [
        *shares,
        routed.Share(0, H, "b", "8b", 50.0),
        routed.Share(H, 2 * H, "not served", "not served", 5.0),
    ]


def backtest_rows():
    return [
        backtested.Shown("run now", 9000.0, 0.0, 5.0, 0.0, 0.0, 0),
        backtested.Shown("planner", 4500.0, 0.5, 4.0, 3.25, 9.0, 2),
    ]


def specs():
    return {
        "rows": planned.figure(*plan_of(12)),
        "held": planned.figure(*plan_of(80)),
        "backtest": backtested.figure(backtest_rows(), 4400.0, "EUR"),
        "route": routed.figure(*route_rows()),
        "budget": budgeted.figure(budget_rows()),
    }


def test_the_routes_stack_to_all_requests():
    """In the first hour 100 at a and 50 at b; in the second 100, and 5 that nobody answers."""
    pytest.importorskip("altair")
    by_site = routed.figure(*route_rows())["vconcat"][1]["data"]["values"]

    assert [(r["site"], r["low"], r["high"]) for r in by_site if r["start_ms"] == 0] == [("a", 0, 100), ("b", 100, 150)]
    assert [(r["site"], r["low"], r["high"]) for r in by_site if r["start_ms"] == H] == [
        ("a", 0, 100),
        ("not served", 100, 105),
    ]


def test_the_budget_shows_what_is_drawn_under_each_limit():
    """4 to 8: critical 10 kW, elastic 16 on top, under 26 kW that the limit of 40 leaves; full would be 30."""
    pytest.importorskip("altair")
    site, row = budgeted.figure(budget_rows())["vconcat"]
    blocks, lines = marks_of(site)
    after = [(r["what"], r["low"], r["high"]) for r in blocks if r["start_ms"] == 4 * H]

    assert after == [("critical", 0, 10.0), ("elastic", 10.0, 26.0)]
    assert {r["what"]: r["kW"] for r in lines if r["start_ms"] == 4 * H} == {budgeted.LIMIT: 26.0, budgeted.FULL: 30.0}
    assert row["title"]["text"] == "Row r1"


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_every_figure_is_drawn_without_a_network_and_warns_of_nothing(tmp_path):
    """In a real browser: all charts are there, none wider than the page, no request, no error, times in UTC.

    Pointing at a job lets the others fade, in both charts of it.
    """
    pytest.importorskip("altair")
    from playwright.sync_api import sync_playwright

    made = specs()
    body = "".join(chart(name) for name in made) + plain_table(("Job", "g"), [("<b>bold</b>", "1")])
    (tmp_path / "page.html").write_text(page("Figures", body, made), "utf-8")
    told, asked = [], []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"))
        tab = browser.new_page(viewport={"width": 1200, "height": 900}, timezone_id="America/Los_Angeles")
        tab.on("console", lambda m: told.append(m.text) if m.type in {"error", "warning"} else None)
        tab.on("pageerror", lambda e: told.append(str(e)))
        tab.on("request", lambda r: asked.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
        tab.goto(f"file://{tmp_path / 'page.html'}")
        tab.wait_for_function(f"document.querySelectorAll('.chart svg').length === {len(made)}")
        fits = tab.evaluate(
            "[...document.querySelectorAll('.chart svg')].every(s => s.getBoundingClientRect().width <= 1060)"
        )
        text = tab.inner_text("#chart-rows")
        bar = tab.locator("#chart-rows path[aria-roledescription='rect mark']").last
        bar.scroll_into_view_if_needed()
        box = bar.bounding_box()
        for inch in (0.4, 0.6):  # the first move comes in, the second is over it
            tab.mouse.move(box["x"] + inch * box["width"], box["y"] + 0.5 * box["height"])
        tab.wait_for_selector("#vg-tooltip-element.visible")
        tip = tab.inner_text("#vg-tooltip-element")
        browser.close()

    assert asked == []
    assert [t for t in told if "legend property" not in t] == []
    assert fits
    assert "Thu 01 Jan" in text  # the first hour of 1970 in UTC; in Los Angeles it is still Wednesday
    assert "other site, lower power" in tip
    assert "Thu 01 Jan 17:00" in tip  # job 11 of 12, planned from 17:00 on; in Los Angeles it is 09:00
    assert "<b>bold</b>" not in (tmp_path / "page.html").read_text().partition("<script")[0]
