"""A journal: an append-only file of batches that are safe on disk before anyone is told so.

One folder per writer, in it numbered segments. A segment is `MAGIC`, then records: length and CRC-32 [4 bytes each,
little endian], then the bytes. What a kill or a full disk left half written at the end of a segment is cut off when the
writer comes back, which then begins a new segment; nothing before it is touched. Readers and the writer may be different
processes. Imports little: agents keep what they could not send in one.
"""

from __future__ import annotations

import fcntl
import os
import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from wattkeeper.core.errors import JournalError, JournalFullError

MAGIC = b"wkjrnl1\n"

SEGMENT_BYTES = 64 * 2**20
"""A segment that has grown to this is closed and the next begun; whole segments are what `forget` deletes."""

MAX_RECORD_BYTES = 256 * 2**20
"""A record says at most this for its length; more is damage."""

_HEAD = struct.Struct("<II")
_FORGOTTEN, _IDENTITY, _NEW, _READY = "forgotten", "identity", "new", ".ready"


class Position(NamedTuple):
    """Where a record ends: all records up to here come before it. Positions of one writer rise."""

    segment: int
    offset: int


class Reader:
    """What one writer has journaled and nobody has forgotten yet; the writer may be at work meanwhile.

    doubts: sentences about records that were damaged and left out; filled while reading.
    """

    def __init__(self, root: Path, writer: str) -> None:
        self.folder = root / writer
        self.doubts: list[str] = []

    def read(self) -> Iterator[tuple[Position, bytes]]:
        """Yield the batches that are there, oldest first, each with the position to forget once it is delivered."""
        start = self.forgotten()
        numbers = [n for n in self._segments() if n >= start.segment]
        for n in numbers:
            after = start.offset if n == start.segment else 0
            # only the last segment can have a record that is being written now
            for end, batch in self._records(n, after, last=n == numbers[-1]):
                yield Position(n, end), batch

    def forget(self, position: Position) -> None:
        """Delete the segments that end before a position up to which all is delivered, and note it.

        After a crash some of it may be read again: what is done with a batch must be harmless to do twice.
        Raises JournalError where it cannot be noted; a full disk has got its room back all the same.
        """
        new = self.folder / f"{_FORGOTTEN}.new"
        try:
            for n in self._segments():
                if n < position.segment:
                    self._path(n).unlink(missing_ok=True)
            with new.open("w", encoding="ascii") as file:
                file.write(f"{position.segment} {position.offset}\n")
                file.flush()
                os.fdatasync(file.fileno())
            new.replace(self.folder / _FORGOTTEN)
        except OSError as error:
            raise _failed(self.folder, error) from error

    def forgotten(self) -> Position:
        """Return up to where all is delivered."""
        try:
            segment, offset = (self.folder / _FORGOTTEN).read_text("ascii").split()
            return Position(int(segment), int(offset))
        except (FileNotFoundError, ValueError):
            return Position(0, 0)

    def identity(self) -> str:
        """Return this journal's own name: positions of another journal in the same place mean nothing to it."""
        try:
            return f"journal {self.folder.name} {(self.folder / _IDENTITY).read_text('ascii').strip()}"
        except FileNotFoundError:
            return f"journal {self.folder.name}"

    def size_bytes(self) -> int:
        """Return the size of all segments on disk."""
        total = 0
        for path in map(self._path, self._segments()):
            with suppress(FileNotFoundError):  # deleted meanwhile by someone who forgot it
                total += path.stat().st_size
        return total

    def _path(self, segment: int) -> Path:
        return self.folder / f"{segment:012}.wal"

    def _segments(self) -> list[int]:
        return sorted(int(p.stem) for p in self.folder.glob("*.wal") if p.stem.isdigit())

    def _records(self, segment: int, after: int, *, last: bool) -> Iterator[tuple[int, bytes]]:
        """Yield where each record of a segment ends, and its bytes, from an offset on."""
        path = self._path(segment)
        try:
            file = path.open("rb")
        except FileNotFoundError:  # deleted meanwhile by someone who forgot it
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            at = max(after, len(MAGIC))
            while at + _HEAD.size <= size:
                end, batch = _record(file, at, size)
                if batch is not None:
                    yield end, batch
                elif last and not _intact_after(file, end, size):
                    return
                else:
                    beyond = end if _intact_after(file, end, size) or end == size else size
                    self.doubts.append(f"{path}: bytes {at} to {beyond} are damaged and were left out.")
                    end = beyond
                at = end


