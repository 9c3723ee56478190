"""SunSpec: a marker, then a chain of models, each with its id and its length (SunSpec Information Model, 2.1)."""

from __future__ import annotations

from collections.abc import Iterable

from wattkeeper.integrations.modbus.link import Link, RefusedError
from wattkeeper.integrations.modbus.profile import Profile

BASES = (40_000, 0, 50_000)
MARKER = [0x5375, 0x6E53]
"""The letters SunS."""

END = 0xFFFF
MOST = 200
"""More models than any device has: a chain this long is no chain."""


async def chain(link: Link) -> list[tuple[int, int]]:
    """Return id and address of each model, within a turn; none where there is no marker. Raises SourceError."""
    for base in BASES:
        try:
            if await link.read("holding", base, 2) == MARKER:
                return await _walk(link, base + 2)
        except RefusedError:
            continue
    return []


async def _walk(link: Link, address: int) -> list[tuple[int, int]]:
    models: list[tuple[int, int]] = []
    while len(models) < MOST and address < 0xFFFF:
        try:
            model, length = await link.read("holding", address, 2)
        except RefusedError:
            break  # some chains have no end mark
        if model == END:
            break
        models.append((model, address))
        address += 2 + length
    return models


def meters(models: Iterable[tuple[int, int]], known: Iterable[Profile]) -> list[tuple[Profile, int]]:
    """Return the profile and the address of each model that is a meter."""
    return [(profile, address) for model, address in models for profile in known if model in profile.models]
