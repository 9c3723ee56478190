"""The ways to run each job: sites, cap levels and lengths in slots, with what they draw slot by slot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from wattkeeper.plan.duration import corners, mean_until_ms, whole_slots
from wattkeeper.plan.modes import RIGID, Modes
from wattkeeper.plan.records import CRITICAL, Grid, Jobs, Weights

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

_SLOTS_AT_A_TIME = 1 << 19


def lay_out(
    grid: Grid,
    jobs: Jobs,
    weights: Weights,
    mean_rate: Floats,
    gpus: Floats,
    power_kw: Floats,
    skipped: Mapping[int, str],
) -> tuple[Modes, Int64s, Int64s, Int64s]:
    """Return the modes of all jobs that have one, the cap level of each, those jobs' places, and how many slots later
    than it could each mode would end if begun at once."""
    n, n_sites = jobs.transfer_kwh.shape
    sound = np.ones(n, np.bool_)
    sound[list(skipped)] = False
    release = _slots_up(np.maximum(jobs.release_ms - grid.start_ms, 0), grid.slot_ms)
    held_ms, mean_ms = jobs.held_ms(), jobs.mean_ms()
    due = np.clip((jobs.deadline_ms - grid.start_ms) // grid.slot_ms, 0, grid.slots)
    with np.errstate(invalid="ignore"):
        length = np.where(
            sound[:, None] & ~np.isnan(jobs.slowdown),
            whole_slots(held_ms[:, None] * jobs.slowdown, grid.slot_ms),
            np.inf,
        )
        moving = np.where(np.isnan(jobs.transfer_kwh), np.inf, np.ceil(jobs.transfer_ms / grid.slot_ms))
    kw = jobs.kw[:, None] * jobs.power
    first = release[:, None, None] + moving[:, :, None]  # (n, sites, levels)
    possible = sound[:, None, None] & (first + length[:, None, :] <= due[:, None, None])
    possible &= (jobs.gpus[:, None] <= gpus.max(1))[:, :, None]
    with np.errstate(invalid="ignore"):
        possible &= kw[:, None, :] <= power_kw.max(1)[None, :, None]
    critical = jobs.tier == CRITICAL
    home = np.argmin(np.where(np.isnan(jobs.transfer_kwh), np.inf, jobs.transfer_kwh), axis=1)
    possible &= ~critical[:, None, None] | (np.arange(n_sites) == home[:, None])[:, :, None]
    possible[:, :, 1:] &= ~critical[:, None, None]
    job, site, level = np.nonzero(possible)
    begin = first[job, site, 0].astype(np.int64)
    slots = length[job, level].astype(np.int64)
    end = np.where(critical[job], begin + slots, due[job])
    suspendable = (jobs.resume_ms >= 0) & ~critical
    resume = np.where(suspendable, _slots_up(np.maximum(jobs.resume_ms, 0), grid.slot_ms), RIGID).astype(np.int64)
    per_slot = jobs.gpus * jobs.delay_weight * weights.delay_g_per_gpu_h * grid.slot_h
    soonest = release[job] + length[job].min(1)
    late = begin + slots - soonest
    moved_g = jobs.transfer_kwh[job, site] * mean_rate[site]
    planned, counts = np.unique(job, return_counts=True)
    has_marks = suspendable[planned]
    window = np.where(has_marks, np.maximum(due - release, 0)[planned], 0)
    peak = kw[job, level]
    # energy over whole slots: the last one is held in full and drawn in part
    drawn = peak * (mean_ms[job] * jobs.slowdown[job, level]) / (slots * grid.slot_ms)
    phase0, phase_end, phase_kw = _phases(grid, jobs, job, level, slots, drawn)
    modes = Modes(
        mode0=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        site=site.astype(np.int64),
        first=begin,
        end=end.astype(np.int64),
        length=slots,
        gpus=jobs.gpus[job],
        kw=peak,
        fixed=moved_g + per_slot[job] * late,
        delay=per_slot[job],
        resume=resume[job],
        resume_kwh=np.where(suspendable, jobs.resume_kwh, 0.0)[job] / grid.slot_h,
        phase0=phase0,
        phase_end=phase_end,
        phase_kw=phase_kw,
        mark0=np.concatenate(([0], np.cumsum(window))).astype(np.int64),
        window0=release[planned],
    )
    return modes, level.astype(np.int64), planned.astype(np.int64), late


def _phases(
    grid: Grid, jobs: Jobs, job: Int64s, level: Int64s, slots: Int64s, drawn: Floats
) -> tuple[Int64s, Int64s, Floats]:
    """Return the phases of each mode: one at mean power, or one per slot of a profile where the power changes, or one
    per slot of an uncertain duration, at the power that is expected there."""
    if not len(job):
        return np.zeros(1, np.int64), slots, drawn
    whole = (jobs.resume_ms < 0) | (jobs.tier == CRITICAL)
    unsure = np.flatnonzero((jobs.uncertain & whole)[job])
    profiled = np.flatnonzero(np.isin(job, list(jobs.profiles)))
    count = np.ones(len(job), np.int64)
    count[unsure] = slots[unsure]
    told = {m: _profile_kw(grid, jobs, int(job[m]), int(level[m]), int(slots[m])) for m in profiled.tolist()}
    count[profiled] = [len(ends) for ends, _ in told.values()]
    phase0 = np.concatenate(([0], np.cumsum(count))).astype(np.int64)
    ends, kw = np.empty(phase0[-1], np.int64), np.empty(phase0[-1])
    ends[phase0[:-1]], kw[phase0[:-1]] = slots, drawn
    for m, (one_end, one_kw) in told.items():
        ends[phase0[m] : phase0[m + 1]], kw[phase0[m] : phase0[m + 1]] = one_end, one_kw
    if len(unsure):
        # at each of its sites a job is expected to draw the same
        _, first, which = np.unique(
            job[unsure] * jobs.power.shape[1] + level[unsure], return_index=True, return_inverse=True
        )
        one = unsure[first]
        parts = np.array_split(one, 1 + int(slots[one].sum()) // _SLOTS_AT_A_TIME)
        power = np.concatenate([_expected_kw(grid, jobs, job[some], level[some], slots[some]) for some in parts])
        mode, slot = _each_slot(slots[unsure])
        where = phase0[unsure][mode] + slot
        ends[where], kw[where] = slot + 1, power[(np.cumsum(slots[one]) - slots[one])[which][mode] + slot]
    return phase0, ends, kw


def _each_slot(slots: Int64s) -> tuple[Int64s, Int64s]:
    """Return for all slots of modes, one after the other, which mode it is of and which slot from the start."""
    mode = np.repeat(np.arange(len(slots)), slots)
    return mode, np.arange(len(mode)) - np.repeat(np.cumsum(slots) - slots, slots)


def _profile_kw(grid: Grid, jobs: Jobs, i: int, level: int, slots: int) -> tuple[Int64s, Floats]:
    """Return the ends [slots] and powers [kW] of a profile's phases."""
    slow, power = jobs.slowdown[i, level], jobs.power[i, level]
    edges_ms = np.concatenate(([0.0], np.cumsum([ms for ms, _ in jobs.profiles[i]]))) * slow
    energy = np.concatenate(([0.0], np.cumsum([ms * w for ms, w in jobs.profiles[i]]))) * slow * power
    at = np.interp(np.arange(slots + 1) * grid.slot_ms, edges_ms, energy)
    each = np.diff(at) / grid.slot_ms / 1e3
    change = np.append(np.flatnonzero(each[1:] != each[:-1]) + 1, slots)
    return change.astype(np.int64), each[change - 1]


def _expected_kw(grid: Grid, jobs: Jobs, job: Int64s, level: Int64s, slots: Int64s) -> Floats:
    """Return the expected power in all slots of modes, one after the other [kW].

    What a job may draw after the room held for it ends is counted in the last slot of that room.
    """
    at, slot = _each_slot(slots)
    p, t = corners(jobs.duration_ms[job], jobs.chance[job], jobs.within_ms[job])
    t = t * jobs.slowdown[job, level][:, None]
    p, t, last = p[at], t[at], t[at, -1]
    begin: Floats = slot.astype(np.float64) * grid.slot_ms
    until: Floats = np.where(slot + 1 == slots[at], last, np.minimum(begin + grid.slot_ms, last))
    run_ms = mean_until_ms(p, t, until) - mean_until_ms(p, t, begin)
    power: Floats = (jobs.kw[job] * jobs.power[job, level])[at] * run_ms / grid.slot_ms
    return power


def _slots_up(ms: NDArray[np.float64] | Int64s, slot_ms: int) -> Int64s:
    slots: Int64s = np.ceil(np.asarray(ms, np.float64) / slot_ms).astype(np.int64)
    return slots
