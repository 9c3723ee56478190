"""The walk through a service: from its root along the links that lead to power and energy, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

from wattkeeper.integrations.redfish.link import ROOT, Link, Page, PageError
from wattkeeper.integrations.redfish.values import links, pointed

FOLLOWED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("/PowerEquipment", (
        "RackPDUs", "PowerShelves", "FloorPDUs", "Switchgear", "TransferSwitches", "Metrics", "Mains", "Outlets",
        "PowerSupplies",
    )),
    ("/Chassis", ("EnvironmentMetrics", "Sensors", "PowerSubsystem", "PowerSupplies", "Metrics", "Power")),
    ("/Systems", ("Processors", "EnvironmentMetrics")),
    ("/TelemetryService", ("MetricReports", "MetricReportDefinition")),
    ("", ("Chassis", "Systems", "PowerEquipment", "TelemetryService")),
)  # fmt: skip
"""Below which branch of the tree which links lead to energy; all others (logs, accounts, firmware) are left alone."""

MAX_PAGES = 10_000

EXPAND = "?$expand=.($levels=1)"
"""Query that asks a collection for its members in full (DSP0266 7.3.1)."""


class Walked(NamedTuple):
    """What a walk met: pages by URI, the address that gives a page in full with others, what went wrong with single pages."""

    pages: dict[str, Page]
    homes: dict[str, str]
    problems: list[str]


async def walk(link: Link, parallel: int) -> Walked:
    """Return the pages that lead to power and energy.

    Raises SourceError where the root cannot be had or the service falls silent on the way.
    """
    try:
        root = await link.get(ROOT)
    except PageError:
        root = await link.get(f"{ROOT}/")  # DSP0266 allows the root under both, some services answer under one
    pages, homes, problems = {ROOT: root}, dict[str, str](), list[str]()
    expand = _can_expand(root)
    gate = asyncio.Semaphore(parallel)

    async def fetch(uri: str) -> tuple[str, Page]:
        async with gate:
            for target in (uri + EXPAND, uri) if expand and uri.endswith("/Sensors") else (uri,):
                try:
                    return target, await link.get(target)
                except PageError as error:
                    if target == uri and "status 404" not in str(error):
                        problems.append(str(error))
            return uri, {}

    todo = _next(ROOT, root)
    while todo and len(pages) < MAX_PAGES:
        fresh = [uri for uri in dict.fromkeys(todo) if uri not in pages]
        found = await asyncio.gather(*(fetch(uri) for uri in fresh))
        todo = []
        for uri, (target, page) in zip(fresh, found, strict=True):
            pages[uri] = page
            for member, inline in inlined(page):
                pages[member], homes[member] = inline, target
                todo += _next(member, inline)
            todo += _next(uri, page)
    return Walked({uri: page for uri, page in pages.items() if page}, homes, problems)


def _next(uri: str, page: Page) -> list[str]:
    """Return where to go on from a page."""
    below = uri.removeprefix(ROOT)
    names = next(names for prefix, names in FOLLOWED if below.startswith(prefix))
    return [to for name in (*names, "Members") for to in links(page, name) if to.startswith(f"{ROOT}/")]


def inlined(page: Page) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the members that a collection carries in full, with their URIs."""
    members = page.get("Members")
    for one in members if isinstance(members, list) else []:
        if isinstance(one, dict) and one.get("@odata.id") and len(one) > 1:
            yield str(one["@odata.id"]).rstrip("/"), one


def _can_expand(root: Page) -> bool:
    *_, told = pointed(root, "/ProtocolFeaturesSupported/ExpandQuery/NoLinks")
    return told is True
