"""The counter state machine: from what a meter showed to energy that only rises.

A joule counter is trusted step by step. A step that falls, rises faster than the asset can draw, or bridges a silence
is looked at; all others (nearly all) are not touched. What a looked-at step can be:

wrap     it fell, and adding the counter's known maximum makes the step plausible: measured.
glitch   one to three readings stand apart and the counter then goes on from where it was (a failed read that says 0,
         a sentinel); or readings lie a little lower until the counter is back (late ones, those of a second reader whose
         clock is behind), or one lies so close before the next that its time must be off: those are dropped.
reset    the counter starts again (driver reload, reboot): the energy of this one step is imputed.
gap      the counter survived a silence: the energy is exact in total, its course in time is a straight line.

All functions here work in place on arrays, compile with numba, and give equal integers without it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.jit import COMPILED, njit

Int64s = NDArray[np.int64]

BRIDGED, IMPUTED = 1, 2
"""Quality of a marked step: exact in total but interpolated in time, or not measured at all."""

GAP, RESET, WRAP, GLITCH = 0, 1, 2, 3
EVENT_NAMES = ("gap", "reset", "wrap", "glitch")
"""Names of the events, indexed by their codes."""

RESETS_A_DAY = 12
"""A counter that is reset more often within a day is hardly reset: its asset draws more than it is said to."""

LOOK_BACK, LOOK_AHEAD = 4, 3
"""Readings before and after a stretch that the state machine may need to judge the stretch."""


_MAX_GLITCH = 3
_DIP = 0.9
_LEAP = 4.0
_NEVER = 2**62
_LOW_32 = 0xFFFFFFFF


def _suspects_numpy(time_ms: Int64s, value: Int64s, n: int, max_gap_ms: int, bound_w: int, out: Int64s) -> int:
    step_ms = np.diff(time_ms[:n])
    rise = np.diff(value[:n])
    odd = (rise < 0) | (step_ms > max_gap_ms)
    if bound_w > 0:
        odd |= rise > bound_w * step_ms
    found = np.flatnonzero(odd) + 1
    out[: len(found)] = found
    return len(found)


@njit
def _suspects_loop(
    time_ms: Int64s, value: Int64s, n: int, max_gap_ms: int, bound_w: int, out: Int64s
) -> int:  # pragma: no cover - compiled; compared with the numpy form in tests
    t0, t1 = time_ms[: n - 1], time_ms[1:n]
    e0, e1 = value[: n - 1], value[1:n]
    count = 0
    block = 1024
    for start in range(0, n - 1, block):
        stop = min(start + block, n - 1)
        sign = 0
        if bound_w > 0:
            # factors of 32 bits multiply at vector speed; a longer step only looks odder than it is
            for i in range(start, stop):
                step_ms = t1[i] - t0[i]
                rise = e1[i] - e0[i]
                sign |= rise | (max_gap_ms - step_ms) | ((bound_w & _LOW_32) * (step_ms & _LOW_32) - rise)
        else:
            for i in range(start, stop):
                sign |= (e1[i] - e0[i]) | (max_gap_ms - (t1[i] - t0[i]))
        if sign < 0:
            for i in range(start, stop):
                step_ms = t1[i] - t0[i]
                rise = e1[i] - e0[i]
                if rise < 0 or step_ms > max_gap_ms or (bound_w > 0 and rise > bound_w * step_ms):
                    out[count] = i + 1
                    count += 1
    return count


suspects = _suspects_loop if COMPILED else _suspects_numpy
"""Find the steps to look at: (time, value, n, max_gap_ms, bound_w, out) → count; out holds each step's right end."""


