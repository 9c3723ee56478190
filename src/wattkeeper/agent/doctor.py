"""What is wrong with what an agent reads and where it sends it, each with what to do."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wattkeeper.agent.look import Seen
from wattkeeper.agent.sender import SKEW_S, Link
from wattkeeper.config import AgentConfig
from wattkeeper.core.assets import MAX_POWER_W, Asset, Meter
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.errors import WattkeeperError
from wattkeeper.core.live import Sample
from wattkeeper.lake.journal import Reader

AGREE = 2.0
"""A counter and a power meter of one asset that differ by more than this factor do not mean the same unit."""

Grade = Literal["ok", "absent", "doubt", "fault"]


@dataclass(frozen=True, slots=True)
class Line:
    """One finding: what it is and what to do.

    grade: ok, absent (only tried), doubt (numbers may be wrong) or fault (something is missing).
    """

    grade: Grade
    subject: str
    text: str


def examine(seen: Sequence[Seen], *, optional: bool, now_s: float) -> list[Line]:
    """Return what is wrong with devices that were read twice.

    optional: they were only tried, so that what is not there is no fault. now_s: this machine's clock, just after.
    """
    lines = []
    for one in seen:
        if one.fault:
            lines.append(Line("absent" if optional else "fault", one.name, one.fault))
            continue
        values = one.values()
        told = f"{len(one.found.meters)} meters, {len(values)} of them tell a value"
        lines.append(Line("ok" if values else "fault", one.name, told + ("." if values else ". See the lines below.")))
        lines += [Line("doubt", one.name, doubt) for doubt in one.found.doubts]
        lines += _silent(one, values)
        lines += _units(one)
        lines += _stamps(one, values, now_s)
    return [*lines, *_agreement(seen), *_controllers(seen)]


def _silent(one: Seen, values: dict[str, Sample]) -> list[Line]:
    mute = [m.id for m in one.found.meters if m.id not in values]
    if not mute or not values:
        return []
    more = f" and {len(mute) - 3} more" if len(mute) > 3 else ""
    return [Line("doubt", one.name, f"No value now from {', '.join(mute[:3])}{more}. If that lasts, see its page.")]


def _units(one: Seen) -> Iterator[Line]:
    """Yield values no asset of that kind can have, and counters that stand still."""
    assets = {a.id: a for a in one.found.assets}
    first, last = one.values(0), one.values()
    for meter in one.found.meters:
        power_w = _watts(meter, first, last)
        if power_w is None:
            continue
        ceiling_w = _ceiling_w(assets.get(meter.asset), meter.asset)
        if meter.quantity == "energy_counter" and power_w == 0:
            yield Line(
                "doubt", meter.id,
                "The counter does not move. If the asset is on, it counts in large steps or not at all: "
                "look again for longer (--seconds), or read its power.",
            )  # fmt: skip
        elif power_w < 0:
            yield Line("doubt", meter.id, "The counter went back while we looked: it was reset, or it wraps.")
        elif ceiling_w and power_w > 1.2 * ceiling_w:
            yield Line(
                "doubt", meter.id,
                f"{power_w:,.0f} W is more than {ceiling_w:,.0f} W, which nothing of its kind draws: is its unit right?",
            )  # fmt: skip


def _stamps(one: Seen, values: dict[str, Sample], now_s: float) -> list[Line]:
    late_s = [now_s - s.time_ms / 1000 for s in values.values()]
    worst_s = max(late_s, key=abs, default=0.0)
    if abs(worst_s) <= max(SKEW_S, 60.0 if worst_s > 0 else 0.0):
        return []
    way = "behind" if worst_s > 0 else "ahead of"
    text = f"Its values are stamped {abs(worst_s):,.0f} s {way} this machine's clock. Set NTP on it, and here."
    return [Line("doubt", one.name, text)]


def _agreement(seen: Sequence[Seen]) -> Iterator[Line]:
    """Yield counters and power meters of one source and asset that contradict each other."""
    for one in seen:
        if one.fault:
            continue
        first, last = one.values(0), one.values()
        powers = {m.asset: _watts(m, first, last) for m in one.found.meters if m.quantity == "power"}
        for meter in one.found.meters:
            counted_w, power_w = _watts(meter, first, last), powers.get(meter.asset)
            if meter.quantity != "energy_counter" or not counted_w or not power_w or counted_w < 0:
                continue
            if not 1 / AGREE <= counted_w / power_w <= AGREE:
                yield Line(
                    "doubt", meter.id,
                    f"The counter says {counted_w:,.0f} W and the power {power_w:,.0f} W. Look again for longer "
                    "(--seconds); if they still differ, one of them has another unit or reset.",
                )  # fmt: skip


def _controllers(seen: Sequence[Seen]) -> Iterator[Line]:
    """Yield whether what measures a node includes its GPUs."""
    assets = {a.id: a for one in seen for a in one.found.assets}
    gpu_w: dict[str, dict[str, tuple[int, float]]] = {}
    node_w: list[tuple[Meter, float]] = []
    for one in seen:
        first, last = one.values(0), one.values()
        for meter in one.found.meters:
            power_w = _watts(meter, first, last)
            asset = assets.get(meter.asset)
            if power_w is None or power_w <= 0:
                continue
            if asset is not None and asset.kind == "gpu" and asset.parent:
                best = gpu_w.setdefault(asset.parent, {})
                best[asset.id] = min(best.get(asset.id, (meter.rank, power_w)), (meter.rank, power_w))
            elif asset is None or asset.kind == "node":
                node_w.append((meter, power_w))
    for meter, power_w in node_w:
        if meter.asset not in gpu_w:
            continue
        sum_w = sum(w for _rank, w in gpu_w[meter.asset].values())
        told = f"{power_w:,.0f} W, its {len(gpu_w[meter.asset])} GPUs draw {sum_w:,.0f} W"
        if power_w < sum_w:
            yield Line(
                "doubt", meter.id,
                f"{told}: it does not include the GPUs. Give it an asset of its own in the site file, such as "
                f'[[asset]] id = "{meter.asset}/host", kind = "device", parent = "{meter.asset}", and name that asset '
                "in its table.",
            )  # fmt: skip
        elif sum_w < 0.3 * power_w:
            yield Line(
                "ok", meter.id,
                f"{told}: that does not show whether it includes them. Run the doctor again while they are busy.",
            )  # fmt: skip
        else:
            yield Line("ok", meter.id, f"{told}: it includes them.")


def _watts(meter: Meter, first: dict[str, Sample], last: dict[str, Sample]) -> float | None:
    """Return the power a meter stands for: its value, or what its counter gained; None where it does not tell."""
    end = last.get(meter.id)
    if end is None or meter.quantity not in {"power", "energy_counter"}:
        return None
    if meter.quantity == "power":
        return end.value / 1000
    start = first.get(meter.id)
    if start is None or start.time_ms >= end.time_ms:
        return None
    gained_mj = end.value - start.value
    if gained_mj < 0 and meter.wrap_mj:
        gained_mj += meter.wrap_mj
    return gained_mj / (end.time_ms - start.time_ms)


def _ceiling_w(asset: Asset | None, name: str) -> float:
    if asset is not None:
        return asset.ceiling_w
    return MAX_POWER_W.get(name.rpartition("/")[2].rstrip("0123456789"), MAX_POWER_W["node"])


def examine_target(config: AgentConfig, name: str) -> Iterator[Line]:
    """Yield whether readings can be kept, and whether the server takes them; blocks."""
    if config.url:
        yield from _folder(config.spool, name, config.spool_limit_bytes)
        yield from _server(config, name)
    elif config.book is None:
        yield Line("fault", "[agent]", "It says neither book nor url. Say where readings go.")
    elif not (config.book / "state.sqlite").exists():
        yield Line("fault", f"book {config.book}", f"It is not a book. Make one with: wattkeeper init {config.book}")
    else:
        yield from _folder(config.book / "journal", name, 0)


def _folder(root: Path, name: str, limit_bytes: int) -> Iterator[Line]:
    existing = next(p for p in (root / name, root, *root.parents) if p.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Line("fault", str(root), f"This user may not write in {existing}. Run as the agent's user, or chown it.")
        return
    size = Reader(root, name).size_bytes()
    if limit_bytes and size > limit_bytes / 2:
        text = f"{size / 2**20:,.0f} MiB of {limit_bytes / 2**20:,.0f} wait to be sent. Is the server away?"
        yield Line("doubt", str(root), text)
    else:
        yield Line("ok", str(root), f"Readings can be kept; {size / 2**20:,.1f} MiB are there.")


def _server(config: AgentConfig, name: str) -> Iterator[Line]:
    link = Link(config)
    try:
        skew_s = link.send(encode(Batch(f"{name}/doctor-{uuid.uuid4().hex}/1", [])))
    except WattkeeperError as error:
        yield Line("fault", link.name, str(error).removeprefix(f"{link.name} "))
        return
    finally:
        link.close()
    yield Line("ok", link.name, "It takes batches from here.")
    if skew_s is not None and abs(skew_s) > SKEW_S:
        way = "ahead of" if skew_s > 0 else "behind"
        text = f"Its clock is {abs(skew_s):,.0f} s {way} this machine's. Set NTP on both (chrony, systemd-timesyncd)."
        yield Line("doubt", link.name, text)
