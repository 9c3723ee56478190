"""What running jobs hold: GPUs that a scheduler has given away, site by site over the slots of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.assets import AssetTree
from wattkeeper.core.roles import Holder
from wattkeeper.plan.problem import Grid
from wattkeeper.planning.supply import slots_of

Floats = NDArray[np.float64]

_NAMED = 5
"""Running jobs that are named where something of them cannot be read."""


def held_gpus(
    running: Iterable[Holder], tree: AssetTree, grid: Grid, but: Container[str] = ()
) -> tuple[dict[str, Floats], list[str]]:
    """Return by site the GPUs that running jobs hold, (slots,) each, and sentences on them.

    A job holds its GPUs until its time limit, and to the end where it has none; where its count cannot be read, all GPUs
    of its nodes. but: sites whose free GPUs are known otherwise.
    """
    held: dict[str, Floats] = {}
    jobs, lost, odd = Counter[str](), 0, []
    for one in running:
        at = _sites(one.where, tree)
        gpus = _gpus_on(one.where, tree) if one.gpus is None else one.gpus
        if one.odd:
            odd.append(f"running job {one.job_id}: {one.odd}; {_assumed(one, gpus, at)}")
        if not gpus or not at:
            lost += not one.odd
            continue
        first, last = 0, grid.slots
        if one.end_ms is not None:  # one that is over its limit holds them still
            first, last = slots_of(grid.start_ms, max(one.end_ms, grid.start_ms + 1), grid)
        for site, part in ((s, p) for s, p in at.items() if s not in but):
            held.setdefault(site, np.zeros(grid.slots))[first:last] += gpus * part
            jobs[site] += 1
    notes = [
        f"{n} running jobs hold {held[site].max():g} GPUs of {site}, each until its time limit"
        for site, n in sorted(jobs.items())
    ]
    if lost:
        notes.append(
            f"{lost} running jobs are on nodes that the book does not have, and their GPUs are taken to be free"
        )
    more = [f"{len(odd) - _NAMED} more running jobs have a count, nodes or an end that cannot be read"]
    return held, [*notes, *odd[:_NAMED], *(more if len(odd) > _NAMED else [])]


def _assumed(one: Holder, gpus: float, at: Mapping[str, float]) -> str:
    """Return what is taken to be so of a job that cannot be read whole."""
    if not gpus:
        return "what it holds cannot be known, so there may be less room than the plan takes"
    if not at:
        return f"its {gpus:g} GPUs are taken to be free, so there may be less room than the plan takes"
    whole = "all " if one.gpus is None else ""
    return f"it is taken to hold {whole}{gpus:g} GPUs of {', '.join(one.where if whole else sorted(at))}"


def _gpus_on(nodes: Iterable[str], tree: AssetTree) -> float:
    """Return how many GPUs some nodes have, as far as the book knows them."""
    known = {node for node in nodes if node in tree.assets and tree.assets[node].kind == "node"}
    return float(sum(a.kind == "gpu" and a.parent in known for a in tree.assets.values()))


def _sites(where: list[str], tree: AssetTree) -> dict[str, float]:
    """Return the part of a job at each site; of nodes or sites that are named, or of the only site there is."""
    sites = [a.id for a in tree.assets.values() if a.kind == "site"]
    if len(sites) == 1:
        return {sites[0]: 1.0}
    found = Counter[str]()
    for name in where:
        if name in tree.assets:
            found[tree.site_of(name)] += 1
    return {site: n / len(where) for site, n in found.items()}
