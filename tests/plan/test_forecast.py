"""Forecasts: models by hand, no look ahead, quantiles that are calibrated and rise, scores."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattkeeper.plan.forecast.backtest import Rolled, best, chosen, judged, origins_of, roll, then
from wattkeeper.plan.forecast.conformal import LEVELS, rolled_quantiles
from wattkeeper.plan.forecast.models import MODELS, PERSISTENCE, Beside, priced
from wattkeeper.plan.forecast.scores import blocks, coverage, mae, mape_pct, pinball
from wattkeeper.plan.forecast.series import days_of, filled
from wattkeeper.plan.forecast.trees import trees

GRID = Path(__file__).resolve().parents[2] / "../shared/data/grid"
BY_NAME = {m.name: m for m in MODELS}
TWELVE_WEEKS, YEAR = 24 * 7 * 12, 24 * 7 * 52


def seasonal(n=TWELVE_WEEKS, noise=0.0, seed=0):
    """Return a series with a day, a weekend and a slow wave; noise is a walk that returns to its mean."""
    h = np.arange(n)
    rng = np.random.default_rng(seed)
    walk = np.zeros(n)
    for i in range(1, n):
        walk[i] = 0.97 * walk[i - 1] + noise * rng.standard_normal()
    return 300 + 80 * np.sin(2 * np.pi * h / 24) - 40 * (h // 24 % 7 >= 5) + walk


def test_baselines_by_hand():
    """Hours numbered from 0: after hour 1999 persistence says 1999, day 1976, week 1832 for the next hour."""
    past = np.arange(2000.0)

    def first_two(name):
        return BY_NAME[name].fit(past, 30)(past)[[0, 24]].tolist()

    assert first_two("persistence") == [1999, 1999]
    assert first_two("day") == [1976, 1976]
    assert first_two("week") == [1832, 1856]
    assert first_two("profile") == [np.mean([1832, 1664, 1496, 1328]), np.mean([1856, 1688, 1520, 1352])]


def test_baselines_reach_as_far_as_asked():
    """Two weeks ahead the week comes twice."""
    past = np.arange(2000.0)
    made = BY_NAME["week"].fit(past, 336)(past)

    assert made.tolist() == [*range(1832, 2000)] * 2
    assert len(BY_NAME["ridge"].fit(seasonal(), 336)(seasonal())) == 336


def test_a_hole_takes_the_day_before():
    """Hour 30 is missing: it counts as hour 6. Before the first value the next day's counts."""
    past = np.arange(96.0)
    past[30] = np.nan
    past[:2] = np.nan
    whole = filled(past)

    assert whole[30] == 6
    assert whole[:2].tolist() == [24, 25]
    assert np.delete(whole, [0, 1, 30]).tolist() == np.delete(np.arange(96.0), [0, 1, 30]).tolist()


def test_with_too_little_to_learn_from_the_profile_stands_in():
    """Of twelve weeks all but the first and the last five days are missing: there is nothing to learn from."""
    past = seasonal()
    past[168:-120] = np.nan

    assert BY_NAME["ridge"].fit(past, 48)(past).tolist() == BY_NAME["profile"].fit(past, 48)(past).tolist()


def test_a_flat_series_is_forecast_flat():
    """No spread to scale by: every model says 42, and no quantile differs."""
    past = np.full(TWELVE_WEEKS, 42.0)
    for model in MODELS:
        assert model.fit(past, 48)(past) == pytest.approx(np.full(48, 42.0))


def test_days_end_at_the_origin():
    """50 hours are two whole days, from hour 2 on."""
    assert days_of(np.arange(50.0))[:, 0].tolist() == [2, 26]


def test_ridge_learns_what_baselines_cannot():
    """On a day, a weekend and a walk its mean error is below 0.9 of the best baseline's."""
    series = seasonal(YEAR, noise=8.0)
    origins = origins_of(len(series), 96, 28)
    errors = {m.name: np.abs(roll(series, m, origins, 96).errors).mean() for m in MODELS}

    baselines = min(errors[name] for name in ("persistence", "day", "week", "profile"))
    assert max(errors["ridge"], errors["blend"]) < 0.9 * baselines


def test_a_series_without_noise_is_forecast_exactly():
    """The week repeats: week and profile are exact, and the ridge is within 7 of an amplitude of 80."""
    series = seasonal(YEAR)
    for name, most in (("week", 1e-9), ("profile", 1e-9), ("ridge", 7.0)):
        rolled = roll(series, BY_NAME[name], origins_of(len(series), 96, 7), 96)
        assert np.abs(rolled.errors).max() < most


