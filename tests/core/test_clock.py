"""Days and hours of a site: 23, 24 and 25-hour days, zones off by half an hour, periods in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core import clock
from wattkeeper.core.errors import ConfigError

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ("2026-10-24", "Europe/Berlin", 24),
        ("2026-10-25", "Europe/Berlin", 25),
        ("2026-03-29", "Europe/Berlin", 23),
        ("2026-03-08", "America/New_York", 23),
        ("2026-11-01", "America/New_York", 25),
        ("2026-10-25", "Asia/Kolkata", 24),
        ("2026-10-25", "UTC", 24),
    ],
)
def test_a_day_has_as_many_hours_as_the_clock_says(day, zone, hours):
    """Clock changes make days of 23 and 25 hours."""
    edges = clock.hour_edges_ms(day, zone)

    assert hours == len(edges) - 1
    assert [HOUR] * hours == np.diff(edges).tolist()


def test_hours_start_at_full_local_hours():
    """In India an hour starts at half past in UTC."""
    edges = clock.hour_edges_ms("2026-10-25", "Asia/Kolkata")

    assert clock.iso(int(edges[0])) == "2026-10-24T18:30:00Z"
    assert clock.iso(int(edges[1])) == "2026-10-24T19:30:00Z"


def test_a_half_hour_clock_change_makes_a_part_hour():
    """On Lord Howe the clock goes back by 30 minutes: 24.5 hours, one of them longer."""
    edges = clock.hour_edges_ms("2026-04-05", "Australia/Lord_Howe")

    assert edges[-1] - edges[0] == 24.5 * HOUR


@given(st.integers(0, 2**41), st.sampled_from(["Europe/Berlin", "America/St_Johns", "Africa/Cairo", "Asia/Kathmandu"]))
def test_each_instant_is_in_the_day_it_is_said_to_be_in(time_ms, zone):
    """Days tile time: an instant lies in its day and in no other."""
    day = clock.day_of(time_ms, zone)

    assert clock.day_start_ms(day, zone) <= time_ms < clock.day_start_ms(clock.next_day(day), zone)


@pytest.mark.parametrize(
    ("period", "first", "after"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2026-10-25", "2026-10-25", "2026-10-26"),
        ("2026-W43", "2026-10-19", "2026-10-26"),
        ("2026-10-07..2026-10-09", "2026-10-07", "2026-10-10"),
    ],
)
def test_a_period_is_a_span_of_days(period, first, after):
    """Years, months, weeks, days and ranges, both ends of a range included."""
    assert (first, after) == clock.period_days(period)


@pytest.mark.parametrize("period", ["October", "2026-13", "2026-10-09..2026-10-07", "2026-02-30"])
def test_a_period_that_is_none_is_refused(period):
    """A wrong period is told with the right forms."""
    with pytest.raises(ConfigError, match=r"Period '.*' (is not|ends before)"):
        clock.period_days(period)


def test_an_unknown_zone_is_refused():
    """A zone that does not exist is told with an example."""
    with pytest.raises(ConfigError, match="Use an IANA name such as Europe/Berlin"):
        clock.zone("Mars/Olympus")
