"""A book's operational state: what was met, what was imported, how far, and what the ledger was made from.

SQLite through SQLAlchemy; the same tables grow onto PostgreSQL.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.live import Loss
from wattkeeper.core.roles import Reject, SignalInfo

_META = sa.MetaData()

facts = sa.Table("facts", _META, sa.Column("key", sa.String, primary_key=True), sa.Column("value", sa.String))
assets = sa.Table("assets", _META, sa.Column("id", sa.String, primary_key=True), sa.Column("record", sa.String))
meters = sa.Table("meters", _META, sa.Column("id", sa.String, primary_key=True), sa.Column("record", sa.String))
signals = sa.Table("signals", _META, sa.Column("id", sa.String, primary_key=True), sa.Column("record", sa.String))
cursors = sa.Table(
    "cursors", _META, sa.Column("source", sa.String, primary_key=True), sa.Column("position_ms", sa.BigInteger)
)
imports = sa.Table(
    "imports",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("source", sa.String),
    sa.Column("when_ms", sa.BigInteger),
    sa.Column("accepted", sa.BigInteger),
    sa.Column("rejected", sa.BigInteger),
)
rejects = sa.Table(
    "rejects",
    _META,
    sa.Column("source", sa.String, primary_key=True),
    sa.Column("row", sa.BigInteger, primary_key=True),
    sa.Column("reason", sa.String, primary_key=True),
    sa.Column("text", sa.String),
)
stale = sa.Table(
    "stale",
    _META,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("start_ms", sa.BigInteger, primary_key=True),
    sa.Column("end_ms", sa.BigInteger, primary_key=True),
)
senders = sa.Table(
    "senders",
    _META,
    sa.Column("sender", sa.String, primary_key=True),
    sa.Column("seen", sa.String),
    sa.Column("last_ms", sa.BigInteger),
)
tokens = sa.Table(
    "tokens",
    _META,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("digest", sa.String),
    sa.Column("made_ms", sa.BigInteger),
)
done = sa.Table(
    "done",
    _META,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("day", sa.String, primary_key=True),
    sa.Column("piece", sa.Integer, primary_key=True),
    sa.Column("units", sa.String),
)


losses = sa.Table(
    "losses",
    _META,
    sa.Column("meter", sa.String, primary_key=True),
    sa.Column("start_ms", sa.BigInteger, primary_key=True),
    sa.Column("end_ms", sa.BigInteger, primary_key=True),
    sa.Column("readings", sa.BigInteger),
)


class State:
    """The operational tables of one book."""

    def __init__(self, path: Path) -> None:
        self.engine = sa.create_engine(f"sqlite:///{path}")
        with self.engine.begin() as db:
            db.execute(sa.text("PRAGMA journal_mode=WAL"))
        _META.create_all(self.engine)

    def fact(self, key: str) -> str | None:
        """Return one remembered fact."""
        with self.engine.begin() as db:
            return db.execute(sa.select(facts.c.value).where(facts.c.key == key)).scalar()

    def remember(self, **values: str) -> None:
        """Remember facts."""
        self._upsert(facts, [{"key": k, "value": v} for k, v in values.items()], ["key"])

    def register(self, new_assets: Iterable[Asset], new_meters: Iterable[Meter], infos: Iterable[SignalInfo]) -> None:
        """Keep assets, meters and signals that an import met; what is known stays as it was first met."""
        for table, records in ((assets, new_assets), (meters, new_meters), (signals, infos)):
            rows = [{"id": r.id, "record": json.dumps(dataclasses.asdict(r))} for r in records]
            if rows:
                with self.engine.begin() as db:
                    new = db.execute(insert(table).on_conflict_do_nothing(), rows).rowcount
                if new:
                    self.remember(registered=uuid.uuid4().hex)

    def assets(self) -> list[Asset]:
        """Return the assets that imports met."""
        return [Asset(**r) for r in self._records(assets)]

    def meters(self) -> list[Meter]:
        """Return the meters that imports met."""
        return [Meter(**r) for r in self._records(meters)]

    def signal_infos(self) -> dict[str, SignalInfo]:
        """Return what is known of each signal, by id."""
        return {r["id"]: SignalInfo(**r) for r in self._records(signals)}

    def _records(self, table: sa.Table) -> list[dict[str, Any]]:
        with self.engine.begin() as db:
            return [json.loads(r) for (r,) in db.execute(sa.select(table.c.record).order_by(table.c.id))]

    def log_import(self, source: str, when_ms: int, accepted: int, refused: Sequence[Reject]) -> None:
        """Note an import and the rows it refused."""
        with self.engine.begin() as db:
            db.execute(
                imports.insert(),
                {"source": source, "when_ms": when_ms, "accepted": accepted, "rejected": len(refused)},
            )
        rows = [{"source": r.source, "row": r.row, "reason": r.reason, "text": r.text[:500]} for r in refused]
        self._upsert(rejects, rows, ["source", "row", "reason"])

    def note_losses(self, lost: Iterable[Loss]) -> None:
        """Keep what agents took and could not keep; the same loss told again is one."""
        self._upsert(losses, [loss._asdict() for loss in lost], ["meter", "start_ms", "end_ms"])

    def losses(self, start_ms: int, end_ms: int) -> list[Loss]:
        """Return the losses that reach into [start_ms, end_ms)."""
        query = sa.select(losses).where(losses.c.end_ms >= start_ms, losses.c.start_ms < end_ms)
        with self.engine.begin() as db:
            return [Loss(*row) for row in db.execute(query.order_by(*losses.primary_key))]

    def cursor_ms(self, source: str) -> int | None:
        """Return up to where a source was read."""
        with self.engine.begin() as db:
            return db.execute(sa.select(cursors.c.position_ms).where(cursors.c.source == source)).scalar()

    def advance(self, source: str, position_ms: int) -> None:
        """Move a source's cursor."""
        self._upsert(cursors, [{"source": source, "position_ms": position_ms}], ["source"])

    def seen(self, names: Iterable[str]) -> dict[str, list[list[int]]]:
        """Return by sender the runs [first, last] of numbers of its batches that are in the book."""
        with self.engine.begin() as db:
            query = sa.select(senders.c.sender, senders.c.seen).where(senders.c.sender.in_(list(names)))
            return {sender: json.loads(runs) for sender, runs in db.execute(query)}

    def see(self, runs: dict[str, list[list[int]]], now_ms: int, keep_ms: int) -> None:
        """Keep which batches of some senders are in the book; forget senders not heard of for keep_ms."""
        rows = [{"sender": s, "seen": json.dumps(r), "last_ms": now_ms} for s, r in runs.items()]
        self._upsert(senders, rows, ["sender"])
        with self.engine.begin() as db:
            db.execute(sa.delete(senders).where(senders.c.last_ms < now_ms - keep_ms))

    def add_token(self, name: str, digest: str, now_ms: int) -> bool:
        """Keep a token's digest under a name; return False where the name is taken."""
        with self.engine.begin() as db:
            row = {"name": name, "digest": digest, "made_ms": now_ms}
            return db.execute(insert(tokens).on_conflict_do_nothing(), row).rowcount == 1

    def drop_token(self, name: str) -> bool:
        """Strike a token; return whether there was one."""
        with self.engine.begin() as db:
            return db.execute(sa.delete(tokens).where(tokens.c.name == name)).rowcount == 1

    def tokens(self) -> list[tuple[str, str, int]]:
        """Return name, digest and time of making [ms] of each token."""
        with self.engine.begin() as db:
            query = sa.select(tokens.c.name, tokens.c.digest, tokens.c.made_ms).order_by(tokens.c.name)
            return [(name, digest, made_ms) for name, digest, made_ms in db.execute(query)]

    def mark_stale(self, spans: Iterable[tuple[str, int, int]]) -> None:
        """Note that something that lines of a site in [start_ms, end_ms) may depend on has changed."""
        rows = [{"site": s, "start_ms": a, "end_ms": b} for s, a, b in sorted(set(spans))]
        if rows:
            with self.engine.begin() as db:
                db.execute(insert(stale).on_conflict_do_nothing(), rows)

    def stale_spans(self, site: str) -> list[tuple[int, int]]:
        """Return the spans [start_ms, end_ms) of a site that may have to be attributed anew."""
        with self.engine.begin() as db:
            return [
                (a, b) for a, b in db.execute(sa.select(stale.c.start_ms, stale.c.end_ms).where(stale.c.site == site))
            ]

    def digests(self, site: str, days: Sequence[str]) -> dict[tuple[str, int], dict[str, str]]:
        """Return by piece of some days, given in order: unit → digest of what its lines were made from."""
        query = sa.select(done.c.day, done.c.piece, done.c.units)
        query = query.where(done.c.site == site, done.c.day >= days[0], done.c.day <= days[-1])
        with self.engine.begin() as db:
            return {(day, at): json.loads(units) for day, at, units in db.execute(query)}

    def settle(self, site: str, made: dict[tuple[str, int], dict[str, str]], spans: Iterable[tuple[int, int]]) -> None:
        """Keep the digests of what was attributed, by piece and unit, and strike spans off the stale list, at once."""
        rows = [
            {"site": site, "day": day, "piece": at, "units": json.dumps(units)} for (day, at), units in made.items()
        ]
        with self.engine.begin() as db:
            if rows:
                query = insert(done)
                keys = ["site", "day", "piece"]
                db.execute(query.on_conflict_do_update(index_elements=keys, set_={"units": query.excluded.units}), rows)
            for start_ms, end_ms in spans:
                here = (stale.c.site == site, stale.c.start_ms == start_ms, stale.c.end_ms == end_ms)
                db.execute(sa.delete(stale).where(*here))

    def _upsert(self, table: sa.Table, rows: list[dict[str, Any]], keys: list[str]) -> None:
        if not rows:
            return
        query = insert(table)
        others = {c.name: query.excluded[c.name] for c in table.columns if c.name not in keys}
        with self.engine.begin() as db:
            db.execute(query.on_conflict_do_update(index_elements=keys, set_=others), rows)
