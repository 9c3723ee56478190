"""The event loop: first come, first served with EASY backfill on whole GPUs, where a part of a job may be held back.

The head of the queue that does not fit gets the soonest instant at which it will. A later part may start before it only
where that instant stays (D. Lifka, The ANL/IBM SP Scheduling System, JSSPP 1995). Durations are known to the
scheduler, so the instant, once found, stays true until the head starts: it is looked for once a head.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.errors import WattkeeperError
from wattkeeper.core.jit import njit

Int64s = NDArray[np.int64]

NONE = -1
"""No part: the follower of a last one, the start of one that never started."""

DEPTH = 100
"""How many parts of the queue backfill looks at, the head among them."""

_FAR_MS = 2**62


class SimulationError(WattkeeperError):
    """Parts that no cluster of this size can run."""


class Parts(NamedTuple):
    """What is to run, (n,) each: stretches of jobs that hold a fixed number of GPUs in one piece.

    hold_ms: not before this instant [ms UTC]. gpus: held together. duration_ms: how long, above 0.
    after: the part of the same job that must have ended before, or NONE; each part has one follower at most.
    """

    hold_ms: Int64s
    gpus: Int64s
    duration_ms: Int64s
    after: Int64s


def simulate(parts: Parts, gpus: int, *, depth: int = DEPTH) -> Int64s:
    """Return when each part starts, (n,) [ms UTC].

    The queue is in the order in which parts may start (then in that of the arrays); ends come before arrivals of the
    same instant. depth: parts of the queue that backfill looks at. Raises SimulationError for a part that can never run.
    """
    n = len(parts.hold_ms)
    follower = _followers(parts)
    for wrong, words in (
        (parts.gpus > gpus, f"more than the {gpus} of the cluster"),
        (parts.gpus < 1, "at least 1 is needed"),
    ):
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise SimulationError(f"Part {i} asks for {parts.gpus[i]} GPUs; {words}.")
    if (parts.duration_ms < 1).any():
        i = int(np.flatnonzero(parts.duration_ms < 1)[0])
        raise SimulationError(f"Part {i} lasts {parts.duration_ms[i]} ms; at least 1 is needed.")
    first = np.flatnonzero(parts.after == NONE)
    order = first[np.argsort(parts.hold_ms[first], kind="stable")].astype(np.int64)
    start_ms = np.full(n, NONE, np.int64)
    if n:
        _run(parts, follower, order, gpus, depth, start_ms)
    if (start_ms == NONE).any():
        raise SimulationError("Some parts wait for each other in a circle; the first of a job must wait for none.")
    return start_ms


def _followers(parts: Parts) -> Int64s:
    follower = np.full(len(parts.after), NONE, np.int64)
    later = np.flatnonzero(parts.after != NONE)
    if len(later) and (parts.after.min() < NONE or parts.after.max() >= len(parts.after)):
        raise SimulationError("A part waits for one that is not there.")
    if len(later) and np.bincount(parts.after[later]).max() > 1:
        raise SimulationError("Two parts wait for the same one; a part has one follower at most.")
    follower[parts.after[later]] = later
    return follower


@njit
def _run(parts: Parts, follower: Int64s, order: Int64s, gpus: int, depth: int, start_ms: Int64s) -> None:
    """Run all events; fills start_ms."""
    hold_ms, need, duration_ms = parts.hold_ms, parts.gpus, parts.duration_ms
    n = len(hold_ms)
    end_ms, end_part, running = np.empty(n, np.int64), np.empty(n, np.int64), 0
    late_ms, late_part, late = np.empty(n, np.int64), np.empty(n, np.int64), 0
    behind = np.empty(n, np.int64)  # the part behind each in the queue
    reach_ms, reach = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64)
    head, tail, waiting = NONE, NONE, 0
    free, coming = gpus, 0
    promised_ms, spare = NONE, 0  # when the head will start, and GPUs it leaves over then
    while coming < len(order) or running > 0 or late > 0:
        now = _FAR_MS
        if coming < len(order):
            now = hold_ms[order[coming]]
        if running > 0 and end_ms[0] < now:
            now = end_ms[0]
        if late > 0 and late_ms[0] < now:
            now = late_ms[0]

        # what ends gives back its GPUs, and its follower may come
        anew = False
        while running > 0 and end_ms[0] == now:
            part = end_part[0]
            running = _pop(end_ms, end_part, running)
            free += need[part]
            anew = True
            after = follower[part]
            if after != NONE:
                late = _push(late_ms, late_part, late, max(hold_ms[after], now), after)

        # what may start from now on joins the queue; `before` is the last that was there
        before, was = tail, waiting
        while True:
            from_order = coming < len(order) and hold_ms[order[coming]] == now
            from_late = late > 0 and late_ms[0] == now
            if from_order and (not from_late or order[coming] < late_part[0]):
                part = order[coming]
                coming += 1
            elif from_late:
                part = late_part[0]
                late = _pop(late_ms, late_part, late)
            else:
                break
            behind[part] = NONE
            if tail == NONE:
                head = part
            else:
                behind[tail] = part
            tail = part
            waiting += 1

        # the head starts as long as it fits
        while head != NONE and need[head] <= free:
            free -= need[head]
            start_ms[head] = now
            running = _push(end_ms, end_part, running, now + duration_ms[head], head)
            head = behind[head]
            waiting -= 1
            promised_ms = NONE
            anew = True
        if head == NONE:
            tail = NONE
            continue
        if promised_ms == NONE:
            promised_ms, spare = _promise(end_ms, end_part, running, need, free, need[head], reach_ms, reach)

        # others start before it where they do not delay it; those looked at before would be refused again
        if anew or before == NONE:
            at, seen = head, 1
        else:
            at, seen = before, was
        part = behind[at]
        while part != NONE and seen < depth and free > 0:
            ends_in_time = now + duration_ms[part] <= promised_ms
            if need[part] <= free and (ends_in_time or need[part] <= spare):
                free -= need[part]
                if not ends_in_time:
                    spare -= need[part]
                start_ms[part] = now
                running = _push(end_ms, end_part, running, now + duration_ms[part], part)
                behind[at] = behind[part]
                if tail == part:
                    tail = at
                waiting -= 1
            else:
                at = part
                seen += 1
            part = behind[at]


@njit
def _promise(
    end_ms: Int64s,
    end_part: Int64s,
    running: int,
    need: Int64s,
    free: int,
    wanted: int,
    reach_ms: Int64s,
    reach: Int64s,
) -> tuple[int, int]:
    """Return the soonest instant at which `wanted` GPUs are free, and how many are left over then.

    Walks the heap of ends in their order, without taking it apart.
    """
    count = _push(reach_ms, reach, 0, end_ms[0], 0)
    when = end_ms[0]
    while count > 0 and (free < wanted or reach_ms[0] == when):
        when = reach_ms[0]
        place = reach[0]
        count = _pop(reach_ms, reach, count)
        free += need[end_part[place]]
        for child in (2 * place + 1, 2 * place + 2):
            if child < running:
                count = _push(reach_ms, reach, count, end_ms[child], child)
    return when, free - wanted


@njit
def _push(keys: Int64s, values: Int64s, count: int, key: int, value: int) -> int:
    """Put a pair on a heap, ordered by key and then value; return its new size."""
    at = count
    while at > 0:
        up = (at - 1) // 2
        if keys[up] < key or (keys[up] == key and values[up] <= value):
            break
        keys[at], values[at] = keys[up], values[up]
        at = up
    keys[at], values[at] = key, value
    return count + 1


@njit
def _pop(keys: Int64s, values: Int64s, count: int) -> int:
    """Take the least pair off a heap; return its new size."""
    count -= 1
    key, value = keys[count], values[count]
    at, child = 0, 1
    while child < count:
        right = child + 1
        if right < count and (
            keys[right] < keys[child] or (keys[right] == keys[child] and values[right] < values[child])
        ):
            child = right
        if key < keys[child] or (key == keys[child] and value <= values[child]):
            break
        keys[at], values[at] = keys[child], values[child]
        at = child
        child = 2 * at + 1
    keys[at], values[at] = key, value
    return count
