"""Plans: jobs put where prices say, moved out of each other's way, then each to its best free place.

Too many jobs in a slot are first allowed and made dearer turn by turn until none is left, as wires negotiate for room
on a chip (L. McMurchie, C. Ebeling, PathFinder, FPGA '95). Big gangs so win room from small jobs that can go elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.bound import Prices, empty_places, evaluate, everyone, price, scratch_for, waits
from wattkeeper.plan.kernel import cost_jobs, hold_jobs, move_jobs, ruin_jobs
from wattkeeper.plan.modes import NOWHERE, RIGID, Delays, Places, Room
from wattkeeper.plan.problem import CRITICAL, Problem

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

_TURNS = 80
_FIRST_PENALTY = 0.05
_DEARER, _DEARER_THERE = 1.1, 1.3
_GROUP = 10
_REACH = 40
_TRIES = 4
_PRICED = 0.5
_SLACK = 0.1
_SCALES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where every job of a problem stands, what that costs [g], and the bound that no plan can be below.

    Costs count the placed jobs only; `unplaced` names those that found no room, which is a failure and no saving.
    """

    problem: Problem
    places: Places
    prices: Prices
    cost_g: float

    @property
    def bound_g(self) -> float:
        """The lower bound [g]."""
        return self.prices.bound

    @property
    def unplaced(self) -> list[str]:
        """Ids of jobs that found no room."""
        ids = self.problem.jobs.ids
        return [ids[self.problem.planned[j]] for j in np.flatnonzero(self.places.mode == NOWHERE)]

    @property
    def gap(self) -> float | None:
        """How far the cost is above the bound, as a part of the bound; None with unplaced jobs or no positive bound."""
        if (self.places.mode == NOWHERE).any() or self.bound_g <= 0:
            return None
        return (self.cost_g - self.bound_g) / self.bound_g


def plan(problem: Problem, *, prices: Prices | None = None, seed: int = 0, keep_room: bool = False) -> Plan:
    """Plan all jobs. prices: found before; default: found here. keep_room: let prices count to the end, so that the
    room they stand for is left to jobs still to come.

    Equal arguments give equal plans. What finds no room is left unplaced only where no way was found to place all.
    """
    rng = np.random.default_rng(seed)
    scales = (1.0, 1.0, 1.0) if keep_room else _SCALES
    prices = prices or price(problem)
    places = evaluate(problem, prices.gpu, prices.power, prices.delay).places
    room = room_of(problem, places)
    if not negotiate(problem, prices, places, room, rng):
        _insist(problem, prices, places, room)
    settle(problem, prices, places, room, rng, scales)
    if (places.mode == NOWHERE).any():
        other = run_now(problem)
        if (other.mode == NOWHERE).sum() < (places.mode == NOWHERE).sum():
            places, room = other, room_of(problem, other)
            settle(problem, prices, places, room, rng, scales)
    return Plan(problem, places, prices, cost_of(problem, places))


def run_now(problem: Problem) -> Places:
    """Return the baseline: first come first served, each job in one piece at full power, as soon as it fits.

    Critical jobs come first. Of places that are equally soon it takes the one that moves no data. Deadlines count: a
    job that cannot keep its own this way is NOWHERE.
    """
    modes = problem.modes
    slowed = np.where(problem.levels == 0, 0.0, 2.0 * problem.grid.slots)
    hurried = modes._replace(
        fixed=modes.first + modes.length + slowed + 0.5 * _share(modes.fixed),
        delay=np.ones(len(modes.site)),
        resume=np.full_like(modes.resume, RIGID),
        phase_kw=np.zeros_like(modes.phase_kw),
    )
    places = empty_places(problem)
    order = np.lexsort((problem.jobs.release_ms[problem.planned], ~_critical(problem))).astype(np.int64)
    nothing = np.zeros_like(problem.gpus)
    room = room_of(problem, None)
    nobody = problem.delays._replace(user=np.full(len(problem.planned), -1, np.int64))
    move_jobs(hurried, problem.plain, nobody, scratch_for(problem), order, places, room, nothing, True, 0.0, False)
    for j in np.flatnonzero((modes.resume[places.mode] != RIGID) & (places.mode != NOWHERE)):
        at = modes.mark0[j] + places.start[j] - modes.window0[j]
        places.marks[at : at + modes.length[places.mode[j]]] = 1
    return places


