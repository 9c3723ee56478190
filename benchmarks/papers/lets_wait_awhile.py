"""Let's Wait Awhile (P. Wiesner et al., Middleware '21): its nightly jobs and its ML project, with our planner's kernels.

`python benchmarks/papers/lets_wait_awhile.py [--quick]` prints one line per published number, `name ours published
holds|falls short`, and exits with 1 where ours differs in the last digit given. `… --series FILE --year 2024` runs both
experiments on any other region and year and prints what comes out: FILE is a CSV (.gz) with a time in its first column
that is so named, UTC where it has no offset, in steps of 15, 30 or 60 min, and `--column` names that of the intensity
[g/kWh] where the file has several.

The published numbers are those that the paper's code (dos-group/lets-wait-awhile @ 5e0d155) gives on its own data. Two
things in that code are not in its text, and the numbers come out only with them; beside each table stands what the text
alone gives:

- Nightly jobs: a window that begins before the data do drops the job of 1 January (from w = 3 on), and the sum over 364
  jobs is still divided by 365.
- ML project: a forecast has its last step too, so that each job, that of the baseline as well, may end one step after
  its deadline; the baseline then starts at the better of two steps.

A third is not followed: where steps tie with the last one that an interruptible job takes, that code runs it in all of
them, so that it does more work than it has. The paper's series hardly have ties; hourly values held for two steps do.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from attribution import Bars  # noqa: E402
from wattkeeper.core.clock import to_ms  # noqa: E402
from wattkeeper.plan.bound import evaluate  # noqa: E402
from wattkeeper.plan.placement import amounts  # noqa: E402
from wattkeeper.plan.problem import Grid, Job, Jobs, Problem, Site, pose  # noqa: E402

DATA = HERE.parents[2] / "shared" / "data" / "grid" / "lets_wait_awhile"
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=30)
STEP_MS = 1_800_000
REPEATS = 10
ABOVE_G = 1000.0
"""Added to a noisy forecast, so that it stays above 0; it changes no choice between equal lengths."""

# mean intensity of the chosen steps [g/kWh], by window [steps]: error 0 and error 0.05
NIGHTLY = {
    "gb": {0: (184.0959, 184.0959), 2: (175.3826, 178.5070), 4: (171.5553, 175.3124), 8: (168.2405, 172.4896),
           12: (167.3147, 171.6806), 16: (164.9244, 169.4693)},
    "ger": {0: (305.3280, 305.3280), 2: (300.1625, 303.6822), 4: (296.7855, 301.0486), 8: (293.2170, 298.6243),
            12: (282.3601, 288.6566), 16: (263.3092, 269.4740)},
}  # fmt: skip
# saving against running at once [%], by deadline and interruptible: error 0, 0.05, 0.10
PROJECT = {
    "gb": {("next workday", False): (6.571, 6.556, 6.524), ("next workday", True): (9.229, 9.032, 8.578),
           ("semi-weekly", False): (14.751, 14.726, 14.674), ("semi-weekly", True): (20.005, 19.656, 18.798)},
    "ger": {("next workday", False): (5.926, 5.912, 5.879), ("next workday", True): (8.156, 7.926, 7.457),
            ("semi-weekly", False): (14.130, 14.105, 14.053), ("semi-weekly", True): (18.498, 18.107, 17.195)},
}  # fmt: skip
ERRORS = (0.0, 0.05, 0.1)


def intensity(zone: str) -> np.ndarray:
    """Return the zone's intensity in steps of 30 min from 2020-01-01 on [g/kWh]."""
    rows = pl.read_csv(DATA / f"{zone}_ci.csv.gz", try_parse_dates=True)
    time = pl.col("Time")
    kept = rows.filter((time >= FIRST.replace(tzinfo=None)) & (time.dt.minute() % 30 == 0))
    return kept["Carbon Intensity"].to_numpy()


