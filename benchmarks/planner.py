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
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from attribution import Bars
from instances import GRID, instance
from peers import mip, policies
from wattkeeper.plan.again import along, plan_ahead, replan
from wattkeeper.plan.bound import Prices, empty_places, price, waits
from wattkeeper.plan.check import check
from wattkeeper.plan.place import Plan, cost_of, improve, plan, room_of, run_now
from wattkeeper.plan.placement import placements
from wattkeeper.plan.polish import polish, programme, solver
from wattkeeper.plan.problem import Grid, Jobs, Problem, pose

HERE = Path(__file__).parent


def gap_pct(made: Plan) -> float:
    """Return the gap [%]; a plan that states none is worse than any that does."""
    return 9900.0 if made.gap is None else 100 * made.gap


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
        worst = max(made, key=gap_pct)
        bars.at_most(f"{name} gap [%]", gap_pct(worst), limit)
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
    bars.at_most(f"{n} jobs gap [%]", gap_pct(made), gap)


def weak_spot(bars: Bars, limit: float) -> None:
    """Ten small sites and gangs of 64, where ejection fails."""
    problem = instance(10_000, 10, 60, 0.8)
    made = improve(plan(problem))
    bars.at_most(
        f"10k, 10 sites of {problem.gpus[0, 0]:.0f}, gangs of 64, gap [%]",
        gap_pct(made), limit,
    )  # fmt: skip
    bars.at_most("10 small sites unplaced jobs", len(made.unplaced), 0, "{:.0f}")
    verify(bars, "10 small sites", made)


def small(bars: Bars, n: int, seconds: float) -> None:
    """Polish a small instance."""
    made = improve(plan(instance(n, 3, 60, 0.5, biggest=16)), rounds=100)
    done = polish(made, seconds=seconds)
    bars.at_most(f"{n} jobs, gap polished / not", (done.gap or 0.0) / (made.gap or 1.0), 1.0)
    bars.note(f"{n} jobs: gap {made.gap:.2%}, polished in {seconds:.0f} s {done.gap:.2%}")
    verify(bars, f"{n} jobs polished", done)