class Journal(Reader):
    """The writing end; one process at a time, one thread at a time.

    limit_bytes: what may stand on disk undelivered; an append beyond it is refused with JournalFullError, and the caller
    decides. 0 for no limit. Segments are then at most a quarter of it, so that what is forgotten makes room.
    Raises JournalError when the folder cannot be written or belongs to a running process.
    """

    def __init__(self, root: Path, writer: str, *, segment_bytes: int = SEGMENT_BYTES, limit_bytes: int = 0) -> None:
        super().__init__(root, writer)
        self.limit_bytes = limit_bytes
        self.segment_bytes = min(segment_bytes, limit_bytes // 4) if limit_bytes else segment_bytes
        self._file = -1
        self._size = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _sync_folder(root)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(self.folder, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise JournalError(
                f"The journal {self.folder} is being written by another process. Stop that one, or name another writer."
            ) from error
        self._name()
        for ready in self.folder.glob(f"*{_READY}"):
            self._settle(ready)
        self._heal()
        here = self._segments()
        self._closed_bytes = self.size_bytes()
        self._segment = max([self.forgotten().segment, *here])

    def append(self, batch: bytes) -> Position:
        """Keep one batch; it is safe on disk when this returns. Raises JournalError, and nothing is kept then."""
        return self.append_many([batch])

    def append_many(self, batches: Sequence[bytes]) -> Position:
        """Keep several batches with one wait for the disk: all or, with JournalError, none that anyone relies on."""
        parts = [part for b in batches for part in (_head(b), b)]
        data = b"".join(parts)
        if self._lock < 0:
            raise JournalError(f"The journal {self.folder} is closed. Open it again.")
        if self.limit_bytes and self._standing() + len(data) > self.limit_bytes:
            raise JournalFullError(
                f"The journal {self.folder} is at its limit of {self.limit_bytes} bytes. "
                "Deliver what it holds, or raise the limit."
            )
        try:
            if self._file < 0 or self._size >= self.segment_bytes:
                self._begin()
            _write(self._file, data)
            os.fdatasync(self._file)
        except OSError as error:
            self._back_out()
            raise _failed(self.folder, error) from error
        self._size += len(data)
        return Position(self._segment, self._size)

    def _standing(self) -> int:
        """Return the bytes on disk; they are counted anew only near the limit, for a reader may have deleted some."""
        if self._closed_bytes + self._size > self.limit_bytes // 2:
            self._closed_bytes = self.size_bytes() - self._size
        return self._closed_bytes + self._size

    def close(self) -> None:
        """Let go of the folder; closing twice does nothing."""
        self._end_segment()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def stage(self, batches: Iterable[bytes]) -> None:
        """Write batches beside the journal, for `swap`. Raises JournalError, and nothing has changed then."""
        new = self.folder / _NEW
        try:
            with new.open("wb") as file:
                file.write(MAGIC)
                for b in batches:
                    file.write(_head(b) + b)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise _failed(self.folder, error) from error

    def swap(self, first: int, last: int) -> None:
        """Put what was staged in the place of the closed segments first to last, which nobody may be reading.

        After a crash either the old ones stand there or the new one. Raises JournalError.
        """
        ready = self.folder / f"{first}-{last}{_READY}"
        try:
            (self.folder / _NEW).rename(ready)  # from here on it is done, whatever happens
            _sync_folder(self.folder)
            self._settle(ready)
        except OSError as error:
            raise _failed(self.folder, error) from error
        self._closed_bytes = self.size_bytes() - self._size

    def _settle(self, ready: Path) -> None:
        """Let a segment that is complete take the place of those it was made from."""
        first, last = map(int, ready.name.removesuffix(_READY).split("-"))
        for n in self._segments():
            if first <= n < last:
                self._path(n).unlink(missing_ok=True)
        ready.rename(self._path(last))
        _sync_folder(self.folder)

    def _begin(self) -> None:
        """Begin the next segment; it is in its folder for good before anything is written to it."""
        self._end_segment()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path(self._segment + 1), flags, 0o600)
        self._segment += 1
        _write(self._file, MAGIC)
        self._size = len(MAGIC)
        os.fsync(self._file)
        _sync_folder(self.folder)

    def _end_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._closed_bytes += self._size
            self._size = 0

    def _back_out(self) -> None:
        """Cut off what was written of a failed append, and leave the segment: after a failed fsync none can be trusted."""
        if self._file < 0:
            return
        empty = self._size <= len(MAGIC)
        with suppress(OSError):
            os.ftruncate(self._file, self._size)
        self._end_segment()
        if empty:  # or each attempt on a full disk would leave a file
            with suppress(OSError):
                self._path(self._segment).unlink()

    def _name(self) -> None:
        """Give a new journal its identity."""
        path = self.folder / _IDENTITY
        if not path.exists() or not path.read_bytes().strip():
            try:
                path.write_text(f"{uuid.uuid4().hex}\n", "ascii")
            except OSError as error:
                raise _failed(self.folder, error) from error

    def _heal(self) -> None:
        """Cut off what a crash left at the end of the last segment; delete it where nothing else is in it."""
        for n in self._segments()[-1:]:
            path = self._path(n)
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                intact = _intact_end(file, size)
            if intact <= len(MAGIC):
                path.unlink()
                intact = len(MAGIC)
            elif intact < size:
                os.truncate(path, intact)
            if intact < size:
                self.doubts.append(f"{path}: {size - intact} bytes of an unfinished batch were cut off.")


def writers(root: Path) -> list[str]:
    """Return who has a folder in a journal."""
    return sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []


def _head(batch: bytes) -> bytes:
    length = len(batch).to_bytes(4, "little")
    return length + zlib.crc32(batch, zlib.crc32(length)).to_bytes(4, "little")


def _record(file: BufferedReader, at: int, size: int) -> tuple[int, bytes | None]:
    """Return where the record at an offset ends by its own word, and its bytes; None where they are not intact."""
    file.seek(at)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return size, None
    length, _ = _HEAD.unpack(head)
    end = at + _HEAD.size + length
    if length > MAX_RECORD_BYTES or end > size:
        return size, None
    batch = file.read(length)
    return end, batch if _head(batch) == head else None


def _intact_after(file: BufferedReader, at: int, size: int) -> bool:
    """Return whether an intact record begins at an offset."""
    return at + _HEAD.size <= size and _record(file, at, size)[1] is not None


def _intact_end(file: BufferedReader, size: int) -> int:
    """Return where the last intact record of a segment ends."""
    at = intact = len(MAGIC)
    while at + _HEAD.size <= size:
        at, batch = _record(file, at, size)
        if batch is not None:
            intact = at
    return intact


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _failed(folder: Path, error: OSError) -> JournalError:
    return JournalError(
        f"The journal {folder} cannot be written: {error.strerror or error}. "
        "Make room or mend the disk; what it holds is intact."
    )
