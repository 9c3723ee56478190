"""Ingest: readings over HTTP to the book on one core, beside JSON rows and beside Prometheus' remote write.

`python benchmarks/ingest.py [--quick]` prints one line per bar, `name value limit holds|falls short`, and exits with 1
where one falls short. Servers run on one core with all their processes, senders on another; each sender has one batch
on its way at a time. A run ends when all that was sent can be found: in the book's columnar files for ours, in the head
block for Prometheus, which syncs nothing to disk before it answers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from attribution import Bars
from wattkeeper.core.assets import Meter
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.live import Sample
from wattkeeper.lake.book import Book
from wattkeeper.server.remote_write import WriteRequest

HERE = Path(__file__).parent

SENDERS = 8
METERS, INSTANTS = 40, 250
BATCH = METERS * INSTANTS
START_MS = time.time_ns() // 1_000_000 - 20 * 3_600_000
CORES = sorted(os.sched_getaffinity(0))
PEERS = ("prometheus", "prometheus, packed by series")
WARM_UP = 5
"""Batches of each sender that are not timed."""

SITE = "[[site]]\nid = 'a'\n[[nodes]]\nnames = 'n[0-7]'\nparent = 'a'\ngpus = 40\n"


def meter_name(sender: int, meter: int) -> str:
    """Return the id of a meter."""
    return f"n{sender}/gpu{meter}:GPU-{sender:02}-{meter:02}:dcgm:energy_counter"


def samples(sender: int, count: int) -> list[Sample]:
    """Return the readings of one batch: each meter once a second."""
    first_ms = START_MS + count * INSTANTS * 1000
    return [
        Sample(meter_name(sender, m), first_ms + i * 1000 + m % 7, 10**12 + (count * INSTANTS + i) * 400_000 + m)
        for i in range(INSTANTS)
        for m in range(METERS)
    ]


def request(path: str, body: bytes, kind: str, **more: str) -> bytes:
    """Return a whole HTTP request."""
    headers = {"Host": "bench", "Content-Type": kind, "Content-Length": str(len(body))} | more
    lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def declared(sender: int) -> list[Meter]:
    """Return the meters of a sender; as agents do, it declares them in its first batch."""
    return [Meter(meter_name(sender, m), f"n{sender}/gpu{m}", "energy_counter", "dcgm") for m in range(METERS)]


def arrow_requests(sender: int, count: int) -> Iterator[bytes]:
    """Yield requests of one sender: one encoded batch, whose number and readings are moved on in place."""
    batch = samples(sender, 0)
    kind = "application/vnd.apache.arrow.stream"
    yield request("/v1/readings", encode(Batch(f"n{sender}/a/{0:06}", batch, [], declared(sender))), kind)
    text = bytearray(request("/v1/readings", encode(Batch(f"n{sender}/a/{0:06}", batch)), kind))
    number_at = text.index(b"/a/000000") + 3
    columns = {}
    for name in ("time_ms", "value"):
        values = np.array([getattr(s, name) for s in batch], np.int64)
        columns[name] = np.frombuffer(text, np.int64, BATCH, text.index(values.tobytes()))
    for i in range(1, count):
        text[number_at : number_at + 6] = f"{i:06}".encode()
        columns["time_ms"] += INSTANTS * 1000
        columns["value"] += INSTANTS * 400_000
        yield bytes(text)


def json_requests(sender: int, count: int) -> Iterator[bytes]:
    """Yield requests with JSON rows."""
    batch = samples(sender, 0)
    numbers = np.array([(s.time_ms, s.value) for s in batch], np.int64)
    rows = ",".join(f'{{"meter":"{s.meter}","time_ms":%d,"value":%d}}' for s in batch)
    meters = json.dumps([dataclasses.asdict(m) for m in declared(sender)])
    for i in range(count):
        head = f'{{"id":"n{sender}/j/{i}","meters":{meters if i == 0 else "[]"},"readings":['
        yield request(
            "/v1/readings", (head + rows % tuple(numbers.ravel().tolist()) + "]}").encode(), "application/json"
        )
        numbers += (INSTANTS * 1000, INSTANTS * 400_000)


def labels(sender: int, meter: int) -> bytes:
    """Return the encoded labels of one series of dcgm-exporter."""
    pairs = {
        "__name__": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Hostname": f"n{sender}", "UUID": f"GPU-{sender:02}-{meter:02}",
        "gpu": str(meter), "instance": f"n{sender}:9400", "job": "dcgm",
    }  # fmt: skip
    message = WriteRequest()
    series = message.timeseries.add()
    for name, value in sorted(pairs.items()):
        series.labels.add(name=name, value=value)
    return bytes(series.SerializeToString())


def remote_write_requests(sender: int, count: int, *, packed: bool = False) -> Iterator[bytes]:
    """Yield the same readings by remote write, as Prometheus itself sends them: each sample with its series' labels.

    packed: all samples of a series behind its labels once, which the protocol allows and Prometheus does not do.
    """
    known = [labels(sender, m) for m in range(METERS)]
    for i in range(count):
        encoded = [[] for _ in range(METERS)]
        for at, s in enumerate(samples(sender, i)):
            stamp = _varint(s.time_ms)
            encoded[at % METERS].append(b"\x12%c\x09%b\x10%b" % (10 + len(stamp), struct.pack("<d", s.value), stamp))
        if packed:
            series = [known[m] + b"".join(encoded[m]) for m in range(METERS)]
        else:
            series = [known[m] + encoded[m][k] for k in range(INSTANTS) for m in range(METERS)]
        body = pa.compress(b"".join(b"\x0a%b%b" % (_varint(len(s)), s) for s in series), codec="snappy", asbytes=True)
        yield request("/api/v1/write", body, "application/x-protobuf", Content_Encoding="snappy",
                      X_Prometheus_Remote_Write_Version="0.1.0")  # fmt: skip


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


class Senders:
    """Senders that each have one request on its way at a time."""

    def __init__(self, port: int, make: Callable[[int, int], Iterator[bytes]], count: int, *, ready: bool) -> None:
        self.port, self.count = port, count
        # what is slow to make is made before the clock runs; what is moved on in place is made as it is sent
        self.requests = [list(make(s, count)) if ready else make(s, count) for s in range(SENDERS)]
        self.took_s: list[float] = []
        self.faults: list[str] = []
        self.begun = threading.Barrier(SENDERS + 1)

    def run(self) -> tuple[float, float]:
        """Send all; return when the clock began, all warm, and when the last answer came [s, monotonic]."""
        threads = [threading.Thread(target=self._send, args=(s,)) for s in range(SENDERS)]
        for t in threads:
            t.start()
        self.begun.wait()
        begin_s = time.perf_counter()
        for t in threads:
            t.join()
        if self.faults:
            raise SystemExit(f"a request failed: {self.faults[0]}")
        return begin_s, time.perf_counter()

    def _send(self, sender: int) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at, text in enumerate(self.requests[sender]):
                if at == WARM_UP:
                    self.begun.wait()
                begin_s = time.perf_counter()
                link.sendall(text)
                answer = self._answer(link)
                if at >= WARM_UP:
                    self.took_s.append(time.perf_counter() - begin_s)
                if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 204")):
                    self.faults.append(answer.decode(errors="replace")[:400])
                    self.begun.abort()
                    return

    @staticmethod
    def _answer(link: socket.socket) -> bytes:
        got = b""
        while b"\r\n\r\n" not in got:
            part = link.recv(65536)
            if not part:
                return got or b"the server hung up"
            got += part
        head, _, body = got.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        while len(body) < int(length[1] if length else 0):
            body += link.recv(65536)
        return head


def fetch(port: int, path: str) -> str:
    """Return a page, "" while nobody answers."""
    import httpx

    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=10).text
    except httpx.HTTPError:
        return ""


@contextmanager
def running(command: list[str], port: int, probe: str) -> Iterator[None]:
    """Run a server on the first core."""
    # Python compiles each module once and keeps it, as any installation does; some build machines switch that off
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPYCACHEPREFIX": str(HERE / "data" / "pycache"), "GOMAXPROCS": "1"}
    pinned = ["taskset", "-c", str(CORES[0]), *command]
    process = subprocess.Popen(pinned, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not fetch(port, probe):
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended with {process.returncode}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def metric(port: int, name: str) -> float:
    """Return the value of a metric without labels."""
    found = re.search(rf"^{name} (\S+)$", fetch(port, "/metrics"), re.MULTILINE)
    return float(found[1]) if found else 0.0


def ours(
    root: Path, make: Callable[[int, int], Iterator[bytes]], count: int, *, ready: bool
) -> tuple[float, float, int]:
    """Return readings per second from the first request to the last column, p99 of an answer [s], and readings lost."""
    book = Book.create(root / "book", SITE)
    port = free_port()
    command = [
        "wattkeeper", "serve", str(book.root), "--listen", f"127.0.0.1:{port}", "--fold-every", "0.5",
    ]  # fmt: skip
    with running(command, port, "/healthz"):
        while not metric(port, "wattkeeper_fold_timestamp_seconds"):
            time.sleep(0.05)
        senders = Senders(port, make, count + WARM_UP, ready=ready)
        begin_s, _ = senders.run()
        sent = SENDERS * (count + WARM_UP) * BATCH
        while metric(port, "wattkeeper_folded_readings_total") < sent:
            time.sleep(0.05)
        wall_s = time.perf_counter() - begin_s
    found = Book(book.root).readings.table.scan().select(pl.struct("meter", "time_ms").n_unique(), pl.len()).collect()
    lost = abs(found.item(0, 0) - sent) + abs(found.item(0, 1) - sent)
    shutil.rmtree(book.root)
    return SENDERS * count * BATCH / wall_s, p99(senders.took_s), lost


def prometheus(root: Path, count: int, *, packed: bool = False) -> tuple[float, float]:
    """Return samples per second that the machine's Prometheus takes by remote write, and p99 of an answer [s]."""
    port = free_port()
    (root / "prom.yml").write_text("global: {scrape_interval: 1h}\n")
    command = [
        "prometheus", f"--config.file={root / 'prom.yml'}", f"--storage.tsdb.path={root / 'prom'}",
        f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver",
    ]  # fmt: skip
    with running(command, port, "/-/ready"):
        while "is Ready" not in fetch(port, "/-/ready"):
            time.sleep(0.1)
        senders = Senders(port, partial(remote_write_requests, packed=packed), count + WARM_UP, ready=True)
        begin_s, end_s = senders.run()
        sent = SENDERS * (count + WARM_UP) * BATCH
        kept = metric(port, "prometheus_tsdb_head_samples_appended_total") or float(
            re.findall(r'head_samples_appended_total\{type="float"\} (\S+)', fetch(port, "/metrics"))[0]
        )
        if kept < sent:
            raise SystemExit(f"Prometheus kept {kept:.0f} of {sent} samples")
    shutil.rmtree(root / "prom")
    return SENDERS * count * BATCH / (end_s - begin_s), p99(senders.took_s)


