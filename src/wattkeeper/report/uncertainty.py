"""How sure an energy is: standard uncertainty (k = 1) after the GUM (JCGM 100:2008).

A line of the ledger is a share of what a meter shows in an hour, or of what it shows beyond the meters inside it. So any
sum of lines is a weighted sum of meter-hours: with f the part of an asset's lines of an hour that is in the sum, the
asset's own meter weighs f less the f of the nearest metered asset around it. A meter's hours share one error and add up
first; independent meters then add in quadrature (GUM 5.1.2). What a PUE adds hangs on the meters it multiplies and adds
to their error directly (5.2.2).

Of each meter: its maker's error band is a rectangle of half-width a, u = a / √3 (4.3.7); energy imputed may be anything
from nothing to twice itself, u = imputed / √3; a difference of two readings of a counter that moves in steps q has
u = q / √6, two rectangles of width q (F.2.2.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from wattkeeper.core.assets import AssetTree, Meter

_ROOT3 = 3.0**0.5
_NOTHING_MJ = 0.5
"""A sum that weighs a meter's energy by less than this does not hang on it."""


@dataclass(frozen=True)
class Instruments:
    """What measures in a period. hours: METER_HOURS of the primary meters.

    assets: each metered asset with site; above, the nearest metered asset around it; energy_mj; relative, the standard
    uncertainty of its meters by their error bands, as a part of what they show; step_mj2, the variance by their
    resolution; variance_mj2, all of it, imputed energy too.
    """

    hours: pl.LazyFrame
    assets: pl.DataFrame

    @classmethod
    def of(cls, hours: pl.LazyFrame, meters: Sequence[Meter], tree: AssetTree) -> Instruments:
        """Return what the primary meters of some hours are worth."""
        facts = pl.LazyFrame(
            [(m.id, m.accuracy_pct, float(m.resolution_mj)) for m in meters],
            schema={"meter": pl.String, "accuracy_pct": pl.Float64, "resolution_mj": pl.Float64},
            orient="row",
        )
        band = (pl.col("energy_mj") * pl.col("accuracy_pct").fill_null(0.0) / 100 / _ROOT3) ** 2
        by_asset = (
            hours.group_by("site", "asset", "meter")
            .agg(pl.col("energy_mj", "imputed_mj").sum())
            .join(facts, on="meter", how="left")
            .group_by("site", "asset")
            .agg(
                pl.col("energy_mj").sum(),
                band.sum().alias("band_mj2"),
                (pl.col("resolution_mj").fill_null(0.0) ** 2 / 6).sum().alias("step_mj2"),
                (pl.col("imputed_mj").cast(pl.Float64) ** 2 / 3).sum().alias("imputed_mj2"),
            )
            .collect()
        )
        metered = set(by_asset["asset"].to_list())
        around = {a: next((up for up in tree.ancestors(a) if up in metered), None) for a in metered}
        relative = pl.when(pl.col("energy_mj") != 0).then(pl.col("band_mj2").sqrt() / pl.col("energy_mj").abs())
        assets = by_asset.select(
            "site",
            "asset",
            pl.col("asset").replace_strict(around, default=None, return_dtype=pl.String).alias("above"),
            "energy_mj",
            relative.otherwise(0.0).alias("relative"),
            "step_mj2",
            pl.sum_horizontal("band_mj2", "step_mj2", "imputed_mj2").alias("variance_mj2"),
        )
        return cls(hours, assets)

    @property
    def outer(self) -> pl.DataFrame:
        """What the outermost meters of each site show, and its standard uncertainty: site, energy_mj, u_mj."""
        sums = self.assets.filter(pl.col("above").is_null()).group_by("site")
        return sums.agg(pl.col("energy_mj").sum(), pl.col("variance_mj2").sum().sqrt().alias("u_mj")).filter(
            pl.col("energy_mj") > 0
        )

    @property
    def holders(self) -> list[str]:
        """Metered assets around others."""
        return self.assets["above"].drop_nulls().unique().to_list()


def total_mj(meters: Instruments, by_pue_mj: Mapping[str, int]) -> float:
    """Return the standard uncertainty [mJ] of all lines together.

    by_pue_mj: overhead of each site that a PUE makes rather than a meter.
    """
    scaled = [(u_mj * (1 + by_pue_mj.get(site, 0) / energy_mj)) for site, energy_mj, u_mj in meters.outer.iter_rows()]
    return float(sum(u_mj**2 for u_mj in scaled) ** 0.5)


