"""What one Kubernetes object asks for: a Job, a JobSet, a Pod or a Workload of Kueue, all in one form.

Formats: batch/v1, v1 and kueue.x-k8s.io/v1beta1 and v1beta2 as kubernetes.io and kueue.sigs.k8s.io publish them,
jobset.x-k8s.io/v1alpha2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

Object = Mapping[str, Any]
Sets = list[tuple[int, Object]]
"""How many pods, and their template."""

PREFIX = "wattkeeper.io/"
"""Begins annotations that speak to the planner; the rest is the column, with - for _."""

WHOLE = ("/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "habana.ai/gaudi")
"""Ends of the resource names of whole GPUs, of nvidia.com and amd.com among others."""

PARTS = re.compile(r"/mig-|/gpu\.shared$|^amd\.com/[a-z]+_nps\d")
"""Resource names of parts of a GPU: MIG, time slices, AMD's partitions."""

BEGUN = frozenset({"QuotaReserved", "Admitted", "Finished"})
"""Conditions of a Workload that no longer waits."""

TIERS = {t: t for t in ("critical", "deadline", "elastic")} | {
    "system-cluster-critical": "critical", "system-node-critical": "critical",
}  # fmt: skip
"""Priority classes whose name says a tier."""

WAITS, RUNS, NEITHER = "waits", "runs", ""


@dataclass(frozen=True, slots=True)
class Asking:
    """What an object asks for. name: namespace/name. state: whether it waits for its GPUs or holds them.

    gpus: of all its pods; None where that is not a number. parts: names under which it asks for parts of GPUs.
    noted: its annotations by column. limit_s: its time limit, None where it has none. begun: since when it runs, ISO 8601.
    """

    name: str
    namespace: str
    state: str
    gpus: Decimal | None
    parts: list[str]
    noted: dict[str, str]
    limit_s: float | None
    begun: str | None
    nodes: list[str]


def asking(kind: str, one: Object, pods: Sequence[Object]) -> Asking:
    """Return what an object asks for. kind: one of READ. pods: those of its pods that are known.

    Raises ValueError, TypeError, KeyError or AttributeError where a field is not what the API has there.
    """
    metadata = one["metadata"]
    state, sets, limit_s, begun = READ[kind](one, pods)
    parts = set[str]()
    try:
        gpus = sum((many * _gpus_of(of(template, "spec"), parts) for many, template in sets), Decimal(0))
    except (InvalidOperation, ValueError):
        gpus = None
    templates = [template for _, template in sets]
    noted = _noted(metadata, *(of(t, "metadata") for t in templates))
    tiers = [TIERS[c] for c in _classes(one, templates) if c in TIERS]
    noted = {**({"tier": tiers[0]} if tiers else {}), **noted}
    return Asking(
        name=name_of(one),
        namespace=metadata.get("namespace") or "",
        state=state,
        gpus=gpus,
        parts=sorted(parts),
        noted=noted,
        limit_s=float(limit_s) if limit_s else None,
        begun=begun,
        nodes=sorted({node for pod in pods or (one,) if (node := placed(pod))}),
    )


def name_of(one: Object) -> str:
    """Return namespace/name."""
    return f"{one['metadata'].get('namespace') or 'default'}/{one['metadata']['name']}"


def of(one: Object, *path: str) -> Object:
    """Return what lies along a path of keys; an empty mapping where there is nothing."""
    for key in path:
        one = one.get(key) or {}
    return one


def placed(pod: Object) -> str:
    """Return the node on which a pod holds what it asked for, "" where it waits or has ended."""
    over = of(pod, "status").get("phase") in {"Succeeded", "Failed"}
    return "" if over else str(of(pod, "spec").get("nodeName") or "")


Facts = tuple[str, Sets, Any, str | None]
"""State, sets of pods, time limit [s], and since when it runs."""


def _workload(one: Object, _pods: Sequence[Object]) -> Facts:
    """Read a Workload: it waits until its quota is reserved, and not when it was deactivated."""
    spec, since = of(one, "spec"), _since(one)
    sets = [(int(s.get("count", 1)), of(s, "template")) for s in spec.get("podSets") or []]
    state = WAITS
    if BEGUN & since.keys():
        state = NEITHER if "Finished" in since else RUNS
    elif spec.get("active") is False:
        state = NEITHER
    begun = since.get("Admitted") or since.get("QuotaReserved")
    return state, sets, spec.get("maximumExecutionTimeSeconds"), begun


def _job(one: Object, pods: Sequence[Object]) -> Facts:
    """Read a Job: it waits while it is suspended, or none of its pods is ready or has a node."""
    spec, status = of(one, "spec"), of(one, "status")
    some = _pods_of(spec, int(status.get("succeeded") or 0))
    waits = spec.get("suspend") is True or not (status.get("active") and status.get("ready") != 0)
    state = NEITHER if {"Complete", "Failed"} & _since(one).keys() else _state(waits, spec, pods)
    return state, [some], _limit_s(spec), status.get("startTime")


