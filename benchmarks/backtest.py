"""Back-test: weeks and a year of a recorded job trace on recorded grids, beside the clairvoyant plan and its bound.

`python benchmarks/backtest.py [--quick | --year]` prints one line per bar, `name value limit holds|falls short`, and
exits with 1 where one falls short. Jobs are of a public trace of Alibaba's (PAI 2020; its CPUs taken as GPUs, 500 W each)
on a cluster that is twice what they need on average; without a deadline of their own they may end 12 h later. In the
year, every other job can be suspended, and takes 10 min (so a slot of an hour) and 0.1 kWh a GPU to come back.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from attribution import Bars
from instances import GRID, START_MS, intensity
from wattkeeper.backtesting import OF_SEVERAL_SITES, Setting, compare
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.problem import Grid, Job, Jobs, Site, Weights
from wattkeeper.plan.simulate.foresight import Foresight, erring, forecast, perfect, recorded, rolled
from wattkeeper.plan.simulate.history import History, history, run
from wattkeeper.plan.simulate.policies import POLICIES
from wattkeeper.plan.simulate.rolling import as_wish, clairvoyant, planner

HERE = Path(__file__).parent
TRACE = HERE.parent.parent / "shared" / "data" / "jobs" / "pai_100k.csv.gz"
SLACK_MS = 12 * MS_PER_HOUR
AFTER_H = 96
BIGGEST = 64
LITTLE = 0.05
"""Saving of the clairvoyant plan under which a share of it says little."""
BEGIN_H = 24 * 91
"""The grid of April 2023; what was before is what a forecast learns from."""


def trace(days: int, *, rests: bool = False) -> list[Job]:
    """Return the jobs of the first days of the trace, or made-up ones of the same shape where it is not here."""
    if TRACE.exists():
        rows = pl.read_csv(TRACE).filter((pl.col("arrival_time") < 24 * days) & (pl.col("cpus") <= BIGGEST)).rows()
    else:
        rng = np.random.default_rng(0)
        n = 230 * days
        hours = np.clip(np.exp(rng.normal(-0.4, 1.5, n)), 0.08, 71.0)
        rows = list(zip(np.sort(rng.uniform(0, 24 * days, n)), hours, rng.choice([1, 1, 2, 4, 16], n), strict=True))
    return [
        Job(
            f"j{i}",
            int(gpus),
            round(h * MS_PER_HOUR),
            500.0,
            START_MS + round(at * MS_PER_HOUR),
            suspendable=rests and i % 2 == 1,
            resume_ms=MS_PER_HOUR // 6,
            resume_kwh=0.1 * int(gpus),
        )
        for i, (at, h, gpus) in enumerate(rows)
    ]


def case_of(days: int, values: np.ndarray, room: float = 2.0, *, rests: bool = False) -> History:
    """Return the history on a cluster of `room` times what the jobs need on average. rests: every other job may."""
    jobs = trace(days, rests=rests)
    held_h = sum(job.gpus * np.ceil(job.duration_ms / MS_PER_HOUR) for job in jobs)
    site = Site("a", float(max(np.ceil(room * held_h / (24 * days)), BIGGEST)), values)
    found, skipped = history(
        Grid(START_MS, MS_PER_HOUR, len(values)), [site], Jobs.of(jobs, [site]), Weights(), slack_ms=SLACK_MS
    )
    if skipped:
        raise SystemExit(f"{len(skipped)} jobs cannot run, such as {next(iter(skipped.items()))}")
    return found


def beside(bars: Bars, name: str, case: History, seen: dict[str, Foresight], least: dict[str, float]) -> None:
    """Run the policies under each foresight. least: share of the clairvoyant saving that the planner must reach [%];
    what is not in it is told without a bar."""
    true = case.column("intensity_g_per_kwh")
    now = run(case, "run now", POLICIES["run now"](case, perfect(true)))
    made, free = clairvoyant(case)
    best = run(case, "clairvoyant", as_wish(case, made))
    possible = now.carbon_g - best.carbon_g
    bars.at_most(f"{name} clairvoyant above its bound [%]", 100 * (best.weighed_g / made.bound_g - 1), 1.5)
    bars.note(
        f"{name}: {len(case.jobs)} jobs on {case.gpus[0]} GPUs; the clairvoyant plan saves {possible / now.carbon_g:.2%} of "
        f"running now, {int(free.sum())} deadlines taken off"
    )
    share = {}
    for words, foresight in seen.items():
        for policy in ("lowest window", "threshold", "planner"):
            begin = time.perf_counter()
            found = run(
                case, policy, planner(case, foresight) if policy == "planner" else POLICIES[policy](case, foresight)
            )
            spent = time.perf_counter() - begin
            part = 100 * (now.carbon_g - found.carbon_g) / possible
            late = 100 * (found.missed & ~free).mean()
            work = case.jobs.gpus * case.length
            late_work = 100 * work[found.missed & ~free].sum() / work.sum()
            bars.note(
                f"{name}, {words}, {policy}: {part:.1f} % of that saving, {late:.2f} % late with {late_work:.1f} % of the GPU "
                f"time, mean wait "
                f"{np.nanmean(found.delay_h):.1f} h, {spent:.1f} s"
            )
            if policy == "planner":
                share[words] = part
                if words not in least:
                    continue
                bars.at_least(f"{name}, {words}: planner's share [%]", part, least[words])
                bars.at_most(f"{name}, {words}: planner's late jobs [%]", late, 0.1)
                bars.at_most(f"{name}, {words}: planner's unplaced jobs", found.unplaced, 0, "{:.0f}")
    if least and "error 10 %" in share:
        bars.at_most(f"{name}: with error above perfect [points]", share["error 10 %"] - share["perfect"], 0.4)


def seasons(bars: Bars, error: float) -> None:
    """Run the planner on five zones, a fortnight of each season of 2024, every other job suspendable.

    The share is that of a zone's four fortnights together. Where the clairvoyant plan itself saves less than LITTLE,
    there is little to have a share of, and the carbon beyond that plan is bounded instead, by as much as it would be if
    it saved LITTLE.
    """
    days = 14
    for zone in ("DE-LU", "GB", "US-CAL-CISO", "CA-ON", "IN-WE"):
        values = pl.read_csv(GRID / "intensity" / f"{zone}_2024_hourly.csv.gz")["Carbon Intensity gCO₂eq/kWh (LCA)"]
        total, late, jobs = np.zeros((2, 3)), 0, 0
        for month in (1, 4, 7, 10):
            first = (month - 1) * 730
            true = values.to_numpy()[first : first + 24 * days + AFTER_H].astype(np.float64)
            case = case_of(days, true, rests=True)
            made, free = clairvoyant(case)
            now = run(case, "run now", POLICIES["run now"](case, perfect(true))).carbon_g
            best = run(case, "clairvoyant", as_wish(case, made)).carbon_g
            found = [run(case, "planner", planner(case, one)) for one in (perfect(true), erring(true, error, 0))]
            total += [[now, best, one.carbon_g] for one in found]
            late += int((found[1].missed & ~free).sum())
            jobs += len(case.jobs)
            parts = ", ".join(f"{100 * (now - one.carbon_g) / (now - best):.1f} %" for one in found)
            bars.note(f"{zone} 2024-{month:02}: possible {1 - best / now:.2%}; of that perfect and with error {parts}")
        name = f"{zone} 2024, error {error:.0%}"
        (now, best, exact), (_, _, noisy) = total
        if 1 - best / now >= LITTLE:
            bars.at_least(f"{name}: planner's share [%]", 100 * (now - noisy) / (now - best), 88.0)
        else:
            limit = 100 * 0.12 * LITTLE / (1 - LITTLE)
            bars.at_most(f"{name}: planner's carbon above clairvoyant [%]", 100 * (noisy / best - 1), limit)
        bars.at_most(f"{name}: planner's late jobs [%]", 100 * late / jobs, 0.1)
        bars.at_most(f"{name}: with error above perfect [points]", 100 * (exact - noisy) / (now - best), 0.4)


def year(bars: Bars) -> None:
    """Run all policies over a year of jobs and of the German grid of 2024, under three forecasts."""
    before, true = (
        pl.read_csv(GRID / "intensity" / f"DE-LU_{y}_hourly.csv.gz")["Carbon Intensity gCO₂eq/kWh (LCA)"].to_numpy()
        for y in (2023, 2024)
    )
    case = case_of(365, true, rests=True)
    seen = {"error 10 %": erring(true, 0.1, 0), "perfect": perfect(true), "day before": rolled(true, before[-24:])}
    bars.note(f"{len(case.jobs)} jobs on {case.gpus[0]} GPUs over {case.known} h")  # fmt: skip
    begin = time.perf_counter()
    plan = clairvoyant(case)
    bars.note(
        f"the clairvoyant plan took {time.perf_counter() - begin:.0f} s; no plan is below {plan[0].bound_g / 1e6:.3f} t"
    )
    names = [n for n in POLICIES if n not in OF_SEVERAL_SITES]
    for words, foresight in seen.items():
        begin = time.perf_counter()
        rows, _ = compare(case, foresight, (*names, "planner"), Setting(slack_ms=SLACK_MS), told, plan)
        best = rows[-1]
        bars.note(f"{words}: {time.perf_counter() - begin:.0f} s")
        bars.note(f"{'':15}{'t CO2e':>9} {'saved':>8} {'wait h':>7} {'p95':>6} {'p99':>6} {'late':>6} {'left':>5} "
                  f"{'resumes':>8} {'regret':>8}")  # fmt: skip
        for row in rows:
            bars.note(
                f"{row.policy:15}{row.carbon_g / 1e6:9.3f} {_pct(row.saving)} {row.delay_mean_h:7.1f} {row.delay_p95_h:6.1f} "
                f"{row.delay_p99_h:6.1f} {row.missed:6} {row.unplaced:5} {row.suspended:8} "
                f"{_pct(None if row.regret_g is None else row.regret_g / best.weighed_g)}"
            )
        ours = next(row for row in rows if row.policy == "planner")
        if words in {"perfect", "error 10 %"}:
            bars.at_least(f"year, {words}: planner's share [%]", 100 * (ours.saving or 0) / (best.saving or 1), 88.0)
            bars.at_most(f"year, {words}: planner's late jobs [%]", 100 * ours.missed / len(case.jobs), 0.1)
        keep(bars, "backtest-year")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bars.at_most("year: peak memory [MiB]", peak_mib, 2048.0, "{:.0f}")


def _pct(value: float | None) -> str:
    return f"{'–':>8}" if value is None else f"{value:8.2%}"


def told(step: str, done: int, of: int) -> None:
    """Show how far a run is, where someone looks on."""
    if sys.stderr.isatty():
        print(f"\r{step} {done} of {of}  ", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Run the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one week, under 50 s")
    parser.add_argument("--year", action="store_true", help="a year under three forecasts, some minutes each")
    given = parser.parse_args()
    quick = given.quick
    bars = Bars()
    bars.note(f"trace {'recorded' if TRACE.exists() else 'made up'}, grid {'recorded' if GRID.exists() else 'made up'}")
    if given.year:
        if not GRID.exists():
            return 0
        year(bars)
        return keep(bars, "backtest-year")
    days = 7 if quick else 21
    slots = 24 * days + AFTER_H
    true = intensity("DE-LU", BEGIN_H, slots)
    seen = {"perfect": perfect(true), "error 10 %": erring(true, 0.1, 0)}
    if not quick:
        seen["day before"] = rolled(true, intensity("DE-LU", BEGIN_H - 24, 24))
        seen["our forecast"] = forecast(true, intensity("DE-LU", 0, BEGIN_H))
    beside(bars, "DE-LU", case_of(days, true), seen, {"perfect": 88.0, "error 10 %": 88.0})
    path = GRID / "forecast_CISO.csv.gz"
    if not quick and path.exists():
        rows = pl.read_csv(path).filter(pl.col("UTC time").str.starts_with("2022")).head(slots)
        true, seen_then = (rows[c].to_numpy() for c in ("carbon_intensity", "avg_carbon_intensity_forecast"))
        case = case_of(days, true)
        beside(
            bars, "CISO 2022", case, {"perfect": perfect(true), "forecast of then": recorded(true, seen_then)},
            {"perfect": 88.0, "forecast of then": 88.0},
        )  # fmt: skip
    if not quick:
        true = intensity("DE-LU", BEGIN_H, slots)
        beside(bars, "DE-LU tight", case_of(days, true, 1.4), {"perfect": perfect(true)}, {})
        if GRID.exists():
            seasons(bars, 0.1)
        return keep(bars, "backtest")
    return 1 if bars.failed else 0


def keep(bars: Bars, name: str) -> int:
    """Write the lines of a whole run down; return the exit code."""
    note = f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {os.cpu_count()} cores {platform.python_version()}"
    result = HERE / "results" / f"{name}-{datetime.now(UTC):%Y-%m-%d}.txt"
    result.write_text("\n".join([note, *bars.lines]) + "\n")
    return 1 if bars.failed else 0


if __name__ == "__main__":
    sys.exit(main())
