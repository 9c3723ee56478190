"""The planner's kernels: price every job's cheapest option, and move jobs one by one on a grid of sites and slots.

A *mode* is one way of running a job: a site, a cap level, a length in slots, a first start and an end. Energy that a
job draws from slot t on costs a difference of prefix sums, so that all starts of a mode are weighed in one sweep.
An interruptible mode takes any slots between its first and its end; which ones, an exact dynamic programme says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.jit import njit

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Marks = NDArray[np.uint8]

RIGID = -1
"""Resume slots of a mode that runs in one piece."""

OFF, RUN, RESUME = 0, 1, 2
"""What an interruptible job does in a slot: nothing, work, or hold its GPUs while it is restored."""

NOWHERE = -1
"""Mode of a job that is not placed."""

_FAR = 1e300


class Modes(NamedTuple):
    """All ways to run all jobs, job after job.

    mode0: (n + 1,) where each job's modes begin. site, first, end, length, resume: (m,) slots; end is exclusive.
    gpus: (m,) held. kw: (m,) highest IT power, counted against a power budget. fixed: (m,) cost of transfer and of
    the delay of a start at `first`. delay: (m,) cost of each slot later. resume_kwh: (m,) IT energy of one resume.
    phase0: (m + 1,) where each mode's phases begin. phase_end: (f,) slots from the start; phase_kw: (f,) IT power.
    mark0: (n + 1,) where each job's slots stand in the marks of a plan; room only for interruptible jobs.
    window0: (n,) the slot of a job's first mark.
    """

    mode0: Int64s
    site: Int64s
    first: Int64s
    end: Int64s
    length: Int64s
    gpus: Floats
    kw: Floats
    fixed: Floats
    delay: Floats
    resume: Int64s
    resume_kwh: Floats
    phase0: Int64s
    phase_end: Int64s
    phase_kw: Floats
    mark0: Int64s
    window0: Int64s


class Lines(NamedTuple):
    """Costs and prices along time, as sums from slot 0: (sites, slots + 1) each.

    energy: cost of 1 kW of IT power held from slot 0 on. gpu: price of 1 GPU. power: price of 1 kW of the budget.
    limited: 1 where a power budget is set anywhere.
    """

    energy: Floats
    gpu: Floats
    power: Floats
    limited: int


class Places(NamedTuple):
    """Where jobs are: mode (NOWHERE: not placed) and start slot, (n,) each; marks of interruptible jobs, one a slot."""

    mode: Int64s
    start: Int64s
    marks: Marks


class Room(NamedTuple):
    """What is left on the grid: (sites, slots) GPUs and kW; negative where too much was placed."""

    gpus: Floats
    kw: Floats


class Scratch(NamedTuple):
    """Working room of one thread."""

    cost: Floats
    over: Floats
    values: Floats
    came: Marks


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
        best, mode, start = _FAR, NOWHERE, 0
        for m in range(modes.mode0[j], modes.mode0[j + 1]):
            if modes.resume[m] == RIGID:
                n = _weigh(modes, lines, m, scratch.cost)
                at, least = 0, best
                for t in range(n):
                    if scratch.cost[t] < least:
                        least = scratch.cost[t]
                        at = t
                if least < best:
                    best, mode, start = least, m, modes.first[m] + at
            else:
                n = _weigh_slots(modes, lines, m, scratch.cost)
                scratch.over[: n + 1] = 0.0
                least = _choose_slots(modes, lines, m, scratch, best)
                if least < best:
                    best, mode = least, m
                    start = _mark_slots(modes, m, scratch, places.marks, j)
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
            _hold(modes, places, j, room, -1.0)
        old_cost = _FAR
        if keep > 0.0 and old_mode != NOWHERE and _fits(modes, places, j, room):
            old_cost = _own_cost(modes, lines, places, j)
        best, mode, start, marked = _seek(modes, lines, scratch, j, room, penalty, hard)
        if mode == NOWHERE or (keep > 0.0 and best >= old_cost - keep * abs(old_cost)):
            mode, start, marked = old_mode, old_start, False
            if mode != NOWHERE and hard and not _fits(modes, places, j, room):
                mode = NOWHERE
        elif marked:
            _weigh_again(modes, lines, mode, room, penalty, hard, scratch)
            start = _mark_slots(modes, mode, scratch, places.marks, j)
        places.mode[j] = mode
        places.start[j] = start
        if mode != NOWHERE:
            _hold(modes, places, j, room, 1.0)
        if mode != old_mode or start != old_start:
            moved += 1
    return moved


@njit
def ruin_jobs(
    modes: Modes,
    plain: Lines,
    priced: Lines,
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
            old_cost += _own_cost(modes, plain, places, j)
            _hold(modes, places, j, room, -1.0)
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
            _, mode, start, marked = _seek(modes, lines, scratch, j, room, nothing, True)
            if mode == NOWHERE:
                whole = False
                break
            if marked:
                _weigh_again(modes, lines, mode, room, nothing, True, scratch)
                start = _mark_slots(modes, mode, scratch, places.marks, j)
            places.mode[j], places.start[j] = mode, start
            _hold(modes, places, j, room, 1.0)
            new_cost += _own_cost(modes, plain, places, j)
        if whole and new_cost <= old_cost + slack:
            gained += new_cost < old_cost * (1.0 - 1e-9)
            continue
        kept = 0
        for i in range(len(group)):
            j = group[i]
            if j < 0 or old_mode[i] == NOWHERE:
                continue
            if places.mode[j] != NOWHERE:
                _hold(modes, places, j, room, -1.0)
            places.mode[j], places.start[j] = old_mode[i], old_start[i]
            for at in range(modes.mark0[j], modes.mark0[j + 1]):
                places.marks[at] = spare[kept]
                kept += 1
        for j in group:
            if j >= 0 and places.mode[j] != NOWHERE:
                _hold(modes, places, j, room, 1.0)
    return gained


@njit
def cost_jobs(modes: Modes, lines: Lines, places: Places, jobs: Int64s, cost: Floats) -> float:
    """Fill in what each placed one of some jobs costs, 0 for the others; return the sum."""
    total = 0.0
    for j in jobs:
        cost[j] = 0.0 if places.mode[j] == NOWHERE else _own_cost(modes, lines, places, j)
        total += cost[j]
    return total


@njit
def hold_jobs(modes: Modes, places: Places, jobs: Int64s, room: Room, sign: float) -> None:
    """Take the room that jobs hold off the grid (sign 1), or give it back (−1)."""
    for j in jobs:
        if places.mode[j] != NOWHERE:
            _hold(modes, places, j, room, sign)


@njit
def _seek(
    modes: Modes, lines: Lines, scratch: Scratch, j: int, room: Room, penalty: Floats, hard: bool
) -> tuple[float, int, int, bool]:
    """Return the cost, mode and start of a job's best place, and whether its slots are still to be marked.

    The start counts only for a mode in one piece; for others `_weigh_again` and `_mark_slots` find the slots.
    """
    best, mode, start = _FAR, NOWHERE, 0
    marked = False
    for m in range(modes.mode0[j], modes.mode0[j + 1]):
        if modes.resume[m] == RIGID:
            n = _weigh(modes, lines, m, scratch.cost)
            _overload(modes, lines, m, room, penalty, hard, scratch.over)
            length = modes.length[m]
            at, least = -1, best
            if hard:
                for t in range(n):
                    if scratch.cost[t] < least and scratch.over[t + length] == scratch.over[t]:
                        least = scratch.cost[t]
                        at = t
            else:
                for t in range(n):
                    cost = scratch.cost[t] + (scratch.over[t + length] - scratch.over[t])
                    if cost < least:
                        least = cost
                        at = t
            if at >= 0:
                best, mode, start, marked = least, m, modes.first[m] + at, False
        else:
            _weigh_slots(modes, lines, m, scratch.cost)
            _overload(modes, lines, m, room, penalty, hard, scratch.over)
            if hard:
                for t in range(modes.end[m] - modes.first[m]):
                    if scratch.over[t + 1] > scratch.over[t]:
                        scratch.cost[t] = _FAR
            least = _choose_slots(modes, lines, m, scratch, best)
            if least < best:
                best, mode, marked = least, m, True
    return best, mode, start, marked


@njit
def _weigh(modes: Modes, lines: Lines, m: int, cost: Floats) -> int:
    """Fill in the cost of each start of a mode in one piece, from its first; return how many there are."""
    s, first, length = modes.site[m], modes.first[m], modes.length[m]
    n = modes.end[m] - length - first + 1
    gpus, kw, delay, fixed = modes.gpus[m], modes.kw[m], modes.delay[m], modes.fixed[m]
    phase, last = modes.phase0[m], modes.phase0[m + 1]
    drawn, until = modes.phase_kw[phase], modes.phase_end[phase]
    energy0, energy1 = lines.energy[s, first : first + n], lines.energy[s, first + until : first + until + n]
    gpu0, gpu1 = lines.gpu[s, first : first + n], lines.gpu[s, first + length : first + length + n]
    for t in range(n):
        cost[t] = fixed + delay * t + drawn * (energy1[t] - energy0[t]) + gpus * (gpu1[t] - gpu0[t])
    while phase + 1 < last:
        phase += 1
        drawn, begin, until = modes.phase_kw[phase], until, modes.phase_end[phase]
        energy2, energy3 = lines.energy[s, first + begin : first + begin + n], lines.energy[s, first + until :]
        for t in range(n):
            cost[t] += drawn * (energy3[t] - energy2[t])
    if lines.limited:
        power0, power1 = lines.power[s, first : first + n], lines.power[s, first + length : first + length + n]
        for t in range(n):
            cost[t] += kw * (power1[t] - power0[t])
    return int(n)


@njit
def _weigh_slots(modes: Modes, lines: Lines, m: int, cost: Floats) -> int:
    """Fill in what working in each slot of an interruptible mode costs; return how many slots it may use."""
    s, first = modes.site[m], modes.first[m]
    n = modes.end[m] - first
    gpus, kw, drawn = modes.gpus[m], modes.kw[m], modes.phase_kw[modes.phase0[m]]
    for t in range(n):
        u = first + t
        cost[t] = drawn * (lines.energy[s, u + 1] - lines.energy[s, u]) + gpus * (lines.gpu[s, u + 1] - lines.gpu[s, u])
        if lines.limited:
            cost[t] += kw * (lines.power[s, u + 1] - lines.power[s, u])
    return int(n)


@njit
def _overload(modes: Modes, lines: Lines, m: int, room: Room, penalty: Floats, hard: bool, over: Floats) -> None:
    """Fill in, as sums from the mode's first slot, what its being there would overload; hard: count such slots."""
    s, first, n = modes.site[m], modes.first[m], modes.end[m] - modes.first[m]
    gpus, kw = modes.gpus[m], modes.kw[m]
    free, each = room.gpus[s, first : first + n], penalty[s, first : first + n]
    total = 0.0
    over[0] = 0.0
    if lines.limited:
        free_kw = room.kw[s, first : first + n]
        for t in range(n):
            lack = max(gpus - free[t], (kw - free_kw[t]) * (gpus / kw) if kw > 0.0 else 0.0)
            if lack > 1e-9:
                total += 1.0 if hard else min(lack, gpus) * each[t]
            over[t + 1] = total
        return
    for t in range(n):
        lack = gpus - free[t]
        if lack > 0.0:
            total += 1.0 if hard else min(lack, gpus) * each[t]
        over[t + 1] = total


