"""Standard uncertainties against sums done by hand: ±5 % is a rectangle, so u = 5 % / √3 of what a meter shows."""

from __future__ import annotations

import io
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.books.small import HOUR, SITE, START, book, counter, held, node, power
from wattkeeper import loop
from wattkeeper.core.assets import Asset, AssetTree, Meter
from wattkeeper.core.units import MJ_PER_KWH
from wattkeeper.report import uncertainty
from wattkeeper.report.html import to_html
from wattkeeper.report.terminal import render

WH = MJ_PER_KWH / 1000
BAND = 0.05 / 3**0.5


def accounts_wh(statement):
    return {a: u / WH for a, u in statement.accounts.select("account", "uncertainty_mj").iter_rows()}


def gpu_and_rest(tmp_path, **changes):
    """A node at 1000 W; its GPU at 600 W is held by j1, the rest of the node, but for a millionth, by nobody."""
    meters = [power("n1", 1000), counter("n1/gpu0", 600)]
    meters[1] = (replace(meters[1][0], **changes), meters[1][1])
    site = "name = 'T'\n" + SITE + node("n1", 1)
    return book(tmp_path, site, meters, [held("j1", "n1/gpu0"), held("j1", "n1", share=0.0)])


def test_the_rest_of_a_node_hangs_on_its_meter_and_its_parts(tmp_path):
    """GPU 600 Wh × 2.887 % = 17.3; rest √(28.9² + 17.3²) = 33.7; all together the node's own meter, 28.9 Wh."""
    made = loop.statement(gpu_and_rest(tmp_path))
    sure = accounts_wh(made)

    assert sure["job"] == pytest.approx(600 * BAND, rel=1e-5) == pytest.approx(17.32, abs=0.005)
    assert sure["idle"] == pytest.approx(BAND * (1000**2 + 600**2) ** 0.5, rel=1e-5) == pytest.approx(33.67, abs=0.005)
    assert made.uncertainty_mj / WH == pytest.approx(1000 * BAND) == pytest.approx(28.87, abs=0.005)
    assert made.rows["uncertainty_mj"].to_list() == pytest.approx([600 * BAND * WH], rel=1e-5)


def test_who_holds_a_node_and_all_in_it_hangs_on_the_nodes_meter_alone(tmp_path):
    """How its 1000 Wh divide between GPU and rest does not matter to a job that has both."""
    made = book(tmp_path, "name = 'T'\n" + SITE + node("n1", 1), [power("n1", 1000), counter("n1/gpu0", 600)],
                [held("j1", "n1"), held("j1", "n1/gpu0")])  # fmt: skip

    assert accounts_wh(loop.statement(made))["job"] == pytest.approx(1000 * BAND)
    assert loop.job(made, "j1").facts["uncertainty_mj"] / WH == pytest.approx(1000 * BAND)


def test_halves_of_an_hour_share_one_error_and_two_meters_do_not(tmp_path):
    """j1 has 500 Wh of one node: 14.4 Wh. j2 has 500 Wh of each of two: √2 × 14.4 = 20.4 Wh."""
    half = START + HOUR // 2
    made = book(tmp_path, "name = 'T'\n" + SITE + node("n1", 0) + node("n2", 0), [power("n1", 1000), power("n2", 1000)],
                [held("j1", "n1", end=half), held("j2", "n1", start=half), held("j2", "n2", start=half)])  # fmt: skip
    rows = dict(loop.statement(made).rows.select("job_id", "uncertainty_mj").iter_rows())

    assert rows["j1"] / WH == pytest.approx(500 * BAND)
    assert rows["j2"] / WH == pytest.approx(500 * BAND * 2**0.5)
    assert loop.job(made, "j1").facts["uncertainty_mj"] / WH == pytest.approx(500 * BAND)
    assert loop.job(made, "j2").facts["uncertainty_mj"] / WH == pytest.approx(500 * BAND * 2**0.5)


def test_what_a_pue_adds_is_as_unsure_as_what_it_multiplies(tmp_path):
    """PUE 1.5 on 1000 Wh: overhead 500 Wh ± 14.4, the site 1500 Wh ± 43.3: errors of one meter add directly."""
    made = loop.statement(
        book(tmp_path, "name = 'T'\n" + SITE + "pue = 1.5\n" + node("n1", 0), [power("n1", 1000)], [held("j", "n1")])
    )

    assert made.meter_mj / WH == 1500
    assert accounts_wh(made)["overhead"] == pytest.approx(500 * BAND)
    assert made.uncertainty_mj / WH == pytest.approx(1500 * BAND)


def test_a_counter_that_steps_is_no_surer_than_its_steps(tmp_path):
    """Steps of 100 Wh: a difference of two readings has 100 / √6 = 40.8 Wh; with the band of 600 Wh: 44.3 Wh."""
    made = loop.statement(gpu_and_rest(tmp_path, resolution_mj=int(100 * WH)))

    expected = ((600 * BAND) ** 2 + 100**2 / 6) ** 0.5
    assert accounts_wh(made)["job"] == pytest.approx(expected, rel=1e-5) == pytest.approx(44.35, abs=0.01)


