"""Jobs, JobSets and Pods of the published form: which wait, which run, and that nothing counts twice."""

from __future__ import annotations

import pytest

from tests.integrations.kubernetes.test_queue import workload
from wattkeeper.core.roles import Holder
from wattkeeper.integrations.kubernetes.queue import running, unread, waiting

BEGUN = "2026-10-01T00:00:00Z"
BEGUN_MS = 1_790_812_800_000


def template(gpus=2, *, noted=None, resource="nvidia.com/gpu", **spec):
    container = {"name": "c", "resources": {"limits": {resource: gpus}}}
    return {"metadata": {"annotations": noted}, "spec": {"containers": [container], **spec}}


def made(kind, version, name, spec, status=None, *, owner=None, noted=None, labels=None):
    owners = [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else None
    metadata = {"namespace": "ml", "name": name, "ownerReferences": owners, "annotations": noted, "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, "status": status}


def job(name, *, pods=None, status=None, owner=None, noted=None, **spec):
    fields = {"activeDeadlineSeconds": 7200, "template": pods or template(), **spec}
    return made("Job", "batch/v1", name, fields, status, owner=owner, noted=noted)


def pod(name, *, node=None, phase="Pending", owner=None, labels=None, gpus=2, **spec):
    fields = {**template(gpus)["spec"], "nodeName": node, "activeDeadlineSeconds": 3600, **spec}
    return made("Pod", "v1", name, fields, {"phase": phase, "startTime": BEGUN}, owner=owner, labels=labels)


def jobset(name, *, status=None, **spec):
    replicated = [
        {"name": "leader", "template": {"spec": job("x", pods=template(1))["spec"]}},
        {"name": "workers", "replicas": 2, "template": {"spec": job("x", pods=template(4), parallelism=3)["spec"]}},
    ]
    return made("JobSet", "jobset.x-k8s.io/v1alpha2", name, {"replicatedJobs": replicated, **spec}, status)


def listed(*objects):
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def gangs(*objects):
    """Return (id, GPUs, hours, why) of what waits."""
    return [(c["job_id"], c.get("gpus"), c.get("duration_h"), why) for c, why in waiting(listed(*objects))]


RUNNING = {"active": 4, "ready": 4, "startTime": BEGUN}


def test_a_suspended_job_is_a_gang():
    """4 pods of 2 GPUs are 8 together, 7200 s are 2 h; the Job's annotation wins over its pods', and that over a class."""
    one = job(
        "train", parallelism=4, suspend=True, noted={"wattkeeper.io/tier": "elastic"},
        pods=template(noted={"wattkeeper.io/resume-min": "5", "wattkeeper.io/tier": "x"}, priorityClassName="critical"),
    )  # fmt: skip

    assert list(waiting(listed(one))) == [
        (
            {
                "gpus": "8", "user": "ml", "tier": "elastic", "resume_min": "5", "duration_h": "2.0", "limit_h": "2.0",
                "job_id": "ml/train",
            },
            "",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "gpus"),
    [
        ({}, ["2"]),
        ({"parallelism": 0}, []),
        ({"parallelism": 4, "completions": 3}, ["6"]),
        ({"parallelism": 4, "completions": 9, "status": {"succeeded": 7}}, ["4"]),
        ({"pods": template(0)}, []),
    ],
)
def test_no_more_pods_than_are_to_complete(spec, gpus):
    assert [g for _, g, _, _ in gangs(job("a", suspend=True, **spec))] == gpus


@pytest.mark.parametrize(
    ("status", "more", "state"),
    [
        (None, {}, "waits"),
        ({"active": 4, "ready": 0}, {}, "waits"),
        ({"active": 4}, {}, "runs"),  # a server that does not tell how many are ready
        (RUNNING, {}, "runs"),
        (RUNNING, {"suspend": True}, "waits"),
        ({**RUNNING, "conditions": [{"type": "Complete", "status": "True"}]}, {}, "neither"),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, {"suspend": True}, "neither"),
        ({"conditions": [{"type": "Failed", "status": "False"}]}, {}, "waits"),
    ],
)
def test_which_jobs_wait(status, more, state):
    told = listed(job("a", status=status, **more))

    assert (len(list(waiting(told))), len(list(running(told)))) == {"waits": (1, 0), "runs": (0, 1), "neither": (0, 0)}[
        state
    ]


def test_its_pods_know_better_than_a_job():
    """None has a node: it waits, though it is active; one has: the gang holds its GPUs, there. Ended ones hold nothing."""
    one = job("a", parallelism=2, status={"active": 2, "startTime": BEGUN})
    two = job("b", parallelism=2, status={"active": 2, "ready": 0, "startTime": BEGUN})
    mine = [pod("a-1", owner=("Job", "a")), pod("a-2", node="n9", phase="Failed", owner=("Job", "a"))]
    other = [pod("b-1", owner=("Job", "b")), pod("b-2", node="n1", phase="Running", owner=("Job", "b"))]
    told = listed(one, two, *mine, *other)

    assert [t[0] for t in gangs(one, two, *mine, *other)] == ["ml/a"]
    assert list(running(told)) == [Holder("ml/b", 4.0, ["n1"], BEGUN_MS + 7_200_000)]


def test_how_long_what_runs_is_held():
    """Until the limit of the Job, else of its pods, else the annotated duration; else to the end."""
    pods = template(activeDeadlineSeconds=60)
    found = listed(
        job("job", status=RUNNING),
        job("pods", status=RUNNING, activeDeadlineSeconds=None, pods=pods),
        job("told", status=RUNNING, activeDeadlineSeconds=None, noted={"wattkeeper.io/duration-h": "3"}),
        job("never", status=RUNNING, activeDeadlineSeconds=None),
        job("odd", status=RUNNING, activeDeadlineSeconds=None, noted={"wattkeeper.io/duration-h": "long"}),
    )

    ends = [one.end_ms for one in running(found)]
    assert ends == [BEGUN_MS + 7_200_000, BEGUN_MS + 60_000, BEGUN_MS + 10_800_000, None, None]


def test_a_jobset_is_one_gang():
    """1 × 1 × 1 GPU and 2 × 3 × 4: 25 together. It runs when a Job of it is active, and then its Jobs count for it."""
    active = {
        "replicatedJobsStatus": [{"name": "workers", "active": 2}],
        "conditions": [{"type": "Suspended", "status": "False", "lastTransitionTime": BEGUN}],
    }
    owned = job("s-workers-0", status=RUNNING, owner=("JobSet", "s"), parallelism=3)
    told = listed(jobset("s", status=active), owned)

    assert gangs(jobset("s", suspend=True), owned) == [("ml/s", "25", "2.0", "")]
    assert list(running(told)) == [Holder("ml/s", 25.0, [], BEGUN_MS + 7_200_000)]
    done = jobset("s", status={"conditions": [{"type": "Completed", "status": "True"}]})
    assert gangs(done) == list(running(listed(done))) == []


def test_pods_without_an_owner():
    """One that waits is planned, one that has a node holds it, one that belongs to what is not listed is named."""
    free, placed = pod("free"), pod("placed", node="n1", phase="Running")
    owned, other = pod("owned", owner=("PyTorchJob", "p")), pod("other", node="n2", owner=("ReplicaSet", "r"))
    done = pod("done", node="n1", phase="Succeeded")

    assert gangs(free, placed, owned, other, done) == [
        ("ml/free", "2", "1.0", ""),
        ("ml/owned", "2", "1.0", "it belongs to PyTorchJob ml/p, which is not in the queue"),
    ]
    assert list(running(listed(free, placed, owned, other, done))) == [
        Holder("ml/placed", 2.0, ["n1"], BEGUN_MS + 3_600_000),
        Holder("ml/other", 2.0, ["n2"], BEGUN_MS + 3_600_000),
    ]


def test_what_a_workload_stands_for_counts_once():
    """Kueue made one for a Job and one for a JobSet: neither these, nor their Jobs, nor their pods count beside it."""
    waits = workload("job-a-1", 2, count=4, maximumExecutionTimeSeconds=7200)
    runs = workload("jobset-s-1", 25, conditions=[("Admitted", "True")])
    for one, owner in ((waits, ("Job", "a")), (runs, ("JobSet", "s"))):
        one["metadata"]["ownerReferences"] = [{"kind": owner[0], "name": owner[1]}]
    objects = [
        job("a", suspend=True, parallelism=4), waits, jobset("s"), runs,
        job("s-w-0", status=RUNNING, owner=("JobSet", "s")),
        pod("s-w-0-0", node="n1", phase="Running", owner=("Job", "s-w-0")),
        pod("deep", node="n2", phase="Running", owner=("Worker", "w"), labels={"kueue.x-k8s.io/podset": "main"}),
        job("alone", suspend=True),
    ]  # fmt: skip

    for order in (objects, objects[::-1]):
        assert sorted(gangs(*order)) == [("ml/alone", "2", "2.0", ""), ("ml/job-a-1", "8", "2.0", "")]
        assert list(running(listed(*order))) == [Holder("ml/jobset-s-1", 25.0, ["n1"], None)]


def test_owners_in_a_circle_end():
    """Each stands for the other, and neither for itself; what is not in the circle is read."""
    a, b = job("a", owner=("Job", "b"), suspend=True), job("b", owner=("Job", "a"), suspend=True)

    assert ("ml/c", "2", "2.0", "") in gangs(a, b, job("c", suspend=True))


def test_an_object_twice():
    """The same one, as two lists after each other may have it, counts once; another of the same name is refused."""
    one, other = job("a", suspend=True), job("a", suspend=True, parallelism=2)

    assert gangs(one, one) == [("ml/a", "2", "2.0", "")]
    assert sorted(gangs(one, other), key=str) == [
        ("ml/a", "2", "2.0", ""),
        ("ml/a", None, None, "another Job has the same name"),
    ]


@pytest.mark.parametrize(
    ("name", "tier"),
    [("critical", "critical"), ("elastic", "elastic"), ("system-node-critical", "critical"), ("high", None)],
)
def test_a_priority_class_that_names_a_tier(name, tier):
    told = [job("a", pods=template(priorityClassName=name), suspend=True), workload("w", priorityClassName=name)]
    told.append(workload("v", priorityClassRef={"name": name}))

    assert [cells.get("tier") for cells, _ in waiting(listed(*told))] == [tier] * 3


def test_objects_that_cannot_be_read_cost_no_other():
    """A count that is none, parts of GPUs, fields of another kind, no limit: each is named."""
    objects = [
        job("half", pods=template("1500m"), suspend=True),
        job("less", pods=template(-1), suspend=True),
        job("mig", pods=template(1, resource="nvidia.com/mig-1g.10gb"), suspend=True),
        job("text", suspend=True, parallelism="many"),
        made("Job", "batch/v1", "list", [1]),
        job("open", suspend=True, activeDeadlineSeconds=None),
        job("good", pods=template(1, resource="amd.com/gpu"), suspend=True),
        made("Job", "batch/v1", "none", None),
    ]
    found = gangs(*objects)

    assert [(name, why) for name, *_, why in found[:3] + found[5:]] == [
        ("ml/half", "what its containers ask for is not a number of GPUs"),
        ("ml/less", "what its containers ask for is not a number of GPUs"),
        ("ml/mig", "it asks for parts of GPUs (nvidia.com/mig-1g.10gb); whole ones are planned"),
        ("ml/open", "nothing says how long it runs: set activeDeadlineSeconds, or annotate wattkeeper.io/duration-h"),
        ("ml/good", ""),
    ]
    assert [(name, why.partition(":")[0]) for name, *_, why in found[3:5]] == [
        ("ml/text", "it is not a Job as the API has it"),
        ("ml/list", "it is not a Job as the API has it"),
    ]
    assert list(running(listed(job("x", pods=template("1k5"), status=RUNNING)))) == [
        Holder("ml/x", None, [], BEGUN_MS + 7_200_000, "what its containers ask for is not a number of GPUs")
    ]


def test_kinds_that_are_not_read():
    """They are counted; Volcano's Job is not batch/v1's; items of a JobList need not say that they are Jobs."""
    volcano = made("Job", "batch.volcano.sh/v1alpha1", "v", {"template": template()})
    told = listed(made("Service", "v1", "s", {}), volcano, job("a", suspend=True))
    bare = {k: v for k, v in job("b", suspend=True).items() if k not in {"kind", "apiVersion"}}

    assert [c["job_id"] for c, _ in waiting(told)] == ["ml/a"]
    assert unread(told) == ["objects of the queue that are not read: 1 Job, 1 Service"]
    assert [c["job_id"] for c, _ in waiting({"kind": "JobList", "items": [bare]})] == ["ml/b"]
    assert list(waiting(listed())) == list(running(listed())) == unread(listed()) == []
