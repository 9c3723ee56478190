"""The planning problem: sites, jobs and weights checked and laid out for the kernels.

Times are milliseconds UTC outside and slots inside: a job may start in the first slot that begins at or after its
release, and must have ended when the slot that holds its deadline begins. Costs are grams CO2e, or what the weights
call worth as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.clock import iso
from wattkeeper.plan.faults import check_grid, faults, over_time, why_not
from wattkeeper.plan.layout import lay_out
from wattkeeper.plan.modes import RIGID, Delays, Lines, Modes
from wattkeeper.plan.records import (
    CRITICAL,
    DEADLINE,
    ELASTIC,
    NEVER_MS,
    TIERS,
    Grid,
    Job,
    Jobs,
    Level,
    NoForecastError,
    PlanInputError,
    Site,
    Weights,
)

__all__ = [
    "CRITICAL",
    "DEADLINE",
    "ELASTIC",
    "NEVER_MS",
    "TIERS",
    "Grid",
    "Job",
    "Jobs",
    "Level",
    "NoForecastError",
    "PlanInputError",
    "Problem",
    "Site",
    "Weights",
    "mean_seen",
    "pose",
]

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

_SHUN = 10.0


@dataclass(frozen=True)
class Problem:
    """A checked problem. skipped: jobs that are left untouched, by id, with the reason.

    jobs holds all jobs; `planned`: (p,) the places of those that can be planned, in the order of `modes`.
    rate: (sites, slots) cost of 1 kWh of IT energy. gpus, power_kw: (sites, slots) limits; power is IT power here.
    levels: (m,) the cap level of each mode. users: those whose delay is evened out; delays: how, with no job placed.
    blind: (sites, slots) where no forecast reaches; nothing is put there.
    """

    grid: Grid
    sites: tuple[Site, ...]
    weights: Weights
    jobs: Jobs
    planned: Int64s
    modes: Modes
    levels: Int64s
    rate: Floats
    gpus: Floats
    power_kw: Floats
    blind: NDArray[np.bool_]
    skipped: dict[str, str]
    users: tuple[str, ...]
    delays: Delays

    @property
    def limited(self) -> bool:
        """Whether any site has a power budget."""
        return bool(np.isfinite(self.power_kw).any())

    @cached_property
    def reach(self) -> tuple[int, int, int]:
        """The longest work, the longest window and the longest resume of any interruptible mode [slots]."""
        some = self.modes.resume != RIGID
        spans = (self.modes.length, self.modes.end - self.modes.first, self.modes.resume)
        length, window, resume = (int(span[some].max(initial=0)) for span in spans)
        return length, window, resume

    @cached_property
    def plain(self) -> Lines:
        """The cost lines without prices."""
        zeros = np.zeros_like(self.gpus)
        return self.lines(zeros, zeros)

    def priced(self, delay_price: Floats) -> Modes:
        """Return the modes with prices of delay added: (users,) [g per GPU-h]."""
        if not len(self.users):
            return self.modes
        job = np.repeat(np.arange(len(self.planned)), np.diff(self.modes.mode0))
        user = self.delays.user[job]
        each = np.where(user < 0, 0.0, delay_price[user])
        return self.modes._replace(
            fixed=self.modes.fixed + each * self.delays.late, delay=self.modes.delay + each * self.delays.each
        )

    def lines(self, gpu_price: Floats, power_price: Floats) -> Lines:
        """Return cost lines with prices of GPUs and of power added: (sites, slots) each."""
        limited = int(self.limited)
        return Lines(
            _sums(self.rate * self.grid.slot_h), _sums(gpu_price), _sums(power_price if limited else power_price * 0),
            limited,
        )  # fmt: skip


def _sums(values: Floats) -> Floats:
    """Return running sums from 0: (sites, slots + 1)."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def pose(grid: Grid, sites: Sequence[Site], jobs: Jobs | Sequence[Job], weights: Weights | None = None) -> Problem:
    """Check and lay out a problem.

    A job that cannot be planned is left out and told in `skipped`. Raises PlanInputError where sites, signals or
    weights are at fault, because then no plan would mean anything.
    """
    weights = weights or Weights()
    check_grid(grid, sites, weights)
    columns = jobs if isinstance(jobs, Jobs) else Jobs.of(jobs, sites)
    table = {name: over_time(sites, name, grid) for name in _SITE_COLUMNS}
    blind = np.isnan(table["intensity_g_per_kwh"])
    for name, weight in (("price_per_kwh", weights.money_g), ("water_l_per_kwh", weights.water_g_per_l)):
        if weight:
            blind |= np.isnan(table[name])
    blind |= np.isnan(table["pue"])
    rate = table["pue"] * (
        weights.carbon * table["intensity_g_per_kwh"]
        + (weights.money_g * table["price_per_kwh"] if weights.money_g else 0.0)
        + (weights.water_g_per_l * table["water_l_per_kwh"] if weights.water_g_per_l else 0.0)
    )
    if blind.all():
        raise NoForecastError(
            f"No site has a forecast between {iso(grid.start_ms)} and {iso(grid.end_ms)}. "
            "Fetch or import one for these hours."
        )
    # nothing is put where the forecast is missing: no room there, and a cost that never looks cheap
    rate[blind] = _SHUN * max(float(np.abs(rate[~blind]).max()), 1.0)
    gpus = np.where(blind, 0.0, np.floor(table["gpus"]))
    power_kw = table["power_kw"] / np.where(blind, 1.0, table["pue"])
    skipped = faults(columns, sites)
    modes, levels, planned, late = lay_out(grid, columns, weights, mean_seen(rate, blind), gpus, power_kw, skipped)
    hopeless = sorted(set(range(len(columns))) - set(planned.tolist()) - set(skipped))
    held_ms = columns.held_ms() if hopeless else np.empty(0)
    skipped |= {i: why_not(columns, i, float(held_ms[i]), grid, sites, gpus, power_kw, blind) for i in hopeless}
    told = {columns.ids[i]: skipped[i] for i in sorted(skipped)}
    users, delays = _delays(columns, planned, modes, late, weights, grid)
    return Problem(
        grid, tuple(sites), weights, columns, planned, modes, levels, rate, gpus, power_kw, blind, told, users, delays
    )  # fmt: skip


