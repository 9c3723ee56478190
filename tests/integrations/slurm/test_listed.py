"""Jobs of sacct and of squeue's text, as Slurm 22.05 printed them, are the jobs of squeue --json."""

from __future__ import annotations

import pytest

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ImportFileError
from wattkeeper.core.roles import Holder
from wattkeeper.integrations.slurm.listed import of_sacct, of_text
from wattkeeper.integrations.slurm.queue import running, waiting

SQUEUE = """\
JOBID|STATE|USER|TRES_ALLOC|TIME_LIMIT|END_TIME|ELIGIBLE_TIME|DEADLINE|NODELIST|REASON|DEPENDENCY|COMMENT|NAME|
1|PENDING|root|gres/gpu=4|1:30:00|1795302837|1795297437|1795380237||BeginTime|(null)|wattkeeper: tier=elastic, power_w=600|wrap|
2_[1,3%1]|PENDING|root|cpu=1,mem=1000M,node=1,billing=1,gres/gpu=4|1:30:00|1795302837|1795297437|N/A||BeginTime|(null)|(null)|wrap|
6|PENDING|root|cpu=1,mem=1000M,node=1,billing=1,gres/gpu=1|5:00|N/A|N/A|N/A||Dependency|afterok:4(unfulfilled)|(null)|wrap|
7+0|PENDING|root|cpu=1,mem=1000M,node=1,billing=1,gres/gpu=1|5:00|1795297737|1795297437|N/A||BeginTime|(null)|(null)|wrap|
7+1|PENDING|root|cpu=1,mem=1000M,node=1,billing=1,gres/gpu=2|5:00|1795297737|1795297437|N/A||BeginTime|(null)|(null)|wrap|
3|PENDING|root|cpu=1,mem=1000M,node=1,billing=1,gres/gpu=2|30:00|N/A|N/A|N/A||JobHeldUser|(null)|(null)|wrap|
4|RUNNING|root|cpu=1,mem=1000M,node=1,billing=1,gres/gpu=3,gres/gpu:h100=3|20:00|1795295039|1795293837|N/A|node1|None|(null)|(null)|odd|name|
5_5|RUNNING|root|cpu=2,mem=2000M,node=2,billing=2,gres/gpu=2,gres/gpu:h100=2|1-01:00:00|1795383839|1795293839|N/A|node[1-2]|None|(null)|(null)|wrap|
"""
SACCT = """\
JobID|State|User|ReqTRES|AllocTRES|Timelimit|Start|Eligible|NodeList|Reason|Comment|JobName
1|PENDING|root|billing=1,cpu=1,gres/gpu=4,mem=1000M,node=1||01:30:00|Unknown|1795297620|None assigned|BeginTime||wrap
4|RUNNING|root|billing=2,cpu=2,gres/gpu=16,mem=2000M,node=2|billing=2,gres/gpu:h100=16,gres/gpu=16|00:20:00|1795294022|1795294020|node[1-2]|None||wrap
4.batch|RUNNING|||cpu=1,gres/gpu=8|00:20:00|1795294022|1795294020|node1|None||batch
8+0|PENDING|root|billing=1,cpu=1,gres/gpu=1,mem=1000M,node=1||00:05:00|Unknown|1795294022|None assigned|None||wrap
8+1|PENDING|root|billing=1,cpu=1,gres/gpu=2,mem=1000M,node=1||00:05:00|Unknown|1795294022|None assigned|None||wrap
6_[1-3]|PENDING|root|cpu=1,gres/gpu=3||Partition_Limit|Unknown|2026-11-21T20:47:03|None assigned|None||wrap
"""


def told(told):
    """Return (id, GPUs, hours, release, why) of what waits."""
    return [(c["job_id"], c["gpus"], c.get("duration_h"), c.get("release"), why) for c, why in waiting(told)]


def test_text_of_squeue():
    """Array tasks are jobs, components of 1 and 2 GPUs a gang of 3; 1-01:00:00 and N/A are read; a | in a name is one."""
    jobs, rejects = of_text("q", SQUEUE)
    begin = iso(1_795_297_437_000)

    assert rejects == []
    assert told(jobs) == [
        ("1", "4", "1.5", begin, ""),
        ("2_1", "4", "1.5", begin, ""),
        ("2_3", "4", "1.5", begin, ""),
        ("6", "1", str(5 / 60), None, "it waits for another job"),
        ("7", "3", str(5 / 60), begin, ""),
        ("3", "2", "0.5", None, "it is held: release it, or say what it wishes in its comment (wattkeeper: …)"),
    ]
    first = next(iter(waiting(jobs)))[0]
    assert (first["tier"], first["power_w"], first["deadline"]) == ("elastic", "600", iso(1_795_380_237_000))
    assert list(running(jobs)) == [
        Holder("4", 3.0, ["node1"], 1_795_295_039_000),
        Holder("5", 2.0, ["node1", "node2"], 1_795_383_839_000),
    ]


