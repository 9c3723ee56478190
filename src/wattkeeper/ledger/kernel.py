"""The attribution kernel: one day of some units' readings to postings, exactly.

A *unit* is a node with its devices, or a lone asset. Each unit gets one grid of instants: hour edges, signal steps,
starts and ends of allocations, ends of meters, switches between working and idle. Every curve is read there, once,
floored to whole millijoules, so that differences telescope; between two instants nothing changes, so energy, shares
and signals simply multiply. What an asset's meter shows beyond its parts is its *rest*.

The cost is one pass over the readings of meters that may have odd steps, and work in proportion to instants × meters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core import counter
from wattkeeper.core.jit import njit
from wattkeeper.core.units import MJ_PER_KWH, PPM

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

COUNTER, INTERVAL, POWER, UTILISATION = 0, 1, 2, 3
"""Quantities of meters, in the order of assets.QUANTITIES."""

HELD, SHARED, OVERHEAD_ROLE, UPPER, ACTIVITY = 0, 1, 2, 3, 4
"""Roles of assets: held by allocations of its own (GPU); by those of its unit (node rest, CPU); non-IT; a meter above
the units; only tells activity (MIG instance). A node whose rest is declared to be overhead has the third."""

JOB, HELD_IDLE, IDLE, OVERHEAD, UNACCOUNTED, ABOVE = 0, 1, 2, 3, 4, 5
"""Accounts. ABOVE is not an account of the ledger: it carries upper meters to `close.py`."""

ENERGY, IMPUTED, BRIDGED, ESTIMATED, HELD_MS, COVERED_MS, BUSY, KNOWN_MS = range(8)
"""Amounts of a posting. BUSY is in ppm·ms, KNOWN_MS is the time in which utilisation was read."""
N_AMOUNTS = 8

_NEVER_MS = 2**62


class Rows(NamedTuple):
    """Readings of a chunk, meter after meter, times rising within each: (n,) time [ms UTC] and value."""

    time_ms: Int64s
    value: Int64s

    @classmethod
    def of(cls, time_ms: Int64s, value: Int64s) -> Rows:
        """Return rows that nobody writes to: the kernel is compiled for such."""
        time_ms.flags.writeable = value.flags.writeable = False
        return cls(time_ms, value)


class Meters(NamedTuple):
    """Meters of a chunk, unit after unit: (m,) each; readings just before and after the day: (m, LOOK_…).

    smooth: 1 where it is known that no step between two readings of the day is odd.
    """

    row0: Int64s
    row1: Int64s
    quantity: Int64s
    asset: Int64s
    max_gap_ms: Int64s
    bound_w: Int64s
    wrap_mj: Int64s
    interval_ms: Int64s
    primary: Int64s
    back_n: Int64s
    back_ms: Int64s
    back_value: Int64s
    ahead_n: Int64s
    ahead_ms: Int64s
    ahead_value: Int64s
    smooth: Int64s


class Assets(NamedTuple):
    """Assets of a chunk, unit after unit, parents first: (a,) role, parent within the chunk (−1: none), idle power."""

    role: Int64s
    parent: Int64s
    idle_w: Floats


class Units(NamedTuple):
    """Where each unit's assets, meters and allocations begin: (u + 1,) each; its root is its first asset."""

    asset0: Int64s
    meter0: Int64s
    alloc0: Int64s


class Allocations(NamedTuple):
    """Allocations of a chunk, sorted by asset, start, end, job: (l,) each. activity: asset that tells it, or −1."""

    asset: Int64s
    start_ms: Int64s
    end_ms: Int64s
    share_ppm: Int64s
    job: Int64s
    estimated: Int64s
    activity: Int64s


class Grid(NamedTuple):
    """The site's instants of the day: edges (k + 1,); slot of each step (k,); signals (s, k) per kWh, 0 if missing."""

    edge_ms: Int64s
    slot: Int64s
    signals: Floats


class Steps(NamedTuple):
    """A unit's grid: instants (k + 1,); for each step the site's step and slot it lies in and where its part begins."""

    at_ms: Int64s
    base: Int64s
    slot: Int64s
    part_ms: Int64s


class Out(NamedTuple):
    """Room for the results, filled from the top; `used` counts lines of postings, meter hours and events."""

    keys: Int64s  # (p, 6) unit, asset, slot, account, job, start_ms
    amounts: Int64s  # (p, N_AMOUNTS)
    valued: Floats  # (p, s)
    hours: Int64s  # (h, 8) meter, slot, start_ms, energy, imputed, bridged, spanned_ms, covered_ms
    events: Int64s  # (e, 5) meter, code, start_ms, end_ms, energy
    used: Int64s  # (3,)


