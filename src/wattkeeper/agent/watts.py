"""Watts now, of each asset in its place and of each job: the rows of `wattkeeper top`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from wattkeeper.core.assets import QUANTITIES, Asset, AssetTree, Meter
from wattkeeper.core.live import Sample

DEVICES = frozenset({"gpu", "mig"})
"""Kinds of which nothing is left over: those who hold a part of one have all of it."""

STALE_MS = 60_000
"""A value older than this is not what is drawn now."""


@dataclass(frozen=True, slots=True)
class Row:
    """One asset now. depth: how deep it stands. power_w: None where nothing tells; summed: it is the sum of its parts.

    utilisation: 0 to 1. source: whose value it is. age_ms: how old.
    """

    asset: str
    kind: str
    depth: int
    power_w: float | None
    utilisation: float | None
    source: str
    age_ms: int | None
    summed: bool = False


@dataclass(frozen=True, slots=True)
class Holding:
    """A job that holds an asset now, or a share of it, 0 to 1."""

    job: str
    asset: str
    share: float


class Now:
    """The last two values of each meter, and the tree they stand in.

    holdings: who holds what, where that is known. intensity_g_per_kwh: of sites whose grid is known. stale_ms: when the
    newest reading of a book was taken that has none of now.
    """

    def __init__(self) -> None:
        self._assets: dict[str, Asset] = {}
        self._meters: dict[str, list[Meter]] = {}
        self._last: dict[str, tuple[Sample | None, Sample]] = {}
        self.holdings: list[Holding] = []
        self.intensity_g_per_kwh: dict[str, float] = {}
        self.stale_ms: int | None = None

    def know(self, assets: Iterable[Asset], meters: Iterable[Meter]) -> None:
        """Take assets and meters; what stands in nothing known is put at the top."""
        self._assets |= {a.id: a for a in assets}
        for meter in meters:
            self._assets.setdefault(meter.asset, Asset(meter.asset, "node", ""))
            mine = self._meters.setdefault(meter.asset, [])
            if all(m.id != meter.id for m in mine):
                mine.append(meter)

    def take(self, samples: Iterable[Sample]) -> None:
        """Take values; older ones than those at hand are left."""
        for sample in samples:
            before = self._last.get(sample.meter)
            if before is None or sample.time_ms > before[1].time_ms:
                self._last[sample.meter] = (before[1] if before else None, sample)

    def rows(self, now_ms: int) -> list[Row]:
        """Return all assets, what contains others first; parts without a value count nothing in a sum."""
        tree = _tree(self._assets.values())
        depth: dict[str, int] = {}
        rows: dict[str, Row] = {}
        for asset in tree.walk():
            depth[asset.id] = 0 if asset.parent is None else depth[asset.parent] + 1
            if asset.id != _TOP:
                rows[asset.id] = self._row(asset, depth[asset.id] - (_TOP in tree.assets), now_ms)
        for asset_id in reversed(list(rows)):
            parts = [rows[c].power_w for c in tree.children[asset_id]]
            known = [p for p in parts if p is not None]
            if rows[asset_id].power_w is None and known:
                rows[asset_id] = replace(rows[asset_id], power_w=sum(known), summed=True, source="sum of parts")
        return list(rows.values())

    def jobs(self, rows: Sequence[Row]) -> list[Row]:
        """Return what jobs draw now, most first, from rows of assets that are all there.

        A device is divided among its holders, what a node draws beside its devices by their shares of the node, the CPUs
        in it; what nobody measures counts nothing.
        """
        known = {r.asset: r for r in rows}
        own_w = {r.asset: r.power_w for r in rows if r.power_w is not None}
        for row in rows:
            parent = self._assets[row.asset].parent if row.asset in self._assets else None
            if parent in own_w and row.power_w is not None and (row.kind in DEVICES or known[parent].kind != "node"):
                own_w[parent] -= row.power_w
        held: dict[str, float] = {}
        for one in self.holdings:
            held[one.asset] = held.get(one.asset, 0.0) + one.share
        drawn: dict[str, float] = {}
        for one in self.holdings:
            if one.asset in own_w and (own_w[one.asset] > 0 or not known[one.asset].summed):
                whole = held[one.asset] if known[one.asset].kind in DEVICES else max(held[one.asset], 1.0)
                drawn[one.job] = drawn.get(one.job, 0.0) + max(own_w[one.asset], 0.0) * one.share / whole
        most_first = sorted(drawn.items(), key=lambda d: (-d[1], d[0]))
        return [Row(job, "job", 0, power_w, None, "its holdings", None, summed=True) for job, power_w in most_first]

    def carbon_g_per_h(self, rows: Sequence[Row]) -> dict[str, float]:
        """Return what each site emits in an hour at this power [g/h], where its intensity is known."""
        power_w = {r.asset: r.power_w for r in rows if r.power_w is not None}
        return {s: power_w[s] / 1000 * g for s, g in self.intensity_g_per_kwh.items() if s in power_w}

    def _row(self, asset: Asset, depth: int, now_ms: int) -> Row:
        told = [(m, w) for m in self._meters.get(asset.id, []) if (w := self._watts(m, now_ms)) is not None]
        busy = [
            self._last[m.id][1].value / 1e6
            for m in self._meters.get(asset.id, [])
            if m.quantity == "utilisation" and self._fresh(m.id, now_ms)
        ]
        if not told:
            return Row(asset.id, asset.kind, max(depth, 0), None, max(busy, default=None), "", None)
        best = min(told, key=lambda t: (t[0].rank, QUANTITIES.index(t[0].quantity)))[0]
        mine = [(m, w) for m, w in told if (m.source, m.quantity) == (best.source, best.quantity)]
        age_ms = max(now_ms - self._last[m.id][1].time_ms for m, _w in mine)
        power_w = sum(w for _m, w in mine)
        return Row(asset.id, asset.kind, max(depth, 0), power_w, max(busy, default=None), best.source, age_ms)

    def _fresh(self, meter: str, now_ms: int) -> bool:
        return meter in self._last and now_ms - self._last[meter][1].time_ms <= STALE_MS

    def _watts(self, meter: Meter, now_ms: int) -> float | None:
        if not self._fresh(meter.id, now_ms):
            return None
        before, last = self._last[meter.id]
        if meter.quantity == "power":
            return last.value / 1000
        if meter.quantity == "energy_interval":
            return last.value / meter.interval_ms
        if meter.quantity != "energy_counter" or before is None:
            return None
        gained_mj = last.value - before.value
        if gained_mj < 0 and meter.wrap_mj:
            gained_mj += meter.wrap_mj
        return gained_mj / (last.time_ms - before.time_ms) if gained_mj >= 0 else None


_TOP = "\0"


def _tree(assets: Iterable[Asset]) -> AssetTree:
    """Return a tree, with one root over what stands in nothing that is known."""
    known = {a.id: a for a in assets}
    lost = [a for a in known.values() if a.parent is not None and a.parent not in known]
    if not lost:
        return AssetTree(known)
    top = Asset(_TOP, "site")
    return AssetTree(known | {a.id: replace(a, parent=_TOP) for a in lost} | {_TOP: top})


def to_json(rows: Sequence[Row], now: Now) -> list[Mapping[str, object]]:
    """Return rows for scripts; a site's with its intensity and what it emits in an hour, where those are known."""
    carbon_g_per_h = now.carbon_g_per_h(rows)
    return [
        {
            **(
                {"intensity_g_per_kwh": now.intensity_g_per_kwh[r.asset], "carbon_g_per_h": carbon_g_per_h[r.asset]}
                if r.asset in carbon_g_per_h
                else {}
            ),
            "asset": r.asset, "kind": r.kind, "power_w": r.power_w, "utilisation": r.utilisation,
            "source": r.source, "age_ms": r.age_ms, "summed": r.summed,
        }
        for r in rows
    ]  # fmt: skip
