"""How sure an energy is: standard uncertainty (k = 1) after the GUM (JCGM 100:2008).

A line of the ledger is a share of what a meter shows, or of what it shows beyond the meters inside it. So any sum of
lines is a weighted sum of meters: with f the part of an asset's lines that is in the sum, the asset's own meter weighs f
less the f of the nearest metered asset around it. Independent meters add in quadrature (GUM 5.1.2); a meter's hours do
not, they share one error. What a PUE adds hangs on the meters it multiplies and adds to their error directly (5.2.2).

Of each meter: its maker's error band is a rectangle of half-width a, u = a / √3 (4.3.7); energy imputed may be anything
from nothing to twice itself, u = imputed / √3; a difference of two readings of a counter that moves in steps q has
u = q / √6, two rectangles of width q (F.2.2.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from wattkeeper.core.assets import AssetTree, Meter

SAME = 1e-9
"""Shares that differ by less are one share: then an inner meter tells nothing about the sum."""

WEIGHT = pl.col("energy_mj").abs().sum().alias("weight_mj")
"""What the parts of `of_parts` are weighed by; their sum is never 0 while there is energy."""


def instruments(hours: pl.LazyFrame, meters: Sequence[Meter], tree: AssetTree) -> pl.DataFrame:
    """Return each metered asset with the variance [mJ²] of what its meters show in the period.

    hours: METER_HOURS of the primary meters in the period. Result: site; asset; above, the nearest metered asset around
    it; energy_mj; band_mj2 from the error bands; inner_mj2, the sum of band_mj2 of the assets it is `above` of;
    step_mj2 from the resolution; imputed_mj2.
    """
    facts = pl.LazyFrame(
        [(m.id, m.accuracy_pct, float(m.resolution_mj)) for m in meters],
        schema={"meter": pl.String, "accuracy_pct": pl.Float64, "resolution_mj": pl.Float64},
        orient="row",
    )
    measured = (pl.col("energy_mj") - pl.col("imputed_mj")).cast(pl.Float64)
    by_asset = (
        hours.group_by("site", "asset", "meter")
        .agg(pl.col("energy_mj", "imputed_mj").sum())
        .join(facts, on="meter", how="left")
        .group_by("site", "asset")
        .agg(
            pl.col("energy_mj").sum(),
            ((measured * pl.col("accuracy_pct").fill_null(0.0) / 100) ** 2 / 3).sum().alias("band_mj2"),
            (pl.col("resolution_mj").fill_null(0.0) ** 2 / 6).sum().alias("step_mj2"),
            (pl.col("imputed_mj").cast(pl.Float64) ** 2 / 3).sum().alias("imputed_mj2"),
        )
        .collect()
    )
    metered = set(by_asset["asset"].to_list())
    around = {a: next((up for up in tree.ancestors(a) if up in metered), None) for a in metered}
    placed = by_asset.with_columns(
        pl.col("asset").replace_strict(around, default=None, return_dtype=pl.String).alias("above")
    )
    inner = placed.group_by(pl.col("above").alias("asset")).agg(pl.col("band_mj2").sum().alias("inner_mj2"))
    return placed.join(inner, on="asset", how="left").with_columns(pl.col("inner_mj2").fill_null(0.0))


def total_mj(meters: pl.DataFrame, by_pue_mj: Mapping[str, int]) -> float:
    """Return the standard uncertainty [mJ] of all lines together.

    meters: from `instruments`. by_pue_mj: overhead of each site that a PUE makes rather than a meter.
    """
    scaled = [(u_mj * (1 + by_pue_mj.get(site, 0) / energy_mj)) for site, energy_mj, u_mj in _outer(meters).iter_rows()]
    return float(sum(u_mj**2 for u_mj in scaled) ** 0.5)


def of_parts(parts: pl.DataFrame, keys: Sequence[str], whole: pl.DataFrame, meters: pl.DataFrame) -> pl.DataFrame:
    """Return the standard uncertainty [mJ] of the lines by some keys: the keys and `uncertainty_mj`.

    parts: sums of lines by the keys, site and asset: weight_mj (see WEIGHT), held_ms, imputed_mj. whole: the same sums
    of all lines by site and asset. meters: from `instruments`.
    """
    by_site = list(dict.fromkeys([*keys, "site"]))
    all_of = whole.select("site", "asset", pl.col("weight_mj").alias("all_mj"), pl.col("held_ms").alias("all_ms"))
    share = pl.when(pl.col("all_mj") > 0).then(pl.col("weight_mj") / pl.col("all_mj"))
    shares = (
        parts.select(*by_site, "asset", "weight_mj", "held_ms", "imputed_mj")
        .join(all_of, on=["site", "asset"])
        .with_columns(share.otherwise(pl.col("held_ms") / pl.col("all_ms")).fill_nan(0.0).alias("f"))
        .join(meters.drop("site", "energy_mj"), on="asset", how="left")
    )
    inside = shares.filter(pl.col("above").is_not_null())
    around = shares.select(*keys, pl.col("asset").alias("above"), pl.col("f").alias("f_above"))
    if inside.height:
        shares = shares.join(around, on=[*keys, "above"], how="left", nulls_equal=True)
    else:
        shares = shares.with_columns(f_above=0.0)
    f, f_above = pl.col("f"), pl.col("f_above").fill_null(0.0)
    variance = (
        f**2 * (pl.col("band_mj2") + pl.col("inner_mj2"))
        - 2 * f * f_above * pl.col("band_mj2")
        + pl.when((f - f_above).abs() > SAME).then(pl.col("step_mj2")).otherwise(0.0)
        + pl.col("imputed_mj").cast(pl.Float64) ** 2 / 3
    )
    relative = _outer(meters).select("site", (pl.col("u_mj") / pl.col("energy_mj")).alias("relative"))
    sums = (
        shares.join(relative, on="site", how="left")
        .group_by(by_site)
        .agg(
            pl.when(pl.col("band_mj2").is_not_null()).then(variance).sum().clip(0.0).sqrt().alias("u_mj"),
            pl.when(pl.col("band_mj2").is_null())
            .then(pl.col("weight_mj") * pl.col("relative"))
            .sum()
            .alias("by_pue_mj"),
        )
    )
    u_mj = pl.col("u_mj") + pl.col("by_pue_mj").fill_null(0.0)
    return sums.group_by(list(keys)).agg((u_mj**2).sum().sqrt().alias("uncertainty_mj"))


def _outer(meters: pl.DataFrame) -> pl.DataFrame:
    """Return for each site what its outermost meters show and its standard uncertainty: site, energy_mj, u_mj."""
    variance = pl.sum_horizontal("band_mj2", "step_mj2", "imputed_mj2").sum()
    sums = meters.filter(pl.col("above").is_null()).group_by("site")
    return sums.agg(pl.col("energy_mj").sum(), variance.sqrt().alias("u_mj")).filter(pl.col("energy_mj") > 0)
