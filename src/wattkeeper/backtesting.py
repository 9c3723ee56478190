"""Back-tests: a history of jobs run again under other policies, beside the plan that knew everything and its bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.config import SiteConfig
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, UnknownNameError
from wattkeeper.core.roles import Reject, SignalInfo
from wattkeeper.core.signal import Signal
from wattkeeper.core.units import MS_PER_DAY, MS_PER_HOUR
from wattkeeper.lake.book import Book
from wattkeeper.plan.problem import NEVER_MS, Grid, Job, Jobs, Site, Weights
from wattkeeper.plan.simulate import policies, rolling
from wattkeeper.plan.simulate.foresight import Foresight, erring, forecast, perfect, recorded, rolled
from wattkeeper.plan.simulate.history import History, Outcome, Wish, history, run
from wattkeeper.planning import mean_over, read_queue
from wattkeeper.valuing import signal_of

Floats = NDArray[np.float64]

NOW, PLANNER, CLAIRVOYANT = "run now", "planner", "clairvoyant"
NAMES = (*policies.POLICIES, PLANNER)
FORECASTS = ("perfect", "ridge", "day-before")
COUNTERFACTUAL = "each job at its release, first come, first served with backfill, on the same GPUs and signal"
"""What a saving is against."""

_AFTER_MS = 2 * MS_PER_DAY
_LEARNT_DAYS = 365
_UNKNOWN_MS = -(2**61)


@dataclass(frozen=True, slots=True)
class Setting:
    """How a history is run again.

    slack_ms: what a job without a deadline may end later than it could. forecast: one of FORECASTS, or the id of an
    imported one; error: Gaussian, over the mean of the signal, with a perfect forecast only. idle_w: power a GPU draws
    when nobody holds it, taken off that of the jobs, as no policy saves it [W]. suspendable: whether all jobs are;
    resume_ms and resume_kwh then hold for those that do not say. quantile, scaling: of threshold and elastic.
    """

    slot_ms: int = MS_PER_HOUR
    slack_ms: int = MS_PER_DAY
    weights: Weights = field(default_factory=Weights)
    forecast: str = "perfect"
    error: float = 0.0
    seed: int = 0
    idle_w: float = 0.0
    suspendable: bool = False
    resume_ms: int = 0
    resume_kwh: float = 0.0
    quantile: float = 0.3
    scaling: float = 0.9


@dataclass(frozen=True, slots=True)
class Row:
    """A policy in a back-test: what it came to, beside running now and the clairvoyant plan.

    saving: carbon, over that of running now. regret_g: weighed cost above that of the clairvoyant plan. above_bound:
    weighed cost over the bound, less 1; None where the bound does not speak of it: a deadline was missed that the plan
    keeps, or GPUs changed. All three are None where a job did not end. delay_p95_h, delay_p99_h: of the jobs that ended.
    """

    policy: str
    energy_kwh: float
    carbon_g: float
    cost: float | None
    saving: float | None
    delay_mean_h: float | None
    delay_p95_h: float | None
    delay_p99_h: float | None
    missed: int
    unplaced: int
    suspended: int
    weighed_g: float
    regret_g: float | None
    above_bound: float | None


@dataclass(frozen=True, slots=True)
class Backtest:
    """A history under several policies. signal: where the intensity comes from. skipped: jobs by id, with the reason."""

    site: str
    signal: SignalInfo
    grid: Grid
    gpus: int
    jobs: int
    setting: Setting
    rows: tuple[Row, ...]
    bound_g: float
    skipped: dict[str, str]
    rejects: tuple[Reject, ...]


def backtest(
    book: Book,
    site: str | None,
    jobs: Sequence[Job],
    *,
    setting: Setting,
    names: Sequence[str] = NAMES,
    gpus: int | None = None,
    signal: str | None = None,
    rejects: Sequence[Reject] = (),
) -> Backtest:
    """Run jobs again on a site of a book.

    names: policies; running now and the clairvoyant plan are always there. gpus: of the cluster; default: all of the
    site. signal: id of another intensity than the site's. Raises ConfigError, UnknownNameError, SignalGapError.
    """
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"There is no policy '{name}'. Choose from {', '.join(NAMES)}.")
    if setting.forecast != "perfect" and setting.error:
        raise ConfigError("An error goes with a perfect forecast only. Leave out --error, or --forecast.")
    if not jobs:
        raise ConfigError("There are no jobs to run again. Choose another period or file.")
    one = _site_named(book, site)
    intensity = _intensity(book, one, signal)
    prices = signal_of(book, one, "price")
    if setting.weights.money_g and prices is None:
        raise ConfigError(f"Site '{one.id}' names no price, and money has a weight. Set price in the site file.")
    held = Jobs.of([_as_set(job, setting) for job in jobs], [Site(one.id, 1.0, 0.0)])
    grid = _grid(held, intensity, setting)
    place = _place(book, one, grid, gpus, intensity, prices)
    past, skipped = history(grid, place, held, setting.weights, slack_ms=setting.slack_ms)
    if not len(past.jobs):
        name, why = next(iter(skipped.items()))
        raise ConfigError(f"None of the {len(skipped)} jobs can be run again. The first, {name}: {why}.")
    return _compare(past, names, _foresight(book, past, intensity, setting), setting, intensity.info, skipped, rejects)


def _compare(
    past: History, names: Sequence[str], seen: Foresight, setting: Setting, info: SignalInfo,
    skipped: dict[str, str], rejects: Sequence[Reject],
) -> Backtest:  # fmt: skip
    """Run each policy, and put what came of it beside running now and the clairvoyant plan."""
    made, free = rolling.clairvoyant(past)
    priced = not bool(np.isnan(np.asarray(past.site.price_per_kwh)).any())
    asked: dict[str, Callable[[History, Foresight], Wish]] = {
        **policies.POLICIES,
        "threshold": partial(policies.threshold, quantile=setting.quantile),
        "elastic": partial(policies.elastic, scaling=setting.scaling),
        PLANNER: rolling.planner,
    }
    found = [run(past, n, asked[n](past, seen), priced=priced) for n in dict.fromkeys((NOW, *names))]
    found.append(run(past, CLAIRVOYANT, rolling.as_wish(past, made), priced=priced))
    bound_g = made.bound_g
    rows = tuple(_row(one, found[0], found[-1], bound_g, free) for one in found)
    return Backtest(
        past.site.id, info, past.grid, past.gpus, len(past.jobs), setting, rows, bound_g, skipped, tuple(rejects)
    )


def _row(one: Outcome, now: Outcome, best: Outcome, bound_g: float, free: NDArray[np.bool_]) -> Row:
    ended = one.delay_h[~np.isnan(one.delay_h)]
    mean, p95, p99 = (
        (float(ended.mean()), *(float(np.percentile(ended, q)) for q in (95, 99))) if len(ended) else (None,) * 3
    )
    whole = not one.unplaced
    spoken_of = whole and not (one.missed & ~free).any() and one.policy != "elastic" and bound_g > 0
    return Row(
        one.policy, one.energy_kwh, one.carbon_g, one.cost,
        1 - one.carbon_g / now.carbon_g if whole and not now.unplaced and now.carbon_g else None,
        mean, p95, p99, int(one.missed.sum()), one.unplaced, one.suspended, one.weighed_g,
        one.weighed_g - best.weighed_g if whole and not best.unplaced else None,
        one.weighed_g / bound_g - 1 if spoken_of else None,
    )  # fmt: skip


def _site_named(book: Book, site: str | None) -> SiteConfig:
    sites = {s.id: s for s in book.site_file.site}
    if site is None and len(sites) > 1:
        raise ConfigError(f"The book has several sites ({', '.join(sites)}). Name one with --site.")
    if site is not None and site not in sites:
        raise UnknownNameError("site", site, list(sites))
    return sites[site] if site else next(iter(sites.values()))


def _intensity(book: Book, one: SiteConfig, signal: str | None) -> Signal:
    if signal is not None:
        return _imported(book, signal)
    found = signal_of(book, one, "intensity")
    if found is None:
        raise ConfigError(f"Site '{one.id}' names no intensity. Set it in the site file, or choose one with --signal.")
    return found


def _imported(book: Book, signal: str) -> Signal:
    infos = book.state.signal_infos()
    known = [name for name, info in infos.items() if info.kind == "intensity"]
    if signal not in known:
        raise UnknownNameError("intensity signal", signal, known, "Import it with: wattkeeper import csv.")
    return Signal.from_table(book.signal_rows(signal), infos[signal])


def _as_set(job: Job, setting: Setting) -> Job:
    """Return the job without what no policy uses, and with what the setting adds."""
    resting = job.suspendable or setting.suspendable
    return replace(
        job,
        levels=(),
        power_w=max(job.power_w - setting.idle_w, 0.0),
        suspendable=resting,
        resume_ms=job.resume_ms or (setting.resume_ms if resting else 0),
        resume_kwh=job.resume_kwh or (setting.resume_kwh if resting else 0.0),
    )


def _grid(jobs: Jobs, intensity: Signal, setting: Setting) -> Grid:
    """Return the time to be run again: to two days after the last deadline, as far as the signal reaches."""
    slot_ms = setting.slot_ms
    start_ms = int(jobs.release_ms.min()) // slot_ms * slot_ms
    asked = jobs.release_ms + jobs.duration_ms + setting.slack_ms
    last_ms = int(np.where(jobs.deadline_ms == NEVER_MS, asked, jobs.deadline_ms).max())
    last_ms = max(last_ms, int((jobs.release_ms + jobs.duration_ms).max()))
    slots = -(-(last_ms - start_ms) // slot_ms)
    reach = (int(intensity.breaks_ms[-1]) - start_ms) // slot_ms
    return Grid(start_ms, slot_ms, int(max(min(slots + _AFTER_MS // slot_ms, reach), slots)))


def _place(book: Book, one: SiteConfig, grid: Grid, gpus: int | None, intensity: Signal, prices: Signal | None) -> Site:
    counted = sum(a.kind == "gpu" for a in book.tree().walk(one.id))
    if not (gpus or counted):
        raise ConfigError(f"Site '{one.id}' has no GPUs in the book. Say how many with --gpus.")
    pue = signal_of(book, one, "pue")
    return Site(
        one.id,
        float(gpus or counted),
        mean_over(intensity, grid),
        np.full(grid.slots, np.nan) if prices is None else mean_over(prices, grid),
        pue=1.0 if pue is None else mean_over(pue, grid),
    )


def _foresight(book: Book, past: History, intensity: Signal, setting: Setting) -> Foresight:
    true = np.asarray(past.site.intensity_g_per_kwh, np.float64)
    if setting.forecast == "perfect":
        return erring(true, setting.error, setting.seed) if setting.error else perfect(true)
    if setting.forecast not in FORECASTS:
        return recorded(true, mean_over(_imported(book, setting.forecast), past.grid))
    day = MS_PER_DAY // setting.slot_ms
    if setting.forecast == "ridge" and setting.slot_ms != MS_PER_HOUR:
        raise ConfigError("The forecast 'ridge' is by the hour. Leave out --slot.")
    days = _LEARNT_DAYS if setting.forecast == "ridge" else 1
    before = mean_over(intensity, Grid(past.grid.start_ms - days * MS_PER_DAY, setting.slot_ms, days * day))
    if setting.forecast == "day-before":
        return rolled(true, before)
    known = np.flatnonzero(~np.isnan(before))
    return forecast(true, before[known[0] :] if len(known) else before[:0])


def read_history(path: Path) -> tuple[list[Job], list[Reject]]:
    """Return the jobs of a history file, which has the columns of a queue and a release for each job."""
    jobs, rejects = read_queue(path, Grid(_UNKNOWN_MS, 1, 1))
    missing = [job for job in jobs if job.release_ms == _UNKNOWN_MS]
    rejects += [Reject(str(path), 0, f"job {job.id} has no release", job.id) for job in missing]
    return [job for job in jobs if job.release_ms != _UNKNOWN_MS], rejects


def book_history(book: Book, site: str | None, start_ms: int, end_ms: int) -> tuple[list[Job], list[Reject]]:
    """Return the jobs of a site that began in [start_ms, end_ms) and have ended, as the book knows them.

    Release is when a job was asked for (or began, where nobody knows), power the ledger's energy over its GPU time.
    """
    one = _site_named(book, site)
    rows = book.jobs().filter(pl.col("start_ms").is_between(start_ms, end_ms, closed="left"))
    energy = (
        book.job_days.scan()
        .filter((pl.col("site") == one.id) & pl.col("job_id").is_not_null())
        .group_by("job_id")
        .agg(pl.col("energy_mj").sum())
        .collect()
    )
    held = book.allocations()
    gpu_assets = [a.id for a in book.tree().walk(one.id) if a.kind == "gpu"]
    counted = (
        held.filter(pl.col("asset").is_in(gpu_assets))
        .group_by("job_id")
        .agg(pl.col("asset").n_unique().cast(pl.Int64).alias("counted"))
    )
    rows = rows.join(energy, on="job_id", how="left").join(counted, on="job_id", how="left").sort("start_ms", "job_id")
    jobs, rejects = [], []
    for row in rows.iter_rows(named=True):
        gpus = row["gpus"] or row["counted"]
        why = _unfit(row, gpus)
        if why:
            rejects.append(Reject("book", 0, f"job {row['job_id']} {why}", row["job_id"]))
            continue
        length_ms = row["end_ms"] - row["start_ms"]
        release_ms = row["start_ms"] if row["submit_ms"] is None else row["submit_ms"]
        power_w = row["energy_mj"] / length_ms / gpus  # mJ / ms = W
        jobs.append(Job(row["job_id"], gpus, length_ms, power_w, release_ms))
    return jobs, rejects


def _unfit(row: Mapping[str, Any], gpus: int | None) -> str:
    """Return why a job of a book cannot be run again; nothing where it can."""
    if row["end_ms"] is None:
        return "has not ended"
    if row["end_ms"] <= row["start_ms"]:
        return "has no duration"
    if not gpus:
        return "held no GPUs"
    return "" if row["energy_mj"] is not None else "has no energy at this site in the ledger"


def to_json(found: Backtest) -> dict[str, Any]:
    """Return everything as plain data."""
    setting = asdict(found.setting)
    return {
        "site": found.site,
        "intensity": {"id": found.signal.id, "provider": found.signal.provider, "method": found.signal.method},
        "start": iso(found.grid.start_ms),
        "end": iso(found.grid.end_ms),
        "slot_min": found.grid.slot_ms / 60_000,
        "gpus": found.gpus,
        "jobs": found.jobs,
        "setting": setting,
        "counterfactual": COUNTERFACTUAL,
        "bound_weighed_g": found.bound_g,
        "policies": [asdict(row) for row in found.rows],
        "skipped": found.skipped,
        "refused": [{"row": r.row, "reason": r.reason, "job_id": r.text} for r in found.rejects],
    }
