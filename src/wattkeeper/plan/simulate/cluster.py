"""What a simulated cluster draws: energy curves that the ledger's own signals weigh, and readings that fill a book."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.curve import EnergyCurve
from wattkeeper.core.roles import Intake
from wattkeeper.core.schema import ALLOCATIONS, JOBS, READINGS

Int64s = NDArray[np.int64]

_NO_MARKS, _NO_EVENTS = np.empty((0, 3), np.int64), np.empty((0, 4), np.int64)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The machines of a simulated cluster: `gpus` in nodes of `per_node`, at one site.

    idle_w: power of a GPU that nobody holds [W].
    """

    site: str
    gpus: int
    per_node: int = 8
    idle_w: float = 0.0

    def node(self, gpu: int) -> str:
        """Return the node of a GPU, by number."""
        return f"{self.site}-n{gpu // self.per_node + 1:04d}"

    def asset(self, gpu: int) -> str:
        """Return the id of a GPU, by number."""
        return f"{self.node(gpu)}/gpu{gpu % self.per_node}"


@dataclass(frozen=True, slots=True)
class Stretches:
    """When jobs held GPUs, (n,) each: the job by number, from, to before [ms UTC], how many, and their power [mW]."""

    job: Int64s
    start_ms: Int64s
    end_ms: Int64s
    gpus: Int64s
    power_mw: Int64s


def curve_of(start_ms: Int64s, end_ms: Int64s, power_mw: Int64s, span_ms: tuple[int, int]) -> EnergyCurve:
    """Return the energy of all stretches together over a span [ms UTC], exact and floored to mJ at each change.

    start_ms, end_ms, power_mw: (n,). What lies outside the span does not count.
    """
    first, last = span_ms
    begin, end = np.clip(start_ms, first, last), np.clip(end_ms, first, last)
    times_ms, at = np.unique(np.concatenate(([first, last], begin, end)), return_inverse=True)
    change = np.zeros(len(times_ms), np.int64)
    np.add.at(change, at[2:], np.concatenate((power_mw, -power_mw)))
    watts, rest_mw = np.divmod(np.cumsum(change)[:-1], 1000)
    length_ms = np.diff(times_ms)
    # W × ms is mJ; what is left of a watt counts in µJ, so that no sum comes near the end of int64
    energy_mj = np.cumsum(watts * length_ms) + np.cumsum(rest_mw * length_ms) // 1000
    return EnergyCurve(times_ms, np.concatenate(([0], energy_mj)), _NO_MARKS, _NO_EVENTS)


def gpus_of(held: Stretches, gpus: int) -> list[list[int]]:
    """Return which GPUs each stretch holds: the free ones of the lowest numbers.

    Raises ValueError where more are held than there are.
    """
    free = list(range(gpus))
    given: list[list[int]] = [[] for _ in held.job]
    # ends before starts of the same instant
    events = sorted(
        [(int(t), 1, i) for i, t in enumerate(held.start_ms)] + [(int(t), 0, i) for i, t in enumerate(held.end_ms)]
    )
    for _, begins, i in events:
        if not begins:
            for gpu in given[i]:
                heapq.heappush(free, gpu)
        elif held.gpus[i] > len(free):
            raise ValueError(f"Stretch {i} needs {held.gpus[i]} GPUs and {len(free)} are free.")
        else:
            given[i] = [heapq.heappop(free) for _ in range(held.gpus[i])]
    return given


def intake(fleet: Fleet, held: Stretches, jobs: Sequence[str], span_ms: tuple[int, int], step_ms: int) -> Intake:
    """Return the cluster as a batch for a book: nodes, GPUs, a joule counter of each, jobs and what they held.

    jobs: ids, by number. The counters are read every step_ms over the span [ms UTC].
    """
    given = gpus_of(held, fleet.gpus)
    per_gpu: list[list[int]] = [[] for _ in range(fleet.gpus)]
    for i, some in enumerate(given):
        for gpu in some:
            per_gpu[gpu].append(i)
    read_ms = np.arange(span_ms[0], span_ms[1] + 1, step_ms, dtype=np.int64)
    idle_mw = round(fleet.idle_w * 1000)
    readings = []
    for gpu, some in enumerate(per_gpu):
        own = np.array(some, np.int64)
        power_mw = held.power_mw[own] // held.gpus[own] - idle_mw
        begin, end = (
            np.append(column[own], edge) for column, edge in zip((held.start_ms, held.end_ms), span_ms, strict=True)
        )
        curve = curve_of(begin, end, np.append(power_mw, idle_mw), span_ms)
        readings.append(pl.DataFrame({"meter": _meter(fleet, gpu), "time_ms": read_ms, "value": curve.at(read_ms)}))
    columns = (getattr(held, name).tolist() for name in ("job", "start_ms", "end_ms", "gpus"))
    rows = [(jobs[j], begin, end, gpus) for j, begin, end, gpus in zip(*columns, strict=True)]
    holds = [
        (name, fleet.asset(gpu), begin, end, 1.0, False)
        for (name, begin, end, _), some in zip(rows, given, strict=True)
        for gpu in some
    ]
    held_rows = pl.DataFrame(rows, {c: JOBS.schema[c] for c in ("job_id", "start_ms", "end_ms", "gpus")}, orient="row")
    table = held_rows.group_by("job_id", maintain_order=True).agg(
        pl.col("start_ms").min(), pl.col("end_ms").max(), pl.col("gpus").max(), state=pl.lit("COMPLETED")
    )
    nodes = dict.fromkeys(fleet.node(gpu) for gpu in range(fleet.gpus))
    return Intake(
        "simulation",
        assets=[Asset(n, "node", fleet.site) for n in nodes]
        + [Asset(fleet.asset(g), "gpu", fleet.node(g)) for g in range(fleet.gpus)],
        meters=[
            Meter(_meter(fleet, g), fleet.asset(g), "energy_counter", "simulation", max_gap_ms=2 * step_ms)
            for g in range(fleet.gpus)
        ],
        readings=pl.concat(readings).select(READINGS.schema.names()),
        jobs=pl.concat([JOBS.empty(), table], how="diagonal"),
        allocations=pl.DataFrame(holds, ALLOCATIONS.schema, orient="row"),
    )


def _meter(fleet: Fleet, gpu: int) -> str:
    return f"{fleet.asset(gpu)}:energy"
