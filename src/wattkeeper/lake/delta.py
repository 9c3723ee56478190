"""One Delta table of a book: our own Parquet files, committed to its log in one step.

Files are written first and named in the log after, so a crash leaves the table as it was. A durable table's files are
safe on disk, through a loss of power too, when `commit` returns. Files that a commit replaces stay on disk, and the log
that names them, for time travel until `vacuum` is asked to delete them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction, CommitProperties, PostCommitHookProperties, RemoveAction, Transaction

from wattkeeper.core.schema import TableSpec

ROW_GROUP = 65_536
"""Rows in a row group: few enough that a question about some days leaves most of a long table unread."""

CHECKPOINT = 10
"""Commits from one checkpoint of a log to the next: opening a table reads one checkpoint and fewer commits than this."""

KEEP_LOG = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""A commit leaves the log before it alone: by itself the library deletes what is older than 30 days."""

KEPT_FOR = "delta.logRetentionDuration"
"""The table's property that says how old the log may be that `cleanup_metadata` leaves."""

INSTANTS = frozenset({"hour_ms", "start_ms", "end_ms"})
"""Columns whose least and largest values stand in each file: questions ask for stretches of time."""

Partition = tuple[str, str]
"""Site and local day."""

Mark = tuple[str, int]
"""A source's name, and up to where it was read: it stands in the log in the very version that has the rows."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file in a table's log."""

    path: str
    site: str
    day: str
    rows: int
    bytes: int

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]