@njit
def _choose_slots(modes: Modes, lines: Lines, m: int, scratch: Scratch, below: float) -> float:
    """Choose the slots of an interruptible mode; return their cost, or a far one where none costs less than `below`.

    scratch.cost: what working in each slot costs; scratch.over: sums of overload, added to each slot held.
    Row t of scratch.came says, for each amount of work done by the end of slot t, how the state was reached:
    bit 0: a job that works in slot t came from working in t − 1; bit 1: a job that is off in t was working in t − 1.
    """
    s, first, length = modes.site[m], modes.first[m], modes.length[m]
    n, q = modes.end[m] - first, modes.resume[m]
    gpus, kw, delay = modes.gpus[m], modes.kw[m], modes.delay[m]
    width = length + 1
    on, off = scratch.values[:width], scratch.values[width : 2 * width]
    past = scratch.values[2 * width : 2 * width + (q + 1) * width].reshape(q + 1, width)
    for k in range(width):
        on[k] = _FAR
        off[k] = _FAR
        for i in range(q + 1):
            past[i, k] = _FAR
    best = below
    found = _FAR
    for t in range(n):
        # what a job holds that is restored in the q slots before this one and works in it
        again = _FAR
        if t > q:
            held = gpus * (lines.gpu[s, first + t] - lines.gpu[s, first + t - q])
            if lines.limited:
                held += kw * (lines.power[s, first + t] - lines.power[s, first + t - q])
            begin = t - q if q else t
            rate = lines.energy[s, first + begin + 1] - lines.energy[s, first + begin]
            again = held + modes.resume_kwh[m] * rate + scratch.over[t] - scratch.over[t - q]
            for i in range(q):
                if scratch.cost[t - q + i] >= _FAR:
                    again = _FAR
        step = scratch.cost[t]
        if step < _FAR:
            step += scratch.over[t + 1] - scratch.over[t]
        oldest = past[t % (q + 1)]
        # off[k] by the end of slot t − 1 is in `off`; by the end of slot t − 1 − q in `oldest` for q > 0
        source = off if q == 0 else oldest
        high = min(length, t + 1)
        for k in range(high, 0, -1):
            before = on[k - 1] if k > 1 else (modes.fixed[m] if step < _FAR else _FAR)
            resumed = source[k - 1] + again if k > 1 else _FAR
            came = 1
            if resumed < before:
                before = resumed
                came = 0
            # off in this slot with k done: it was off, or worked, in the slot before
            mark = came
            if on[k] < off[k]:
                off[k] = on[k]
                mark |= 2
            scratch.came[t * width + k] = mark
            on[k] = before + step
        if q:
            for k in range(width):
                past[t % (q + 1), k] = off[k]
        if on[length] < _FAR:
            total = on[length] + delay * (t + 1 - length)
            if total < best:
                best = total
                found = total
                scratch.values[len(scratch.values) - 1] = t
    return found