@pytest.mark.parametrize("model", [*MODELS, trees()], ids=lambda m: m.name)
@settings(max_examples=4, deadline=None)
@given(change=st.floats(-1e6, 1e6), after=st.integers(0, 60), holes=st.booleans())
def test_the_future_cannot_reach_a_forecast(model, change, after, holes):
    """Whatever comes after an origin, a forecast made there is the same to the bit."""
    series = seasonal(TWELVE_WEEKS, noise=5.0)
    if holes:
        series[100:130] = np.nan
    origins = origins_of(len(series), 48, 3)
    other = series.copy()
    other[origins[0] + after :] = change
    first, again = (roll(s, model, origins[:1], 48).made for s in (series, other))

    assert first.tobytes() == again.tobytes()


@settings(max_examples=6, deadline=None)
@given(known=st.integers(1, 40), change=st.floats(-1e3, 1e3), holes=st.booleans())
def test_a_price_not_yet_known_cannot_reach_a_forecast(known, change, holes):
    """Prices from the first hour on that an origin is not told change nothing; the last that it is told does."""
    series, prices = seasonal(noise=5.0), seasonal(noise=3.0, seed=1)
    if holes:
        prices[100:130] = np.nan
    origin = len(series) - 48
    later, told = prices.copy(), prices.copy()
    later[origin + known :] += change
    told[origin + known - 1] += 50

    def made(values):
        return roll(series, priced(Beside(values, known)), [origin], 48).made

    assert made(prices).tobytes() == made(later).tobytes()
    assert made(prices).tobytes() != made(told).tobytes()


def test_prices_that_rule_tell_the_hours_ahead():
    """Each value is ten times the price of its hour, and prices are noise: 34 hours known are told, the rest is not."""
    prices = np.random.default_rng(5).normal(20, 3, YEAR)
    model = priced(Beside(prices, 34))
    origins = origins_of(YEAR, 48, 28)
    alone, with_prices = (np.abs(roll(10 * prices, m, origins, 48).errors).mean(axis=0) for m in (MODELS[-1], model))

    assert with_prices[:34].mean() < 0.5 * alone[:34].mean()
    assert with_prices[34:].mean() == pytest.approx(alone[34:].mean(), rel=0.15)


@settings(max_examples=20, deadline=None)
@given(at=st.integers(0, 9), change=st.floats(-1e6, 1e6))
def test_the_future_cannot_reach_a_choice_or_a_quantile(at, change):
    """What is chosen at an origin, and its quantiles, stay the same whatever comes after it."""
    series = seasonal(24 * 7 * 9, noise=5.0)
    origins = origins_of(len(series), 48, 10)
    other = series.copy()
    other[origins[at] :] += change
    models = [BY_NAME[n] for n in ("persistence", "day", "profile")]
    told = []
    for s in (series, other):
        rolled = [roll(s, m, origins, 48) for m in models]
        _, picks = chosen(rolled)
        told.append((picks[: at + 1], rolled_quantiles(rolled, picks)[: at + 1].tobytes()))

    assert told[0] == told[1]


def judged_slowly(rolled, origin, days=56):
    """Return each model's mean error, hour by hour: what had passed, in the last days, where all models speak."""
    hours = rolled[0].made.shape[1]
    sums, n = [0.0] * len(rolled), 0
    speak = [any(not np.isnan(r.made[i, h]) for i in range(len(r.made)) for h in range(hours)) for r in rolled]
    for i, first in enumerate(rolled[0].origins.tolist()):
        for h in range(hours):
            if first < origin - 24 * days - hours or first + h >= origin:
                continue
            off = [abs(r.came[i, h] - r.made[i, h]) for r in rolled]
            if not any(np.isnan(o) for o in off):
                n += 1
                sums = [s + o for s, o in zip(sums, off, strict=True)]
    return [s / n if n and spoke else np.inf for s, spoke in zip(sums, speak, strict=True)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), models=st.integers(2, 4), hours=st.sampled_from([24, 30, 48]))
