"""Forecasts: errors by day ahead on recorded zones, beside baselines and published figures; coverage; no look ahead.

`python benchmarks/forecast.py [--quick]` prints one line per bar, `name value limit holds|falls short`, and exits with 1
where one falls short. It needs the recordings in ../shared/data/grid and says so where they are missing.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices are small, and cores are shared

import argparse
import csv
import gzip
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from attribution import Bars
from wattkeeper.grid.published import CARBONCAST_MAPE_PCT
from wattkeeper.plan.forecast.backtest import Rolled, chosen, origins_of, roll
from wattkeeper.plan.forecast.conformal import LEVELS, rolled_quantiles
from wattkeeper.plan.forecast.models import MODELS, Beside, Model, priced
from wattkeeper.plan.forecast.scores import coverage, mae, mape_pct, pinball

HERE = Path(__file__).parent
GRID = HERE.parent / "../shared/data/grid"
LCA = "Carbon Intensity gCO₂eq/kWh (LCA)"
HOURS, WARM_DAYS = 96, 180
PRICES_KNOWN = 22
"""Hours of day-ahead prices known at midnight UTC, where the origins here are: to 22:00."""
WORDS = ("1-24 h", "25-48 h", "49-72 h", "73-96 h")


def column(path: Path, name: str) -> np.ndarray:
    """Return a column of a recording."""
    with gzip.open(path, "rt") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file)])


def zone(name: str) -> np.ndarray:
    """Return two recorded years of a zone, life cycle."""
    return np.concatenate([column(GRID / f"intensity/{name}_{y}_hourly.csv.gz", LCA) for y in (2023, 2024)])


def prices(name: str) -> np.ndarray:
    """Return two recorded years of day-ahead prices."""
    return np.concatenate([column(GRID / f"price/{name}_{y}_prices.csv.gz", "Price (USD/MWh)") for y in (2023, 2024)])


def every_day(length: int) -> np.ndarray:
    """Return an origin a day, after sixty days."""
    return origins_of(length, HOURS, length // 24, 60 * 24)


ROLLED: dict[tuple[str, int, float], Rolled] = {}


def rolled_by(series: np.ndarray, model: Model) -> Rolled:
    """Return a model's forecasts on every day of a series, made once."""
    key = (model.name, len(series), float(series.sum()))
    if key not in ROLLED:
        ROLLED[key] = roll(series, model, every_day(len(series)), HOURS)
    return ROLLED[key]


def score(
    bars: Bars,
    name: str,
    series: np.ndarray,
    days: int,
    limits: tuple[float, float, float],
    models: tuple[Model, ...] = MODELS,
) -> Rolled:
    """Score all models on the last days.

    limits: on the chosen one's error beside persistence and the best baseline, and on coverage [points].
    """
    rolled, spent = [], []
    for model in models:
        begin = time.perf_counter()
        rolled.append(cut(rolled_by(series, model), days + WARM_DAYS))
        spent.append(time.perf_counter() - begin)
    taken, picks = chosen(rolled)
    told = rolled_quantiles(rolled, picks, floor=0.0)[-days:]
    every = {r.model: cut(r, days) for r in (*rolled, taken)}
    for model, one in every.items():
        errors = " ".join(f"{e:6.2f}" for e in mape_pct(one))
        bars.note(f"{name} {model:12} MAPE [%] by day {errors}  MAE {np.mean(mae(one)):6.2f} g/kWh")
    ours = np.mean(mae(every["chosen"]))
    best = min(float(np.mean(mae(every[m]))) for m in ("day", "week", "profile"))
    bars.at_most(f"{name} error / persistence", ours / np.mean(mae(every["persistence"])), limits[0])
    bars.at_most(f"{name} error / best seasonal baseline", ours / best, limits[1])
    shares = coverage(every["chosen"].came, told)
    bars.at_most(
        f"{name} coverage off its level [points]",
        100 * max(abs(s - q) for s, q in zip(shares, LEVELS, strict=True)),
        limits[2],
    )
    bars.note(
        f"{name} {days} days; quantiles {' '.join(f'{q:.0%}:{s:.1%}' for q, s in zip(LEVELS, shares, strict=True))}; "
        f"pinball {pinball(every['chosen'].came, told, LEVELS):.2f} g/kWh; "
        f"{', '.join(f'{m.name} {s:.1f} s' for m, s in zip(models, spent, strict=True) if s > 0.05)}"
    )
    return every["chosen"]