def _jobset(one: Object, pods: Sequence[Object]) -> Facts:
    """Read a JobSet: all its Jobs together. It waits while it is suspended, or none of its Jobs is active."""
    spec = of(one, "spec")
    jobs = [(_count(s, "replicas"), of(s, "template", "spec")) for s in spec.get("replicatedJobs") or []]
    sets = [(replicas * many, template) for replicas, job in jobs for many, template in [_pods_of(job)]]
    active = any(s.get("active") for s in of(one, "status").get("replicatedJobsStatus") or [])
    waits = spec.get("suspend") is True or not active
    state = NEITHER if {"Completed", "Failed"} & _since(one).keys() else _state(waits, spec, pods)
    limits_s = [_limit_s(job) for _, job in jobs]
    resumed = [c for c in of(one, "status").get("conditions") or [] if c.get("type") == "Suspended"]
    return state, sets, max(limits_s) if all(limits_s) and limits_s else None, _time_of(resumed, "False")


def _pod(one: Object, _pods: Sequence[Object]) -> Facts:
    """Read a Pod, which is its own template: it waits until it has a node."""
    spec, status = of(one, "spec"), of(one, "status")
    state = RUNS if placed(one) else WAITS if status.get("phase", "Pending") == "Pending" else NEITHER
    return state, [(1, one)], spec.get("activeDeadlineSeconds"), status.get("startTime")


READ = {"Workload": _workload, "Job": _job, "JobSet": _jobset, "Pod": _pod}
GROUPS = {"Workload": "kueue.x-k8s.io", "Job": "batch", "JobSet": "jobset.x-k8s.io", "Pod": "v1"}
"""API groups; other kinds of the same name, such as Volcano's Job, are none of ours."""


def _state(waits: bool, spec: Object, pods: Sequence[Object]) -> str:
    """Return the state of what has pods: what these say where they are known, unless it is suspended."""
    if pods and spec.get("suspend") is not True:
        waits = not any(placed(pod) for pod in pods)
    return WAITS if waits else RUNS


def _pods_of(job: Object, succeeded: int = 0) -> tuple[int, Object]:
    """Return how many pods of a Job run together, no more than are still to complete, and their template."""
    many = _count(job, "parallelism")
    if job.get("completions") is not None:
        many = min(many, max(int(job["completions"]) - succeeded, 0))
    return many, of(job, "template")


def _limit_s(job: Object) -> Any:
    return job.get("activeDeadlineSeconds") or of(job, "template", "spec").get("activeDeadlineSeconds")


def _count(one: Object, field: str) -> int:
    """Return a number of pods; 1, the API's default, where there is none."""
    return 1 if one.get(field) is None else int(one[field])


def _since(one: Object) -> dict[str, str | None]:
    """Return the conditions that hold, and since when."""
    conditions = of(one, "status").get("conditions") or []
    return {c["type"]: c.get("lastTransitionTime") for c in conditions if c.get("status") == "True"}


def _time_of(conditions: Sequence[Object], status: str) -> str | None:
    return next((c.get("lastTransitionTime") for c in conditions if c.get("status") == status), None)


def _gpus_of(pod: Object, parts: set[str]) -> Decimal:
    """Return the GPUs of a pod; names under which it asks for parts of one are added to parts.

    Init containers run one after the other, before the others: the most that is held at once counts.
    """
    together, before = (
        [_gpus(container, parts) for container in pod.get(kind) or []] for kind in ("containers", "initContainers")
    )
    return max(sum(together, Decimal(0)), *before, Decimal(0))


def _gpus(container: Object, parts: set[str]) -> Decimal:
    """Return the GPUs that a container requests, else its limit."""
    asked = {**of(container, "resources", "limits"), **of(container, "resources", "requests")}
    parts.update(name for name in asked if PARTS.search(name) and Decimal(str(asked[name])))
    gpus = sum((Decimal(str(n)) for name, n in asked.items() if name.endswith(WHOLE)), Decimal(0))
    if not gpus.is_finite() or gpus < 0:
        raise ValueError(f"{gpus} is not a number of GPUs")
    return gpus


def _classes(one: Object, templates: Sequence[Object]) -> list[str]:
    """Return the names of an object's priority classes, its own first."""
    own = of(one, "spec")
    label = of(one, "metadata", "labels").get("kueue.x-k8s.io/priority-class")
    named = [own.get("priorityClassName"), of(own, "priorityClassRef").get("name"), label]
    return [str(c) for c in (*named, *(of(t, "spec").get("priorityClassName") for t in templates)) if c]


def _noted(*metadata: Object) -> dict[str, str]:
    """Return the annotations for the planner by column; those of the object itself, the first, win."""
    found: dict[str, str] = {}
    for one in reversed(metadata):
        for key, value in (one.get("annotations") or {}).items():
            if key.startswith(PREFIX):
                found[key.removeprefix(PREFIX).replace("-", "_")] = str(value)
    return found
