"""GPUs that running jobs hold are not planned with, until their time limit."""

from __future__ import annotations

import json

import pytest

from tests.books.small import SITE, book, node
from tests.planning.test_reach import HOUR, START
from wattkeeper.core.assets import AssetTree
from wattkeeper.core.clock import iso
from wattkeeper.core.roles import Holder
from wattkeeper.lake.book import Book
from wattkeeper.plan.problem import Grid, Weights
from wattkeeper.planning import outlook
from wattkeeper.planning.held import held_gpus
from wattkeeper.planning.printed import printed

GRID = Grid(START, HOUR, 4)
TWO = """[[site]]
id = "a"
intensity = 100.0
[[site]]
id = "b"
intensity = 300.0
[[nodes]]
names = "n[1-2]"
parent = "a"
gpus = 4
[[nodes]]
names = "m1"
parent = "b"
gpus = 4
"""


def slurm_job(job_id: int, gpus: int, state: str = "RUNNING", nodes: str = "", until_h: float = 0) -> dict[str, object]:
    return {
        "job_id": job_id, "job_state": [state], "user_name": "ada", "tres_alloc_str": f"cpu=8,gres/gpu={gpus}",
        "tres_req_str": f"cpu=8,gres/gpu={gpus}", "nodes": nodes, "time_limit": 60,
        "end_time": START // 1000 + round(until_h * 3600), "comment": "wattkeeper: power_w=500, tier=elastic",
    }  # fmt: skip


@pytest.fixture
def two(tmp_path) -> Book:
    return Book.create(tmp_path / "two", TWO)


def test_each_hour_counts_until_the_limit(two, tmp_path):
    """6 GPUs over n1, n2 and m1 until 01:30: 4 at a, 2 at b, in two slots. One over its limit holds a slot still."""
    queue = tmp_path / "q.json"
    jobs = [slurm_job(1, 6, nodes="n[1-2],m1", until_h=1.5), slurm_job(2, 1, nodes="m1", until_h=-2)]
    jobs += [slurm_job(3, 4, nodes="x9", until_h=1), slurm_job(4, 4, "PENDING")]
    queue.write_text(json.dumps({"jobs": jobs}))
    held, notes = held_gpus(printed(queue).running, two.tree(), GRID)

    assert {site: h.tolist() for site, h in held.items()} == {"a": [4, 4, 0, 0], "b": [3, 2, 0, 0]}
    assert notes == [
        "1 running jobs hold 4 GPUs of a, each until its time limit",
        "2 running jobs hold 3 GPUs of b, each until its time limit",
        "1 running jobs are on nodes that the book does not have, and their GPUs are taken to be free",
    ]


def test_what_is_held_is_not_planned_with(two, tmp_path):
    """8 GPUs at a, 6 of them held for two hours: the job of 4 waits at a and does not go to b at 300. 4 × 0.5 kWh × 100.

    Who says --gpus knows better: then it starts at once.
    """
    queue = tmp_path / "q.json"
    queue.write_text(json.dumps({"jobs": [slurm_job(1, 6, nodes="n1,n2", until_h=2), slurm_job(4, 4, "PENDING")]}))
    found, told = (
        outlook(two, queue, grid=GRID, weights=Weights(delay_g_per_gpu_h=1), gpus=gpus, power_kw={})
        for gpus in ({}, {"a": 8})
    )
    (line,), (other,) = found.lines, told.lines

    assert (line.planned.site, line.planned.slots) == ("a", ((2, 3),))
    assert found.planned.weighed_g == pytest.approx(4 * 0.5 * 100 + 4 * 2)
    assert other.planned.slots == ((0, 1),)


def test_workloads_that_have_their_quota_hold_it(tmp_path):
    """8 GPUs admitted at 23:00 for 2 h hold one slot of this plan; without a limit to its end; at the only site there is."""
    made = book(tmp_path, "name = 'T'\n" + SITE + node("n1", 8), [])

    def workload(name: str, conditions: list[dict[str, str]], **spec: object) -> dict[str, object]:
        container = {"resources": {"requests": {"nvidia.com/gpu": "4"}}}
        pods = {"count": 2, "template": {"spec": {"containers": [container]}}}
        return {
            "kind": "Workload", "metadata": {"name": name}, "spec": {"podSets": [pods], **spec},
            "status": {"conditions": conditions},
        }  # fmt: skip

    since = {"type": "Admitted", "status": "True", "lastTransitionTime": iso(START - HOUR)}
    items = [
        workload("timed", [since], maximumExecutionTimeSeconds=7200),
        workload("open", [since]),
        workload("done", [since, {"type": "Finished", "status": "True", "lastTransitionTime": iso(START)}]),
        workload("waits", []),
    ]
    (tmp_path / "q.json").write_text(json.dumps({"items": items}))
    held, _ = held_gpus(printed(tmp_path / "q.json").running, made.tree(), GRID)

    assert [h.tolist() for h in held.values()] == [[16, 8, 8, 8]]


def test_what_cannot_be_read_is_named_and_assumed(two, tmp_path):
    """A count that is none takes all 8 GPUs of its nodes; unknown nodes or none leave room open; the others count."""
    jobs = [
        slurm_job(1, 0, nodes="n[1-2]", until_h=1) | {"tres_alloc_str": "gres/gpu=4k"},
        slurm_job(2, 0, nodes="x9") | {"tres_alloc_str": "gres/gpu=-1"},
        slurm_job(3, 4) | {"nodes": "n[1-"},
        slurm_job(4, 2, nodes="m1", until_h=2),
    ]
    (tmp_path / "q.json").write_text(json.dumps({"jobs": jobs}))
    held, notes = held_gpus(printed(tmp_path / "q.json").running, two.tree(), GRID)

    assert {site: h.tolist() for site, h in held.items()} == {"a": [8, 0, 0, 0], "b": [2, 2, 0, 0]}
    assert notes[2:] == [
        "running job 1: gres/gpu=4k is not a count; it is taken to hold all 8 GPUs of n1, n2",
        "running job 2: gres/gpu=-1 is not a count; what it holds cannot be known, so there may be less room than the "
        "plan takes",
        "running job 3: node list 'n[1-' cannot be read; its 4 GPUs are taken to be free, so there may be less room than "
        "the plan takes",
    ]


def test_many_that_cannot_be_read_are_counted(two):
    """Five are named, two more counted; on the only site there is, a job is on it whatever its nodes are."""
    odd = [Holder(str(n), 1.0, [], None, "node list '[' cannot be read") for n in range(7)]
    held, notes = held_gpus(odd, two.tree(), GRID)
    (only,) = (s for s in two.tree().assets.values() if s.id == "b")

    assert held == {}
    assert len(notes) == 6
    assert notes[-1] == "2 more running jobs have a count, nodes or an end that cannot be read"
    held, notes = held_gpus(odd[:1], AssetTree.of([only]), GRID)
    assert held["b"].tolist() == [1, 1, 1, 1]
    assert notes[-1] == "running job 0: node list '[' cannot be read; it is taken to hold 1 GPUs of b"