def _delays(
    jobs: Jobs, planned: Int64s, modes: Modes, late: Int64s, weights: Weights, grid: Grid
) -> tuple[tuple[str, ...], Delays]:
    """Return the users whose delay is evened out, and how. late: (m,) slots that a start at `first` is late.

    What a job has waited before the plan begins counts too, so that plans made one after the other are fair together.
    """
    weighed = jobs.gpus * jobs.delay_weight
    each = np.repeat(weighed[planned] * grid.slot_h, np.diff(modes.mode0))
    before = np.repeat((weighed * jobs.waited_h(grid))[planned], np.diff(modes.mode0))
    who = jobs.user[planned]
    named = (who != "") & (weighed[planned] > 0)
    if not weights.fairness_g or not named.any():
        return (), Delays(np.full(len(planned), -1, np.int64), each * late + before, each, np.empty(0), np.empty(0))
    users, at = np.unique(who[named], return_inverse=True)
    user = np.full(len(planned), -1, np.int64)
    user[named] = at
    asked = np.bincount(at, weighed[planned][named], minlength=len(users))
    return tuple(users.tolist()), Delays(
        user, each * late + before, each, weights.fairness_g / asked, np.zeros(len(users))
    )


def mean_seen(rate: Floats, blind: NDArray[np.bool_]) -> Floats:
    """Return the mean of each site over the slots that have a forecast: what moving data is charged at, (sites,)."""
    seen = ~blind
    means: Floats = np.where(seen, rate, 0.0).sum(1) / np.maximum(seen.sum(1), 1)
    return means


_SITE_COLUMNS = ("gpus", "intensity_g_per_kwh", "price_per_kwh", "water_l_per_kwh", "pue", "power_kw")
