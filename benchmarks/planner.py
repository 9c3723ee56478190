"""The planner: gaps on instances of a week, beside the HiGHS linear programme, planning again, and a rolling week.

`python benchmarks/planner.py [--quick]` prints one line per bar, `name value limit holds|falls short`, and exits with 1
where one falls short. Every plan is checked by `plan/check.py`, which shares nothing with the planner but the records.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from attribution import Bars
from instances import GRID, instance
from wattkeeper.plan.check import check
from wattkeeper.plan.place import Plan, cost_of, plan, room_of, run_now
from wattkeeper.plan.placement import placements
from wattkeeper.plan.polish import polish, programme, solver

HERE = Path(__file__).parent


def verify(bars: Bars, name: str, made: Plan) -> None:
    """Check a plan from the records alone."""
    p = made.problem
    found = check(p.grid, p.sites, p.jobs, p.weights, placements(p, made.places))
    bars.at_most(f"{name} faults found by the check", len(found.faults), 0, "{:.0f}")
    bars.at_most(f"{name} cost differs from the check", abs(found.cost_g / made.cost_g - 1), 1e-9, "{:.0e}")


def gaps(bars: Bars, n: int, n_sites: int, slot_min: int, limits: dict[float, float], seeds: int) -> None:
    """Plan instances of three utilisations; the bar holds for the worst seed."""
    for util, limit in limits.items():
        name = f"{n // 1000}k {n_sites}x{slot_min} {util:.0%}"
        made, spent = [], []
        for seed in range(seeds):
            problem = instance(n, n_sites, slot_min, util, seed)
            begin = time.perf_counter()
            made.append(plan(problem))
            spent.append(time.perf_counter() - begin)
        worst = max(made, key=lambda m: 100.0 if m.gap is None else m.gap)
        bars.at_most(f"{name} gap [%]", 100 * (worst.gap if worst.gap is not None else 99.0), limit)
        bars.at_most(f"{name} unplaced jobs", sum(len(m.unplaced) for m in made), 0, "{:.0f}")
        bars.at_most(f"{name} passes over all jobs", max(m.prices.passes for m in made), 400, "{:.0f}")
        verify(bars, name, worst)
        now = run_now(worst.problem)
        share = (cost_of(worst.problem, now) - worst.cost_g) / (cost_of(worst.problem, now) - worst.bound_g)
        bars.note(
            f"{name}: {statistics.median(spent):.1f} s; {share:.1%} of the saving over running now that is possible"
        )


def linear_programme(bars: Bars, n: int, limit: float, gap: float) -> None:
    """Solve the LP of the same instance with HiGHS: time ratio, and our bound against its optimum."""
    problem = instance(n, 3, 60, 0.8)
    begin = time.perf_counter()
    made = plan(problem)
    ours_s = time.perf_counter() - begin
    begin = time.perf_counter()
    everyone = np.arange(len(problem.planned), dtype=np.int64)
    highs = solver(programme(problem, everyone, room_of(problem, None)), whole=False, seconds=1200, solver="ipm")
    highs.run()
    lp_s = time.perf_counter() - begin
    optimum = float(highs.getInfo().objective_function_value)
    bars.at_least(f"{n} jobs, HiGHS LP time / ours", lp_s / ours_s, limit)
    bars.at_most(f"{n} jobs, our bound / LP optimum", made.bound_g / optimum, 1.0, "{:.5f}")
    bars.at_most(f"{n} jobs gap [%]", 100 * (made.gap if made.gap is not None else 99.0), gap)


def weak_spot(bars: Bars, limit: float) -> None:
    """Ten small sites and gangs of 64, where ejection fails."""
    problem = instance(10_000, 10, 60, 0.8)
    made = plan(problem)
    bars.at_most(
        f"10k, 10 sites of {problem.gpus[0, 0]:.0f}, gangs of 64, gap [%]",
        100 * (made.gap if made.gap is not None else 99.0), limit,
    )  # fmt: skip
    bars.at_most("10 small sites unplaced jobs", len(made.unplaced), 0, "{:.0f}")
    verify(bars, "10 small sites", made)


def small(bars: Bars, n: int, seconds: float) -> None:
    """Polish a small instance."""
    made = plan(instance(n, 3, 60, 0.5, biggest=16))
    done = polish(made, seconds=seconds)
    bars.at_most(f"{n} jobs, gap polished / not", (done.gap or 0.0) / (made.gap or 1.0), 1.0)
    bars.note(f"{n} jobs: gap {made.gap:.2%}, polished in {seconds:.0f} s {done.gap:.2%}")
    verify(bars, f"{n} jobs polished", done)


def main() -> int:
    """Run the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller instances, under 50 s")
    quick = parser.parse_args().quick
    bars = Bars()
    bars.note(
        f"intensity: {'recorded, 2023' if (GRID / 'intensity').exists() else 'made up, the recordings are not here'}"
    )
    plan(instance(200, 3, 60))  # compiles the kernels where that was not done before
    if quick:
        gaps(bars, 20_000, 3, 60, {0.8: 1.0, 0.95: 1.5}, 1)
        weak_spot(bars, 4.0)
        linear_programme(bars, 1000, 1.0, 10.0)
        small(bars, 200, 3)
    else:
        gaps(bars, 100_000, 3, 60, {0.5: 1.0, 0.8: 0.6, 0.95: 1.0}, 3)
        gaps(bars, 100_000, 10, 15, {0.5: 1.2, 0.8: 1.2, 0.95: 1.8}, 1)
        weak_spot(bars, 4.0)
        small(bars, 1000, 60)
        linear_programme(bars, 10_000, 25.0, 1.0)
    if not quick:
        note = f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {os.cpu_count()} cores {platform.python_version()}"
        result = HERE / "results" / f"planner-{datetime.now(UTC):%Y-%m-%d}.txt"
        result.write_text("\n".join([note, *bars.lines]) + "\n")
    return 1 if bars.failed else 0


if __name__ == "__main__":
    sys.exit(main())
