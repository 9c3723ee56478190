"""The cluster simulator: a year of jobs on 10 000 GPUs, beside the same loop written with heapq.

`python benchmarks/simulator.py [--quick]` prints one line per bar, `name value limit holds|falls short`, and exits with
1 where one falls short. Each run is a process of its own that reads the jobs from a file, in turns; medians are compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from attribution import Bars, timed
from instances import intensity
from wattkeeper.core.jit import COMPILED
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.simulate.events import NONE, Parts, simulate

HERE = Path(__file__).parent
GPUS = 10_000
YEAR_H = 8760

OURS = """
import sys
for name in ("cffi", "coverage", "scipy"):  # numba loads them where it finds them; other extras and tests bring them
    sys.modules[name] = None
import numpy as np
from wattkeeper.plan.simulate.events import Parts, simulate
parts = Parts(*np.load(JOBS))
np.save(STARTS, simulate(parts, GPUS))
"""

HEAPQ = """
import sys
sys.path.insert(0, HERE)
import numpy as np
from easy import run
hold, gpus, duration, _ = np.load(JOBS)
np.save(STARTS, np.array(run(hold.tolist(), gpus.tolist(), duration.tolist(), GPUS)))
"""


def jobs(n: int, util: float, seed: int = 0) -> Parts:
    """Return jobs of a part of a year, n for 1 M a year: busier by day, 1 to 64 GPUs, from minutes to days."""
    rng = np.random.default_rng(seed)
    hours = YEAR_H * n / 1e6
    gpus = rng.choice([1, 2, 4, 8, 16, 32, 64], n, p=[0.4, 0.15, 0.15, 0.15, 0.08, 0.05, 0.02])
    length_h = np.clip(np.exp(rng.normal(0.4, 1.4, n)), 0.02, 96.0)
    length_h *= util * GPUS * hours / (gpus * length_h).sum()
    t = np.arange(int(hours) + 1)
    busy = np.where(t < hours, 1 + 0.5 * np.sin(2 * np.pi * (t - 8) / 24), 0)
    hour = rng.choice(len(t), n, p=busy / busy.sum()) + rng.random(n)
    hold_ms = np.sort((hour * MS_PER_HOUR).astype(np.int64))
    duration_ms = np.maximum((length_h * MS_PER_HOUR).astype(np.int64), 1)
    return Parts(hold_ms, gpus.astype(np.int64), duration_ms, np.full(n, NONE, np.int64))


def beside(bars: Bars, n: int, util: float, pairs: int, limits: tuple[float, float]) -> None:
    """Run both in turns on the same file: time ratio, equal starts, and jobs a second of the loop alone."""
    parts = jobs(n, util)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        np.save(path / "jobs.npy", np.stack(parts))
        names = {"HERE": str(HERE), "JOBS": str(path / "jobs.npy"), "GPUS": GPUS}
        taken: dict[str, list[float]] = {"ours": [], "heapq": []}
        timed(OURS, STARTS=str(path / "ours.npy"), **names)  # so that Python's own compiled modules lie there
        for _ in range(pairs):
            for name, code in (("ours", OURS), ("heapq", HEAPQ)):
                wall, _, _ = timed(code, STARTS=str(path / f"{name}.npy"), **names)
                taken[name].append(wall)
        starts = {name: np.load(path / f"{name}.npy") for name in taken}
    begin = time.perf_counter()
    started = simulate(parts, GPUS)
    loop_s = time.perf_counter() - begin
    name = f"{n // 1000}k jobs, {util:.0%}"
    ratio = statistics.median(b / a for a, b in zip(taken["ours"], taken["heapq"], strict=True))
    bars.at_least(f"{name}, heapq time / ours, whole process", ratio, limits[0], "{:.2f}")
    bars.at_most(f"{name}, start times that differ", int((starts["ours"] != starts["heapq"]).sum()), 0, "{:.0f}")
    bars.at_least(f"{name}, M jobs/s of the loop", n / loop_s / 1e6, limits[1], "{:.2f}")
    wait_min = (started - parts.hold_ms) / 60_000
    bars.note(
        f"ours {statistics.median(taken['ours']):.2f} s, heapq {statistics.median(taken['heapq']):.2f} s; "
        f"mean wait {wait_min.mean():.1f} min, {(wait_min > 0).mean():.1%} of the jobs wait"
    )
    collide(bars, parts, started)


def collide(bars: Bars, parts: Parts, now_ms: np.ndarray) -> None:
    """Hold each job until its own best hour of the next day, as if it were alone, and say what comes of it."""
    hours = np.concatenate(([0.0], np.cumsum(intensity("DE-LU", 0, 2 * YEAR_H))))

    def grams(at_ms: np.ndarray) -> np.ndarray:
        """Return what 1 kW from each start to its end emits, (n,)."""
        edges = np.stack([at_ms, at_ms + parts.duration_ms]) / MS_PER_HOUR
        return np.diff(np.interp(edges, np.arange(len(hours)), hours), axis=0)[0]

    options = np.stack([grams(parts.hold_ms + h * MS_PER_HOUR) for h in range(24)])
    best = options.argmin(0)
    held = parts._replace(hold_ms=parts.hold_ms + best * MS_PER_HOUR)
    started = simulate(held, GPUS)
    alone, found, before = (float((g * parts.gpus).sum()) for g in (options.min(0), grams(started), grams(now_ms)))
    wait_min = (started - held.hold_ms) / 60_000
    bars.note(
        f"each held to its own best hour of 24: saves {1 - found / before:.2%} of the carbon ({1 - alone / before:.2%} "
        f"were it alone); mean wait behind the hold {wait_min.mean():.1f} min"
    )


def main() -> int:
    """Run the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs and one load, under 50 s")
    quick = parser.parse_args().quick
    bars = Bars()
    bars.note(f"compiled: {COMPILED}")
    simulate(jobs(1000, 0.85), GPUS)  # compiles the loop where that was not done before
    for util in (0.85,) if quick else (0.6, 0.85, 0.95):
        beside(bars, 1_000_000, util, 1 if quick else 5, (1.7, 0.4))
    if not quick:
        note = f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {os.cpu_count()} cores {platform.python_version()}"
        result = HERE / "results" / f"simulator-{datetime.now(UTC):%Y-%m-%d}.txt"
        result.write_text("\n".join([note, *bars.lines]) + "\n")
    return 1 if bars.failed else 0


if __name__ == "__main__":
    sys.exit(main())
