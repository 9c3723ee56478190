"""Compile with numba where it is installed; without it the same code runs as plain Python, with equal results.

numba keeps compiled functions on disk but looks only at the file a function stands in: a kernel would go on using old
code of a function it calls from another file. So the cache lies in a folder named after all our compiled sources.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

try:
    import numba
except ImportError:  # the extra `speed` is optional
    numba = None

F = TypeVar("F", bound=Callable[..., Any])

COMPILED = numba is not None and not os.environ.get("NUMBA_DISABLE_JIT")
"""Whether kernels are machine code here."""


def _cache_dir() -> Path | None:
    """Return a folder for compiled code, made and writable; None where there is none."""
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(Path(__file__).parent.parent.rglob("*.py")):
        text = source.read_bytes()
        if b"@njit" in text:
            digest.update(text)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        folder = base / "wattkeeper" / digest.hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


if COMPILED:
    _CACHE = _cache_dir()
    if _CACHE is not None and not numba.config.CACHE_DIR:
        numba.config.CACHE_DIR = str(_CACHE)


def njit(function: F) -> F:
    """Compile a function on arrays and numbers, without the interpreter lock, cached on disk."""
    if not COMPILED:
        return function
    compiled: F = numba.njit(cache=_CACHE is not None, nogil=True)(function)
    return compiled
