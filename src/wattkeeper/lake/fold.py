"""Folding: from the journal of batches into the book, in large pieces, each batch once.

A piece's readings and the place it was read up to stand in the log of the readings in one commit; so a crash before
`forget` costs a look at the journal, and no batch is taken twice. A batch that a sender sends again is known by its id.
What does not fit the book is told and kept aside in a journal of its own: readings of a meter that nobody declared, assets
in one that nobody declared, values that the meter's asset cannot have. It is tried again when the book has met something
new or has another site file.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wattkeeper import __version__
from wattkeeper.core.assets import Asset, AssetTree, Meter
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.errors import BatchError, ConfigError, JournalFullError
from wattkeeper.core.live import Sample
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.lake.batches import Received, decode, readings
from wattkeeper.lake.book import Book
from wattkeeper.lake.bounds import ANY, Bounds
from wattkeeper.lake.journal import Journal, Position, Reader, writers
from wattkeeper.lake.reporters import Reporters
from wattkeeper.lake.sorting import CURE

ASIDE = "aside"
"""The folder in a book that keeps what fits nothing, and the fact that says what was known when it was last tried."""

PIECE_ROWS = 2_000_000
"""Readings that are folded at once, about; some 50 bytes of memory each."""

PIECE_BATCHES = 10_000
"""Batches that are folded at once, at most."""

ASIDE_BYTES = 2**30
"""What is kept aside at most; beyond it, what fits nothing is refused for good, and that is told."""

REMEMBERED_MS = 30 * 86_400_000
"""A sender that was silent for longer may send its last batches again: attribution still counts each reading once."""


@dataclass(slots=True)
class Folded:
    """What folding did: batches and readings taken, batches known already, readings kept aside, and what was refused.

    doubts: sentences about damage in the journal, and about meters that two agents report.
    """

    batches: int = 0
    readings: int = 0
    again: int = 0
    aside: int = 0
    refused: list[Reject] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Piece:
    """Batches that are folded together, ids of those that a fold before this one took, and where the last one ends.

    unfit: batches, as bytes, that are kept aside; aside: how many readings they have. strange: by unknown meter, how many
    readings; odd: by meter, how many readings it cannot have, the least and the largest.
    """

    batches: list[Received] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    unfit: list[bytes] = field(default_factory=list)
    strange: dict[str, int] = field(default_factory=dict)
    odd: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    aside: int = 0
    rows: int = 0
    end: Position = field(default_factory=lambda: Position(0, 0))

    def ids(self) -> list[str]:
        """Return the ids of its batches, those taken before included."""
        return [i for i in (*self.taken, *(b.id for b in self.batches)) if i]


def journal_root(book_root: Path) -> Path:
    """Return where a book's journal stands."""
    return book_root / "journal"


def fold(book: Book, now_ms: int, *, piece_rows: int = PIECE_ROWS) -> Folded:
    """Take what the book's journal holds into the book, and give back its disk; return what was done.

    Memory does not grow with the journal: it is read in pieces of about piece_rows readings.
    """
    done, reporters = Folded(), Reporters()
    with book.writing():
        if book.state.fact(ASIDE) != (known := _known(book)):
            _fold_journal(book, Reader(book.root, ASIDE), now_ms, piece_rows, done, None)
            book.state.remember(**{ASIDE: known})
        for writer in writers(journal_root(book.root)):
            _fold_journal(book, Reader(journal_root(book.root), writer), now_ms, piece_rows, done, reporters)
        done.doubts += reporters.tell(book.state, now_ms)
    return done


def _fold_journal(
    book: Book, reader: Reader, now_ms: int, piece_rows: int, done: Folded, reporters: Reporters | None
) -> None:
    """Fold one writer's journal. reporters: told who sent what, who may send it again; None: it is what was kept aside."""
    sent = reporters is not None
    taken_to = book.readings.table.marked(reader.identity())
    once: set[bytes] = set()
    for piece in _pieces(reader, taken_to, now_ms, piece_rows):
        seen = _Seen(book.state.seen({_parted(b)[0] for b in piece.ids()}) if sent else {})
        for batch_id in piece.taken:
            seen.add(batch_id)
        new = [b for b in piece.batches if seen.add(b.id)] if sent else _first(piece.batches, once)
        done.again += len(piece.batches) - len(new)
        if reporters is not None:
            for b in new:
                reporters.add(b)
        sound = _fitting(book, new, piece, f"journal {reader.folder.name}")
        _put_aside(book, piece, done)
        if sound or piece.rejects:
            mark = (reader.identity(), _number(piece.end))
            source = f"journal {reader.folder.name}"
            done.refused += book.take(_intake(source, sound, piece.rejects), now_ms, mark)
            done.batches += len(sound)
            done.readings += sum(b.rows for b in sound)
        if sent:
            book.state.see(seen.runs, now_ms, REMEMBERED_MS)
        reader.forget(piece.end)
    done.doubts += reader.doubts


