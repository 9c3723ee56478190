"""Close a day: what racks, halls and facility meters show beyond what stands in them.

Units are posted already. Bottom-up, each upper asset's meter is compared with the sum of its parts, slot by slot: more
is overhead (a facility) or unaccounted (a rack whose PDU and servers disagree), less is unaccounted, negative. Where no
meter stands on a site and a PUE is given, its overhead is (PUE − 1) × IT energy (ISO/IEC 30134-2), marked as imputed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.assets import OVERHEAD_KINDS, Asset, natural
from wattkeeper.ledger import kernel
from wattkeeper.ledger.day import Frame, Lines
from wattkeeper.ledger.layout import UPPER_KINDS, Layout

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_ACCOUNT = {"overhead": kernel.OVERHEAD, "unaccounted": kernel.UNACCOUNTED}


@dataclass(frozen=True)
class Flow:
    """Energy [mJ] and valued amounts, slot by slot: (…, slots) and (…, slots, signals)."""

    energy: Int64s
    valued: Floats

    def __add__(self, other: Flow) -> Flow:
        return Flow(self.energy + other.energy, self.valued + other.valued)

    def __sub__(self, other: Flow) -> Flow:
        return Flow(self.energy - other.energy, self.valued - other.valued)

    def __getitem__(self, which: int) -> Flow:
        return Flow(self.energy[which], self.valued[which])

    def where(self, here: Bools, other: Flow) -> Flow:
        """Return this flow in the slots that are true, the other one elsewhere."""
        return Flow(np.where(here, self.energy, other.energy), np.where(here[:, None], self.valued, other.valued))


def unit_flows(layout: Layout, frame: Frame, below: list[Lines]) -> Flow:
    """Return what some lines, none of them of upper meters, post on each unit: (units, slots)."""
    units, slots = len(layout.units), len(frame.hour_ms)
    place = np.concatenate([p.keys[:, 0] * slots + p.keys[:, 2] for p in below])
    energy = np.concatenate([p.amounts[:, kernel.ENERGY] for p in below])
    return _sums(place, energy, np.concatenate([p.valued for p in below]), units, slots)


def close(layout: Layout, frame: Frame, lines: Lines, units: Flow, pue: Floats | None) -> Lines:
    """Return the upper assets' own postings of a window.

    lines: at least the upper assets' meters (account ABOVE). units: (units, slots) of the whole site; see unit_flows.
    pue: (slots,) with NaN where unknown, or None.
    """
    above = lines.keys[:, 3] == kernel.ABOVE
    slots = len(frame.hour_ms)
    meters = _flows(lines, above, lines.keys[:, 1], len(layout.assets), slots)
    imputed = np.zeros((len(layout.assets), slots), np.int64)
    np.add.at(imputed, (lines.keys[above, 1], lines.keys[above, 2]), lines.amounts[above, kernel.IMPUTED])
    read = np.zeros((len(layout.assets), slots), bool)
    read[lines.keys[above, 1], lines.keys[above, 2]] = True
    totals: dict[str, Flow] = {}
    posted = []
    for asset in _bottom_up(layout):
        code = layout.asset_code[asset.id]
        here = read[code]
        parts = _parts(layout, asset, totals, units)
        rest = meters[code] - parts
        account = np.where(rest.energy >= 0, _ACCOUNT[asset.remainder_account], kernel.UNACCOUNTED)
        doubt = imputed[code]
        totals[asset.id] = meters[code].where(here, parts)
        if asset.kind == "site" and pue is not None:
            extra = _by_pue(layout, parts, units, np.where(here, np.nan, pue))
            totals[asset.id] = meters[code].where(here, parts + extra)
            rest = rest.where(here, extra)
            account = np.where(here, account, kernel.OVERHEAD)
            doubt = np.where(here, doubt, extra.energy)
            here = here | (extra.energy > 0)
        posted.append(_lines_of(layout, asset, frame, here, account, rest, doubt))
    return Lines.joined(posted)


def _bottom_up(layout: Layout) -> list[Asset]:
    upper = [a for a in layout.assets if a.kind in UPPER_KINDS]
    return sorted(upper, key=lambda a: (-len(layout.tree.ancestors(a.id)), natural(a.id)))


def _parts(layout: Layout, asset: Asset, totals: dict[str, Flow], units: Flow) -> Flow:
    """Return the sum of what stands in an upper asset."""
    total = Flow(np.zeros_like(units.energy[0]), np.zeros_like(units.valued[0]))
    for child in layout.tree.children[asset.id]:
        total = total + (totals[child] if child in totals else units[layout.unit_code[child]])
    return total


def _flows(lines: Lines, rows: Bools, owner: Int64s, owners: int, slots: int) -> Flow:
    place = owner[rows] * slots + lines.keys[rows, 2]
    return _sums(place, lines.amounts[rows, kernel.ENERGY], lines.valued[rows], owners, slots)


def _sums(place: Int64s, energy: Int64s, valued: Floats, owners: int, slots: int) -> Flow:
    """Return sums by place, which is owner × slots + slot."""
    size, n_signals = owners * slots, valued.shape[1]
    # sums of whole millijoules stay exact in a float: a slot of one owner holds far less than 2^53 mJ (2.5 GWh)
    total = np.bincount(place, energy, size).astype(np.int64)
    worth = np.empty((size, n_signals))
    for s in range(n_signals):
        worth[:, s] = np.bincount(place, valued[:, s], size)
    return Flow(total.reshape(owners, slots), worth.reshape(owners, slots, n_signals))


def _by_pue(layout: Layout, parts: Flow, units: Flow, pue: Floats) -> Flow:
    """Return overhead from a PUE: (PUE − 1) × IT, less what non-IT meters have measured already, never below zero."""
    measured = [layout.unit_code[a.id] for a in layout.assets if a.kind in OVERHEAD_KINDS and a.id in layout.unit_code]
    known = Flow(units.energy[measured].sum(axis=0), units.valued[measured].sum(axis=0))
    it = parts - known
    factor = np.where(np.isnan(pue), 0.0, np.nan_to_num(pue) - 1.0)
    energy = np.maximum(np.rint(it.energy * factor).astype(np.int64) - known.energy, 0)
    share = np.divide(energy, it.energy, out=np.zeros(len(energy)), where=it.energy > 0)
    return Flow(energy, it.valued * share[:, None])


def _lines_of(
    layout: Layout, asset: Asset, frame: Frame, here: Bools, account: Int64s, rest: Flow, imputed: Int64s
) -> Lines:
    """Return a line for each slot in which an upper asset has something of its own."""
    slot = np.flatnonzero(here)
    amounts = np.zeros((len(slot), kernel.N_AMOUNTS), np.int64)
    amounts[:, kernel.ENERGY] = rest.energy[slot]
    amounts[:, kernel.IMPUTED] = np.clip(imputed[slot], 0, np.maximum(rest.energy[slot], 0))
    length_ms = np.diff(frame.slot_ms)[slot]
    amounts[:, kernel.HELD_MS] = amounts[:, kernel.COVERED_MS] = length_ms
    unit, code = layout.unit_code[asset.id], layout.asset_code[asset.id]
    ones = np.ones_like(slot)
    keys = np.stack((ones * unit, ones * code, slot, account[slot], -ones, frame.slot_ms[slot]), axis=1)
    nothing = Lines.none(rest.valued.shape[1])
    return Lines(keys, amounts, rest.valued[slot], nothing.hours, nothing.events)
