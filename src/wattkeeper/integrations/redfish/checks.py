"""What a PDU's or shelf's pages say about each other: watts against V × A × pf, outlets and phases against the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wattkeeper.integrations.redfish.link import Page
from wattkeeper.integrations.redfish.values import enabled, links, number, pointed

SKEW = 0.2
"""Values are not read at one moment: powers that differ by less agree."""

SLACK_W = 20.0
"""Below this a difference says nothing."""

LINE_TO_NEUTRAL = ("Line1ToNeutral", "Line2ToNeutral", "Line3ToNeutral")
LINE_TO_LINE = ("Line1ToLine2", "Line2ToLine3", "Line3ToLine1")


def doubts(pages: Mapping[str, Page], unit: str) -> Iterator[str]:
    """Yield a sentence for each two readings of one PDU or shelf that cannot both be true."""
    mains, outlets = _members(pages, f"{unit}/Mains"), _members(pages, f"{unit}/Outlets")
    for uri in (f"{unit}/Metrics", *mains, *outlets):
        yield from _circuit(uri, pages.get(uri, {}))
    whole_w = _reading(pages.get(f"{unit}/Metrics", {}), "/PowerWatts")
    inlets_w = [_reading(pages[uri], "/PowerWatts") for uri in mains]
    if whole_w is None and inlets_w and None not in inlets_w:
        whole_w = sum(w for w in inlets_w if w is not None)
    parts = {"inlets": inlets_w, "outlets": [_reading(pages[uri], "/PowerWatts") for uri in outlets]}
    for name, told_w in parts.items():
        known_w = [w for w in told_w if w is not None]
        if whole_w is None or not known_w:
            continue
        sum_w = sum(known_w)
        low_w = whole_w * (1 - SKEW) - SLACK_W if len(known_w) == len(told_w) else 0.0
        if not low_w <= sum_w <= whole_w * (1 + SKEW) + SLACK_W:
            yield f"{unit}: its {len(known_w)} {name} together tell {sum_w:g} W, and the whole {whole_w:g} W. {CURE}"


CURE = "A firmware update may put it right; else measure elsewhere."


def _circuit(uri: str, page: Page) -> Iterator[str]:
    """Yield what contradicts itself in one inlet or outlet."""
    power_w = _reading(page, "/PowerWatts")
    phases_w = _phases(page)
    if power_w is not None and phases_w and abs(sum(phases_w) - power_w) > power_w * SKEW + SLACK_W:
        yield f"{uri} tells {power_w:g} W, and its phases together {sum(phases_w):g} W. {CURE}"
    factor = _number(page, "/PowerWatts/PowerFactor")
    apparent_va = _number(page, "/PowerWatts/ApparentVA")
    volts, amperes = _reading(page, "/Voltage"), _reading(page, "/CurrentAmps")
    product_va = volts * amperes if volts is not None and amperes is not None and not _polyphase(page) else apparent_va
    if power_w is None or product_va is None or factor is None:
        return
    product_w = product_va * factor
    if abs(product_w - power_w) > max(product_w, power_w) * SKEW + SLACK_W:
        what = "volts × amperes × power factor" if product_va is not apparent_va else "volt-amperes × power factor"
        yield f"{uri} tells {power_w:g} W, and its {what} give {product_w:g} W. {CURE}"


def _phases(page: Page) -> list[float]:
    """Return the watts of the phases where they are all told: against neutral, else of a delta."""
    for names in (LINE_TO_NEUTRAL, LINE_TO_LINE):
        told = [_reading(page, f"/PolyPhasePowerWatts/{name}") for name in names]
        if None not in told:
            return [w for w in told if w is not None]
    return []


def _polyphase(page: Page) -> bool:
    told = page.get("PolyPhaseCurrentAmps")
    return isinstance(told, dict) and sum(isinstance(one, dict) for one in told.values()) > 1


def _reading(page: Page, pointer: str) -> float | None:
    return _number(page, f"{pointer}/Reading")


def _number(page: Page, pointer: str) -> float | None:
    found: Any = None
    for found in pointed(page, pointer):
        if not enabled(found):
            return None
    return number(found)


def _members(pages: Mapping[str, Page], collection: str) -> list[str]:
    return [uri for uri in links(pages.get(collection), "Members") if uri in pages]
