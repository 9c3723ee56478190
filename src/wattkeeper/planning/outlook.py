"""A queue planned on the sites of a book, beside running at once: job by job, user by user, and in sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wattkeeper.attribution import Progress
from wattkeeper.core.roles import Reject, SignalInfo
from wattkeeper.lake.book import Book
from wattkeeper.loop import quiet
from wattkeeper.plan.again import Before, resume, stand
from wattkeeper.plan.modes import NOWHERE, Places
from wattkeeper.plan.place import Plan, improve, plan, run_now, uneven_g
from wattkeeper.plan.placement import Amounts, Placement, amounts, placements
from wattkeeper.plan.polish import MOST_JOBS, polish
from wattkeeper.plan.problem import Grid, Job, NoForecastError, Problem, Site, Weights, pose
from wattkeeper.planning.held import held_gpus
from wattkeeper.planning.previous import check_grid
from wattkeeper.planning.printed import printed
from wattkeeper.planning.queue import read_queue, unused_columns
from wattkeeper.planning.supply import Limit, blind_spots, currency_of, less, limited, need, sites_of, stale
from wattkeeper.planning.usual import Usual

_IMPROVED = 5000
_STEPS = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One job in the answer: where it would run now and where it should, and why.

    now, planned: None where it has no place. why: at once, later, earlier, other site, lower power, suspended, or, for
    a job without a place, what stands against it. saved_g, saved_cost: against running now; delay_h: later than then.
    drawn_now, drawn: energy [kWh] and carbon [g] of the facility, now and planned. was: beside an earlier plan: kept,
    moved or new; "" without one.
    """

    job: str
    now: Placement | None
    planned: Placement | None
    why: str
    saved_g: float | None = None
    saved_cost: float | None = None
    delay_h: float | None = None
    drawn_now: tuple[float, float] | None = None
    drawn: tuple[float, float] | None = None
    was: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """What a user's placed jobs gain and wait: sums of saved_g and saved_cost, and means of how much later than they
    could on an empty cluster their GPUs are through [h], planned and run now, since their release."""

    user: str
    jobs: int
    gpus: float
    saved_g: float
    saved_cost: float | None
    delay_h: float
    delay_now_h: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the jobs that are placed. cost, water_l: None where that of one is not known. uneven_g: what users'
    waiting unevenly counts. weighed_g: what the planner makes small, that included."""

    jobs: int
    energy_kwh: float
    carbon_g: float
    cost: float | None
    water_l: float | None
    delay_h: float
    uneven_g: float
    weighed_g: float


@dataclass(frozen=True, slots=True)
class Saved:
    """What a plan saves against running now, over the jobs that have a place in both. carbon_part: carbon over that of run
    now, None where that is not above 0. delay_h: how much later they end in sum."""

    jobs: int
    energy_kwh: float
    carbon_g: float
    carbon_part: float | None
    cost: float | None
    delay_h: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """A planned queue. signals: the words on where each site's values come from, by site and kind. notes: sentences on
    what was taken for want of better.

    gap: (cost − bound) / bound of the weighed cost; None where a job found no place or the bound is not above 0.
    """

    made: Plan
    lines: tuple[Line, ...]
    users: tuple[User, ...]
    now: Totals
    planned: Totals
    bound_g: float
    gap: float | None
    signals: dict[str, dict[str, SignalInfo]]
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...] = ()

    @property
    def saved(self) -> Saved:
        """What is saved, over the jobs that have a place in both."""
        both = [x for x in self.lines if x.drawn and x.drawn_now]
        drawn = [(*x.drawn_now, *x.drawn) for x in both if x.drawn and x.drawn_now]
        kwh_now, g_now, kwh, g = (sum(each) for each in zip(*drawn, strict=True)) if drawn else (0.0,) * 4
        cost = _sum(x.saved_cost for x in both) if both else None
        part = (g_now - g) / g_now if g_now > 0 else None
        return Saved(len(both), kwh_now - kwh, g_now - g, part, cost, sum(x.delay_h or 0.0 for x in both))

    @property
    def currency(self) -> str | None:
        """What costs are in; None without a price."""
        return currency_of(info for found in self.signals.values() for info in found.values())

    @property
    def grid(self) -> Grid:
        """The time that was planned."""
        return self.made.problem.grid


def outlook(
    book: Book,
    queue: Path,
    *,
    grid: Grid,
    weights: Weights,
    gpus: Mapping[str, float],
    power_kw: Mapping[str, float],
    limits: Sequence[Limit] = (),
    confidence: float = 1.0,
    before: Before | None = None,
    polish_s: float = 0.0,
    progress: Progress = quiet,
) -> Outlook:
    """Plan the jobs of a queue file on the sites of a book.

    gpus, power_kw: by site, what planned jobs may hold and draw; default: all GPUs of the site less those that running
    jobs hold, and no budget. limits: the same over time. confidence: chance with which a deadline is to be kept, for
    jobs that do not say.
    before: an earlier plan, of which all is kept that can be. polish_s: wall time for HiGHS at the end; 0 for none.
    Raises ConfigError, ImportFileError, PlanInputError, and MissingExtraError for polish_s without highspy.
    """
    if before:
        check_grid(before, grid)
    progress("reading", 0, _STEPS)
    sites, signals = sites_of(book, grid, gpus, power_kw)
    usual = Usual(book)
    for limit in limits:
        book.site_file.site_named(limit.site)
    told = printed(queue)
    jobs, rejects = read_queue(told or queue, grid, usual, confidence=confidence)
    need(signals, weights)
    held, notes = held_gpus(told.running if told else (), book.tree(), grid, gpus)
    notes += told.notes if told else unused_columns(queue)
    sites = less(sites, held)
    unseen = blind_spots(book, sites, grid, weights)
    try:
        problem = pose(grid, limited(sites, limits, grid), jobs, weights)
    except NoForecastError as error:
        raise NoForecastError(" ".join([str(error), *(f"{s[0].upper()}{s[1:]}." for s in unseen)])) from error
    progress(f"{len(jobs)} jobs", 1, _STEPS)
    made = _made(problem, before, polish_s, progress)
    progress("run now", 3, _STEPS)
    now = run_now(problem)
    each_now, each = amounts(problem, now), amounts(problem, made.places)
    lines = _lines(made, now, each_now, each, before)
    totals = [_totals(problem, p, a) for p, a in ((now, each_now), (made.places, each))]
    if polish_s and len(problem.planned) > MOST_JOBS:
        notes.append(f"HiGHS polishes queues of up to {MOST_JOBS} jobs; this one is left as it is")
    if late := sum(line.now is None and line.planned is not None for line in lines):
        notes.append(f"{late} jobs would miss their deadline run now: they are in the sums of the plan alone")
    said = (
        *notes, *_strange_sites(jobs, sites), *usual.notes, *_reserved(problem), *unseen,
        *stale(book, signals, grid),
    )  # fmt: skip
    return Outlook(
        made, lines, _users(problem, lines, each_now, each, made.places), totals[0], totals[1],
        made.bound_g, made.gap, signals, tuple(rejects), said,
    )  # fmt: skip


def _made(problem: Problem, before: Before | None, polish_s: float, progress: Progress) -> Plan:
    """Return the plan; of a small queue an improved one, where there is none before that is to be kept."""
    if before:
        return resume(before, problem)
    made = plan(problem)
    progress("improving", 2, _STEPS)
    if len(problem.planned) <= _IMPROVED:
        made = improve(made, rounds=100)
    return polish(made, seconds=polish_s) if polish_s else made


def _strange_sites(jobs: Sequence[Job], sites: Sequence[Site]) -> list[str]:
    """Return a sentence on the sites that jobs name and the book does not have."""
    strange = sorted({name for job in jobs for name in job.sites} - {s.id for s in sites})
    return [f"jobs name sites that the book does not have, which are left out: {', '.join(strange)}"] if strange else []


def _reserved(problem: Problem) -> list[str]:
    """Return in words which quantile room is held for, and what was expected."""
    jobs = problem.jobs
    some = problem.planned[jobs.uncertain[problem.planned]]
    if not len(some):
        return []
    chances = sorted({float(c) for c in jobs.confidence[some]})
    told = ", ".join(f"{100 * c:g} %" for c in chances)
    return [
        f"{len(some)} durations are known by quantiles: GPUs are held for the quantile of {told}, which is the chance "
        "that a deadline is kept; energy, carbon and cost are expected values"
    ]


def _lines(made: Plan, now: Places, each_now: Amounts, each: Amounts, before: Before | None) -> tuple[Line, ...]:
    problem = made.problem
    lines: list[Line] = []
    was = _was(made, before)
    found = zip(placements(problem, now), placements(problem, made.places), strict=True)

    def drawn(one: Amounts, j: int) -> tuple[float, float]:
        return float(one.energy_kwh[j]), float(one.carbon_g[j])

    for j, (stood, after) in enumerate(found):
        name = problem.jobs.ids[problem.planned[j]]
        if after is None:
            took = drawn(each_now, j) if stood else None
            lines.append(Line(name, stood, None, "no room is left for it in any slot it may use", drawn_now=took))
        elif stood is None:
            why = "run at once, it would miss its deadline"
            lines.append(Line(name, None, after, why, drawn=drawn(each, j), was=was[j]))
        else:
            lines.append(
                Line(
                    name, stood, after, _why(stood, after),
                    float(each_now.carbon_g[j] - each.carbon_g[j]),
                    _known(each_now.cost[j] - each.cost[j]),
                    float(each.delay_h[j] - each_now.delay_h[j]),
                    drawn(each_now, j), drawn(each, j), was[j],
                )
            )  # fmt: skip
    lines += [Line(name, None, None, why) for name, why in problem.skipped.items()]
    return tuple(lines)


def _was(made: Plan, before: Before | None) -> list[str]:
    """Return for each planned job what became of its place in the plan before."""
    if before is None:
        return [""] * len(made.problem.planned)
    stood, same = stand(before, made.problem)
    names = [made.problem.jobs.ids[i] for i in made.problem.planned.tolist()]
    kept = same & (stood.mode == made.places.mode) & (stood.start == made.places.start)
    marks = made.problem.modes.mark0
    for j in np.flatnonzero(kept):
        some = slice(marks[j], marks[j + 1])
        kept[j] = (stood.marks[some] == made.places.marks[some]).all()
    return ["kept" if k else "moved" if n in before.spots else "new" for n, k in zip(names, kept, strict=True)]


def _users(
    problem: Problem, lines: Iterable[Line], each_now: Amounts, each: Amounts, places: Places
) -> tuple[User, ...]:
    """Return the users of the placed jobs, those that wait longest first; jobs of nobody are left out."""
    jobs = problem.jobs
    line = {x.job: x for x in lines}
    found = []
    names = jobs.user[problem.planned]
    for user in sorted({str(u) for u in names if u}):
        some = np.flatnonzero((names == user) & (places.mode != NOWHERE))
        gpus = (jobs.gpus * jobs.delay_weight)[problem.planned[some]]
        if not gpus.sum():
            continue
        waited_h = jobs.waited_h(problem.grid)[problem.planned[some]]
        own = [line[jobs.ids[i]] for i in problem.planned[some].tolist()]
        found.append(
            User(
                user, len(some), float(jobs.gpus[problem.planned[some]].sum()), sum(x.saved_g or 0.0 for x in own),
                _sum(x.saved_cost for x in own if x.now),
                *(float(np.average(a.delay_h[some] + waited_h, weights=gpus)) for a in (each, each_now)),
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda one: -one.delay_h))


def _why(now: Placement, planned: Placement) -> str:
    reasons = []
    if planned.site != now.site:
        reasons.append("other site")
    if planned.level:
        reasons.append("lower power")
    if len(planned.slots) > 1:
        reasons.append("suspended")
    if planned.slots[0][0] > now.slots[0][0]:
        reasons.append("later")
    elif planned.slots[0][0] < now.slots[0][0]:
        reasons.append("earlier")
    return ", ".join(reasons) or "at once"


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _sum(values: Iterable[float | None]) -> float | None:
    """Return a sum; None where a part of it is not known."""
    return _known(sum(np.nan if v is None else v for v in values))


def _totals(problem: Problem, places: Places, each: Amounts) -> Totals:
    uneven = uneven_g(problem, places)
    return Totals(
        int((places.mode != NOWHERE).sum()), float(each.energy_kwh.sum()), float(each.carbon_g.sum()),
        _known(each.cost.sum()), _known(each.water_l.sum()),
        float(each.delay_h.sum()), uneven, float(each.weighed_g.sum()) + uneven,
    )  # fmt: skip
