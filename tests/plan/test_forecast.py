"""Forecasts: models by hand, no look ahead, quantiles that are calibrated and rise, scores."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattkeeper.plan.forecast.backtest import Rolled, best, chosen, judged, origins_of, roll
from wattkeeper.plan.forecast.conformal import LEVELS, quantiles, rolled_quantiles
from wattkeeper.plan.forecast.models import MODELS, PERSISTENCE
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


def test_the_best_is_judged_on_what_had_passed():
    """Of two models one is right early and wrong late: at the early origin it is chosen."""
    origins = np.array([700, 724, 748])
    came = np.zeros((3, 24))
    right_first = Rolled("a", origins, np.array([[0.0] * 24, [9.0] * 24, [9.0] * 24]), came)
    right_later = Rolled("b", origins, np.array([[5.0] * 24, [0.0] * 24, [0.0] * 24]), came)

    assert [best([right_first, right_later], o) for o in (700, 724, 748)] == [0, 0, 1]
    assert chosen([right_first, right_later])[1] == [0, 0, 1]


def test_quantiles_are_order_statistics():
    """Of 9 errors −4 … 4 the 10 % quantile is the first, 50 % the fifth, 90 % the ninth: ⌈0.9 × 10⌉."""
    errors = np.arange(-4.0, 5)[:, None]
    made = quantiles(np.array([100.0]), errors, (0.1, 0.3, 0.5, 0.7, 0.9))

    assert made[:, 0].tolist() == [96, 98, 100, 102, 104]


def test_without_errors_there_is_no_quantile():
    """Nothing has passed yet: NaN, not the point."""
    assert np.isnan(quantiles(np.array([100.0]), np.full((3, 1), np.nan))).all()


@settings(max_examples=60, deadline=None)
@given(
    errors=st.lists(
        st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=6, max_size=6), min_size=1, max_size=30
    ),
    levels=st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6, unique=True),
)
def test_quantiles_rise_in_level(errors, levels):
    """Whatever the errors, a higher level is never below a lower one, and no quantile is below the floor."""
    made = quantiles(np.full(6, 10.0), np.array(errors), sorted(levels), floor=0.0)
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
