"""The statement: where the energy of a period went, what it cost the climate and the purse, and how sure that is.

Every number is a query on the postings. Uncertainty is standard uncertainty (k = 1) after the GUM (JCGM 100:2008):
a meter's error band is a rectangle of half-width a, so u = a / √3; imputed energy may be anything from nothing to twice
itself, so u = imputed / √3; different assets' meters are independent and add in quadrature, one meter's hours do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from wattkeeper.config import SiteConfig
from wattkeeper.core.assets import AssetTree, Meter
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.units import MJ_PER_KWH, kwh
from wattkeeper.report.words import grouped

ACCOUNTS = ("job", "held_idle", "idle", "overhead", "unaccounted")
NAMES = dict(zip(ACCOUNTS, ("jobs", "held idle", "idle", "overhead", "unaccounted"), strict=True))
LEVELS = ("node", "rack", "hall", "site")
"""Cuts by place; each of their rows also has its energy by account, `ACCOUNT_mj`."""
BY = ("job", "user", "project", *LEVELS, "account", "hour", "day")

_SUMS = (
    "energy_mj", "imputed_mj", "bridged_mj", "estimated_mj", "held_ms", "covered_ms", "busy_ms", "known_ms",
    "carbon_g", "cost", "water_l",
)  # fmt: skip
_FAILED = ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL", "DEADLINE")
_ROOT3 = 3.0**0.5


@dataclass(frozen=True)
class Period:
    """What a statement is about: its name and the instants [start_ms, end_ms)."""

    name: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Statement:
    """Everything any face of a statement prints.

    accounts: one row per account; rows: one per whatever `by` says; both have the sums of postings, `coverage` and
    `uncertainty_mj`. meter_mj: what the meters of the sites measured (or a PUE made of it). hours: energy by account
    and hour. failed, consumers, findings: small tables. note: why there are no rows, "" where there are.
    Rows by rack or hall have null for energy that stands in none.
    """

    title: str
    period: Period
    by: str
    sites: tuple[SiteConfig, ...]
    accounts: pl.DataFrame
    rows: pl.DataFrame
    hours: pl.DataFrame
    failed: pl.DataFrame
    consumers: pl.DataFrame
    findings: pl.DataFrame
    meter_mj: int
    uncertainty_mj: float
    jobs_ended: int
    kwh_per_job: float | None
    utilisation: float | None
    utilisation_known: float
    no_intensity: float
    embodied_g: dict[str, float] = field(default_factory=dict)
    signals: tuple[SignalInfo, ...] = ()
    versions: dict[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def residual_mj(self) -> int:
        """Postings less meter; anything but 0 is a fault."""
        return int(sum(self.accounts["energy_mj"].to_list())) - self.meter_mj

    def energy_mj(self, account: str) -> int:
        """Return the energy of one account."""
        return int(sum(self.accounts.filter(pl.col("account") == account)["energy_mj"].to_list()))

    def total(self, column: str) -> float | None:
        """Return a sum over all accounts; None where the column is nowhere known."""
        values = self.accounts[column].drop_nulls()
        return float(values.sum()) if len(values) else None

    @property
    def coverage(self) -> float | None:
        """Part of the asset-time on the books in which a meter was read."""
        held = self.total("held_ms")
        return (self.total("covered_ms") or 0.0) / held if held else None

    @property
    def balance_line(self) -> str:
        """The balance: the meter and the accounts it went to, in kWh."""
        parts = [f"{NAMES[a]} {grouped(kwh(self.energy_mj(a)), 3)}" for a in ACCOUNTS]
        wrong = f" DIFFERENCE {self.residual_mj:+,} mJ" if self.residual_mj else ""
        return f"meter {grouped(kwh(self.meter_mj), 3)} kWh = {' + '.join(parts)}{wrong}"

    @property
    def pue(self) -> float | None:
        """Facility energy over IT energy of the period; None where no overhead is on the books."""
        overhead = self.energy_mj("overhead")
        it = self.meter_mj - overhead
        return self.meter_mj / it if overhead and it > 0 else None


@dataclass(frozen=True)
class Sources:
    """What a statement is made from: frames of the period, and what is known of assets, meters, sites and signals.

    postings: POSTINGS of the period. jobs: JOBS. findings: FINDINGS of the period.
    no_intensity: part of the energy for whose hours no intensity is known.
    """

    postings: pl.LazyFrame
    jobs: pl.DataFrame
    findings: pl.DataFrame
    tree: AssetTree
    meters: Sequence[Meter]
    sites: Sequence[SiteConfig]
    signals: Sequence[SignalInfo] = ()
    no_intensity: float = 0.0
    embodied_g: dict[str, float] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)


def build(sources: Sources, meter_mj: int, period: Period, by: str = "job", title: str = "") -> Statement:
    """Return the statement of a period. Raises ConfigError for a `by` that is none of BY.

    meter_mj: what the meters say, from the meters' own table, so that the balance line compares two things.
    """
    if by not in BY:
        raise ConfigError(f"A statement cannot be cut by '{by}'. Choose one of {', '.join(BY)}.")
    accuracy = _accuracy(sources.meters)
    by_asset = _sum(sources.postings, ["account", "asset"])
    rows, hours = pl.collect_all([_cut(sources, by), _sum(sources.postings, ["site", "hour_ms", "account"])])
    per_asset = by_asset.collect()
    jobs = rows if by == "job" else _cut(sources, "job").collect()
    finished = jobs.filter(pl.col("end_ms").is_between(period.start_ms, period.end_ms, closed="left"))
    failed = _failed(jobs)
    gpus = [a.id for a in sources.tree.assets.values() if a.kind == "gpu"]
    held = per_asset.filter(pl.col("asset").is_in(gpus) & pl.col("account").is_in(["job", "held_idle"]))
    held_ms, known_ms, busy_ms = (
        int(v or 0) for v in held.select(pl.col("held_ms", "known_ms", "busy_ms").sum()).row(0)
    )
    return Statement(
        title=title,
        period=period,
        by=by,
        sites=tuple(sources.sites),
        accounts=_accounts(per_asset, accuracy),
        rows=rows,
        hours=hours.sort("hour_ms", "account"),
        failed=failed,
        consumers=_consumers(jobs),
        findings=_findings(sources.findings),
        meter_mj=meter_mj,
        uncertainty_mj=_total_uncertainty(per_asset, accuracy),
        jobs_ended=finished.height,
        kwh_per_job=float(finished["energy_mj"].mean()) / MJ_PER_KWH if finished.height else None,  # type: ignore[arg-type]
        utilisation=busy_ms / known_ms if known_ms else None,
        utilisation_known=known_ms / held_ms if held_ms else 0.0,
        no_intensity=sources.no_intensity,
        embodied_g=sources.embodied_g,
        signals=tuple(sources.signals),
        versions=sources.versions,
        note=_no_level(sources.tree, by),
    )


def _no_level(tree: AssetTree, by: str) -> str:
    """Return the sentence that there is nothing of a level; "" where there is, or where `by` is no level of its own."""
    if by not in {"rack", "hall"} or any(a.kind == by for a in tree.assets.values()):
        return ""
    return f"No {by} is declared in the site file, so nothing can be told by {by}."


def _sum(postings: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    return postings.group_by(keys).agg(
        pl.when(pl.col(c).null_count() < pl.len()).then(pl.col(c).sum()).alias(c) for c in _SUMS
    )


def _accuracy(meters: Sequence[Meter]) -> pl.DataFrame:
    """Return the error band of each asset's meters [%], the widest where it has several."""
    rows = [(m.asset, m.accuracy_pct) for m in meters if m.quantity != "utilisation"]
    frame = pl.DataFrame(rows, schema={"asset": pl.String, "accuracy_pct": pl.Float64}, orient="row")
    return frame.group_by("asset").agg(pl.col("accuracy_pct").max())


