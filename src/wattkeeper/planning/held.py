"""What running jobs hold: GPUs that a scheduler has given away, site by site over the slots of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.assets import AssetTree
from wattkeeper.integrations.kueue import queue as kueue
from wattkeeper.integrations.slurm import queue as slurm
from wattkeeper.plan.problem import Grid
from wattkeeper.planning.queue import printed
from wattkeeper.planning.supply import slots_of

Floats = NDArray[np.float64]


def held_gpus(path: Path, tree: AssetTree, grid: Grid, but: Container[str] = ()) -> tuple[dict[str, Floats], list[str]]:
    """Return by site the GPUs that running jobs hold, (slots,) each, and sentences on them.

    A job holds its GPUs until its time limit, and to the end where it has none. Only what a scheduler printed (.json)
    says what runs. but: sites whose free GPUs are known otherwise. Raises ImportFileError where it is none of that.
    """
    held: dict[str, Floats] = {}
    jobs, lost = Counter[str](), 0
    for _, gpus, where, end_ms in printed(path, slurm.running, kueue.running) if path.suffix == ".json" else ():
        at = _sites(where, tree)
        lost += not at
        first, last = 0, grid.slots
        if end_ms is not None:  # one that is over its limit holds them still
            first, last = slots_of(grid.start_ms, max(end_ms, grid.start_ms + 1), grid)
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
    return held, notes


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
