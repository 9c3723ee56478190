"""Files in which a kernel shows numbers, such as those of /sys: one value each, read whole."""

from __future__ import annotations

import socket
from pathlib import Path

from wattkeeper.core.errors import SourceError


class DeniedError(SourceError):
    """A file is there and may not be read by this user."""


def text(path: Path) -> str | None:
    """Return what a file says, stripped; None where it is missing, empty, or its hardware has no value now.

    Raises DeniedError where it may not be read.
    """
    try:
        return path.read_text("ascii", errors="replace").strip() or None
    except PermissionError as error:
        raise DeniedError(f"{path} may not be read.") from error
    except OSError:
        return None  # gone, or ENODATA, EIO, ENXIO: the sensor does not answer


def count(path: Path) -> int | None:
    """Return a file's number where it is one, not negative, and of at most 18 digits."""
    told = text(path)
    return int(told) if told is not None and told.isdecimal() and len(told) <= 18 else None


def this_node() -> str:
    """Return this machine's name, without its domain."""
    return socket.gethostname().partition(".")[0]
