"""Recorded data from outside: 64 nodes of a training run, grid signals with irregular steps."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from wattkeeper.config import CsvConfig
from wattkeeper.core.signal import Signal
from wattkeeper.integrations.csvfile import BUILTIN, CsvSource

DATA = Path(__file__).resolve().parents[3] / "../shared/data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the recorded data are not here")


def load(path, layout):
    batches = list(CsvSource(DATA / path, layout, "shared").read())
    assert not [reject for batch in batches for reject in batch.rejects]
    return batches


def signals(path, layout):
    batches = load(path, layout)
    return pl.concat([batch.signals for batch in batches]), batches[-1].signal_infos


def test_a_training_run_of_64_nodes():
    """64 meters × 1707 rows of whole watts; the sum of all cells is 748 026 426 W."""
    layout = CsvConfig(kind="readings", wide=True, columns={"time": "unix_ms"}, quantity="power", unit="W", parent="dc")
    batches = load("gpu/mlperf/smc_gpt3_64node_ac.csv", layout)
    readings = pl.concat([batch.readings for batch in batches])

    assert readings.height == 64 * 1707
    assert readings["value"].sum() == 748_026_426_000
    assert [m.id for batch in batches for m in batch.meters] == [f"node_{i}" for i in range(1, 65)]
    assert sum(len(batch.assets) for batch in batches) == 64
    assert readings.filter(meter="node_1").row(0) == ("node_1", 1715960307185, 4_316_000)


def test_a_year_of_german_intensity():
    """The leap year 2024 has 8784 hours without a hole; the lifecycle mean is 332.1 g/kWh."""
    table, [info] = signals("grid/intensity/DE-LU_2024_hourly.csv.gz", BUILTIN["electricitymaps"])

    assert table.height == 8784
    assert round(table["value"].mean(), 1) == 332.1
    assert (info.id, info.unit, info.method, info.note) == ("intensity:DE", "g/kWh", "average, lifecycle", "")
    signal = Signal.from_table(table, info)
    assert signal.missing_ms(1704067200000, 1735689600000) == 0


def test_a_year_of_prices():
    """USD/MWh become USD/kWh; negative prices stay."""
    layout = CsvConfig(
        kind="signals",
        columns={"start": "Datetime (UTC)", "value": "Price (USD/MWh)"},
        signal="price:DE-LU",
        unit="USD/MWh",
    )
    table, [info] = signals("grid/price/DE-LU_2024_prices.csv.gz", layout)

    assert table.height == 8784
    assert info.unit == "USD/kWh"
    assert table["value"].mean() == pytest.approx(0.084_580, abs=1e-6)  # 84.58 USD/MWh
    assert table["value"].min() == pytest.approx(-0.144_565, abs=1e-6)


LETS_WAIT = CsvConfig(kind="signals", columns={"start": "Time", "value": "Carbon Intensity"}, signal="intensity:X")


def test_quarter_hours_with_two_holes():
    """Germany: 37 147 values of 15 minutes each; the two steps of 30 minutes leave 15 minutes open each."""
    table, [info] = signals("grid/lets_wait_awhile/ger_ci.csv.gz", LETS_WAIT)

    assert table.height == 37_147
    assert (table["end_ms"] - table["start_ms"]).unique().to_list() == [900_000]
    assert info.note == "2 holes of 30 min in all"
    signal = Signal.from_table(table, info)
    assert signal.missing_ms(table["start_ms"].min(), table["end_ms"].max()) == 2 * 900_000


def test_15_and_30_minutes_mixed():
    """Great Britain: 6808 steps of 15 minutes, 15 171 of 30 and the last one; nothing is open."""
    table, [info] = signals("grid/lets_wait_awhile/gb_ci.csv.gz", LETS_WAIT)
    lengths = (table["end_ms"] - table["start_ms"]).value_counts(sort=True).rows()

    assert lengths == [(1_800_000, 15_172), (900_000, 6_808)]
    assert info.note == ""
