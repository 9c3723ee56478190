"""Calls that may block: one after the other, given up in time, in nobody's way."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from wattkeeper.core.worker import Worker


def test_results_and_faults_come_back_to_who_asked():
    """Ten at once are done in order by one thread; a fault is raised where it was asked for."""
    threads = []

    def work(i):
        threads.append(threading.get_ident())
        if i == 7:
            raise KeyError(i)
        return i

    async def main():
        worker = Worker("w")
        done = await asyncio.gather(*(worker.run(lambda i=i: work(i), 10) for i in range(10)), return_exceptions=True)
        worker.close()
        return done

    done = asyncio.run(main())
    assert [d for d in done if not isinstance(d, KeyError)] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert repr(done[7]) == "KeyError(7)"
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


def test_what_waits_behind_a_call_that_hangs_is_given_up_and_not_done_later():
    """Three behind it are forgotten; the next one after it ends is done."""
    free, done = threading.Event(), []

    async def main():
        worker = Worker("w")
        for work in (free.wait, *(lambda i=i: done.append(i) for i in range(3))):
            with pytest.raises(TimeoutError):
                await worker.run(work, 0.02)
        free.set()
        await worker.run(lambda: done.append("next"), 10)
        worker.close()

    asyncio.run(main())
    assert done == ["next"]


def test_a_closed_worker_works_again_and_in_another_loop():
    worker = Worker("w")
    for i in range(3):
        assert asyncio.run(worker.run(lambda i=i: i, 10)) == i
        worker.close()
        worker.close()


def test_a_call_that_hangs_for_ever_does_not_hold_up_the_end_of_the_program():
    code = """
import asyncio, threading
from wattkeeper.core.worker import Worker
async def main():
    try:
        await Worker("w").run(threading.Event().wait, 0.05)
    except TimeoutError:
        print("gave up")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == "gave up\n"
