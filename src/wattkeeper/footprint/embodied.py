"""Embodied carbon: what making the hardware emitted, spread over its life and given to who held it.

This is the allocation ledger. It is never added to operational carbon, nor to the inventory of the year of purchase:
GHG Protocol Scope 3 counts capital goods in full in the year of acquisition, without depreciation (category 2).

Formula: M = TE × (TiR / EL) × (RR / ToR), Software Carbon Intensity (SCI) specification 1.1, ISO/IEC 21031:2024:
total embodied × time reserved over expected life × resources reserved over all. Here TE is embodied_kg, EL is
lifetime_years, and held_ms of a posting is TiR × RR / ToR already.
"""

from __future__ import annotations

import polars as pl

from wattkeeper.core.assets import AssetTree
from wattkeeper.core.errors import BalanceError
from wattkeeper.core.units import MS_PER_HOUR

HOURS_PER_YEAR = 8766
"""365.25 days: lives of assets span leap years. The SCI example (1000 kg, 4 years, 1 hour, "around 28 g") is worked
there with 365 × 24 = 8760 h and gives 28.54 g; with 8766 h it is 28.52 g."""

SCHEMA = pl.Schema({"asset": pl.String, "account": pl.String, "job_id": pl.String, "embodied_g": pl.Float64})


def grams_per_hour(embodied_kg: float, lifetime_years: float) -> float:
    """Return what one hour of a device carries [g CO2e]: straight line over its life."""
    return embodied_kg * 1000 / (lifetime_years * HOURS_PER_YEAR)


def allocate(postings_held: pl.DataFrame, assets: AssetTree, *, start_ms: int, end_ms: int) -> pl.DataFrame:
    """Return the embodied carbon of [start_ms, end_ms), by asset: to jobs for the time they held it, the rest to idle.

    postings_held: asset, account, job_id, held_ms of the postings in that time. Accounts job and held_idle both hold.
    A MIG instance without a figure of its own carries its slice of the GPU's. Assets without a figure are left out.
    Result: asset, account ("job" or "idle"), job_id, embodied_g; for each asset it adds up to grams_per_hour × hours.
    Raises BalanceError where jobs held an asset for longer than there was time.
    """
    rates = {a.id: grams_per_hour(a.embodied_kg, a.lifetime_years) for a in assets.walk() if a.embodied_kg is not None}
    bearers = _bearers(assets, rates)
    held = (
        postings_held.lazy()
        .filter(pl.col("account").is_in(["job", "held_idle"]) & pl.col("asset").is_in(list(bearers)))
        .with_columns(part=pl.col("asset").replace_strict({a: p for a, (_, p) in bearers.items()}, default=0.0))
        .with_columns(asset=pl.col("asset").replace_strict({a: b for a, (b, _) in bearers.items()}, default=None))
        .group_by("asset", "job_id")
        .agg(device_ms=(pl.col("held_ms") * pl.col("part")).sum())
        .collect()
    )
    jobs = held.with_columns(account=pl.lit("job"))
    taken = dict(held.group_by("asset").agg(pl.col("device_ms").sum()).iter_rows())
    idle = [(asset, _left_ms(asset, end_ms - start_ms, taken.get(asset, 0.0))) for asset in rates]
    rest = pl.DataFrame(idle, {"asset": pl.String(), "device_ms": pl.Float64()}, orient="row")
    rest = rest.with_columns(account=pl.lit("idle"), job_id=pl.lit(None, pl.String))
    rate = pl.col("asset").replace_strict(rates, default=None, return_dtype=pl.Float64)
    both = pl.concat([jobs, rest], how="diagonal").with_columns(embodied_g=rate * pl.col("device_ms") / MS_PER_HOUR)
    return both.select(SCHEMA.names()).cast(SCHEMA).sort("asset", "account", "job_id")


def _bearers(assets: AssetTree, rates: dict[str, float]) -> dict[str, tuple[str, float]]:
    """Return for each asset that can be held: which asset's carbon it carries, and what part of it."""
    bearers = {asset: (asset, 1.0) for asset in rates}
    for asset in assets.walk():
        if asset.kind == "mig" and asset.parent in rates and asset.id not in rates:
            bearers[asset.id] = (asset.parent, asset.slice)
    return bearers


def _left_ms(asset: str, span_ms: int, taken_ms: float) -> float:
    """Return the time nobody held an asset [ms]; half a millisecond of rounded shares is forgiven per second."""
    if taken_ms > span_ms * 1.0005:
        raise BalanceError(f"Jobs held '{asset}' for {taken_ms:.0f} ms in {span_ms} ms. Check its allocations' shares.")
    return max(0.0, span_ms - taken_ms)