def _share(values: Floats) -> Floats:
    """Return values scaled to 0 … 1."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def room_of(problem: Problem, places: Places | None) -> Room:
    """Return what is left on the grid when some places are taken."""
    room = Room(problem.gpus.copy(), problem.power_kw.copy())
    if places is not None:
        hold_jobs(problem.modes, places, everyone(problem), room, 1.0)
    return room


def cost_of(problem: Problem, places: Places) -> float:
    """Return what the placed jobs cost, uneven delay included [g]."""
    each = float(cost_jobs(problem.modes, problem.plain, places, everyone(problem), np.empty(len(places.mode))))
    return each + uneven_g(problem, places)


def uneven_g(problem: Problem, places: Places) -> float:
    """Return what the plan is charged for users' waiting unevenly: the sum of fairness / 2 × GPUs × (mean delay)² [g]."""
    return float((problem.delays.steep / 2 * waits(problem, places).total ** 2).sum())


def negotiate(
    problem: Problem, prices: Prices, places: Places, room: Room, rng: np.random.Generator, jobs: Int64s | None = None
) -> bool:
    """Move jobs until no slot holds too much; return whether that was reached. places and room change.

    jobs: those that may move; default: all.
    """
    lines = problem.lines(prices.gpu, prices.power)
    scratch = scratch_for(problem)
    mean = max(abs(prices.bound), 1e-9) / max(float(problem.gpus.sum()), 1.0)
    penalty = np.full_like(problem.gpus, _FIRST_PENALTY * mean) + 0.3 * prices.gpu
    order = everyone(problem) if jobs is None else jobs.copy()
    delays = waits(problem, places)
    for _ in range(_TURNS):
        over = overfull(room)
        if not over.any():
            return True
        rng.shuffle(order)
        move_jobs(problem.modes, lines, delays, scratch, order, places, room, penalty, False, 0.0, True)
        penalty *= np.where(overfull(room), _DEARER * _DEARER_THERE, _DEARER)
    return not overfull(room).any()


def settle(
    problem: Problem,
    prices: Prices,
    places: Places,
    room: Room,
    rng: np.random.Generator,
    scales: tuple[float, ...] = _SCALES,
    jobs: Int64s | None = None,
    keep: float = 0.0,
) -> None:
    """Move each job to its best place that fits, turn by turn, prices counting less and less. See move_jobs."""
    scratch = scratch_for(problem)
    nothing = np.zeros_like(problem.gpus)
    order = everyone(problem) if jobs is None else jobs.copy()
    delays = waits(problem, places)
    for scale in scales:
        lines = problem.lines(prices.gpu * scale, prices.power * scale)
        rng.shuffle(order)
        move_jobs(problem.modes, lines, delays, scratch, order, places, room, nothing, True, keep, False)