@njit
def post_units(
    rows: Rows, meters: Meters, assets: Assets, units: Units, allocs: Allocations, grid: Grid, idle_ppm: int, out: Out
) -> bool:
    """Post all units of a chunk; return False when `out` has too little room and must be made larger."""
    longest = 1
    for m in range(len(meters.row0)):
        longest = max(longest, meters.row1[m] - meters.row0[m] + meters.back_n[m] + meters.ahead_n[m])
    scratch_ms = np.empty(2 * longest + 2, np.int64)
    scratch = np.empty(2 * longest + 2, np.int64)
    spare_ms = np.empty(2 * longest + 2, np.int64)
    spare = np.empty(2 * longest + 2, np.int64)
    marks = np.empty((longest + 2, 3), np.int64)
    events = np.empty((longest + 2, 4), np.int64)
    ends = _all_ends(rows, meters)
    tells = (meters.quantity == UTILISATION).any()
    nothing = np.empty(0, np.int64)
    for u in range(len(units.asset0) - 1):
        m0, m1, l0, l1 = units.meter0[u], units.meter0[u + 1], units.alloc0[u], units.alloc0[u + 1]
        switches = _switches(rows, meters, m0, m1, idle_ppm) if tells else nothing
        at_ms = _instants(grid.edge_ms, allocs.start_ms[l0:l1], allocs.end_ms[l0:l1], ends[m0:m1], switches)
        steps = _steps(at_ms, grid.edge_ms, grid.slot, ends[m0:m1])
        n_steps = len(steps.base)
        first_asset, n_assets = units.asset0[u], units.asset0[u + 1] - units.asset0[u]
        # every meter, read on the unit's grid
        full = np.zeros((n_assets, n_steps), np.int64)
        quality = np.zeros((3, n_assets, n_steps), np.int64)  # imputed, bridged, covered
        present = np.zeros((n_assets, n_steps), np.int64)
        busy = np.zeros((2, n_assets, n_steps), np.int64)  # ppm·ms, known ms
        energy = np.empty(n_steps + 1, np.int64)
        for m in range(m0, m1):
            a = meters.asset[m] - first_asset
            n_marks = n_events = n = 0
            if not _read_plain(rows, meters, m, steps.at_ms, energy, spare):
                n = _gather(rows, meters, m, scratch_ms, scratch)
                if n == 0 or (meters.quantity[m] == UTILISATION and not meters.primary[m]):
                    continue
                if meters.quantity[m] == UTILISATION:
                    _read_activity(meters, m, scratch_ms, scratch, spare, n, steps, busy[0, a], busy[1, a])
                    continue
                n_marks, n_events, n = _repair(meters, m, scratch_ms, scratch, spare_ms, spare, n, marks, events)
                counter.read_curve(scratch_ms, scratch, n, steps.at_ms, energy)
            begin, end = ends[m]
            curve_ms, curve = scratch_ms[:n], scratch[:n]
            if not _keep_meter(
                meters, m, a, begin, end, energy, curve_ms, curve, marks[:n_marks], steps, full, quality, present, out
            ):
                return False
            if not _keep_events(m, events, n_events, steps, out):
                return False
        # what belongs to no part, evened out, and everything on its account
        rest, valued, parted = _rest(full, present, quality, assets, first_asset, grid, steps)
        for a in range(n_assets):
            asset = first_asset + a
            if assets.role[asset] == ACTIVITY:
                continue
            if parted[a]:
                if not _even_out(u, asset, rest[a], valued[:, a], steps, out):
                    return False
                _bound_quality(rest[a], quality[:, a])
            low, high = _holders(units, assets, allocs, u, asset)
            holders = Allocations(
                allocs.asset[low:high], allocs.start_ms[low:high], allocs.end_ms[low:high], allocs.share_ppm[low:high],
                allocs.job[low:high], allocs.estimated[low:high], allocs.activity[low:high],
            )  # fmt: skip
            if not _post_asset(
                u, asset, first_asset, assets, holders, steps, rest[a], valued[:, a], quality[:, a], present[a], busy,
                idle_ppm, out,
            ):  # fmt: skip
                return False
    return True


