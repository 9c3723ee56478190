"""Power budgets: which cap each job gets so that a site and its rows stay within their limits with the least loss.

Every job has a measured curve of throughput over power. Power is given out from the floors upward, tier by tier and
within a tier where a watt does most, along the concave hull of each curve. Limits nest (a rack in a room in a site), so
that giving out greedily is exact (a polymatroid; J. Edmonds, 1970) where the curves are concave; where one is not, the
hull is a bound, and the gap is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.errors import WattkeeperError
from wattkeeper.plan.problem import TIERS

Floats = NDArray[np.float64]

_SMALL_W = 1e-6
_SMALL_LOSS = 1e-9


class BudgetError(WattkeeperError):
    """A limit that cannot be kept, or a job whose curve makes no sense."""


@dataclass(frozen=True, slots=True)
class Load:
    """A job that runs. power_w, throughput: (k,) its measured curve, of one GPU and over that at full power, rising in
    power; all GPUs of a job get the same cap. floor: least throughput it may be brought to. weight: how much its
    throughput counts, a GPU. rows: where it stands, such as its rack and its room.
    """

    job: str
    gpus: int
    power_w: Floats
    throughput: Floats
    tier: str = "deadline"
    floor: float = 0.0
    weight: float = 1.0
    rows: tuple[str, ...] = ()

    def under(self, name: str) -> bool:
        """Return whether it counts towards a limit, a row or "" for the site."""
        return not name or name in self.rows


@dataclass(frozen=True, slots=True)
class Cap:
    """What one job gets: power of one GPU [W] and the throughput that is left, by its measured curve."""

    job: str
    tier: str
    rows: tuple[str, ...]
    gpus: int
    power_w: float
    full_w: float
    throughput: float

    @property
    def capped(self) -> bool:
        """Whether it gets less than full power."""
        return self.power_w < self.full_w - _SMALL_W


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps that keep all limits. loss: GPUs' worth of throughput lost, weighed; least_loss: no caps lose less, where
    more loss in a lower tier is always taken before any in a higher one; where a curve that is not concave matters, no
    caps at all lose less. power_w: by limit ("" for the site) [W]."""

    caps: tuple[Cap, ...]
    loss: float
    least_loss: float
    power_w: dict[str, float]


def allot(loads: Sequence[Load], site_w: float, rows_w: Mapping[str, float] | None = None) -> Budget:
    """Return the caps that keep the site within site_w and each row within its own [W of the jobs' GPUs].

    Raises BudgetError where the floors alone are above a limit, and says whose; also for a limit that is no number, and
    for rows that overlap without one lying within the other: giving out greedily would not be exact then.
    """
    limits_w = {**(rows_w or {}), "": site_w}
    for load in loads:
        _check(load)
    _check_limits(loads, limits_w)
    floors_w = [_floor_w(load) for load in loads]
    for name, limit_w in limits_w.items():
        _refuse(name, limit_w, loads, floors_w)
    given_w = _given(loads, floors_w, limits_w, TIERS.index)
    made = _budget(loads, given_w, limits_w)
    least = _hull_loss(loads, floors_w, given_w)
    if made.loss > least + _SMALL_LOSS:
        # some curve is not concave here: what holds for the hulls tier by tier need not hold for the curves, their sum does
        flat_w = _given(loads, floors_w, limits_w, lambda tier: int(tier != "critical"))
        least = _hull_loss(loads, floors_w, flat_w)
    return replace(made, least_loss=min(least, made.loss))


def _budget(loads: Sequence[Load], given_w: Sequence[float], names: Iterable[str]) -> Budget:
    """Return the caps that give each job so much power of one GPU [W], and what they lose. names: of the limits."""
    got = [float(np.interp(watts, x.power_w, x.throughput)) for x, watts in zip(loads, given_w, strict=True)]
    caps = tuple(
        Cap(x.job, x.tier, x.rows, x.gpus, watts, float(x.power_w[-1]), left)
        for x, watts, left in zip(loads, given_w, got, strict=True)
    )
    loss = sum(x.gpus * x.weight * (1.0 - left) for x, left in zip(loads, got, strict=True))
    return Budget(caps, loss, loss, {name: _sum(loads, given_w, name) for name in names})


