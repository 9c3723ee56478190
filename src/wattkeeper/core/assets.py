"""Assets and meters: what draws power, what it stands in, and what measures it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from wattkeeper.core.errors import ConfigError

KINDS: tuple[str, ...] = (
    "site", "hall", "rack", "node", "gpu", "mig", "cpu", "dram", "device", "cooling", "distribution", "facility",
)  # fmt: skip
"""What an asset can be. `device` is any other part of a node; the last three are not IT and go to overhead."""

OVERHEAD_KINDS = frozenset({"cooling", "distribution", "facility"})

QUANTITIES: tuple[str, ...] = ("energy_counter", "energy_interval", "power", "utilisation")
"""What a meter can report, best first: a joule counter, energy per interval, power samples; and utilisation."""

REMAINDERS: dict[str, tuple[str, ...]] = {
    "site": ("overhead", "unaccounted"),
    **dict.fromkeys(("hall", "rack"), ("unaccounted", "overhead")),
    **dict.fromkeys(("node", "cpu", "dram", "device"), ("jobs", "overhead")),
}
"""Accounts that may take what an asset's meter shows beyond its parts, by kind; the first one does by default. Nobody can
tell which job a rack's rest is for: `wattkeeper statement --full-cost` spreads it."""

MAX_POWER_W = {"gpu": 2_500.0, "cpu": 1_500.0, "dram": 500.0, "node": 30_000.0, "rack": 500_000.0}
"""Physical ceilings by kind, generous on purpose: a step above 1.2 × this is an instrument's fault, not energy.
The largest of each known in 2026: a 1.4 kW GPU package, a 14.5 kW eight-GPU node, a 140 kW rack."""

ASSUMED_PCT = 5.0
"""Error band that is assumed of a meter whose maker's is not given [% of reading]. It is a guess: NVIDIA states ±5 % for
the power of Fermi and Kepler GPUs only (nvml.h, nvmlDeviceGetPowerUsage), and nothing for later ones."""

MARGIN = 1.2
"""How far above an asset's ceiling a reading may be and still be energy."""


@dataclass(frozen=True, slots=True)
class Asset:
    """Something that draws power.

    id: path-like and unique in the book, such as "n01/gpu3"; parent: id of what contains it, None for a site.
    remainder: which account takes what this asset's meter shows beyond its parts ("" takes the first of REMAINDERS).
    slice: for a MIG instance, the part of the GPU it is, 0 to 1.
    idle_power_w: at or below this a GPU counts as not working, where no utilisation is read.
    embodied_kg, lifetime_years: manufacturing carbon [kg CO2e] and the years it is spread over.
    """

    id: str
    kind: str
    parent: str | None = None
    model: str = ""
    max_power_w: float | None = None
    idle_power_w: float | None = None
    remainder: str = ""
    slice: float = 1.0
    embodied_kg: float | None = None
    embodied_source: str = ""
    lifetime_years: float = 5.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"Asset '{self.id}' has kind '{self.kind}'. Choose one of {', '.join(KINDS)}.")
        if self.remainder and self.remainder not in REMAINDERS.get(self.kind, ()):
            choice = f"Choose one of {', '.join(REMAINDERS[self.kind])}." if self.kind in REMAINDERS else "It has none."
            raise ConfigError(f"Asset '{self.id}', a {self.kind}, has remainder '{self.remainder}'. {choice}")
        if (self.kind == "site") != (self.parent is None):
            raise ConfigError(
                f"Asset '{self.id}' of kind '{self.kind}' "
                + ("stands in nothing; give it a parent." if self.parent is None else "is a site and has a parent.")
            )

    @property
    def ceiling_w(self) -> float:
        """Power this asset cannot exceed [W]; 0 where nothing is known."""
        return self.max_power_w if self.max_power_w is not None else MAX_POWER_W.get(self.kind, 0.0)

    @property
    def remainder_account(self) -> str:
        """Account of what its meter shows beyond its parts."""
        return self.remainder or REMAINDERS[self.kind][0]