def load() -> None:
    """Compile the kernel, or load it from disk; it is done at the first call anyway."""
    nothing, ends = np.zeros(0, np.int64), np.zeros(1, np.int64)
    few = np.zeros((0, 1), np.int64)
    meters = {
        c: few if c.endswith(("_ms", "_value")) and c[:4] in {"back", "ahea"} else nothing for c in Meters._fields
    }
    out = Out(few, few, np.zeros((0, 1)), few, few, np.zeros(3, np.int64))
    post_units(
        Rows.of(nothing.copy(), nothing.copy()), Meters(**meters), Assets(nothing, nothing, np.zeros(0)), Units(ends, ends, ends),
        Allocations(*[nothing] * len(Allocations._fields)), Grid(ends, nothing, np.zeros((0, 0))), 0, out,
    )  # fmt: skip


@njit
def _gather(rows: Rows, meters: Meters, m: int, time_ms: Int64s, value: Int64s) -> int:
    """Copy a meter's readings, with the few before and after the day, into the scratch; return how many."""
    n = 0
    for i in range(meters.back_n[m]):
        time_ms[n] = meters.back_ms[m, i]
        value[n] = meters.back_value[m, i]
        n += 1
    first, last = meters.row0[m], meters.row1[m]
    time_ms[n : n + last - first] = rows.time_ms[first:last]
    value[n : n + last - first] = rows.value[first:last]
    n += last - first
    for i in range(meters.ahead_n[m]):
        time_ms[n] = meters.ahead_ms[m, i]
        value[n] = meters.ahead_value[m, i]
        n += 1
    return int(n)


@njit
def _ends(rows: Rows, meters: Meters, m: int) -> tuple[int, int]:
    """Return where a meter's curve begins and ends [ms]; 0 and 0 where there is none."""
    first, last = meters.row0[m], meters.row1[m]
    n_back, n_ahead = meters.back_n[m], meters.ahead_n[m]
    if n_back + n_ahead + last - first == 0:
        return 0, 0
    begin = meters.back_ms[m, 0] if n_back else rows.time_ms[first] if last > first else meters.ahead_ms[m, 0]
    end = (
        meters.ahead_ms[m, n_ahead - 1]
        if n_ahead
        else rows.time_ms[last - 1]
        if last > first
        else meters.back_ms[m, n_back - 1]
    )
    if meters.quantity[m] == INTERVAL:
        begin -= meters.interval_ms[m]
    return begin, end


@njit
def _all_ends(rows: Rows, meters: Meters) -> Int64s:
    """Return where each meter's curve begins and ends: (m, 2) [ms]; equal where it has none, −1 for utilisation."""
    ends = np.full((len(meters.row0), 2), -1, np.int64)
    for m in range(len(meters.row0)):
        if meters.quantity[m] != UTILISATION:
            ends[m, 0], ends[m, 1] = _ends(rows, meters, m)
    return ends


@njit
def _switches(rows: Rows, meters: Meters, first: int, last: int, idle_ppm: int) -> Int64s:
    """Return where utilisation meters [first, last) switch between working, idle and unknown [ms], in no order."""
    room = 0
    for m in range(first, last):
        room += meters.row1[m] - meters.row0[m] + meters.back_n[m] + meters.ahead_n[m]
    cuts, time_ms, value = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    n = 0
    for m in range(first, last):
        if meters.quantity[m] != UTILISATION or not meters.primary[m]:
            continue
        size = _gather(rows, meters, m, time_ms, value)
        for i in range(1, size):
            was_gap = i > 1 and time_ms[i - 1] - time_ms[i - 2] > meters.max_gap_ms[m]
            is_gap = time_ms[i] - time_ms[i - 1] > meters.max_gap_ms[m]
            if (value[i] < idle_ppm) != (value[i - 1] < idle_ppm) or was_gap or is_gap or i == 1:
                cuts[n] = time_ms[i - 1]
                n += 1
    return cuts[:n]


@njit
def _instants(edge_ms: Int64s, start_ms: Int64s, end_ms: Int64s, ends: Int64s, switches: Int64s) -> Int64s:
    """Return a unit's grid: (k + 1,) rising instants from the window's first edge to its last.

    start_ms, end_ms: of its allocations. ends: of its meters, as from _all_ends.
    """
    cuts = np.empty(2 * len(start_ms) + 2 * len(ends) + len(switches), np.int64)
    n = 0
    for i in range(len(start_ms)):
        cuts[n], cuts[n + 1] = start_ms[i], end_ms[i]
        n += 2
    for m in range(len(ends)):
        if ends[m, 0] >= 0:
            cuts[n], cuts[n + 1] = ends[m, 0], ends[m, 1]
            n += 2
    for switch in switches:
        cuts[n] = switch
        n += 1
    return _merged(edge_ms, np.sort(cuts[:n]))


