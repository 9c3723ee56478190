"""What waits in Kueue: Workloads as `kubectl get workloads -A -o json` prints them, as rows of a queue file.

A job's own wishes are annotations of its pods or of the Workload: `wattkeeper.io/tier: elastic`. Kueue copies those of
the pod template into the Workload. Format: API kueue.x-k8s.io/v1beta1 and v1beta2, reference/kueue.v1beta1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from wattkeeper.core.clock import to_ms

PREFIX = "wattkeeper.io/"
"""Begins annotations that speak to the planner; the rest is the column, with - for _."""

BEGUN = frozenset({"QuotaReserved", "Admitted", "Finished"})
"""Conditions of a Workload that no longer waits."""


def waiting(told: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], str]]:
    """Yield each Workload that waits and asks for GPUs: its cells by column of a queue file, and why it cannot be
    planned, "" where it can. A further cell is no column: `limit_h` where the time limit stands for the duration.

    told: a List, or one Workload. One that was deactivated (`spec.active: false`) does not wait.
    Raises ValueError for what is no Workload.
    """
    for one in told.get("items", [told]):
        if one.get("kind") != "Workload":
            raise ValueError(f"an item is a {one.get('kind')}, not a Workload")
        spec = one.get("spec", {})
        conditions = one.get("status", {}).get("conditions", [])
        if spec.get("active") is False or any(c["type"] in BEGUN and c["status"] == "True" for c in conditions):
            continue
        sets = spec.get("podSets", [])
        name = f"{one['metadata'].get('namespace', 'default')}/{one['metadata']['name']}"
        try:
            gpus = sum((int(s.get("count", 1)) * _gpus(s) for s in sets), Decimal(0))
        except (InvalidOperation, ValueError):
            yield {"job_id": name, "user": ""}, "what its containers ask for is not a number of GPUs"
            continue
        if not gpus:
            continue
        noted = _noted(one["metadata"], *(s.get("template", {}).get("metadata", {}) for s in sets))
        cells = {"gpus": str(gpus), "user": noted.pop("user", one["metadata"].get("namespace", "")), **noted}
        seconds = spec.get("maximumExecutionTimeSeconds")
        why = ""
        if "duration_h" not in cells:
            if seconds:
                cells["duration_h"] = cells["limit_h"] = str(seconds / 3600)
            else:
                why = f"nothing says how long it runs: set maximumExecutionTimeSeconds, or annotate {PREFIX}duration-h"
        yield {**cells, "job_id": name}, why


def running(told: Mapping[str, Any]) -> Iterator[tuple[str, float, list[str], int | None]]:
    """Yield each Workload that has its quota and holds GPUs: name, how many, the site that it names, and when its time
    limit ends [ms]."""
    for one in told.get("items", [told]):
        spec, conditions = one.get("spec", {}), one.get("status", {}).get("conditions", [])
        since = {c["type"]: c.get("lastTransitionTime") for c in conditions if c["status"] == "True"}
        sets = spec.get("podSets", [])
        if "Finished" in since or not {"QuotaReserved", "Admitted"} & since.keys():
            continue
        try:
            gpus = sum((int(s.get("count", 1)) * _gpus(s) for s in sets), Decimal(0))
        except (InvalidOperation, ValueError):
            continue
        if gpus:
            noted = _noted(one["metadata"], *(s.get("template", {}).get("metadata", {}) for s in sets))
            begun, limit_s = (
                since.get("Admitted") or since.get("QuotaReserved"),
                spec.get("maximumExecutionTimeSeconds"),
            )
            end_ms = to_ms(datetime.fromisoformat(begun)) + 1000 * int(limit_s) if begun and limit_s else None
            where = [part.partition(":")[0].strip() for part in noted.get("sites", "").split(";") if part.strip()]
            name = f"{one['metadata'].get('namespace', 'default')}/{one['metadata']['name']}"
            yield name, float(gpus), where if len(where) == 1 else [], end_ms


def _gpus(pod_set: Mapping[str, Any]) -> Decimal:
    """Return the GPUs of one pod of a set: the requests, else the limits, of its containers."""
    total = Decimal(0)
    for container in pod_set.get("template", {}).get("spec", {}).get("containers", []):
        resources = container.get("resources", {})
        asked = {**resources.get("limits", {}), **resources.get("requests", {})}
        total += sum((Decimal(str(n)) for name, n in asked.items() if name.endswith("/gpu")), Decimal(0))
    return total


def _noted(*metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations for the planner by column; those of the Workload itself, the first, win."""
    found: dict[str, str] = {}
    for one in reversed(metadata):
        for key, value in (one.get("annotations") or {}).items():
            if key.startswith(PREFIX):
                found[key.removeprefix(PREFIX).replace("-", "_")] = str(value)
    return found