@dataclass(frozen=True, slots=True)
class Meter:
    """An instrument that measures one asset.

    quantity: one of QUANTITIES. source: who reports it ("dcgm", "ipmi", "csv"); meters of one source and quantity
    on one asset add up (two feeds of one server, a swapped GPU), other meters of that asset only confirm.
    rank: which source the books use where several measure one asset; lower wins, then the order of QUANTITIES.
    accuracy_pct: half-width of the maker's error band [% of reading]; ASSUMED_PCT where nobody says.
    wrap_mj: where the counter returns to 0.
    interval_ms: for energy_interval, the time one value covers, ending at its time stamp.
    max_gap_ms: a longer step between readings is a gap. resolution_mj: the smallest step of a counter; 0 where unknown.
    """

    id: str
    asset: str
    quantity: str
    source: str = "csv"
    rank: int = 100
    accuracy_pct: float = ASSUMED_PCT
    wrap_mj: int = 0
    interval_ms: int = 0
    max_gap_ms: int = 300_000
    resolution_mj: int = 0

    def __post_init__(self) -> None:
        if self.quantity not in QUANTITIES:
            raise ConfigError(
                f"Meter '{self.id}' has quantity '{self.quantity}'. Choose one of {', '.join(QUANTITIES)}."
            )
        if self.quantity == "energy_interval" and self.interval_ms <= 0:
            raise ConfigError(f"Meter '{self.id}' reports energy per interval and needs interval_ms above 0.")


@dataclass(frozen=True, eq=False)
class AssetTree:
    """All assets of a book by id, with their children; parents come before children in `walk`.

    Raises ConfigError for a parent that is missing or a circle.
    """

    assets: dict[str, Asset]
    children: dict[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        below: dict[str, list[str]] = {a: [] for a in self.assets}
        for asset in self.assets.values():
            if asset.parent is None:
                continue
            if asset.parent not in below:
                raise ConfigError(f"Asset '{asset.id}' stands in '{asset.parent}', which is not declared.")
            below[asset.parent].append(asset.id)
        object.__setattr__(self, "children", {a: tuple(sorted(c, key=natural)) for a, c in below.items()})
        if sum(1 for _ in self.walk()) != len(self.assets):
            raise ConfigError("The assets contain each other in a circle; no site is above them.")

    @classmethod
    def of(cls, assets: Iterable[Asset]) -> AssetTree:
        """Build a tree from assets in any order; a later asset of the same id replaces an earlier one."""
        return cls({a.id: a for a in assets})

    def __getitem__(self, asset_id: str) -> Asset:
        return self.assets[asset_id]

    def walk(self, root: str | None = None) -> Iterator[Asset]:
        """Yield every asset under root (all sites when None), parents first, in natural order."""
        stack = (
            [root]
            if root is not None
            else sorted((a.id for a in self.assets.values() if a.parent is None), reverse=True)
        )
        while stack:
            asset_id = stack.pop()
            yield self.assets[asset_id]
            stack.extend(reversed(self.children[asset_id]))

    def ancestors(self, asset_id: str) -> list[str]:
        """Return the ids above an asset, nearest first."""
        above = []
        parent = self.assets[asset_id].parent
        while parent is not None:
            above.append(parent)
            parent = self.assets[parent].parent
        return above

    def site_of(self, asset_id: str) -> str:
        """Return the id of the site an asset stands in."""
        return (self.ancestors(asset_id) or [asset_id])[-1]

    def unit_of(self, asset_id: str) -> str:
        """Return whose books an asset is in: its node; else the asset itself."""
        for one in [asset_id, *self.ancestors(asset_id)]:
            if self.assets[one].kind == "node":
                return one
        above = self.ancestors(asset_id)
        if self.assets[asset_id].kind == "mig" and above:
            return above[0]
        return asset_id

    def with_assets(self, more: Iterable[Asset]) -> AssetTree:
        """Return a tree that also has these; what is declared already stays as it was declared."""
        return AssetTree({**{a.id: a for a in more}, **self.assets})

    def under(self, asset_id: str, parent: str) -> AssetTree:
        """Return the tree with one asset moved."""
        return AssetTree({**self.assets, asset_id: replace(self.assets[asset_id], parent=parent)})


_DIGITS = re.compile(r"([0-9]+)")


def undeclared(meters: Iterable[Meter], assets: Iterable[Asset], parent: Asset) -> list[Asset]:
    """Return assets for the meters that measure what only a table names, such as what an outlet feeds.

    "n01/gpus" is a device of n01; any other is a node in `parent`, or a device of it where that is no place for nodes.
    Where the book knows the asset, it stays as it is there.
    """
    known = {asset.id for asset in assets}
    kind = "node" if parent.kind in ("site", "hall", "rack", "distribution", "facility") else "device"
    names = dict.fromkeys(meter.asset for meter in meters if meter.asset not in known)
    heads = {name: name.rpartition("/")[0] for name in names}
    return [Asset(name, "device", head) if head else Asset(name, kind, parent.id) for name, head in heads.items()]


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sort key that puts gpu10 after gpu9."""
    # split leaves text at even places and digits at odd ones
    parts = enumerate(_DIGITS.split(name))
    return tuple((0, int(part)) if at % 2 else (1, part) for at, part in parts if part)