@njit
def _merged(edge_ms: Int64s, cuts: Int64s) -> Int64s:
    """Return the edges with the cuts between the first and the last of them, both rising, each instant once."""
    merged = np.empty(len(edge_ms) + len(cuts), np.int64)
    merged[0] = edge_ms[0]
    n, k = 1, int(np.searchsorted(cuts, edge_ms[0], side="right"))
    for i in range(1, len(edge_ms)):
        while k < len(cuts) and cuts[k] < edge_ms[i]:
            if cuts[k] != merged[n - 1]:
                merged[n] = cuts[k]
                n += 1
            k += 1
        merged[n] = edge_ms[i]
        n += 1
    return merged[:n].copy()


@njit
def _steps(at_ms: Int64s, edge_ms: Int64s, edge_slot: Int64s, ends: Int64s) -> Steps:
    """Return the unit's grid from its instants.

    A slot is parted where one of the unit's meters begins or ends: within a part an asset is measured throughout or not
    at all, so each part balances by itself.
    """
    n = len(at_ms) - 1
    base, slot, part_ms = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    k = 0
    for i in range(n):
        while edge_ms[k + 1] <= at_ms[i]:
            k += 1
        base[i] = k
        slot[i] = edge_slot[k]
        same = i > 0 and slot[i] == slot[i - 1]
        part_ms[i] = part_ms[i - 1] if same else at_ms[i]
    for m in range(len(ends)):
        for cut in ends[m]:
            if at_ms[0] < cut < at_ms[n]:
                i = int(np.searchsorted(at_ms, cut))
                part, within = part_ms[i], slot[i]
                while i < n and slot[i] == within and part_ms[i] == part:
                    part_ms[i] = cut
                    i += 1
    return Steps(at_ms, base, slot, part_ms)


@njit
def _repair(
    meters: Meters, m: int, time_ms: Int64s, value: Int64s, spare_ms: Int64s, spare: Int64s, n: int, marks: Int64s,
    events: Int64s,
) -> tuple[int, int, int]:  # fmt: skip
    """Turn raw readings into a curve, in place; return marks, events, points."""
    if meters.quantity[m] == COUNTER:
        n, n_marks, n_events = counter.repair(
            time_ms, value, n, meters.max_gap_ms[m], meters.bound_w[m], meters.wrap_mj[m], spare, marks, events
        )
        return n_marks, n_events, n
    if meters.quantity[m] == POWER:
        n_marks, n_events = counter.accumulate_power(time_ms, value, n, meters.max_gap_ms[m], marks, events)
        return n_marks, n_events, n
    points, n_marks, n_events = counter.accumulate_intervals(
        time_ms, value, n, meters.interval_ms[m], spare_ms, spare, marks, events
    )
    time_ms[:points] = spare_ms[:points]
    value[:points] = spare[:points]
    return n_marks, n_events, points


@njit
def _read_plain(rows: Rows, meters: Meters, m: int, at_ms: Int64s, energy: Int64s, odd: Int64s) -> bool:
    """Read a counter that needs no repair on the grid, straight from the chunk; return False where a step is odd."""
    first, last = meters.row0[m], meters.row1[m]
    if meters.quantity[m] != COUNTER or first == last:
        return False
    time_ms, value = rows.time_ms[first:last], rows.value[first:last]
    gap_ms, bound_w = meters.max_gap_ms[m], meters.bound_w[m]
    if not meters.smooth[m] and counter.suspects(time_ms, value, last - first, gap_ms, bound_w, odd):
        return False
    # the few readings before the day up to its first, and its last with the few after
    n_back, n_ahead = meters.back_n[m], meters.ahead_n[m]
    head_ms, head = np.empty(n_back + 1, np.int64), np.empty(n_back + 1, np.int64)
    head_ms[:n_back], head[:n_back] = meters.back_ms[m, :n_back], meters.back_value[m, :n_back]
    head_ms[n_back], head[n_back] = time_ms[0], value[0]
    tail_ms, tail = np.empty(n_ahead + 1, np.int64), np.empty(n_ahead + 1, np.int64)
    tail_ms[1:], tail[1:] = meters.ahead_ms[m, :n_ahead], meters.ahead_value[m, :n_ahead]
    tail_ms[0], tail[0] = time_ms[-1], value[-1]
    if counter.suspects(head_ms, head, n_back + 1, gap_ms, bound_w, odd):
        return False
    if counter.suspects(tail_ms, tail, n_ahead + 1, gap_ms, bound_w, odd):
        return False
    low = np.searchsorted(at_ms, time_ms[0])
    high = max(low, np.searchsorted(at_ms, time_ms[-1]))
    counter.read_curve(head_ms, head, n_back + 1, at_ms[:low], energy[:low])
    counter.read_curve(time_ms, value, last - first, at_ms[low:high], energy[low:high])
    counter.read_curve(tail_ms, tail, n_ahead + 1, at_ms[high:], energy[high:])
    return True


