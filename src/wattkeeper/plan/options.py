"""What the options of one job cost: every start of a mode in one piece, the best slots of an interruptible one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.jit import njit
from wattkeeper.plan.modes import (
    FAR,
    NOWHERE,
    OFF,
    RESUME,
    RIGID,
    RUN,
    Delays,
    Lines,
    Marks,
    Modes,
    Places,
    Room,
    Scratch,
)

Floats = NDArray[np.float64]


@njit
def seek(
    modes: Modes, lines: Lines, delays: Delays, scratch: Scratch, j: int, room: Room, penalty: Floats, hard: bool
) -> tuple[float, int, int, bool]:
    """Return the cost, mode and start of a job's best place, and whether its slots are still to be marked.

    The start counts only for a mode in one piece; for others `weigh_again` and `mark_slots` find the slots.
    """
    best, mode, start = FAR, NOWHERE, 0
    marked = False
    for m in range(modes.mode0[j], modes.mode0[j + 1]):
        if modes.resume[m] == RIGID:
            n = weigh(modes, lines, m, waiting(modes, delays, j, m), scratch.cost)
            overload(modes, lines, m, room, penalty, hard, scratch.over)
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
            weigh_slots(modes, lines, m, scratch.cost)
            overload(modes, lines, m, room, penalty, hard, scratch.over)
            if hard:
                for t in range(modes.end[m] - modes.first[m]):
                    if scratch.over[t + 1] > scratch.over[t]:
                        scratch.cost[t] = FAR
            least = choose_slots(modes, lines, m, waiting(modes, delays, j, m), scratch, best)
            if least < best:
                best, mode, marked = least, m, True
    return best, mode, start, marked


@njit
def waiting(modes: Modes, delays: Delays, j: int, m: int) -> tuple[float, float, float]:
    """Return what a job that stands nowhere pays in a mode apart from energy and prices: a + b t + c t², t slots late.

    Beside transfer and delay that is what its delay adds to the evenness of its user's.
    """
    user = delays.user[j]
    fixed, delay = modes.fixed[m], modes.delay[m]
    if user < 0:
        return fixed, delay, 0.0
    steep, have = delays.steep[user], delays.total[user]
    late, each = delays.late[m], delays.each[m]
    return fixed + steep * late * (have + late / 2), delay + steep * each * (have + late), steep * each * each / 2


@njit
def weigh(modes: Modes, lines: Lines, m: int, wait: tuple[float, float, float], cost: Floats) -> int:
    """Fill in the cost of each start of a mode in one piece, from its first; return how many there are.

    wait: as of `waiting`.
    """
    s, first, length = modes.site[m], modes.first[m], modes.length[m]
    n = modes.end[m] - length - first + 1
    gpus, kw = modes.gpus[m], modes.kw[m]
    fixed, delay, curve = wait
    phase, last = modes.phase0[m], modes.phase0[m + 1]
    drawn, until = modes.phase_kw[phase], modes.phase_end[phase]
    energy0, energy1 = lines.energy[s, first : first + n], lines.energy[s, first + until : first + until + n]
    gpu0, gpu1 = lines.gpu[s, first : first + n], lines.gpu[s, first + length : first + length + n]
    for t in range(n):
        cost[t] = fixed + (delay + curve * t) * t + drawn * (energy1[t] - energy0[t]) + gpus * (gpu1[t] - gpu0[t])
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
def weigh_slots(modes: Modes, lines: Lines, m: int, cost: Floats) -> int:
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
def overload(modes: Modes, lines: Lines, m: int, room: Room, penalty: Floats, hard: bool, over: Floats) -> None:
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
def choose_slots(
    modes: Modes, lines: Lines, m: int, wait: tuple[float, float, float], scratch: Scratch, below: float
) -> float:
    """Choose the slots of an interruptible mode; return their cost, or a far one where none costs less than `below`.

    scratch.cost: what working in each slot costs; scratch.over: sums of overload, added to each slot held.
    Row t of scratch.came says, for each amount of work done by the end of slot t, how the state was reached:
    bit 0: a job that works in slot t came from working in t − 1; bit 1: a job that is off in t was working in t − 1.
    """
    s, first, length = modes.site[m], modes.first[m], modes.length[m]
    n, q = modes.end[m] - first, modes.resume[m]
    gpus, kw = modes.gpus[m], modes.kw[m]
    fixed, delay, curve = wait
    width = length + 1
    on, off = scratch.values[:width], scratch.values[width : 2 * width]
    past = scratch.values[2 * width : 2 * width + (q + 1) * width].reshape(q + 1, width)
    for k in range(width):
        on[k] = FAR
        off[k] = FAR
        for i in range(q + 1):
            past[i, k] = FAR
    best = below
    found = FAR
    for t in range(n):
        # what a job holds that is restored in the q slots before this one and works in it
        again = FAR
        if t > q:
            held = gpus * (lines.gpu[s, first + t] - lines.gpu[s, first + t - q])
            if lines.limited:
                held += kw * (lines.power[s, first + t] - lines.power[s, first + t - q])
            begin = t - q if q else t
            rate = lines.energy[s, first + begin + 1] - lines.energy[s, first + begin]
            again = held + modes.resume_kwh[m] * rate + scratch.over[t] - scratch.over[t - q]
            for i in range(q):
                if scratch.cost[t - q + i] >= FAR:
                    again = FAR
        step = scratch.cost[t]
        if step < FAR:
            step += scratch.over[t + 1] - scratch.over[t]
        oldest = past[t % (q + 1)]
        # off[k] by the end of slot t − 1 is in `off`; by the end of slot t − 1 − q in `oldest` for q > 0
        source = off if q == 0 else oldest
        high = min(length, t + 1)
        for k in range(high, 0, -1):
            before = on[k - 1] if k > 1 else (fixed if step < FAR else FAR)
            resumed = source[k - 1] + again if k > 1 else FAR
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
        if on[length] < FAR:
            late = t + 1 - length
            total = on[length] + (delay + curve * late) * late
            if total < best:
                best = total
                found = total
                scratch.values[len(scratch.values) - 1] = t
    return found


@njit
def weigh_again(
    modes: Modes,
    lines: Lines,
    delays: Delays,
    j: int,
    m: int,
    room: Room,
    penalty: Floats,
    hard: bool,
    scratch: Scratch,
) -> None:
    """Repeat the choice of slots of one mode, so that scratch holds its way and not that of a later mode."""
    weigh_slots(modes, lines, m, scratch.cost)
    overload(modes, lines, m, room, penalty, hard, scratch.over)
    if hard:
        for t in range(modes.end[m] - modes.first[m]):
            if scratch.over[t + 1] > scratch.over[t]:
                scratch.cost[t] = FAR
    choose_slots(modes, lines, m, waiting(modes, delays, j, m), scratch, FAR)


@njit
def mark_slots(modes: Modes, m: int, scratch: Scratch, marks: Marks, j: int) -> int:
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
def own_cost(modes: Modes, lines: Lines, places: Places, j: int) -> float:
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


@njit
def own_delay(modes: Modes, delays: Delays, places: Places, j: int) -> float:
    """Return how late a placed job is [GPU-h]."""
    m, late = places.mode[j], places.start[j]
    if modes.resume[m] != RIGID:
        base = modes.mark0[j] - modes.window0[j]
        late = modes.end[m]
        while not places.marks[base + late - 1]:
            late -= 1
        late -= modes.length[m]
    return float(delays.late[m] + delays.each[m] * (late - modes.first[m]))


@njit
def unevenness(modes: Modes, delays: Delays, places: Places, j: int) -> float:
    """Return what the delay of a job adds to the cost of its user's, whose total is without it [g]."""
    user = delays.user[j]
    if user < 0:
        return 0.0
    late = own_delay(modes, delays, places, j)
    return float(delays.steep[user] * late * (delays.total[user] + late / 2))
