"""Signals: ends that follow from starts, holes that stay open, units, and what is said of the source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ImportFileError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.integrations.csvfile.signal import ends_of, regular_step_ms, signal_unit

MINUTE = 60_000
GRID = {"kind": "signals", "signal": "intensity:X", "unit": "g/kWh"}


def stretches(got):
    """(start, end, value) with times as HH:MM."""
    return [(iso(a)[11:16], iso(b)[11:16], v) for _, a, b, v in got.table("signals").sort("signal", "start_ms").rows()]


def rows(*cells):
    return "start,value\n" + "".join(f"2026-01-01T{time}Z,{value}\n" for time, value in cells)


def test_a_value_holds_until_the_next_start(load):
    """The last one lasts as long as the step before it."""
    assert stretches(load(rows(("00:00", 1), ("01:00", 2), ("02:00", 3)), **GRID)) == [
        ("00:00", "01:00", 1.0), ("01:00", "02:00", 2.0), ("02:00", "03:00", 3.0),
    ]  # fmt: skip


def test_the_order_of_rows_does_not_matter(load):
    """A file sorted by anything gives the same stretches."""
    assert stretches(load(rows(("02:00", 3), ("00:00", 1), ("01:00", 2)), **GRID))[0] == ("00:00", "01:00", 1.0)


def test_15_and_30_minutes_mixed_have_no_hole(load):
    """Three steps of 30 minutes among three of 15 are regular."""
    times = ["00:00", "00:30", "01:00", "01:30", "01:45", "02:00", "02:15"]
    got = load(rows(*((t, 1) for t in times)), **GRID)

    assert [b for _, b, _ in stretches(got)] == [*times[1:], "02:30"]
    assert got.all("signal_infos")[0].note == ""


def test_a_value_is_not_stretched_over_a_hole(load):
    """After four quarter hours one is missing: 00:45 holds 15 minutes, and the note tells of the hole."""
    got = load(rows(*((t, 1) for t in ("00:00", "00:15", "00:30", "00:45", "01:15", "01:30"))), **GRID)

    assert stretches(got)[3] == ("00:45", "01:00", 1.0)
    assert got.all("signal_infos")[0].note == "1 hole of 15 min in all"


def test_hold_ms_says_how_long_a_value_may_hold(load):
    """With 30 minutes allowed the same quarter hours have no hole; with 10 every step is one."""
    times = [(t, 1) for t in ("00:00", "00:15", "00:45", "01:00")]

    assert [b for _, b, _ in stretches(load(rows(*times), hold_ms=30 * MINUTE, **GRID))] == [
        "00:15",
        "00:45",
        "01:00",
        "01:15",
    ]
    assert [b for _, b, _ in stretches(load(rows(*times), hold_ms=10 * MINUTE, **GRID))] == [
        "00:10",
        "00:25",
        "00:55",
        "01:10",
    ]


@pytest.mark.parametrize(
    ("steps", "regular"),
    [
        ([60] * 23, 60),
        ([15] * 60 + [30] * 2, 15),  # twice is not regular
        ([15] * 60 + [30] * 3, 15),  # 3 of 63 are less than a twentieth
        ([15] * 57 + [30] * 3, 30),  # 3 of 60 are a twentieth
        ([10, 20, 30], 20),  # nothing repeats: the middle one
        ([10, 20], 10),
    ],
)
def test_a_step_is_regular_when_it_is_common(steps, regular):
    """Three times and a twentieth of all; the longest of those, else the median."""
    assert regular_step_ms(np.array(steps)) == regular


def test_a_step_a_little_longer_is_no_hole():
    """The 25-hour day, the leap year and jitter stay whole: 25 h is within a quarter of 24 h; 31 h is not."""
    day = 24
    starts = np.cumsum([0, day, day, day, day + 1, day, day + 7, day])

    assert (ends_of(starts) - starts).tolist() == [24, 24, 24, 25, 24, 24, 24, 24]


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=40), st.integers(0, 10**7))
def test_no_value_overlaps_the_next_or_holds_too_long(steps, hold):
    """Ends lie after their starts, not after the next start, and within hold_ms."""
    starts = np.cumsum([0, *steps])
    ends = ends_of(starts, hold)

    assert (ends > starts).all()
    assert (ends[:-1] <= starts[1:]).all()
    if hold:
        assert (ends - starts <= hold).all()


def test_a_single_row_needs_to_say_when_it_ends(load):
    """One start has no step; hold_ms gives it an end."""
    assert load(rows(("00:00", 5)), **GRID).refused == [
        (2, "the only row of its signal does not say when it ends; add an end column or set hold_ms")
    ]
    assert stretches(load(rows(("00:00", 5)), hold_ms=60 * MINUTE, **GRID)) == [("00:00", "01:00", 5.0)]


def test_a_bad_value_leaves_its_own_time_empty(load):
    """The value before it ends where the bad row starts; nothing is stretched over it."""
    got = load(rows(("00:00", 1), ("01:00", "n/a"), ("02:00", ""), ("03:00", 4), ("04:00", -1)), **GRID)

    assert stretches(got) == [("00:00", "01:00", 1.0), ("03:00", "04:00", 4.0)]
    assert got.refused == [(3, "value is not a number"), (4, "value is missing"), (6, "value is negative")]


def test_two_values_for_one_start(load):
    """The same row twice is one row; another value for the same start is refused."""
    got = load(rows(("00:00", 1), ("01:00", 2), ("01:00", 2), ("01:00", 9)), **GRID)

    assert stretches(got) == [("00:00", "01:00", 1.0), ("01:00", "02:00", 2.0)]
    assert got.refused == [(5, "another row gave this start another value")]


def test_an_end_column_is_believed(load):
    """Stretches come as they are, holes and all; an end at or before its start is refused."""
    got = load(
        "signal,start,end,value\n"
        "price:X,2026-01-01T00:00Z,2026-01-01T00:15Z,-0.05\n"
        "price:X,2026-01-01T02:00Z,2026-01-01T03:00Z,0.30\n"
        "price:X,2026-01-01T04:00Z,2026-01-01T04:00Z,0.30\n"
        "price:X,2026-01-01T05:00Z,,0.30\n"
        ",2026-01-01T05:00Z,2026-01-01T06:00Z,0.30\n",
        kind="signals",
        unit="EUR/kWh",
    )

    assert stretches(got) == [("00:00", "00:15", -0.05), ("02:00", "03:00", 0.3)]
    assert got.refused == [(4, "end does not lie after start"), (5, "end is missing"), (6, "signal is missing")]


def test_local_hours_through_the_clock_change(load):
    """Berlin's 2026-10-25 has 25 hours: 02:00 stands twice and both get an hour of their own."""
    clock = ("00:00", "01:00", "02:00", "02:00", "03:00", "04:00")
    text = "start,value\n" + "".join(f"2026-10-25 {c},{i}\n" for i, c in enumerate(clock))
    got = load(text, timezone="Europe/Berlin", **GRID)

    assert stretches(got) == [
        ("22:00", "23:00", 0.0), ("23:00", "00:00", 1.0), ("00:00", "01:00", 2.0), ("01:00", "02:00", 3.0),
        ("02:00", "03:00", 4.0), ("03:00", "04:00", 5.0),
    ]  # fmt: skip