def _variance() -> pl.Expr:
    """Return an asset's variance [mJ²] from its energy, its imputed part and its meter's error band."""
    measured = (pl.col("energy_mj") - pl.col("imputed_mj")).cast(pl.Float64)
    systematic = measured * pl.col("accuracy_pct").fill_null(0.0) / 100 / _ROOT3
    return systematic**2 + (pl.col("imputed_mj") / _ROOT3) ** 2


def _accounts(per_asset: pl.DataFrame, accuracy: pl.DataFrame) -> pl.DataFrame:
    rows = (
        per_asset.join(accuracy, on="asset", how="left")
        .with_columns(_variance().alias("variance"))
        .group_by("account")
        .agg(*(_sum_or_null(c) for c in _SUMS), pl.col("variance").sum().sqrt().alias("uncertainty_mj"))
        .with_columns(_coverage())
    )
    order = pl.DataFrame({"account": ACCOUNTS})
    zero = ("energy_mj", "imputed_mj", "bridged_mj", "estimated_mj", "held_ms", "covered_ms", "uncertainty_mj")
    return order.join(rows, on="account", how="left", maintain_order="left").with_columns(pl.col(zero).fill_null(0))


def _sum_or_null(column: str) -> pl.Expr:
    return pl.when(pl.col(column).null_count() < pl.len()).then(pl.col(column).sum()).alias(column)


