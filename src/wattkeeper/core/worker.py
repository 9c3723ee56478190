"""A thread of its own for calls that may block, such as those of a driver."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Worker:
    """Runs one call after the other. A call that hangs holds up no other worker, nor the end of the program."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] | None = None

    async def run(self, work: Callable[[], _T], limit_s: float) -> _T:
        """Return what the call returns. Raises TimeoutError where it, or one before it that still hangs, takes too long."""
        if self._jobs is None:
            self._jobs = SimpleQueue()
            threading.Thread(target=_serve, args=(self._jobs,), name=self._name, daemon=True).start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._jobs.put((loop, future, work))
        limit = loop.call_later(limit_s, _hand_over, future, future.set_exception, TimeoutError())
        try:
            return await future
        finally:
            limit.cancel()

    def close(self) -> None:
        """Let the thread end after the call that it is at; the next call starts another."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _serve(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        loop, future, work = job
        if future.done():  # nobody waits any more
            continue
        try:
            settle, told = future.set_result, work()
        except Exception as error:
            settle, told = future.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(_hand_over, future, settle, told)
        del job, future, work, settle, told


def _hand_over(future: asyncio.Future[Any], settle: Callable[[Any], None], told: Any) -> None:
    if not future.done():
        settle(told)
