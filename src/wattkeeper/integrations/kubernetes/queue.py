"""What waits in Kubernetes and what runs: a List as `kubectl get … -A -o json` or `-o yaml` prints it.

A job's own wishes are annotations of its pods or of the object: `wattkeeper.io/tier: elastic`. What several objects of a
List stand for counts once: as the Workload that Kueue made for it, else as what owns the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from wattkeeper.core.clock import to_ms
from wattkeeper.core.roles import Holder
from wattkeeper.integrations.kubernetes.objects import GROUPS, PREFIX, RUNS, WAITS, Asking, Object, asking, name_of, of

Key = tuple[str, str]
"""Kind, and namespace/name."""

LIMITS = {"Workload": "maximumExecutionTimeSeconds"}
"""The field that is the time limit, where it is not activeDeadlineSeconds."""

NOT_GPUS = "what its containers ask for is not a number of GPUs"


def waiting(told: Object) -> Iterator[tuple[dict[str, str], str]]:
    """Yield each object that waits and asks for GPUs: its cells by column of a queue file, and why it cannot be planned,
    "" where it can. A further cell is no column: `limit_h` where the time limit stands for the duration.

    told: a List, or one object. Raises ValueError where none of its objects is of a kind that is read.
    """
    for (kind, name), one, owner in _listed(told):
        bare = {"job_id": name, "user": ""}
        if not isinstance(one, Asking):
            yield bare, one
            continue
        if one.state != WAITS:
            continue
        if one.gpus is None:
            yield bare, NOT_GPUS
        elif one.parts:
            yield bare, f"it asks for parts of GPUs ({', '.join(one.parts)}); whole ones are planned"
        elif one.gpus:
            cells = {"gpus": str(one.gpus), "user": one.namespace, **one.noted}
            why = f"it belongs to {owner[0]} {owner[1]}, which is not in the queue" if owner else ""
            if "duration_h" not in cells:
                if one.limit_s:
                    cells["duration_h"] = cells["limit_h"] = str(one.limit_s / 3600)
                else:
                    field = LIMITS.get(kind, "activeDeadlineSeconds")
                    why = why or f"nothing says how long it runs: set {field}, or annotate {PREFIX}duration-h"
            yield {**cells, "job_id": name}, why


def running(told: Object) -> Iterator[Holder]:
    """Yield what holds GPUs: at the site that it names, else on the nodes of its pods that are listed."""
    for (_, name), one, _ in _listed(told):
        if isinstance(one, Asking) and one.state == RUNS and (one.gpus or one.gpus is None):
            sites = [part.partition(":")[0].strip() for part in one.noted.get("sites", "").split(";") if part.strip()]
            yield Holder(
                name,
                None if one.gpus is None else float(one.gpus),
                sites if len(sites) == 1 else one.nodes,
                _end_ms(one),
                NOT_GPUS if one.gpus is None else "",
            )


def unread(told: Object) -> list[str]:
    """Return a sentence on objects of kinds that are not read."""
    kinds = Counter(str(one.get("kind")) for one in _items(told) if not _kind(one))
    named = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    return [f"objects of the queue that are not read: {named}"] if kinds else []


def _listed(told: Object) -> Iterator[tuple[Key, Asking | str, Key | None]]:
    """Yield each object that counts: what it asks for, or what is wrong with it, and its owner where that is not listed.

    Objects that another listed one stands for are left out; their pods tell how it fares.
    """
    items = _items(told)
    listed: dict[Key, Object] = {}
    for one in items:
        if kind := _kind(one):
            key = kind, name_of(one)
            if listed.setdefault(key, one) != one:
                yield key, f"another {kind} has the same name", None
    if items and not listed:
        raise ValueError(f"an item is a {items[0].get('kind')}, not a Workload, Job, JobSet or Pod")
    stand = _stand(listed)
    pods: dict[Key, list[Object]] = {}
    for key, one in listed.items():
        if key[0] == "Pod" and stand[key] != key:
            pods.setdefault(stand[key], []).append(one)
    queued = any(kind == "Workload" for kind, _ in listed)
    for key, one in listed.items():
        if stand[key] != key or (key[0] == "Pod" and queued and _of_kueue(one)):
            continue
        owner = next(iter(_owners(one)), None) if key[0] == "Pod" else None
        try:
            yield key, asking(key[0], one, pods.get(key, [])), owner
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            yield key, f"it is not a {key[0]} as the API has it: {error}", owner


def _stand(listed: dict[Key, Object]) -> dict[Key, Key]:
    """Return for each object which one stands for it: a Workload for what owns it, an owner for what it owns."""
    workloads = {owner: key for key, one in listed.items() if key[0] == "Workload" for owner in _owners(one)}
    found = {}
    for key in listed:
        top, seen = key, set[Key]()
        while top not in seen:
            seen.add(top)
            if top[0] == "Workload" or top not in listed:
                break
            above = [workloads.get(top), *(workloads.get(o, o) for o in _owners(listed[top]))]
            top = next((a for a in above if a in listed), top)
        found[key] = top
    return found


def _items(told: Object) -> list[Object]:
    """Return the objects of a List, or the one there is. Items of a JobList may leave out that they are Jobs."""
    if "items" not in told:
        return [told]
    kind = str(told.get("kind") or "").removesuffix("List")
    return [one if one.get("kind") or not kind else {**one, "kind": kind} for one in told["items"] or []]


def _kind(one: Object) -> str:
    """Return an object's kind where it is one that is read, else ""."""
    kind, group = str(one.get("kind")), str(one.get("apiVersion") or "").partition("/")[0]
    return kind if kind in GROUPS and group in {"", GROUPS[kind]} else ""


def _owners(one: Object) -> list[Key]:
    namespace = name_of(one).partition("/")[0]
    return [(str(o.get("kind")), f"{namespace}/{o.get('name')}") for o in one["metadata"].get("ownerReferences") or []]


def _of_kueue(pod: Object) -> bool:
    """Tell whether Kueue marked a pod as one of a Workload's, whatever lies between the two."""
    return any(label.startswith("kueue.x-k8s.io/") for label in of(pod, "metadata", "labels"))


def _end_ms(one: Asking) -> int | None:
    """Return when the time limit, or the duration that is told, ends what runs [ms]; None where nobody knows."""
    try:
        seconds = one.limit_s or 3600 * float(one.noted["duration_h"])
        return to_ms(datetime.fromisoformat(one.begun or "")) + round(1000 * seconds)
    except (KeyError, OverflowError, ValueError):
        return None
