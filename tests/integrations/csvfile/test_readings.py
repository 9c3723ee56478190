"""Readings: units, long and wide tables, meters and assets, and every kind of bad row."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wattkeeper.config import CsvConfig
from wattkeeper.core.assets import Asset, Meter
from wattkeeper.integrations.csvfile import CsvSource
from wattkeeper.integrations.csvfile.numbers import SENTINELS

POWER = {"kind": "readings", "quantity": "power", "unit": "W"}
T0 = 1_767_225_600_000  # 2026-01-01T00:00:00Z
STAMP = "2026-01-01T00:00:00Z"


def one_value(load, value, **layout):
    """The value that one cell becomes."""
    [(_, _, kept)] = load(f'meter,time,value\nm,{STAMP},"{value}"\n', kind="readings", **layout).readings
    return kept


def test_a_long_table_gives_one_reading_per_row(load):
    """Meter, instant and value come through; 1 W is 1000 mW."""
    got = load("meter,time,value\nn1,2026-01-01T00:00:00Z,1\nn2,2026-01-01T00:00:01.5Z,2.5\n", **POWER)

    assert got.readings == [("n1", T0, 1000), ("n2", T0 + 1500, 2500)]
    assert got.refused == []


@pytest.mark.parametrize(
    ("quantity", "unit", "cell", "kept"),
    [
        ("power", "W", "0.0005", 0),  # 0.5 mW, half to even
        ("power", "W", "0.0015", 2),  # 1.5 mW, half to even
        ("power", "W", "1.0015", 1002),  # 1001.5 mW; as a float product it would be 1001.4999 and give 1001
        ("power", "kW", "1e-3", 1000),
        ("power", "uW", "2500", 2),  # 2.5 mW, half to even
        ("energy_counter", "J", "7", 7_000),
        ("energy_counter", "kWh", "1.5", 5_400_000_000),
        ("energy_counter", "uJ", "262143328850", 262_143_329),  # 262 143 328.850 mJ
        ("energy_counter", "mJ", "9007199254740993", 9_007_199_254_740_993),  # 2**53 + 1: no float holds it
        ("energy_counter", "kWh", "123456789.123456789", 444_444_440_844_444_440),  # × 3.6e9 = …440.4
        ("utilisation", "percent", "12.5", 125_000),
        ("utilisation", "ratio", "1", 1_000_000),
    ],
)
def test_units_become_whole_millijoules_milliwatts_and_ppm(load, quantity, unit, cell, kept):
    """Text is multiplied as a decimal and rounded half to even."""
    assert one_value(load, cell, quantity=quantity, unit=unit) == kept


def test_scale_and_decimal_comma(load):
    """A current transformer of 40:1 on "1,5" kWh is 60 kWh."""
    got = one_value(load, "1,5", quantity="energy_counter", unit="kWh", scale=40.0, decimal=",")

    assert got == 60 * 3_600_000_000


def test_without_a_quantity_values_are_kept_as_they_are(load):
    """Our own table holds mJ, mW and ppm already, and declares no meters: those are in the book."""
    got = load("meter,time_ms,value\nm,1767225600000,42\n", kind="readings")

    assert got.readings == [("m", T0, 42)]
    assert got.all("meters") == []


def test_each_row_may_name_its_unit(load):
    """A unit column decides per row; an unknown unit costs that row only."""
    text = f"meter,time,value,unit\na,{STAMP},1,kW\nb,{STAMP},2,W\nc,{STAMP},3,hp\nd,{STAMP},4,\n"
    got = load(text, kind="readings", quantity="power", columns={"unit": "unit"})

    assert got.readings == [("a", T0, 1_000_000), ("b", T0, 2000)]
    assert got.refused == [(4, "unit is not one of uW, mW, W, kW, MW"), (5, "unit is not one of uW, mW, W, kW, MW")]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("abc", "value is not a number"),
        ("", "value is missing"),
        ("-0.1", "value is negative"),
        ("NaN", "value is not finite"),
        ("inf", "value is not finite"),
        ("-Infinity", "value is not finite"),
        ("9223372036854775807", "value is a sentinel: the instrument had no reading"),
        ("9223372036854775794", "value is a sentinel: the instrument had no reading"),
        ("18446744073709551615", "value is a sentinel: the instrument had no reading"),
        ("140737488355328.0", "value is a sentinel: the instrument had no reading"),
        ("2147483632", "value is a sentinel: the instrument had no reading"),
        ("1e17", "value is too large for its unit"),  # 1e20 mW > 2**63
    ],
)
def test_a_bad_value_costs_its_row_only(load, cell, reason):
    """The rows around it come in; the reject names the file's row, header counted, and shows the cells."""
    got = load(f"meter,time,value\na,{STAMP},1\nb,{STAMP},{cell}\nc,{STAMP},3\n", **POWER)

    assert [reading[0] for reading in got.readings] == ["a", "c"]
    assert got.refused == [(3, reason)]
    assert got.all("rejects")[0].text == f"{STAMP}, {cell}, b"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("m,yesterday,1", "time cannot be read as ISO 8601"),
        ("m,,1", "time is missing"),
        ("m,1999-12-31T23:59:59Z,1", "time lies outside 2000 to 2100; is time_format right?"),
        (",2026-01-01,1", "meter is missing"),
        ("m,2026-01-01", "2 cells where the header has 3"),
        ("m,2026-01-01,1,", "4 cells where the header has 3"),
        ('"m,2026-01-01,1', "a quote is not closed on its line"),
    ],
)
def test_a_bad_row_costs_itself_only(load, row, reason):
    """Rows that cannot be placed in time, on a meter or in columns are listed, and the next ones come in."""
    got = load(f"meter,time,value\na,{STAMP},1\n{row}\nc,{STAMP},3\n", **POWER)

    assert [reading[0] for reading in got.readings] == ["a", "c"]
    assert got.refused == [(3, reason)]


