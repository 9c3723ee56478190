"""From what a device tells to readings: pure, by a profile. Every quantity is read, so that they can check each other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from wattkeeper.core.assets import natural
from wattkeeper.core.units import ENERGY_UNITS_MJ, POWER_UNITS_MW
from wattkeeper.integrations.snmp.profile import Group, Profile, Value, filled

Raw = int | float | str | bytes | None
"""What SNMP carries, decoded."""

MOST = 2**62
"""What is more does not fit the 64 bits of a sample, and is none."""

ENDS = frozenset({2**31 - 1, -(2**31), 2**32 - 1})
"""The ends of 32 bits, which agents show for what they do not have."""

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,9})?")


@dataclass(frozen=True, slots=True)
class Reading:
    """One quantity of one row of a device.

    value: in `unit`; step: what one step of the raw number is worth, the resolution. level, label: which row, such as
    outlet 5. whole: whether rows of this level are the whole device, 1 the first choice. spec: how it was read.
    """

    quantity: str
    unit: str
    value: Decimal
    level: str
    label: str
    index: tuple[str, ...]
    oid: str
    step: Decimal
    whole: int
    spec: Value

    @property
    def size(self) -> Decimal:
        """How much one unit is in the unit we keep: mJ or mW; 0 for what is not kept."""
        kept = {"energy_counter": ENERGY_UNITS_MJ, "power": POWER_UNITS_MW}.get(self.quantity, {})
        return Decimal(str(kept.get(self.unit, 0)))

    @property
    def base(self) -> Decimal:
        """The value in W, Wh, V, A, VA, so that readings can be compared."""
        if self.quantity == "energy_counter":
            return self.value * self.size / 3_600_000
        if self.quantity == "power":
            return self.value * self.size / 1000
        return self.value * Decimal({"k": "1000", "m": "0.001"}.get(self.unit[0] if len(self.unit) > 1 else "", "1"))


def number(raw: Raw) -> Decimal | None:
    """Return a raw value as a number; None for a text that is none, for nothing, and for what is not finite."""
    if isinstance(raw, bool) or raw is None:
        return None
    if isinstance(raw, int):
        return Decimal(raw)
    if isinstance(raw, float):
        return Decimal(repr(raw)) if math.isfinite(raw) else None
    text = (raw.decode("ascii", "replace") if isinstance(raw, bytes) else raw).strip("\0 \t\r\n")
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def worth(value: Value, raw: Raw) -> Decimal | None:
    """Return a raw number if it is a value and not a way to say that there is none."""
    found = number(raw)
    if found is None or (found < 0 and not value.signed) or found in value.absent or found in ENDS:
        return None
    return found


def present(value: Value, index: tuple[str, ...], told: Mapping[str, Raw]) -> bool:
    """Return whether a value is there: it is, unless the device says that it is not."""
    said = number(told.get(filled(value.present, index))) if value.present else None
    return said is None or said in value.present_if


def read(profile: Profile, told: Mapping[str, Raw]) -> list[Reading]:
    """Return every reading in what a device told, by OID; what it has not is not among them."""
    return [
        reading
        for group in profile.group
        for value in group.value
        for oid, index in _rows(value, told)
        if (reading := _reading(group, value, oid, index, told)) is not None
    ]


def _rows(value: Value, told: Mapping[str, Raw]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the OIDs of a value with their index, in natural order."""
    if not value.parts:
        yield from [(value.oid, ())] if value.oid in told else []
        return
    head = value.oid.partition("*")[0]
    found = [match for oid in told if oid.startswith(head) and (match := value.matcher.fullmatch(oid))]
    yield from sorted(((match[0], match.groups()) for match in found), key=lambda row: natural(row[0]))


def _reading(group: Group, value: Value, oid: str, index: tuple[str, ...], told: Mapping[str, Raw]) -> Reading | None:
    found = worth(value, told[oid])
    if found is None or not present(value, index, told):
        return None
    step, unit = value.scale, value.unit
    if value.decimals:
        decimals = number(told.get(filled(value.decimals, index)))
        if decimals is None or not 0 <= decimals <= 9:
            return None  # without them it may be wrong by a thousand
        step *= Decimal(1).scaleb(-int(decimals))
    if value.unit_oid:
        code = number(told.get(filled(value.unit_oid, index)))
        unit = value.unit_map.get(f"{code}", "")
        if not unit:
            return None
    return Reading(
        value.quantity, unit, found * step, group.level, label(group, index, told), index, oid, step, group.whole, value
    )


def label(group: Group, index: tuple[str, ...], told: Mapping[str, Raw]) -> str:
    """Return the name of a row: the device's own, else made from its index."""
    raw = told.get(filled(group.label_oid, index)) if group.label_oid else None
    own = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = own.strip("\0 \t\r\n") if isinstance(own, str) else ""
    if text:
        return text
    made = filled(group.label, index)
    return f"{index[0]}/{made}" if group.first_unit and index[0] != group.first_unit else made
