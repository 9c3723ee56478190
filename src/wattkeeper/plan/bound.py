"""Prices of capacity, and with them a lower bound on the cost of every plan.

With a price on each GPU (and each kW of a power budget) in each slot, the jobs part company: every job takes its
cheapest option alone. What they then pay, less the prices of all capacity, is never more than any feasible plan costs
(Lagrangian relaxation; M. L. Fisher, Management Science 27(1), 1981). Prices climb by a deflected subgradient
(P. M. Camerini, L. Fratta, F. Maffioli, Mathematical Programming Study 3, 1975) with Polyak's step towards a level a
little above the best bound so far.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.jit import COMPILED
from wattkeeper.plan.kernel import price_jobs, wait_jobs
from wattkeeper.plan.modes import Delays, Lines, Modes, Places, Scratch
from wattkeeper.plan.problem import Grid, Problem

Floats = NDArray[np.float64]

SAMPLE = 2500
"""Jobs of the first, smallest sample; on a large grid it has at least one for two of its cells."""

_PARTS = 4
_WORTH_THREADS = 2000
_DEFLECT = 0.6
_FOLLOW = 5.0
_SMALL = 5000
_BLOCK_H = 336
_HALVINGS = 12
_JOINED = 60
_ROUNDING = 1e-11
"""Relative error that sums of float64 over all jobs can gather, taken off the bound."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a GPU and of a kW of IT power for one slot, (sites, slots) each, and the bound they give [g].

    passes: how often all jobs were priced to find them; a sample counts as its part. delay: (users,) price of the delay
    of each user whose delay is evened out [g per GPU-h].
    """

    gpu: Floats
    power: Floats
    bound: float
    passes: float = 0.0
    delay: Floats = field(default_factory=lambda: np.empty(0))


def no_prices(problem: Problem) -> Prices:
    """Return prices of 0, whose bound is what the jobs would cost if they did not share anything."""
    zeros = np.zeros_like(problem.gpus)
    return evaluate(problem, zeros, zeros).prices


@dataclass(frozen=True, slots=True)
class Choices:
    """What the jobs choose under some prices, capacity or not.

    cost: (n,) what each job's choice costs, prices included. over, over_kw: (sites, slots) GPUs and kW chosen beyond
    the limit, negative where there is room. delay: (users,) what the next GPU-h of each user's delay would cost [g].
    """

    prices: Prices
    places: Places
    cost: Floats
    over: Floats
    over_kw: Floats
    delay: Floats


def evaluate(problem: Problem, gpu: Floats, power: Floats, delay: Floats | None = None, *, every: int = 1) -> Choices:
    """Return what the jobs choose under some prices, and the bound that gives.

    delay: (users,) prices of the users' delay; default: 0. every: look at each such job only, counted as often; then
    the bound is an estimate and no bound.
    """
    steep = problem.delays.steep
    delay = np.zeros_like(steep) if delay is None else delay
    places, cost, chosen, used, used_kw = _choose(problem, problem.priced(delay), problem.lines(gpu, power), every)
    finite = np.isfinite(problem.power_kw)
    limit_kw = np.where(finite, problem.power_kw, 0.0)
    # steep / 2 × total² is at least price × total − price² / (2 steep), whatever the total
    paid_for = float((gpu * problem.gpus).sum() + (power * limit_kw).sum() + (delay * delay / (2 * steep)).sum())
    bound = every * chosen - paid_for - _ROUNDING * (abs(chosen) + abs(paid_for))
    over = every * np.cumsum(used, axis=1)[:, :-1] - problem.gpus
    over_kw = np.where(finite, every * np.cumsum(used_kw, axis=1)[:, :-1] - limit_kw, 0.0)
    prices = Prices(gpu, power, bound, 1.0 / every, delay)
    return Choices(prices, places, cost, over, over_kw, steep * every * waits(problem, places).total)


def waits(problem: Problem, places: Places) -> Delays:
    """Return the delays of the problem with the jobs where they stand; for the kernels, which keep count there."""
    delays = problem.delays._replace(total=np.zeros_like(problem.delays.total))
    if problem.users:
        wait_jobs(problem.modes, delays, places, everyone(problem))
    return delays


def price(problem: Problem, *, most: int | None = None) -> Prices:
    """Return good prices and their bound, which is never under that of `no_prices`.

    A horizon far longer than any job's window is first priced block by block, a large queue on samples of its jobs; then
    all prices climb together. most: passes over all jobs at most, of a long horizon over those of each block. Default:
    400, and 1000 for small queues, where a pass costs next to nothing.
    """
    most = most or (400 if len(problem.planned) > _SMALL else 1000)
    blocks = _by_blocks(problem, most)
    first = blocks or _by_samples(problem, most)
    if first is None:
        return climb(problem, most=most)
    sound = tempered(problem, first)
    before = first.passes + sound.passes
    left = _JOINED if blocks else max(int(most - before), 2)
    found = climb(problem, sound, most=left, delta=0.002 if blocks else 0.006)
    return replace(found, passes=found.passes + before)


def tempered(problem: Problem, start: Prices) -> Prices:
    """Return prices, halved until that no longer raises their bound: the bound is then not under that of `no_prices`.

    Along a line from no prices the bound is concave. So where half of some prices is no better, none at all is not either.
    """
    gpu, power, delay = start.gpu, start.power, start.delay if len(start.delay) == len(problem.users) else None
    best = evaluate(problem, gpu, power, delay).prices
    passes = 1.0
    while passes < _HALVINGS:
        half = evaluate(problem, best.gpu / 2, best.power / 2, best.delay / 2).prices
        passes += 1.0
        if half.bound <= best.bound:
            return replace(best, passes=passes)
        best = half
    return replace(max(best, no_prices(problem), key=lambda one: one.bound), passes=passes + 1.0)


def _by_samples(problem: Problem, most: int) -> Prices | None:
    """Return prices found for ever larger samples of a large queue; None of a small one. Their bound is an estimate."""
    prices: Prices | None = None
    spent = 0.0
    every = len(problem.planned) // max(SAMPLE, problem.gpus.size // 2)
    while every > 1:
        prices = climb(problem, prices, most=most, delta=0.01 if prices else 0.06, least=5e-4, every=every)
        spent += prices.passes
        every //= 4
    return prices and replace(prices, passes=spent)


def _by_blocks(problem: Problem, most: int) -> Prices | None:
    """Return prices of a long horizon, found for a block of it after the other; None of a short one. They have no bound.

    Hours that are weeks apart have little to do with each other, and one climb over all of them takes far more passes. A
    block is a fortnight, or the longest window of a job, and is priced with as much time on either side of it.
    """
    modes, slots, n = problem.modes, problem.grid.slots, len(problem.planned)
    if not n:
        return None
    begin, end = np.minimum.reduceat(modes.first, modes.mode0[:-1]), np.maximum.reduceat(modes.end, modes.mode0[:-1])
    margin = int((end - begin).max())
    block = max(round(_BLOCK_H / problem.grid.slot_h), margin)
    if slots <= 3 * block:
        return None
    gpu, power, passes = np.zeros_like(problem.gpus), np.zeros_like(problem.gpus), 0.0
    for first in range(0, slots, block):
        span = slice(max(first - margin, 0), min(first + block + margin, slots))
        jobs = np.flatnonzero((begin >= span.start) & (end <= span.stop)).astype(np.int64)
        if len(jobs):
            found = price(_part(problem, jobs, span), most=most)
            kept = slice(first - span.start, min(first + block, slots) - span.start)
            gpu[:, first : first + block], power[:, first : first + block] = found.gpu[:, kept], found.power[:, kept]
            passes += found.passes * len(jobs) / n
    return Prices(gpu, power, -np.inf, passes)


def _part(problem: Problem, jobs: NDArray[np.int64], span: slice) -> Problem:
    """Return the problem of some jobs in the slots of a span, in which all their modes lie; users' delay is left out."""
    modes, grid = problem.modes, problem.grid
    mode, mode0 = ranges(modes.mode0, jobs)
    phase, phase0 = ranges(modes.phase0, mode)
    whole = {"mode0", "phase0", "phase_end", "phase_kw", "mark0", "window0"}
    columns = {name: column[mode] for name, column in modes._asdict().items() if name not in whole}
    columns["first"], columns["end"] = columns["first"] - span.start, columns["end"] - span.start
    nobody = Delays(
        np.full(len(jobs), -1, np.int64), problem.delays.late[mode], problem.delays.each[mode], np.empty(0), np.empty(0)
    )
    return replace(
        problem,
        grid=Grid(grid.at_ms(span.start), grid.slot_ms, span.stop - span.start),
        planned=problem.planned[jobs],
        modes=Modes(
            mode0=mode0, phase0=phase0, phase_end=modes.phase_end[phase], phase_kw=modes.phase_kw[phase],
            mark0=ranges(modes.mark0, jobs)[1], window0=modes.window0[jobs] - span.start, **columns,
        ),
        levels=problem.levels[mode],
        rate=problem.rate[:, span],
        gpus=problem.gpus[:, span],
        power_kw=problem.power_kw[:, span],
        blind=problem.blind[:, span],
        users=(),
        delays=nobody,
    )  # fmt: skip