def test_the_choice_is_that_of_a_slow_judge(seed, models, hours):
    """Random forecasts of 70 days with holes: at every origin the chosen one is the one a loop over hours finds best."""
    rng = np.random.default_rng(seed)
    origins = 700 + 24 * np.arange(70)
    series = np.where(rng.random(24 * 110) < 0.05, np.nan, rng.normal(100, 10, 24 * 110))
    came = series[origins[:, None] + np.arange(hours)]
    wander = np.cumsum(rng.normal(0, 2, (models, 70)), axis=1)
    rolled = [Rolled(str(k), origins, 100 + wander[k][:, None] + np.zeros(hours), came) for k in range(models)]
    taken, picks = chosen(rolled)

    for i, origin in enumerate(origins.tolist()):
        slow = judged_slowly(rolled, origin)
        assert slow == pytest.approx(judged(rolled, origin)[0])
        assert slow[picks[i]] == pytest.approx(min(slow))
        assert (taken.made[i] == rolled[picks[i]].made[i]).all()


def test_the_best_is_judged_on_what_had_passed():
    """Of two models one is right early and wrong late: at the early origin it is chosen."""
    origins = np.array([700, 724, 748])
    came = np.zeros((3, 24))
    right_first = Rolled("a", origins, np.array([[0.0] * 24, [9.0] * 24, [9.0] * 24]), came)
    right_later = Rolled("b", origins, np.array([[5.0] * 24, [0.0] * 24, [0.0] * 24]), came)

    assert [best([right_first, right_later], o) for o in (700, 724, 748)] == [0, 0, 1]
    assert chosen([right_first, right_later])[1] == [0, 0, 1]


def told_after(errors, made, levels, floor=-np.inf):
    """Return the quantiles of a forecast made after errors, (days, hours), of forecasts of 100 a day apart."""
    errors = np.asarray(errors, np.float64)
    point = np.full_like(errors, 100.0)
    rolled = Rolled("x", 24 * np.arange(len(errors)), point, point + errors)
    both = then(rolled, 24 * len(errors), np.asarray(made, np.float64))
    return rolled_quantiles([both], [0] * len(both.origins), levels, floor=floor)[-1]


def told_slowly(errors, levels):
    """Return the shares of the size expected that each day is told, and its sizes, as the docstring says it: in loops."""
    days, hours = errors.shape
    ahead = [range(a, min(a + 24, hours)) for a in range(0, hours, 24)]
    told, shift = np.full((days + 1, len(levels), hours), np.nan), np.zeros(len(levels))
    size = np.full((days + 1, len(ahead)), np.nan)
    for i in range(days + 1):
        for d in range(len(ahead)):
            passed = [(i - 1 - d - j, np.abs(errors[j, ahead[d]]).mean()) for j in range(max(i - d, 0))]
            weights = [0.5 ** (age / 14) for age, _ in passed]
            if passed:
                size[i, d] = sum(w * e for w, (_, e) in zip(weights, passed, strict=True)) / sum(weights)

    def line(i, h):
        """Return the size of an hour, between the middles of the days."""
        row = [next(s for s in size[i, d::-1] if not np.isnan(s)) for d in range(len(ahead))]
        return np.interp(h + 0.5, [(part[0] + part[-1] + 1) / 2 for part in ahead], row)

    for i in range(days + 1):
        missed = []
        for d, part in enumerate(ahead):
            j = i - 1 - d
            if j >= 0 and not np.isnan(told[j][:, part]).any():
                missed.append([q - np.mean(errors[j, part] < told[j, k, part]) for k, q in enumerate(levels)])
        shift = 0.95 * shift + 0.15 * (np.mean(missed, axis=0) if missed else 0.0)
        for h in range(hours):
            near = []
            for g in range(max(h - 2, 0), min(h + 3, hours)):
                d = g // 24
                for j in range(max(i - d, 0)):
                    near.append(errors[j, g] / line(max(j, d + 1), g))
            near, n = sorted(np.clip(near, -20, 20)), len(near)
            for k, q in enumerate(levels):
                if n and i > h // 24:
                    rank = min(math.ceil(q * (n + 1)), n) if q >= 0.5 else max(math.floor(q * (n + 1)), 1)
                    told[i, k, h] = (near[rank - 1] + shift[k]) * line(i, h)
        told[i] = np.sort(told[i], axis=0)
    return told


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), hours=st.sampled_from([24, 30, 50]))
def test_quantiles_are_those_of_a_slow_reading(seed, hours):
    """Errors of any tail, over a month: what is told the day after is what loops over each error find."""
    errors = np.random.default_rng(seed).standard_t(2, (30, hours)) * 7
    made = told_after(errors, np.full(hours, 100.0), (0.1, 0.5, 0.8))

    assert made == pytest.approx(100 + told_slowly(errors, (0.1, 0.5, 0.8))[-1])