@njit
def repair(
    time_ms: Int64s,
    value: Int64s,
    n: int,
    max_gap_ms: int,
    bound_w: int,
    wrap_mj: int,
    odd: Int64s,
    marks: Int64s,
    events: Int64s,
) -> tuple[int, int, int]:
    """Make counter readings rise, in place; return how many readings, marks and events there are.

    time_ms, value: (≥ n,) rising times and raw counter [mJ]. bound_w: 1.2 × ceiling [W], 0 if unknown.
    odd: (n,) scratch. marks: (n, 3) gets start_ms, end_ms, quality of each step not measured as such.
    events: (n, 4) gets code, start_ms, end_ms, energy [mJ].
    """
    n_odd = suspects(time_ms, value, n, max_gap_ms, bound_w, odd)
    if n_odd == 0:
        return n, 0, 0
    n_marks = n_events = 0
    offset = 0  # added to raw readings from `since` on
    since = 0
    dropped = 0  # readings removed so far: reading i moves to i - dropped
    done = 0  # suspects up to this reading are settled
    for which in range(n_odd):
        i = odd[which]
        if i < done:
            continue
        p = i - 1
        rise = value[i] - value[p]
        step_ms = time_ms[i] - time_ms[p]
        bound = bound_w * step_ms if bound_w > 0 else _NEVER
        nxt, code, energy = i, GAP, rise
        if rise < 0 and wrap_mj > 0 and 0 <= rise + wrap_mj <= bound:
            code, energy = WRAP, rise + wrap_mj
        elif rise < 0 or rise > bound:
            apart = _stands_apart(time_ms, value, p, i, since, max_gap_ms, bound_w)
            nxt = i if apart else _back_in_line(time_ms, value, n, i, max_gap_ms, bound_w)
            if nxt == n:  # nothing more is known: the curve ends before them
                code, energy = GLITCH, 0
            elif nxt > i:
                code, energy = GLITCH, value[nxt] - value[p]
            elif apart:
                p -= 1
                code, energy = GLITCH, value[i] - value[p]
            else:
                code, energy = RESET, _imputed(time_ms, value, p, i, offset, since, bound_w)
        end = min(nxt, n - 1)
        begin_ms = time_ms[p]
        step_ms = time_ms[end] - begin_ms
        lift = energy - (value[end] - value[p])
        if code != GAP:  # settle the stretch since the last change: shift it to its place and lift it by the offset
            _move(time_ms, value, since, p + 1, dropped, offset)
            dropped += nxt - p - 1
            offset += lift
            since = nxt
            done = nxt + 1
        if code == RESET or step_ms > max_gap_ms:
            marks[n_marks, 0] = begin_ms
            marks[n_marks, 1] = time_ms[end]
            marks[n_marks, 2] = IMPUTED if code == RESET else BRIDGED
            n_marks += 1
        events[n_events, 0] = code
        events[n_events, 1] = begin_ms
        events[n_events, 2] = time_ms[end]
        events[n_events, 3] = energy
        n_events += 1
    _move(time_ms, value, since, n, dropped, offset)
    return n - dropped, n_marks, n_events


@njit
def _move(time_ms: Int64s, value: Int64s, start: int, stop: int, back: int, lift: int) -> None:
    for i in range(start, stop) if back or lift else range(0):
        time_ms[i - back] = time_ms[i]
        value[i - back] = value[i] + lift