def _pieces(reader: Reader, taken_to: int, now_ms: int, piece_rows: int) -> Iterator[_Piece]:
    """Yield what a writer has journaled, in pieces; what cannot be read as a batch is kept aside."""
    piece = _Piece()
    for position, data in reader.read():
        piece.end = position
        taken = _number(position) <= taken_to
        try:
            batch = decode(data, now_ms)
        except BatchError as error:
            if not taken:
                piece.rejects.append(Reject(f"journal {reader.folder.name}", 0, f"a batch is kept aside: {error}"))
                piece.unfit.append(data)
            continue
        if taken:
            piece.taken.append(batch.id)
        else:
            piece.batches.append(batch)
            piece.rows += batch.rows
        if piece.rows >= piece_rows or len(piece.batches) >= PIECE_BATCHES:
            yield piece
            piece = _Piece()
    if piece.end.segment:
        yield piece


def kept_aside(book: Book, now_ms: int) -> list[str]:
    """Return what is kept aside and why, as things stand now, a sentence each; none where nothing is. Changes nothing."""
    reader, once = Reader(book.root, ASIDE), set[bytes]()
    told: list[str] = []
    for piece in _pieces(reader, book.readings.table.marked(reader.identity()), now_ms, PIECE_ROWS):
        fitting = sum(b.rows for b in _fitting(book, _first(piece.batches, once), piece, ""))
        told += [r.reason for r in piece.rejects]
        if fitting:
            told.append(f"{fitting} readings that were kept aside fit the book now. Run: wattkeeper attribute")
    return told


def _put_aside(book: Book, piece: _Piece, done: Folded) -> None:
    """Keep aside what fits nothing, before the rest of its piece is committed."""
    if not piece.unfit:
        return
    aside = Journal(book.root, ASIDE, limit_bytes=ASIDE_BYTES)
    try:
        aside.append_many(piece.unfit)
        done.aside += piece.aside
    except JournalFullError as error:
        piece.rejects.append(Reject(ASIDE, 0, f"{piece.aside} readings are lost: {error}"))
    finally:
        aside.close()


def _known(book: Book) -> str:
    """Return a word that changes when what fits nothing may fit."""
    site_file = hashlib.blake2b((book.root / "site.toml").read_bytes(), digest_size=8).hexdigest()
    return f"{book.state.fact('registered')} {site_file} {__version__}"


def _first(batches: list[Received], once: set[bytes]) -> list[Received]:
    """Return batches without those that came before just so: a crash may have kept one aside twice.

    Not by id alone: what is kept aside of a batch before a crash and after it may differ.
    """
    new = []
    for b in batches:
        digest = hashlib.blake2b(repr((b.id, b.meters)).encode(), digest_size=16)
        for column in (b.index, b.time_ms, b.value):
            digest.update(column.tobytes())
        if digest.digest() not in once:
            once.add(digest.digest())
            new.append(b)
    return new


def _number(position: Position) -> int:
    """Return a position as one number that rises with it."""
    return position.segment << 40 | position.offset


def _intake(source: str, batches: list[Received], rejects: list[Reject]) -> Intake:
    """Return batches as one intake, their meters numbered together."""
    names: dict[str, int] = {}
    indexes = []
    for b in batches:
        places = np.array([names.setdefault(m, len(names)) for m in b.meters], np.int32)
        indexes.append(places[b.index])
    intake = Intake(source, rejects=rejects)
    intake.assets, intake.meters = _first_met(batches)
    intake.losses = [loss for b in batches for loss in b.lost]
    if batches:
        time_ms, value = (np.concatenate([getattr(b, c) for b in batches]) for c in ("time_ms", "value"))
        intake.readings = readings(list(names), np.concatenate(indexes), time_ms, value)
    return intake


def _first_met(batches: Sequence[Received]) -> tuple[list[Asset], list[Meter]]:
    """Return the assets and meters that batches bring, each as it was first met."""
    last_first = batches[::-1]
    assets = {a.id: a for b in last_first for a in reversed(b.assets)}
    return list(assets.values()), list({m.id: m for b in last_first for m in reversed(b.declared)}.values())


