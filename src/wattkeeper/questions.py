"""Questions to an attributed book: the statement, one job, the meters. Each is a query on the ledger."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import polars as pl

from wattkeeper.config import SiteConfig
from wattkeeper.core import counter
from wattkeeper.core.assets import AssetTree
from wattkeeper.core.clock import day_of, day_start_ms, period_days
from wattkeeper.core.errors import ConfigError, UnknownNameError
from wattkeeper.core.schema import JOBS
from wattkeeper.core.units import MJ_PER_KWH, MS_PER_HOUR
from wattkeeper.footprint import embodied
from wattkeeper.lake.book import Book
from wattkeeper.ledger.tables import VALUED
from wattkeeper.report import uncertainty
from wattkeeper.report.statement import Period, Sources, Statement, build
from wattkeeper.valuing import signal_of


@dataclass(frozen=True)
class JobAccount:
    """One job's energy: its facts with totals, and its lines by asset and account."""

    facts: dict[str, Any]
    assets: pl.DataFrame


def job(book: Book, job_id: str) -> JobAccount:
    """Return one job's energy. Raises UnknownNameError when the book has no job of that id, or it drew nothing."""
    columns = ("energy_mj", "imputed_mj", "held_ms", "covered_ms", *VALUED)
    sums = [pl.when(pl.col(c).null_count() < pl.len()).then(pl.col(c).sum()).alias(c) for c in columns]
    lines = book.postings.scan().filter(pl.col("job_id") == pl.lit(job_id)).collect()
    assets = lines.group_by("asset", "account").agg(sums).sort("asset", "account")
    jobs = book.jobs()
    known = jobs.filter(pl.col("job_id") == job_id)
    if not known.height and not assets.height:
        raise UnknownNameError("job", job_id, jobs["job_id"].head(8).to_list())
    facts: dict[str, Any] = dict.fromkeys(JOBS.schema.names()) | (known.to_dicts() or [{}])[0]
    totals = lines.select(sums).to_dicts()[0]
    own = {
        "coverage": totals["covered_ms"] / totals["held_ms"] if totals["held_ms"] else None,
        "held_idle_mj": assets.filter(pl.col("account") == "held_idle")["energy_mj"].sum(),
        "uncertainty_mj": _uncertainty_mj(book, lines),
        "embodied_g": _embodied_g(book, lines),
    }
    return JobAccount(facts | totals | own, assets)


def _uncertainty_mj(book: Book, lines: pl.DataFrame) -> float | None:
    """Return the standard uncertainty of one job's lines together [mJ], among all lines of its units and hours."""
    if not lines.height:
        return None
    beside = pl.col("unit").is_in(lines["unit"].unique().to_list()) & pl.col("hour_ms").is_in(
        lines["hour_ms"].unique().to_list()
    )
    hours = book.meter_hours.scan().filter(beside & pl.col("primary"))
    meters = uncertainty.Instruments.of(hours, book.meters(), book.tree())
    parts = lines.group_by("job_id", "site", "asset").agg(pl.col("energy_mj", "imputed_mj").sum())
    every = book.postings.scan().filter(beside)
    found = uncertainty.of_rows(parts, lines.lazy(), ["job_id"], every, meters)
    return float(found["uncertainty_mj"].item())


def _embodied_g(book: Book, lines: pl.DataFrame) -> float | None:
    """Return what making the hardware emitted, for the time one job held it [g]; None where no asset says."""
    if not lines.height:
        return None
    start_ms, end_ms = int(lines["hour_ms"].min()), int(lines["hour_ms"].max()) + MS_PER_HOUR  # type: ignore[arg-type]
    grams = _embodied(lines.lazy(), book.tree(), start_ms, end_ms)
    return None if grams is None else float(grams.filter(pl.col("job_id").is_not_null())["embodied_g"].sum())


def span_ms(book: Book, period: str | None) -> tuple[int, int]:
    """Return the instants [start_ms, end_ms) of a period in the sites' zone; all of the ledger for None.

    Raises ConfigError where sites in different zones make the period ambiguous.
    """
    if period is None:
        low, high = (
            book.postings.scan().select(pl.col("hour_ms").min(), pl.col("hour_ms").max().alias("high")).collect().row(0)
        )
        return (low, high + MS_PER_HOUR) if low is not None else (0, 0)
    zones = {s.timezone for s in book.site_file.site}
    first, after = period_days(period)
    spans = {(day_start_ms(first, z), day_start_ms(after, z)) for z in zones}
    if len(spans) > 1:
        raise ConfigError(
            f"Period '{period}' begins at different instants in {', '.join(sorted(zones))}. Name a --site."
        )
    return spans.pop()


