"""First come first served with EASY backfill, slow and obvious: everything is looked at anew at every instant."""

from __future__ import annotations

import heapq

from wattkeeper.plan.simulate.events import NONE, Parts


def simulate(parts: Parts, gpus: int, depth: int) -> list[int]:
    """Return when each part starts [ms]."""
    hold, need, duration, after = (column.tolist() for column in parts)
    start: list[int] = [NONE] * len(hold)
    running: list[tuple[int, int]] = []
    queue: list[int] = []
    to_come = [(hold[i], i) for i in range(len(hold)) if after[i] == NONE]
    heapq.heapify(to_come)
    while to_come or running:
        now = min([to_come[0][0]] if to_come else [], default=running[0][0] if running else 0)
        now = min(now, running[0][0]) if running else now
        while running and running[0][0] == now:
            _, ended = heapq.heappop(running)
            for i in range(len(hold)):
                if after[i] == ended:
                    heapq.heappush(to_come, (max(hold[i], now), i))
        while to_come and to_come[0][0] == now:
            queue.append(heapq.heappop(to_come)[1])
        for i in _started(queue, running, need, duration, gpus, now, depth):
            start[i] = now
    return start


def _started(queue: list, running: list, need: list, duration: list, gpus: int, now: int, depth: int) -> list[int]:
    """Start what may start now; queue and running change."""
    begun = []

    def free() -> int:
        return gpus - sum(need[i] for _, i in running)

    def begin(i: int) -> None:
        heapq.heappush(running, (now + duration[i], i))
        queue.remove(i)
        begun.append(i)

    while queue and need[queue[0]] <= free():
        begin(queue[0])
    if not queue:
        return begun
    head = queue[0]
    looked = 1
    for i in queue[1:]:
        if looked == depth:
            break
        # would the head start as soon with i running as without?
        if need[i] <= free() and _soonest(running, need, gpus, need[head]) == _soonest(
            [*running, (now + duration[i], i)], need, gpus, need[head]
        ):
            begin(i)
        else:
            looked += 1
    return begun


def _soonest(running: list, need: list, gpus: int, wanted: int) -> int:
    """Return the first end of a running part at which `wanted` GPUs are free."""
    return min(end for end, _ in running if gpus - sum(need[i] for other, i in running if other > end) >= wanted)
