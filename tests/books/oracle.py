"""The oracle: who drew what, worked out slowly and plainly, with exact fractions and no code of the ledger.

It walks the readings one by one, cuts time at every instant at which anything changes, and adds up. It knows clusters of
tests/strategies.py: one site, one rack, nodes with devices, one meter an asset, no wraps and no glitches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise

from tests.strategies import Cluster
from wattkeeper.core.assets import AssetTree, Meter
from wattkeeper.core.clock import days_between, hour_edges_ms

Curve = list[tuple[int, Fraction]]


def curve(meter: Meter, rows: list[tuple[int, int]], ceiling_w: float) -> Curve:
    """Return points (ms, cumulative mJ) of a meter's energy."""
    points: Curve = []
    for i, (at, value) in enumerate(rows):
        if meter.quantity == "energy_interval":
            if i == 0:
                points.append((at - meter.interval_ms, Fraction(0)))
            elif at - rows[i - 1][0] > meter.interval_ms:
                hole = at - meter.interval_ms - rows[i - 1][0]
                energy = int(Fraction(rows[i - 1][1] * hole, meter.interval_ms))
                points.append((at - meter.interval_ms, points[-1][1] + energy))
            own = min(at - rows[i - 1][0], meter.interval_ms) if i else meter.interval_ms
            points.append((at, points[-1][1] + value * own // meter.interval_ms))
        elif i == 0:
            points.append((at, Fraction(0)))
        elif meter.quantity == "power":
            energy = round(Fraction((rows[i - 1][1] + value) * (at - rows[i - 1][0]), 2000))
            points.append((at, points[-1][1] + energy))
        elif value >= rows[i - 1][1]:
            points.append((at, points[-1][1] + value - rows[i - 1][1]))
        else:
            points.append((at, points[-1][1] + _restart(rows, i, ceiling_w)))
    return points


def _restart(rows: list[tuple[int, int]], i: int, ceiling_w: float) -> int:
    """The step in which a counter began anew: the mean power of up to three steps before, at least what it shows."""
    step = rows[i][0] - rows[i - 1][0]
    first = i - 1
    while first > max(0, i - 4) and rows[first][1] >= rows[first - 1][1]:
        first -= 1
    energy = 0
    if first < i - 1:
        rise, span = rows[i - 1][1] - rows[first][1], rows[i - 1][0] - rows[first][0]
        energy = int(Fraction(rise * step, span))
    bound = -int(-ceiling_w * 1.2 // 1) * step if ceiling_w else energy
    return min(max(energy, rows[i][1] if rows[i][1] <= bound else 0), bound)


def at(points: Curve, when: int) -> Fraction:
    """Return cumulative energy at an instant."""
    i = bisect_right(points, (when, Fraction(10**30)))
    if i == 0:
        return points[0][1]
    if i == len(points):
        return points[-1][1]
    (t0, e0), (t1, e1) = points[i - 1], points[i]
    return e0 + (e1 - e0) * Fraction(when - t0, t1 - t0)


def accounts(cluster: Cluster, tree: AssetTree, zone: str) -> dict[tuple[str, str, str | None], Fraction]:
    """Return mJ by (asset, account, job) for nodes and devices; racks and sites are left to the closing test."""
    by_meter = {m.asset: m for m in cluster.meters}
    rows: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for meter, when, value in cluster.readings.sort("time_ms").iter_rows():
        rows[meter].append((when, value))
    curves = {
        a: curve(m, rows[m.id], tree[a].ceiling_w) for a, m in by_meter.items() if rows[m.id] and a not in ("a", "rack")
    }
    total: dict[tuple[str, str, str | None], Fraction] = defaultdict(Fraction)
    for node in (a.id for a in tree.assets.values() if a.kind == "node"):
        _node(node, tree, curves, _holders(cluster, tree, node, curves), zone, total)
    return total


def _holders(cluster: Cluster, tree: AssetTree, node: str, curves: dict[str, Curve]) -> list[tuple]:
    """Return who holds what of a node: exact rows shadow estimated ones; GPUs imply their part of the node."""
    inside = {node, *tree.children[node]}
    merged: dict[tuple, list] = {}
    for job, asset, start, end, share, estimated in cluster.allocations.iter_rows():
        if asset in inside:
            merged.setdefault((job, asset, start), []).append((end, share, estimated))
    rows = []
    for (job, asset, start), found in merged.items():
        for end, share, estimated in found:
            rows.append((job, asset, start, 2**62 if end is None else end, Fraction(round(share * 10**6)), estimated))
    exact = [r for r in rows if not r[5] and tree[r[1]].kind == "gpu" and r[3] > r[2]]
    rows = [r for r in rows if not (r[5] and any(x[0] == r[0] and x[2] < r[3] and r[2] < x[3] for x in exact))]
    gpus = [c for c in tree.children[node] if tree[c].kind == "gpu"]
    named = {r[0] for r in rows if r[1] == node}
    if node in curves or any(c in curves for c in tree.children[node] if tree[c].kind == "cpu"):
        implied: dict[tuple, Fraction] = defaultdict(Fraction)
        for job, asset, start, end, share, _ in rows:
            if asset in gpus and job not in named:
                implied[job, start, end] += share / len(gpus)
        rows += [
            (j, node, s, e, Fraction(round(min(share, Fraction(10**6)))), True) for (j, s, e), share in implied.items()
        ]
    return [r for r in rows if r[3] > r[2]]


def _node(node: str, tree: AssetTree, curves: dict[str, Curve], held: list[tuple], zone: str, total: dict) -> None:
    members = [a for a in (node, *tree.children[node]) if a in curves]
    if not members:
        return
    first, last = min(curves[a][0][0] for a in members), max(curves[a][-1][0] for a in members)
    hours = {int(h) for d in days_between(first, last + 1, zone) for h in hour_edges_ms(d, zone)}
    ends = {p[i][0] for p in (curves[a] for a in members) for i in (0, -1)}
    cuts = sorted({first, last, *hours, *ends, *(t for r in held for t in r[2:4])})
    cuts = [c for c in cuts if first <= c <= last]
    own: dict[str, list[tuple[int, int, Fraction]]] = defaultdict(list)
    for left, right in pairwise(cuts):
        drawn = {
            a: at(curves[a], right) - at(curves[a], left)
            for a in members
            if curves[a][0][0] <= left and right <= curves[a][-1][0]
        }
        if node in drawn:
            drawn[node] -= sum(e for a, e in drawn.items() if a != node)
        for asset, energy in drawn.items():
            own[asset].append((left, right, energy))
    if len(members) > 1 and node in own:
        own[node] = _evened(own[node], sorted(hours | ends), node, total)
    for asset, steps in own.items():
        whose = asset if tree[asset].kind == "gpu" else node
        for left, right, energy in steps:
            now = [r for r in held if r[1] == whose and r[2] <= left and r[3] >= right]
            _split(asset, energy, now, absolute=tree[asset].kind != "gpu", total=total)


def _evened(steps: list, edges: list[int], node: str, total: dict) -> list:
    """Even out dips below zero within each part; a part negative as a whole is unaccounted."""
    out = []
    parts: dict[int, list] = defaultdict(list)
    for step in steps:
        parts[bisect_right(edges, step[0])].append(step)
    for part in parts.values():
        whole = sum(e for _, _, e in part)
        positive = sum(max(e, Fraction(0)) for _, _, e in part)
        if whole < 0:
            total[node, "unaccounted", None] += whole
        elif positive:
            out += [(a, b, max(e, Fraction(0)) * whole / positive) for a, b, e in part]
    return out


def _split(asset: str, energy: Fraction, now: list[tuple], *, absolute: bool, total: dict) -> None:
    weights = [r[4] for r in now]
    if now and not sum(weights):
        weights = [Fraction(1)] * len(now)
    floor = 10**6 if absolute or any(r[5] for r in now) else 0
    if now and not sum(r[4] for r in now):
        floor = max(floor, 0)
    whole = max(sum(weights, Fraction(0)), floor)
    for row, weight in zip(now, weights, strict=True):
        total[asset, "job", row[0]] += energy * weight / whole
    if not now or sum(weights) < whole:
        rest = 1 - sum(weights) / whole if now else Fraction(1)
        total[asset, "idle", None] += energy * rest