def test_the_size_of_errors_follows_the_last_weeks():
    """Sizes 1 for a year, then 3 for eight weeks: the width follows threefold, though most errors were small."""
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((365 + 56, 24))
    noise[365:] *= 3
    before, after = (told_after(e, np.full(24, 100.0), (0.1, 0.9)) for e in (noise[:365], noise))
    widths = [float((m[1] - m[0]).mean()) for m in (before, after)]

    assert widths[0] == pytest.approx(2 * 1.2816, rel=0.1)  # the 90 % quantile of a normal is 1.2816
    assert widths[1] == pytest.approx(6 * 1.2816, rel=0.15)


def test_without_errors_there_is_no_quantile():
    """Nothing has passed yet: NaN, not the point. A fourth day has none while only three have passed."""
    nothing = told_after(np.full((3, 1), np.nan), [100.0], LEVELS)
    short = told_after(np.ones((3, 96)), np.full(96, 100.0), LEVELS)

    assert np.isnan(nothing).all()
    assert np.isfinite(short[:, :72]).all()
    assert np.isnan(short[:, 72:]).all()


def test_one_spike_rules_no_year():
    """An hour of a hundred times the usual error: six weeks later the band is as wide as without it, within a tenth."""
    errors = np.random.default_rng(6).standard_normal((90, 24))
    spiked = errors.copy()
    spiked[45, 7] = 100.0
    widths = [float(np.diff(told_after(e, np.full(24, 100.0), (0.1, 0.9)), axis=0).mean()) for e in (errors, spiked)]

    assert widths[1] == pytest.approx(widths[0], rel=0.1)


@settings(max_examples=60, deadline=None)
@given(
    errors=st.lists(
        st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=30, max_size=30), min_size=1, max_size=30
    ),
    levels=st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6, unique=True),
)
def test_quantiles_rise_in_level(errors, levels):
    """Whatever the errors, a higher level is never below a lower one, and no quantile is below the floor."""
    made = told_after(errors, np.full(30, 10.0), sorted(levels), floor=0.0)
    told = made[:, ~np.isnan(made[0])]

    assert (np.diff(told, axis=0) >= 0).all()
    assert (told >= 0).all()


def test_quantiles_are_calibrated():
    """Of 300 days with noise the share of values below each quantile is its level, within 3 points."""
    series = seasonal(24 * 7 * 60, noise=8.0, seed=3)
    rolled = roll(series, BY_NAME["profile"], origins_of(len(series), 48, 300), 48)
    told = rolled_quantiles([rolled], [0] * 300)
    shares = coverage(rolled.came[40:], told[40:])

    assert shares == pytest.approx(LEVELS, abs=0.03)


def test_scores_by_hand():
    """Day 1: forecasts 110 for 100 and 90 for 100, 10 %. Day 2: 50 for 200, 75 %. Errors 10 and 150."""
    came = np.concatenate((np.full(24, 100.0), np.full(24, 200.0)))[None]
    made = np.concatenate((np.full(12, 110.0), np.full(12, 90.0), np.full(24, 50.0)))[None]
    rolled = Rolled("x", np.array([0]), made, came)

    assert mape_pct(rolled) == pytest.approx([10.0, 75.0])
    assert mae(rolled) == pytest.approx([10.0, 150.0])
    assert blocks(96) == [(0, 24), (24, 48), (48, 72), (72, 96)]


def test_a_price_of_nothing_has_no_percentage():
    """A value of 0 came: no MAPE, and the mean error stands."""
    rolled = Rolled("x", np.array([0]), np.ones((1, 24)), np.zeros((1, 24)))

    assert mape_pct(rolled) == [None]
    assert mae(rolled) == [1.0]


def test_pinball_by_hand():
    """Ten came; 90 % said 8: 0.9 × 2 = 1.8. 10 % said 12: 0.9 × 2 = 1.8. The mean is 1.8, and both are covered or not."""
    came, made = np.array([[10.0]]), np.array([[[12.0], [8.0]]])

    assert pinball(came, made, (0.1, 0.9)) == pytest.approx(1.8)
    assert coverage(came, made) == [1.0, 0.0]


def test_values_that_are_missing_are_not_judged():
    """A gap in what came is no error: the mean is over the other hours."""
    series = seasonal(24 * 7 * 9)
    series[-10:] = np.nan
    rolled = roll(series, PERSISTENCE, [len(series) - 24], 24)

    assert np.isnan(rolled.errors).sum() == 10
    assert mae(rolled)[0] == pytest.approx(np.abs(rolled.errors[0, :14]).mean())