@njit
def _weigh_again(modes: Modes, lines: Lines, m: int, room: Room, penalty: Floats, hard: bool, scratch: Scratch) -> None:
    """Repeat the choice of slots of one mode, so that scratch holds its way and not that of a later mode."""
    _weigh_slots(modes, lines, m, scratch.cost)
    _overload(modes, lines, m, room, penalty, hard, scratch.over)
    if hard:
        for t in range(modes.end[m] - modes.first[m]):
            if scratch.over[t + 1] > scratch.over[t]:
                scratch.cost[t] = _FAR
    _choose_slots(modes, lines, m, scratch, _FAR)


@njit
def _mark_slots(modes: Modes, m: int, scratch: Scratch, marks: Marks, j: int) -> int:
    """Write the chosen slots into the marks of a job; return the first slot."""
    first, length, q = modes.first[m], modes.length[m], modes.resume[m]
    width = length + 1
    at = modes.mark0[j] + first - modes.window0[j]
    marks[modes.mark0[j] : modes.mark0[j + 1]] = OFF
    t = int(scratch.values[len(scratch.values) - 1])
    start = t
    k = length
    while k > 0:
        marks[at + t] = RUN
        start = t
        came = scratch.came[t * width + k] & 1
        k -= 1
        t -= 1
        if k > 0 and not came:
            for _ in range(q):
                marks[at + t] = RESUME
                t -= 1
            # off until a slot whose mark says that it worked in the slot before
            while not scratch.came[t * width + k] & 2:
                t -= 1
            t -= 1
    return int(first + start)


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


