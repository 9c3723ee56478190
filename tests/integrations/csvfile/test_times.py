"""Times: formats, zones, and the hours that clocks show twice or never."""

from __future__ import annotations

import pytest

from wattkeeper.core.clock import iso

BERLIN = {"kind": "readings", "timezone": "Europe/Berlin"}


def instants(got):
    return [iso(time) for _, time, _ in got.readings]


def rows(*times, meter="m"):
    return "meter,time,value\n" + "".join(f"{meter},{time},{i}\n" for i, time in enumerate(times))


@pytest.mark.parametrize(
    ("cell", "instant"),
    [
        ("2026-07-01", "2026-06-30T22:00:00Z"),
        ("2026-07-01 12:30", "2026-07-01T10:30:00Z"),
        ("2026-07-01T12:30:15", "2026-07-01T10:30:15Z"),
        ("2026-07-01t12:30:15.25", "2026-07-01T10:30:15.250Z"),
        ('"2026-07-01 12:30:15,5"', "2026-07-01T10:30:15.500Z"),
        ("2026-07-01T12:30:15.123456Z", "2026-07-01T12:30:15.123Z"),
        ("2026-07-01 12:30:15 UTC", "2026-07-01T12:30:15Z"),
        ("2026-07-01T12:30+05:30", "2026-07-01T07:00:00Z"),
        ("2026-07-01T12:30-0330", "2026-07-01T16:00:00Z"),
        ("2026-07-01T12:30:00+02", "2026-07-01T10:30:00Z"),
        ("2026-01-01 12:30", "2026-01-01T11:30:00Z"),
    ],
)
def test_iso_times_with_and_without_offset(load, cell, instant):
    """An offset decides; without one the layout's zone does, summer and winter."""
    assert instants(load(rows(cell), **BERLIN)) == [instant]


@pytest.mark.parametrize(
    ("time_format", "cell", "instant"),
    [
        ("s", "1767225600", "2026-01-01T00:00:00Z"),
        ("s", "1767225600.0019", "2026-01-01T00:00:00.001Z"),
        ("ms", "1767225600001", "2026-01-01T00:00:00.001Z"),
        ("us", "1767225600001999", "2026-01-01T00:00:00.001Z"),
        ("%d.%m.%Y %H:%M", "01.07.2026 12:30", "2026-07-01T10:30:00Z"),
        ("%d.%m.%Y", "01.07.2026", "2026-06-30T22:00:00Z"),
        ("%d/%m/%y %H:%M:%S %z", "01/07/26 12:30:00 +0000", "2026-07-01T12:30:00Z"),
    ],
)
def test_epoch_numbers_and_own_formats(load, time_format, cell, instant):
    """What is finer than a millisecond is dropped."""
    assert instants(load(rows(cell), time_format=time_format, **BERLIN)) == [instant]


@pytest.mark.parametrize(("time_format", "cell"), [("s", "1767225600000"), ("ms", "1767225600"), ("ms", "1e300")])
def test_epoch_numbers_in_the_wrong_unit_are_refused(load, time_format, cell):
    """Milliseconds read as seconds lie in the year 57970, seconds read as milliseconds in 1970."""
    [(row, reason)] = load(rows(cell), time_format=time_format, **BERLIN).refused

    assert row == 2
    assert reason in {
        "time lies outside 2000 to 2100; is time_format right?",
        f"time cannot be read as a number of {time_format} since 1970",
    }


def test_a_format_that_does_not_fit_is_named(load):
    """The reject says which format the layout gave."""
    assert load(rows("2026-07-01"), time_format="%d.%m.%Y", **BERLIN).refused == [
        (2, "time cannot be read as '%d.%m.%Y'")
    ]


def test_every_time_is_shifted(load):
    """Stamps at the end of an hour become its start with shift_ms = -3600000."""
    assert instants(load(rows("2026-01-01 01:00"), kind="readings", shift_ms=-3_600_000)) == ["2026-01-01T00:00:00Z"]


def test_the_missing_hour_is_refused(load):
    """On 2026-03-29 Berlin's clocks go from 02:00 to 03:00: 02:30 was never."""
    got = load(rows("2026-03-29 01:59", "2026-03-29 02:30", "2026-03-29 03:00"), **BERLIN)

    assert instants(got) == ["2026-03-29T00:59:00Z", "2026-03-29T01:00:00Z"]
    assert got.refused == [(3, "time does not exist in Europe/Berlin: the clock is put forward over it")]


def test_a_doubled_time_alone_is_the_earlier_instant(load):
    """On 2026-10-25 Berlin's clocks show 02:30 at 00:30 and at 01:30 UTC; nothing here says which."""
    assert instants(load(rows("2026-10-25 02:30"), **BERLIN)) == ["2026-10-25T00:30:00Z"]