def series_of(path: Path, column: str | None, year: int | None) -> tuple[datetime, np.ndarray]:
    """Return the first instant of a year and a file's intensity in steps of 30 min from it to the file's end.

    A value holds until the next row, an hour at most. year: default: the first whole one. Ends with a sentence where the
    file cannot be used.
    """
    try:
        rows = pl.read_csv(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SystemExit(f"Cannot read {path}: {error}") from error
    times = [c for c in rows.columns if "time" in c.lower() or "date" in c.lower()]
    numbers = [c for c in rows.columns if rows[c].dtype.is_numeric()]
    likely = [c for c in numbers if "intensity" in c.lower()] or numbers
    if column is None and len(likely) != 1:
        raise SystemExit(
            f"{path} has {len(likely)} columns that may be the intensity. Say --column: {', '.join(likely)}."
        )
    name = column or likely[0]
    if name not in numbers or not times:
        raise SystemExit(f"{path} has no time, or no column of numbers '{name}'. It has: {', '.join(rows.columns)}.")
    found: dict[datetime, float] = {}
    for number, (text, value) in enumerate(rows.select(times[0], name).iter_rows(), 2):
        try:
            moment = datetime.fromisoformat(str(text))
        except ValueError:
            raise SystemExit(f"{path} row {number}: '{text}' is no time.") from None
        if value is not None and not (np.isfinite(value) and value >= 0):
            raise SystemExit(f"{path} row {number}: an intensity of {value} g/kWh cannot be.")
        if value is not None:
            found[moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)] = float(value)
    if not found:
        raise SystemExit(f"{path} has no value in column '{name}'.")
    times_of = sorted(found)
    low, high = times_of[0], times_of[-1]
    each = min((b - a for a, b in pairwise(times_of)), default=STEP)
    end = high + min(max(each, STEP), timedelta(hours=1))
    year = year or (low.year if low <= datetime(low.year, 1, 1, tzinfo=UTC) else low.year + 1)
    first = datetime(year, 1, 1, tzinfo=UTC)
    steps = max(int((end - first) / STEP), 0)
    if low > first or end < datetime(year + 1, 1, 1, tzinfo=UTC):
        raise SystemExit(
            f"{path} reaches from {low:%Y-%m-%d} to {high:%Y-%m-%d}, which is not all of {year}. Say --year."
        )
    values = np.full(steps, np.nan)
    for moment, value in sorted(found.items()):
        at = (moment - first) / STEP
        if 0 <= at < steps and at == int(at):
            values[int(at)] = value
    values[1::2] = np.where(np.isnan(values[1::2]), values[: len(values[1::2]) * 2 : 2], values[1::2])  # hourly rows
    if np.isnan(values).any():
        hole = first + int(np.isnan(values).argmax()) * STEP
        raise SystemExit(
            f"{path} has no value for {int(np.isnan(values).sum())} half-hours, the first {hole:%Y-%m-%dT%H:%MZ}."
        )
    return first, values


def noisy(true: np.ndarray, error: float, seed: int) -> np.ndarray:
    """Return a forecast: Gaussian noise over the mean of the whole series, drawn once for all of it."""
    return true + np.random.default_rng(seed).normal(0.0, error * true.mean(), len(true)) if error else true


def problem_of(seen: np.ndarray, first: np.ndarray, end: np.ndarray, length: np.ndarray, *, whole: bool) -> Problem:
    """Return jobs of 1 kW that may run between two steps each, with more room than they need."""
    grid = Grid(to_ms(FIRST), STEP_MS, len(seen))
    rows = zip(first.tolist(), end.tolist(), length.tolist(), strict=True)
    jobs = [
        Job(f"j{i}", 1, k * STEP_MS, 1000.0, grid.at_ms(a), grid.at_ms(b), suspendable=not whole)
        for i, (a, b, k) in enumerate(rows)
    ]
    site = Site("x", float(len(jobs)), seen)
    return pose(grid, [site], Jobs.of(jobs, [site]))