@njit
def _keep_meter(
    meters: Meters, m: int, a: int, begin_ms: int, end_ms: int, energy: Int64s, curve_ms: Int64s, curve: Int64s,
    marks: Int64s, steps: Steps, full: Int64s, quality: Int64s, present: Int64s, out: Out,
) -> bool:  # fmt: skip
    """Add a meter's energy at the instants to its asset where it is primary; keep its hours.

    begin_ms, end_ms: where its curve spans; curve_ms, curve: its points, needed where there are marks.
    """
    at_ms, slot, part_ms, hours = steps.at_ms, steps.slot, steps.part_ms, out.hours
    energy_a, quality_a, present_a = full[a], quality[:, a], present[a]
    primary = meters.primary[m]
    mark, line = 0, -1
    for k in range(len(slot)):
        left, right = at_ms[k], at_ms[k + 1]
        if left < begin_ms or right > end_ms:
            continue
        rise = energy[k + 1] - energy[k]
        while mark < len(marks) and marks[mark, 1] <= left:
            mark += 1
        imputed = bridged = uncovered_ms = 0
        if mark < len(marks) and marks[mark, 0] < right:
            imputed, bridged, uncovered_ms = _doubtful(curve_ms, curve, marks, mark, left, right, rise)
        if primary:
            energy_a[k] += rise
            quality_a[0, k] += imputed
            quality_a[1, k] += bridged
            quality_a[2, k] += right - left - uncovered_ms
            present_a[k] += 1
        if line < 0 or hours[line, 2] != part_ms[k]:
            line = out.used[1]
            if line >= len(hours):
                return False
            out.used[1] += 1
            hours[line, 0], hours[line, 1], hours[line, 2] = m, slot[k], part_ms[k]
            for f in range(3, 8):
                hours[line, f] = 0
        hours[line, 3] += rise
        hours[line, 4] += imputed
        hours[line, 5] += bridged
        hours[line, 6] += right - left
        hours[line, 7] += right - left - uncovered_ms
    return True


@njit
def _doubtful(
    time_ms: Int64s, value: Int64s, marks: Int64s, mark: int, left: int, right: int, rise: int
) -> tuple[int, int, int]:
    """Return the imputed and bridged energy [mJ] and the uncovered time [ms] of one step; marks[mark:] may touch it."""
    imputed = bridged = uncovered_ms = 0
    ends, read = np.empty(2, np.int64), np.empty(2, np.int64)
    while mark < len(marks) and marks[mark, 0] < right:
        ends[0], ends[1] = max(left, marks[mark, 0]), min(right, marks[mark, 1])
        part = rise
        if ends[1] - ends[0] < right - left:
            counter.read_curve(time_ms, value, len(time_ms), ends, read)
            part = read[1] - read[0]
        uncovered_ms += ends[1] - ends[0]
        if marks[mark, 2] == counter.IMPUTED:
            imputed += part
        else:
            bridged += part
        mark += 1
    return imputed, bridged, uncovered_ms


@njit
def _read_activity(
    meters: Meters, m: int, time_ms: Int64s, value: Int64s, spare: Int64s, n: int, steps: Steps, busy: Int64s,
    known: Int64s,
) -> None:  # fmt: skip
    """Read a utilisation meter on the grid: ∫ utilisation dt [ppm·ms] and the time it is known [ms] of each step.

    A sample speaks for the time since the sample before it; over a gap nothing is known.
    """
    before = value[0]
    value[0] = spare[0] = 0
    for i in range(1, n):
        step_ms = time_ms[i] - time_ms[i - 1]
        if step_ms > meters.max_gap_ms[m]:
            step_ms = 0
        before = value[i]
        value[i] = value[i - 1] + before * step_ms
        spare[i] = spare[i - 1] + step_ms
    read = np.empty(len(steps.at_ms), np.int64)
    counter.read_curve(time_ms, value, n, steps.at_ms, read)
    busy[:] += read[1:] - read[:-1]
    counter.read_curve(time_ms, spare, n, steps.at_ms, read)
    known[:] += read[1:] - read[:-1]


