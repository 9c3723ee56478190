"""The planner's kernels: price every job's cheapest option, and move jobs one by one on a grid of sites and slots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.jit import njit
from wattkeeper.plan.modes import FAR, NOWHERE, RIGID, Delays, Lines, Marks, Modes, Places, Room, Scratch
from wattkeeper.plan.options import (
    choose_slots,
    mark_slots,
    own_cost,
    own_delay,
    seek,
    unevenness,
    weigh,
    weigh_again,
    weigh_slots,
)

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]


@njit
def price_jobs(
    modes: Modes,
    lines: Lines,
    scratch: Scratch,
    jobs: Int64s,
    places: Places,
    cost: Floats,
    used: Floats,
    used_kw: Floats,
) -> float:
    """Let every one of some jobs take its cheapest option, capacity or not; return the sum of their costs.

    places and cost (n,) are filled; used and used_kw gain, as differences along time, (sites, slots + 1).
    """
    total = 0.0
    for j in jobs:
        best, mode, start = FAR, NOWHERE, 0
        for m in range(modes.mode0[j], modes.mode0[j + 1]):
            if modes.resume[m] == RIGID:
                n = weigh(modes, lines, m, (modes.fixed[m], modes.delay[m], 0.0), scratch.cost)
                at, least = 0, best
                for t in range(n):
                    if scratch.cost[t] < least:
                        least = scratch.cost[t]
                        at = t
                if least < best:
                    best, mode, start = least, m, modes.first[m] + at
            else:
                n = weigh_slots(modes, lines, m, scratch.cost)
                scratch.over[: n + 1] = 0.0
                least = choose_slots(modes, lines, m, (modes.fixed[m], modes.delay[m], 0.0), scratch, best)
                if least < best:
                    best, mode = least, m
                    start = mark_slots(modes, m, scratch, places.marks, j)
        places.mode[j] = mode
        places.start[j] = start
        cost[j] = best
        total += best
        _spread(modes, places, j, used, used_kw)
    return total


@njit
def move_jobs(
    modes: Modes,
    lines: Lines,
    delays: Delays,
    scratch: Scratch,
    order: Int64s,
    places: Places,
    room: Room,
    penalty: Floats,
    hard: bool,
    keep: float,
    only_over: bool,
) -> int:
    """Take each job of the order out and put it where it costs least now; return how many stand elsewhere after.

    delays.total holds what the users' jobs wait before, and then after.
    penalty: (sites, slots) cost of one GPU (or, with a budget, the share of power it stands for) too many in a slot.
    hard: take only places that fit; a job that finds none is left NOWHERE. keep: a job that stands in a place that
    fits moves only for a gain beyond this part of its cost.
    only_over: leave jobs alone that stand in no slot with too much in it.
    """
    moved = 0
    for j in order:
        old_mode, old_start = places.mode[j], places.start[j]
        if only_over and old_mode != NOWHERE and not _touches_over(modes, places, j, room):
            continue
        if old_mode != NOWHERE:
            _lay(modes, delays, places, j, room, -1.0)
        old_cost = FAR
        if keep > 0.0 and old_mode != NOWHERE and _fits(modes, places, j, room):
            old_cost = own_cost(modes, lines, places, j) + unevenness(modes, delays, places, j)
        best, mode, start, marked = seek(modes, lines, delays, scratch, j, room, penalty, hard)
        if mode == NOWHERE or (keep > 0.0 and best >= old_cost - keep * abs(old_cost)):
            mode, start, marked = old_mode, old_start, False
            if mode != NOWHERE and hard and not _fits(modes, places, j, room):
                mode = NOWHERE
        elif marked:
            weigh_again(modes, lines, delays, j, mode, room, penalty, hard, scratch)
            start = mark_slots(modes, mode, scratch, places.marks, j)
        places.mode[j] = mode
        places.start[j] = start
        if mode != NOWHERE:
            _lay(modes, delays, places, j, room, 1.0)
        if mode != old_mode or start != old_start:
            moved += 1
    return moved


@njit
def ruin_jobs(
    modes: Modes,
    plain: Lines,
    priced: Lines,
    delays: Delays,
    scratch: Scratch,
    groups: Int64s,
    coins: NDArray[np.bool_],
    places: Places,
    spare: Marks,
    room: Room,
    nothing: Floats,
    slack: float,
) -> int:
    """Take groups of jobs out and put them back in order where they fit best; keep what costs hardly more than before.

    groups: (g, k) jobs, −1 for none. coins: (g,) whether prices count while they are put back. spare: room for the
    marks of one group's jobs. plain: lines without prices, which costs are counted in. slack: how much more a group may
    cost after. Returns how many groups gained.
    """
    gained = 0
    for g in range(len(groups)):
        group = groups[g]
        old_mode, old_start = places.mode[group], places.start[group]
        lines = priced if coins[g] else plain
        old_cost = 0.0
        kept = 0
        for i in range(len(group)):
            j = group[i]
            if j < 0 or old_mode[i] == NOWHERE:
                continue
            _lay(modes, delays, places, j, room, -1.0)
            old_cost += own_cost(modes, plain, places, j) + unevenness(modes, delays, places, j)
            places.mode[j] = NOWHERE
            for at in range(modes.mark0[j], modes.mark0[j + 1]):
                spare[kept] = places.marks[at]
                kept += 1
        new_cost = 0.0
        whole = True
        for i in range(len(group)):
            j = group[i]
            if j < 0 or old_mode[i] == NOWHERE:
                continue
            _, mode, start, marked = seek(modes, lines, delays, scratch, j, room, nothing, True)
            if mode == NOWHERE:
                whole = False
                break
            if marked:
                weigh_again(modes, lines, delays, j, mode, room, nothing, True, scratch)
                start = mark_slots(modes, mode, scratch, places.marks, j)
            places.mode[j], places.start[j] = mode, start
            new_cost += own_cost(modes, plain, places, j) + unevenness(modes, delays, places, j)
            _lay(modes, delays, places, j, room, 1.0)
        if whole and new_cost <= old_cost + slack:
            gained += new_cost < old_cost * (1.0 - 1e-9)
            continue
        kept = 0
        for i in range(len(group)):
            j = group[i]
            if j < 0 or old_mode[i] == NOWHERE:
                continue
            if places.mode[j] != NOWHERE:
                _lay(modes, delays, places, j, room, -1.0)
            places.mode[j], places.start[j] = old_mode[i], old_start[i]
            for at in range(modes.mark0[j], modes.mark0[j + 1]):
                places.marks[at] = spare[kept]
                kept += 1
        for j in group:
            if j >= 0 and places.mode[j] != NOWHERE:
                _lay(modes, delays, places, j, room, 1.0)
    return gained


@njit
def cost_jobs(modes: Modes, lines: Lines, places: Places, jobs: Int64s, cost: Floats) -> float:
    """Fill in what each placed one of some jobs costs, 0 for the others; return the sum."""
    total = 0.0
    for j in jobs:
        cost[j] = 0.0 if places.mode[j] == NOWHERE else own_cost(modes, lines, places, j)
        total += cost[j]
    return total


@njit
def hold_jobs(modes: Modes, places: Places, jobs: Int64s, room: Room, sign: float) -> None:
    """Take the room that jobs hold off the grid (sign 1), or give it back (−1)."""
    for j in jobs:
        if places.mode[j] != NOWHERE:
            _hold(modes, places, j, room, sign)


@njit
def wait_jobs(modes: Modes, delays: Delays, places: Places, jobs: Int64s) -> None:
    """Add the delay of some jobs, those that are placed, to their users' totals."""
    for j in jobs:
        if places.mode[j] != NOWHERE and delays.user[j] >= 0:
            delays.total[delays.user[j]] += own_delay(modes, delays, places, j)