def test_energy_that_no_meter_saw_may_be_nothing_or_twice_itself(tmp_path):
    """A power meter silent for 30 min of 60: 1000 Wh in its band ± 28.9, 500 of them imputed ± 288.7: 290.1 Wh."""
    meter, rows = power("n1", 1000)
    silent = pl.col("time_ms").is_between(START + 1_800_000, START + HOUR, closed="none")
    made = loop.statement(book(tmp_path, "name = 'T'\n" + SITE + node("n1", 0), [(meter, rows.filter(~silent))]))

    expected = ((1000 * BAND) ** 2 + (500 / 3**0.5) ** 2) ** 0.5
    assert made.accounts["imputed_mj"].sum() / WH == pytest.approx(500)
    assert accounts_wh(made)["idle"] == pytest.approx(expected) == pytest.approx(290.1, abs=0.05)
    assert made.uncertainty_mj / WH == pytest.approx(expected)


def test_an_hour_hangs_on_the_meters_of_that_hour(tmp_path):
    """GPU and node change places: 600 of 1000 Wh, then 100 of 400. Each hour is its node meter's, so is the day."""
    site = "name = 'T'\n" + SITE + node("n1", 1)
    meter, first = power("n1", 1000)
    gpu, gpu_first = counter("n1/gpu0", 600)
    later = power("n1", 400)[1].with_columns(pl.col("time_ms") + HOUR).filter(pl.col("time_ms") > START + HOUR)
    rest = gpu_first.with_columns(
        pl.col("time_ms") + HOUR, pl.col("value") + 600 * HOUR - (pl.col("time_ms") - START) * 500
    ).filter(pl.col("time_ms") > START + HOUR)
    meters = [(meter, pl.concat([first, later])), (gpu, pl.concat([gpu_first, rest]))]
    made = book(tmp_path, site, meters, [held("j1", "n1/gpu0", end=START + 2 * HOUR), held("j1", "n1", share=0.0)])
    hours = loop.statement(made, by="hour").rows

    assert (hours["energy_mj"] / WH).to_list() == pytest.approx([1000, 400], abs=2)
    expected = [e * BAND for e in hours["energy_mj"]]
    assert hours["uncertainty_mj"].to_list() == pytest.approx(expected, rel=1e-9)
    assert loop.statement(made, by="job").rows["uncertainty_mj"].item() == pytest.approx(
        loop.job(made, "j1").facts["uncertainty_mj"]
    )


HOURS = 3
SHARES = st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=HOURS, max_size=HOURS)
NAMES = ["a", "n", "g0", "g1"]
ABOVE = {"a": None, "n": "a", "g0": "n", "g1": "n"}


@settings(max_examples=60, deadline=None)
@given(
    SHARES, st.lists(st.floats(0.1, 10), min_size=4, max_size=4), st.lists(st.integers(1, 9), min_size=12, max_size=12)
)
def test_any_sum_of_lines_is_a_weighted_sum_of_meter_hours(shares, bands, drawn):
    """Against the definition: site ⊃ node ⊃ two GPUs over three hours; a sum with some share of each asset's lines in each
    hour, meter by meter."""
    tree = AssetTree.of([Asset(n, k, ABOVE[n]) for n, k in zip(NAMES, ("site", "node", "gpu", "gpu"), strict=True)])
    rest = {(n, h): 1000 * drawn[4 * h + i] for h in range(HOURS) for i, n in enumerate(NAMES)}
    shown = {
        (n, h): sum(rest[m, h] for m in NAMES if m == n or ABOVE[m] == n or ABOVE[ABOVE[m] or "a"] == n)
        for n, h in rest
    }
    meters = [Meter(n, n, "energy_counter", accuracy_pct=b) for n, b in zip(NAMES, bands, strict=True)]
    hours = pl.LazyFrame(
        [("a", n, n, h, e, 0) for (n, h), e in shown.items()],
        schema=["site", "asset", "meter", "hour_ms", "energy_mj", "imputed_mj"], orient="row",
    )  # fmt: skip
    every = pl.LazyFrame(
        [("a", n, h, float(e), 1, 0) for (n, h), e in rest.items()],
        schema=["site", "asset", "hour_ms", "energy_mj", "held_ms", "imputed_mj"], orient="row",
    )  # fmt: skip
    share = {(n, h): shares[h][i] for n, h in rest for i in [NAMES.index(n)]}
    part = pl.Series("energy_mj", [rest[k] * share[k] for k in rest])
    some = every.collect().with_columns(part, job_id=pl.lit("j"))
    parts = some.group_by("job_id", "site", "asset").agg(pl.col("energy_mj", "imputed_mj").sum())
    found = uncertainty.Instruments.of(hours, meters, tree)
    got = uncertainty.of_rows(parts, some.lazy(), ["job_id"], every, found)["uncertainty_mj"].item()

    def weight(n, h):
        return share[n, h] - (share[ABOVE[n], h] if ABOVE[n] else 0.0)

    each = [
        sum(weight(n, h) * shown[n, h] for h in range(HOURS)) * b / 100 / 3**0.5
        for n, b in zip(NAMES, bands, strict=True)
    ]
    assert got == pytest.approx(sum(u**2 for u in each) ** 0.5, rel=1e-6, abs=1e-3)


def test_an_assumed_error_band_is_told_on_each_face(tmp_path):
    """±5 % of a meter whose band nobody gave is a guess, and the reader is told so."""
    made = loop.statement(book(tmp_path, "name = 'T'\n" + SITE + node("n1", 0), [power("n1", 1000)]))
    out = Console(width=80, file=io.StringIO())
    out.print(render(made))

    for face in (out.file.getvalue(), to_html(made)):
        assert "±5 % is assumed where the site file or the source gives none" in " ".join(face.split())