@njit
def _keep_events(m: int, events: Int64s, n_events: int, steps: Steps, out: Out) -> bool:
    """Keep what happened to a meter in this window: an event belongs to the window its step ends in."""
    for i in range(n_events):
        if steps.at_ms[0] <= events[i, 2] < steps.at_ms[-1]:
            line = out.used[2]
            if line >= len(out.events):
                return False
            out.used[2] += 1
            out.events[line, 0] = m
            out.events[line, 1:] = events[i]
    return True


@njit
def _rest(
    full: Int64s, present: Int64s, quality: Int64s, assets: Assets, first_asset: int, grid: Grid, steps: Steps
) -> tuple[Int64s, Floats, NDArray[np.bool_]]:
    """Return what each asset shows beyond its measured parts: energy, valued amounts (s, a, k), which have parts."""
    n_assets, n_steps = full.shape
    rest = full.copy()
    parent, base = assets.parent, steps.base
    parted = np.zeros(n_assets, np.bool_)
    for a in range(n_assets):
        for k in range(n_steps):
            if present[a, k] == 0:
                continue
            if present[a, k] > 1:
                quality[2, a, k] //= present[a, k]
            above = parent[first_asset + a]
            while above >= 0 and present[above - first_asset, k] == 0:
                above = parent[above]
            if above >= 0:
                p = above - first_asset
                parted[p] = True
                rest[p, k] -= full[a, k]
                quality[0, p, k] -= quality[0, a, k]
                quality[1, p, k] -= quality[1, a, k]
    n_signals = len(grid.signals)
    valued = np.empty((n_signals, n_assets, n_steps))
    per_mj = np.empty(n_steps)
    for s in range(n_signals):
        values = grid.signals[s]
        for k in range(n_steps):
            per_mj[k] = values[base[k]] / MJ_PER_KWH
        for a in range(n_assets):
            for k in range(n_steps):
                valued[s, a, k] = rest[a, k] * per_mj[k]
    return rest, valued, parted


@njit
def _even_out(u: int, asset: int, rest: Int64s, valued: Floats, steps: Steps, out: Out) -> bool:
    """Make a rest non-negative, part by part.

    Meters are not read at the same instant, so a rest can dip below zero for a moment: within a part the dips are
    evened out over its positive steps. A part whose rest is negative as a whole is a disagreement and goes to unaccounted.
    """
    k0 = 0
    while k0 < len(rest):
        k1 = k0
        total = positive = 0
        while k1 < len(rest) and steps.part_ms[k1] == steps.part_ms[k0]:
            total += rest[k1]
            positive += max(rest[k1], 0)
            k1 += 1
        if total < 0:
            line = _line(
                u,
                asset,
                steps.slot[k0],
                UNACCOUNTED,
                -1,
                steps.part_ms[k0],
                out.keys,
                out.amounts,
                out.valued,
                out.used,
            )
            if line < 0:
                return False
            out.amounts[line, ENERGY] = total
            for s in range(len(valued)):
                out.valued[line, s] = valued[s, k0:k1].sum()
            rest[k0:k1] = 0
            valued[:, k0:k1] = 0.0
        elif positive > total:
            sums = np.array([valued[s, k0:k1].sum() for s in range(len(valued))])
            upto = before = 0
            for k in range(k0, k1):
                upto += max(rest[k], 0)
                now = total if upto == positive else int(total * (upto / positive))
                rest[k] = now - before
                before = now
                for s in range(len(valued)):
                    valued[s, k] = sums[s] * (rest[k] / total) if total > 0 else (sums[s] if k == k0 else 0.0)
        k0 = k1
    return True


@njit
def _bound_quality(rest: Int64s, quality: Int64s) -> None:
    """Keep the doubtful parts of a rest within it: what its parts' meters missed, its own meter may have seen."""
    for k in range(len(rest)):
        quality[0, k] = min(max(quality[0, k], 0), rest[k])
        quality[1, k] = min(max(quality[1, k], 0), rest[k] - quality[0, k])