def p99(took_s: list[float]) -> float:
    """Return what 99 % of some durations do not exceed [s]."""
    return sorted(took_s)[max(len(took_s) * 99 // 100 - 1, 0)]


def main() -> int:
    """Run the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer batches, under 50 s")
    quick = parser.parse_args().quick
    if len(CORES) > 1:
        os.sched_setaffinity(0, CORES[1:])
    bars = Bars()
    arrow_count, json_count, peer_count, rounds = (100, 20, 8, 1) if quick else (400, 80, 30, 3)
    figures: dict[str, list[tuple[float, ...]]] = {"arrow": [], "json": []} | {k: [] for k in PEERS}
    with tempfile.TemporaryDirectory(prefix="wk-ingest-", dir=HERE) as folder:
        root = Path(folder)
        for _ in range(rounds):
            figures["arrow"].append(ours(root, arrow_requests, arrow_count, ready=False))
            figures["json"].append(ours(root, json_requests, json_count, ready=False))
            if shutil.which("prometheus"):
                figures["prometheus"].append(prometheus(root, peer_count))
        if shutil.which("prometheus") and not quick:
            figures["prometheus, packed by series"].append(prometheus(root, peer_count, packed=True))
    rate = {name: statistics.median(f[0] for f in runs) for name, runs in figures.items() if runs}
    slowest = {name: statistics.median(f[1] for f in runs) for name, runs in figures.items() if runs}
    for name, per_s in rate.items():
        bars.note(f"{name}: {per_s / 1e6:.2f} M readings/s, p99 of an answer {slowest[name] * 1000:.1f} ms")
    bars.at_least("arrow, one core [M readings/s]", rate["arrow"] / 1e6, 2.0, "{:.2f}")
    bars.at_most("arrow, p99 of an acknowledgement [ms]", slowest["arrow"] * 1000, 100.0, "{:.1f}")
    bars.at_least("arrow / json rows", rate["arrow"] / rate["json"], 1.5)
    bars.at_most("readings lost or double", sum(f[2] for n in ("arrow", "json") for f in figures[n]), 0, "{:.0f}")
    if "prometheus" in rate:
        bars.at_least("arrow / prometheus remote write", rate["arrow"] / rate["prometheus"], 5.0)
    else:
        bars.note("Prometheus is not installed: not compared")
    if not quick:
        note = f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {os.cpu_count()} cores {platform.python_version()}"
        shape = f"{SENDERS} senders, batches of {BATCH}: {METERS} meters, {INSTANTS} instants; medians of {rounds} runs"
        result = HERE / "results" / f"ingest-{datetime.now(UTC):%Y-%m-%d}.txt"
        result.write_text("\n".join([note, shape, *bars.lines]) + "\n")
    return 1 if bars.failed else 0


if __name__ == "__main__":
    sys.exit(main())