def _coverage() -> pl.Expr:
    return (pl.col("covered_ms") / pl.col("held_ms")).alias("coverage")


def uncertainty_mj(lines: pl.DataFrame, meters: Sequence[Meter]) -> float:
    """Return the standard uncertainty of some lines together [mJ]; lines: asset, energy_mj, imputed_mj."""
    return _total_uncertainty(lines, _accuracy(meters))


def _total_uncertainty(per_asset: pl.DataFrame, accuracy: pl.DataFrame) -> float:
    """Return the uncertainty of all accounts together: one asset's accounts hang on one meter and add up first."""
    rows = per_asset.group_by("asset").agg(pl.col("energy_mj", "imputed_mj").sum())
    return float(rows.join(accuracy, on="asset", how="left").select(_variance().sum().sqrt()).item() or 0.0)


def _cut(sources: Sources, by: str) -> pl.LazyFrame:
    """Return the postings summed by one thing, largest first, with job facts where the thing is a job."""
    postings = sources.postings
    jobs = sources.jobs.lazy()
    if by in {"user", "project"}:
        names = jobs.select("job_id", pl.col(by).fill_null("unknown"))
        sums = _sum(postings.join(names, on="job_id", how="left"), [by])
        return sums.with_columns(_coverage()).sort("energy_mj", descending=True)
    if by == "job":
        held = postings.filter(pl.col("job_id").is_not_null())
        facts = jobs.select("job_id", "name", "user", "project", "state", "start_ms", "end_ms", "gpus")
        sums = _sum(held, ["job_id"]).with_columns(_coverage())
        return sums.join(facts, on="job_id", how="left").sort("energy_mj", "job_id", descending=[True, False])
    if by in LEVELS:
        return _by_level(postings, sources.tree, by)
    key = {"account": "account", "hour": "hour_ms", "day": "day"}[by]
    sums = _sum(postings, [key]).with_columns(_coverage())
    return sums.sort(key) if by in {"hour", "day"} else sums.sort("energy_mj", descending=True)


def _by_level(postings: pl.LazyFrame, tree: AssetTree, level: str) -> pl.LazyFrame:
    """Return the postings summed by node (column `unit`), rack, hall or site, largest first, with energy by account."""
    key = "unit" if level == "node" else level
    if level in {"rack", "hall"}:
        if _no_level(tree, level):
            postings = postings.filter(pl.lit(value=False))
        place = pl.col("asset").replace_strict(_places(tree, level), default=None, return_dtype=pl.String)
        postings = postings.with_columns(place.alias(level))
    by_account = postings.group_by(key).agg(
        pl.col("energy_mj").filter(pl.col("account") == a).sum().alias(f"{a}_mj") for a in ACCOUNTS
    )
    sums = _sum(postings, [key]).with_columns(_coverage()).join(by_account, on=key, nulls_equal=True)
    return sums.sort("energy_mj", key, descending=[True, False])


def _places(tree: AssetTree, kind: str) -> dict[str, str | None]:
    """Return for each asset the nearest of a kind that it is or stands in; None where there is none."""
    return {
        asset: next((a for a in (asset, *tree.ancestors(asset)) if tree[a].kind == kind), None) for asset in tree.assets
    }


def _failed(jobs: pl.DataFrame) -> pl.DataFrame:
    """Return count and energy of jobs that ended without success, by state."""
    return (
        jobs.filter(pl.col("state").is_in(_FAILED))
        .group_by("state")
        .agg(pl.len().alias("jobs"), pl.col("energy_mj").sum())
        .sort("energy_mj", descending=True)
    )


def _consumers(jobs: pl.DataFrame) -> pl.DataFrame:
    """Return the ten users with the most energy."""
    return (
        jobs.group_by(pl.col("user").fill_null("unknown"))
        .agg(pl.len().alias("jobs"), pl.col("energy_mj").sum(), _sum_or_null("carbon_g"), _sum_or_null("cost"))
        .sort("energy_mj", "user", descending=[True, False])
        .head(10)
    )


def _findings(findings: pl.DataFrame) -> pl.DataFrame:
    return (
        findings.group_by("kind")
        .agg(pl.len().alias("count"), pl.col("meter").n_unique().alias("meters"), pl.col("energy_mj").sum())
        .sort("kind")
    )
