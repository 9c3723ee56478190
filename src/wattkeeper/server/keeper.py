"""Keeping: a thread that puts batches into the journal, as many at a time as are waiting, and then says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from wattkeeper.core.errors import JournalError
from wattkeeper.lake.journal import Journal

WAITING_BYTES = 256 * 2**20
"""Batches that may wait for the disk; beyond that the sender is asked to wait itself."""

TOGETHER_BYTES = 16 * 2**20
"""Batches that are written with one wait for the disk."""

_Waiting = tuple[bytes, "asyncio.Future[None]"]


class Keeper:
    """One journal and its thread. Made within the event loop whose futures it fulfils.

    fault: why the last write failed; "" while all is well.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.fault = ""
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="journal")
        self._thread.start()

    async def keep(self, batch: bytes) -> None:
        """Return once the batch is safe on disk. Raises JournalError where it is not."""
        kept: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            if self._closing:
                raise JournalError("The server is stopping. Send it again later.")
            if self._bytes + len(batch) > WAITING_BYTES:
                raise JournalError("Too much is waiting for the disk. Send it again later.")
            self._waiting.append((batch, kept))
            self._bytes += len(batch)
            self._wake.notify()
        await kept

    def close(self) -> None:
        """Write what is waiting, and let go of the journal."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self.journal.close()

    def _work(self) -> None:
        while group := self._next():
            faults = self._write([batch for batch, _ in group])
            with self._wake:
                self._bytes -= sum(len(batch) for batch, _ in group)
            self.fault = next((str(f) for f in faults if f), "")
            self._loop.call_soon_threadsafe(_tell, [kept for _, kept in group], faults)

    def _next(self) -> list[_Waiting]:
        """Return the batches that wait, some 16 MiB of them at most; none once all is closed."""
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            size, count = 0, 0
            while count < len(self._waiting) and size < TOGETHER_BYTES:
                size += len(self._waiting[count][0])
                count += 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
            return group

    def _write(self, batches: Sequence[bytes]) -> list[JournalError | None]:
        """Journal batches together; where that fails one by one, for a small one may still have room."""
        try:
            self.journal.append_many(batches)
        except JournalError as error:
            if len(batches) == 1:
                return [error]
            return [fault for batch in batches for fault in self._write([batch])]
        return [None] * len(batches)


def _tell(futures: Sequence[asyncio.Future[None]], faults: Sequence[JournalError | None]) -> None:
    for kept, fault in zip(futures, faults, strict=True):
        if kept.done():  # the sender hung up
            continue
        if fault:
            kept.set_exception(fault)
        else:
            kept.set_result(None)
