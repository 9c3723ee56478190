"""Whether what a meter tells agrees with itself: a wrong ratio, scale or word order shows here, before it is booked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wattkeeper.core.assets import Meter

PHASES = ("l1", "l2", "l3")

SMALL_W = 50.0
"""Below this meters round and phases flicker, so nothing is compared."""

PHASE_PART = 0.05
"""Phases may miss the total by this: they are not read at the same instant."""

PRODUCT_PART = 0.10
"""V × I × pf may miss the power by this: means of products are not products of means."""

LEAST_V, MOST_V = 10.0, 50_000.0

COARSE_WH = 100.0

MJ_PER_WH = 3_600_000


def doubts(name: str, values: Mapping[str, float]) -> list[str]:
    """Return what is wrong with one reading of all points [W, V, A, 1], as sentences with the cure."""
    said = [
        f"{name} says {volts:g} V: no mains has that. Check its profile and the order of its words."
        for key, volts in values.items()
        if key.startswith("voltage") and volts and not LEAST_V <= abs(volts) <= MOST_V
    ]
    phases = [values.get(f"power_{phase}") for phase in PHASES]
    power_w = values.get("power", sum(p for p in phases if p is not None) if None not in phases else None)
    if power_w is None:
        return said
    if power_w < 0:
        said.append(
            f"{name} says {power_w:g} W: it feeds in, or a current transformer is the wrong way round. "
            "Negative power is not read."
        )
    if "power" in values and all(p is not None for p in phases):
        sum_w = sum(p for p in phases if p is not None)
        if abs(sum_w - power_w) > max(PHASE_PART * abs(power_w), SMALL_W):
            said.append(
                f"{name} says {power_w:g} W, but its phases add up to {sum_w:g} W{_times(power_w, sum_w)}. "
                "Check its profile, and that each phase has its current transformer."
            )
    return [*said, *_product(name, values, abs(power_w))]


def _product(name: str, values: Mapping[str, float], power_w: float) -> list[str]:
    """Compare power with V × I, and with V × I × pf where pf is told."""
    volts = [values.get(f"voltage_{phase}") for phase in PHASES]
    amps = [values.get(f"current_{phase}") for phase in PHASES]
    whole = values.get("power_factor")
    pairs = [
        (abs(v * a), values.get(f"power_factor_{phase}", whole))
        for phase, v, a in zip(PHASES, volts, amps, strict=True)
        if v is not None and a is not None
    ]
    if sum(v is not None for v in volts) != len(pairs) or not pairs:
        return []
    apparent_va = sum(va for va, _pf in pairs)
    if max(apparent_va, power_w) < SMALL_W:
        return []
    if all(pf is not None for _va, pf in pairs):
        product_w = sum(va * abs(pf) for va, pf in pairs if pf is not None)
        wrong = abs(product_w - power_w) > PRODUCT_PART * max(apparent_va, power_w)
        what = f"V × I × pf give {product_w:g} W{_times(power_w, product_w)}"
    else:
        wrong = not PRODUCT_PART * apparent_va <= power_w <= (1 + PRODUCT_PART) * apparent_va
        what = f"V × I give {apparent_va:g} VA{_times(power_w, apparent_va)}"
    if not wrong:
        return []
    return [f"{name} says {power_w:g} W, but {what}. Check its profile, factor, and the ratios set in the meter."]


def _times(this: float, that: float) -> str:
    """Return by which power of ten two values differ, where they do."""
    for exponent in (1, 2, 3, 6):
        for ratio, way in ((this, that), "less"), ((that, this), "more"):
            if ratio[1] and abs(ratio[0] / ratio[1] / 10.0**exponent - 1) < PRODUCT_PART:
                return f", {10**exponent} times {way}"
    return ""


def coarse(name: str, meters: Sequence[Meter], type_name: str) -> list[str]:
    """Return the doubt about a counter that is a 32-bit float and has become so large that it steps visibly."""
    return [
        f"{name} keeps its energy in 32-bit floats, which by now step by {meter.resolution_mj / MJ_PER_WH:g} Wh. "
        "Choose a profile with integers or doubles where the meter has them, or reset its counter."
        for meter in meters
        if type_name == "float32" and meter.resolution_mj >= COARSE_WH * MJ_PER_WH
    ]