def test_text_of_sacct():
    """Steps are no jobs, what runs ends its limit after its start, a time without an offset is UTC."""
    jobs, rejects = of_text("q", SACCT)

    assert rejects == []
    assert told(jobs) == [
        ("1", "4", "1.5", iso(1_795_297_620_000), ""),
        ("8", "3", str(5 / 60), iso(1_795_294_022_000), ""),
        *(
            (
                f"6_{task}",
                "3",
                None,
                "2026-11-21T20:47:03Z",
                "it has no time limit: set one, or say duration_h in its comment",
            )
            for task in (1, 2, 3)
        ),
    ]
    assert list(running(jobs)) == [Holder("4", 16.0, ["node1", "node2"], (1_795_294_022 + 20 * 60) * 1000)]


def test_lines_that_cannot_be_read_are_named():
    """A line that is cut off, an id that is none, a time that is none; the others are read."""
    lines = SACCT.splitlines()
    bad = [
        lines[0],
        lines[1],
        "9|PENDING|ro",
        "x9" + lines[1][1:],
        lines[1].replace("1795297620", "soon").replace("1|", "2|", 1),
    ]
    jobs, rejects = of_text("q", "\n".join(bad))

    assert [t[0] for t in told(jobs)] == ["1"]
    assert [(r.row, r.reason) for r in rejects] == [
        (3, "has 3 fields, not 12"),
        (4, "its id 'x9' cannot be read"),
        (5, "time 'soon' cannot be read; use SLURM_TIME_FORMAT=%s or the standard form"),
    ]


@pytest.mark.parametrize(
    ("header", "lacks"),
    [
        ("JobID|State|User|Timelimit", "the GPUs (tres-alloc, or ReqTRES)"),
        ("JobID|JobName|AllocTRES", "State, TimeLimit"),
        ("JOBID PARTITION NAME USER ST", "JobID, State, TimeLimit, the GPUs (tres-alloc, or ReqTRES)"),
    ],
)
def test_a_header_that_lacks_something_says_the_command(header, lacks):
    with pytest.raises(ImportFileError) as caught:
        of_text("q.txt", header + "\n")

    assert str(caught.value).startswith(
        f"q.txt: no column {lacks}, parted by |. Print: SLURM_TIME_FORMAT=%s squeue -O "
    )


def accounted(job_id, state, gpus, **more):
    """A job as sacct --json of 22.05 has it."""
    asked = [{"type": "cpu", "name": None, "count": 2}, {"type": "gres", "name": "gpu", "count": gpus}]
    held = [*asked, {"type": "gres", "name": "gpu:h100", "count": gpus}] if state == "RUNNING" else []
    return {
        "job_id": job_id, "name": "wrap", "user": "root", "state": {"current": state, "reason": "None"},
        "comment": {"administrator": None, "job": None, "system": None}, "nodes": "None assigned",
        "array": {"job_id": 0, "task": None, "task_id": None}, "het": {"job_id": 0, "job_offset": None},
        "time": {"limit": 20, "eligible": 1_795_294_020, "start": 0, "end": 0},
        "tres": {"requested": asked, "allocated": held}, **more,
    }  # fmt: skip


def test_json_of_sacct():
    """The tasks of an array are a mask: 0xE is 1, 2 and 3. What runs ends 20 min after its start. Null is nothing."""
    time = {"limit": {"set": True, "infinite": False, "number": 20}, "eligible": 5, "start": 1_795_294_022, "end": 0}
    listed = of_sacct({"jobs": [
        accounted(1, "RUNNING", 16, nodes="node[1-2]", time=time),
        accounted(3, "PENDING", 3, array={"job_id": 3, "task": "0xE", "task_id": None}),
        accounted(4, "PENDING", 1, het={"job_id": 4, "job_offset": 0}),
        accounted(5, "PENDING", 2, het={"job_id": 4, "job_offset": 1}),
        accounted(6, ["PENDING"], 2, comment={"job": "wattkeeper: power_w=600"}, array=None, het=None),
        accounted(7, "COMPLETED", 2, tres=None, time=None),
    ]})  # fmt: skip

    assert [(j, g, h, why) for j, g, h, _, why in told(listed)] == [
        *((f"3_{task}", "3", str(1 / 3), "") for task in (1, 2, 3)),
        ("4", "3", str(1 / 3), ""),
        ("6", "2", str(1 / 3), ""),
    ]
    assert list(waiting(listed))[-1][0]["power_w"] == "600"
    assert list(running(listed)) == [Holder("1", 16.0, ["node1", "node2"], (1_795_294_022 + 20 * 60) * 1000)]


def test_a_running_job_that_cannot_be_read_costs_no_other():
    """Its count, its nodes and its end: each is said."""
    base = {"job_state": "RUNNING", "tres_alloc_str": "gres/gpu=4", "nodes": "n1", "time_limit": 60, "end_time": 9}
    jobs = [
        {**base, "job_id": 1, "tres_alloc_str": "gres/gpu=4k"},
        {**base, "job_id": 2, "nodes": "n[1-"},
        {**base, "job_id": 3, "end_time": "soon"},
        {**base, "job_id": 4},
    ]

    assert list(running({"jobs": jobs})) == [
        Holder("1", None, ["n1"], 9000, "gres/gpu=4k is not a count"),
        Holder("2", 4.0, [], 9000, "node list 'n[1-' cannot be read"),
        Holder("3", 4.0, ["n1"], None, "end time 'soon' cannot be read"),
        Holder("4", 4.0, ["n1"], 9000),
    ]
