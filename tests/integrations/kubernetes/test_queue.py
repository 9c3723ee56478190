"""Workloads of the published form: which wait, what they ask for, and what they say to the planner."""

from __future__ import annotations

import pytest

from wattkeeper.integrations.kubernetes.queue import running, waiting


def workload(name, gpus=8, *, count=1, conditions=(), noted=None, pods_noted=None, **spec):
    pod_set = {
        "name": "main",
        "count": count,
        "template": {
            "metadata": {"annotations": pods_noted or {}},
            "spec": {
                "containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpu": str(gpus), "cpu": "4"}}}]
            },
        },
    }
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "Workload",
        "metadata": {"namespace": "ml", "name": name, "annotations": noted or {}},
        "spec": {"queueName": "gpus", "active": True, "podSets": [pod_set], **spec},
        "status": {"conditions": [{"type": t, "status": s} for t, s in conditions]},
    }


def test_gangs_durations_and_wishes():
    """Four pods of two GPUs are eight together; 7200 s are 2 h; what the Workload says wins over its pods."""
    one = workload(
        "train", 2, count=4, maximumExecutionTimeSeconds=7200,
        pods_noted={"wattkeeper.io/tier": "deadline", "wattkeeper.io/resume-min": "5", "other/x": "1"},
        noted={"wattkeeper.io/tier": "elastic"},
    )  # fmt: skip

    assert list(waiting({"kind": "List", "items": [one]})) == [
        (
            {
                "gpus": "8",
                "user": "ml",
                "tier": "elastic",
                "resume_min": "5",
                "duration_h": "2.0",
                "limit_h": "2.0",
                "job_id": "ml/train",
            },
            "",
        )
    ]


@pytest.mark.parametrize(
    ("one", "waits"),
    [
        (workload("a", conditions=[("QuotaReserved", "False")]), True),
        (workload("a", conditions=[("QuotaReserved", "True")]), False),
        (workload("a", conditions=[("Finished", "True")]), False),
        (workload("a", active=False), False),
        (workload("a", 0), False),
    ],
)
def test_who_waits(one, waits):
    assert len(list(waiting({"items": [one]}))) == waits


def test_what_cannot_be_planned_says_why():
    (cells, why) = next(iter(waiting(workload("a"))))

    assert cells["job_id"] == "ml/a"
    assert why == "nothing says how long it runs: set maximumExecutionTimeSeconds, or annotate wattkeeper.io/duration-h"


def pods(requests, *, count=1, **spec):
    return {"count": count, "template": {"spec": {"containers": [{"resources": {"requests": requests}}], **spec}}}


@pytest.mark.parametrize(
    ("sets", "gpus"),
    [
        ([pods({"amd.com/gpu": 4}, count=2), pods({"nvidia.com/gpu": "1"})], "9"),
        ([pods({"gpu.intel.com/i915": "2"})], "2"),
        ([pods({"nvidia.com/gpu": 1}, initContainers=[{"resources": {"limits": {"nvidia.com/gpu": 8}}}])], "8"),
        ([pods({"nvidia.com/gpu": 1}, initContainers=None)], "1"),
    ],
)
def test_gpus_of_all_makers_and_pods(sets, gpus):
    """Sets add up; an init container runs before the others, and the most that is held at once counts."""
    one = workload("a", podSets=sets, maximumExecutionTimeSeconds=60)

    assert [(cells["gpus"], why) for cells, why in waiting(one)] == [(gpus, "")]


@pytest.mark.parametrize("name", ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "amd.com/cpx_nps4"])
def test_parts_of_gpus_are_named(name):
    assert [why for _, why in waiting(workload("a", podSets=[pods({name: 2})]))] == [
        f"it asks for parts of GPUs ({name}); whole ones are planned"
    ]


def test_empty_fields_are_nothing():
    """A server may print null where there is nothing."""
    one = workload("a", maximumExecutionTimeSeconds=60)
    empty = {**one, "status": {"conditions": None}}
    none = {**workload("b"), "spec": None, "status": None}

    assert len(list(waiting({"items": [empty, none]}))) == 1
    assert list(waiting({"kind": "List", "items": None})) == []
    assert list(running({"items": [empty, none]})) == []


def test_other_objects_are_refused():
    with pytest.raises(ValueError, match="an item is a Service, not a Workload, Job, JobSet or Pod"):
        list(waiting({"items": [{"kind": "Service", "metadata": {"name": "x"}}]}))
