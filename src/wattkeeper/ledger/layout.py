"""Who is where: a site's assets, meters and allocations as the arrays that the kernel reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from wattkeeper.core.assets import MARGIN, OVERHEAD_KINDS, QUANTITIES, Asset, AssetTree, Meter, natural
from wattkeeper.core.units import PPM
from wattkeeper.ledger import kernel

Int64s = NDArray[np.int64]

UPPER_KINDS = frozenset({"site", "hall", "rack"})

_SHARED_KINDS = frozenset({"node", "cpu", "dram", "device"})


@dataclass(frozen=True)
class Layout:
    """A site's units in natural order, each with its assets (root first) and meters.

    assets, meters, units: what each code stands for. unit_asset0, unit_meter0: (u + 1,) where each unit begins.
    role, parent, idle_w: (a,) as in kernel.Assets, with codes of the site. meter_asset: (m,) asset of each meter.
    """

    site: str
    tree: AssetTree
    units: tuple[str, ...]
    assets: tuple[Asset, ...]
    meters: tuple[Meter, ...]
    unit_asset0: Int64s
    unit_meter0: Int64s
    role: Int64s
    parent: Int64s
    idle_w: NDArray[np.float64]
    meter_asset: Int64s

    @cached_property
    def asset_code(self) -> dict[str, int]:
        """Asset id → code."""
        return {a.id: i for i, a in enumerate(self.assets)}

    @cached_property
    def unit_code(self) -> dict[str, int]:
        """Unit id → code."""
        return {u: i for i, u in enumerate(self.units)}

    @cached_property
    def contested(self) -> list[dict[tuple[str, str], list[int]]]:
        """Meters by (source, quantity) of each asset whose energy, or utilisation, more than one source reports."""
        groups: dict[tuple[int, bool], dict[tuple[str, str], list[int]]] = {}
        for i, meter in enumerate(self.meters):
            what = (int(self.meter_asset[i]), meter.quantity == "utilisation")
            groups.setdefault(what, {}).setdefault((meter.source, meter.quantity), []).append(i)
        return [sources for sources in groups.values() if len(sources) > 1]

    @cached_property
    def grid_asset0(self) -> Int64s:
        """Where each stretch of assets that share a grid of instants begins, and the end: (g + 1,).

        A unit is one stretch, unless nothing in it is measured but devices that no measured asset contains: then what
        happens on one device does not concern the others, and each gets a grid of its own.
        """
        metered, inside = np.zeros(len(self.assets), bool), np.zeros(len(self.assets), bool)
        metered[self.meter_asset] = True
        inside[self.parent[self.parent >= 0]] = True
        held = self.role == kernel.HELD
        tied = np.add.reduceat(metered & ~held | held & inside, self.unit_asset0[:-1]) > 0
        alone = held & ~np.repeat(tied, np.diff(self.unit_asset0))
        alone[self.unit_asset0[:-1]] = True
        return np.append(np.flatnonzero(alone), len(self.assets)).astype(np.int64)

    @cached_property
    def meter_unit(self) -> Int64s:
        """The unit of each meter: (m,)."""
        return np.repeat(np.arange(len(self.units)), np.diff(self.unit_meter0))

    @cached_property
    def names(self) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Ids of units, assets and meters, by code."""
        assets, meters = [a.id for a in self.assets], [m.id for m in self.meters]
        return pa.array(self.units, pa.string()), pa.array(assets, pa.string()), pa.array(meters, pa.string())

    @cached_property
    def places(self) -> pl.DataFrame:
        """Every asset by code, with its kind, its unit and the device it is a part of."""
        return _places(self)

    @cached_property
    def shared_units(self) -> set[str]:
        """Units in which what the devices leave over is measured."""
        return {self.tree.unit_of(m.asset) for m in self.meters if self.tree[m.asset].kind in _SHARED_KINDS}

    @cached_property
    def grid_unit(self) -> Int64s:
        """The unit that each stretch of grid_asset0 is of: (g,)."""
        return np.searchsorted(self.unit_asset0, self.grid_asset0[:-1], side="right").astype(np.int64) - 1

    @cached_property
    def static(self) -> dict[str, Int64s]:
        """The columns of kernel.Meters that do not change from day to day."""
        ceilings_w = np.array([self.tree[m.asset].ceiling_w for m in self.meters])
        return {
            "quantity": np.array([_quantity(m) for m in self.meters], np.int64),
            "max_gap_ms": np.array([m.max_gap_ms for m in self.meters], np.int64),
            "bound_w": np.ceil(ceilings_w * MARGIN).astype(np.int64),
            "wrap_mj": np.array([m.wrap_mj for m in self.meters], np.int64),
            "interval_ms": np.array([m.interval_ms for m in self.meters], np.int64),
        }

    @cached_property
    def unit_bytes(self) -> list[bytes]:
        """What never changes of each unit's assets and meters, for digests; codes count from the unit's first asset."""
        found = []
        for u in range(len(self.units)):
            a, m = (slice(*edge[u : u + 2]) for edge in (self.unit_asset0, self.unit_meter0))
            base = self.unit_asset0[u]
            columns = [self.role[a], np.maximum(self.parent[a] - base, -1), self.idle_w[a], self.meter_asset[m] - base]
            columns += [c[m] for c in self.static.values()]
            found.append(b"".join(c.tobytes() for c in columns))
        return found


