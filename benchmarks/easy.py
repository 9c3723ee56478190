"""The peer of the simulator: FIFO with EASY backfill as one writes it with heapq and lists, and the same way of working."""

from __future__ import annotations

import heapq


def run(hold_ms: list[int], gpus: list[int], duration_ms: list[int], cluster: int, depth: int = 100) -> list[int]:
    """Return when each job starts. hold_ms is in rising order."""
    start = [-1] * len(hold_ms)
    ends: list[tuple[int, int]] = []
    queue: list[int] = []
    free, coming, promised, spare = cluster, 0, -1, 0
    while coming < len(hold_ms) or ends:
        now = hold_ms[coming] if coming < len(hold_ms) else ends[0][0]
        now = min(now, ends[0][0]) if ends else now
        anew = False
        while ends and ends[0][0] == now:
            free += heapq.heappop(ends)[1]
            anew = True
        was = len(queue)
        while coming < len(hold_ms) and hold_ms[coming] == now:
            queue.append(coming)
            coming += 1
        taken = 0
        while taken < len(queue) and gpus[queue[taken]] <= free:
            job = queue[taken]
            taken += 1
            free -= gpus[job]
            start[job] = now
            heapq.heappush(ends, (now + duration_ms[job], gpus[job]))
        if taken:
            del queue[:taken]
            promised, anew = -1, True
        if not queue:
            continue
        if promised < 0:
            there = free
            wanted = gpus[queue[0]]
            reach = ends.copy()
            while reach and (there < wanted or reach[0][0] == promised):
                promised, given = heapq.heappop(reach)
                there += given
            spare = there - wanted
        place = 1 if anew or not was else was
        while place < len(queue) and place < depth and free:
            job = queue[place]
            in_time = now + duration_ms[job] <= promised
            if gpus[job] <= free and (in_time or gpus[job] <= spare):
                free -= gpus[job]
                if not in_time:
                    spare -= gpus[job]
                start[job] = now
                heapq.heappush(ends, (now + duration_ms[job], gpus[job]))
                del queue[place]
            else:
                place += 1
    return start
