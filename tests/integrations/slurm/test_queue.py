"""Pending jobs of squeue --json, in the forms of 22.05 and of 24.11."""

from __future__ import annotations

import pytest

from wattkeeper.core.roles import Holder
from wattkeeper.integrations.slurm.queue import running, waiting

NONE = {"set": False, "infinite": False, "number": 0}


def new(number):
    return {"set": True, "infinite": False, "number": number}


def job(**fields):
    return {
        "job_id": 7, "job_state": ["PENDING"], "user_name": "ada", "tres_req_str": "cpu=8,mem=64G,node=1,gres/gpu=4",
        "time_limit": new(90), "eligible_time": NONE, "deadline": NONE, "array_job_id": NONE, "array_task_id": NONE,
        "array_task_string": "", "comment": "", "state_reason": "Resources", **fields,
    }  # fmt: skip


def rows(*jobs):
    return list(waiting({"jobs": list(jobs)}))


def test_gpus_time_limit_and_wishes():
    """90 min are 1.5 h; epoch seconds become times; old and new forms of a number mean the same."""
    expected = {
        "gpus": "4", "user": "ada", "release": "2026-09-13T12:26:40Z", "deadline": "2026-09-14T16:13:20Z",
        "tier": "elastic", "levels": "1.06@0.8;1.2@0.7", "duration_h": "1.5", "limit_h": "1.5", "job_id": "7",
        "name": "",
    }  # fmt: skip
    wishes = "x wattkeeper: tier=elastic, levels = 1.06@0.8;1.2@0.7"
    new_form = job(eligible_time=new(1_789_302_400), deadline=new(1_789_402_400), comment=wishes)
    old_form = job(
        job_state="PENDING", time_limit=90, eligible_time=1_789_302_400, deadline=1_789_402_400, comment=wishes,
        array_job_id=0, array_task_id=None,
    )  # fmt: skip

    assert rows(new_form) == rows(old_form) == [(expected, "")]


def test_tasks_of_an_array_are_jobs_of_their_own():
    """1-5:2%1 is 1, 3 and 5; a task that stands alone keeps its id."""
    array = job(array_job_id=new(7), array_task_string="1-5:2%1")
    task = job(job_id=9, array_job_id=new(7), array_task_id=new(6))

    assert [cells["job_id"] for cells, _ in rows(array, task)] == ["7_1", "7_3", "7_5", "7_6"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"time_limit": {"set": False, "infinite": True, "number": 0}}, "it has no time limit"),
        ({"state_reason": "Dependency"}, "it waits for another job"),
        ({"state_reason": "DependencyNeverSatisfied"}, "it waits for another job"),
        ({"dependency": "afterok:6(unfulfilled)"}, "it waits for another job"),
        ({"state_reason": "JobHeldUser"}, "it is held: release it"),
        ({"job_state": ["PENDING", "SPECIAL_EXIT"]}, "it is held: release it"),
        ({"tres_req_str": "cpu=8,gres/gpu=4k"}, "gres/gpu=4k is not a count"),
        ({"array_task_string": "1-x"}, "its array tasks '1-x' are not a range"),
    ],
)
def test_what_cannot_be_planned_says_why(fields, said):
    assert [why.startswith(said) for _, why in rows(job(**fields))] == [True]


def test_a_held_job_that_speaks_to_the_planner_is_planned():
    assert [why for _, why in rows(job(state_reason="JobHeldUser", comment="wattkeeper: tier=elastic"))] == [""]


def test_components_of_a_heterogeneous_job_are_one_gang():
    """4 and 2 GPUs and a component of CPUs alone start together: 6 for the longest of the limits. A set of 0 is none."""
    parts = [
        job(job_id=101, het_job_id=new(100), het_job_offset=new(1), tres_req_str="gres/gpu=2", time_limit=new(120)),
        job(job_id=100, het_job_id=new(100), het_job_offset=new(0), comment="wattkeeper: tier=elastic"),
        job(job_id=102, het_job_id=new(100), het_job_offset=new(2), tres_req_str="cpu=8"),
        job(job_id=200, het_job_id=new(0), het_job_offset=new(0)),
    ]
    told = [(c["job_id"], c["gpus"], c["duration_h"], c.get("tier")) for c, _ in rows(*parts)]

    assert told == [("100", "6", "2.0", "elastic"), ("200", "4", "1.5", None)]


@pytest.mark.parametrize(
    "states", ["SUSPENDED", "CONFIGURING", ["RUNNING"], ["RUNNING", "CONFIGURING"], ["COMPLETED", "COMPLETING"]]
)
def test_whoever_has_gpus_holds_them(states):
    held = job(job_state=states, tres_alloc_str="gres/gpu=4", nodes="n[1-2]", end_time=new(1_789_302_400))

    assert list(running({"jobs": [held, job(job_state=["COMPLETED"])]})) == [
        Holder("7", 4.0, ["n1", "n2"], 1_789_302_400_000)
    ]


def test_running_jobs_and_jobs_without_gpus_are_not_the_planners():
    assert rows(job(job_state=["RUNNING"]), job(tres_req_str="cpu=8,node=1")) == []
