"""`wattkeeper serve`: the journal, the HTTP server and the process that folds, started and stopped together."""

from __future__ import annotations

import ipaddress
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wattkeeper.core.errors import ConfigError, MissingExtraError, SourceError
from wattkeeper.lake.book import Book
from wattkeeper.lake.fold import journal_root
from wattkeeper.lake.journal import Journal, Reader, writers
from wattkeeper.server.app import MAX_BODY_BYTES, App
from wattkeeper.server.keeper import Keeper
from wattkeeper.server.metrics import Metrics
from wattkeeper.server.tokens import Gate, read_file

try:
    import uvicorn
except ImportError as error:
    raise MissingExtraError("wattkeeper.server", "uvicorn", "server") from error

WRITER = "server"
AGAIN_S = 5.0
"""Time after which a folding process that died is started again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server is run. ingest: whether it takes readings. cert, key: PEM files, for TLS. fold_every_s: time from one
    fold to the next [s]."""

    host: str = "127.0.0.1"
    port: int = 8470
    ingest: bool = True
    token_file: Path | None = None
    fold_every_s: float = 60.0
    max_body_bytes: int = MAX_BODY_BYTES
    cert: Path | None = None
    key: Path | None = None


def serve(root: Path, settings: Settings, say: Callable[[str], None]) -> None:
    """Serve a book until SIGTERM or SIGINT; all that was acknowledged is folded then.

    Raises ConfigError, JournalError, SourceError where it cannot start.
    """
    book = Book(root)
    gate = Gate(book.state, read_file(settings.token_file) if settings.token_file else [])
    if settings.ingest and not gate.digests() and not _loopback(settings.host):
        raise ConfigError(
            f"Without a token anyone who reaches {settings.host} could write. "
            "Make one with: wattkeeper token add NAME, or listen on 127.0.0.1."
        )
    journals = journal_root(root)
    metrics = Metrics(lambda: sum(Reader(journals, w).size_bytes() for w in writers(journals)))
    journal = Journal(journals, WRITER) if settings.ingest else None
    for doubt in journal.doubts if journal else []:
        say(doubt)
    app = App(partial(Keeper, journal) if journal else None, gate, metrics, max_body_bytes=settings.max_body_bytes)
    server = _Server(_config(app, settings), say)
    # uvicorn raises what it caught once more when it has stopped; by then there is folding to do
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    folding = _Folding(root, settings.fold_every_s, metrics, say)
    try:
        server.run()
    except SystemExit as error:
        raise SourceError(f"Cannot listen on {settings.host}:{settings.port}. Is the port taken?") from error
    finally:
        if journal:
            journal.close()
        folding.stop()


class _Server(uvicorn.Server):
    """uvicorn's server, which says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._say(f"Listening on {'https' if self.config.ssl_certfile else 'http'}://{host}:{port}")


def _config(app: App, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http="httptools",
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
        ssl_certfile=settings.cert,
        ssl_keyfile=settings.key,
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Folding:
    """The folding process: started, listened to, started again where it dies, and stopped."""

    def __init__(self, root: Path, every_s: float, metrics: Metrics, say: Callable[[str], None]) -> None:
        self._command = [sys.executable, "-m", "wattkeeper.server.folding", str(root), str(every_s)]
        self._metrics, self._say = metrics, say
        self._stopping = threading.Event()
        self._said: set[str] = set()  # by the last fold: what stands as it stood is not said again
        self._process = self._start()
        self._thread = threading.Thread(target=self._listen, name="folding")
        self._thread.start()

    def stop(self) -> None:
        """Have what is left folded, and wait for it."""
        self._stopping.set()
        if self._process.stdin:
            self._process.stdin.close()
        self._thread.join()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def _listen(self) -> None:
        while True:
            with self._process as process:
                for line in process.stdout or ():
                    self._note(json.loads(line))
            if self._stopping.is_set():
                return
            self._say(f"The folding process ended with {process.returncode}; starting it again.")
            self._metrics.fold_faults.inc()
            if not self._stopping.wait(AGAIN_S):
                self._process = self._start()

    def _note(self, told: dict[str, object]) -> None:
        if fault := told.get("fault"):
            self._metrics.fold_faults.inc()
            self._say(f"Folding failed and is tried again: {fault}")
            return
        words: list[str] = [*told["refused"], *told["doubts"]]  # type: ignore[misc]
        for one in words:
            if one not in self._said:
                self._say(one)
        if words or told["readings"]:
            self._said = set(words)
        self._metrics.folded.inc(told["readings"])  # type: ignore[arg-type]
        self._metrics.again.inc(told["again"])  # type: ignore[arg-type]
        self._metrics.aside.inc(told["aside"])  # type: ignore[arg-type]
        self._metrics.refused.inc(told["more"])  # type: ignore[arg-type]
        self._metrics.fold_s.set(told["seconds"])  # type: ignore[arg-type]
        self._metrics.fold_time.set(time.time())
