"""What waits in Kueue: Workloads as `kubectl get workloads -A -o json` prints them, as rows of a queue file.

A job's own wishes are annotations of its pods or of the Workload: `wattkeeper.io/tier: elastic`. Kueue copies those of
the pod template into the Workload. Format: API kueue.x-k8s.io/v1beta1 and v1beta2, reference/kueue.v1beta1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from wattkeeper.core.clock import to_ms

PREFIX = "wattkeeper.io/"
"""Begins annotations that speak to the planner; the rest is the column, with - for _."""

WHOLE = ("/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "habana.ai/gaudi")
"""Ends of the resource names of whole GPUs, of nvidia.com and amd.com among others."""

PARTS = re.compile(r"/mig-|/gpu\.shared$|^amd\.com/[a-z]+_nps\d")
"""Resource names of parts of a GPU: MIG, time slices, AMD's partitions."""

BEGUN = frozenset({"QuotaReserved", "Admitted", "Finished"})
"""Conditions of a Workload that no longer waits."""


def waiting(told: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], str]]:
    """Yield each Workload that waits and asks for GPUs: its cells by column of a queue file, and why it cannot be
    planned, "" where it can. A further cell is no column: `limit_h` where the time limit stands for the duration.

    told: a List, or one Workload. One that was deactivated (`spec.active: false`) does not wait.
    Raises ValueError for what is no Workload.
    """
    for one in _items(told):
        if one.get("kind") != "Workload":
            raise ValueError(f"an item is a {one.get('kind')}, not a Workload")
        spec = one.get("spec") or {}
        if spec.get("active") is False or BEGUN & _since(one).keys():
            continue
        sets = spec.get("podSets") or []
        name = _name(one)
        try:
            gpus, slices = _asked(sets)
        except (InvalidOperation, ValueError):
            yield {"job_id": name, "user": ""}, "what its containers ask for is not a number of GPUs"
            continue
        if slices:
            yield (
                {"job_id": name, "user": ""},
                f"it asks for parts of GPUs ({', '.join(slices)}); whole ones are planned",
            )
        if slices or not gpus:
            continue
        noted = _noted(one["metadata"], *(_of(s, "template", "metadata") for s in sets))
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
    for one in _items(told):
        spec, since = one.get("spec") or {}, _since(one)
        sets = spec.get("podSets") or []
        if "Finished" in since or not {"QuotaReserved", "Admitted"} & since.keys():
            continue
        try:
            gpus, _ = _asked(sets)
        except (InvalidOperation, ValueError):
            continue
        if gpus:
            noted = _noted(one["metadata"], *(_of(s, "template", "metadata") for s in sets))
            begun, limit_s = (
                since.get("Admitted") or since.get("QuotaReserved"),
                spec.get("maximumExecutionTimeSeconds"),
            )
            end_ms = to_ms(datetime.fromisoformat(begun)) + 1000 * int(limit_s) if begun and limit_s else None
            where = [part.partition(":")[0].strip() for part in noted.get("sites", "").split(";") if part.strip()]
            yield _name(one), float(gpus), where if len(where) == 1 else [], end_ms


def _items(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = told.get("items", [told])
    return found or []


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['metadata'].get('namespace', 'default')}/{one['metadata']['name']}"


def _since(one: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the conditions that hold, and since when."""
    conditions = _of(one, "status").get("conditions") or []
    return {c["type"]: c.get("lastTransitionTime") for c in conditions if c.get("status") == "True"}


def _of(one: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return what lies along a path of keys; an empty mapping where there is nothing."""
    for key in path:
        one = one.get(key) or {}
    return one


def _asked(sets: Sequence[Mapping[str, Any]]) -> tuple[Decimal, list[str]]:
    """Return the GPUs of all pods of a Workload, and the names under which it asks for parts of a GPU."""
    total, slices = Decimal(0), set[str]()
    for one in sets:
        spec = _of(one, "template", "spec")
        many = [
            [_gpus(container, slices) for container in spec.get(kind) or []]
            for kind in ("containers", "initContainers")
        ]
        # init containers run one after the other, before the others: the most that is held at once
        total += int(one.get("count", 1)) * max(sum(many[0], Decimal(0)), *many[1], Decimal(0))
    return total, sorted(slices)


def _gpus(container: Mapping[str, Any], slices: set[str]) -> Decimal:
    """Return the GPUs that a container requests, else its limit; names of parts of a GPU are added to slices."""
    asked = {**_of(container, "resources", "limits"), **_of(container, "resources", "requests")}
    slices.update(name for name in asked if PARTS.search(name) and Decimal(str(asked[name])))
    return sum((Decimal(str(n)) for name, n in asked.items() if name.endswith(WHOLE)), Decimal(0))


def _noted(*metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations for the planner by column; those of the Workload itself, the first, win."""
    found: dict[str, str] = {}
    for one in reversed(metadata):
        for key, value in (one.get("annotations") or {}).items():
            if key.startswith(PREFIX):
                found[key.removeprefix(PREFIX).replace("-", "_")] = str(value)
    return found