@njit
def _line(
    u: int, asset: int, slot: int, account: int, job: int, start_ms: int, keys: Int64s, amounts: Int64s, valued: Floats,
    used: Int64s,
) -> int:  # fmt: skip
    """Open a posting and return its line; −1 where there is no room. The last four are those of Out."""
    line = used[0]
    if line >= len(keys):
        return -1
    used[0] += 1
    keys[line, 0], keys[line, 1], keys[line, 2] = u, asset, slot
    keys[line, 3], keys[line, 4], keys[line, 5] = account, job, start_ms
    for f in range(N_AMOUNTS):
        amounts[line, f] = 0
    for s in range(valued.shape[1]):
        valued[line, s] = 0.0
    return int(line)


@njit
def _holders(units: Units, assets: Assets, allocs: Allocations, u: int, asset: int) -> tuple[int, int]:
    """Return which allocations hold an asset: its own for a device, those of the unit's root for what all share."""
    role = assets.role[asset]
    if role == SHARED:
        asset = units.asset0[u]
    elif role != HELD:
        return 0, 0
    low = units.alloc0[u]
    while low < units.alloc0[u + 1] and allocs.asset[low] != asset:
        low += 1
    high = low
    while high < units.alloc0[u + 1] and allocs.asset[high] == asset:
        high += 1
    return low, high


@njit
def _post_asset(
    u: int, asset: int, first_asset: int, assets: Assets, holders: Allocations, steps: Steps, rest: Int64s,
    valued: Floats, quality: Int64s, present: Int64s, busy: Int64s, idle_ppm: int, out: Out,
) -> bool:  # fmt: skip
    """Put one asset's energy on accounts, step by step, to whoever holds it; a line per part, account and holder."""
    role, idle_w = assets.role[asset], assets.idle_w[asset]
    own = busy[:, asset - first_asset]
    at_ms, slot, parts_ms = steps.at_ms, steps.slot, steps.part_ms
    job, estimated, activity, share_ppm = holders.job, holders.estimated, holders.activity, holders.share_ppm
    start_ms, end_ms = holders.start_ms, holders.end_ms
    keys, booked, worth, used = out.keys, out.amounts, out.valued, out.used
    alone = ABOVE if role == UPPER else OVERHEAD if role == OVERHEAD_ROLE else IDLE
    n_holders = len(job)
    lines = np.full((n_holders, 2), -1, np.int64)  # open posting of each holder: working, idle
    lone_line = -1
    active, weight = np.empty(n_holders, np.int64), np.empty(n_holders, np.int64)
    n_active = arrived = part_ms = 0
    turn_ms, takes_all, idle = at_ms[0], False, 0
    amounts, posted = np.zeros(N_AMOUNTS, np.int64), np.zeros(N_AMOUNTS, np.int64)
    whole_step = np.zeros(N_AMOUNTS, np.int64)
    for k in range(len(rest)):
        left, right = at_ms[k], at_ms[k + 1]
        if left >= turn_ms:
            # let go who ended by now, take in who has started, and note when the next one comes or goes
            kept, turn_ms = 0, _NEVER_MS
            for i in range(n_active):
                if end_ms[active[i]] > left:
                    active[kept] = active[i]
                    turn_ms = min(turn_ms, end_ms[active[i]])
                    kept += 1
            while arrived < n_holders and start_ms[arrived] <= left:
                if end_ms[arrived] > left:
                    active[kept] = arrived
                    turn_ms = min(turn_ms, end_ms[arrived])
                    kept += 1
                arrived += 1
            if arrived < n_holders:
                turn_ms = min(turn_ms, start_ms[arrived])
            n_active = kept
            in_part = n_active == 1 and (role == SHARED or estimated[active[0]] != 0)
            takes_all = n_active == 1 and (not in_part or share_ppm[active[0]] >= PPM)
        here = present[k] > 0
        if not here and (n_active == 0 or role != HELD):
            continue
        if k == 0 or parts_ms[k] != part_ms:
            part_ms = parts_ms[k]
            for i in range(n_holders):
                lines[i, 0] = lines[i, 1] = -1
            lone_line = -1
        whole_step[ENERGY], whole_step[IMPUTED], whole_step[BRIDGED] = rest[k], quality[0, k], quality[1, k]
        whole_step[HELD_MS], whole_step[COVERED_MS] = right - left, quality[2, k]
        whole_step[BUSY], whole_step[KNOWN_MS] = own[0, k], own[1, k]
        idle_here = _is_idle(role, idle_w, own[0, k], own[1, k], rest[k], right - left, idle_ppm, here)
        if n_active == 0 or takes_all:
            line, account, who = lone_line, alone, -1
            if takes_all:
                idle = 1 if idle_here else 0
                if activity[active[0]] >= 0:
                    idle = _idles(idle_here, activity[active[0]] - first_asset, busy, k, idle_ppm)
                line, account, who = lines[active[0], idle], HELD_IDLE if idle else JOB, job[active[0]]
                whole_step[ESTIMATED] = rest[k] if estimated[active[0]] else 0
            if line < 0:
                line = _line(u, asset, slot[k], account, who, part_ms, keys, booked, worth, used)
                if line < 0:
                    return False
                if takes_all:
                    lines[active[0], idle] = line
                else:
                    lone_line = line
            for f in range(N_AMOUNTS):
                booked[line, f] += whole_step[f]
            for s in range(len(valued)):
                worth[line, s] += valued[s, k]
            whole_step[ESTIMATED] = 0
            continue
        whole = _weigh(holders, active, n_active, weight, busy, first_asset, k, role)
        posted[:] = 0
        upto = 0
        for i in range(n_active + 1):
            if i == n_active and (upto == whole or not here):
                break
            if i < n_active:
                upto += weight[i]
            part = upto / whole if i < n_active and upto < whole else 1.0
            for f in range(N_AMOUNTS):
                now = whole_step[f] if part == 1.0 else int(whole_step[f] * part)
                amounts[f] = now - posted[f]
                posted[f] = now
            if i < n_active:
                holder = active[i]
                idle = _idles(idle_here, activity[holder] - first_asset, busy, k, idle_ppm)
                if estimated[holder]:
                    amounts[ESTIMATED] = amounts[ENERGY]
                line = lines[holder, idle]
                if line < 0:
                    account = HELD_IDLE if idle else JOB
                    line = _line(u, asset, slot[k], account, job[holder], part_ms, keys, booked, worth, used)
                    lines[holder, idle] = line
            else:
                if lone_line < 0:
                    lone_line = _line(u, asset, slot[k], alone, -1, part_ms, keys, booked, worth, used)
                line = lone_line
            if line < 0:
                return False
            for f in range(N_AMOUNTS):
                booked[line, f] += amounts[f]
            if rest[k] != 0:
                for s in range(len(valued)):
                    worth[line, s] += valued[s, k] * (amounts[ENERGY] / rest[k])
    return True