@njit
def _lay(modes: Modes, delays: Delays, places: Places, j: int, room: Room, sign: float) -> None:
    """Hold or give back a job's room, and count its delay as its user's or no longer."""
    _hold(modes, places, j, room, sign)
    if delays.user[j] >= 0:
        delays.total[delays.user[j]] += sign * own_delay(modes, delays, places, j)


@njit
def _hold(modes: Modes, places: Places, j: int, room: Room, sign: float) -> None:
    m, start = places.mode[j], places.start[j]
    s, gpus, kw = modes.site[m], modes.gpus[m] * sign, modes.kw[m] * sign
    if modes.resume[m] == RIGID:
        for u in range(start, start + modes.length[m]):
            room.gpus[s, u] -= gpus
            room.kw[s, u] -= kw
        return
    base = modes.mark0[j] - modes.window0[j]
    for u in range(start, modes.end[m]):
        if places.marks[base + u]:
            room.gpus[s, u] -= gpus
            room.kw[s, u] -= kw


@njit
def _spread(modes: Modes, places: Places, j: int, used: Floats, used_kw: Floats) -> None:
    m, start = places.mode[j], places.start[j]
    if m == NOWHERE:
        return
    s, gpus, kw = modes.site[m], modes.gpus[m], modes.kw[m]
    if modes.resume[m] == RIGID:
        end = start + modes.length[m]
        used[s, start] += gpus
        used[s, end] -= gpus
        used_kw[s, start] += kw
        used_kw[s, end] -= kw
        return
    base = modes.mark0[j] - modes.window0[j]
    for u in range(start, modes.end[m]):
        if places.marks[base + u]:
            used[s, u] += gpus
            used[s, u + 1] -= gpus
            used_kw[s, u] += kw
            used_kw[s, u + 1] -= kw


@njit
def _touches_over(modes: Modes, places: Places, j: int, room: Room) -> bool:
    m, start = places.mode[j], places.start[j]
    s = modes.site[m]
    rigid = modes.resume[m] == RIGID
    base = modes.mark0[j] - modes.window0[j]
    for u in range(start, start + modes.length[m] if rigid else modes.end[m]):
        if (rigid or places.marks[base + u]) and (room.gpus[s, u] < 0.0 or room.kw[s, u] < -1e-9):
            return True
    return False


@njit
def _fits(modes: Modes, places: Places, j: int, room: Room) -> bool:
    m, start = places.mode[j], places.start[j]
    s = modes.site[m]
    rigid = modes.resume[m] == RIGID
    base = modes.mark0[j] - modes.window0[j]
    for u in range(start, start + modes.length[m] if rigid else modes.end[m]):
        if (rigid or places.marks[base + u]) and (
            room.gpus[s, u] < modes.gpus[m] or room.kw[s, u] < modes.kw[m] - 1e-9
        ):
            return False
    return True
