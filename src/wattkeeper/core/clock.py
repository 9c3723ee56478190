"""Time: UTC milliseconds inside, a site's own days and hours at the edge.

A local day has 23, 24 or 25 hours and starts at the first instant that carries its date. Hours start when the local
clock shows a full hour, so they are whole in zones that are off UTC by 30 or 45 minutes too.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from wattkeeper.core.errors import ConfigError
from wattkeeper.core.units import MS_PER_HOUR

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EARLIEST_MS, LATEST_MS = 946_684_800_000, 4_102_444_800_000
"""2000-01-01 and 2100-01-01: a time outside is a wrong unit or an unset clock."""


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name. Raises ConfigError when there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError) as error:
        raise ConfigError(f"No time zone named '{name}'. Use an IANA name such as Europe/Berlin.") from error


def to_ms(moment: datetime) -> int:
    """Return an aware datetime as milliseconds UTC."""
    delta = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def iso(time_ms: int) -> str:
    """Return milliseconds UTC as ISO 8601, to the second where that is exact."""
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    rest = f".{time_ms % 1000:03d}" if time_ms % 1000 else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{rest}Z"


@lru_cache(maxsize=4096)
def day_start_ms(day: str, tz: str) -> int:
    """Return the first instant of a local day [ms UTC]."""
    when = date.fromisoformat(day)
    return to_ms(datetime(when.year, when.month, when.day, tzinfo=zone(tz)))


def next_day(day: str) -> str:
    """Return the day after."""
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


def day_of(time_ms: int, tz: str) -> str:
    """Return the local day an instant belongs to."""
    return datetime.fromtimestamp(time_ms / 1000, zone(tz)).date().isoformat()


@lru_cache(maxsize=4096)
def _hour_edges(day: str, tz: str) -> tuple[int, ...]:
    start, end = day_start_ms(day, tz), day_start_ms(next_day(day), tz)
    edges = [start]
    where = zone(tz)
    for quarter in range(start, end, MS_PER_HOUR // 4):
        local = datetime.fromtimestamp(quarter / 1000, where)
        if local.minute == 0 and local.second == 0 and quarter > start:
            edges.append(quarter)
    return (*edges, end)


def hour_edges_ms(day: str, tz: str) -> NDArray[np.int64]:
    """Return where the local hours of a day begin, and its end: (hours + 1,) int64 [ms UTC]."""
    import numpy as np  # noqa: PLC0415 - not in an agent, which must stay small

    return np.array(_hour_edges(day, tz), np.int64)


def days_between(start_ms: int, end_ms: int, tz: str) -> list[str]:
    """Return the local days that [start_ms, end_ms) touches, in order."""
    days = [day_of(start_ms, tz)]
    while day_start_ms(next_day(days[-1]), tz) < end_ms:
        days.append(next_day(days[-1]))
    return days


def period_days(period: str) -> tuple[str, str]:
    """Return first day and the day after the last of a year, month, day or range of days.

    Takes "2026", "2026-10", "2026-10-07", "2026-W41" and "2026-10-07..2026-10-09" (both ends included).
    Raises ConfigError for anything else.
    """
    try:
        if ".." in period:
            first, last = period.split("..")
            begin, end = period_days(first)[0], period_days(last)[1]
            if begin >= end:
                raise ConfigError(f"Period '{period}' ends before it begins.")
            return begin, end
        if re.fullmatch(r"\d{4}", period):
            return f"{period}-01-01", f"{int(period) + 1:04d}-01-01"
        if re.fullmatch(r"\d{4}-\d{2}", period):
            year, month = int(period[:4]), int(period[5:])
            first_day = date(year, month, 1)
            return first_day.isoformat(), (first_day + timedelta(days=32)).replace(day=1).isoformat()
        if match := re.fullmatch(r"(\d{4})-W(\d{2})", period):
            monday = date.fromisocalendar(int(match[1]), int(match[2]), 1)
            return monday.isoformat(), (monday + timedelta(days=7)).isoformat()
        return date.fromisoformat(period).isoformat(), next_day(period)
    except ValueError as error:
        raise ConfigError(
            f"Period '{period}' is not a year, month, week, day or range. "
            "Write 2026, 2026-10, 2026-W41, 2026-10-07 or 2026-10-07..2026-10-09."
        ) from error