def meter_summary(book: Book, period: str | None) -> pl.DataFrame:
    """Return one row per meter: what it reports, its energy, coverage, events, and how far it is from the used one.

    lost: readings that an agent took and could not keep; null where none were.

    difference_pct: energy of a meter that only confirms against the used one, over the hours that both have [%].
    """
    start_ms, end_ms = span_ms(book, period)
    hours = book.meter_hours.scan().filter(pl.col("hour_ms").is_between(start_ms, end_ms, closed="left"))
    used = hours.filter("primary").group_by("asset", "hour_ms").agg(pl.col("energy_mj").sum().alias("used_mj"))
    sums = (
        hours.join(used, on=["asset", "hour_ms"], how="left")
        .with_columns(pl.when(pl.col("used_mj").is_not_null()).then(pl.col("energy_mj")).alias("beside_mj"))
        .group_by("meter", "asset")
        .agg(
            pl.col("primary").any(),
            (pl.col("energy_mj").sum() / MJ_PER_KWH).alias("energy_kwh"),
            (pl.col("covered_ms").sum() / pl.col("spanned_ms").sum()).alias("coverage"),
            pl.when(~pl.col("primary").any())
            .then((pl.col("beside_mj").sum() / pl.col("used_mj").sum() - 1) * 100)
            .alias("difference_pct"),
        )
        .collect()
    )
    events = (
        book.findings.scan()
        .filter(pl.col("end_ms").is_between(start_ms, end_ms, closed="right"))
        .group_by("meter", "kind")
        .len()
        .collect()
        .pivot("kind", index="meter", values="len")
    )
    known = pl.DataFrame(
        [(m.id, m.quantity, m.source, m.accuracy_pct) for m in book.meters()],
        schema={"meter": pl.String, "quantity": pl.String, "source": pl.String, "accuracy_pct": pl.Float64},
        orient="row",
    )
    lost = pl.DataFrame(
        book.state.losses(start_ms, end_ms),
        schema={"meter": pl.String, "start_ms": pl.Int64, "end_ms": pl.Int64, "lost": pl.Int64},
        orient="row",
    )
    lost = lost.group_by("meter").agg(pl.col("lost").sum())
    rows = known.join(sums, on="meter", how="left").join(events, on="meter", how="left")
    rows = rows.join(lost, on="meter", how="left")
    blank = [pl.lit(None, pl.UInt32).alias(k) for k in counter.EVENT_NAMES if k not in rows.columns]
    return rows.with_columns(pl.col("primary").fill_null(value=False), *blank).sort(
        "asset", "primary", "meter", descending=[False, True, False], nulls_last=True
    )


def statement(book: Book, period: str | None = None, by: str = "job", *, full: bool = False) -> Statement:
    """Return the statement of a period (default: the whole ledger), from the table versions of the last attribution.

    full: with the full cost of each job, user or project. Raises ConfigError where the ledger is empty or the period or
    `by` is none.
    """
    ledger = book.state.fact("ledger")
    start_ms, end_ms = span_ms(book, period)
    if ledger is None or start_ms == end_ms:
        raise ConfigError(f"Book {book.root} has no ledger yet. Import readings, then run: wattkeeper attribute")
    made_by = book.state.fact("attributed_by")
    if made_by is None:
        raise ConfigError(f"The ledger of {book.root} was made by an earlier version. Run: wattkeeper attribute")
    if made_by != book.site_digest:
        raise ConfigError(f"{book.root}/site.toml was edited since the ledger was made. Run: wattkeeper attribute")
    versions: dict[str, int] = json.loads(ledger)
    within = pl.col("hour_ms").is_between(start_ms, end_ms, closed="left")
    postings = book.postings.scan(versions["postings"]).filter(within)
    hours = book.meter_hours.scan(versions["meter_hours"]).filter(within & pl.col("primary"))
    findings = book.findings.scan(versions["findings"]).filter(
        pl.col("end_ms").is_between(start_ms, end_ms, closed="right")
    )
    tree = book.tree()
    sites = book.site_file.site
    signals = [s for site in sites for k in ("intensity", "price", "water", "pue") if (s := signal_of(book, site, k))]
    metered_mj, by_pue_mj = _metered_mj(hours, postings, tree)
    sources = Sources(
        postings=postings,
        hours=hours,
        jobs=book.jobs(),
        findings=findings.collect(),
        lost=book.state.losses(start_ms, end_ms),
        tree=tree,
        meters=book.meters(),
        sites=sites,
        meter_mj=metered_mj + sum(by_pue_mj.values()),
        by_pue_mj=by_pue_mj,
        signals=[s.info for s in signals],
        unvalued=_unvalued(book, postings),
        embodied=_embodied(postings, tree, start_ms, end_ms),
        versions=versions,
    )
    zone = sites[0].timezone
    name = period or f"{day_of(start_ms, zone)} to {day_of(end_ms - 1, zone)}"
    return build(sources, Period(name, start_ms, end_ms), by, title=book.site_file.name, full=full)