def test_several_signals_in_one_file_end_each_by_itself(load):
    """Each signal has its own step: hours and quarter hours."""
    got = load(
        "zone,start,value\nA,2026-01-01T00:00Z,1\nB,2026-01-01T00:00Z,2\nB,2026-01-01T00:15Z,3\nA,2026-01-01T01:00Z,4\n",
        kind="signals",
        signal="intensity:{zone}",
    )

    assert [s for s, *_ in got.table("signals").sort("signal", "start_ms").rows()] == ["intensity:A"] * 2 + [
        "intensity:B"
    ] * 2
    assert [b for _, b, _ in stretches(got)] == ["01:00", "02:00", "00:15", "00:30"]
    assert {i.id for i in got.all("signal_infos")} == {"intensity:A", "intensity:B"}


def test_what_is_known_of_the_source_travels_with_the_signal(load):
    """Provider, method and unit come from the layout, the version is the file, and a shift is told."""
    got = load(
        rows(("01:00", 90), ("02:00", 80)),
        kind="signals", signal="price:X", unit="EUR/MWh", provider="the exchange", shift_ms=-3_600_000,
    )  # fmt: skip

    assert got.all("signal_infos") == [
        SignalInfo("price:X", "price", "EUR/kWh", "the exchange", "file.csv", "", "times shifted by -3600000 ms")
    ]
    assert stretches(got)[0] == ("00:00", "01:00", 0.09)  # 90 EUR/MWh


@pytest.mark.parametrize(
    ("kind", "unit", "kept"),
    [
        ("intensity", "", ("g/kWh", 1.0)),
        ("intensity", "kg/MWh", ("g/kWh", 1.0)),
        ("intensity", "t/MWh", ("g/kWh", 1000.0)),
        ("intensity", "lb/MWh", ("g/kWh", 0.45359237)),
        ("price", "USD/MWh", ("USD/kWh", 0.001)),
        ("price", "", None),
        ("price", "cents/kWh", None),
        ("water", "m3/MWh", ("L/kWh", 1.0)),
        ("pue", "percent", ("ratio", 0.01)),
        ("pue", "g/kWh", None),
        ("intensity", "g/h", None),
    ],
)
def test_units_of_signals(kind, unit, kept):
    """What we keep is per kWh; a price needs its currency, and an unknown unit is not guessed."""
    got = signal_unit(kind, unit)

    assert (got and (got[0], pytest.approx(got[1]))) == kept


def test_a_pue_below_one_is_refused(load):
    """A facility cannot draw less than its IT."""
    got = load(rows(("00:00", 1.2), ("01:00", 0.9), ("02:00", 1.0)), kind="signals", signal="pue:s")

    assert got.refused == [(3, "value is a PUE below 1")]


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"signal": "co2"}, "does not say what 'co2' is: set signal_kind to one of intensity, price, water, pue"),
        (
            {"signal": "price:X", "unit": "EUR"},
            "gives unit 'EUR' to 'price:X': use a currency such as EUR, per kWh or MWh",
        ),
        ({"signal": "intensity:X", "unit": "g/h"}, "use g, kg, t, lb, per kWh or MWh, such as g/kWh"),
    ],
)
def test_a_layout_that_leaves_the_meaning_open_is_refused(load, layout, words):
    """Nothing is guessed: the sentence says what to set."""
    with pytest.raises(ImportFileError, match=words):
        load(rows(("00:00", 1)), kind="signals", **layout)
