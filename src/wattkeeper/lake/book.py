"""A book: one directory that holds a cluster's readings, jobs, signals and ledger."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

import polars as pl

from wattkeeper import config
from wattkeeper.core.assets import Asset, AssetTree, Meter
from wattkeeper.core.clock import day_start_ms, next_day
from wattkeeper.core.errors import BookError
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.core.schema import ALLOCATIONS, FINDINGS, JOB_DAYS, JOBS, METER_HOURS, POSTINGS, SIGNALS
from wattkeeper.lake.corrections import (
    BY_RANK,
    contradicted_jobs,
    contradicted_readings,
    contradicted_signals,
    giving_way,
    make_way,
    must_be_alike,
    same_readings,
)
from wattkeeper.lake.delta import Mark, Table
from wattkeeper.lake.doubles import Doubles, doubles_in
from wattkeeper.lake.lock import WritingLock, nothing
from wattkeeper.lake.readings import ReadingsStore
from wattkeeper.lake.sorting import Sorter, fitting, placed
from wattkeeper.lake.state import State

FORMAT = "2"
"""Layout of the directory; a book of another format is refused."""

FOREVER_MS = 2**62
"""End of what has no end yet."""


class Book:
    """A book on disk. `create` makes one, `Book(root)` opens one. say: told once that writing waits for another process."""

    def __init__(self, root: Path, say: Callable[[str], None] = nothing) -> None:
        self.root = root
        if not (root / "state.sqlite").exists():
            raise BookError(f"{root} is not a book. Make one with: wattkeeper init {root}")
        self.state = State(root / "state.sqlite")
        if (found := self.state.fact("format")) != FORMAT:
            raise BookError(f"Book {root} has format {found}; this version of Wattkeeper reads format {FORMAT}.")
        self._lock = WritingLock(root / "lock", say)
        self._known: tuple[str | None, AssetTree, list[Meter]] | None = None
        self.readings = ReadingsStore(root)
        self._doubles = Doubles(self.readings.table.root)
        self.jobs_table = Table(root / "jobs", JOBS, by_day=False, durable=True)
        self.allocations_table = Table(root / "allocations", ALLOCATIONS, by_day=False, durable=True)
        self.signals_table = Table(root / "signals", SIGNALS, by_day=False, durable=True)
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

    def writing(self) -> AbstractContextManager[None]:
        """Be the only thread that writes to the book; waits while another one does, of this process or any other. Within
        it, once more is the same."""
        return self._lock.held()

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
        assets = fitting(intake, self.tree(), self.site_file, refused)
        infos = self.state.signal_infos() if intake.signal_infos else {}
        for info in intake.signal_infos:
            must_be_alike(infos.get(info.id, info), info)
        self.state.register(assets, intake.meters, intake.signal_infos)
        accepted = self._take_readings(intake, refused, replace=replace)
        self.readings.table.commit(mark)
        masks = giving_way(intake, replace=replace)
        for table, told in zip(self.plain_tables, (intake.jobs, intake.allocations, intake.signals), strict=True):
            rows = told
            if mask := masks.get(table.spec.name):
                gone, rows = make_way(table, table.files(), told, mask)
                self._mark_touched(gone)
            elif table is self.jobs_table and told.height:
                ids = told["job_id"].unique().to_list()
                known = table.scan().filter(pl.col("job_id").is_in(ids)).collect()
                refused += contradicted_jobs(told, known, intake.source)
            elif table is self.signals_table and told.height:
                known = self.signal_rows(*told["signal"].unique().to_list())
                refused += contradicted_signals(told, known, intake.source)
            if rows.height:
                self._mark_touched(rows)
                if table is self.allocations_table:
                    self._mark_touched(self._guesses_of(rows))
                elif table is self.jobs_table:
                    self._mark_touched(self._open_of(rows))
                table.write(rows.select(table.spec.schema.names()).sort("start_ms"))
            table.commit()
            accepted += rows.height
        self.state.note_losses(intake.losses)
        self.state.log_import(intake.source, now_ms, accepted, refused)
        return refused

    def _take_readings(self, intake: Intake, refused: list[Reject], *, replace: bool) -> int:
        """Stage an intake's readings; return how many were taken."""
        if not intake.readings.height:
            return 0
        meters = {m.id: m for m in self.meters()}
        zones = {site.id: site.timezone for site in self.site_file.site}
        sorter = Sorter(self.tree(), meters, zones, intake.source, refused)
        days, pairs, accepted = self.readings.days(), [], 0
        for part, rows in sorter.by_day(intake.readings):
            there = days.get(part, [])
            if replace:
                make_way(
                    self.readings.table, there, rows.with_columns(pl.col("meter").cast(pl.String)), same_readings(rows)
                )
                there = []
            pairs += [doubles_in(self.readings.append(rows, part)), *self._doubles.beside(rows, there)]
            self.state.mark_stale([(part[0], *self._span(*part))])
            accepted += rows.height
        if pairs:
            refused += contradicted_readings(pl.concat(pairs), meters, intake.source)
        return accepted

    def placed(self, assets: Iterable[Asset]) -> list[Asset]:
        """Return assets with new nodes put where the site file wants them. Raises ConfigError where it does not say."""
        return placed(assets, self.site_file)

    def _span(self, site: str, day: str) -> tuple[int, int]:
        zone = self.site_file.site_named(site).timezone
        return day_start_ms(day, zone), day_start_ms(next_day(day), zone)

    def _mark_touched(self, rows: pl.DataFrame) -> None:
        """Mark the spans that some jobs, allocations or signal values may change: at every site."""
        if not rows.height:
            return
        low, high = rows.select(pl.col("start_ms").min(), pl.col("end_ms").max().alias("high")).row(0)
        if rows["end_ms"].null_count() or high is None:
            high = FOREVER_MS
        self.state.mark_stale([(site.id, low, high) for site in self.site_file.site])

    def _guesses_of(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the allocations split by count that exact ones of the same jobs may now stand in the place of."""
        exact = rows.filter(~pl.col("estimated"))["job_id"].unique().to_list()
        return self.allocations_table.scan().filter("estimated").filter(pl.col("job_id").is_in(exact)).collect()

    def _open_of(self, jobs: pl.DataFrame) -> pl.DataFrame:
        """Return the allocations without an end of jobs that have ended: they end with them."""
        ended = jobs.drop_nulls("end_ms")["job_id"].unique().to_list()
        return (
            self.allocations_table.scan().filter(pl.col("end_ms").is_null() & pl.col("job_id").is_in(ended)).collect()
        )

    def vacuum(self, keep_days: float, *, dry_run: bool) -> tuple[int, int]:
        """Delete what no version of the last days needs, and the log of those versions; return how many files and bytes.

        keep_days: at least as long as anything may write to the book at a time; statements older than that can no longer
        be made again from the versions they name. dry_run: delete nothing, and say what would go. Raises
        BookError where the ledger is half made.
        """
        with self.writing():
            return self._vacuum(math.ceil(keep_days * 24), dry_run=dry_run)

    def _vacuum(self, keep_hours: int, *, dry_run: bool) -> tuple[int, int]:
        named: dict[str, int] = json.loads(self.state.fact("ledger") or "{}")
        if any(self.ledger[name].changed_since(version) for name, version in named.items()):
            raise BookError(f"The last attribution of {self.root} broke off. Run: wattkeeper attribute")
        tables = (self.readings.table, *self.plain_tables, *self.ledger.values())
        sizes = {p: p.stat().st_size for t in tables for p in t.root.rglob("*.parquet")}
        log = {p: size for t in tables for p, size in t.log().items()}
        old = [p for t in tables for p in t.old_log(keep_hours)] if dry_run else []
        gone = [p for t in tables for p in t.vacuum(keep_hours, dry_run=dry_run)]
        if not dry_run:
            if named:
                self.state.remember(ledger=json.dumps({name: self.ledger[name].version() for name in named}))
            for table in tables:
                table.forget_log()
            self.readings.forget_indexes()
            old = [p for p in log if not p.exists()]
        return len(gone) + len(old), sum(sizes.get(p, 0) for p in gone) + sum(log[p] for p in old)

    def jobs(self) -> pl.DataFrame:
        """Return the jobs, one row each: what is known last about a job wins, ended over running, a later run over both."""
        rows = self.jobs_table.scan().collect()
        return (
            rows.sort(BY_RANK)
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

    def ended(self, allocations: pl.DataFrame) -> pl.DataFrame:
        """Return allocations, those without an end ended with the run of their job in which they began.

        So a node that dies before its epilog, or a list of running jobs, leaves nothing held for ever. What runs still
        runs on.
        """
        rows = allocations.with_row_index("row")
        open_ = rows.filter(pl.col("end_ms").is_null()).select("row", "job_id", "start_ms")
        if not open_.height:
            return allocations
        jobs = self.jobs_table.scan().filter(pl.col("job_id").is_in(open_["job_id"].unique().to_list()))
        runs = jobs.group_by("job_id", "start_ms").agg(pl.col("end_ms").max().alias("until_ms")).collect()
        after = open_.join(runs.select("job_id", "until_ms"), on="job_id").filter(
            pl.col("until_ms") > pl.col("start_ms")
        )
        first = after.group_by("row").agg(pl.col("until_ms").min())
        ends = pl.coalesce("end_ms", "until_ms").alias("end_ms")
        return rows.join(first, on="row", how="left", maintain_order="left").with_columns(ends).drop("row", "until_ms")

    def signal_rows(self, *signals: str) -> pl.DataFrame:
        """Return the rows of some signals."""
        return self.signals_table.scan().filter(pl.col("signal").is_in(signals)).collect()

    def write_site_file(self, text: str) -> None:
        """Put another site file in the book; every day is looked at again."""
        config.parse(text)
        (self.root / "site.toml").write_text(text, "utf-8")
        self.__dict__.pop("site_file", None)
        self._known = None
        self.state.mark_stale((site.id, 0, FOREVER_MS) for site in self.site_file.site)
