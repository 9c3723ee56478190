"""Back-tests: a history of jobs run again under other policies, beside the plan that knew everything and its bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.attribution import Progress
from wattkeeper.config import SiteConfig
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError, UnknownNameError
from wattkeeper.core.roles import Reject, SignalInfo
from wattkeeper.core.signal import Signal
from wattkeeper.core.units import MS_PER_DAY, MS_PER_HOUR
from wattkeeper.histories import sites_named
from wattkeeper.lake.book import Book
from wattkeeper.loop import quiet
from wattkeeper.plan.place import Plan
from wattkeeper.plan.problem import NEVER_MS, Grid, Job, Jobs, Site, Weights
from wattkeeper.plan.simulate import policies, rolling
from wattkeeper.plan.simulate.foresight import Foresight, erring, forecast, perfect, recorded, rolled
from wattkeeper.plan.simulate.history import History, Outcome, Wish, history, run
from wattkeeper.planning import about, counted_gpus, currency_of, mean_over
from wattkeeper.valuing import signal_of

Floats = NDArray[np.float64]

NOW, PLANNER, CLAIRVOYANT, AT_HOME = "run now", "planner", "clairvoyant", " at home"
NAMES = (*policies.POLICIES, PLANNER + AT_HOME, PLANNER)
OF_SEVERAL_SITES = frozenset({"cleanest site", PLANNER + AT_HOME})
"""Policies that say nothing new where there is one site."""
FORECASTS = ("perfect", "ridge", "day-before")
COUNTERFACTUAL = (
    "each job at its release at its own site, first come, first served with backfill, same GPUs and signals"
)
"""What a saving is against."""

_AFTER_MS = 2 * MS_PER_DAY
_LEARNT_DAYS = 365


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
    moved: jobs that ran away from home. after_kwh: energy drawn after the signals end.
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
    moved: int
    after_kwh: float
    weighed_g: float
    regret_g: float | None
    above_bound: float | None


@dataclass(frozen=True, slots=True)
class Stage:
    """A site as it was run again. signal: where its intensity comes from."""

    site: str
    gpus: int
    signal: SignalInfo


@dataclass(frozen=True, slots=True)
class Backtest:
    """A history under several policies. skipped: jobs by id, with the reason.

    known_ms: until when the signals reach; no policy plans beyond it, and cut jobs have their deadline there. undated: jobs
    without a deadline of their own, that may end the setting's slack later than they could.
    """

    stages: tuple[Stage, ...]
    grid: Grid
    known_ms: int
    cut: int
    jobs: int
    undated: int
    setting: Setting
    rows: tuple[Row, ...]
    bound_g: float
    skipped: dict[str, str]
    rejects: tuple[Reject, ...]
    currency: str | None = None


def backtest(
    book: Book,
    sites: Sequence[str],
    jobs: Sequence[Job],
    *,
    setting: Setting,
    names: Sequence[str] = (),
    gpus: Mapping[str, float] | None = None,
    signals: Mapping[str, str] | None = None,
    rejects: Sequence[Reject] = (),
    progress: Progress = quiet,
) -> Backtest:
    """Run jobs again on sites of a book; none named means all of it.

    names: policies, none named means all that say something; running now and the clairvoyant plan are always there.
    gpus: by site; default: all of it. signals: ids of other intensities than the sites', by site.
    Raises ConfigError, UnknownNameError, SignalGapError, ForesightError.
    """
    chosen = sites_named(book, sites)
    _check(chosen, jobs, setting, names, gpus or {}, signals or {}, rejects)
    intensity = [_intensity(book, one, (signals or {}).get(one.id)) for one in chosen]
    prices = [signal_of(book, one, "price") for one in chosen]
    for one, price in zip(chosen, prices, strict=True):
        if setting.weights.money_g and price is None:
            raise ConfigError(f"Site '{one.id}' names no price, and money has a weight. Set price in the site file.")
    given = [_as_set(job, setting) for job in jobs]
    held = Jobs.of(given, [Site(one.id, 1.0, 0.0) for one in chosen])
    reach = [s for s in (*intensity, *(prices if setting.weights.money_g else ())) if s is not None]
    grid, known = _grid(held, min(int(s.breaks_ms[-1]) for s in reach), setting)
    places = [
        _place(book, one, grid, (gpus or {}).get(one.id), own, price)
        for one, own, price in zip(chosen, intensity, prices, strict=True)
    ]
    home = _homes(given, [one.id for one in chosen])
    past, skipped = history(
        grid, places, held, setting.weights, slack_ms=setting.slack_ms, known=known, home=home
    )  # fmt: skip
    if not len(past.jobs):
        name, why = next(iter(skipped.items()))
        raise ConfigError(f"None of the {len(skipped)} jobs can be run again. The first, {name}: {why}.")
    stages = tuple(Stage(one.id, count, own.info) for one, count, own in zip(chosen, past.gpus, intensity, strict=True))
    asked = names or [n for n in NAMES if len(chosen) > 1 or n not in OF_SEVERAL_SITES]
    rows, bound_g = compare(past, _foresight(book, past, intensity, setting), asked, setting, progress)
    known_ms = grid.at_ms(known)
    free = {job.id for job in jobs if job.deadline_ms is None}
    return Backtest(
        stages, grid, known_ms, past.cut, len(past.jobs), len(free.intersection(past.jobs.ids)), setting, rows, bound_g,
        skipped, tuple(rejects),
        currency_of(p.info for p in prices if p is not None),
    )  # fmt: skip


def compare(
    past: History,
    seen: Foresight,
    names: Sequence[str],
    setting: Setting,
    progress: Progress = quiet,
    best: tuple[Plan, NDArray[np.bool_]] | None = None,
) -> tuple[tuple[Row, ...], float]:
    """Run each policy; return what came of each beside running now and the clairvoyant plan, and the bound [g].

    best: what `rolling.clairvoyant` found for this history, where that was done before.
    """
    priced = not bool(np.isnan(past.column("price_per_kwh")).any())
    steps = [*dict.fromkeys((NOW, *names)), *([CLAIRVOYANT + AT_HOME] if len(past.sites) > 1 else []), CLAIRVOYANT]
    found, free, bound_g = [], np.zeros(len(past.jobs), np.bool_), 0.0
    for i, name in enumerate(steps):
        progress(name, i, len(steps))
        where = past.at_home() if name.endswith(AT_HOME) else past
        if name.startswith(CLAIRVOYANT):
            made, free = best if best and name == CLAIRVOYANT else rolling.clairvoyant(where)
            bound_g, wish = made.bound_g, rolling.as_wish(where, made)
        else:
            wish = _policy(name, setting, partial(progress, name))(where, seen)
        found.append(run(where, name, wish, priced=priced))
    # the last step was the clairvoyant plan, so free and bound_g are of it
    return tuple(_row(one, found[0], found[-1], bound_g, free) for one in found), bound_g


def _policy(
    name: str, setting: Setting, progress: Callable[[int, int], None]
) -> Callable[[History, Foresight], Wish]:  # fmt: skip
    if name.startswith(PLANNER):
        return partial(rolling.planner, progress=progress)
    asked: dict[str, Callable[[History, Foresight], Wish]] = {
        **policies.POLICIES,
        "threshold": partial(policies.threshold, quantile=setting.quantile),
        "elastic": partial(policies.elastic, scaling=setting.scaling),
    }
    return asked[name]


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
        mean, p95, p99, int(one.missed.sum()), one.unplaced, one.suspended, one.moved, one.after_kwh, one.weighed_g,
        one.weighed_g - best.weighed_g if whole and not best.unplaced else None,
        one.weighed_g / bound_g - 1 if spoken_of else None,
    )  # fmt: skip


def _check(
    chosen: Sequence[SiteConfig], jobs: Sequence[Job], setting: Setting, names: Sequence[str],
    gpus: Mapping[str, float], signals: Mapping[str, str], rejects: Sequence[Reject],
) -> None:  # fmt: skip
    """Raise ConfigError for what cannot be meant."""
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"There is no policy '{name}'. Choose from {', '.join(NAMES)}.")
    if setting.forecast != "perfect" and setting.error:
        raise ConfigError("An error goes with a perfect forecast only. Leave out --error, or --forecast.")
    if setting.forecast not in FORECASTS and len(chosen) > 1:
        raise ConfigError(
            f"The forecast '{setting.forecast}' is of one signal, and {len(chosen)} sites are run again. Name one site, or "
            f"choose from {', '.join(FORECASTS)}."
        )
    for name in (*gpus, *signals):
        if name not in [one.id for one in chosen]:
            raise ConfigError(
                f"Site '{name}' is not run again; {', '.join(one.id for one in chosen)} is. Name it with --site."
            )
    if not jobs and rejects:
        first = f"{f'row {rejects[0].row}: ' if rejects[0].row else ''}{rejects[0].reason}"
        raise ConfigError(f"None of the {len(rejects)} jobs can be run again. The first, {first}.")
    if not jobs:
        raise ConfigError("There are no jobs to run again. Choose another period or file.")


def _homes(jobs: Sequence[Job], sites: Sequence[str]) -> NDArray[np.int64]:
    """Return where each job runs if nobody moves it: of its sites the one its data need least energy to get to."""
    number = {site: i for i, site in enumerate(sites)}
    found = []
    for job in jobs:
        named = [site for site in job.sites if site in number]
        found.append(number[min(named, key=lambda s: job.sites[s][0])] if named else 0)
    return np.array(found, np.int64)


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
        power_w=max(job.power_w - setting.idle_w, min(job.power_w, 0.0)),
        suspendable=resting,
        resume_ms=job.resume_ms or (setting.resume_ms if resting else 0),
        resume_kwh=job.resume_kwh or (setting.resume_kwh if resting else 0.0),
    )


def _grid(jobs: Jobs, reach_ms: int, setting: Setting) -> tuple[Grid, int]:
    """Return the time to be run again, to two days after the last deadline, and the slots the signals reach over.

    Jobs that last longer than the signals count for nothing here, so that `history` leaves them out.
    """
    slot_ms = setting.slot_ms
    start_ms = int(jobs.release_ms.min()) // slot_ms * slot_ms
    jobs = jobs.take(np.flatnonzero(jobs.duration_ms <= max(reach_ms - start_ms, slot_ms)).astype(np.int64))
    if not len(jobs):
        return Grid(start_ms, slot_ms, 1), int(reach_ms > start_ms)
    asked = jobs.release_ms + jobs.duration_ms
    wanted = np.where(jobs.deadline_ms == NEVER_MS, asked + setting.slack_ms, jobs.deadline_ms)
    last_ms = int(min(wanted.max(), max(reach_ms, int(asked.max()))))
    last_ms = max(last_ms, int((asked + jobs.transfer_ms.max(1)).max()))
    slots = -(-(last_ms - start_ms) // slot_ms) + _AFTER_MS // slot_ms
    return Grid(start_ms, slot_ms, slots), int(np.clip((reach_ms - start_ms) // slot_ms, 0, slots))


def _place(
    book: Book, one: SiteConfig, grid: Grid, gpus: float | None, intensity: Signal, prices: Signal | None
) -> Site:
    pue = signal_of(book, one, "pue")
    return Site(
        one.id,
        float(gpus or counted_gpus(book, one.id)),
        mean_over(intensity, grid),
        np.full(grid.slots, np.nan) if prices is None else mean_over(prices, grid),
        pue=1.0 if pue is None else mean_over(pue, grid),
    )


def _foresight(book: Book, past: History, intensity: Sequence[Signal], setting: Setting) -> Foresight:
    true = past.column("intensity_g_per_kwh")
    if setting.forecast == "perfect":
        return erring(true, setting.error, setting.seed) if setting.error else perfect(true)
    if setting.forecast not in FORECASTS:
        seen = mean_over(_imported(book, setting.forecast), past.grid)
        seen[past.known :] = true[0, past.known :]
        return recorded(true, seen)
    day = MS_PER_DAY // setting.slot_ms
    if setting.forecast == "ridge" and setting.slot_ms != MS_PER_HOUR:
        raise ConfigError("The forecast 'ridge' is by the hour. Leave out --slot.")
    days = _LEARNT_DAYS if setting.forecast == "ridge" else 1
    learnt = Grid(past.grid.start_ms - days * MS_PER_DAY, setting.slot_ms, days * day)
    before = [mean_over(signal, learnt) for signal in intensity]
    if setting.forecast == "day-before":
        return rolled(true, np.stack(before))
    return forecast(true, [one[np.argmax(~np.isnan(one)) if (~np.isnan(one)).any() else len(one) :] for one in before])


def to_json(found: Backtest) -> dict[str, Any]:
    """Return everything as plain data."""
    return {
        "sites": [
            {
                "id": one.site,
                "gpus": one.gpus,
                "intensity": about(one.signal),
            }
            for one in found.stages
        ],
        "start": iso(found.grid.start_ms),
        "end": iso(found.grid.end_ms),
        "signals_end": iso(found.known_ms),
        "deadlines_cut": found.cut,
        "slot_min": found.grid.slot_ms / 60_000,
        "currency": found.currency,
        "jobs": found.jobs,
        "jobs_without_deadline": found.undated,
        "setting": asdict(found.setting),
        "counterfactual": COUNTERFACTUAL,
        "bound_weighed_g": found.bound_g,
        "policies": [asdict(row) for row in found.rows],
        "skipped": found.skipped,
        "refused": [{"row": r.row, "reason": r.reason, "job_id": r.text} for r in found.rejects],
    }