def again(bars: Bars, n: int, limits: tuple[float, float, float]) -> None:
    """Change 1 % of the jobs (as many leave as arrive) and plan again: time, gap and how many keep their place."""
    whole = instance(n + n // 100, 3, 60, 0.8)
    order = np.random.default_rng(5).permutation(len(whole.jobs.ids))
    first, then = np.sort(order[n // 100 :]), np.sort(order[: -(n // 100)])
    old, new = (pose(whole.grid, whole.sites, whole.jobs.take(part), whole.weights) for part in (first, then))
    before = plan(old)
    anew_s, again_s = [], []
    for _ in range(3):
        begin = time.perf_counter()
        anew = plan(new)
        anew_s.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        made = replan(before, new)
        again_s.append(time.perf_counter() - begin)
    gaps_pct = [gap_pct(m) for m in (made, anew)]
    stood = {p.job: p for p in placements(old, before.places) if p}
    stands = {p.job: p for p in placements(new, made.places) if p}
    both = stood.keys() & stands.keys()
    kept = sum(stood[j] == stands[j] for j in both) / len(both)
    bars.at_most(
        f"{n // 1000}k, 1 % changed, time / planning anew", _median_ratio(again_s, anew_s), limits[0], "{:.3f}"
    )
    bars.at_most(f"{n // 1000}k, 1 % changed, gap above anew [points]", gaps_pct[0] - gaps_pct[1], limits[1])
    bars.at_least(f"{n // 1000}k, 1 % changed, places kept [%]", 100 * kept, limits[2])
    bars.note(f"again {statistics.median(again_s) * 1000:.0f} ms, gap {gaps_pct[0]:.2f} %")
    verify(bars, f"{n // 1000}k again", made)


def fairness(bars: Bars, n: int, users: int, gap: float) -> None:
    """Even out the delay of users, few of whom own most jobs, and keep every deadline at 90 % of uncertain durations."""
    whole = instance(n, 3, 60, 0.8)
    rng = np.random.default_rng(7)
    owner = np.minimum(rng.exponential(users / 4, n).astype(np.int64), users - 1)
    jobs = replace(whole.jobs, user=np.char.add("user", owner.astype(np.str_)))
    problem = pose(whole.grid, whole.sites, jobs, replace(whole.weights, fairness_g=1.0))
    begin = time.perf_counter()
    made = plan(problem)
    fair_s = time.perf_counter() - begin
    name = f"{n // 1000}k, {users} users, fair"
    bars.at_most(f"{name} gap [%]", gap_pct(made), gap)
    verify(bars, name, made)
    begin = time.perf_counter()
    free = plan(whole)
    free_s = time.perf_counter() - begin
    delays = [waits(problem, one.places).total * problem.delays.steep for one in (free, made)]
    bars.note(
        f"longest mean delay of a user {delays[0].max():.1f} h without fairness, {delays[1].max():.1f} h with; "
        f"cost apart from it {cost_of(whole, made.places) / free.cost_g:.4f}; time {fair_s / free_s:.1f}"
    )
    ms = whole.jobs.duration_ms
    jobs = replace(
        whole.jobs, confidence=np.full(n, 0.9), chance=np.tile([0.5, 0.9], (n, 1)),
        within_ms=np.column_stack((0.5 * ms, 0.8 * ms)),
    )  # fmt: skip
    begin = time.perf_counter()
    made = plan(pose(whole.grid, whole.sites, jobs, whole.weights))
    bars.at_most(f"{n // 1000}k uncertain gap [%]", gap_pct(made), gap)
    bars.note(f"time of uncertain / certain durations {(time.perf_counter() - begin) / free_s:.1f}")
    verify(bars, f"{n // 1000}k uncertain", made)


def _median_ratio(some: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(some, other, strict=True))


def rolling(bars: Bars, n: int, errors: tuple[float, ...], limit: float) -> None:
    """Plan a week hour by hour, knowing only what has been submitted, what usually arrives, and a forecast."""
    whole = instance(n, 3, 60, 0.8)
    usual = instance(n, 3, 60, 0.8, seed=1)
    bound = price(whole).bound
    now = cost_of(whole, run_now(whole))
    saved = {}
    for error in errors:
        cost, late = week(whole, usual.jobs, error)
        saved[error] = 100 * (now - cost) / (now - bound)
        name = f"{n // 1000}k rolling, forecast error {error:.0%}"
        bars.at_least(f"{name}, saving [%]", saved[error], limit)
        bars.at_most(f"{name}, late jobs [%]", 100 * late / n, 0.1)
    if 0.0 in saved and len(saved) > 1:
        noisy = max(v for e, v in saved.items() if e)
        bars.at_most(f"{n // 1000}k rolling, noisy above perfect [points]", noisy - saved[0.0], 1.0)


def week(whole: Problem, usual: Jobs, error: float, seed: int = 0) -> tuple[float, int]:
    """Return what the jobs that ran cost by the true signals, and how many ended after their deadline."""
    rng = np.random.default_rng(seed)
    grid, jobs = whole.grid, whole.jobs
    ids = [*jobs.ids, *(f"usual-{i}" for i in usual.ids)]
    every = join(jobs, usual, ids)
    n, slots = len(jobs.ids), grid.slots
    free = whole.gpus.copy()
    started = np.zeros(len(ids), np.bool_)
    places = empty_places(whole)
    wave = np.cumsum(rng.standard_normal((len(whole.sites), slots * 2)), axis=1)
    wave = (wave[:, 12:] - wave[:, :-12])[:, :slots] / 12**0.5
    prices, before, late = None, grid, 0
    for t in range(slots):
        rest = Grid(grid.at_ms(t), grid.slot_ms, slots - t)
        sure = 1.0 + error * wave[:, t:] * np.minimum(np.arange(slots - t) / 24, 1.0)
        sites = [
            replace(s, gpus=free[i, t:], intensity_g_per_kwh=np.maximum(s.intensity_g_per_kwh[t:] * sure[i], 0.0),
                    price_per_kwh=s.price_per_kwh[t:])
            for i, s in enumerate(whole.sites)
        ]  # fmt: skip
        known = np.flatnonzero((every.release_ms <= rest.start_ms) & ~started & (np.arange(len(ids)) < n))
        coming = np.flatnonzero((every.release_ms > rest.start_ms) & (np.arange(len(ids)) >= n))
        if not len(known):
            continue
        queue = pose(rest, sites, every.take(known), whole.weights)
        if hopeless := set(queue.skipped):
            at = np.array([i for i in known if ids[i] in hopeless])
            late += len(at)
            every.deadline_ms[at] = grid.end_ms
            queue = pose(rest, sites, every.take(known), whole.weights)
        awaited = pose(rest, sites, every.take(np.concatenate((known, coming))), whole.weights)
        if prices is not None:
            prices = Prices(along(prices.gpu, before, rest), along(prices.power, before, rest), 0.0)
        made = plan_ahead(queue, awaited, start=prices)
        prices, before = made.prices, rest
        for q in np.flatnonzero((made.places.start == 0) & (made.places.mode >= 0)):
            i, m = int(known[queue.planned[q]]), made.places.mode[q]
            s, length = int(queue.modes.site[m]), int(queue.modes.length[m])
            free[s, t : t + length] -= jobs.gpus[i]
            started[i] = True
            j = int(np.searchsorted(whole.planned, i))
            sites_of_j = whole.modes.site[whole.modes.mode0[j] : whole.modes.mode0[j + 1]]
            places.mode[j] = whole.modes.mode0[j] + int(np.flatnonzero(sites_of_j == s)[0])
            places.start[j] = t
    if not started[:n].all():
        raise SystemExit(f"{n - int(started[:n].sum())} jobs never ran in the rolling week")
    return cost_of(whole, places), late


def join(jobs: Jobs, usual: Jobs, ids: list[str]) -> Jobs:
    """Return both as one table of columns."""
    names = [f.name for f in fields(Jobs) if f.name not in {"ids", "profiles"}]
    return Jobs(ids=ids, **{name: np.concatenate((getattr(jobs, name), getattr(usual, name))) for name in names})


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
        weak_spot(bars, 1.5)
        again(bars, 20_000, (0.1, 0.4, 90.0))
        linear_programme(bars, 1000, 1.0, 10.0)
        small(bars, 400, 5)
        policies(bars, 2000, 1.0)
        fairness(bars, 5000, 20, 1.0)
    else:
        gaps(bars, 100_000, 3, 60, {0.5: 1.0, 0.8: 0.6, 0.95: 1.0}, 3)
        gaps(bars, 100_000, 10, 15, {0.5: 1.2, 0.8: 1.2, 0.95: 1.8}, 1)
        weak_spot(bars, 1.5)
        again(bars, 100_000, (0.05, 0.4, 90.0))
        rolling(bars, 10_000, (0.0, 0.05, 0.1), 88.0)
        small(bars, 1000, 60)
        mip(bars, 1000, 60, (20.0, 1.01))
        policies(bars, 10_000, 1.0)
        fairness(bars, 100_000, 200, 1.0)
        linear_programme(bars, 10_000, 25.0, 1.0)
    if not quick:
        note = f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {os.cpu_count()} cores {platform.python_version()}"
        result = HERE / "results" / f"planner-{datetime.now(UTC):%Y-%m-%d}.txt"
        result.write_text("\n".join([note, *bars.lines]) + "\n")
    return 1 if bars.failed else 0


if __name__ == "__main__":
    sys.exit(main())