def test_utilisation_above_one_is_refused(load):
    """A share of 100.1 % cannot be."""
    got = load(
        f"meter,time,value\na,{STAMP},100\na,{STAMP},100.1\n", kind="readings", quantity="utilisation", unit="percent"
    )

    assert got.refused == [(3, "value is a utilisation above 100 %")]


def test_a_wide_table_has_a_meter_per_column(load):
    """Every column but the time is a meter; an empty cell is no reading and no fault."""
    got = load("time,n1,n2\n2026-01-01,100,\n2026-01-02,110,210\n", wide=True, **POWER)

    assert got.readings == [("n1", T0, 100_000), ("n1", T0 + 86_400_000, 110_000), ("n2", T0 + 86_400_000, 210_000)]
    assert got.refused == []


def test_a_bad_cell_of_a_wide_table_costs_that_cell(load):
    """The reject names row and column; a bad time costs the whole row, once."""
    got = load("time,n1,n2\n2026-01-01,x,200\nnever,1,2\n2026-01-02,-1,nan\n", wide=True, **POWER)

    assert got.readings == [("n2", T0, 200_000)]
    assert got.refused == [
        (2, "n1: value is not a number"),
        (3, "time cannot be read as ISO 8601"),
        (4, "n1: value is negative"),
        (4, "n2: value is not finite"),
    ]


def test_wide_columns_chooses_the_meters(load):
    """Columns that do not match the pattern are left alone, whatever they hold."""
    got = load("time,n1_w,n1_temp\n2026-01-01,100,warm\n", wide=True, wide_columns="*_w", **POWER)

    assert got.readings == [("n1_w", T0, 100_000)]


def test_new_meters_and_assets_are_declared_once(load):
    """The layout gives kind, parent and quality; a second row of a meter declares nothing."""
    got = load(
        f"meter,time,value\nn1,{STAMP},1\nn1,2026-01-02,2\n",
        parent="rack1",
        accuracy_pct=1.0,
        max_gap_ms=60_000,
        **POWER,
    )

    assert got.all("assets") == [Asset("n1", "node", "rack1")]
    assert got.all("meters") == [Meter("n1", "n1", "power", source="test", accuracy_pct=1.0, max_gap_ms=60_000)]


def test_names_are_made_from_columns(load):
    """Meter, asset and parent may be put together from any column of the file."""
    got = load(
        f"host,gpu,time,value\nn1,0,{STAMP},300\nn1,1,{STAMP},310\nn2,,{STAMP},5\n",
        meter="{host}/gpu{gpu}/power",
        asset="{host}/gpu{gpu}",
        asset_kind="gpu",
        parent="{host}",
        **POWER,
    )

    assert got.readings == [("n1/gpu0/power", T0, 300_000), ("n1/gpu1/power", T0, 310_000)]
    assert got.all("assets") == [Asset("n1/gpu0", "gpu", "n1"), Asset("n1/gpu1", "gpu", "n1")]
    assert [(m.id, m.asset) for m in got.all("meters")] == [
        ("n1/gpu0/power", "n1/gpu0"),
        ("n1/gpu1/power", "n1/gpu1"),
    ]
    assert got.refused == [(4, "gpu is missing")]


def test_a_wide_meter_may_have_another_name_than_its_asset(load):
    """{column} is the header and {meter} what the meter template made of it."""
    got = load(f"time,n1\n{STAMP},100\n", wide=True, meter="{column}/pdu", asset="{column}", parent="s", **POWER)

    assert got.readings == [("n1/pdu", T0, 100_000)]
    assert got.all("assets") == [Asset("n1", "node", "s")]


def test_without_a_parent_no_asset_is_declared(load):
    """The meters are declared; where their assets stand must come from elsewhere."""
    got = load(f"meter,time,value\nn1,{STAMP},1\n", **POWER)

    assert got.all("assets") == []
    assert [m.asset for m in got.all("meters")] == ["n1"]


