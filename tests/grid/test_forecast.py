"""Forecasts of a signal in a book: from what was known then, kept under ids of their own, and scored."""

from __future__ import annotations

import re
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattkeeper.core.clock import to_ms
from wattkeeper.core.errors import ConfigError, UnknownNameError
from wattkeeper.core.roles import Intake, SignalInfo
from wattkeeper.grid.forecast import backtest, forecast, prices_until_ms, to_intake
from wattkeeper.grid.series import Hourly, find_signal, read_hourly
from wattkeeper.grid.show import columns, error_rows, read_course
from wattkeeper.lake.book import Book
from wattkeeper.plan.forecast.models import MODELS

HOUR = 3_600_000
START = 1_767_571_200_000  # 2026-01-05T00:00Z, a Monday
WEEKS = 12
INFO = SignalInfo("intensity:DE:entsoe:lifecycle", "intensity", "g/kWh", "ENTSO-E", "A75", "average, lifecycle")
FAST = [m for m in MODELS if m.name in {"persistence", "day", "week"}]


def wave(hours=WEEKS * 168):
    """Return 390 g at midnight and 15 g less each hour until noon, then back; and 50 less on weekends."""
    h = np.arange(hours)
    return 210 + 15.0 * np.abs(h % 24 - 12) - 50.0 * (h // 24 % 7 >= 5)


def hourly(values=None):
    return Hourly(INFO, START, wave() if values is None else values)


@pytest.fixture
def book(tmp_path):
    """A book with twelve weeks of a signal, two hours of them missing."""
    made = Book.create(tmp_path / "book", '[[site]]\nid = "a"\n')
    put(made, INFO, np.where(np.isin(np.arange(WEEKS * 168), (1000, 1001)), np.nan, wave()))
    return made


def put(book, info, values, start_ms=START):
    starts = start_ms + np.arange(len(values)) * HOUR
    table = pl.DataFrame({"start_ms": starts, "end_ms": starts + HOUR, "value": values}).filter(
        ~pl.col("value").is_nan()
    )
    rows = table.select(pl.lit(info.id).alias("signal"), "start_ms", "end_ms", "value")
    book.take(Intake("test", signals=rows, signal_infos=[info]), 0)


def test_the_winner_is_used_and_named():
    """The week repeats exactly: of three baselines it errs by nothing, and its forecast is what comes."""
    made = forecast(hourly(), START + WEEKS * 168 * HOUR, 96, models=FAST)

    assert (made.model, made.mae["week"], made.days) == ("week", 0.0, 56)
    assert made.values == pytest.approx(wave(WEEKS * 168 + 96)[-96:])
    assert made.quantiles == pytest.approx(np.tile(made.values, (5, 1)))  # no error was ever made


def test_a_forecast_issued_earlier_knows_nothing_later():
    """Issued in week 10, it is the same whatever the book has of weeks 11 and 12."""
    issued = START + 10 * 168 * HOUR
    other = wave()
    other[10 * 168 :] = 7.0
    first, again = (forecast(Hourly(INFO, START, v), issued, 48) for v in (wave(), other))

    assert first.values.tobytes() == again.values.tobytes()
    assert first.quantiles.tobytes() == again.quantiles.tobytes()
    assert (first.model, first.mae) == (again.model, again.mae)


def test_values_that_come_late_are_forecast_over():
    """The last value is 30 h old: the forecast still begins at the hour after its issue."""
    values = wave()
    issued = START + WEEKS * 168 * HOUR - 600_000
    made = forecast(Hourly(INFO, START, values[:-30]), issued, 24, models=FAST)

    assert made.start_ms == START + WEEKS * 168 * HOUR
    assert made.values == pytest.approx(wave(WEEKS * 168 + 24)[-24:])


def test_a_signal_that_ended_long_ago_is_not_forecast():
    """Four days old: fetch it first."""
    with pytest.raises(ConfigError, match=r"has no value after 2026-03-30T00:00:00Z, 96 h before the forecast"):
        forecast(hourly(), START + (WEEKS * 168 + 96) * HOUR, 24)


def test_too_short_a_past_is_told():
    """Five weeks judge no forecast of 96 h: four weeks, 96 h and six days are needed."""
    with pytest.raises(
        ConfigError,
        match=r"840 h of past are too few to judge .* 912 h are needed\. .* at most 24 --hours\.",
    ):
        forecast(hourly(wave(5 * 168)), START + 5 * 168 * HOUR, 96)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 999), weeks=st.integers(1, 12), late=st.integers(0, 90), holes=st.floats(0, 0.5),
    shape=st.sampled_from(["walk", "flat", "zero", "spikes", "shift"]), kind=st.sampled_from(["intensity", "price"]),
)  # fmt: skip
def test_whatever_the_past_the_answer_is_a_forecast_or_a_sentence(seed, weeks, late, holes, shape, kind):
    """Rough pasts, short, late and with holes: 96 h with quantiles that are numbers, rise, and keep the floor; or no."""
    rng = np.random.default_rng(seed)
    values = 100 + np.cumsum(rng.normal(0, 5, weeks * 168))
    if shape in {"flat", "zero"}:
        values[:] = 42.0 if shape == "flat" else 0.0
    values[rng.random(len(values)) < 0.01] *= -1e5 if shape == "spikes" else 1
    values[len(values) // 2 :] += 1e4 if shape == "shift" else 0
    values[rng.random(len(values)) < holes] = np.nan
    values = values if kind == "price" else np.abs(values)
    info = SignalInfo(f"{kind}:X", kind, "x", "x")
    try:
        made = forecast(Hourly(info, START, values), START + (len(values) + late) * HOUR, 96)
    except ConfigError as error:
        refused = str(error)
        made = None
    if made is None:
        assert re.search(r"too few to judge a forecast|Fetch it first", refused)
        return

    assert made.values.shape == (96,)
    assert np.isfinite(made.values).all()
    assert np.isfinite(made.quantiles).all()
    assert (np.diff(made.quantiles, axis=0) >= 0).all()
    assert kind == "price" or min(made.values.min(), made.quantiles.min()) >= 0


@pytest.mark.parametrize(
    ("issued", "until"),
    [
        ("2026-03-30T00:00Z", "2026-03-30T22:00Z"),
        ("2026-03-30T11:59Z", "2026-03-30T22:00Z"),
        ("2026-03-30T12:00Z", "2026-03-31T22:00Z"),
        ("2026-03-30T23:00Z", "2026-03-31T22:00Z"),
    ],
)
def test_prices_are_known_from_noon_of_the_day_before(issued, until):
    """The auction's result of tomorrow is out by 12:00 UTC, in summer and winter, and reaches to 22:00 UTC at least."""
    assert prices_until_ms(to_ms(datetime.fromisoformat(issued))) == to_ms(datetime.fromisoformat(until))


def test_a_forecast_told_prices_looks_at_none_that_came_later():
    """Intensity follows prices: the model that is told them wins; prices after 22:00 UTC of its day change nothing."""
    prices = np.random.default_rng(1).normal(50, 9, 30 * 168)
    info = SignalInfo("price:DE-LU", "price", "EUR/kWh", "ENTSO-E")
    issued = START + 29 * 168 * HOUR
    later = prices.copy()
    later[29 * 168 + 22 :] = 0.0
    first, again = (
        forecast(hourly(5 * prices[: 29 * 168]), issued, 48, prices=Hourly(info, START, p)) for p in (prices, later)
    )

    assert first.model == "prices"
    assert first.values.tobytes() == again.values.tobytes()
    assert first.quantiles.tobytes() == again.quantiles.tobytes()
    assert backtest(hourly(5 * prices), 48, 7, prices=Hourly(info, START, prices)).picks == {"prices": 7}


def test_prices_that_do_not_reach_are_refused():
    """Without a price after the start, or four weeks before it, there is nothing to be told."""
    info = SignalInfo("price:DE-LU", "price", "EUR/kWh", "ENTSO-E")
    issued = START + WEEKS * 168 * HOUR
    for start, n in ((0, WEEKS * 168), (WEEKS * 168 - 300, 324)):
        with pytest.raises(ConfigError, match=r"price:DE-LU has values from .* needs four weeks of prices before it"):
            forecast(hourly(), issued, 24, models=FAST, prices=Hourly(info, START + start * HOUR, np.ones(n)))


def test_a_forecast_is_kept_twice(book):
    """Under its time of issue for good, and as the newest until the next; each quantile is a signal of its own."""
    series = read_hourly(book, INFO)
    ids = []
    for weeks in (11, 12):
        made = forecast(series, START + weeks * 168 * HOUR, 24, models=FAST, levels=(0.1, 0.9))
        book.take(to_intake(made), 0)
        ids.append(f"{INFO.id}:forecast@{['2026-03-23', '2026-03-30'][weeks - 11]}T00:00Z")
    infos = book.state.signal_infos()
    newest = book.signal_rows(f"{INFO.id}:forecast:q10")

    assert {i for i in infos if "forecast" in i} == {
        name + end for name in (*ids, f"{INFO.id}:forecast") for end in ("", ":q10", ":q90")
    }
    assert infos[ids[0]].method == "average, lifecycle, forecast"
    assert infos[ids[0]].provider == "Wattkeeper"
    assert infos[ids[0]].version == "week"
    assert infos[ids[0]].note == f"forecast of {INFO.id}, issued 2026-03-23T00:00:00Z"
    assert newest["start_ms"].min() == START + 12 * 168 * HOUR
    assert newest.height == book.signal_rows(ids[0]).height == 24


def test_an_intensity_is_never_forecast_below_nothing():
    """A price may be; grams may not."""
    values = wave() - 250
    price = SignalInfo("price:DE", "price", "EUR/kWh", "x")
    at = START + WEEKS * 168 * HOUR
    low = [forecast(Hourly(info, START, values), at, 24).quantiles.min() for info in (INFO, price)]

    assert low[0] == 0.0
    assert low[1] == pytest.approx(-40.0)  # Monday at noon: 210 − 250


def test_a_zone_with_two_signals_must_be_told_which(book):
    """Average and marginal are never mixed: no default is taken."""
    put(book, SignalInfo("intensity:DE:watttime:marginal", "intensity", "g/kWh", "WattTime"), wave(24))
    with pytest.raises(ConfigError, match=r"Zone DE has 2 signals\. Say which with --signal"):
        find_signal(book, "DE", "intensity")

    assert find_signal(book, "DE", "intensity", INFO.id) == INFO


def test_an_unknown_zone_is_told_with_those_that_there_are(book):
    """No zone is guessed."""
    with pytest.raises(UnknownNameError, match=r"No intensity of a zone named 'FR'.*Known: DE"):
        find_signal(book, "FR", "intensity")
    with pytest.raises(UnknownNameError, match="No price of a zone named 'DE'"):
        find_signal(book, "DE", "price")


def test_gaps_are_shown(book):
    """Two hours of the twelve weeks: named, and the column that holds them has no bar."""
    found = read_course(book, INFO, START + 990 * HOUR, START + 1010 * HOUR).hourly
    values, marks, _, each = columns(found, None, 20)

    assert found.gaps() == [(START + 1000 * HOUR, START + 1002 * HOUR)]
    assert [i for i, v in enumerate(values) if v is None] == [10, 11]
    assert each == 1
    assert marks[0] == "02-15"


def test_the_newest_forecast_is_shown_after_the_last_value(book):
    """With its band of 10 to 90 %."""
    book.take(to_intake(forecast(read_hourly(book, INFO), START + WEEKS * 168 * HOUR, 24, models=FAST)), 0)
    found = read_course(book, INFO, None, None)

    assert len(found.hourly.values) == 168
    assert found.ahead is not None
    assert (found.ahead.start_ms, len(found.ahead.values)) == (found.hourly.end_ms, 24)
    assert [len(b) for b in found.band] == [24, 24]


def test_a_back_test_by_hand():
    """The week repeats exactly, so it errs by nothing, and it is what was chosen on each day after the first."""
    done = backtest(hourly(), 96, 14, models=FAST)
    by_model = {s.model: s for s in done.scores}

    assert done.origins == 14
    assert done.start_ms == START + (WEEKS * 168 - 96 - 13 * 24) * HOUR
    assert by_model["week"].mae == (0.0, 0.0, 0.0, 0.0)
    assert by_model["chosen"].mape_pct == pytest.approx([0.0] * 4)
    assert by_model["day"].mae[0] == 50 * 4 / 14  # 4 of 14 days begin or end a weekend
    assert done.picks == {"week": 14}
    assert done.pinball == pytest.approx(0.0, abs=1e-9)
    assert done.published == (13.29, 17.20, 18.19, 19.73)


def test_published_figures_stand_beside_ours_where_there_are_any():
    """DE has CarbonCast's; another zone has none."""
    rows, measure = error_rows(backtest(hourly(), 96, 7, models=FAST))
    elsewhere = SignalInfo("intensity:NO1:entsoe:lifecycle", "intensity", "g/kWh", "ENTSO-E")
    others, _ = error_rows(backtest(Hourly(elsewhere, START, wave()), 96, 7, models=FAST))

    assert measure == "MAPE [%]"
    assert [r["error"] for r in rows if r["model"] == "CarbonCast"] == [13.29, 17.20, 18.19, 19.73]
    assert "CarbonCast" not in {r["model"] for r in others}
