"""Full cost: what no job drew lands on the jobs of its hour, and all of it adds up to the meter."""

from __future__ import annotations

import io

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.books.small import HOUR, SITE, START, book, held, node, power
from wattkeeper import loop
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.schema import POSTINGS
from wattkeeper.core.units import MJ_PER_KWH
from wattkeeper.report.fullcost import full_cost
from wattkeeper.report.html import to_html
from wattkeeper.report.tables import to_csv, to_json
from wattkeeper.report.terminal import render

WH = MJ_PER_KWH // 1000
EMBODIED = "node_embodied_kg = 8766.0\nlifetime_years = 1.0\n"


@pytest.fixture
def made(tmp_path):
    """Two hours. n1 (600 W): j1 in the first. n2 (300 W): j2 in the first. n3 (100 W): nobody. PUE 1.2."""
    site = "name = 'T'\n" + SITE + "pue = 1.2\nintensity = 100.0\n"
    site += node("n1", 0) + EMBODIED + node("n2", 0) + node("n3", 0)
    return book(tmp_path, site, [power("n1", 600, hours=2), power("n2", 300, hours=2), power("n3", 100, hours=2)],
                [held("j1", "n1"), held("j2", "n2")])  # fmt: skip


def test_an_hours_pool_goes_to_its_jobs_by_what_they_drew(made):
    """First hour: 1000 Wh × 1.2 = 1200 for 900 Wh of jobs, so 600 → 800 and 300 → 400; the second hour's 1200 stay."""
    cut = loop.statement(made, full=True)
    rows = {r["job_id"]: r for r in cut.rows.iter_rows(named=True)}

    assert {j: r["full_mj"] / WH for j, r in rows.items()} == {"j1": 800, "j2": 400}
    assert rows["j1"]["full_carbon_g"] == pytest.approx(80.0)
    assert cut.unspread["energy_mj"] / WH == 1200
    assert sum(cut.rows["full_mj"]) + cut.unspread["energy_mj"] == cut.meter_mj


def test_every_face_says_what_was_spread(made):
    cut = loop.statement(made, full=True)
    out = Console(width=80, file=io.StringIO())
    out.print(render(cut))

    for face in (out.file.getvalue(), to_html(cut)):
        assert "full" in face.lower()
        assert "1.200 kWh of hours without jobs stay with nobody" in " ".join(face.split())
    assert to_json(cut)["rows"][0]["full_kwh"] == 0.8
    assert "full_mj" in to_csv(cut).splitlines()[0]
    assert "full_mj" not in to_csv(loop.statement(made)).splitlines()[0]


def test_only_what_jobs_bear_has_a_full_cost(made):
    with pytest.raises(ConfigError, match="cannot be cut by 'rack'"):
        loop.statement(made, by="rack", full=True)


def test_a_users_full_cost_is_that_of_their_jobs(made):
    cut = loop.statement(made, by="user", full=True)

    assert cut.rows.filter(pl.col("user") == "unknown")["full_mj"].item() / WH == 1200


def test_embodied_carbon_follows_who_held_the_hardware(made):
    """8766 kg over one year of 8766 h: 1000 g an hour; j1 held n1 for one hour of two."""
    cut = loop.statement(made)

    assert dict(cut.rows.select("job_id", "embodied_g").iter_rows()) == pytest.approx({"j1": 1000.0, "j2": 0.0})
    assert cut.embodied_g == pytest.approx({"job": 1000.0, "idle": 1000.0})
    assert loop.job(made, "j1").facts["embodied_g"] == pytest.approx(1000.0)
    assert loop.statement(made, by="account").rows.filter(account="idle")["embodied_g"].item() == pytest.approx(1000.0)


LINES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), st.integers(0, 2), st.sampled_from([None, "j1", "j2", "j3"]),
        st.integers(0, 10**9),
    ),
    min_size=1, max_size=30,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(LINES, st.integers(-(10**6), 0))
def test_nothing_is_lost_and_no_hours_pool_leaves_its_hour(lines, disagreement):
    """Σ full + what stays = Σ energy, by site and hour, against shares done with exact fractions."""
    rows = [
        {"site": s, "hour_ms": START + h * HOUR, "job_id": j, "account": "idle" if j is None else "job", "energy_mj": e}
        for s, h, j, e in lines
    ] + [{"site": "a", "hour_ms": START, "job_id": None, "account": "unaccounted", "energy_mj": disagreement}]
    postings = pl.DataFrame(rows, schema_overrides={"job_id": pl.String}).with_columns(
        *(pl.lit(None, pl.Float64).alias(c) for c in ("carbon_g", "cost", "water_l"))
    )
    assert set(postings.columns) <= set(POSTINGS.schema)
    shares, stays = full_cost(postings.lazy())

    expected, left = {}, 0
    for hour in postings.partition_by("site", "hour_ms"):
        drawn = {j: sum(p["energy_mj"]) for (j,), p in hour.partition_by("job_id", as_dict=True).items()}
        pool = drawn.pop(None, 0)
        if not sum(drawn.values()):
            left += pool
            pool = 0
        for j, e in drawn.items():
            expected[j] = expected.get(j, 0) + e + (pool * e / sum(drawn.values()) if pool else 0)
    got = dict(shares.select("job_id", "full_mj").iter_rows())
    assert sum(got.values()) + stays["energy_mj"].item() == sum(postings["energy_mj"])
    assert stays["energy_mj"].item() == left
    assert got == pytest.approx(expected, abs=7)  # a floor at each end of a share, in up to six hours
