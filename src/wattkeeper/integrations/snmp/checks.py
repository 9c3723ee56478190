"""What a device's readings say about each other: a divisor that is wrong by 10 is the most common fault of PDU readings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import groupby

from wattkeeper.integrations.snmp.readings import Reading

SKEW = Decimal("0.2")
"""Values are not read at one moment: powers that differ by less agree."""

TWO = Decimal(2)
"""How far volts × amperes may be off: in a delta the amperes of a line are 1.73 times those between two."""

LEAST = Decimal(5)
"""Where no power factor is told: at least a fifth of the volt-amperes is power."""

METERED = frozenset({"power", "energy_counter"})

SLACK_W = Decimal(20)
"""Below this a difference says nothing."""

FAR = 8
"""Energy counters are set to zero one by one, so only a factor like this makes a divisor doubtful."""

FLOWING_VA = Decimal(50)
"""From this on 0 W beside volts and amperes is no reading."""

PARTS = {"phase": "phases", "line": "lines", "outlet": "outlets"}


def doubts(name: str, readings: list[Reading]) -> list[str]:
    """Return a sentence for each two readings that cannot both be true, or for a counter that stands still."""
    found = [*_rows(readings)]
    for quantity in ("power", "energy_counter"):
        whole = of_whole(readings, quantity)
        for level in dict.fromkeys(one.level for one in readings if one.level in PARTS):
            if whole and level != whole[0].level:
                found += _sums(whole, [o for o in readings if o.level == level and o.quantity == quantity], readings)
    return [f"{name}: {said}" for said in found]


def of_whole(readings: list[Reading], quantity: str) -> list[Reading]:
    """Return the readings that together are the whole device: of the first choice of level that tells the quantity whole."""
    for _rank, level in groupby(_by_choice(readings), key=lambda one: one.whole):
        rows = list(level)
        mine = [one for one in rows if one.quantity == quantity]
        complete = {one.label for one in mine} == {o.label for o in rows if o.quantity in METERED}
        if mine and complete and not stands_still(mine, rows):
            return mine
    return []


def stands_still(mine: list[Reading], rows: list[Reading]) -> bool:
    """Return whether one counter says 0 kWh, or all rows 0 W, although something flows: then there is no such meter."""
    if mine[0].quantity == "energy_counter":
        idle = {one.label for one in mine if not one.value}
        return any(one.base > FLOWING_VA for one in rows if one.quantity == "power" and one.label in idle)
    flowing_va = sum((_va(rows, one.label) or Decimal(0) for one in mine), Decimal(0))
    return not any(one.value for one in mine) and flowing_va > FLOWING_VA


def _by_choice(readings: Iterable[Reading]) -> list[Reading]:
    return sorted((one for one in readings if one.whole), key=lambda one: one.whole)


def _of(rows: Iterable[Reading], quantity: str, label: str) -> Reading | None:
    return next((one for one in rows if one.quantity == quantity and one.label == label), None)


def _va(rows: list[Reading], label: str) -> Decimal | None:
    volts, amperes = _of(rows, "voltage", label), _of(rows, "current", label)
    return volts.base * amperes.base if volts and amperes else None


def _rows(readings: list[Reading]) -> Iterator[str]:
    """Compare power with volts × amperes × power factor, in each row of one phase."""
    phases = sum(1 for one in readings if one.level in ("phase", "line") and one.quantity in ("voltage", "current"))
    for power in (one for one in readings if one.quantity == "power"):
        rows = [one for one in readings if one.level == power.level and one.label == power.label]
        if power.whole == 1 and phases > 2:
            continue  # volts and amperes of three phases are no product
        va, factor = _va(rows, power.label), _of(rows, "power_factor", power.label)
        if va is None:
            continue
        where = f"{power.level} {power.label}".strip()
        if power.base == 0 and va > FLOWING_VA:
            yield f"{where} says 0 W although {va:.0f} VA flow: it has no power meter. Measure elsewhere."
            continue
        product = va * abs(factor.value) if factor else va
        low = product / (TWO if factor else LEAST) - SLACK_W
        blur = sum((step(one, product) for one in rows), Decimal(0))
        if not low - blur <= power.base <= product * TWO + SLACK_W + blur:
            yield (
                f"{where} tells {power.base:.0f} W, and its volts × amperes{' × power factor' if factor else ''} give "
                f"{product:.0f} W{_factor(power.base, product)}. Check the scale in the profile."
            )
    for level, energies in groupby((o for o in readings if o.quantity == "energy_counter"), key=lambda one: one.level):
        rows = [one for one in readings if one.level == level]
        if rows[0].whole and stands_still(list(energies), rows):
            yield (
                f"an energy counter of its {level} stands at 0 although power flows: they are not used until discovery "
                "finds it counting."
            )


def step(one: Reading, product: Decimal) -> Decimal:
    """Return how far one step of a reading moves a product of several [W]."""
    if one.quantity == "power":
        return one.step * one.size / 1000
    if one.quantity not in ("voltage", "current", "power_factor") or not one.value:
        return Decimal(0)
    return abs(product * one.step / one.value)


def _sums(whole: list[Reading], parts: list[Reading], readings: list[Reading]) -> Iterator[str]:
    """Compare parts with the whole: each inlet with its own where the index says which, else all with all."""
    if not parts:
        return
    nested = parts[0].level != "outlet" and len(parts[0].index) > len(whole[0].index)
    for one in [[w] for w in whole] if nested else [whole]:
        mine = [p for p in parts if not nested or p.index[: len(one[0].index)] == one[0].index]
        if mine and (said := _sum(one, mine, readings)):
            yield said


def _sum(whole: list[Reading], parts: list[Reading], readings: list[Reading]) -> str:
    total, together = sum(w.base for w in whole), sum(p.base for p in parts)
    names = f"{len(parts)} {PARTS[parts[0].level]}" if len(parts) > 1 else f"{parts[0].level} {parts[0].label}"
    unit = "W" if whole[0].quantity == "power" else "Wh"
    if unit == "Wh":
        agree = not total or not together or 1 / FAR < together / total < FAR
    else:
        blur = SLACK_W + sum((o.step * o.size / 1000 for o in (*whole, *parts)), Decimal(0))
        named = {o.label for o in readings if o.level == parts[0].level}
        few = parts[0].level == "outlet" and len(parts) < len(named)
        agree = (few or together >= total * (1 - SKEW) - blur) and together <= total * (1 + SKEW) + blur
    if agree:
        return ""
    return (
        f"{names} together tell {together:.0f} {unit}, and the whole device {total:.0f} {unit}"
        f"{_factor(Decimal(total), Decimal(together))}. Check the scale in the profile."
    )


def _factor(one: Decimal, other: Decimal) -> str:
    """Say by which power of ten two values differ, where they do."""
    if one <= 0 or other <= 0:
        return ""
    power = math.log10(float(one / other))
    return f", 1 to {10 ** abs(round(power))}" if round(power) and abs(power - round(power)) < 0.1 else ""
