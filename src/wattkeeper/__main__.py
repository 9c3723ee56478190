"""Entry of the command `wattkeeper`: imports nothing heavy, so that Ctrl-C leaves quietly while modules load too."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell."""


def main() -> None:
    """Run the command line. Until it is loaded Ctrl-C ends the process at once: nothing is begun yet."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from wattkeeper import cli  # noqa: PLC0415 - what takes long

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