@njit
def _back_in_line(time_ms: Int64s, value: Int64s, n: int, i: int, max_gap_ms: int, bound_w: int) -> int:
    """Return the reading that goes on from the one before i after a glitch at i; i itself when there is none.

    A small fall without a silence is a late reading, or one of a second reader whose clock is behind, when the counter is
    back before a silence would have passed; n where the readings end before that. Zeros are failed reads. A rise too fast
    for its step is none for the step to the next reading, where that one is no silence. Any other glitch has to end in a
    step as odd as the one it began with: where the ceiling is not known, in a leap, a rise several times as fast as that
    from before the glitch.
    """
    p = i - 1
    short = value[i] > value[p]
    least = _DIP * value[p]
    late = least <= value[i] < value[p] and time_ms[i] - time_ms[p] <= max_gap_ms
    for j in range(i + 1, n if late else min(i + 1 + _MAX_GLITCH, n)):
        if j > i + _MAX_GLITCH and (value[j] < least or time_ms[j] - time_ms[p] > max_gap_ms):
            return i
        rise, span_ms = value[j] - value[p], time_ms[j] - time_ms[p]
        if rise < 0 or (bound_w > 0 and rise > bound_w * span_ms):
            continue
        last_rise, last_ms = value[j] - value[j - 1], time_ms[j] - time_ms[j - 1]
        leap = _is_leap(last_rise, last_ms, rise, span_ms)
        if late or value[j - 1] == 0 or last_rise < 0 or (last_rise > bound_w * last_ms if bound_w > 0 else leap):
            return j
        if short and j == i + 1 and span_ms <= max_gap_ms:
            return j
    return n if late and value[n - 1] >= least and time_ms[n - 1] - time_ms[p] <= max_gap_ms else i


@njit
def _stands_apart(time_ms: Int64s, value: Int64s, p: int, i: int, since: int, max_gap_ms: int, bound_w: int) -> bool:
    """Return whether p is the odd one of the step from p to i: from the reading before p the counter goes on at i.

    It leapt at p and is back at i, as where a second counter has the same name; or the step is only too short for its
    rise, as where two readers of one counter each lose milliseconds between its value and the time that they write down.
    """
    q = p - 1
    if q < since or not value[q] <= min(value[p], value[i]) or time_ms[i] - time_ms[q] > max_gap_ms:
        return False
    rise, span_ms = value[i] - value[q], time_ms[i] - time_ms[q]
    if bound_w > 0 and rise > bound_w * span_ms:
        return False
    return value[i] > value[p] or _is_leap(value[p] - value[q], time_ms[p] - time_ms[q], rise, span_ms)


@njit
def _is_leap(rise: int, span_ms: int, around: int, around_ms: int) -> bool:
    """Return whether a rise is several times as fast as the one around it."""
    return bool(rise * float(around_ms) > _LEAP * around * span_ms)


@njit
def _imputed(time_ms: Int64s, value: Int64s, p: int, i: int, offset: int, since: int, bound_w: int) -> int:
    """Return the energy of a step in which the counter restarted [mJ].

    The mean power of up to three steps before it goes on; at least what the restarted counter already shows, if it can
    have counted that; at most what the asset can draw.
    """
    step_ms = time_ms[i] - time_ms[p]
    first = max(p - 3, since)
    energy = 0
    if p > first:
        rise = value[p] - value[first]
        energy = int(rise * (step_ms / (time_ms[p] - time_ms[first])))
    ceiling = bound_w * step_ms if bound_w > 0 else max(energy, 0)
    if 0 <= value[i] < value[p] and value[i] <= ceiling:
        energy = max(energy, int(value[i]))
    return int(min(energy, ceiling))


@njit
def accumulate_power(
    time_ms: Int64s, value: Int64s, n: int, max_gap_ms: int, marks: Int64s, events: Int64s
) -> tuple[int, int]:
    """Turn power samples [mW] into cumulative energy [mJ] in place, by the trapezoid rule; return marks, events.

    Each step is rounded to a whole millijoule, so that a step's energy does not depend on where the sum began.
    A step over a gap is imputed: nothing counted it.
    """
    n_marks = 0
    total = 0
    before = value[0]
    value[0] = 0
    for i in range(1, n):
        step_ms = time_ms[i] - time_ms[i - 1]
        energy = int(np.rint((before + value[i]) * (step_ms / 2000.0)))
        before = value[i]
        total += energy
        value[i] = total
        if step_ms > max_gap_ms:
            marks[n_marks, 0] = time_ms[i - 1]
            marks[n_marks, 1] = time_ms[i]
            marks[n_marks, 2] = IMPUTED
            events[n_marks, 0] = GAP
            events[n_marks, 1] = time_ms[i - 1]
            events[n_marks, 2] = time_ms[i]
            events[n_marks, 3] = energy
            n_marks += 1
    return n_marks, n_marks


