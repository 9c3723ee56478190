"""A book: one directory that holds a cluster's readings, jobs, signals and ledger."""

from __future__ import annotations

import fcntl
import hashlib
import math
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper import config
from wattkeeper.core.assets import MARGIN, Asset, AssetTree, Meter
from wattkeeper.core.clock import day_of, day_start_ms, next_day
from wattkeeper.core.errors import BookError, ConfigError
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.core.schema import ALLOCATIONS, FINDINGS, JOB_DAYS, JOBS, METER_HOURS, POSTINGS, SIGNALS
from wattkeeper.lake.delta import Mark, Partition, Table
from wattkeeper.lake.readings import ReadingsStore, names_of
from wattkeeper.lake.state import State

FORMAT = "2"
"""Layout of the directory; a book of another format is refused."""


NEVER = 2**62
"""No reading is above it."""

FOREVER_MS = 2**62
"""End of what has no end yet."""

CURE = "declare it in the site file under [[meter]]"


class Book:
    """A book on disk. `create` makes one, `Book(root)` opens one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / "state.sqlite").exists():
            raise BookError(f"{root} is not a book. Make one with: wattkeeper init {root}")
        self.state = State(root / "state.sqlite")
        if (found := self.state.fact("format")) != FORMAT:
            raise BookError(f"Book {root} has format {found}; this version of Wattkeeper reads format {FORMAT}.")
        self._writing = False
        self._known: tuple[str | None, AssetTree, list[Meter]] | None = None
        self.readings = ReadingsStore(root)
        self.jobs_table = Table(root / "jobs", JOBS, by_day=False)
        self.allocations_table = Table(root / "allocations", ALLOCATIONS, by_day=False)
        self.signals_table = Table(root / "signals", SIGNALS, by_day=False)
        self.postings = Table(root / "postings", POSTINGS)
        self.job_days = Table(root / "job_days", JOB_DAYS)
        self.meter_hours = Table(root / "meter_hours", METER_HOURS)
        self.findings = Table(root / "findings", FINDINGS)

    @classmethod
    def create(cls, root: Path, site_file: str) -> Book:
        """Make an empty book with a site file (TOML text). Raises BookError where one stands already."""
        config.parse(site_file)
        if root.exists() and any(root.iterdir()):
            raise BookError(f"{root} exists and is not empty. Choose another directory.")
        root.mkdir(parents=True, exist_ok=True)
        (root / "site.toml").write_text(site_file, "utf-8")
        State(root / "state.sqlite").remember(format=FORMAT)
        book = cls(root)
        for table in (book.readings.table, *book.plain_tables, *book.ledger.values()):
            table.create()
        return book

    @property
    def plain_tables(self) -> tuple[Table, Table, Table]:
        """The tables that are not parted by day."""
        return self.jobs_table, self.allocations_table, self.signals_table

    @property
    def ledger(self) -> dict[str, Table]:
        """The tables that attribution writes, by name."""
        return {t.spec.name: t for t in (self.postings, self.job_days, self.meter_hours, self.findings)}

    @property
    def site_digest(self) -> str:
        """What the site file says, as a digest: it changes with each edit."""
        return hashlib.blake2b((self.root / "site.toml").read_bytes(), digest_size=16).hexdigest()

    @cached_property
    def site_file(self) -> config.SiteFile:
        """The site file."""
        return config.load(self.root / "site.toml")

    def tree(self) -> AssetTree:
        """Return all assets: those of the site file, then those that imports met."""
        return self._registered()[0]

    def meters(self) -> list[Meter]:
        """Return all meters: those of the site file win over those that imports met."""
        return self._registered()[1]

    def _registered(self) -> tuple[AssetTree, list[Meter]]:
        """Return all assets and meters, read anew only when an import has met new ones."""
        now = self.state.fact("registered")
        if self._known is None or self._known[0] != now:
            tree = self.site_file.assets().with_assets(self.state.assets())
            met = {m.id: m for m in self.state.meters()}
            self._known = (now, tree, list((met | {m.id: m for m in self.site_file.meters()}).values()))
        return self._known[1:]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only process that writes to the book; waits while another one does. Within it, once more is the same."""
        if self._writing:
            yield
            return
        with (self.root / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._writing = True
            try:
                yield
            finally:
                self._writing = False

    def take(self, intake: Intake, now_ms: int, mark: Mark | None = None, *, replace: bool = False) -> list[Reject]:
        """Keep one batch; return the rows it refused, its own and those that fit nothing in the book.

        Two values for one thing are both kept, and a rule that does not know the order of import says which stands;
        that is told. replace: what the batch has takes the place of what the book has of the same: readings of a meter at
        an instant, jobs with their allocations, stretches of a signal.
        Days that the batch touches are marked before it is committed: a crash in between costs a look, not a number.
        mark: how far a source was read, kept with the readings in one commit.
        """
        with self.writing():
            return self._take(intake, now_ms, mark, replace=replace)

    def _take(self, intake: Intake, now_ms: int, mark: Mark | None, *, replace: bool) -> list[Reject]:
        refused = list(intake.rejects)
        self.state.register(self._placed(intake, refused), intake.meters, intake.signal_infos)
        accepted = 0
        for part, rows in self._by_day(intake, refused):
            self.readings.append(rows, part, replace=replace)
            self.state.mark_stale([(part[0], *self._span(*part))])
            accepted += rows.height
        self.readings.table.commit(mark)
        new = (intake.jobs, intake.allocations, intake.signals)
        for table, told, same in zip(self.plain_tables, new, (_same_job, _same_holding, _same_stretch), strict=True):
            rows = told
            if table is self.signals_table and intake.replaces:
                rows = self._new_signals(intake)
            elif rows.height and replace:
                self._drop(table, same, intake)
            elif rows.height and table is not self.allocations_table:
                refused += self._contradicted(table, rows, intake.source)
            if rows.height:
                self.state.mark_stale(self._touched(rows))
                if table is self.allocations_table:
                    self.state.mark_stale(self._guesses_touched(rows))
                table.write(rows.select(table.spec.schema.names()).sort("start_ms"))
            table.commit()
            accepted += rows.height
        self.state.note_losses(intake.losses)
        self.state.log_import(intake.source, now_ms, accepted, refused)
        return refused

    def _drop(self, table: Table, same: Callable[[pl.DataFrame, Intake], pl.Series], intake: Intake) -> None:
        """Stage the removal of the rows that an intake stands in the place of, by making the table's files anew."""
        rows = table.scan().collect()
        gone = same(rows, intake)
        if gone.any():
            self.state.mark_stale(self._touched(rows.filter(gone)))
            table.drop(table.files())
            table.write(rows.filter(~gone))

    def _contradicted(self, table: Table, rows: pl.DataFrame, source: str) -> list[Reject]:
        """Return what changes nothing, as the book has it otherwise: a lesser value of a signal, an earlier end of a job
        or other words on it."""
        if table is self.signals_table:
            keys, told, what, stands = ["signal", "start_ms", "end_ms"], ["value"], "signal", "the larger value stands"
            known, beaten = (
                self.signal_rows(*rows["signal"].unique().to_list()),
                pl.col("value") < pl.col("value_known"),
            )
        else:
            keys, told, what, stands = ["job_id"], ["end_ms", "user", "project", "state"], "job", "the later end stands"
            known = self.jobs().filter(pl.col("end_ms").is_not_null())
            other = pl.any_horizontal(pl.col(c).is_not_null() & (pl.col(c) != pl.col(f"{c}_known")) for c in told[1:])
            earlier, same = (op(pl.col("end_ms"), pl.col("end_ms_known")) for op in (pl.Expr.lt, pl.Expr.eq))
            beaten = earlier | (same & other)
        both = rows.join(known.select(*keys, *told), on=keys, suffix="_known")
        found = both.filter(beaten).group_by(keys[0]).len().sort(keys[0])
        return [
            Reject(
                source, 0, f"{what} '{name}' ({n}): the book has it otherwise and {stands}; to correct it: --replace"
            )
            for name, n in found.iter_rows()
        ]

    def placed(self, assets: Iterable[Asset]) -> list[Asset]:
        """Return assets with new nodes put where the site file wants them. Raises ConfigError where it does not say."""
        return [a if a.parent != "" else replace(a, parent=self.site_file.parent_of_new_nodes) for a in assets]

    def _new_signals(self, intake: Intake) -> pl.DataFrame:
        """Return the signal rows that the book has to add; stage the removal of those that they replace.

        A row that comes again as it was stays where it is, so that nothing is attributed anew for it. Files that hold
        rows to be replaced are written anew without them.
        """
        rows, old = intake.signals.select(SIGNALS.schema.names()), self.signals_table
        named, start = pl.col("signal"), pl.col("start_ms")
        spans = [(named == s) & (start >= a) & (start < b) for s, a, b in intake.replaces]
        stood = old.scan().filter(pl.any_horizontal(spans)).collect()
        gone = stood.join(rows, on=rows.columns, how="anti")
        if gone.height:
            self.state.mark_stale(self._touched(gone))
            for file in old.files():
                held = pl.read_parquet(old.root / file.path)
                kept = held.join(gone, on=rows.columns, how="anti")
                if kept.height < held.height:
                    old.drop([file])
                    if kept.height:
                        old.write(kept)
        return rows.join(stood, on=rows.columns, how="anti")

    def _placed(self, intake: Intake, refused: list[Reject]) -> list[Asset]:
        """Return an intake's new assets that have a place in the book; the others are refused.

        Raises ConfigError where one leaves its place open and the site file does too.
        """
        known = set(self.tree().assets)
        new = [a for a in intake.assets if a.id not in known]
        fitting: list[Asset] = []
        while new:
            ready = [a for a in new if a.parent in known or not a.parent]
            if not ready:
                break
            fitting += self.placed(ready)
            known |= {a.id for a in ready}
            new = [a for a in new if a.id not in known]
        for a in new:
            why = f"asset '{a.id}' stands in '{a.parent}', which the book does not have: declare it in the site file"
            refused.append(Reject(intake.source, 0, why))
        return fitting

    def _by_day(self, intake: Intake, refused: list[Reject]) -> Iterable[tuple[Partition, pl.DataFrame]]:
        """Yield an intake's readings by site and local day; readings of unknown meters are refused."""
        if not intake.readings.height:
            return
        tree = self.tree()
        known = {m.id: m for m in self.meters()}
        sites = {m.id: tree.site_of(m.asset) for m in known.values() if m.asset in tree.assets}
        rows = self._possible(_coded(intake.readings), known, intake.source, refused)
        codes, names = rows["meter"].to_physical().to_numpy(), names_of(rows["meter"])
        places = sorted(set(sites.values()))
        number = {site: i for i, site in enumerate(places)}
        where = np.array([number[sites[m]] if m in sites else -1 for m in names], np.int32)
        for code, count in enumerate(np.bincount(codes, minlength=len(names)).tolist()):
            if count and where[code] < 0:
                meter = known.get(names[code])
                why = f"unknown meter '{names[code]}': declare it in the site file under [[meter]]"
                if meter is not None:
                    why = (
                        f"meter '{meter.id}', which measures '{meter.asset}': the book has no such asset. Correct the "
                        "meter's asset in the site file, or declare that asset"
                    )
                refused.append(Reject(intake.source, 0, f"{count} readings of {why}"))
        at = where[codes]
        for i, site in enumerate(places):
            here = at == i
            yield from self._days_of(site, rows if here.all() else rows.filter(here))

    def _possible(
        self, rows: pl.DataFrame, known: Mapping[str, Meter], source: str, refused: list[Reject]
    ) -> pl.DataFrame:
        """Return the readings without power, or energy of an interval, that the asset cannot draw; those are refused.

        The bound is 1.2 × the asset's ceiling, as for counters, which are looked at step by step when they are read.
        """
        tree, names = self.tree(), names_of(rows["meter"])
        bound, span_ms = np.full(len(names), NEVER, np.int64), np.zeros(len(names), np.int64)
        for code, name in enumerate(names):
            meter = known.get(name)
            if meter is None or meter.asset not in tree.assets:
                continue
            span_ms[code] = {"power": 1000, "energy_interval": meter.interval_ms}.get(meter.quantity, 0)
            if span_ms[code] and (ceiling_w := tree[meter.asset].ceiling_w):
                bound[code] = round(MARGIN * ceiling_w * int(span_ms[code]))
        codes, value = rows["meter"].to_physical().to_numpy(), rows["value"].to_numpy()
        above = value > bound[codes]
        for code in np.unique(codes[above]).tolist():
            bad = value[above & (codes == code)]
            ceiling_w, largest_w = tree[known[names[code]].asset].ceiling_w, bad.max() / span_ms[code]
            why = f"up to {largest_w:,.0f} W, and it cannot draw more than {ceiling_w:,.0f} W"
            cure = "is the unit right? Else set max_power_w of its asset"
            refused.append(Reject(source, 0, f"{len(bad)} readings of meter '{names[code]}': {why}; {cure}"))
        return rows.filter(~above) if above.any() else rows

    def _days_of(self, site: str, rows: pl.DataFrame) -> Iterable[tuple[Partition, pl.DataFrame]]:
        """Yield a site's readings by local day."""
        if not rows.height:
            return
        first, last = rows["time_ms"].min(), rows["time_ms"].max()
        zone = self.site_file.site_named(site).timezone
        edges, days = _day_edges(int(first), int(last), zone)  # type: ignore[arg-type]
        if len(days) == 1:
            yield (site, days[0]), rows
            return
        place = np.searchsorted(edges, rows["time_ms"].to_numpy(), side="right") - 1
        for i in np.flatnonzero(np.bincount(place)).tolist():
            yield (site, days[i]), rows.filter(place == i)

    def _span(self, site: str, day: str) -> tuple[int, int]:
        zone = self.site_file.site_named(site).timezone
        return day_start_ms(day, zone), day_start_ms(next_day(day), zone)

    def _touched(self, rows: pl.DataFrame) -> list[tuple[str, int, int]]:
        """Return the spans that some jobs, allocations or signal values may change: at every site."""
        low, high = rows.select(pl.col("start_ms").min(), pl.col("end_ms").max().alias("high")).row(0)
        if rows["end_ms"].null_count() or high is None:
            high = FOREVER_MS
        return [(site.id, low, high) for site in self.site_file.site]

    def _guesses_touched(self, rows: pl.DataFrame) -> list[tuple[str, int, int]]:
        """Return the spans of rows split by count that exact rows of the same jobs may now stand in the place of."""
        exact = rows.filter(~pl.col("estimated"))["job_id"].unique().to_list()
        guessed = self.allocations_table.scan().filter("estimated").filter(pl.col("job_id").is_in(exact)).collect()
        return self._touched(guessed) if guessed.height else []

    def vacuum(self, keep_days: float, *, dry_run: bool) -> tuple[int, int]:
        """Delete what no version of the last days needs; return how many files and bytes those are.

        keep_days: at least as long as anything may write to the book at a time; statements older than that can no longer
        be made again from the versions they name. dry_run: delete nothing.
        """
        with self.writing():
            return self._vacuum(math.ceil(keep_days * 24), dry_run=dry_run)

    def _vacuum(self, keep_hours: int, *, dry_run: bool) -> tuple[int, int]:
        tables = (self.readings.table, *self.plain_tables, *self.ledger.values())
        sizes = {p: p.stat().st_size for t in tables for p in t.root.rglob("*.parquet")}
        gone = [p for t in tables for p in t.vacuum(keep_hours, dry_run=dry_run)]
        if not dry_run:
            self.readings.forget_indexes()
        return len(gone), sum(sizes.get(p, 0) for p in gone)

    def jobs(self) -> pl.DataFrame:
        """Return the jobs, one row each: what is known last about a job wins, ended over running."""
        rows = self.jobs_table.scan().collect()
        order = ["job_id", pl.col("end_ms").is_not_null(), "end_ms", "start_ms", "state", "name", "user", "project"]
        return (
            rows.sort(order)
            .group_by("job_id", maintain_order=True)
            .agg(
                pl.col("name", "user", "project", "partition", "state").drop_nulls().last(),
                pl.col("submit_ms", "start_ms").min(),
                pl.col("end_ms").last(),
                pl.col("nodes", "cpus", "gpus").max(),
                pl.col("scheduler_energy_j").last(),
            )
        )

    def allocations(self) -> pl.DataFrame:
        """Return the allocations as received."""
        return self.allocations_table.scan().collect()

    def signal_rows(self, *signals: str) -> pl.DataFrame:
        """Return the rows of some signals."""
        return self.signals_table.scan().filter(pl.col("signal").is_in(signals)).collect()

    def write_site_file(self, text: str) -> None:
        """Put another site file in the book; every day is looked at again."""
        try:
            config.parse(text)
        except tomllib.TOMLDecodeError as error:  # pragma: no cover - parse wraps it
            raise ConfigError(str(error)) from error
        (self.root / "site.toml").write_text(text, "utf-8")
        self.__dict__.pop("site_file", None)
        self._known = None
        self.state.mark_stale((site.id, 0, FOREVER_MS) for site in self.site_file.site)


def _same_job(rows: pl.DataFrame, intake: Intake) -> pl.Series:
    return rows["job_id"].is_in(intake.jobs["job_id"].unique().to_list())


def _same_holding(rows: pl.DataFrame, intake: Intake) -> pl.Series:
    """Return the allocations of jobs that the intake tells anew, or else of the same job on the same asset."""
    held = intake.allocations.select("job_id", "asset").unique().with_columns(held=pl.lit(value=True))
    told = rows.join(held, on=["job_id", "asset"], how="left", maintain_order="left")["held"].fill_null(value=False)
    return told | _same_job(rows, intake)


def _same_stretch(rows: pl.DataFrame, intake: Intake) -> pl.Series:
    """Return the stretches of signals that lie within one of the intake's."""
    new = (
        intake.signals.select("signal", "start_ms", pl.col("end_ms").alias("until_ms"))
        .unique()
        .sort("start_ms", "until_ms")
    )
    placed = rows.with_row_index("row").sort("start_ms")
    found = placed.join_asof(new, on="start_ms", by="signal", strategy="backward", check_sortedness=False)
    return found.sort("row").select((pl.col("until_ms") >= pl.col("end_ms")).fill_null(value=False)).to_series()


def _coded(readings: pl.DataFrame) -> pl.DataFrame:
    """Return readings with their meters as an Enum in the order of their names."""
    if readings.schema["meter"] != pl.String:
        return readings
    names = readings["meter"].unique().sort()
    return readings.with_columns(pl.col("meter").cast(pl.Enum(names)))


def _day_edges(first_ms: int, last_ms: int, zone: str) -> tuple[NDArray[np.int64], list[str]]:
    """Return where the local days from one instant to another begin [ms], and their names."""
    days = [day_of(first_ms, zone)]
    while day_start_ms(next_day(days[-1]), zone) <= last_ms:
        days.append(next_day(days[-1]))
    return np.array([day_start_ms(d, zone) for d in days], np.int64), days
