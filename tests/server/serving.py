"""A server on a book, in a process of its own, and what a client sends it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import polars as pl

from tests.books.small import SITE, node
from tests.daemons import Daemon, free_port
from wattkeeper.core.assets import Meter
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.live import Sample
from wattkeeper.lake.book import Book

ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
METER = Meter("n1/gpu0:nvml:energy_counter", "n1/gpu0", "energy_counter", "nvml")
QUICK = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "wattkeeper-pycache")}
"""Environment in which Python keeps what it has compiled: these tests start many processes."""

START = time.time_ns() // 1_000_000 - 10 * 86_400_000


def new_book(root: Path) -> Book:
    """Return an empty book with one node."""
    return Book.create(root / "book", SITE + node("n1", 1))


def body(number: int, sender: str = "n1/a", rows: int = 5) -> bytes:
    """Return a batch whose readings no other number of the sender has: 1 ms apart."""
    lane = sum(sender.encode()) * 100_000
    samples = [Sample(METER.id, START + lane + number * rows + i, number * rows + i) for i in range(rows)]
    return encode(Batch(f"{sender}/{number}", samples, [], [METER]))


def kept(book: Book) -> list[int]:
    """Return the times of all readings in the book, sorted, as often as they are there, from START on [ms]."""
    return sorted((book.readings.table.scan().select(pl.col("time_ms") - START)).collect()["time_ms"].to_list())


def sent(*numbers: int, sender: str = "n1/a", rows: int = 5) -> list[int]:
    """Return the times that some batches have."""
    lane = sum(sender.encode()) * 100_000
    return sorted(lane + n * rows + i for n in numbers for i in range(rows))


class Serving:
    """`wattkeeper serve` until the end of a `with`; SIGTERM then, unless it was killed."""

    def __init__(
        self, book: Book, *options: str, fold_every: float = 0.2, port: int = 0, env: dict[str, str] | None = None
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        listen = f"127.0.0.1:{self.port}"
        command = [
            str(Path(sys.executable).with_name("wattkeeper")), "serve", str(book.root), "--listen", listen,
            "--fold-every", str(fold_every), *options,
        ]  # fmt: skip
        self.daemon = Daemon("serve", command, book.root.parent, QUICK | (env or {}))
        self.client = httpx.Client(base_url=self.url, timeout=30)
        self.daemon.wait_ready(self._answers)

    def _answers(self) -> bool:
        try:
            return self.client.get("/healthz").status_code in (200, 503)
        except httpx.HTTPError:
            return False

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.client.close()
        self.daemon.stop()

    def send(self, data: bytes, **headers: str) -> httpx.Response:
        """Post a body, Arrow where no header says else."""
        return self.client.post("/v1/readings", content=data, headers=ARROW | headers)

    def metric(self, name: str) -> float:
        """Return a metric's value; 0 where there is none."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0

    def wait_folded(self, readings: int) -> None:
        """Wait until as many readings have been folded since the start."""
        end = time.monotonic() + 60
        while self.metric("wattkeeper_folded_readings_total") < readings:
            assert time.monotonic() < end, self.daemon.log.read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill the server with signal 9, and wait for the process that folds, which then ends by itself."""
        folding = subprocess.run(
            ["pgrep", "-P", str(self.daemon.process.pid)], capture_output=True, text=True, check=True
        )
        self.daemon.process.send_signal(signal.SIGKILL)
        self.daemon.process.wait()
        for pid in folding.stdout.split():
            while Path(f"/proc/{pid}/stat").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
                time.sleep(0.05)
