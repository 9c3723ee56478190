"""The agent as a whole: pollers → outbox → journal → server, until it is told to stop."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wattkeeper.agent.build import Planned
from wattkeeper.agent.outbox import Outbox
from wattkeeper.agent.poller import Poller, WallClock
from wattkeeper.agent.sender import Sender
from wattkeeper.agent.spool import Spool
from wattkeeper.agent.systemd import notify, watchdog_s
from wattkeeper.agent.thin import Quantity
from wattkeeper.config import AgentConfig, AgentFile
from wattkeeper.core.assets import AssetTree
from wattkeeper.core.errors import BookError, ConfigError, WattkeeperError
from wattkeeper.core.sysfs import this_node
from wattkeeper.core.worker import Worker
from wattkeeper.lake.journal import Journal

log = logging.getLogger("wattkeeper.agent")

TICK_S = 5.0
DISK_LIMIT_S = 60.0
GOODBYE_S = 10.0
"""How long the agent may take to send and close when it is told to stop [s]; what is not sent waits on disk."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What an agent has done. faults: what is wrong with a device or the server now, by name."""

    devices: int
    readings: int
    missed: int
    lost: int
    sent: int
    faults: dict[str, str]


class Agent:
    """Reads devices and keeps what they say. Raises ConfigError, BookError or JournalError where it cannot keep anything."""

    def __init__(self, file: AgentFile, planned: Sequence[Planned]) -> None:
        config = file.agent
        if not planned:
            raise ConfigError(
                "The site file names nothing to read. Add tables such as [[agent.nvml]]: wattkeeper agent discover."
            )
        self._name = config.name or this_node()
        tree = file.assets() if file.site else AssetTree({})
        self.outbox = Outbox(self._name, self._keep, tree, batch_s=config.batch_s, batch_rows=config.batch_rows)
        self._journal = _journal(config, self._name, self.outbox.quantity)
        self._sender = Sender(config, self._journal) if config.url else None
        for doubt in self._journal.doubts:
            log.warning("%s", doubt)
        self._disk = Worker("journal")
        self.pollers = [
            Poller(
                one, self.outbox, seed=self._name, backoff_max_s=config.backoff_max_s, rediscover_s=config.rediscover_s
            )
            for one in planned
        ]
        self._clock = WallClock()

    async def run(self) -> Summary:
        """Read until SIGTERM or SIGINT; then write, send what can be sent quickly, and close."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        work: list[Coroutine[Any, Any, None]] = [poller.run() for poller in self.pollers]
        work += [self.outbox.run(), self._tick()]
        if self._sender:
            work.append(self._sender.run())
        tasks = [asyncio.create_task(one) for one in work]
        stopped = asyncio.create_task(stop.wait())
        log.info("Reading %d devices as %s, into %s.", len(self.pollers), self._name, self._journal.folder)
        notify("READY=1", f"STATUS={self._status()}")
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1")
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)
        await self._close()
        for task in done - {stopped}:
            task.result()
        return self.summary()

    async def once(self) -> Summary:
        """Read each device once, write and send."""
        await asyncio.gather(*(poller.cycle() for poller in self.pollers))
        await self._close()
        if self._sender and self._sender.fault:
            log.warning("%s Readings wait on disk.", self._sender.fault)
        return self.summary()

    def summary(self) -> Summary:
        """Return what was done so far."""
        faults = {p.device.name: p.fault for p in self.pollers if p.fault}
        if self._sender and self._sender.fault:
            faults["server"] = self._sender.fault
        return Summary(
            len(self.pollers),
            sum(p.readings for p in self.pollers),
            sum(p.missed for p in self.pollers),
            self.outbox.lost + (self._journal.lost if isinstance(self._journal, Spool) else 0),
            self._sender.sent if self._sender else 0,
            faults,
        )

    async def _keep(self, batch: bytes) -> None:
        await self._disk.run(lambda: self._journal.append(batch), DISK_LIMIT_S)
        if self._sender:
            self._sender.wake()

    async def _tick(self) -> None:
        """Show signs of life, and look at the clock."""
        wanted_s = watchdog_s()
        settled = False
        while True:
            await asyncio.sleep(min(TICK_S, wanted_s / 2) if wanted_s else TICK_S)
            settled = settled or _settle(self.pollers)
            self._clock.check()
            notify("WATCHDOG=1", f"STATUS={self._status()}")

    def _status(self) -> str:
        s = self.summary()
        return f"{s.devices} devices, {len(s.faults)} faults, {s.readings} readings, {s.missed} missed, {s.lost} lost"

    async def _close(self) -> None:
        """Write first: what is on disk is safe whatever happens next."""
        await self.outbox.flush()
        if self._sender:
            try:
                async with asyncio.timeout(GOODBYE_S):
                    await self._sender.drain()
            except (WattkeeperError, TimeoutError) as error:
                self._sender.fault = str(error) or f"not all was sent within {GOODBYE_S:g} s; the rest waits on disk"
            await self._sender.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await asyncio.gather(*(p.device.close() for p in self.pollers), return_exceptions=True)
        self._disk.close()
        self._journal.close()
        if self.outbox.waiting:
            log.error("%d readings found no room on disk and are LOST.", self.outbox.waiting)


def _settle(pollers: Sequence[Poller]) -> bool:
    """Give back, once all devices were met, what starting has left behind: with NVML's module a fifth of the memory."""
    if not all(p.readings or p.fault for p in pollers):
        return False
    gc.collect()
    gc.freeze()  # what stands now stays: no need to look at it again
    with suppress(OSError, AttributeError):  # a C library that is not glibc
        ctypes.CDLL(None).malloc_trim(0)
    return True


def _journal(config: AgentConfig, name: str, quantity: Quantity) -> Journal:
    """Return where batches are written: to be sent on, or in a book."""
    if config.url:
        return Spool(config.spool, name, limit_bytes=config.spool_limit_bytes, quantity=quantity)
    if config.book is None:
        raise ConfigError("[agent] says neither book nor url. Say where readings go.")
    if not (config.book / "state.sqlite").exists():
        raise BookError(f"{config.book} is not a book. Make one with: wattkeeper init {config.book}")
    return Journal(config.book / "journal", name)


def log_to_stderr() -> None:
    """Write one line for each change of state: with systemd's level marks in its journal, else with the time."""
    handler = logging.StreamHandler(sys.stderr)
    if os.environ.get("JOURNAL_STREAM"):
        handler.setFormatter(_Marked())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


class _Marked(logging.Formatter):
    """sd-daemon(3): <3> error, <4> warning, <6> info."""

    def format(self, record: logging.LogRecord) -> str:
        level = 3 if record.levelno >= logging.ERROR else 4 if record.levelno >= logging.WARNING else 6
        return f"<{level}>{record.getMessage()}"
