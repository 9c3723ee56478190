"""Jobs, allocations and assets: columns, empty cells, and every kind of bad row."""

from __future__ import annotations

import pytest

from wattkeeper.core.assets import Asset
from wattkeeper.core.clock import iso

JOBS = {"kind": "jobs"}
ALLOCATIONS = {"kind": "allocations"}
ASSETS = {"kind": "assets"}


def test_a_job_keeps_what_its_row_says(load):
    """Own column names, an empty end for a job that runs, and absent columns as null."""
    got = load(
        "JobID,Account,start,end,gpus,energy\n7,ml,2026-01-01T00:00:00Z,2026-01-01T01:00:00Z,8.0,1.5e6\n8,,2026-01-01,,,\n",
        columns={"job_id": "JobID", "project": "Account", "scheduler_energy_j": "energy"},
        **JOBS,
    )

    first, second = got.table("jobs").rows(named=True)
    assert (first["job_id"], first["project"], first["gpus"], first["scheduler_energy_j"]) == ("7", "ml", 8, 1.5e6)
    assert first["end_ms"] - first["start_ms"] == 3_600_000
    assert {name: second[name] for name in ("project", "end_ms", "gpus", "scheduler_energy_j", "user")} == {
        "project": None, "end_ms": None, "gpus": None, "scheduler_energy_j": None, "user": None,
    }  # fmt: skip
    assert got.refused == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",2026-01-01,2026-01-02,1", "job_id is missing"),
        ("x,,2026-01-02,1", "start is missing"),
        ("x,soon,2026-01-02,1", "start cannot be read as ISO 8601"),
        ("x,2026-01-01,never,1", "end cannot be read as ISO 8601"),
        ("x,2026-01-02,2026-01-01,1", "end lies before start"),
        ("x,2026-01-01,2026-01-02,many", "gpus is not a number"),
        ("x,2026-01-01,2026-01-02,-1", "gpus is negative"),
        ("x,2026-01-01,2026-01-02,1.5", "gpus is not a whole number"),
    ],
)
def test_a_bad_job_costs_itself_only(load, row, reason):
    """The jobs around it come in, and the reject names its row."""
    got = load(f"job_id,start,end,gpus\na,2026-01-01,2026-01-02,1\n{row}\nb,2026-01-01,2026-01-01,0\n", **JOBS)

    assert got.table("jobs")["job_id"].to_list() == ["a", "b"]
    assert got.refused == [(3, reason)]


def test_an_allocation_has_a_share_of_one_unless_told(load):
    """Without the columns share is 1 and nothing is estimated."""
    got = load("job_id,asset,start_ms,end_ms\n7,n1/gpu0,1767225600000,1767229200000\n", **ALLOCATIONS)

    assert got.table("allocations").rows() == [("7", "n1/gpu0", 1767225600000, 1767229200000, 1.0, False)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("7,,2026-01-01,2026-01-02,1,no", "asset is missing"),
        ("7,n1,2026-01-01,2026-01-02,1.01,no", "share lies outside 0 to 1"),
        ("7,n1,2026-01-01,2026-01-02,-0.1,no", "share lies outside 0 to 1"),
        ("7,n1,2026-01-01,2026-01-02,nan,no", "share is not finite"),
        ("7,n1,2026-01-01,2026-01-02,,no", "share is missing"),
        ("7,n1,2026-01-01,2026-01-02,1,perhaps", "estimated is neither true nor false"),
        ("7,n1,2026-01-02,2026-01-01,1,no", "end lies before start"),
    ],
)
def test_a_bad_allocation_costs_itself_only(load, row, reason):
    """A share outside 0 to 1, an end before the start and their like are listed."""
    good = "1,n1,2026-01-01,,0.5,Yes"
    got = load(f"job_id,asset,start,end,share,estimated\n{good}\n{row}\n{good}\n", **ALLOCATIONS)

    assert [(r["share"], r["estimated"], r["end_ms"]) for r in got.table("allocations").rows(named=True)] == [
        (0.5, True, None)
    ] * 2
    assert got.refused == [(3, reason)]


def test_an_end_in_the_doubled_hour_lies_after_its_start(load):
    """From 02:50 to 02:10 on 2026-10-25 in Berlin are 20 minutes over the clock change, not minus 40."""
    got = load("job_id,start,end\n7,2026-10-25 02:50,2026-10-25 02:10\n", timezone="Europe/Berlin", **JOBS)

    [job] = got.table("jobs").rows(named=True)
    assert (iso(job["start_ms"]), iso(job["end_ms"])) == ("2026-10-25T00:50:00Z", "2026-10-25T01:10:00Z")


def test_assets_come_in_with_their_defaults(load):
    """Empty cells and absent columns take the defaults of an asset."""
    got = load("id,kind,parent,max_power_w,embodied_kg\ns,site,,,\nn1,node,s,10000,1312\nn2,node,s,,\n", **ASSETS)

    assert got.all("assets") == [
        Asset("s", "site"),
        Asset("n1", "node", "s", max_power_w=10_000.0, embodied_kg=1312.0),
        Asset("n2", "node", "s"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",node,s,1,1,1", "id is missing"),
        ("x,,s,1,1,1", "kind is missing"),
        ("x,toaster,s,1,1,1", "Asset 'x' has kind 'toaster'. Choose one of site,"),
        ("x,node,,1,1,1", "Asset 'x' of kind 'node' stands in nothing; give it a parent."),
        ("x,node,s,big,1,1", "max_power_w is not a number"),
        ("x,node,s,-5,1,1", "max_power_w is negative or not finite"),
        ("x,node,s,0,1,1", "max_power_w is 0"),
        ("x,node,s,1,1.5,1", "slice lies outside 0 to 1"),
        ("x,node,s,1,1,0", "lifetime_years is 0"),
        ("n1,node,s,1,1,1", "asset 'n1' stands already in row 2"),
    ],
)
def test_a_bad_asset_costs_itself_only(load, row, reason):
    """The assets around it come in, and the reject names its row."""
    got = load(f"id,kind,parent,max_power_w,slice,lifetime_years\nn1,node,s,1,1,5\n{row}\nn2,node,s,,,\n", **ASSETS)

    assert [asset.id for asset in got.all("assets")] == ["n1", "n2"]
    [(number, words)] = got.refused
    assert number == 3
    assert words.startswith(reason)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("CANCELLED by 1000", "CANCELLED"),
        ("CANCELLED+", "CANCELLED"),
        ("failed", "FAILED"),
        ("OUT_OF_MEMORY",) * 2,
        ("7",) * 2,
    ],
)
def test_a_state_is_the_word_that_slurm_has_for_it(load, told, kept):
    """So that the energy of cancelled and failed jobs is found whoever exported them."""
    got = load(f"job_id,start,state\nx,2026-01-01,{told}\n", **JOBS)
    assert got.table("jobs")["state"].to_list() == [kept]