def _hull_loss(loads: Sequence[Load], floors_w: Sequence[float], given_w: Sequence[float]) -> float:
    """Return the loss if throughput followed the hulls."""
    each = zip(loads, floors_w, given_w, strict=True)
    return sum(x.gpus * x.weight * (1.0 - float(np.interp(w, *_hull(x, floor_w)))) for x, floor_w, w in each)


def _given(
    loads: Sequence[Load], floors_w: Sequence[float], limits_w: Mapping[str, float], order: Callable[[str], int]
) -> list[float]:
    """Return the power of one GPU of each job [W], given out along the hulls from the floors upward. order: of a tier."""
    left = {name: w - _sum(loads, floors_w, name) for name, w in limits_w.items()}
    given_w = list(floors_w)
    for i, watts in _steps(loads, floors_w, order):
        limits = [name for name in left if loads[i].under(name)]
        take_w = min(watts, max(min(left[name] for name in limits) / loads[i].gpus, 0.0))
        given_w[i] += take_w
        for name in limits:
            left[name] -= take_w * loads[i].gpus
    return given_w


def even(loads: Sequence[Load], site_w: float, rows_w: Mapping[str, float] | None = None) -> Budget | None:
    """Return the usual way out, one cap in watts for every GPU of a limit; None where that breaks a floor.

    Each GPU gets the lower of the site's cap and its row's. A critical job's floor is its full power.
    """
    cap_w = {name: _level(loads, limit_w, name) for name, limit_w in {**(rows_w or {}), "": site_w}.items()}
    given_w = [min(float(x.power_w[-1]), *(w for name, w in cap_w.items() if x.under(name))) for x in loads]
    if any(w < _floor_w(x) - _SMALL_W for x, w in zip(loads, given_w, strict=True)):
        return None
    return _budget(loads, given_w, cap_w)


def _level(loads: Sequence[Load], limit_w: float, name: str) -> float:
    """Return the cap of one GPU under which all GPUs of a limit together draw at most that."""
    mine = sorted((float(x.power_w[-1]), x.gpus) for x in loads if x.under(name))
    left_w, count = limit_w, sum(gpus for _, gpus in mine)
    for full_w, gpus in mine:
        if full_w * count > left_w:
            return left_w / count
        left_w -= full_w * gpus
        count -= gpus
    return np.inf


def _check(load: Load) -> None:
    power, throughput = load.power_w, load.throughput
    if load.tier not in TIERS:
        raise BudgetError(f"Job {load.job}: its tier is none of {', '.join(TIERS)}.")
    if load.gpus < 1 or not len(power) or len(power) != len(throughput):
        raise BudgetError(f"Job {load.job} needs at least one GPU and one point of its curve.")
    rising = np.isfinite(power).all() and (np.diff(power) > 0).all() and (np.diff(throughput) >= 0).all()
    if not (rising and power[0] >= 0 and throughput[0] >= 0 and abs(throughput[-1] - 1) < 1e-9):
        raise BudgetError(f"Job {load.job}: its curve must rise in power and throughput and end at throughput 1.")
    if not (0 <= load.floor <= 1 and 0 <= load.weight < np.inf):
        raise BudgetError(
            f"Job {load.job} has a floor of {load.floor:g} and a weight of {load.weight:g}; give 0 to 1, and 0 or more."
        )


def _check_limits(loads: Sequence[Load], limits_w: Mapping[str, float]) -> None:
    for name, limit_w in limits_w.items():
        if np.isnan(limit_w):
            raise BudgetError(f"The limit of {f'row {name}' if name else 'the site'} is not a number.")
    jobs = {name: {i for i, x in enumerate(loads) if x.under(name)} for name in limits_w}
    for a, b in itertools.combinations(sorted(jobs), 2):
        if jobs[a] & jobs[b] and jobs[a] - jobs[b] and jobs[b] - jobs[a]:
            raise BudgetError(
                f"Rows {a} and {b} share some jobs, and each has others. Of two rows with limits one must lie within the "
                "other, or they share none."
            )