def lay_out(tree: AssetTree, meters: list[Meter], site: str) -> Layout:
    """Return the layout of one site; meters on assets the tree does not have are left out."""
    by_unit: dict[str, list[Asset]] = {}
    for asset in tree.walk(site):
        by_unit.setdefault(tree.unit_of(asset.id), []).append(asset)
    units = sorted(by_unit, key=natural)
    assets = [a for u in units for a in by_unit[u]]
    code = {a.id: i for i, a in enumerate(assets)}
    unit_rank = {u: i for i, u in enumerate(units)}
    mine = [m for m in meters if m.asset in code]
    mine.sort(key=lambda m: (unit_rank[tree.unit_of(m.asset)], code[m.asset], m.id))
    unit_of_meter = np.array([unit_rank[tree.unit_of(m.asset)] for m in mine], np.int64)
    sizes = [len(by_unit[u]) for u in units]
    return Layout(
        site=site,
        tree=tree,
        units=tuple(units),
        assets=tuple(assets),
        meters=tuple(mine),
        unit_asset0=np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))),
        unit_meter0=np.searchsorted(unit_of_meter, np.arange(len(units) + 1)).astype(np.int64),
        role=np.array([_role(a) for a in assets], np.int64),
        parent=np.array([_parent(tree, code, a) for a in assets], np.int64),
        idle_w=np.array([a.idle_power_w or 0.0 for a in assets]),
        meter_asset=np.array([code[m.asset] for m in mine], np.int64),
    )


def _role(asset: Asset) -> int:
    if asset.kind == "gpu":
        return kernel.HELD
    if asset.kind == "mig":
        return kernel.ACTIVITY
    if asset.kind in _SHARED_KINDS:
        return kernel.SHARED if asset.remainder_account == "jobs" else kernel.OVERHEAD_ROLE
    return kernel.OVERHEAD_ROLE if asset.kind in OVERHEAD_KINDS else kernel.UPPER


def _parent(tree: AssetTree, code: dict[str, int], asset: Asset) -> int:
    """Return the code of what contains an asset, within its unit; −1 for the unit's root."""
    if tree.unit_of(asset.id) == asset.id or asset.parent is None:
        return -1
    return code[asset.parent]


def _quantity(meter: Meter) -> int:
    order = {"energy_counter": kernel.COUNTER, "energy_interval": kernel.INTERVAL, "power": kernel.POWER}
    return order.get(meter.quantity, kernel.UTILISATION)


def primary(layout: Layout, rows: Int64s) -> Int64s:
    """Return which meters the books use on a day: (m,) 0 or 1.

    rows: (m,) readings each meter has that day or just around it. On each asset the best source with readings wins: by
    rank, then counter before interval before power, then the most readings, then name; all meters of that source and
    quantity are used. Energy and utilisation are chosen apart.
    """
    chosen = (rows > 0).astype(np.int64)
    for sources in layout.contested:
        read = {key: members for key, members in sources.items() if rows[members].any()}
        for members in sources.values():
            chosen[members] = 0
        if read:
            best = min(read, key=lambda k: _preference(layout, read[k], rows, k))
            chosen[read[best]] = 1
    return chosen


def _preference(layout: Layout, members: list[int], rows: Int64s, key: tuple[str, str]) -> tuple[int, int, int, str]:
    rank = min(layout.meters[i].rank for i in members)
    return rank, QUANTITIES.index(key[1]), -int(rows[members].sum()), key[0]


def allocation_arrays(
    layout: Layout, allocations: pl.DataFrame, job_ids: pl.Series, until_ms: int
) -> tuple[kernel.Allocations, Int64s, Int64s]:
    """Return a site's allocations sorted for the kernel, where each unit's begin (u + 1,), and starts of those that fit
    no asset.

    allocations: the ALLOCATIONS table as received. job_ids: sorted ids; a job's code is its place there.
    until_ms: last reading of the site: what runs is known to hold up to then.
    Of rows for one job, asset and start, the latest end wins: a job that was running has ended since.
    Where a job's GPUs on a node are known exactly, rows split by count that overlap them in time are dropped. Where a job
    holds GPUs of a node and has no row for the node itself, it is given the node in proportion to its GPUs.
    """
    places = layout.places
    known = allocations.join(places.select("asset", "code"), on="asset", how="inner").select(
        pl.col("job_id").cast(pl.Enum(job_ids)).to_physical().cast(pl.Int64).alias("job"),
        *("code", "start_ms", "end_ms", "share", "estimated"),
    )
    found = (
        _collapsed(known)
        .with_columns(pl.col("end_ms").fill_null(until_ms))
        .filter(pl.col("end_ms") > pl.col("start_ms"))
    )
    if found["estimated"].any():
        found = _without_shadowed(found, places)
    rows = pl.concat([found, _implied_nodes(layout, found, places)])
    code = rows["code"].to_numpy()
    is_slice = (places["kind"] == "mig").to_numpy()[code]
    columns = {
        "asset": places["device"].to_numpy()[code],
        "share_ppm": (rows["share"] * PPM).round().cast(pl.Int64).to_numpy(),
        "activity": np.where(is_slice, code, -1),
        **{c: rows[c].cast(pl.Int64).to_numpy() for c in ("start_ms", "end_ms", "job", "estimated")},
    }
    order = _order(*(columns[c] for c in ("asset", "start_ms", "end_ms", "job", "activity")))
    arrays = kernel.Allocations(**{c: columns[c][order] for c in kernel.Allocations._fields})
    starts = np.searchsorted(arrays.asset, layout.unit_asset0).astype(np.int64)
    strange = allocations.join(places, on="asset", how="anti") if known.height < allocations.height else known.clear()
    return arrays, starts, strange["start_ms"].to_numpy()


