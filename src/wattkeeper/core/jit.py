"""Compile with numba where it is installed; without it the same code runs as plain Python, with equal results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

try:
    import numba
except ImportError:  # the extra `speed` is optional
    numba = None

F = TypeVar("F", bound=Callable[..., Any])

COMPILED = numba is not None
"""Whether kernels are machine code here."""


def njit(function: F) -> F:
    """Compile a function on arrays and numbers, without the interpreter lock, cached on disk."""
    if numba is None:
        return function
    compiled: F = numba.njit(cache=True, nogil=True)(function)
    return compiled
