"""From the spool to the server: batch by batch, oldest first, for as long as it takes."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from wattkeeper.agent.poller import fraction
from wattkeeper.config import AgentConfig
from wattkeeper.core.errors import ConfigError, JournalError, JournalFullError, SourceError, WattkeeperError
from wattkeeper.core.worker import Worker
from wattkeeper.lake.journal import Journal, Position, Reader

log = logging.getLogger("wattkeeper.agent")

CONTENT_TYPE = "application/vnd.apache.arrow.stream"
BACKOFF_S = 1.0

SKEW_S = 5.0
"""A clock that is further off than this puts energy into the wrong interval [s]."""

REFUSED = frozenset({400, 413, 415, 422})
"""The server will never take this batch: it is put aside, and the others go on."""


_T = TypeVar("_T")


class RefusedError(SourceError):
    """The server will not take a batch, now or later."""


def connect(config: AgentConfig) -> http.client.HTTPConnection:
    """Return a connection to the server, not opened yet."""
    parts = urlsplit(config.url)
    if parts.scheme == "https":
        return http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=config.send_timeout_s, context=_context(config.ca_file)
        )
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=config.send_timeout_s)


class Link:
    """The way to a server: one connection, kept open. Blocking; used by one thread."""

    def __init__(self, config: AgentConfig) -> None:
        self.name = f"server {config.url}"
        self._config, self._path = config, f"{urlsplit(config.url).path.rstrip('/')}/v1/readings"
        self._connection = connect(config)

    def send(self, batch: bytes) -> float | None:
        """Return how far the server's clock is ahead [s], where it tells, once it has the batch safe.

        Raises RefusedError for a bad batch, else SourceError.
        """
        headers = {"Content-Type": CONTENT_TYPE, "Wattkeeper-Sent-Ms": str(time.time_ns() // 1_000_000)}
        if token := self._config.secret():
            headers["Authorization"] = f"Bearer {token}"
        try:
            answer = self._post(batch, headers)
            said = answer.read(2000).decode(errors="replace").strip()
            if answer.will_close or answer.isclosed() is False:
                self._connection.close()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise SourceError(
                f"{self.name} cannot be reached: {_reason(error)}. Check url, network and certificate."
            ) from error
        if answer.status == http.client.OK:
            return _skew_s(said)
        told = f"{self.name} answers {answer.status} {answer.reason}" + (f": {said[:200]}" if said else "")
        if answer.status in REFUSED:
            raise RefusedError(told)
        if answer.status in (401, 403):
            raise SourceError(f"{told}. Check token or token_file.")
        raise SourceError(f"{told}. It is tried again.")

    def _post(self, batch: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Return the answer. A server may close a connection that was idle; a batch sent twice counts once."""
        kept_open = self._connection.sock is not None
        try:
            self._connection.request("POST", self._path, batch, headers)
            return self._connection.getresponse()
        except (ConnectionError, ssl.SSLError, http.client.BadStatusLine):
            if not kept_open:
                raise
            self._connection.close()
        self._connection.request("POST", self._path, batch, headers)
        return self._connection.getresponse()

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


class Sender:
    """Delivers what stands in a journal. sent: batches that the server has."""

    def __init__(self, config: AgentConfig, spool: Reader) -> None:
        self._config, self._link = config, Link(config)
        self._reader, name = spool, spool.folder.name
        self._aside = (spool.folder.parent, f"{name}.refused")
        self._worker = Worker(self._link.name)
        self._more = asyncio.Event()
        self._part = fraction(name)
        self._skewed = self._unnoted = False
        self._done, self._doubts = Position(0, 0), len(spool.doubts)
        self.sent = self.refused = 0
        self.fault = ""

    def wake(self) -> None:
        """Say that there is more to send."""
        self._more.set()

    async def run(self) -> None:
        """Send for ever. A server that is away is told once, and tried at growing distances."""
        failures = 0
        while True:
            self._more.clear()
            try:
                await self.drain()
                failures = 0
            except WattkeeperError as error:
                failures += 1
                if not self.fault:
                    log.warning("%s Readings wait on disk.", error)
                self.fault = str(error)
                await asyncio.sleep(self._backoff_s(failures))
                continue
            await self._more.wait()

    async def drain(self) -> None:
        """Send all that is there. Raises SourceError where the server does not take it."""
        batches = self._reader.read()
        while (item := await self._do(lambda: next(batches, None))) is not None:
            position, batch = item
            self._tell_doubts()
            if position > self._done:
                await self._deliver(batch)
                self._done = position
            await self._forget(position)
            if self.fault:
                log.info("%s takes readings again.", self._link.name)
                self.fault = ""
        self._tell_doubts()

    def _tell_doubts(self) -> None:
        """Say once what damage was found."""
        doubts = self._reader.doubts[self._doubts :]
        self._doubts += len(doubts)
        for doubt in doubts:
            log.error("%s", doubt)

    async def _forget(self, position: Position) -> None:
        """Give back a batch's disk. One that takes no note of it holds up nothing: a batch sent twice counts once."""
        try:
            await self._do(self._reader.forget, position)
            self._unnoted = False
        except JournalError as error:
            if not self._unnoted:
                log.error("%s What is delivered is not noted; it may be sent again.", error)  # noqa: TRY400
            self._unnoted = True

    async def _deliver(self, batch: bytes) -> None:
        """Send one batch; put it aside where the server will never take it."""
        try:
            skew_s = await self._do(self._link.send, batch)
            self.sent += 1
            self._compare(skew_s)
        except RefusedError as error:
            await self._do(self._put_aside, batch)
            self.refused += 1
            log.error("%s. The batch is kept in %s; the next ones are sent.", error, "/".join(map(str, self._aside)))  # noqa: TRY400

    async def close(self) -> None:
        """Let go of the connection."""
        self._link.close()
        self._worker.close()

    async def _do(self, call: Callable[..., _T], *arguments: Any) -> _T:
        limit_s = 4 * self._config.send_timeout_s
        try:
            return await self._worker.run(partial(call, *arguments), limit_s)
        except TimeoutError as error:
            raise SourceError(f"{self._link.name} or the disk did not answer within {limit_s:g} s.") from error

    def _compare(self, skew_s: float | None) -> None:
        """Tell once when this machine's clock and the server's differ."""
        off = skew_s is not None and abs(skew_s) > SKEW_S
        if off and not self._skewed and skew_s is not None:
            way = "ahead of" if skew_s > 0 else "behind"
            log.warning(
                "%s has a clock %.0f s %s this machine's. Is NTP running on both?", self._link.name, abs(skew_s), way
            )
        self._skewed = off

    def _put_aside(self, batch: bytes) -> None:
        """Keep a batch for a person to look at, while there is room."""
        aside = Journal(*self._aside, limit_bytes=self._config.spool_limit_bytes)
        try:
            aside.append(batch)
        except JournalFullError as error:
            log.error("%s This batch is LOST.", error)  # noqa: TRY400
        finally:
            aside.close()

    def _backoff_s(self, failures: int) -> float:
        full_s = min(BACKOFF_S * 2.0 ** min(failures - 1, 30), self._config.backoff_max_s)
        return full_s * (0.5 + 0.5 * fraction(f"{self._part}{failures}"))


def _skew_s(said: str) -> float | None:
    """Return how far the server's clock is ahead by its answer; the way there and back is part of it [s]."""
    try:
        return float(json.loads(said)["time_ms"]) / 1000 - time.time()
    except (ValueError, TypeError, KeyError):
        return None


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"Cannot use ca_file {ca_file}: {error}. It must hold certificates in PEM.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