@njit
def accumulate_intervals(
    time_ms: Int64s,
    value: Int64s,
    n: int,
    interval_ms: int,
    out_ms: Int64s,
    out_mj: Int64s,
    marks: Int64s,
    events: Int64s,
) -> tuple[int, int, int]:
    """Turn energy per interval [mJ], stamped at its end, into points of a cumulative curve.

    Return points, marks, events. Where intervals are missing, the hole is imputed at the mean power of the interval
    before it. Two values closer than one interval overlap, as those of two readers do; the later one then counts from the
    earlier one's end, for its part of the interval.
    """
    out_ms[0] = time_ms[0] - interval_ms
    out_mj[0] = 0
    out_ms[1] = time_ms[0]
    out_mj[1] = value[0]
    points = 2
    n_marks = 0
    for i in range(1, n):
        hole_ms = time_ms[i] - time_ms[i - 1] - interval_ms
        if hole_ms > 0:
            energy = int(value[i - 1] * (hole_ms / interval_ms))
            out_ms[points] = time_ms[i] - interval_ms
            out_mj[points] = out_mj[points - 1] + energy
            marks[n_marks, 0] = time_ms[i - 1]
            marks[n_marks, 1] = time_ms[i] - interval_ms
            marks[n_marks, 2] = IMPUTED
            events[n_marks, 0] = GAP
            events[n_marks, 1] = time_ms[i - 1]
            events[n_marks, 2] = time_ms[i] - interval_ms
            events[n_marks, 3] = energy
            n_marks += 1
            points += 1
        energy = value[i]
        if hole_ms < 0:  # in whole numbers: value × step may not fit
            whole = value[i] // interval_ms
            step_ms = interval_ms + hole_ms
            energy = whole * step_ms + (value[i] - whole * interval_ms) * step_ms // interval_ms
        out_ms[points] = time_ms[i]
        out_mj[points] = out_mj[points - 1] + energy
        points += 1
    return points, n_marks, n_marks


@njit
def read_curve(time_ms: Int64s, energy_mj: Int64s, n: int, at_ms: Int64s, out_mj: Int64s) -> None:
    """Read cumulative energy at rising instants, floored to whole millijoules; held constant outside the curve.

    time_ms, energy_mj: (≥ n,) the curve's points. at_ms, out_mj: (k,). An interpolation search finds the step, as
    meters are read at nearly equal distances; a binary search takes over behind gaps.
    """
    last = n - 1
    i = 1  # right end of the step in hand
    for k in range(len(at_ms)):
        when = at_ms[k]
        if n == 0 or when <= time_ms[0]:
            out_mj[k] = energy_mj[0] if n else 0
            continue
        if when >= time_ms[last]:
            out_mj[k] = energy_mj[last]
            continue
        if time_ms[i] <= when:
            span_ms = time_ms[last] - time_ms[i]
            guess = i + int((last - i) * ((when - time_ms[i]) / span_ms))
            low, high = i, last
            for _ in range(16):
                if time_ms[guess] <= when:
                    low = guess
                    if time_ms[guess + 1] > when:
                        high = guess + 1
                        break
                    guess += 1
                else:
                    high = guess
                    guess -= 1
            while high - low > 1:
                middle = (low + high) // 2
                if time_ms[middle] <= when:
                    low = middle
                else:
                    high = middle
            i = high
        before = i - 1
        span_ms = time_ms[i] - time_ms[before]
        into_ms = when - time_ms[before]
        rise = energy_mj[i] - energy_mj[before]
        whole = rise // span_ms
        out_mj[k] = energy_mj[before] + whole * into_ms + int((rise - whole * span_ms) * (into_ms / span_ms))
