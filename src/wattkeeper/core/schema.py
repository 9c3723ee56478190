"""The tables of a book, each declared once: its columns, units and meaning.

The Arrow and Polars schemas, the checks on import and the reference page `docs/reference/tables.md` all come from
these declarations.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Polars type, its unit ("" for none), what it means, and whether it may be null."""

    name: str
    dtype: pl.DataType
    unit: str
    meaning: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table: its name, what one row is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pl.Schema:
        """The Polars schema."""
        return pl.Schema({c.name: c.dtype for c in self.columns})

    def nullable(self, column: str) -> bool:
        """Return whether a column may be null."""
        return next(c.nullable for c in self.columns if c.name == column)

    def empty(self) -> pl.DataFrame:
        """Return the table with no rows."""
        return pl.DataFrame(schema=self.schema)


_TEXT, _INT, _REAL, _BOOL = pl.String(), pl.Int64(), pl.Float64(), pl.Boolean()

READINGS = TableSpec(
    "readings",
    "one value a meter showed at one instant, as received",
    (
        Column("meter", _TEXT, "", "id of the meter"),
        Column("time_ms", _INT, "ms UTC", "when the value was true"),
        Column("value", _INT, "mJ, mW or ppm", "the value, in the unit of the meter's quantity"),
    ),
)

JOBS = TableSpec(
    "jobs",
    "one job as its scheduler tells it",
    (
        Column("job_id", _TEXT, "", "id, unique in the book"),
        Column("name", _TEXT, "", "job name", nullable=True),
        Column("user", _TEXT, "", "who asked for it", nullable=True),
        Column("project", _TEXT, "", "what it is charged to (Slurm account, namespace)", nullable=True),
        Column("partition", _TEXT, "", "partition or queue", nullable=True),
        Column("state", _TEXT, "", "COMPLETED, FAILED, CANCELLED, TIMEOUT, RUNNING …", nullable=True),
        Column("submit_ms", _INT, "ms UTC", "when it was asked for", nullable=True),
        Column("start_ms", _INT, "ms UTC", "first start"),
        Column("end_ms", _INT, "ms UTC", "last end; null while it runs", nullable=True),
        Column("nodes", _INT, "", "nodes held", nullable=True),
        Column("cpus", _INT, "", "CPUs held", nullable=True),
        Column("gpus", _INT, "", "GPUs held", nullable=True),
        Column("scheduler_energy_j", _REAL, "J", "what the scheduler itself says it drew", nullable=True),
    ),
)

ALLOCATIONS = TableSpec(
    "allocations",
    "one job holding one asset, or a share of it, for one stretch of time",
    (
        Column("job_id", _TEXT, "", "the job"),
        Column("asset", _TEXT, "", "what it held: a node, a GPU or a MIG instance"),
        Column("start_ms", _INT, "ms UTC", "from this instant"),
        Column("end_ms", _INT, "ms UTC", "to before this one; null while it runs", nullable=True),
        Column("share", _REAL, "", "part of the asset held, 0 to 1"),
        Column("estimated", _BOOL, "", "true where the cluster could not tell which GPU, and the count was split"),
    ),
)

SIGNALS = TableSpec(
    "signals",
    "one value of a step function of time",
    (
        Column("signal", _TEXT, "", "id, such as intensity:DE-LU or price:DE-LU or pue:site-a"),
        Column("start_ms", _INT, "ms UTC", "from this instant"),
        Column("end_ms", _INT, "ms UTC", "to before this one"),
        Column("value", _REAL, "signal's unit", "g/kWh, currency/kWh, L/kWh or a ratio"),
    ),
)

