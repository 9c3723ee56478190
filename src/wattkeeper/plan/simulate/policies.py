"""Policies that back-tests compare. Each looks at one job alone, from its release on, and does not see the others.

All but one keep each job at its home. run now: at its release. cleanest site: the same, at the site where that is
cheapest. lowest window: in one piece, where the forecast is lowest in sum (P. Wiesner et al., Let's Wait Awhile,
Middleware '21). wait awhile: the lowest slots, where the job can be suspended (the same), with what resuming takes.
threshold: while the present value is at or under a quantile of the forecast, and when no slack is left. elastic: more
GPUs in low slots and fewer in high ones (W. Hanafy et al., CarbonScaler, SIGMETRICS '24).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.jit import njit
from wattkeeper.plan.bound import evaluate
from wattkeeper.plan.placement import placements
from wattkeeper.plan.simulate.foresight import Foresight
from wattkeeper.plan.simulate.history import History, Wish, wish_of

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

LEAST, MOST = 0.25, 2.0
"""GPUs that an elastic job may hold, over those it asks for."""


def run_now(history: History, foresight: Foresight) -> Wish:
    """Ask for each job at its release."""
    begin, length = history.begin.tolist(), history.length.tolist()
    return wish_of(history, [(j, a, a + k) for j, (a, k) in enumerate(zip(begin, length, strict=True))])


def cleanest_site(history: History, foresight: Foresight) -> Wish:
    """Ask for each job at its release at the site where the forecast of that time is lowest, moving its data included."""
    soonest = history.release + history.moving.max(1) + history.length
    deadline_ms = np.minimum(history.grid.start_ms + soonest * history.grid.slot_ms, history.jobs.deadline_ms)
    hurried = replace(
        history, due=np.minimum(soonest, history.due), jobs=replace(history.jobs, deadline_ms=deadline_ms)
    )
    return _alone(hurried, foresight, whole=True)


def lowest_window(history: History, foresight: Foresight) -> Wish:
    """Ask for each job in one piece, where the forecast at its release is lowest."""
    return _alone(history.at_home(), foresight, whole=True)


def wait_awhile(history: History, foresight: Foresight) -> Wish:
    """Ask for the lowest slots of each job that can be suspended, and for the lowest window of the others."""
    return _alone(history.at_home(), foresight, whole=False)


def threshold(history: History, foresight: Foresight, quantile: float = 0.3) -> Wish:
    """Ask for the slots in which the present value is under a quantile of the forecast until the deadline."""
    stretches = []
    held = np.zeros(history.grid.slots, np.bool_)
    begin, now = history.begin, _rate(history, foresight.true)
    for some, seen in _by_release(history, foresight):
        rate = _rate(history, seen)
        for j in some.tolist():
            first, due, home = int(begin[j]), int(history.due[j]), int(history.home[j])
            limit = float(np.quantile(rate[home, first:due], quantile))
            held[first:due] = False
            _under(now[home], limit, first, due, int(history.length[j]), int(history.restore[j]), held)
            turns = np.flatnonzero(np.diff(np.concatenate(([False], held[first:due], [False])).view(np.int8))) + first
            stretches += [(j, int(a), int(b)) for a, b in turns.reshape(-1, 2)]
    return wish_of(history, stretches)


def elastic(history: History, foresight: Foresight, scaling: float = 0.9) -> Wish:
    """Ask for more GPUs in low slots and fewer in high ones, for each job that can be suspended.

    k GPUs do (k / asked)^scaling of the work that the asked do, at a power in proportion to k. Steps of a quarter of
    the GPUs asked for, from LEAST to MOST of them, are taken in the order of work for what they cost, until the job is
    done. Where a job takes time to be restored, it holds GPUs for that before it comes back, and it does not rest in
    breaks no longer than that. Other jobs have the lowest window.
    """
    rigid = lowest_window(history, foresight)
    restore = history.restore
    rows = [row[:6] for row in zip(*(c.tolist() for c in rigid), strict=True) if restore[row[0]] < 0]
    for some, seen in _by_release(history, foresight):
        rate = _rate(history, seen)
        for j in some[restore[some] >= 0].tolist():
            rows += _scaled(history, rate[history.home[j]], j, scaling)
    rows.sort(key=lambda r: (r[0], r[1]))
    whole = np.array([(j, a, b, gpus, restored) for j, a, b, gpus, _, restored in rows], np.int64).reshape(-1, 5).T
    kw = np.array([row[4] for row in rows], np.float64)
    return Wish(whole[0], whole[1], whole[2], whole[3], kw, whole[4], history.home[whole[0]])


POLICIES = {
    "run now": run_now,
    "cleanest site": cleanest_site,
    "lowest window": lowest_window,
    "wait awhile": wait_awhile,
    "threshold": threshold,
    "elastic": elastic,
}


def _by_release(history: History, foresight: Foresight) -> Iterator[tuple[Int64s, Floats]]:
    """Yield the jobs of each release slot, and the intensity as it looks from there, (sites, slots); all at once where
    that is the truth."""
    if foresight.seen is foresight.true:
        yield np.arange(len(history.jobs), dtype=np.int64), foresight.true
        return
    order = np.argsort(history.release, kind="stable")
    slots, begin = np.unique(history.release[order], return_index=True)
    for slot, some in zip(slots.tolist(), np.split(order, begin[1:]), strict=True):
        yield some.astype(np.int64), foresight.at(slot)


def _rate(history: History, intensity: Floats) -> Floats:
    """Return what 1 kWh of IT energy costs by slot [g]."""
    rate = history.weights.carbon * intensity
    if history.weights.money_g:
        rate = rate + history.weights.money_g * history.column("price_per_kwh")
    return np.asarray(rate * history.column("pue"))


def _alone(history: History, foresight: Foresight, *, whole: bool) -> Wish:
    """Let each job take its cheapest place on empty sites, as the forecast at its release shows it."""
    number = {site.id: i for i, site in enumerate(history.sites)}
    site, stretches = history.home.copy(), []
    for some, seen in _by_release(history, foresight):
        problem = history.problem(seen, some, whole=whole)
        since = int(history.release[some].min())
        chosen = evaluate(problem, np.zeros_like(problem.gpus), np.zeros_like(problem.gpus)).places
        for q, one in zip(some[problem.planned].tolist(), placements(problem, chosen), strict=True):
            if one:
                site[q] = number[one.site]
                stretches += [(q, a + since, b + since) for a, b in one.slots]
    return wish_of(history, stretches, site)


@njit
def _under(now: Floats, limit: float, first: int, due: int, length: int, restore: int, held: NDArray[np.bool_]) -> None:
    """Mark the slots a job holds: those at or under the limit, and all that it needs when no slack is left."""
    left, slot, begun, running = length, first, False, False
    while left > 0:
        back = restore if begun and restore > 0 else 0
        pressed = due - (slot + 1) < left + back
        if now[slot] <= limit or pressed or (running and restore < 0):
            if begun and not running:
                for _ in range(back):
                    held[slot] = True
                    slot += 1
            held[slot] = True
            left -= 1
            begun = running = True
        else:
            running = False
        slot += 1


def _scaled(history: History, rate: Floats, j: int, scaling: float) -> list[tuple[int, int, int, int, float, int]]:
    """Return the stretches of one elastic job."""
    first, due, asked = int(history.begin[j]), int(history.due[j]), int(history.jobs.gpus[j])
    restore, length = int(history.restore[j]), int(history.length[j])
    # quarters of the GPUs asked for, rounded up, so that those asked for are among them
    quarters = -(-asked * np.arange(LEAST, MOST + LEAST, LEAST) // 1).astype(np.int64)
    counts = np.unique(np.minimum(np.concatenate(([0], quarters)), history.gpus[history.home[j]]))
    work = (counts / asked) ** scaling
    # cost of a step of GPUs over the work it adds, by slot: rising along the steps, as work is concave
    each = rate[first:due, None] * (np.diff(counts) / np.diff(work))[None, :]
    order = np.argsort(each, axis=None, kind="stable") // (len(counts) - 1)

    def steps(taken: int) -> Int64s:
        """Return the steps of GPUs by slot: the cheapest, and one in breaks too short to be restored in."""
        return _bridged(np.bincount(order[:taken], minlength=due - first).astype(np.int64), restore)

    least = bisect_left(range(len(order)), length - 1e-9, key=lambda taken: float(work[steps(taken)].sum()))
    held = counts[steps(least)]
    edges = np.flatnonzero(np.diff(np.concatenate(([0], held, [0]))))
    found: list[tuple[int, int, int, int, float, int]] = []
    for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if held[a]:
            gpus = int(held[a])
            broken = bool(found) and found[-1][2] != first + a
            # what is restored holds its GPUs before it works
            since, restored = (a - restore, restore) if broken else (a, -1)
            found.append((j, first + since, first + b, gpus, float(history.kw[j] * gpus / asked), restored))
    return found


def _bridged(steps: Int64s, restore: int) -> Int64s:
    """Return the steps with one in each break between them that is not longer than being restored."""
    used = np.flatnonzero(steps)
    for a, b in zip(used[:-1].tolist(), used[1:].tolist(), strict=True):
        if b - a - 1 <= restore:
            steps[a + 1 : b] = 1
    return steps