def test_energy_per_interval_carries_its_interval(load):
    """The declared meter knows the time one value covers."""
    got = load(
        f"meter,time,value\nm,{STAMP},1\n", kind="readings", quantity="energy_interval", unit="Wh", interval_ms=900_000
    )

    assert got.readings == [("m", T0, 3_600_000)]
    assert got.all("meters")[0].interval_ms == 900_000


def test_parquet_keeps_types_and_numbers_rows_from_one(load_frame):
    """Floats, nulls and instants come from their own types; row 1 is the first row."""
    frame = pl.DataFrame(
        {
            "meter": ["a", "b", None, "d"],
            "time": pl.Series([T0, T0 + 1, T0, None]).cast(pl.Datetime("ms", "UTC")),
            "value": [0.5, float("nan"), 1.0, 2.0],
        }
    )
    got = load_frame(frame, **POWER)

    assert got.readings == [("a", T0, 500)]
    assert got.refused == [(2, "value is not finite"), (3, "meter is missing"), (4, "time is missing")]


def test_parquet_integers_are_exact(load_frame):
    """2**53 + 1 mJ and an unsigned sentinel in an integer column."""
    frame = pl.DataFrame(
        {"meter": ["a", "b"], "time_ms": [T0, T0], "value": pl.Series([2**53 + 1, 2**64 - 1], dtype=pl.UInt64)}
    )
    got = load_frame(frame, kind="readings", quantity="energy_counter", unit="mJ")

    assert got.readings == [("a", T0, 2**53 + 1)]
    assert got.refused == [(2, "value is a sentinel: the instrument had no reading")]


def test_a_wide_parquet_of_mixed_types(load_frame):
    """Integer and float columns stand side by side without losing a digit."""
    frame = pl.DataFrame({"time_ms": [T0], "n1": pl.Series([9_007_199_254_740_993]), "n2": [0.25]})
    got = load_frame(frame, kind="readings", wide=True, quantity="energy_counter", unit="mJ")

    assert got.readings == [("n1", T0, 9_007_199_254_740_993), ("n2", T0, 0)]


good_st = st.tuples(
    st.sampled_from(["a", "b", "c"]), st.integers(0, 10**9), st.integers(0, 10**12).filter(lambda v: v not in SENTINELS)
).map(lambda r: (True, f"{r[0]},{T0 + r[1]},{r[2]}", (r[0], T0 + r[1], r[2])))
BAD_ROWS = ["a,x,1", "a,,1", ",1767225600000,1", "a,1767225600000,", "a,1767225600000,-1", "a,1767225600000,nan"]
BAD_ROWS += ["a,1767225600000,9223372036854775807", "a,5,1", "a,1", '"', "a,1,2,3"]
bad_st = st.sampled_from(BAD_ROWS).map(lambda text: (False, text, None))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.one_of(good_st, bad_st, st.just((None, "", None))), min_size=1, max_size=25))
def test_bad_rows_never_cost_good_ones(load, rows):
    """Whatever is mixed in, all good rows come in, in order, and every bad row is listed by its number."""
    if all(kind is None for kind, _, _ in rows):
        return
    got = load("meter,time_ms,value\n" + "\n".join(text for _, text, _ in rows), kind="readings")

    assert got.readings == [reading for kind, _, reading in rows if kind]
    assert [row for row, _ in got.refused] == [n for n, (kind, _, _) in enumerate(rows, 2) if kind is False]


def test_a_point_is_no_decimal_mark_where_the_comma_is(load):
    """1.234 of a German meter is over a thousand, or a slip; it is never taken for 1.234."""
    got = load("meter;time_ms;value\na;1767225600000;1,5\na;1767225600001;1.234\n", kind="readings", quantity="power",
               unit="W", decimal=",")  # fmt: skip
    assert got.readings == [("a", 1767225600000, 1500)]
    assert got.refused == [(3, "value is not a number")]


def test_a_meter_id_may_be_made_from_the_column_meter(load):
    got = load("meter,host,time_ms,value\n7,n1,1767225600000,5\n", kind="readings", meter="{host}:{meter}",
               asset="{meter}", quantity="power", unit="mW")  # fmt: skip
    assert got.readings == [("n1:7", 1767225600000, 5)]
    assert [m.asset for m in got.all("meters")] == ["n1:7"]


def test_a_meter_that_the_site_file_has_elsewhere_makes_no_asset_of_its_name(tmp_path):
    """A layout without an asset: pdu-1 stays on the rack it was declared on; pdu-2, which nobody declared, is new."""
    path = tmp_path / "file.csv"
    path.write_text(f"meter,time,value\npdu-1,{STAMP},1\npdu-2,{STAMP},1\n")
    layout = CsvConfig(**POWER, parent="a")
    found = list(CsvSource(path, layout, "test", {"pdu-1": "rack-1"}).read())

    assert [(m.id, m.asset) for i in found for m in i.meters] == [("pdu-1", "rack-1"), ("pdu-2", "pdu-2")]
    assert [a.id for i in found for a in i.assets] == ["pdu-2"]