@njit
def _own_cost(modes: Modes, lines: Lines, places: Places, j: int) -> float:
    """Return what a placed job costs by the lines."""
    m, start = places.mode[j], places.start[j]
    s, gpus, kw = modes.site[m], modes.gpus[m], modes.kw[m]
    total = modes.fixed[m]
    if modes.resume[m] == RIGID:
        total += modes.delay[m] * (start - modes.first[m])
        begin = 0
        for phase in range(modes.phase0[m], modes.phase0[m + 1]):
            end = modes.phase_end[phase]
            total += modes.phase_kw[phase] * (lines.energy[s, start + end] - lines.energy[s, start + begin])
            begin = end
        end = start + modes.length[m]
        total += gpus * (lines.gpu[s, end] - lines.gpu[s, start]) + kw * (lines.power[s, end] - lines.power[s, start])
        return float(total)
    base = modes.mark0[j] - modes.window0[j]
    drawn = modes.phase_kw[modes.phase0[m]]
    last, before = start, OFF
    for u in range(start, modes.end[m]):
        mark = places.marks[base + u]
        rate = lines.energy[s, u + 1] - lines.energy[s, u]
        if mark:
            total += gpus * (lines.gpu[s, u + 1] - lines.gpu[s, u]) + kw * (lines.power[s, u + 1] - lines.power[s, u])
            last = u
        if mark == RUN:
            total += drawn * rate
        if u > start and before == OFF and mark:
            total += modes.resume_kwh[m] * rate
        before = mark
    return float(total + modes.delay[m] * (last + 1 - modes.first[m] - modes.length[m]))