def of_rows(
    parts: pl.DataFrame, lines: pl.LazyFrame, keys: Sequence[str], every: pl.LazyFrame, meters: Instruments
) -> pl.DataFrame:
    """Return the standard uncertainty [mJ] of some lines by some keys: the keys and `uncertainty_mj`.

    lines: postings with the keys. parts: their energy_mj and imputed_mj summed by the keys, site and asset. every: all
    postings of the hours that the lines are of, at least those of their units. meters: of the same hours.
    """
    by_site = list(dict.fromkeys([*keys, "site"]))
    by_asset = [*by_site, "asset"]
    shown = parts.select(*by_asset, pl.col("energy_mj").cast(pl.Float64).alias("weighed_mj"), "imputed_mj")
    if meters.holders:
        shown = _beyond(shown, lines, by_site, every, meters)
    weighed = shown.join(meters.assets.drop("site", "energy_mj"), on="asset", how="left")
    hangs = pl.col("weighed_mj").abs() > _NOTHING_MJ
    variance = (
        (pl.col("weighed_mj") * pl.col("relative")) ** 2
        + pl.when(hangs).then(pl.col("step_mj2")).otherwise(0.0)
        + pl.col("imputed_mj").cast(pl.Float64) ** 2 / 3
    )
    is_metered = pl.col("relative").is_not_null()
    it = meters.outer.select("site", (pl.col("u_mj") / pl.col("energy_mj")).alias("it_relative"))
    sums = (
        weighed.join(it, on="site", how="left")
        .group_by(by_site)
        .agg(
            pl.when(is_metered).then(variance).sum().sqrt().alias("u_mj"),
            pl.when(~is_metered).then(pl.col("weighed_mj").abs() * pl.col("it_relative")).sum().alias("by_pue_mj"),
        )
    )
    u_mj = pl.col("u_mj") + pl.col("by_pue_mj").fill_null(0.0)
    return sums.group_by(list(keys)).agg((u_mj**2).sum().sqrt().alias("uncertainty_mj"))


def _beyond(
    shown: pl.DataFrame, lines: pl.LazyFrame, by_site: list[str], every: pl.LazyFrame, meters: Instruments
) -> pl.DataFrame:
    """Return by how much of each meter the sums hang on it, where meters stand within others: asset, weighed_mj.

    An asset with others in it weighs its share of its own meter, and takes the same share of theirs away.
    """
    by_asset = [*by_site, "asset"]
    holds = pl.col("asset").is_in(meters.holders)
    weights = pl.col("energy_mj").abs().sum().alias("weight"), pl.col("held_ms").sum()
    whole = every.filter(holds).group_by("asset", "hour_ms").agg(*weights)
    share = pl.when(pl.col("weight_all") > 0).then(pl.col("weight") / pl.col("weight_all"))
    hours = meters.hours.group_by("asset", "hour_ms").agg(pl.col("energy_mj").sum().alias("meter_mj"))
    shares = (
        lines.filter(holds)
        .group_by(list(dict.fromkeys([*by_asset, "hour_ms"])))
        .agg(*weights)
        .join(whole, on=["asset", "hour_ms"], suffix="_all")
        .with_columns(share.otherwise(pl.col("held_ms") / pl.col("held_ms_all")).fill_nan(0.0).alias("share"))
        .select(*dict.fromkeys([*by_asset, "hour_ms"]), "share")
    )
    portion = (pl.col("share") * pl.col("meter_mj")).sum().alias("weighed_mj")
    own = shares.join(hours, on=["asset", "hour_ms"]).group_by(by_asset).agg(portion)
    inside = meters.assets.lazy().filter(pl.col("above").is_not_null()).select("above", pl.col("asset").alias("inner"))
    inner_hours = inside.join(hours, left_on="inner", right_on="asset")
    taken = (
        shares.join(inner_hours, left_on=["asset", "hour_ms"], right_on=["above", "hour_ms"])
        .group_by(*by_site, pl.col("inner").alias("asset"))
        .agg(-portion)
    )
    own_rows, taken_rows = pl.collect_all([own, taken])
    flat = shown.filter(~holds).select(*by_asset, "weighed_mj")
    weighed = pl.concat([flat, own_rows.select(flat.columns), taken_rows.select(flat.columns)])
    imputed = shown.select(*by_asset, "imputed_mj")
    return (
        weighed.group_by(by_asset)
        .agg(pl.col("weighed_mj").sum())
        .join(imputed, on=by_asset, how="full", coalesce=True, nulls_equal=True)
        .with_columns(pl.col("weighed_mj", "imputed_mj").fill_null(0))
    )
