"""The process beside the server that folds its journal: `python -m wattkeeper.server.folding BOOK EVERY_S`.

It works until its standard input ends, that is until the server stops or dies; then it folds what is left and ends.
Each fold is one line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path

from wattkeeper import loop
from wattkeeper.core.errors import WattkeeperError
from wattkeeper.lake.book import Book

NICE = 10
"""Acknowledging comes first."""


def main(root: Path, every_s: float) -> None:
    """Fold a book's journal each some seconds [s]."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # meant for the server, which then ends our input
    os.nice(NICE)
    alive = True
    while alive:
        begun_s = time.monotonic()
        _say(_fold(root) | {"seconds": time.monotonic() - begun_s})
        alive = not _ended(max(every_s - (time.monotonic() - begun_s), 0.0))
    _say(_fold(root) | {"seconds": 0.0})


def _fold(root: Path) -> dict[str, object]:
    """Fold once; a fault is told, and the next fold tries again. The book is opened anew, for its site file may be new."""
    try:
        done = loop.fold(Book(root, _aloud), time.time_ns() // 1_000_000)
    except (WattkeeperError, OSError) as error:
        return {"fault": str(error)}
    refused = [f"{r.source}: {r.reason}" for r in done.refused]
    return {
        "readings": done.readings,
        "again": done.again,
        "aside": done.aside,
        "refused": refused[:20],
        "more": len(refused),
        "doubts": done.doubts,
    }


def _aloud(words: str) -> None:
    """Say something on standard error, which is the server's."""
    print(words, file=sys.stderr, flush=True)


def _ended(wait_s: float) -> bool:
    """Return whether standard input has ended, after waiting for it."""
    ready, _, _ = select.select([sys.stdin], [], [], wait_s)
    return bool(ready) and not os.read(sys.stdin.fileno(), 4096)


def _say(told: dict[str, object]) -> None:
    try:
        print(json.dumps(told), flush=True)
    except BrokenPipeError:  # the server is gone; what is left is still folded
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