def ranges(begin: NDArray[np.int64], some: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of what begins at `begin` for some of its rows, one after the other, and where each begins."""
    count = begin[some + 1] - begin[some]
    begins = np.concatenate(([0], np.cumsum(count))).astype(np.int64)
    return np.arange(begins[-1]) + np.repeat(begin[some] - begins[:-1], count), begins


def climb(
    problem: Problem,
    start: Prices | None = None,
    *,
    most: int = 400,
    delta: float = 0.06,
    least: float = 2e-5,
    every: int = 1,
) -> Prices:
    """Return the prices with the best bound met on the way up from `start` (default: from 0).

    most: prices tried at most. delta: how far above the bound, as a part of it, the first steps aim; it is halved
    after some steps without a gain (more for small queues), until it is under `least`. every: as in `evaluate`.
    """
    zeros = np.zeros_like(problem.gpus)
    known = start.delay if start and len(start.delay) == len(problem.users) else None
    best = evaluate(problem, *((start.gpu, start.power) if start else (zeros, zeros)), known, every=every)
    here = best
    way, way_kw = np.zeros_like(best.over), np.zeros_like(best.over)
    scale = max(abs(best.prices.bound), 1e-12)
    failed, tried = 0, 1
    patience = min(max(40_000 // max(len(problem.planned), 1), 4), 16)
    while tried < most and len(problem.planned):
        # prices at 0 that would fall take no part in the step
        way = np.where((here.prices.gpu <= 0) & (here.over < 0), 0.0, here.over) + _DEFLECT * way
        way_kw = np.where((here.prices.power <= 0) & (here.over_kw < 0), 0.0, here.over_kw) + _DEFLECT * way_kw
        size = float((way * way).sum() + (way_kw * way_kw).sum())
        if size <= 0 and not problem.users:
            break
        step = (best.prices.bound + delta * scale - here.prices.bound) / size if size > 0 else 0.0
        gpu = np.maximum(here.prices.gpu + step * way, 0.0)
        power = np.maximum(here.prices.power + step * way_kw, 0.0)
        # the price of a user's delay is what its next hour costs: it follows the delay chosen, ever more slowly
        delay = here.prices.delay + min(_FOLLOW * delta, 0.5) * (here.delay - here.prices.delay)
        here = evaluate(problem, gpu, power, delay, every=every)
        tried += 1
        gained = here.prices.bound > best.prices.bound + 1e-6 * scale * delta
        failed = 0 if gained else failed + 1
        if here.prices.bound > best.prices.bound:
            best = here
            scale = max(abs(best.prices.bound), scale)
        if failed == patience:
            failed, here = 0, best
            way, way_kw = np.zeros_like(way), np.zeros_like(way)
            delta /= 2
            if delta < least:
                break
    return replace(best.prices, passes=tried / every)


def _choose(problem: Problem, modes: Modes, lines: Lines, every: int) -> tuple[Places, Floats, float, Floats, Floats]:
    """Price the jobs, in a fixed number of parts so that sums do not depend on the number of threads."""
    shape = (problem.gpus.shape[0], problem.gpus.shape[1] + 1)
    places, each = empty_places(problem), np.zeros(len(problem.planned))
    parts = np.array_split(np.arange(0, len(problem.planned), every, dtype=np.int64), _PARTS)

    def one(jobs: NDArray[np.int64]) -> tuple[float, Floats, Floats]:
        used, used_kw = np.zeros(shape), np.zeros(shape)
        cost = price_jobs(modes, lines, scratch_for(problem), jobs, places, each, used, used_kw)
        return cost, used, used_kw

    if COMPILED and len(problem.planned) > _WORTH_THREADS * every:
        done = list(_pool().map(one, parts))
    else:
        done = [one(jobs) for jobs in parts]
    used, used_kw = np.sum([d[1] for d in done], axis=0), np.sum([d[2] for d in done], axis=0)
    return places, each, sum(d[0] for d in done), used, used_kw


def empty_places(problem: Problem) -> Places:
    """Return places with no job placed."""
    n = len(problem.planned)
    return Places(np.full(n, -1, np.int64), np.zeros(n, np.int64), np.zeros(int(problem.modes.mark0[-1]), np.uint8))


def everyone(problem: Problem) -> NDArray[np.int64]:
    """Return all planned jobs, by number."""
    return np.arange(len(problem.planned), dtype=np.int64)


def scratch_for(problem: Problem) -> Scratch:
    """Return working room for the kernels."""
    length, window, resume = problem.reach
    slots, width = problem.grid.slots, length + 1
    return Scratch(
        np.empty(slots + 1), np.empty(slots + 1), np.empty((3 + resume) * width + 1), np.empty(window * width, np.uint8)
    )


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_PARTS)