@dataclass
class Table:
    """A Delta table under `root`; rows of tables that are not parted by day stand in the partition ("", "").

    durable: for what cannot be made again; what is derived does without the wait for the disk.
    """

    root: Path
    spec: TableSpec
    by_day: bool = True
    durable: bool = False
    _delta: DeltaTable | None = None
    _listed: tuple[int, list[DataFile]] | None = None
    _adds: list[AddAction] = field(default_factory=list)
    _removes: list[RemoveAction] = field(default_factory=list)

    def create(self) -> None:
        """Make the empty table."""
        DeltaTable.create(
            str(self.root), schema=Schema.from_arrow(self._arrow_schema()), partition_by=self._parts or None
        )

    def _newest(self) -> DeltaTable:
        """Return the table at its newest version; only what the log has gained since last time is read."""
        if self._delta is None or not self._logged(self._delta.version()):
            self._delta = DeltaTable(str(self.root))
        elif self.version() > self._delta.version():
            self._delta.update_incremental()
        return self._delta

    @property
    def _parts(self) -> list[str]:
        return ["site", "day"] if self.by_day else []

    def _arrow_schema(self) -> pa.Schema:
        schema = pa.table(self.spec.empty().to_arrow()).schema
        plain = pa.schema([(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in schema])
        if self.by_day and "day" not in plain.names:
            plain = plain.append(pa.field("site", pa.string())).append(pa.field("day", pa.string()))
        return plain

    def files(self) -> list[DataFile]:
        """Return the files of the newest version."""
        if self._listed is None or self._listed[0] != self.version():
            newest = self._newest()
            self._listed = (int(newest.version()), self._list(newest))
        return self._listed[1]

    @staticmethod
    def _list(newest: DeltaTable) -> list[DataFile]:
        actions = pa.table(newest.get_add_actions(flatten=True))
        blank = [""] * actions.num_rows
        names = actions.column_names
        sites = actions["partition.site"].to_pylist() if "partition.site" in names else blank
        days = actions["partition.day"].to_pylist() if "partition.day" in names else blank
        rows, sizes = actions["num_records"].to_pylist(), actions["size_bytes"].to_pylist()
        return [DataFile(*f) for f in zip(actions["path"].to_pylist(), sites, days, rows, sizes, strict=True)]

    def new_path(self, part: Partition, prefix: str = "") -> str:
        """Return a fresh file name for a partition, relative to the table."""
        where = "".join(f"{name}={value}/" for name, value in zip(self._parts, part, strict=False))
        (self.root / where).mkdir(parents=True, exist_ok=True)
        return f"{where}{prefix}{uuid.uuid4().hex}.parquet"

    def write(self, rows: pl.DataFrame | pa.Table, part: Partition = ("", ""), prefix: str = "") -> DataFile:
        """Write rows to a new file and stage it for the next commit; partition columns are left out of the file."""
        arrow = rows.to_arrow() if isinstance(rows, pl.DataFrame) else rows
        path = self.new_path(part, prefix)
        kept = [f for f in arrow.schema if f.name not in self._parts]
        required = pa.schema([f.with_nullable(self.spec.nullable(f.name)) for f in kept])
        pq.write_table(
            pa.table([arrow[f.name] for f in kept], schema=required),
            self.root / path,
            compression="lz4",
            use_dictionary=[f.name for f in kept if _is_text(f.type)],
            write_statistics=[f.name for f in kept if f.name in INSTANTS],
            row_group_size=ROW_GROUP,
        )
        return self.stage(path, part, arrow.num_rows)

    def stage(self, path: str, part: Partition, rows: int) -> DataFile:
        """Stage a file that is written already."""
        size = (self.root / path).stat().st_size
        values: dict[str, str | None] = dict(zip(self._parts, part, strict=False))
        self._adds.append(AddAction(path, size, values, _now_ms(), True, json.dumps({"numRecords": rows})))
        return DataFile(path, *part, rows, size)

    def drop(self, files: Sequence[DataFile]) -> None:
        """Stage the removal of files."""
        for f in files:
            values: dict[str, str | None] = dict(zip(self._parts, (f.site, f.day), strict=False))
            self._removes.append(RemoveAction(f.path, True, _now_ms(), size=f.bytes, partition_values=values))

    def commit(self, mark: Mark | None = None) -> int:
        """Commit what is staged as one version, and with it how far a source was read; return the newest version."""
        if self._adds or self._removes:
            table = self._newest()
            self._sync([a.path for a in self._adds])
            with_it = CommitProperties(app_transactions=[Transaction(*mark)]) if mark else None
            table.create_write_transaction(
                [*self._removes, *self._adds],
                "append",
                table.schema(),
                partition_by=self._parts,
                commit_properties=with_it,
                post_commithook_properties=KEEP_LOG,
            )
            self._keep_listed()
            self._adds, self._removes = [], []
            self._sync([f"_delta_log/{self.version():020}.json"])
            if self.version() % CHECKPOINT == 0:
                self._newest().create_checkpoint()
                self._sync([f"_delta_log/{self.version():020}.checkpoint.parquet", "_delta_log/_last_checkpoint"])
        return self.version()

    def _sync(self, paths: Sequence[str]) -> None:
        """Wait until some files of a durable table, and the folders they are in, are safe on disk."""
        if not self.durable:
            return
        files = [self.root / p for p in paths]
        folders = {above for file in files for above in file.parents if above.is_relative_to(self.root)}
        for path in (*files, *folders):
            opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)

    def _keep_listed(self) -> None:
        """Bring the list of files up to a commit just made, where nobody else has committed since it was read."""
        if self._listed is not None and self.version() == self._listed[0] + 1:
            gone = {r.path for r in self._removes}
            kept = [f for f in self._listed[1] if f.path not in gone]
            self._listed = (self.version(), kept + [_data_file(a) for a in self._adds])

    def marked(self, source: str) -> int:
        """Return up to where a source was read when last committed with its mark; -1 where it never was."""
        found = self._newest().transaction_version(source)
        return -1 if found is None else int(found)

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Return the rows of a version, the newest by default, partition columns included."""
        return pl.scan_delta(self._newest() if version is None else str(self.root), version=version)

    def changed_since(self, version: int) -> bool:
        """Return whether the newest version has other files than another one has."""
        then = {f.path for f in self._list(DeltaTable(str(self.root), version=version))}
        return then != {f.path for f in self.files()}

    def vacuum(self, keep_hours: int, *, dry_run: bool) -> list[Path]:
        """Delete files that no version of the last hours needs, and leftovers of writers that died; return them.

        dry_run: delete nothing. Versions older than that can no longer be opened.
        """
        table = self._newest()
        gone = table.vacuum(
            keep_hours,
            dry_run=dry_run,
            enforce_retention_duration=False,
            full=True,
            post_commithook_properties=KEEP_LOG,
        )
        age = f"interval {keep_hours} hours"
        if not dry_run and table.metadata().configuration.get(KEPT_FOR) != age:
            table.alter.set_table_properties({KEPT_FOR: age}, post_commithook_properties=KEEP_LOG)
        return [self.root / name for name in gone]

    def forget_log(self) -> None:
        """Delete the log that only versions need which the last vacuum no longer kept."""
        self._newest().create_checkpoint()
        self._newest().cleanup_metadata()

    def old_log(self, keep_hours: int) -> dict[Path, int]:
        """Return the files, and their bytes, that `forget_log` would delete after a vacuum: tried on a copy of the log."""
        with tempfile.TemporaryDirectory(prefix="wattkeeper-log-") as folder:
            copy = Path(folder) / self.root.name
            shutil.copytree(self.root / "_delta_log", copy / "_delta_log")
            age = {KEPT_FOR: f"interval {keep_hours} hours"}
            DeltaTable(str(copy)).alter.set_table_properties(age, post_commithook_properties=KEEP_LOG)
            DeltaTable(str(copy)).create_checkpoint()
            DeltaTable(str(copy)).cleanup_metadata()
            return {p: size for p, size in self.log().items() if not (copy / p.relative_to(self.root)).exists()}

    def log(self) -> dict[Path, int]:
        """Return the files of the log and their bytes."""
        return {p: p.stat().st_size for p in (self.root / "_delta_log").iterdir() if p.is_file()}

    def version(self) -> int:
        """Return the newest version."""
        version = int((self._delta or self._newest()).version())
        if not self._logged(version):  # the log was cleaned by another process
            version = int(self._newest().version())
        while self._logged(version + 1):
            version += 1
        return version

    def _logged(self, version: int) -> bool:
        return (self.root / "_delta_log" / f"{version:020}.json").exists()


def _data_file(added: AddAction) -> DataFile:
    parts = added.partition_values
    rows = json.loads(added.stats)["numRecords"]
    return DataFile(added.path, parts.get("site") or "", parts.get("day") or "", rows, added.size)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _now_ms() -> int:
    return int(time.time() * 1000)