def emitted_g(
    true: np.ndarray, seen: np.ndarray, first: np.ndarray, end: np.ndarray, length: np.ndarray, *, whole: bool
) -> float:
    """Let each job take what the forecast shows as best, and return what that emits by the true series [g]."""
    shown = problem_of(seen + ABOVE_G, first, end, length, whole=whole)
    chosen = evaluate(shown, np.zeros_like(shown.gpus), np.zeros_like(shown.gpus)).places
    return float(amounts(problem_of(true, first, end, length, whole=whole), chosen).carbon_g.sum())


def nightly(true: np.ndarray, window: int, error: float, repeats: int, *, as_coded: bool) -> float:
    """Return the mean intensity of 365 jobs at 01:00, each within ± window steps [g/kWh]."""
    at = 2 + 48 * np.arange(365)
    kept = at[at >= window] if as_coded else at
    first = np.maximum(kept - window, 0)
    one = np.ones(len(kept), np.int64)
    found = [
        emitted_g(true, noisy(true, error, seed), first, kept + window + 1, one, whole=True)
        for seed in range(repeats if error else 1)
    ]
    return 2 * float(np.mean(found)) / (365 if as_coded else len(kept))


def ml_jobs(first: datetime = FIRST) -> tuple[np.ndarray, np.ndarray]:
    """Return start and length [steps] of the 3 387 jobs of the ML project, in the year that begins then."""
    rng = np.random.default_rng(0)
    days = [first + timedelta(days=i) for i in range((first.replace(year=first.year + 1) - first).days)]
    workdays = [i for i, day in enumerate(days) if day.weekday() < 5]
    per_day = np.zeros(len(days), np.int64)
    per_day[workdays] = rng.multinomial(3387, [1 / len(workdays)] * len(workdays))
    starts = [48 * i + np.sort(rng.choice(range(540, 1020, 30), size=n)) // 30 for i, n in enumerate(per_day)]
    return np.concatenate(starts), rng.choice(range(240, 5400, 30), size=3387) // 30


def slack(end: int, deadline: str, since: datetime = FIRST) -> int:
    """Return the steps from a job's first possible end, counted from `since`, to its deadline."""
    moment = since + end * STEP
    day, hour = moment.weekday(), moment.hour + moment.minute / 60
    if deadline == "semi-weekly":
        to_thursday = (day == 0 and hour > 9) or day in {1, 2} or (day == 3 and hour <= 9)
        days = (3 - day) if to_thursday else (7 - day) % 7
    elif day == 5:
        days = 2
    elif day == 6 or hour > 17:
        days = 1
    elif hour < 9:
        days = 0
    else:
        return 0
    due = moment.replace(hour=9, minute=0) + timedelta(days=days)
    return (due - moment) // STEP


def saving_pct(
    true: np.ndarray, deadline: str, error: float, repeats: int, *, rest: bool, as_coded: bool, since: datetime = FIRST
) -> float:
    """Return what the ML project saves against running at once [%].

    Jobs that the series does not last for are left out, and deadlines after its end count as its end.
    """
    first, length = ml_jobs(since)
    later = 1 if as_coded else 0
    lasts = first + length + later <= len(true)
    first, length = first[lasts], length[lasts]
    soonest = first + length
    due = soonest + np.array([slack(int(end), deadline, since) for end in soonest]) + later
    due = np.minimum(due, len(true))
    now = emitted_g(true, true, first, soonest + later, length, whole=True)
    found = [
        emitted_g(true, noisy(true, error, seed), first, due, length, whole=not rest)
        for seed in range(repeats if error else 1)
    ]
    return 100 * (1 - float(np.mean(found)) / now)


def beside(bars: Bars, name: str, ours: float, published: float, tolerance: float, form: str) -> None:
    """Print a published number beside ours; ours must agree to the digits given."""
    bars.at_most(f"{name}: ours {form.format(ours)}, published {form.format(published)}, differ",
                 abs(ours - published), tolerance, "{:.1e}")  # fmt: skip


def other(bars: Bars, path: Path, column: str | None, year: int | None, repeats: int) -> None:
    """Run both experiments on another region and year, as the paper's code has them, and without error as its text has."""
    since, true = series_of(path, column, year)
    bars.note(f"{path.name} from {since:%Y-%m-%d}: {len(true)} half-hours, mean {true.mean():.4f} g/kWh")
    for window in NIGHTLY["gb"]:
        ours = [nightly(true, window, error, repeats, as_coded=True) for error in ERRORS]
        kept = nightly(true, window, 0.0, 1, as_coded=False)
        bars.note(f"nightly, w {window:2} [g/kWh]: {_words(ours, '.4f')}; with all 365 jobs {kept:.4f}")
    starts, lengths = ml_jobs(since)
    if late := int((starts + lengths + 1 > len(true)).sum()):
        bars.note(f"ML project: {late} of {len(starts)} jobs end after the file does and are left out")
    for deadline, rest in PROJECT["gb"]:
        ours = [saving_pct(true, deadline, e, repeats, rest=rest, as_coded=True, since=since) for e in ERRORS]
        kept = saving_pct(true, deadline, 0.0, 1, rest=rest, as_coded=False, since=since)
        words = f"ML, {deadline}, {'interruptible' if rest else 'in one piece'} [%]"
        bars.note(f"{words}: {_words(ours, '.3f')}; every deadline kept {kept:.3f}")


def _words(values: list[float], form: str) -> str:
    return ", ".join(f"error {error:.0%} {value:{form}}" for error, value in zip(ERRORS, values, strict=True))


def main() -> int:
    """Run both experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without forecast error, under 50 s")
    parser.add_argument("--series", type=Path, help="CSV of another region: time and intensity [g/kWh]")
    parser.add_argument("--column", help="its column of the intensity")
    parser.add_argument("--year", type=int, help="the year of it; default: the first whole one")
    given = parser.parse_args()
    quick = given.quick
    bars = Bars()
    if given.series:
        other(bars, given.series, given.column, given.year, 1 if quick else REPEATS)
        return 0
    if not DATA.exists():
        bars.note(f"nothing to do: the recordings are not in {DATA}")
        return 0
    for zone, rows in NIGHTLY.items():
        true = intensity(zone)
        for error, column in ((0.0, 0), (0.05, 1)):
            if quick and error:
                continue
            for window, published in rows.items():
                ours = nightly(true, window, error, REPEATS, as_coded=True)
                name = f"{zone} nightly, w {window}, error {error:.0%} [g/kWh]"
                beside(bars, name, ours, published[column], 5.1e-5, "{:.4f}")
        if not quick:
            more = [f"w {w}: {nightly(true, w, 0.1, REPEATS, as_coded=True):.4f}" for w in rows]
            bars.note(f"{zone} nightly, error 10%, ours alone: {', '.join(more)}")
        told = [f"w {w}: {nightly(true, w, 0.0, 1, as_coded=False):.4f}" for w in rows]
        bars.note(f"{zone} nightly with all 365 jobs: {', '.join(told)}")
    for zone, cases in PROJECT.items():
        true = intensity(zone)
        for (deadline, rest), published in cases.items():
            words = f"{zone} ML, {deadline}, {'interruptible' if rest else 'in one piece'}"
            for error, number in zip(ERRORS, published, strict=True):
                if quick and error:
                    continue
                ours = saving_pct(true, deadline, error, REPEATS, rest=rest, as_coded=True)
                beside(bars, f"{words}, error {error:.0%} [%]", ours, number, 5.1e-4, "{:.3f}")
            kept = saving_pct(true, deadline, 0.0, 1, rest=rest, as_coded=False)
            bars.note(f"{words}, every deadline kept: {kept:.3f} %")
    if not quick:
        note = f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {os.cpu_count()} cores {platform.python_version()}"
        result = HERE.parent / "results" / f"lets_wait_awhile-{datetime.now(UTC):%Y-%m-%d}.txt"
        result.write_text("\n".join([note, *bars.lines]) + "\n")
    return 1 if bars.failed else 0


if __name__ == "__main__":
    sys.exit(main())
