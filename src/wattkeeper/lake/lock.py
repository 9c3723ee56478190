"""The lock of a book: one thread of one process writes at a time; who waits for long says for whom."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from wattkeeper.core.clock import iso

SAY_AFTER_S = 1.0
"""Waiting for so long is normal, and nothing is said of it."""

POLL_S = 0.05


def nothing(_words: str) -> None:
    """Say nothing."""


class WritingLock:
    """A lock on a file in a book. say: called with one sentence once a wait is long."""

    def __init__(self, path: Path, say: Callable[[str], None] = nothing) -> None:
        self._path, self._say = path, say
        self._thread = threading.RLock()
        self._depth = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; within it, once more by the same thread is the same. Other threads and processes wait."""
        if not self._thread.acquire(timeout=SAY_AFTER_S):
            self._say(f"Waiting for the book {self._path.parent}: {_holder(self._path)}.")
            self._thread.acquire()
        self._depth += 1
        try:
            if self._depth > 1:
                yield
            else:
                with self._path.open("a+", encoding="utf-8") as file:
                    self._lock(file)
                    _sign(file)
                    yield
        finally:
            self._depth -= 1
            self._thread.release()

    def _lock(self, file: TextIO) -> None:
        """Wait until no other process has the file."""
        end_s = time.monotonic() + SAY_AFTER_S
        while time.monotonic() < end_s:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(POLL_S)
        self._say(f"Waiting for the book {self._path.parent}: {_holder(self._path)}.")
        fcntl.flock(file, fcntl.LOCK_EX)


def _sign(file: TextIO) -> None:
    """Write who holds the lock since when; on a full disk it stays unsaid."""
    words = [Path(sys.argv[0]).stem, *(w for w in sys.argv[1:2] if w.isidentifier())]
    with suppress(OSError):
        file.truncate(0)
        file.write(
            f"process {os.getpid()} ({' '.join(words)}) has been writing to it since {iso(time.time_ns() // 10**9 * 1000)}"
        )
        file.flush()


def _holder(path: Path) -> str:
    try:
        return path.read_text("utf-8") or "another process is writing to it"
    except OSError:
        return "another process is writing to it"
