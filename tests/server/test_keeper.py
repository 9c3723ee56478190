"""What waits for the disk: bounded in bytes, and never dropped once it was taken."""

from __future__ import annotations

import asyncio
import threading

import pytest

from wattkeeper.core.errors import JournalError
from wattkeeper.lake.journal import Journal
from wattkeeper.server import keeper
from wattkeeper.server.keeper import Keeper


def test_beyond_what_may_wait_the_sender_is_asked_to_wait_itself(tmp_path, monkeypatch):
    """Of 100 bytes that may wait, 40 are on their way to a disk that hangs and 60 behind them: one more byte is refused.
    When the disk answers, all that was taken is on it, and there is room again."""
    monkeypatch.setattr(keeper, "WAITING_BYTES", 100)
    journal, gate = Journal(tmp_path, "w"), threading.Event()
    append = journal.append_many
    monkeypatch.setattr(journal, "append_many", lambda batches: (gate.wait(30), append(batches))[1])

    async def main():
        one = Keeper(journal)
        taken = [asyncio.ensure_future(one.keep(b"a" * 40)), asyncio.ensure_future(one.keep(b"b" * 60))]
        await asyncio.sleep(0)
        with pytest.raises(JournalError, match="Too much is waiting for the disk"):
            await one.keep(b"c")
        gate.set()
        await asyncio.gather(*taken)
        await one.keep(b"d")
        await asyncio.to_thread(one.close)
        with pytest.raises(JournalError, match="stopping"):
            await one.keep(b"e")

    asyncio.run(main())
    assert [b for _, b in Journal(tmp_path, "w").read()] == [b"a" * 40, b"b" * 60, b"d"]
