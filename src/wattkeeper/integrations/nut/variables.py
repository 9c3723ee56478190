"""What upsd's variables say about power, in mW.

Names and units are those of RFC 9271, appendix, and nut-names.txt: `realpower` is W, `power` is VA and no consumption.
There are no energy counters among them. Drivers leave out what a device does not tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

PHASES = ("L1", "L2", "L3")

OUTPUT = ("ups.realpower", "output.realpower", "output.{}.realpower", "ups.{}-N.realpower")
INPUT = ("input.realpower", "input.{}.realpower")
"""Where the power of a whole device stands, best first; {} is each phase."""

THROUGH = frozenset({"pdu", "ats", "epdu"})
"""device.type of what passes on all it takes, so that its input is what it feeds."""

MOST_LOAD_PERCENT = 130.0
"""A load above is no load: one recording says 300."""

ESTIMATES = ("ups.power×output.powerfactor", "ups.load×ups.realpower.nominal")


class Power(NamedTuple):
    """Power from one or more variables: their name with * for the phases, mW or None, and then why."""

    key: str
    power_mw: int | None
    reason: str = ""


def number(variables: Mapping[str, str], name: str) -> float | None:
    """Return a variable as a number; None where it is missing or no number."""
    try:
        found = float(variables[name])
    except (KeyError, ValueError):
        return None
    return found if math.isfinite(found) else None


def output(variables: Mapping[str, str]) -> Power | None:
    """Return what a device gives to what it feeds; None where no variable tells."""
    where: list[tuple[tuple[str, ...], str]] = [(OUTPUT, "output")]
    if variables.get("device.type", "").strip().lower() in THROUGH:
        where.append((INPUT, "input"))
    return next((found for names, side in where if (found := _first(variables, names, side))), None)


def intake(variables: Mapping[str, str]) -> Power | None:
    """Return what a device takes; None where no variable tells."""
    return _first(variables, INPUT, "input")


def outlet(variables: Mapping[str, str], name: str) -> Power | None:
    """Return what one outlet, such as 1 or group.1, gives; None where no variable tells."""
    return _first(variables, (f"outlet.{name}.realpower",), f"outlet.{name}")


def estimate(variables: Mapping[str, str]) -> Power | None:
    """Return a guess at what a device gives: apparent power × power factor, or load × nominal power; None without them."""
    phases = number(variables, "output.phases")
    apparent_va, factor = number(variables, "ups.power"), number(variables, "output.powerfactor")
    if apparent_va and factor is not None and 0 < factor <= 1 and phases in (None, 1):  # else some tell one phase only
        return Power(ESTIMATES[0], round(apparent_va * factor * 1000))
    load, nominal_w = number(variables, "ups.load"), number(variables, "ups.realpower.nominal")
    if load is None or not nominal_w or not 0 <= load <= MOST_LOAD_PERCENT:
        return None
    return Power(ESTIMATES[1], round(load * nominal_w * 10))


def _first(variables: Mapping[str, str], names: tuple[str, ...], side: str) -> Power | None:
    for name in names:
        one_by_one = [name.format(phase) for phase in _phases(variables, side)] if "{}" in name else [name]
        told = [number(variables, one) for one in one_by_one]
        if any(value is None for value in told):
            continue
        power_mw = round(sum(value for value in told if value is not None) * 1000)
        key = name.replace("{}", "*")
        if power_mw < 0:
            return Power(key, None, f"{key} is {power_mw / 1000:g} W, and no load feeds in")
        if power_mw == 0 and (flows := next(_flows(variables, side), "")):
            return Power(key, None, f"{key} is 0 W although {flows}: the load is below its resolution")
        return Power(key, power_mw)
    return None


def _phases(variables: Mapping[str, str], side: str) -> tuple[str, ...]:
    """Return the phases that must all be told, so that their sum is the whole."""
    count = number(variables, f"{side}.phases")
    return PHASES[: int(count)] if count in (1, 2, 3) else PHASES


def _flows(variables: Mapping[str, str], side: str) -> Iterator[str]:
    """Yield what says that something is drawn."""
    for name in (f"{side}.current", *(f"{side}.{phase}.current" for phase in PHASES)):
        if number(variables, name):
            yield f"{name} is {variables[name].strip()} A"
    if side == "output" and number(variables, "ups.load"):
        yield f"ups.load is {variables['ups.load'].strip()} %"
