"""The planner beside others on one instance: the policies of "Let's Wait Awhile" (Middleware '21), and HiGHS.

The paper's policies choose for each job alone: the window of lowest mean intensity before its deadline, or, of a job that
may be interrupted, its lowest slots. On a cluster that can be full they are run in two ways. *Alone*: a job is held until
its window begins, and starts when it fits. *In turn*: by release, each chooses among the slots that still have room.
Those that find none before their deadline run late, in one piece as soon as they fit.

`python benchmarks/peers.py [--quick]` prints these bars alone; `planner.py` runs them among its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace

import numpy as np

from attribution import Bars
from instances import instance
from wattkeeper.plan.place import cost_of, improve, plan, room_of, run_now
from wattkeeper.plan.polish import programme, solver
from wattkeeper.plan.problem import Problem, Weights, pose


@dataclass
class Ran:
    """What a policy's jobs emitted [g], how many were late or never ran, and how long choosing took [s]."""

    carbon_g: float
    late: int
    seconds: float


def paper(problem: Problem, *, alone: bool, suspend: bool) -> Ran:
    """Run one of the paper's policies on a problem of one site, with all its jobs released in order."""
    modes, rate, jobs = problem.modes, problem.rate[0], len(problem.planned)
    free = problem.gpus[0].copy()
    sums = np.concatenate(([0.0], np.cumsum(rate)))
    begin_s = time.perf_counter()
    carbon, late = 0.0, 0
    wished = []
    for m in range(jobs):
        first, end, length = int(modes.first[m]), int(modes.end[m]), int(modes.length[m])
        if suspend:
            may = np.flatnonzero(free[first:end] >= modes.gpus[m]) + first
            held = np.sort(may[np.argsort(rate[may], kind="stable")[:length]])
        else:
            starts = np.arange(first, end - length + 1)
            mean = sums[starts + length] - sums[starts]
            if not alone:
                full = np.concatenate(([0], np.cumsum(free < modes.gpus[m])))
                mean = np.where(full[starts + length] == full[starts], mean, np.inf)
            best = int(starts[np.argmin(mean)])
            held = np.arange(best, best + length) if np.isfinite(mean.min()) else np.empty(0, np.int64)
        wished.append(held)
        if not alone:
            if len(held) < length:  # no room before its deadline: it takes the next there is
                held = _fit(free, float(modes.gpus[m]), first, length)
                late += 1
            free[held] -= modes.gpus[m]
            wished[-1] = held
    seconds = time.perf_counter() - begin_s
    for m in np.argsort([h[0] for h in wished], kind="stable").tolist():
        held = wished[m]
        if alone:
            held = _fit(free, float(modes.gpus[m]), int(held[0]), int(modes.length[m]))
            free[held] -= modes.gpus[m]
            late += int(held[-1]) >= modes.end[m]
        carbon += float(modes.phase_kw[modes.phase0[m]] * rate[held].sum())
    return Ran(carbon, late, seconds)


def _fit(free: np.ndarray, gpus: float, first: int, length: int) -> np.ndarray:
    """Return the slots of the soonest stretch that has room."""
    full = np.concatenate(([0], np.cumsum(free < gpus)))
    starts = np.arange(first, len(free) - length + 1)
    found = starts[full[starts + length] == full[starts]]
    if not len(found):
        raise SystemExit("a policy's jobs do not fit in the horizon")
    return np.arange(found[0], found[0] + length)


def policies(bars: Bars, n: int, least: float) -> None:
    """Save carbon on one site: ours beside the paper's policies, in one run, by carbon saved and by time."""
    whole = instance(n, 1, 60, 0.8)
    for suspend in (False, True):
        jobs = replace(whole.jobs, resume_ms=np.full(n, 0.0 if suspend else -1.0))
        problem = pose(whole.grid, whole.sites, jobs, Weights())
        now_g = cost_of(problem, run_now(problem))
        begin = time.perf_counter()
        made = plan(problem)
        ours_s = time.perf_counter() - begin
        possible = now_g - made.bound_g
        ours, kind = (now_g - made.cost_g) / possible, "lowest slots" if suspend else "lowest window"
        bars.at_most(f"{n} jobs on one site, {kind}: ours unplaced", len(made.unplaced), 0, "{:.0f}")
        bars.note(f"ours: {ours:.1%} of the possible saving in {ours_s:.2f} s, none late")
        for name in ("in turn",) if suspend else ("alone", "in turn"):
            ran = paper(problem, alone=name == "alone", suspend=suspend)
            theirs = (now_g - ran.carbon_g) / possible
            bars.at_least(f"{n} jobs on one site, carbon saved, ours / {kind} {name}", ours / theirs, least)
            bars.note(
                f"{kind} {name}: {theirs:.1%} of it with {ran.late} late in {ran.seconds:.2f} s; "
                f"time ours / theirs {ours_s / ran.seconds:.1f}"
            )


def mip(bars: Bars, n: int, seconds: float, limits: tuple[float, float]) -> None:
    """Let HiGHS solve the whole time-indexed programme alone: time against ours, cost and saving against ours."""
    problem = instance(n, 3, 60, 0.5, biggest=16)
    begin = time.perf_counter()
    made = improve(plan(problem), rounds=100)
    ours_s = time.perf_counter() - begin
    begin = time.perf_counter()
    everyone = np.arange(len(problem.planned), dtype=np.int64)
    highs = solver(programme(problem, everyone, room_of(problem, None)), whole=True, seconds=seconds)
    highs.run()
    theirs_s = time.perf_counter() - begin
    info = highs.getInfo()
    bound_g, cost = float(info.mip_dual_bound), float(info.objective_function_value)
    if not np.isfinite(cost) or info.primal_solution_status != 2:
        bars.note(f"{n} jobs: HiGHS MIP has no plan after {theirs_s:.0f} s, so that no cost stands beside ours")
        return
    done = "done" if cost - bound_g <= 1e-4 * abs(cost) else f"stopped at a gap of {(cost - bound_g) / cost:.2%}"
    bars.note(
        f"HiGHS MIP alone, the whole programme: {theirs_s:.1f} s, {done}; ours {ours_s:.2f} s, gap {made.gap:.2%}"
    )
    bars.at_least(f"{n} jobs, HiGHS MIP time / ours", theirs_s / ours_s, limits[0])
    bars.at_most(f"{n} jobs, our cost / HiGHS MIP in {seconds:.0f} s", made.cost_g / cost, limits[1], "{:.4f}")
    now_g = cost_of(problem, run_now(problem))
    bars.note(f"saved, ours / HiGHS MIP: {(now_g - made.cost_g) / (now_g - cost):.3f}")


def main() -> int:
    """Run the policies and the MIP beside the planner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller instances, under 50 s")
    quick = parser.parse_args().quick
    bars = Bars()
    plan(instance(100, 3, 60, 0.5, biggest=16))  # compiled before anything is timed
    policies(bars, 2000 if quick else 10_000, 1.0)
    mip(bars, 1000, 20 if quick else 60, (5.0, 1.02) if quick else (20.0, 1.01))
    return 1 if bars.failed else 0


if __name__ == "__main__":
    sys.exit(main())
