"""What a joule costs at a site: the signals that its site file names."""

from __future__ import annotations

from wattkeeper.config import SiteConfig
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.signal import Signal
from wattkeeper.footprint.averages import average
from wattkeeper.lake.book import Book


def signal_of(book: Book, site: SiteConfig, kind: str) -> Signal | None:
    """Return what a site names as its intensity, price, water or pue; None where it names nothing.

    Raises ConfigError where the site file names a signal that was never imported.
    """
    named = getattr(site, kind)
    if named is None:
        return None
    unit = {"intensity": "g/kWh", "price": f"{site.currency}/kWh", "water": "L/kWh", "pue": "ratio"}[kind]
    if isinstance(named, int | float):
        info = SignalInfo(f"{kind}:{site.id}", kind, unit, "site file", method="constant")
        return Signal.constant(float(named), info)
    if kind == "intensity" and named.startswith("average:"):
        row = average(named.removeprefix("average:"))
        info = SignalInfo(named, kind, unit, row.source, str(row.year), f"yearly average, {row.boundary}")
        return Signal.constant(row.intensity_g_per_kwh, info)
    infos = book.state.signal_infos()
    if named not in infos:
        raise ConfigError(
            f"Site '{site.id}' takes its {kind} from signal '{named}', which the book does not have. Import it first."
        )
    return Signal.from_table(book.signal_rows(named), infos[named])
