"""What a message says: a number at a place in JSON or the payload itself, and when it was true."""

from __future__ import annotations

import json
from datetime import datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any

from wattkeeper.core.clock import to_ms
from wattkeeper.core.units import UNITS_OF_QUANTITY

EPOCH_MS = 946_684_800_000
"""2000-01-01: clocks that say less were never set."""

MILLISECONDS_FROM = 10**11
"""A time stamp above is in milliseconds: in seconds it would be the year 5138."""

LATEST_MS = 10**14
"""No time stamp: the year 5138 in milliseconds."""

LARGEST = 2**62
"""A value above is garbage: 146 years of a gigawatt, in mJ."""


class _Nothing:
    """What a pointer leads to where there is nothing; null is something."""


NOTHING = _Nothing()


def parse(payload: bytes) -> Any:
    """Return a payload as JSON, decimals exact; NOTHING where it is none. A plain number is JSON too."""
    try:
        return json.loads(payload, parse_float=Decimal)
    except (ValueError, RecursionError):
        return NOTHING


def pointed(page: Any, pointer: str) -> Any:
    """Return what a JSON pointer (RFC 6901) leads to, NOTHING where it leads nowhere; "" is the whole."""
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(page, dict) and key in page:
            page = page[key]
        elif isinstance(page, list) and key.isdecimal() and int(key) < len(page):
            page = page[int(key)]
        else:
            return NOTHING
    return page


def scaled(told: Any, quantity: str, unit: str) -> int | None:
    """Return a value in mW or mJ; None for null, text, NaN, booleans, what is below zero, and what cannot be."""
    if isinstance(told, bool) or not isinstance(told, int | float | str | Decimal):
        return None
    try:
        number = Decimal(told)
    except (InvalidOperation, ValueError):
        return None
    if not number.is_finite() or number < 0:
        return None
    size = Decimal(str(UNITS_OF_QUANTITY[quantity][unit]))
    value = number * size
    return round(value) if value <= LARGEST else None


def time_ms(told: Any, zone: tzinfo | None) -> int | None:
    """Return a time stamp [ms UTC]: ISO 8601, or seconds or milliseconds since 1970; None for any other.

    zone: of texts that name none, which otherwise are None.
    """
    found = None
    if isinstance(told, str):
        found = _from_text(told, zone)
    elif isinstance(told, int | Decimal) and not isinstance(told, bool) and 0 < told < LATEST_MS:
        number = Decimal(told)
        found = round(number if number > MILLISECONDS_FROM else number * 1000)
    return found if found is not None and EPOCH_MS <= found < LATEST_MS else None


def _from_text(told: str, zone: tzinfo | None) -> int | None:
    try:
        moment = datetime.fromisoformat(told.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return to_ms(moment) if moment.tzinfo is not None else None
