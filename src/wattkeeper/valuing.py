"""What a joule costs at a site: the signals that its site file names."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from wattkeeper.config import SiteConfig
from wattkeeper.core.averages import AVERAGE, average
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.schema import SIGNALS
from wattkeeper.core.signal import Signal
from wattkeeper.lake.book import Book

_KEPT: WeakKeyDictionary[Book, tuple[int, dict[tuple[SiteConfig, tuple[str, ...]], dict[str, Signal | None]]]] = (
    WeakKeyDictionary()
)

KINDS = ("intensity", "price", "water", "pue")
"""What a site may name a signal for."""


def signal_of(book: Book, site: SiteConfig, kind: str) -> Signal | None:
    """Return what a site names as its intensity, price, water or pue; None where it names nothing.

    Raises ConfigError where the site file names a signal that was never imported.
    """
    return signals_of(book, site, (kind,))[kind]


def signals_of(book: Book, site: SiteConfig, kinds: Sequence[str] = KINDS) -> dict[str, Signal | None]:
    """Return several of them by kind, imported ones read in one go and kept while nothing new is imported.

    Raises as signal_of does.
    """
    version = book.signals_table.version()
    if book not in _KEPT or _KEPT[book][0] != version:
        _KEPT[book] = version, {}
    kept = _KEPT[book][1]
    key = site, tuple(kinds)
    if key not in kept:
        kept[key] = _signals_of(book, site, kinds)
    return kept[key]


def _signals_of(book: Book, site: SiteConfig, kinds: Sequence[str]) -> dict[str, Signal | None]:
    named = {kind: getattr(site, kind) for kind in kinds}
    imported = {n for n in named.values() if isinstance(n, str) and not n.startswith(AVERAGE)}
    infos = book.state.signal_infos() if imported else {}
    for kind, name in named.items():
        if name in imported and name not in infos:
            raise ConfigError(
                f"Site '{site.id}' takes its {kind} from signal '{name}', which the book does not have. Import it first."
            )
        if name in imported and infos[name].kind != kind:
            raise ConfigError(
                f"Site '{site.id}' takes its {kind} from signal '{name}', which is of {infos[name].kind}."
            )
        if name in imported and kind == "price" and infos[name].unit != f"{site.currency}/kWh":
            raise ConfigError(
                f"Site '{site.id}' counts in {site.currency} and takes its price from signal '{name}', which is in "
                f"{infos[name].unit}. Set its currency to that of the signal."
            )
    rows = book.signal_rows(*sorted(imported)).partition_by("signal", as_dict=True) if imported else {}
    return {
        kind: None
        if name is None
        else Signal.from_table(rows.get((name,), SIGNALS.empty()), infos[name])
        if name in imported
        else _constant(site, kind, name)
        for kind, name in named.items()
    }


def _constant(site: SiteConfig, kind: str, named: float | str) -> Signal:
    unit = {"intensity": "g/kWh", "price": f"{site.currency}/kWh", "water": "L/kWh", "pue": "ratio"}[kind]
    if not isinstance(named, str):
        info = SignalInfo(f"{kind}:{site.id}", kind, unit, "site file", method="constant", note=f"{named:g}")
        return Signal.constant(float(named), info)
    row = average(named.removeprefix(AVERAGE))
    told = f"yearly average, {row.boundary}"
    info = SignalInfo(named, kind, unit, row.source, str(row.year), told, f"{row.intensity_g_per_kwh:g}")
    return Signal.constant(row.intensity_g_per_kwh, info)
