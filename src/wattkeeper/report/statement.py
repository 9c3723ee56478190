"""The statement: where the energy of a period went, what it cost the climate and the purse, and how sure that is.

Every number is a query on the postings; `uncertainty.py` says how sure each is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from wattkeeper.config import SiteConfig
from wattkeeper.core.assets import AssetTree, Meter
from wattkeeper.core.counter import RESETS_A_DAY
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.live import Loss
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.units import MJ_PER_KWH, kwh
from wattkeeper.report import uncertainty
from wattkeeper.report.fullcost import full_cost
from wattkeeper.report.words import count, grouped, percent

ACCOUNTS = ("job", "held_idle", "idle", "overhead", "unaccounted")
NAMES = dict(zip(ACCOUNTS, ("jobs", "held idle", "idle", "overhead", "unaccounted"), strict=True))
LEVELS = ("node", "rack", "hall", "site")
"""Cuts by place; each of their rows also has its energy by account, `ACCOUNT_mj`."""
BY = ("job", "user", "project", *LEVELS, "account", "hour", "day")

_SUMS = (
    "energy_mj", "imputed_mj", "bridged_mj", "estimated_mj", "held_ms", "covered_ms", "busy_ms", "known_ms",
    "carbon_g", "cost", "water_l",
)  # fmt: skip
WHOSE = ("job", "user", "project")
"""Cuts whose rows are jobs, and so can bear a full cost."""

_OWNED = pl.col("job_id").is_not_null()
_FAILED = ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL", "DEADLINE")


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
    Rows by node, rack or hall have null for energy that stands in none. embodied_g: by account; rows by job, user,
    project or account have it too where any asset says what making it cost. unspread: with full cost, energy_mj,
    carbon_g, cost and water_l of hours in which no job ran; rows then have full_mj, full_carbon_g, full_cost and
    full_water_l. lost: readings that agents took and could not keep.
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
    unvalued: dict[str, float]
    embodied_g: dict[str, float] = field(default_factory=dict)
    unspread: dict[str, float | None] | None = None
    signals: tuple[SignalInfo, ...] = ()
    versions: dict[str, int] = field(default_factory=dict)
    lost: tuple[Loss, ...] = ()
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
    def has_embodied(self) -> bool:
        """Whether the rows say what making the hardware emitted."""
        return "embodied_g" in self.rows.columns

    @property
    def full_cost_line(self) -> str:
        """What full cost spreads and what of it stays with nobody; "" where the statement is without it."""
        if self.unspread is None:
            return ""
        stays = kwh(self.unspread["energy_mj"] or 0)
        return (
            "Full cost spreads each hour's idle, overhead and unaccounted energy over the jobs that ran in it, by what "
            f"they drew; {grouped(stays, 3)} kWh of hours without jobs stay with nobody."
        )

    @property
    def lost_line(self) -> str:
        """How many readings agents could not keep; "" where they kept all."""
        if not self.lost:
            return ""
        readings, meters = sum(loss.readings for loss in self.lost), {loss.meter for loss in self.lost}
        return (
            f"{count(readings, 'reading')} of {count(len(meters), 'meter')} were thinned or left out by agents, in "
            "stretches that touch this period: counters keep their energy, power is a mean."
        )

    @property
    def restless_line(self) -> str:
        """That a counter was reset so often that its energy cannot be trusted; "" where none was."""
        resets = self.findings.filter((pl.col("kind") == "reset") & (pl.col("most_a_day") > RESETS_A_DAY))
        if resets.is_empty():
            return ""
        return (
            f"A counter was reset {grouped(resets['most_a_day'][0])} times within a day, so its energy cannot be trusted; "
            "wattkeeper check names it and the cure."
        )

    @property
    def by_count_line(self) -> str:
        """How much of the jobs' energy rests on a guess of which GPU; "" where none does."""
        own = self.accounts.filter(pl.col("account").is_in(["job", "held_idle"]))
        energy_mj, counted_mj = (int(v or 0) for v in own.select(pl.col("energy_mj", "estimated_mj").sum()).row(0))
        if not counted_mj:
            return ""
        return (
            f"{grouped(kwh(counted_mj), 3)} kWh, {percent(counted_mj / energy_mj)} of jobs' energy, was split by count: "
            "the cluster could not say which GPU."
        )

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

    postings: POSTINGS of the period. hours: METER_HOURS of its primary meters. jobs: JOBS. findings: FINDINGS of the
    period. meter_mj: what the meters say, from their own table, so that the balance line compares two things; by_pue_mj:
    overhead in it that a site's PUE makes. unvalued: by kind of signal, the part of the energy for whose hours it has
    no value. embodied: asset, account, job_id, embodied_g. lost: what agents could not keep of the period.
    """

    postings: pl.LazyFrame
    hours: pl.LazyFrame
    jobs: pl.DataFrame
    findings: pl.DataFrame
    tree: AssetTree
    meters: Sequence[Meter]
    sites: Sequence[SiteConfig]
    meter_mj: int
    by_pue_mj: dict[str, int] = field(default_factory=dict)
    signals: Sequence[SignalInfo] = ()
    unvalued: dict[str, float] = field(default_factory=dict)
    embodied: pl.DataFrame | None = None
    versions: dict[str, int] = field(default_factory=dict)
    lost: Sequence[Loss] = ()


def build(sources: Sources, period: Period, by: str = "job", title: str = "", *, full: bool = False) -> Statement:
    """Return the statement of a period; full: with the full cost of each job, user or project.

    Raises ConfigError for a `by` that is none of BY, or with full none of WHOSE.
    """
    if by not in BY:
        raise ConfigError(f"A statement cannot be cut by '{by}'. Choose one of {', '.join(BY)}.")
    if full and by not in WHOSE:
        raise ConfigError(f"Full cost is what jobs bear; it cannot be cut by '{by}'. Choose one of {', '.join(WHOSE)}.")
    lines, key = _keyed(sources, by)
    by_account, parts, hours = pl.collect_all(
        [
            _parts(sources.postings, "account"),
            _parts(lines, key),
            _sum(sources.postings, ["site", "hour_ms", "account"]),
        ]
    )
    meters = uncertainty.Instruments.of(sources.hours, sources.meters, sources.tree)
    rows = _rows(parts, lines, key, sources.postings, meters)
    jobs = _told(rows if by == "job" else _sum(sources.postings.filter(_OWNED), ["job_id"]).collect(), sources.jobs)
    unspread = None
    if full:
        shares, stays = full_cost(sources.postings)
        rows = rows.join(_summed(shares, sources.jobs, key), on=key, how="left", nulls_equal=True)
        unspread = stays.to_dicts()[0]
    ended = pl.col("end_ms").is_between(period.start_ms, period.end_ms, closed="left")
    finished = jobs.filter(ended)
    # one that ended as it began has no posting, and ended all the same
    instant = sources.jobs.filter(ended & (pl.col("end_ms") == pl.col("start_ms")))["job_id"]
    jobs_ended = len(set(finished["job_id"]) | set(instant))
    gpus = [a.id for a in sources.tree.assets.values() if a.kind == "gpu"]
    held = by_account.filter(pl.col("asset").is_in(gpus) & pl.col("account").is_in(["job", "held_idle"]))
    held_ms, known_ms, busy_ms = (
        int(v or 0) for v in held.select(pl.col("held_ms", "known_ms", "busy_ms").sum()).row(0)
    )
    return Statement(
        title=title,
        period=period,
        by=by,
        sites=tuple(sources.sites),
        accounts=_accounts(_rows(by_account, sources.postings, "account", sources.postings, meters)),
        rows=_ordered(_with_embodied(_with_levels(_named(rows, jobs, by), sources, by), sources, by), by),
        hours=hours.sort("hour_ms", "account"),
        failed=_failed(jobs),
        consumers=_consumers(jobs),
        findings=_findings(sources.findings),
        meter_mj=sources.meter_mj,
        uncertainty_mj=uncertainty.total_mj(meters, sources.by_pue_mj),
        jobs_ended=jobs_ended,
        kwh_per_job=float(finished["energy_mj"].sum()) / MJ_PER_KWH / jobs_ended if jobs_ended else None,
        utilisation=busy_ms / known_ms if known_ms else None,
        utilisation_known=known_ms / held_ms if held_ms else 0.0,
        unvalued=sources.unvalued,
        embodied_g=_embodied_by(sources, "account"),
        unspread=unspread,
        signals=tuple(sources.signals),
        versions=sources.versions,
        lost=tuple(sources.lost),
        note=_no_level(sources.tree, by),
    )


def _no_level(tree: AssetTree, by: str) -> str:
    """Return the sentence that there is nothing of a level; "" where there is, or where `by` is no level of its own."""
    if by not in {"node", "rack", "hall"} or any(a.kind == by for a in tree.assets.values()):
        return ""
    return f"No {by} is declared in the site file, so nothing can be told by {by}."


def _sum(postings: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    return postings.group_by(keys).agg(_sum_or_null(c) for c in _SUMS)


def _parts(lines: pl.LazyFrame, key: str) -> pl.LazyFrame:
    """Return the sums of lines by a key, site and asset."""
    return _sum(lines, list(dict.fromkeys([key, "site", "asset"])))


def _rows(
    parts: pl.DataFrame, lines: pl.LazyFrame, key: str, every: pl.LazyFrame, meters: uncertainty.Instruments
) -> pl.DataFrame:
    """Return the sums by a key alone, with coverage and standard uncertainty. parts: `_parts` of the lines."""
    sums = parts.group_by(key).agg(_sum_or_null(c) for c in _SUMS).with_columns(_coverage())
    sure = uncertainty.of_rows(parts, lines, [key], every, meters)
    return sums.join(sure, on=key, how="left", nulls_equal=True)


def _accounts(rows: pl.DataFrame) -> pl.DataFrame:
    order = pl.DataFrame({"account": ACCOUNTS})
    zero = ("energy_mj", "imputed_mj", "bridged_mj", "estimated_mj", "held_ms", "covered_ms", "uncertainty_mj")
    return order.join(rows, on="account", how="left", maintain_order="left").with_columns(pl.col(zero).fill_null(0))


def _sum_or_null(column: str) -> pl.Expr:
    return pl.when(pl.col(column).null_count() < pl.len()).then(pl.col(column).sum()).alias(column)


def _coverage() -> pl.Expr:
    return (pl.col("covered_ms") / pl.col("held_ms")).alias("coverage")


def _keyed(sources: Sources, by: str) -> tuple[pl.LazyFrame, str]:
    """Return the postings with the column that they are cut by, and its name."""
    lines = sources.postings
    if by == "job":
        return lines.filter(_OWNED), "job_id"
    if by in {"user", "project"}:
        named = lines.join(sources.jobs.lazy().select("job_id", by), on="job_id", how="left")
        return named.with_columns(pl.when(_OWNED).then(pl.col(by).fill_null("unknown"))), by
    if by in {"node", "rack", "hall"}:
        if _no_level(sources.tree, by):
            lines = lines.filter(pl.lit(value=False))
        place = pl.col("asset").replace_strict(_places(sources.tree, by), default=None, return_dtype=pl.String)
        return lines.with_columns(place.alias(by)), by
    return lines, {"site": "site", "account": "account", "hour": "hour_ms", "day": "day"}[by]


def _named(rows: pl.DataFrame, jobs: pl.DataFrame, by: str) -> pl.DataFrame:
    """Return the rows by job with what is known of the job; other rows as they are."""
    facts = [c for c in jobs.columns if c not in rows.columns]
    return rows.join(jobs.select("job_id", *facts), on="job_id", how="left") if by == "job" and facts else rows


def _told(rows: pl.DataFrame, jobs: pl.DataFrame) -> pl.DataFrame:
    facts = jobs.select("job_id", "name", "user", "project", "state", "start_ms", "end_ms", "gpus")
    return rows.join(facts, on="job_id", how="left")


def _with_levels(rows: pl.DataFrame, sources: Sources, by: str) -> pl.DataFrame:
    """Return the rows by node, rack, hall or site with their energy by account."""
    if by not in LEVELS:
        return rows
    lines, key = _keyed(sources, by)
    by_account = lines.group_by(key).agg(
        pl.col("energy_mj").filter(pl.col("account") == a).sum().alias(f"{a}_mj") for a in ACCOUNTS
    )
    return rows.join(by_account.collect(), on=key, how="left", nulls_equal=True)


def _with_embodied(rows: pl.DataFrame, sources: Sources, by: str) -> pl.DataFrame:
    """Return the rows by job, user, project or account with their embodied carbon, where there is any."""
    if sources.embodied is None or by not in (*WHOSE, "account"):
        return rows
    key = "job_id" if by == "job" else by
    grams = _embodied_by(sources, by)
    return rows.with_columns(
        pl.col(key).replace_strict(grams, default=0.0, return_dtype=pl.Float64).alias("embodied_g")
    )


def _embodied_by(sources: Sources, by: str) -> dict[str, float]:
    """Return embodied carbon [g] by account, job, user or project; what nobody holds is left out of the latter."""
    if sources.embodied is None:
        return {}
    if by == "account":
        return dict(sources.embodied.group_by("account").agg(pl.col("embodied_g").sum()).iter_rows())
    held = sources.embodied.filter(pl.col("job_id").is_not_null()).group_by("job_id").agg(pl.col("embodied_g").sum())
    return dict(_summed(held, sources.jobs, "job_id" if by == "job" else by).iter_rows())


def _summed(shares: pl.DataFrame, jobs: pl.DataFrame, key: str) -> pl.DataFrame:
    """Return what each job has, summed by job, user or project: the key first."""
    columns = [c for c in shares.columns if c != "job_id"]
    if key == "job_id":
        return shares.select("job_id", *columns)
    named = shares.join(jobs.select("job_id", key), on="job_id", how="left").with_columns(
        pl.col(key).fill_null("unknown")
    )
    return named.group_by(key).agg(_sum_or_null(c) for c in columns)


def _ordered(rows: pl.DataFrame, by: str) -> pl.DataFrame:
    """Return the rows in order of time, or largest first."""
    key = rows.columns[0]
    return rows.sort(key) if by in {"hour", "day"} else rows.sort("energy_mj", key, descending=[True, False])


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
    """Return findings by kind; most_a_day: the most of one meter within a day."""
    per_day = (
        findings.group_by("kind", "meter", "day").len().group_by("kind").agg(pl.col("len").max().alias("most_a_day"))
    )
    return (
        findings.group_by("kind")
        .agg(pl.len().alias("count"), pl.col("meter").n_unique().alias("meters"), pl.col("energy_mj").sum())
        .join(per_day, on="kind")
        .sort("kind")
    )