def _without_shadowed(found: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    """Return the rows without those split by count that an exact row of the same job on the same unit overlaps."""
    placed = found.with_row_index("row").join(places.select("code", "kind", "unit"), on="code")
    exact = placed.filter(~pl.col("estimated") & pl.col("kind").is_in(["gpu", "mig"]))
    shadowed = (
        placed.filter("estimated")
        .join(exact.select("job", "unit", from_ms="start_ms", to_ms="end_ms"), on=["job", "unit"])
        .filter((pl.col("start_ms") < pl.col("to_ms")) & (pl.col("from_ms") < pl.col("end_ms")))
    )
    return placed.join(shadowed, on="row", how="anti").select(found.columns)


def _collapsed(known: pl.DataFrame) -> pl.DataFrame:
    """Return one row for each job, asset and start; rows that stand alone, nearly all, are not touched."""
    order, tied = _by_start(known["code"].to_numpy(), known["start_ms"].to_numpy())
    if not len(tied):
        return known
    several = np.zeros(known.height, bool)
    several[order[tied]] = True
    merged = (
        known.filter(several)
        .group_by("job", "code", "start_ms")
        .agg(
            pl.when(pl.col("end_ms").null_count() < pl.len()).then(pl.col("end_ms").max()),
            pl.col("share").max(),
            pl.col("estimated").all(),
        )
    )
    return pl.concat([known.filter(~several), merged])


def _by_start(asset: Int64s, start_ms: Int64s) -> tuple[Int64s, Int64s]:
    """Return the order of rows by asset and start, and the places in it of rows that share both with another."""
    if not len(asset):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    span_ms = int(start_ms.max() - start_ms.min()) + 1
    key = asset * span_ms + (start_ms - start_ms.min())
    order = np.argsort(key)
    same = np.flatnonzero(np.diff(key[order]) == 0)
    return order, np.union1d(same, same + 1)


def _order(asset: Int64s, start_ms: Int64s, end_ms: Int64s, job: Int64s, activity: Int64s) -> Int64s:
    """Return the order of rows by asset, start, end, job, activity."""
    order, tied = _by_start(asset, start_ms)
    some = order[tied]
    order[tied] = some[np.lexsort([c[some] for c in (activity, job, end_ms, start_ms, asset)])]
    return order


def _places(layout: Layout) -> pl.DataFrame:
    """Return for each asset its code, kind, unit, and the code of the device it is a part of."""
    code = layout.asset_code
    return pl.DataFrame(
        {
            "asset": list(code),
            "code": list(code.values()),
            "kind": [a.kind for a in layout.assets],
            "unit": [layout.tree.unit_of(a) for a in code],
            "device": [code[a.parent] if a.kind == "mig" and a.parent else i for i, a in enumerate(layout.assets)],
        },
        schema={"asset": pl.String, "code": pl.Int64, "kind": pl.String, "unit": pl.String, "device": pl.Int64},
    )


def _implied_nodes(layout: Layout, found: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    """Return rows that give a job its part of a node where it holds only GPUs there and the node's rest is measured."""
    shared = layout.shared_units
    if not shared:
        return found.clear()
    placed = found.join(places.select("code", "kind", "unit"), on="code")
    gpus = places.filter(pl.col("kind") == "gpu").group_by("unit").agg(pl.len().alias("gpus"))
    named = placed.filter(pl.col("kind") == "node").select("job", "unit").unique()
    roots = places.filter((pl.col("asset") == pl.col("unit")) & (pl.col("kind") == "node"))
    return (
        placed.filter(pl.col("kind").is_in(["gpu", "mig"]) & pl.col("unit").is_in(list(shared)))
        .join(named, on=["job", "unit"], how="anti")
        .join(gpus, on="unit")
        .group_by("job", "unit", "start_ms", "end_ms")
        .agg((pl.col("share") / pl.col("gpus")).sum().clip(0.0, 1.0), pl.col("estimated").any())
        .join(roots.select("unit", "code"), on="unit")
        .select(found.columns)
    )
