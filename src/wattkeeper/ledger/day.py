"""A window of one site, such as a day: from readings, edges and allocations to posted lines. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core import counter
from wattkeeper.core.signal import Signal
from wattkeeper.ledger import kernel
from wattkeeper.ledger.layout import Layout, primary

Int64s = NDArray[np.int64]

RULES = b"ledger rules 5"
"""Goes into every digest: change it when the kernel books differently, and all days are attributed anew."""


@dataclass(frozen=True)
class Edges:
    """The few readings of each meter just before and just after a window: (m,), (m, LOOK_BACK), (m, LOOK_AHEAD)."""

    back_n: Int64s
    back_ms: Int64s
    back_value: Int64s
    ahead_n: Int64s
    ahead_ms: Int64s
    ahead_value: Int64s

    @classmethod
    def none(cls, n_meters: int) -> Edges:
        """No readings on either side."""
        back, ahead = (n_meters, counter.LOOK_BACK), (n_meters, counter.LOOK_AHEAD)
        zero = np.zeros
        return cls(
            zero(n_meters, np.int64), zero(back, np.int64), zero(back, np.int64),
            zero(n_meters, np.int64), zero(ahead, np.int64), zero(ahead, np.int64),
        )  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """The site's own instants of a window: slots with their local hours, signals, and the grid that joins them.

    slot_ms: (s + 1,) edges; hour_ms: (s,) start of the local hour of each slot.
    """

    slot_ms: Int64s
    hour_ms: Int64s
    grid: kernel.Grid


def frame(hour_edges_ms: Int64s, cuts_ms: Int64s, signals: list[Signal]) -> Frame:
    """Return the frame of a window: its hours, parted at `cuts_ms`, refined by the steps of the signals."""
    first, last = hour_edges_ms[0], hour_edges_ms[-1]
    inside = cuts_ms[(cuts_ms > first) & (cuts_ms < last)]
    slot_ms = np.unique(np.concatenate((hour_edges_ms, inside)))
    steps = [s.breaks_ms[(s.breaks_ms > first) & (s.breaks_ms < last)] for s in signals]
    edge_ms = np.unique(np.concatenate([slot_ms, *steps]))
    values = np.array([np.nan_to_num(s.at(edge_ms[:-1]), nan=0.0) for s in signals]).reshape(
        len(signals), len(edge_ms) - 1
    )
    slot = np.searchsorted(slot_ms, edge_ms[:-1], side="right") - 1
    hour = np.searchsorted(hour_edges_ms, slot_ms[:-1], side="right") - 1
    return Frame(slot_ms, hour_edges_ms[hour], kernel.Grid(edge_ms, slot.astype(np.int64), values))


@dataclass(frozen=True)
class Window:
    """Everything a window of one site is attributed from, but the readings themselves.

    allocs, alloc0: the allocations that touch it, cut to it, and where each unit's begin. primary: (m,) 0 or 1.
    smooth: (m,) 1 where no step between two readings within the window is odd, 0 where that is not known.
    """

    layout: Layout
    frame: Frame
    edges: Edges
    allocs: kernel.Allocations
    alloc0: Int64s
    primary: Int64s
    smooth: Int64s
    idle_ppm: int

    @classmethod
    def of(
        cls, layout: Layout, frame: Frame, edges: Edges, allocs: kernel.Allocations, alloc0: Int64s, rows_n: Int64s,
        smooth: Int64s, idle_ppm: int,
    ) -> Window:  # fmt: skip
        """Build a window; rows_n: (m,) readings each meter has in it. Allocations are cut to it."""
        first, last = frame.slot_ms[0], frame.slot_ms[-1]
        here = np.flatnonzero((allocs.start_ms < last) & (allocs.end_ms > first))
        cut = kernel.Allocations(*(c[here] for c in allocs))
        cut = cut._replace(start_ms=np.maximum(cut.start_ms, first), end_ms=np.minimum(cut.end_ms, last))
        begin = np.searchsorted(here, alloc0).astype(np.int64)
        chosen = primary(layout, rows_n + edges.back_n + edges.ahead_n)
        return cls(layout, frame, edges, cut, begin, chosen, smooth, idle_ppm)


@dataclass(frozen=True)
class Lines:
    """Posted lines of some units of a window, with site-wide codes; see kernel.Out for the columns."""

    keys: Int64s
    amounts: Int64s
    valued: NDArray[np.float64]
    hours: Int64s
    events: Int64s

    def where(self, rows: NDArray[np.bool_]) -> Lines:
        """Return the lines whose postings are true in `rows`, with all meter hours and events."""
        if rows.all():
            return self
        return Lines(self.keys[rows], self.amounts[rows], self.valued[rows], self.hours, self.events)

    def ordered(self, layout: Layout, last: set[int]) -> Lines:
        """Return the lines unit after unit; some units, and within a unit all lines, keep their order and come last."""
        rank = np.arange(len(layout.units))
        rank[list(last)] = len(layout.units)
        columns = (self.keys[:, 0], layout.meter_unit[self.hours[:, 0]], layout.meter_unit[self.events[:, 0]])
        lines, hours, events = (np.argsort(rank[units], kind="stable") for units in columns)
        return Lines(self.keys[lines], self.amounts[lines], self.valued[lines], self.hours[hours], self.events[events])

    @classmethod
    def none(cls, n_signals: int) -> Lines:
        """No lines at all."""
        empty = np.empty
        return cls(
            empty((0, 6), np.int64), empty((0, kernel.N_AMOUNTS), np.int64), empty((0, n_signals)),
            empty((0, 8), np.int64), empty((0, 5), np.int64),
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: list[Lines]) -> Lines:
        """Return several parts as one, laid out column after column."""
        return cls(*(_joined([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    joined = np.empty((parts[0].shape[1], sum(len(p) for p in parts)), parts[0].dtype)
    np.concatenate([p.T for p in parts], axis=1, out=joined)
    return joined.T


def attribute_units(
    window: Window, first_unit: int, last_unit: int, rows: kernel.Rows, row0: Int64s, row1: Int64s
) -> Lines:
    """Post units [first_unit, last_unit) of a clipped window.

    rows: their readings. row0, row1: (m,) where each of their meters' readings begin and end in `rows`.
    """
    layout, edges = window.layout, window.edges
    a0, a1 = layout.unit_asset0[first_unit], layout.unit_asset0[last_unit]
    m0, m1 = layout.unit_meter0[first_unit], layout.unit_meter0[last_unit]
    l0, l1 = window.alloc0[first_unit], window.alloc0[last_unit]
    meters = kernel.Meters(
        row0=row0, row1=row1, asset=layout.meter_asset[m0:m1] - a0, primary=window.primary[m0:m1],
        smooth=window.smooth[m0:m1],
        **{name: column[m0:m1] for name, column in layout.static.items()},
        **{name: getattr(edges, name)[m0:m1] for name in vars(edges)},
    )  # fmt: skip
    allocs = kernel.Allocations(*(c[l0:l1] for c in window.allocs))
    asset0 = layout.grid_asset0[slice(*np.searchsorted(layout.grid_asset0, [a0, a1 + 1]))]
    parent, first = layout.parent[a0:a1], np.repeat(asset0[:-1], np.diff(asset0))
    assets = kernel.Assets(layout.role[a0:a1], np.where(parent < first, -1, parent - a0), layout.idle_w[a0:a1])
    units = kernel.Units(
        asset0 - a0, np.searchsorted(layout.meter_asset[m0:m1], asset0), np.searchsorted(allocs.asset, asset0)
    )
    activity = np.where(allocs.activity < 0, -1, allocs.activity - a0)
    allocs = allocs._replace(asset=allocs.asset - a0, activity=activity)
    out = _run(rows, meters, assets, units, allocs, window)
    lines, hours, events = out.used
    posted = Lines(out.keys[:lines], out.amounts[:lines], out.valued[:lines], out.hours[:hours], out.events[:events])
    # from codes of this chunk to codes of the site
    posted.keys[:, 0] = layout.grid_unit[posted.keys[:, 0] + np.searchsorted(layout.grid_asset0, a0)]
    posted.keys[:, 1] += a0
    posted.hours[:, 0] += m0
    posted.events[:, 0] += m0
    return posted


def _run(
    rows: kernel.Rows, meters: kernel.Meters, assets: kernel.Assets, units: kernel.Units, allocs: kernel.Allocations,
    window: Window,
) -> kernel.Out:  # fmt: skip
    slots, n_signals = len(window.frame.hour_ms), len(window.frame.grid.signals)
    room = 2 * slots * len(assets.role) + 4 * len(allocs.asset) + 64
    while True:
        out = kernel.Out(
            np.empty((room, 6), np.int64), np.empty((room, kernel.N_AMOUNTS), np.int64), np.empty((room, n_signals)),
            np.empty((room, 8), np.int64), np.empty((room, 5), np.int64), np.zeros(3, np.int64),
        )  # fmt: skip
        if kernel.post_units(rows, meters, assets, units, allocs, window.frame.grid, window.idle_ppm, out):
            return out
        room *= 2


def digests(window: Window, rows_digest: Int64s, job_hash: Int64s) -> list[str]:
    """Return for each unit a digest of what its lines depend on.

    rows_digest: (m,) digest of each meter's readings in the window. job_hash: (j,) hash of each job's id, by job code.
    Equal digests give equal lines; codes that shift when something is imported elsewhere do not enter.
    """
    layout, edges, allocs = window.layout, window.edges, window.allocs
    site = hashlib.blake2b(RULES, digest_size=16)
    for column in (*window.frame.grid, window.frame.slot_ms, np.array([window.idle_ppm])):
        site.update(np.ascontiguousarray(column).tobytes())
    base = layout.unit_asset0[np.searchsorted(layout.unit_asset0, allocs.asset, side="right") - 1]
    activity = np.maximum(allocs.activity - base, -1)
    held = (
        allocs.asset - base,
        allocs.start_ms,
        allocs.end_ms,
        allocs.share_ppm,
        allocs.estimated,
        job_hash[allocs.job],
    )
    around = [c.reshape(len(rows_digest), -1).T for c in vars(edges).values()]
    tables = (
        ([rows_digest, *(column for columns in around for column in columns)], layout.unit_meter0),
        ([*held, activity], window.alloc0),
    )
    mixed = np.stack([_mixed(columns, first, seed) for columns, first in tables for seed in _SEEDS], axis=1)
    found = []
    for fixed, sums in zip(layout.unit_bytes, mixed, strict=True):
        unit = site.copy()
        unit.update(fixed)
        unit.update(sums.tobytes())
        found.append(unit.hexdigest())
    return found


_SEEDS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))


def _mixed(columns: Sequence[Int64s], first: Int64s, seed: np.uint64) -> Int64s:
    """Return a 64-bit digest of each unit's rows: their number, every value, and its place among them.

    columns: (n,) each. first: (u + 1,) where each unit's rows begin.
    """
    sizes = np.diff(first)
    mixed = (np.arange(first[-1]) - np.repeat(first[:-1], sizes)).astype(np.uint64)
    for column in columns:
        mixed ^= np.ascontiguousarray(column).view(np.uint64)
        mixed *= seed
        mixed ^= mixed >> np.uint64(29)
    upto = np.concatenate((np.zeros(1, np.uint64), np.cumsum(mixed * seed, dtype=np.uint64)))
    return (upto[first[1:]] - upto[first[:-1]]).view(np.int64) ^ sizes