POSTINGS = TableSpec(
    "postings",
    "an amount of energy of one asset in one hour on one account",
    (
        Column("site", _TEXT, "", "the site"),
        Column("day", _TEXT, "", "local day at the site, YYYY-MM-DD"),
        Column("hour_ms", _INT, "ms UTC", "start of the local hour"),
        Column(
            "start_ms",
            _INT,
            "ms UTC",
            "start of this part of the hour; an hour is parted only where a meter begins or ends",
        ),
        Column("unit", _TEXT, "", "the node (or lone asset) whose books this line belongs to"),
        Column("asset", _TEXT, "", "whose energy: a device, or a node for what its devices leave over"),
        Column("account", _TEXT, "", "job, held_idle, idle, overhead or unaccounted"),
        Column("job_id", _TEXT, "", "the job, for job and held_idle", nullable=True),
        Column("energy_mj", _INT, "mJ", "the amount; only unaccounted may be negative"),
        Column("imputed_mj", _INT, "mJ", "the part of it that no meter saw"),
        Column("bridged_mj", _INT, "mJ", "the part exact in total whose timing is interpolated over a gap"),
        Column("estimated_mj", _INT, "mJ", "the part split by count because the cluster could not say which GPU"),
        Column("held_ms", _INT, "ms", "asset-time on this account"),
        Column("covered_ms", _INT, "ms", "the part of it in which the meter was read"),
        Column("busy_ms", _INT, "ms", "utilisation × time; null where no utilisation was read", nullable=True),
        Column("known_ms", _INT, "ms", "the part of held_ms in which utilisation was read"),
        Column("carbon_g", _REAL, "g CO2e", "location-based, ∫ intensity dE", nullable=True),
        Column("cost", _REAL, "currency", "∫ price dE", nullable=True),
        Column("water_l", _REAL, "L", "∫ water intensity dE", nullable=True),
    ),
)

_KEYS = frozenset({"hour_ms", "start_ms", "unit", "asset"})

JOB_DAYS = TableSpec(
    "job_days",
    "what one job, or all that no job holds, has on one account in a piece of a day: sums of postings",
    tuple(c for c in POSTINGS.columns if c.name not in _KEYS),
)

METER_HOURS = TableSpec(
    "meter_hours",
    "what one meter measured in one hour, whoever it is charged to",
    (
        Column("site", _TEXT, "", "the site"),
        Column("day", _TEXT, "", "local day at the site, YYYY-MM-DD"),
        Column("hour_ms", _INT, "ms UTC", "start of the local hour"),
        Column(
            "start_ms",
            _INT,
            "ms UTC",
            "start of this part of the hour; an hour is parted only where a meter begins or ends",
        ),
        Column("unit", _TEXT, "", "the node (or lone asset) it was read with"),
        Column("asset", _TEXT, "", "what it measures"),
        Column("meter", _TEXT, "", "the meter"),
        Column("primary", _BOOL, "", "true where the books use it, false where it only confirms"),
        Column("energy_mj", _INT, "mJ", "energy in the hour"),
        Column("imputed_mj", _INT, "mJ", "the part that no meter saw"),
        Column("bridged_mj", _INT, "mJ", "the part interpolated in time over a gap that the counter survived"),
        Column("spanned_ms", _INT, "ms", "time its curve spans"),
        Column("covered_ms", _INT, "ms", "the part of it in which it was read"),
    ),
)

FINDINGS = TableSpec(
    "findings",
    "something about a meter that the reader of a number should know",
    (
        Column("site", _TEXT, "", "the site"),
        Column("day", _TEXT, "", "local day at the site, YYYY-MM-DD"),
        Column("unit", _TEXT, "", "the node (or lone asset) it was read with"),
        Column("meter", _TEXT, "", "the meter"),
        Column("kind", _TEXT, "", "gap, reset, wrap, glitch, bound"),
        Column("start_ms", _INT, "ms UTC", "from"),
        Column("end_ms", _INT, "ms UTC", "to"),
        Column("energy_mj", _INT, "mJ", "energy booked over it"),
    ),
)

TABLES: tuple[TableSpec, ...] = (READINGS, JOBS, ALLOCATIONS, SIGNALS, POSTINGS, JOB_DAYS, METER_HOURS, FINDINGS)