def test_going_twice_through_the_hour_tells_which_is_which(load):
    """Quarter hours in file order: 02:00 … 02:45, again 02:00 … 02:45, then 03:00."""
    clock = [
        "01:45",
        *(f"02:{m}" for m in ("00", "15", "30", "45")),
        *(f"02:{m}" for m in ("00", "15", "30", "45")),
        "03:00",
    ]
    got = load(rows(*(f"2026-10-25 {c}" for c in clock)), **BERLIN)

    times = sorted((value, time) for _, time, value in got.readings)
    assert [iso(time) for _, time in times] == [
        "2026-10-24T23:45:00Z",
        "2026-10-25T00:00:00Z", "2026-10-25T00:15:00Z", "2026-10-25T00:30:00Z", "2026-10-25T00:45:00Z",
        "2026-10-25T01:00:00Z", "2026-10-25T01:15:00Z", "2026-10-25T01:30:00Z", "2026-10-25T01:45:00Z",
        "2026-10-25T02:00:00Z",
    ]  # fmt: skip


def test_hourly_rows_tell_it_too(load):
    """02:00 twice in a row is both instants, first the earlier."""
    got = load(rows("2026-10-25 01:00", "2026-10-25 02:00", "2026-10-25 02:00", "2026-10-25 03:00"), **BERLIN)

    assert sorted((value, iso(time)) for _, time, value in got.readings)[1:3] == [
        (1, "2026-10-25T00:00:00Z"),
        (2, "2026-10-25T01:00:00Z"),
    ]


def test_a_file_that_runs_backwards_has_the_later_hour_first(load):
    """03:00, 02:30, 02:00, 02:30, 02:00, 01:30: the first pass is the later one."""
    clock = ("03:00", "02:30", "02:00", "02:30", "02:00", "01:30")
    got = load(rows(*(f"2026-10-25 {c}" for c in clock)), **BERLIN)

    assert sorted((value, iso(time)) for _, time, value in got.readings)[1:5] == [
        (1, "2026-10-25T01:30:00Z"),
        (2, "2026-10-25T01:00:00Z"),
        (3, "2026-10-25T00:30:00Z"),
        (4, "2026-10-25T00:00:00Z"),
    ]


def test_each_meter_goes_through_the_hour_by_itself(load):
    """Interleaved meters: a goes through it twice, b only once and stays with the earlier hour."""
    text = "meter,time,value\n" + "".join(
        f"{meter},2026-10-25 {clock},{i}\n"
        for i, (meter, clock) in enumerate(
            [("a", "02:00"), ("b", "02:00"), ("a", "02:30"), ("b", "02:30"), ("a", "02:00"), ("a", "02:30")]
        )
    )
    got = load(text, **BERLIN)

    assert sorted((value, meter, iso(time)[11:16]) for meter, time, value in got.readings) == [
        (0, "a", "00:00"), (1, "b", "00:00"), (2, "a", "00:30"), (3, "b", "00:30"),
        (4, "a", "01:00"), (5, "a", "01:30"),
    ]  # fmt: skip


def test_a_repeated_row_is_no_second_pass(load):
    """A row that stands twice is not taken for the second hour."""
    got = load(rows(*(f"2026-10-25 {c}" for c in ("02:00", "02:15", "02:15", "02:30"))), **BERLIN)

    assert {iso(time)[:13] for _, time, _ in got.readings} == {"2026-10-25T00"}


def test_rows_without_order_stay_with_the_earlier_hour(load):
    """Several steps back show nothing."""
    got = load(rows(*(f"2026-10-25 {c}" for c in ("02:30", "02:00", "02:45", "02:15", "02:40", "02:10"))), **BERLIN)

    assert {iso(time)[:13] for _, time, _ in got.readings} == {"2026-10-25T00"}


def test_a_wide_table_goes_through_the_hour_too(load):
    """The rows of a wide table carry all its meters through the doubled hour."""
    got = load(
        "time,n1,n2\n2026-10-25 02:00,0,10\n2026-10-25 02:30,1,11\n2026-10-25 02:00,2,12\n2026-10-25 02:30,3,13\n",
        wide=True,
        **BERLIN,
    )

    assert sorted((value, meter, iso(time)[11:16]) for meter, time, value in got.readings) == [
        (0, "n1", "00:00"), (1, "n1", "00:30"), (2, "n1", "01:00"), (3, "n1", "01:30"),
        (10, "n2", "00:00"), (11, "n2", "00:30"), (12, "n2", "01:00"), (13, "n2", "01:30"),
    ]  # fmt: skip