@njit
def _weigh(
    allocs: Allocations,
    active: Int64s,
    n_active: int,
    weight: Int64s,
    busy: Int64s,
    first_asset: int,
    k: int,
    role: int,
) -> int:
    """Weigh the holders of an asset in one step; return what the whole asset weighs.

    A device's holders divide it among themselves by share × activity where every holder's activity is known and not all
    are zero, else by share. The part of a node that nobody holds stays idle, and so does a device's where only the
    count of devices is known.
    """
    share_ppm, estimated, tells = allocs.share_ppm, allocs.estimated, allocs.activity
    total, active_total, floor = 0, 0, 0
    all_known = True
    for i in range(n_active):
        weight[i] = share_ppm[active[i]]
        total += weight[i]
        if role == SHARED or estimated[active[i]]:
            floor = PPM
        activity = tells[active[i]]
        if activity < 0 or busy[1, activity - first_asset, k] == 0:
            all_known = False
        else:
            active_total += weight[i] * (busy[0, activity - first_asset, k] // busy[1, activity - first_asset, k])
    if n_active > 1 and all_known and active_total > 0 and floor == 0:
        for i in range(n_active):
            activity = tells[active[i]] - first_asset
            weight[i] *= busy[0, activity, k] // busy[1, activity, k]
        return active_total
    if total == 0:
        for i in range(n_active):
            weight[i] = 1
        total = n_active
    return max(total, floor)


@njit
def _is_idle(
    role: int, idle_w: float, busy: int, known_ms: int, energy: int, step_ms: int, idle_ppm: int, here: bool
) -> bool:
    """Return whether a held device does not work in a step: by its utilisation, else by its idle power."""
    if role != HELD:
        return False
    if known_ms > 0:
        return busy < idle_ppm * known_ms
    return here and idle_w > 0.0 and energy <= idle_w * step_ms


@njit
def _idles(device_idles: bool, activity: int, busy: Int64s, k: int, idle_ppm: int) -> int:
    """Return 1 if a holder idles: its own instance's activity decides where it is known, else the device's."""
    if activity >= 0 and busy[1, activity, k] > 0:
        return 1 if busy[0, activity, k] < idle_ppm * busy[1, activity, k] else 0
    return 1 if device_idles else 0
