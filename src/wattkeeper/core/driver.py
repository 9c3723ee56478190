"""A driver's library, whose calls may block: opened when it is needed, called from one thread, forgotten when it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Generic, TypeVar

from wattkeeper.core.errors import SourceError
from wattkeeper.core.worker import Worker

L = TypeVar("L")
_T = TypeVar("_T")


class Driver(Generic[L]):
    """One library of one device.

    load: imports it, raises SourceError where it is not there. start, stop: open it and let go of it. errors: what its
    calls raise. fault: makes the SourceError of such an error. cure: what to look at when it does not answer.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], L],
        *,
        start: Callable[[L], object],
        stop: Callable[[L], object],
        errors: Callable[[L], type[Exception]],
        fault: Callable[[Exception], SourceError],
        cure: str,
    ) -> None:
        self._name, self._load, self._cure = name, load, cure
        self._start, self._stop, self._errors, self._fault = start, stop, errors, fault
        self._worker = Worker(name)
        self.library: L | None = None

    async def run(self, work: Callable[[], _T], limit_s: float) -> _T:
        """Return what blocking work returns. Raises SourceError where it takes longer."""
        try:
            return await self._worker.run(work, limit_s)
        except TimeoutError as error:
            raise SourceError(f"{self._name}: the driver did not answer within {limit_s:g} s. {self._cure}") from error

    def open(self) -> L:
        """Return the library, opened. Raises SourceError where it cannot be."""
        if self.library is None:
            try:
                library = self._load()
            except SourceError as error:
                raise SourceError(f"{self._name}: {error}") from error
            try:
                self._start(library)
            except self._errors(library) as error:
                raise self._fault(error) from error
            self.library = library
        return self.library

    def drop(self) -> None:
        """Let go of the library, if it is open; the driver may be gone before us."""
        library, self.library = self.library, None
        if library is not None:
            with contextlib.suppress(self._errors(library)):
                self._stop(library)

    async def close(self, limit_s: float) -> None:
        """Let go of the library and end the thread."""
        if self.library is not None:
            with contextlib.suppress(TimeoutError):
                await self._worker.run(self.drop, limit_s)
        self._worker.close()