def seasons(bars: Bars, name: str, series: np.ndarray, first: str, *, floor: float, most: float) -> None:
    """Tell coverage and pinball loss by season over a whole recording, after 90 days to warm up.

    first: day of the first value. most: limit on the mean over seasons of the worst level's distance [points].
    """
    origins = every_day(len(series))
    rolled = [rolled_by(series, model) for model in MODELS]
    taken, picks = chosen(rolled)
    told = rolled_quantiles(rolled, picks, floor=floor)
    month = (np.datetime64(first) + origins // 24).astype("datetime64[M]").astype(int) + 1
    off = []
    for quarter in np.unique(month[90:] // 3):
        part = np.flatnonzero(month // 3 == quarter)
        part = part[part >= 90]
        if len(part) < 45:
            continue
        shares = coverage(taken.came[part], told[part])
        off.append(100 * max(abs((s or 0) - q) for s, q in zip(shares, LEVELS, strict=True)))
        label = f"{1970 + quarter // 4} {('DJF', 'MAM', 'JJA', 'SON')[quarter % 4]}"
        cover = " ".join(f"{100 * (s or 0):5.1f}" for s in shares)
        bars.note(
            f"{name} {label} below 10/25/50/75/90 %: {cover}  pinball {pinball(taken.came[part], told[part], LEVELS):.4g}"
        )
    whole = coverage(taken.came[90:], told[90:])
    bars.note(f"{name} pinball {pinball(taken.came[90:], told[90:], LEVELS):.4g} over {len(origins) - 90} forecasts")
    worst = 100 * max(abs((s or 0) - q) for s, q in zip(whole, LEVELS, strict=True))
    bars.at_most(f"{name} coverage off, all [points]", worst, 4.0)
    bars.at_most(f"{name} coverage off, mean of seasons", float(np.mean(off)), most)


def cut(rolled: Rolled, days: int) -> Rolled:
    """Return the last days."""
    return Rolled(rolled.model, rolled.origins[-days:], rolled.made[-days:], rolled.came[-days:])


def beside(bars: Bars, name: str, region: str, ours: Rolled, limits: tuple[float, ...]) -> None:
    """Set our error beside CarbonCast's published one, by day ahead."""
    for word, mine, theirs, limit in zip(WORDS, mape_pct(ours), CARBONCAST_MAPE_PCT[region], limits, strict=True):
        bars.at_most(f"{name} {word} MAPE / CarbonCast's published {theirs:.2f} %", (mine or np.inf) / theirs, limit)


def same_hours(bars: Bars, days: int) -> None:
    """Compare with a published forecast of the very same hours: the mean of CarbonCast's forecasts 1 to 4 days ahead."""
    path = GRID / "forecast_CISO.csv.gz"
    series, theirs = column(path, "carbon_intensity"), column(path, "avg_carbon_intensity_forecast")
    model = next(m for m in MODELS if m.name == "ridge")
    origins = origins_of(len(series), HOURS, days + 3)
    rolled = roll(series[-4 * 8784 :], model, origins - (len(series) - len(series[-4 * 8784 :])), HOURS)
    by_hour: dict[int, list[float]] = {}
    for origin, made in zip(origins.tolist(), rolled.made, strict=True):
        for h, value in enumerate(made.tolist()):
            by_hour.setdefault(origin + h, []).append(value)
    full = [h for h, values in by_hour.items() if len(values) == 4]
    came = series[full]
    mine = np.array([np.mean(by_hour[h]) for h in full])
    ours = 100 * np.mean(np.abs(mine - came) / came)
    other = 100 * np.mean(np.abs(theirs[full] - came) / came)
    bars.note(f"CISO same {len(full)} hours, mean of four forecasts: ours {ours:.2f} %, published {other:.2f} %")
    bars.at_most("CISO same hours, MAPE / published forecast's", ours / other, 1.0)


def main() -> int:
    """Run the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer zones and days, under 50 s")
    parser.add_argument("--trees", action="store_true", help="with boosted trees, which take minutes")
    quick = parser.parse_args().quick
    bars = Bars()
    if not (GRID / "forecast_CISO.csv.gz").exists():
        bars.note(f"the recordings are not in {GRID}: nothing is measured")
        return 0
    ciso = column(GRID / "forecast_CISO.csv.gz", "carbon_intensity")
    if quick:
        score(bars, "DE-LU 2024", zone("DE-LU"), 60, (0.9, 0.95, 10.0))
        california = score(bars, "CISO 2022 direct", ciso[-2 * 8760 :], 60, (0.5, 0.95, 6.0))
        beside(bars, "CISO 2022", "CISO", california, (1.0, 1.05, 1.1, 1.15))
        same_hours(bars, 60)
    else:
        models = MODELS
        if parser.parse_args().trees:
            from wattkeeper.plan.forecast.trees import trees

            models = (*MODELS, trees())
        market = prices("DE-LU")
        for name, limits in {
            "DE-LU": (0.75, 0.9, 6.0), "GB": (0.8, 0.9, 6.0), "US-CAL-CISO": (0.4, 0.9, 6.0), "CA-ON": (0.75, 0.9, 6.0),
            "IN-WE": (0.6, 1.0, 6.0),
        }.items():  # fmt: skip
            ours = score(bars, f"{name} 2024", zone(name), 184, limits, models)
            if name == "DE-LU":
                beside(bars, "DE-LU 2024", "DE", ours, (1.3, 1.6, 1.6, 1.6))
            if name == "US-CAL-CISO":
                beside(bars, "US-CAL-CISO 2024", "CISO", ours, (1.1, 1.2, 1.3, 1.4))
        told = (*MODELS, priced(Beside(market, PRICES_KNOWN)))
        ours = score(bars, "DE-LU 2024 told prices", zone("DE-LU"), 184, (0.7, 0.85, 6.0), told)
        beside(bars, "DE-LU 2024 told prices", "DE", ours, (0.95, 1.35, 1.6, 1.5))
        for name in ("DE-LU", "GB", "US-CAL-CISO", "CA-ON", "IN-WE"):
            seasons(bars, name, zone(name), "2023-01-01", floor=0.0, most=6.0)
        seasons(bars, "CISO direct", ciso, "2019-01-01", floor=0.0, most=6.0)
        for name in ("DE-LU", "US-CAL-CISO", "CA-ON", "IN-WE"):
            seasons(bars, f"price {name}", prices(name), "2023-01-01", floor=-np.inf, most=6.0)
        california = score(bars, "CISO 2022 direct", ciso, 184, (0.4, 0.9, 6.0), models)
        beside(bars, "CISO 2022", "CISO", california, (1.0, 1.05, 1.1, 1.15))
        same_hours(bars, 184)
        note = f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {os.cpu_count()} cores {platform.python_version()}"
        result = HERE / "results" / f"forecast-{datetime.now(UTC):%Y-%m-%d}.txt"
        result.write_text("\n".join([note, *bars.lines]) + "\n")
    return 1 if bars.failed else 0


if __name__ == "__main__":
    sys.exit(main())
