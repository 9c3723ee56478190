"""Folding: from the journal of batches into the book, in large pieces, each batch once.

A piece's readings and the place it was read up to stand in the log of the readings in one commit; so a crash before
`forget` costs a look at the journal, and no batch is taken twice. A batch that a sender sends again is known by its id.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wattkeeper.core.assets import AssetTree
from wattkeeper.core.errors import BatchError, ConfigError
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.lake.batches import Received, decode, readings
from wattkeeper.lake.book import Book
from wattkeeper.lake.journal import Position, Reader, writers

PIECE_ROWS = 2_000_000
"""Readings that are folded at once, about; some 50 bytes of memory each."""

REMEMBERED_MS = 30 * 86_400_000
"""A sender that was silent for longer may send its last batches again: attribution still counts each reading once."""


@dataclass(slots=True)
class Folded:
    """What folding did: batches and readings taken, batches known already, and what was refused.

    doubts: sentences about damage in the journal.
    """

    batches: int = 0
    readings: int = 0
    again: int = 0
    refused: list[Reject] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Piece:
    """Batches that are folded together, ids of those that a fold before this one took, and where the last one ends."""

    batches: list[Received] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    rows: int = 0
    end: Position = field(default_factory=lambda: Position(0, 0))


def journal_root(book_root: Path) -> Path:
    """Return where a book's journal stands."""
    return book_root / "journal"


def fold(book: Book, now_ms: int, *, piece_rows: int = PIECE_ROWS) -> Folded:
    """Take what the book's journal holds into the book, and give back its disk; return what was done.

    Memory does not grow with the journal: it is read in pieces of about piece_rows readings.
    """
    done = Folded()
    with book.writing():
        for writer in writers(journal_root(book.root)):
            reader = Reader(journal_root(book.root), writer)
            taken_to = book.readings.table.marked(reader.identity())
            for piece in _pieces(reader, taken_to, now_ms, piece_rows):
                _fold_piece(book, reader, piece, now_ms, done)
            done.doubts += reader.doubts
    return done


def _pieces(reader: Reader, taken_to: int, now_ms: int, piece_rows: int) -> Iterator[_Piece]:
    """Yield what a writer has journaled, in pieces; what cannot be read as a batch is a reject of its piece."""
    piece = _Piece()
    for position, data in reader.read():
        piece.end = position
        try:
            batch = decode(data, now_ms)
        except BatchError as error:
            piece.rejects.append(Reject(f"journal {reader.folder.name}", 0, f"a batch was refused: {error}"))
            continue
        if _number(position) <= taken_to:
            piece.taken.append(batch.id)
        else:
            piece.batches.append(batch)
            piece.rows += batch.rows
        if piece.rows >= piece_rows:
            yield piece
            piece = _Piece()
    if piece.end.segment:
        yield piece


def _fold_piece(book: Book, reader: Reader, piece: _Piece, now_ms: int, done: Folded) -> None:
    seen = _Seen(book, [*piece.taken, *(b.id for b in piece.batches)])
    for batch_id in piece.taken:
        seen.add(batch_id)
    new = [b for b in piece.batches if seen.add(b.id)]
    done.again += len(piece.batches) - len(new)
    sound = _fitting(book, new, piece.rejects)
    if sound or piece.rejects:
        source = f"journal {reader.folder.name}"
        done.refused += book.take(
            _intake(source, sound, piece.rejects), now_ms, (reader.identity(), _number(piece.end))
        )
        done.batches += len(sound)
        done.readings += sum(b.rows for b in sound)
    book.state.see(seen.runs, now_ms, REMEMBERED_MS)
    reader.forget(piece.end)


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
    intake.assets = list({a.id: a for b in batches for a in b.assets}.values())
    intake.meters = list({m.id: m for b in batches for m in b.declared}.values())
    if batches:
        time_ms, value = (np.concatenate([getattr(b, c) for b in batches]) for c in ("time_ms", "value"))
        intake.readings = readings(list(names), np.concatenate(indexes), time_ms, value)
    return intake


def _fitting(book: Book, batches: list[Received], rejects: list[Reject]) -> list[Received]:
    """Return the batches whose assets have a place in the book; the others become rejects as a whole."""
    tree = book.tree()
    fitting = []
    for b in batches:
        try:
            if any(a.id not in tree.assets for a in b.assets):
                tree = _grown(book, tree, b)
        except ConfigError as error:
            rejects.append(Reject(f"batch {b.id}", 0, f"{b.rows} readings were refused: {error}"))
        else:
            fitting.append(b)
    return fitting


def _grown(book: Book, tree: AssetTree, batch: Received) -> AssetTree:
    return tree.with_assets(book.placed(batch.assets))


class _Seen:
    """Which batches are in the book, as runs of numbers by sender: "n01/5f0c/000042" is number 42 of "n01/5f0c"."""

    def __init__(self, book: Book, ids: list[str]) -> None:
        self.runs = book.state.seen({_parted(i)[0] for i in ids if i})

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