def _metered_mj(hours: pl.LazyFrame, postings: pl.LazyFrame, tree: AssetTree) -> tuple[int, dict[str, int]]:
    """Return what the outermost meters measured, and by site what a PUE adds where no facility meter stands [mJ]."""
    outermost = hours.select("asset", "hour_ms", "start_ms", "spanned_ms", "energy_mj").collect()
    metered = set(outermost["asset"].unique().to_list())
    pairs = [(a, up) for a in metered for up in tree.ancestors(a) if up in metered]
    sites = [a.id for a in tree.assets.values() if a.kind == "site"]
    by_pue = postings.filter((pl.col("account") == "overhead") & pl.col("asset").is_in(sites)).select(
        "asset", "hour_ms", "start_ms", "energy_mj"
    )
    facility = outermost.lazy().filter(pl.col("asset").is_in(sites))
    beyond = by_pue.join(facility, on=["asset", "hour_ms", "start_ms"], how="anti")
    by_site = beyond.group_by("asset").agg(pl.col("energy_mj").sum()).collect()
    if pairs:
        outermost = outermost.join(_covered(outermost, pairs), on=["asset", "hour_ms", "start_ms"], how="anti")
    return int(outermost["energy_mj"].sum()), dict(by_site.iter_rows())


def _covered(lines: pl.DataFrame, pairs: list[tuple[str, str]]) -> pl.DataFrame:
    """Return the lines of meters that stand in another meter's asset while that is read: asset, hour_ms, start_ms."""
    inside = pl.DataFrame(pairs, schema={"asset": pl.String, "above": pl.String}, orient="row")
    above = lines.select(
        pl.col("asset").alias("above"),
        "hour_ms",
        pl.col("start_ms").alias("from_ms"),
        (pl.col("start_ms") + pl.col("spanned_ms")).alias("to_ms"),
    )
    return (
        lines.select("asset", "hour_ms", "start_ms")
        .join(inside, on="asset")
        .join(above, on=["above", "hour_ms"])
        .filter(pl.col("start_ms").is_between(pl.col("from_ms"), pl.col("to_ms"), closed="left"))
        .select("asset", "hour_ms", "start_ms")
        .unique()
    )


def _unvalued(book: Book, postings: pl.LazyFrame) -> dict[str, float]:
    """Return by kind the part of the energy in hours for which its signal has no value, by the time it is missing.

    Price and water stand in it where a site names them, intensity always.
    """
    energy = postings.group_by("site", "hour_ms").agg(pl.col("energy_mj").sum()).collect()
    total, sites = float(energy["energy_mj"].sum()), book.site_file.site
    kinds = [
        k for k in ("intensity", "price", "water") if k == "intensity" or any(getattr(s, k) is not None for s in sites)
    ]
    return {k: sum(_missing_mj(book, s, k, energy) for s in sites) / total if total else 0.0 for k in kinds}


def _missing_mj(book: Book, site: SiteConfig, kind: str, energy: pl.DataFrame) -> float:
    hour_ms, energy_mj = energy.filter(pl.col("site") == site.id).select("hour_ms", "energy_mj")
    starts, signal = hour_ms.to_numpy(), signal_of(book, site, kind)
    missing_ms = signal.missing_ms(starts, starts + MS_PER_HOUR) if signal else MS_PER_HOUR
    return float((energy_mj.to_numpy() * (missing_ms / MS_PER_HOUR)).sum())


def _embodied(postings: pl.LazyFrame, tree: AssetTree, start_ms: int, end_ms: int) -> pl.DataFrame | None:
    """Return embodied grams by asset, account and job; None where no asset says what making it cost."""
    if not any(a.embodied_kg for a in tree.assets.values()):
        return None
    columns = postings.select("asset", "account", "job_id", "held_ms").collect()
    return embodied.allocate(columns, tree, start_ms=start_ms, end_ms=end_ms)