def _floor_w(load: Load) -> float:
    """Return the least power of one GPU that its tier and floor allow; never under the lowest measured one."""
    if load.tier == "critical":
        return float(load.power_w[-1])
    floor = min(load.floor, float(load.throughput[-1]))
    if floor <= load.throughput[0]:
        return float(load.power_w[0])
    at = int(np.searchsorted(load.throughput, floor))
    (a, b), (u, v) = load.power_w[at - 1 : at + 1], load.throughput[at - 1 : at + 1]
    return float(a + (b - a) * (floor - u) / (v - u))


def _sum(loads: Sequence[Load], each_w: Sequence[float], name: str) -> float:
    """Return the power of all jobs under a limit [W]; "" is the site."""
    return float(sum(w * x.gpus for w, x in zip(each_w, loads, strict=True) if x.under(name)))


def _refuse(name: str, limit_w: float, loads: Sequence[Load], floors_w: Sequence[float]) -> None:
    """Raise BudgetError where the floors of some tier, on top of those above it, break a limit."""
    where, sum_w = f"Row {name}" if name else "The site", 0.0
    if limit_w < 0:
        raise BudgetError(
            f"{where} cannot be kept: power that no cap changes takes {-limit_w / 1000:.1f} kW more than its limit, before "
            "any job."
        )
    for tier in TIERS:
        mine = [(w * x.gpus, x.job) for w, x in zip(floors_w, loads, strict=True) if x.tier == tier and x.under(name)]
        tier_w = sum(w for w, _ in mine)
        if sum_w + tier_w > limit_w + _SMALL_W:
            largest = ", ".join(f"{job} {w / 1000:.1f} kW" for w, job in sorted(mine, key=lambda m: -m[0])[:3])
            above = f" on top of {sum_w / 1000:.1f} kW of the tiers above it" if sum_w else ""
            raise BudgetError(
                f"{where} cannot be kept within {limit_w / 1000:.1f} kW: the floors of tier "
                f"'{tier}' need {tier_w / 1000:.1f} kW{above}, {(sum_w + tier_w - limit_w) / 1000:.1f} kW too much. "
                f"Its largest: {largest}. Lower floors, suspend jobs, or raise the limit."
            )
        sum_w += tier_w


def _hull(load: Load, from_w: float) -> tuple[Floats, Floats]:
    """Return the concave hull of a curve from some power on: (power [W], throughput) of its corners."""
    start = float(np.interp(from_w, load.power_w, load.throughput))
    above = load.power_w > from_w
    points = [(from_w, start), *zip(load.power_w[above].tolist(), load.throughput[above].tolist(), strict=True)]
    hull: list[tuple[float, float]] = []
    for x, y in points:
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) <= (y - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    corners = np.array(hull)
    return corners[:, 0], corners[:, 1]


def _steps(
    loads: Sequence[Load], floors_w: Sequence[float], order: Callable[[str], int]
) -> list[tuple[int, float]]:  # fmt: skip
    """Return steps of power of one GPU as (job, watts), in the order in which they are worth giving."""
    steps = []
    for i, (load, floor_w) in enumerate(zip(loads, floors_w, strict=True)):
        power, throughput = _hull(load, floor_w)
        for k, (watts, gain) in enumerate(zip(np.diff(power), np.diff(throughput), strict=True)):
            # along one hull gains fall, so its steps come in order
            worth = load.weight * gain / watts
            # watts that bring nothing are given last of all
            steps.append((order(load.tier) if worth else len(TIERS), -worth, i, k, float(watts)))
    return [(i, watts) for _, _, i, _, watts in sorted(steps)]
