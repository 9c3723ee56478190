"""Sorting: what of an intake fits into a book, and on which site and day its readings go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.config import SiteFile
from wattkeeper.core.assets import Asset, AssetTree, Meter
from wattkeeper.core.clock import day_start_ms, days_between
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.lake.bounds import Bounds
from wattkeeper.lake.delta import Partition
from wattkeeper.lake.readings import names_of

CURE = "declare it in the site file under [[meter]]"


def placed(assets: Iterable[Asset], site_file: SiteFile) -> list[Asset]:
    """Return assets with new nodes put where the site file wants them. Raises ConfigError where it does not say."""
    return [a if a.parent != "" else replace(a, parent=site_file.parent_of_new_nodes) for a in assets]


def fitting(intake: Intake, tree: AssetTree, site_file: SiteFile, refused: list[Reject]) -> list[Asset]:
    """Return an intake's new assets that have a place in the book; the others are refused.

    Raises ConfigError where one leaves its place open and the site file does too.
    """
    known = set(tree.assets)
    new = [a for a in intake.assets if a.id not in known]
    found: list[Asset] = []
    while ready := [a for a in new if a.parent in known or not a.parent]:
        found += placed(ready, site_file)
        known |= {a.id for a in ready}
        new = [a for a in new if a.id not in known]
    for a in new:
        why = f"asset '{a.id}' stands in '{a.parent}', which the book does not have: declare it in the site file"
        refused.append(Reject(intake.source, 0, why))
    return found


@dataclass(frozen=True)
class Sorter:
    """Sorts the readings of one intake; what does not fit is added to `refused`."""

    tree: AssetTree
    meters: Mapping[str, Meter]
    zones: Mapping[str, str]
    source: str
    refused: list[Reject]

    def by_day(self, readings: pl.DataFrame) -> Iterator[tuple[Partition, pl.DataFrame]]:
        """Yield readings by site and local day, their meters as an Enum; those of unknown meters are refused."""
        if not readings.height:
            return
        coded = _coded(readings)
        names = names_of(coded["meter"])
        sites = [self._site_of(name) for name in names]
        rows = self._possible(coded, names)
        codes = rows["meter"].to_physical().to_numpy()
        for code, count in enumerate(np.bincount(codes, minlength=len(names)).tolist()):
            if count and sites[code] is None:
                self._refuse(f"{count} readings of {self._stranger(names[code])}")
        places = sorted({site for site in sites if site is not None})
        at = np.array([-1 if site is None else places.index(site) for site in sites], np.int32)[codes]
        for i, site in enumerate(places):
            here = at == i
            yield from _days_of(site, self.zones[site], rows if here.all() else rows.filter(here))

    def _possible(self, rows: pl.DataFrame, names: list[str]) -> pl.DataFrame:
        """Return the readings without those that the asset cannot have, as lake/bounds.py says; those are refused."""
        bounds = Bounds(self.meters, self.tree)
        codes, value = rows["meter"].to_physical().to_numpy(), rows["value"].to_numpy()
        outside = bounds.outside(names, codes, value)
        for code in np.unique(codes[outside]).tolist():
            bad = value[outside & (codes == code)]
            why = bounds.why(names[code], int(bad.min()), int(bad.max()))
            self._refuse(f"{len(bad)} readings of meter '{names[code]}': {why}")
        return rows.filter(~outside) if outside.any() else rows

    def _site_of(self, meter: str) -> str | None:
        known = self.meters.get(meter)
        return self.tree.site_of(known.asset) if known and known.asset in self.tree.assets else None

    def _stranger(self, name: str) -> str:
        """Return in words why the readings of a meter have no place."""
        meter = self.meters.get(name)
        if meter is None:
            return f"unknown meter '{name}': {CURE}"
        return (
            f"meter '{name}', which measures '{meter.asset}': the book has no such asset. Correct the meter's asset "
            "in the site file, or declare that asset"
        )

    def _refuse(self, why: str) -> None:
        self.refused.append(Reject(self.source, 0, why))


def _coded(readings: pl.DataFrame) -> pl.DataFrame:
    """Return readings with their meters as an Enum in the order of their names."""
    if readings.schema["meter"] != pl.String:
        return readings
    names = readings["meter"].unique().sort()
    return readings.with_columns(pl.col("meter").cast(pl.Enum(names)))


def _days_of(site: str, zone: str, rows: pl.DataFrame) -> Iterator[tuple[Partition, pl.DataFrame]]:
    """Yield a site's readings by local day."""
    if not rows.height:
        return
    edges, days = _day_edges(int(rows["time_ms"].min()), int(rows["time_ms"].max()), zone)  # type: ignore[arg-type]
    if len(days) == 1:
        yield (site, days[0]), rows
        return
    place = np.searchsorted(edges, rows["time_ms"].to_numpy(), side="right") - 1
    for i in np.flatnonzero(np.bincount(place)).tolist():
        yield (site, days[i]), rows.filter(place == i)


def _day_edges(first_ms: int, last_ms: int, zone: str) -> tuple[NDArray[np.int64], list[str]]:
    """Return where the local days from one instant to another begin [ms], and their names."""
    days = days_between(first_ms, last_ms + 1, zone)
    return np.array([day_start_ms(d, zone) for d in days], np.int64), days