def _fitting(book: Book, batches: list[Received], piece: _Piece, source: str) -> list[Received]:
    """Return what of some batches fits the book; the rest is noted in the piece."""
    tree, fitting = book.tree(), []
    for b in batches:
        try:
            tree = _grown(book, tree, b)
        except ConfigError as error:
            piece.rejects.append(Reject(f"batch {b.id}", 0, f"{b.rows} readings are kept aside: {error}"))
            _set_aside(piece, b, np.ones(b.rows, np.bool_))
        else:
            fitting.append(b)
    _, declared = _first_met(fitting)
    known = {m.id: m for m in chain(declared, book.meters()) if m.asset in tree.assets}
    bounds = Bounds(known, tree)
    fitting = [_possible(b, known, bounds, piece) for b in fitting]
    for name, count in piece.strange.items():
        piece.rejects.append(Reject(source, 0, f"{count} readings of unknown meter '{name}' are kept aside: {CURE}"))
    for name, (count, least, largest) in piece.odd.items():
        why = bounds.why(name, least, largest)
        piece.rejects.append(Reject(source, 0, f"{count} readings of meter '{name}' are kept aside: {why}"))
    return fitting


def _grown(book: Book, tree: AssetTree, batch: Received) -> AssetTree:
    """Return the tree with a batch's assets. Raises ConfigError where they have no place in it."""
    new = [a for a in batch.assets if a.id not in tree.assets]
    if any(a.parent is None for a in new):
        raise ConfigError("A batch cannot bring a site. Declare it in the site file.")
    return tree.with_assets(book.placed(new)) if new else tree


def _possible(batch: Received, known: Container[str], bounds: Bounds, piece: _Piece) -> Received:
    """Return a batch without readings of unknown meters and without what its meters cannot read; both are noted."""
    strange = np.array([m not in known for m in batch.meters], np.bool_)
    unknown = strange[batch.index]
    odd = bounds.outside(batch.meters, batch.index, batch.value) & ~unknown
    misfit = unknown | odd
    if not misfit.any():
        return batch
    for i in np.unique(batch.index[unknown]).tolist():
        name = batch.meters[i]
        piece.strange[name] = piece.strange.get(name, 0) + int((batch.index == i).sum())
    for i in np.unique(batch.index[odd]).tolist():
        name, value = batch.meters[i], batch.value[odd & (batch.index == i)]
        count, least, largest = piece.odd.get(name, (0, ANY, -ANY))
        piece.odd[name] = (count + len(value), min(least, int(value.min())), max(largest, int(value.max())))
    _set_aside(piece, batch, misfit)
    return replace(batch, **{name: getattr(batch, name)[~misfit] for name in ("index", "time_ms", "value")})


def _set_aside(piece: _Piece, batch: Received, mask: NDArray[np.bool_]) -> None:
    rows = zip(batch.index[mask].tolist(), batch.time_ms[mask].tolist(), batch.value[mask].tolist(), strict=True)
    samples = [Sample(batch.meters[i], time_ms, value) for i, time_ms, value in rows]
    piece.unfit.append(encode(Batch(batch.id, samples, batch.assets, batch.declared, batch.lost)))
    piece.aside += len(samples)


class _Seen:
    """Which batches are in the book, as runs of numbers by sender: "n01/5f0c/000042" is number 42 of "n01/5f0c"."""

    def __init__(self, runs: dict[str, list[list[int]]]) -> None:
        self.runs = runs

    def add(self, batch_id: str) -> bool:
        """Note a batch; return False where it was noted before. One without an id is always new."""
        if not batch_id:
            return True
        sender, number = _parted(batch_id)
        runs = self.runs.setdefault(sender, [])
        at = bisect_left(runs, [number + 1]) - 1
        if at >= 0 and runs[at][0] <= number <= runs[at][1]:
            return False
        runs.insert(at + 1, [number, number])
        self.runs[sender] = _joined(runs)
        return True


def _parted(batch_id: str) -> tuple[str, int]:
    sender, _, number = batch_id.rpartition("/")
    return (sender, int(number)) if number.isascii() and number.isdigit() and len(number) < 16 else (batch_id, 0)


def _joined(runs: list[list[int]]) -> list[list[int]]:
    """Return runs with neighbours made one."""
    joined: list[list[int]] = []
    for first, last in runs:
        if joined and joined[-1][1] + 1 >= first:
            joined[-1][1] = max(joined[-1][1], last)
        else:
            joined.append([first, last])
    return joined