def recorded(name, column):
    """Return a recorded series."""
    path = GRID / name
    if not path.exists():
        pytest.skip(f"the recordings are not in {path}")
    with gzip.open(path, "rt") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def test_california_is_forecast_better_than_by_any_baseline():
    """CISO, direct, the last 60 days of 2022: the ridge errs least on every day ahead, and below half of persistence."""
    series = np.array(recorded("forecast_CISO.csv.gz", "carbon_intensity"))[-2 * 8760 :]
    origins = origins_of(len(series), 96, 60)
    errors = {m.name: mape_pct(roll(series, m, origins, 96)) for m in MODELS}

    assert all(errors["ridge"][d] < min(errors[n][d] for n in errors if n != "ridge") for d in range(4))
    assert all(errors["ridge"][d] < 0.5 * errors["persistence"][d] for d in range(4))


@pytest.mark.parametrize("zone", ["DE-LU", "GB", "CA-ON", "IN-WE"])
def test_the_chosen_model_beats_persistence_on_recorded_zones(zone):
    """Two recorded years, the last 60 days of 2024: of all models the one chosen so far errs less than persistence."""
    column = "Carbon Intensity gCO₂eq/kWh (LCA)"
    series = np.array([v for y in (2023, 2024) for v in recorded(f"intensity/{zone}_{y}_hourly.csv.gz", column)])
    rolled = [roll(series, m, origins_of(len(series), 96, 60), 96) for m in MODELS]
    taken, _ = chosen(rolled)

    assert np.mean(mae(taken)) < 0.9 * np.mean(mae(rolled[0]))


def test_the_blend_lies_lower_where_high_values_stand_out():
    """Hours of log-normal size: the mean is above the median, and the blend between the two; a price below 0 has no log."""
    rng = np.random.default_rng(4)
    skewed = 100 * np.exp(rng.normal(0, 1, 24 * 400))
    ridge, blend = (BY_NAME[name].fit(skewed, 96)(skewed).mean() for name in ("ridge", "blend"))
    prices = skewed.copy()
    prices[5] = -1.0

    assert 100 < blend < 0.95 * ridge  # median 100, mean 165
    assert (BY_NAME["blend"].fit(prices, 96)(prices) == BY_NAME["ridge"].fit(prices, 96)(prices)).all()


def test_what_chose_the_model_is_what_is_told():
    """An old season in which the day repeats, then 70 days of a flat line: the errors told are those of the flat line."""
    series = np.concatenate((300 + 80 * np.sin(np.arange(24 * 100) * 2 * np.pi / 24), np.full(24 * 70, 200.0)))
    series[-24 * 70 :] += np.repeat(np.arange(70) % 2, 24) * 10.0  # every other day 10 higher
    rolled = [roll(series, BY_NAME[name], origins_of(len(series), 48, 120), 48) for name in ("persistence", "day")]
    errors, days = judged(rolled, len(series))

    # both repeat the last level: the first day ahead is 10 off, the second is right
    assert errors == pytest.approx([5.0, 5.0])
    assert days == 57  # 56 days, and the two that the last forecast reaches back, less one not begun
    assert best(rolled, len(series)) == 0


def test_a_model_without_a_value_is_judged_by_the_same_hours():
    """The second model is right where it speaks, in the easy half; the first is no worse there, and stays."""
    origins = np.array([700, 724])
    came = np.array([[100.0, 100.0], [100.0, 500.0]])
    first = Rolled("a", origins, np.array([[100.0, 100.0], [100.0, 100.0]]), came)
    second = Rolled("b", origins, np.array([[101.0, 101.0], [101.0, np.nan]]), came)

    assert judged([first, second], 800)[0] == [0.0, 1.0]
    assert best([first, second], 800) == 0


@pytest.mark.parametrize("name", ["persistence", "day", "week", "profile", "ridge", "blend"])
def test_a_hole_of_weeks_before_the_forecast(name: str):
    """Thirty days without a value up to an hour ago: every model still says a number near what it knew, unwarned."""
    past = seasonal(24 * 100)
    past[-24 * 30 :] = np.nan
    made = BY_NAME[name].fit(past, 96)(past)

    assert np.isfinite(made).all()
    assert 150 < made.min() <= made.max() < 450