def improve(made: Plan, *, rounds: int = 20, seed: int = 0) -> Plan:
    """Return a plan that costs at most as much: groups of jobs near in time are taken out and put back in turn.

    rounds: each tries about one group for every two jobs, at most 20 000. This is ruin and recreate (G. Schrimpf et
    al., Journal of Computational Physics 159(2), 2000): a little more cost is accepted at first, and the best is kept.
    It helps small queues and big gangs; large queues are as good as the bound can tell without it.
    """
    problem, rng = made.problem, np.random.default_rng(seed)
    places = _copy(made.places)
    room, delays = room_of(problem, places), waits(problem, places)
    n = len(places.mode)
    tries = min(n // 2 + 50, 20_000)
    slack = _SLACK * abs(made.cost_g) / max(n, 1) * min(1.0, 1000 / max(n, 1))
    best, least = made.places, made.cost_g
    for turn in range(rounds if n > 1 else 0):
        groups = _by_start(places)[_near(rng, n, tries)]
        groups = np.where(np.arange(groups.shape[1]) < rng.integers(2, _GROUP + 1, tries)[:, None], groups, -1)
        _rebuild(problem, made.prices, places, room, delays, rng, groups, slack * (1.0 - (turn + 1) / rounds))
        if (cost := cost_of(problem, places)) < least:
            best, least = _copy(places), cost
    return Plan(problem, best, made.prices, least)


def mend(
    problem: Problem, prices: Prices, places: Places, room: Room, rng: np.random.Generator, jobs: Int64s, keep: float
) -> None:
    """Take out some jobs, each with a few near it in time, and put them back where they fit best. places and room change.

    A group moves only where that gains more than `keep` of what a job costs on average: no plan gets dearer, and after
    finitely many moves nothing moves any more. The work is in proportion to the number of jobs named.
    """
    order, n = _by_start(places), len(places.mode)
    if n < 2:
        return
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    centre = np.repeat(jobs, _TRIES)
    reach = np.exp(rng.uniform(0, np.log(_REACH), len(centre))).astype(np.int64)
    reach = np.minimum(reach, max(n // _GROUP, 1))
    steps = np.arange(_GROUP) - rng.integers(0, _GROUP, len(centre))[:, None]
    ranks = rank[centre][:, None] + reach[:, None] * steps
    near = (ranks >= 0) & (ranks < n) & ((steps == 0) | (rng.random(ranks.shape) < rng.random(len(centre))[:, None]))
    least = keep * abs(cost_of(problem, places)) / n
    groups = np.where(near, order[np.clip(ranks, 0, n - 1)], -1)
    _rebuild(problem, prices, places, room, waits(problem, places), rng, groups, -least)


def _rebuild(
    problem: Problem, prices: Prices, places: Places, room: Room, delays: Delays, rng: np.random.Generator,
    groups: Int64s, slack: float,
) -> None:  # fmt: skip
    """Take groups of jobs out and put them back in random order; see ruin_jobs. groups: (g, k), −1 for none."""
    groups = rng.permuted(groups, axis=1)
    spare = np.empty(int(np.diff(problem.modes.mark0).max(initial=0)) * groups.shape[1], np.uint8)
    priced = rng.random(len(groups)) < _PRICED
    lines, nothing = problem.lines(prices.gpu, prices.power), np.zeros_like(problem.gpus)
    ruin_jobs(
        problem.modes,
        problem.plain,
        lines,
        delays,
        scratch_for(problem),
        groups,
        priced,
        places,
        spare,
        room,
        nothing,
        slack,
    )


def _by_start(places: Places) -> Int64s:
    """Return the jobs in the order of their starts, those without a place first."""
    return np.argsort(np.where(places.mode == NOWHERE, -1, places.start), kind="stable").astype(np.int64)


def _copy(places: Places) -> Places:
    return Places(places.mode.copy(), places.start.copy(), places.marks.copy())


def _near(rng: np.random.Generator, n: int, tries: int) -> Int64s:
    """Return groups of different ranks near each other, (tries, up to _GROUP)."""
    most = min(_GROUP, n)
    reach = np.minimum(np.exp(rng.uniform(0, np.log(_REACH), tries)).astype(np.int64), max((n - 1) // most, 1))
    first = (rng.random(tries) * (n - reach * (most - 1))).astype(np.int64)
    ranks: Int64s = first[:, None] + reach[:, None] * np.arange(most)
    return ranks


def _insist(problem: Problem, prices: Prices, places: Places, room: Room) -> None:
    """Take out what stands in slots that hold too much, and put it back where it fits: critical jobs, then the largest."""
    modes, out = problem.modes, crowded(problem, places, room)
    size = (modes.gpus * modes.length)[places.mode[out]]
    out = out[np.lexsort((-size, ~_critical(problem)[out]))].astype(np.int64)
    hold_jobs(modes, places, out, room, -1.0)
    places.mode[out] = NOWHERE
    lines = problem.lines(prices.gpu, prices.power)
    nothing = np.zeros_like(problem.gpus)
    delays = waits(problem, places)
    move_jobs(modes, lines, delays, scratch_for(problem), out, places, room, nothing, True, 0.0, False)


def crowded(problem: Problem, places: Places, room: Room | None = None) -> Int64s:
    """Return the jobs between whose first and last slot some slot holds too much. room: what the places leave."""
    modes, room = problem.modes, room or room_of(problem, places)
    over = np.zeros((room.gpus.shape[0], room.gpus.shape[1] + 1), np.int64)
    np.cumsum(overfull(room), axis=1, out=over[:, 1:])
    end = np.where(modes.resume[places.mode] == RIGID, places.start + modes.length[places.mode], modes.end[places.mode])
    site = modes.site[places.mode]
    return np.flatnonzero((places.mode != NOWHERE) & (over[site, end] > over[site, places.start])).astype(np.int64)


def _critical(problem: Problem) -> NDArray[np.bool_]:
    return np.asarray(problem.jobs.tier[problem.planned] == CRITICAL)


def overfull(room: Room) -> NDArray[np.bool_]:
    """Return the slots that hold too much, (sites, slots)."""
    return (room.gpus < 0.0) | (room.kw < -1e-9)
