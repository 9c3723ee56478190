"""Entry of the command `wattkeeper`: imports nothing heavy, so that Ctrl-C leaves quietly while modules load too."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell."""

FEW_COLLECTIONS = 50_000
"""New objects from one garbage collection to the next. Modules make many and no garbage: Python's 700 cost a tenth of
the time they take to load."""


def main() -> None:
    """Run the command line. Until it is loaded Ctrl-C ends the process at once: nothing is begun yet."""
    swift()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from wattkeeper import cli  # noqa: PLC0415 - what takes long

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def swift() -> None:
    """Spare the process what garbage collection costs while modules load, and when it ends and all memory goes anyway."""
    gc.set_threshold(FEW_COLLECTIONS)
    atexit.register(gc.freeze)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
