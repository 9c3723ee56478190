"""Remote write: from a real Prometheus that scrapes an exporter's page, and what is refused of a request."""

from __future__ import annotations

import http.server
import shutil
import struct
import threading
import time

import polars as pl
import pyarrow as pa
import pytest

from tests.daemons import Daemon, free_port
from tests.server.serving import Serving, new_book
from wattkeeper import loop
from wattkeeper.core.errors import BatchError
from wattkeeper.lake.batches import AHEAD_MS
from wattkeeper.server.bodies import TooLargeError
from wattkeeper.server.remote_write import PROTOBUF, WriteRequest, Written, of_remote_write

NOW = 1_760_000_400_000
LIMIT = 2**20
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
GPU = {"Hostname": "n1", "gpu": "0", "UUID": "GPU-1", "modelName": "NVIDIA H100"}
METER = "n1/gpu0:GPU-1:dcgm:energy_counter"


def write_request(*series):
    """Return a packed request: (name, labels, [(time, value), …])."""
    message = WriteRequest()
    for name, labels, samples in series:
        one = message.timeseries.add()
        for key, value in {"__name__": name, **labels}.items():
            one.labels.add(name=key, value=value)
        for time_ms, value in samples:
            one.samples.add(timestamp=time_ms, value=value)
    return pa.compress(message.SerializeToString(), codec="snappy", asbytes=True)


def test_known_metrics_become_readings_and_others_are_left():
    data = write_request((ENERGY, GPU, [(NOW, 5e6), (NOW + 15_000, 6e6)]), ("up", {"instance": "x"}, [(NOW, 1)]))
    written = of_remote_write(data, NOW, LIMIT)
    batch = written.body.batch

    assert (written.refused, written.late) == (0, "")
    assert batch.meters == [METER]
    assert (batch.time_ms.tolist(), batch.value.tolist()) == ([NOW, NOW + 15_000], [5_000_000, 6_000_000])
    assert [(a.id, a.kind, a.parent) for a in batch.assets] == [("n1", "node", ""), ("n1/gpu0", "gpu", "n1")]


STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


def test_a_mark_of_silence_is_no_reading_and_nothing_wrong():
    """Prometheus' stale marker is one NaN among all: never 0, never a reading, and not counted as refused."""
    data = write_request((ENERGY, GPU, [(NOW, 5e6), (NOW + 15_000, STALE), (NOW + 30_000, 6e6)]))
    written = of_remote_write(data, NOW, LIMIT)

    assert (written.body.batch.value.tolist(), written.refused) == ([5_000_000, 6_000_000], 0)
    assert of_remote_write(write_request((ENERGY, GPU, [(NOW, STALE)])), NOW, LIMIT) == Written(None, 0, "")
    assert of_remote_write(write_request(), NOW, LIMIT) == Written(None, 0, "")


def test_a_sample_that_cannot_be_taken_costs_only_itself():
    """NaN, a negative and times of nowhere: the good samples are kept, the others counted, absurd times told."""
    nan = [(NOW, 5e6), (NOW + 15_000, float("nan")), (NOW + 30_000, -1.0)]
    written = of_remote_write(write_request((ENERGY, GPU, nan)), NOW, LIMIT)
    assert (written.body.batch.value.tolist(), written.refused, written.late) == ([5_000_000], 2, "")

    times = [(NOW + AHEAD_MS, 5e6), (NOW + AHEAD_MS + 1, 6e6), (0, 7e6)]
    written = of_remote_write(write_request((ENERGY, GPU, times)), NOW, LIMIT)
    assert (written.body.batch.value.tolist(), written.refused) == ([5_000_000], 2)
    assert written.late.startswith(
        "2 samples are from before 2000 or more than a day ahead of this clock and were left out"
    )


def test_samples_out_of_order_and_labels_under_other_names_are_the_same_readings():
    """Prometheus writes `exported_…` where a target's own label is in the way of the exporter's; order means nothing."""
    exported = {"exported_Hostname": "n1", "Hostname": "prom", "gpu": "7", "exported_gpu": "0", "UUID": "GPU-1",
                "modelName": "NVIDIA H100", "instance": "10.0.0.1:9400"}  # fmt: skip
    plain = of_remote_write(write_request((ENERGY, GPU, [(NOW, 5e6), (NOW + 15_000, 6e6)])), NOW, LIMIT)
    mixed = of_remote_write(
        write_request((ENERGY, exported, [(NOW + 15_000, 6e6)]), (ENERGY, exported, [(NOW, 5e6)])), NOW, LIMIT
    )

    assert mixed.body.data == plain.body.data


TYPES = [
    ("application/x-protobuf", "snappy", 204),
    ("application/x-protobuf", "", 204),
    ("application/x-protobuf;proto=prometheus.WriteRequest", "snappy", 204),
    ("application/x-protobuf; proto=prometheus.WriteRequest", "snappy", 204),
    ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy", 415),
    ("application/x-protobuf;proto=another", "snappy", 415),
    ("application/x-protobuffer", "snappy", 415),
    ("application/json", "snappy", 415),
    ("application/x-protobuf", "zstd", 415),
]


def test_only_remote_write_1_is_taken_and_2_is_told_to_fall_back(tmp_path):
    """415 is what makes a sender of 2.0 use 1.0; absurd times are 400, and what is good of the same request is kept."""
    book = new_book(tmp_path)
    now = time.time_ns() // 1_000_000
    with Serving(book, fold_every=3600) as server:
        for kind, coding, status in TYPES:
            headers = {"content-type": kind} | ({"content-encoding": coding} if coding else {})
            answer = server.client.post(
                "/api/v1/write", content=write_request((ENERGY, GPU, [(now, 5e6)])), headers=headers
            )
            assert (kind, coding, answer.status_code) == (kind, coding, status)
        told = server.client.post(
            "/api/v1/write", content=write_request((ENERGY, GPU, [(now + 1, 6e6), (now + 10**9, 7e6)])),
            headers={"content-type": PROTOBUF},
        )  # fmt: skip
        assert (told.status_code, told.json()["error"].split(" ahead")[0]) == (
            400, "1 samples are from before 2000 or more than a day"
        )  # fmt: skip
        assert server.metric("wattkeeper_remote_write_refused_samples_total") == 1
    kept = book.readings.table.scan().select("value").unique().collect()["value"].sort().to_list()
    assert kept == [5_000_000, 6_000_000]


def test_a_body_that_is_none_is_refused():
    with pytest.raises(BatchError, match="the body is not snappy"):
        of_remote_write(b"\x05rubbish", NOW, LIMIT)
    with pytest.raises(BatchError, match=r"not a write request of Prometheus remote write 1\.0"):
        of_remote_write(pa.compress(b"\x0a\xff", codec="snappy", asbytes=True), NOW, LIMIT)
    with pytest.raises(TooLargeError, match="larger than 1048576 bytes"):
        of_remote_write(pa.compress(b"0" * 2**21, codec="snappy", asbytes=True), NOW, LIMIT)
    with pytest.raises(TooLargeError):
        of_remote_write(b"\xff\xff\xff\xff\x0f", NOW, LIMIT)


class Page(http.server.BaseHTTPRequestHandler):
    """An exporter's page whose counter rises by 100 J each time it is read."""

    reads = 0

    def do_GET(self):
        Page.reads += 1
        labels = ",".join(f'{k}="{v}"' for k, v in GPU.items())
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(f"# TYPE {ENERGY} counter\n{ENERGY}{{{labels}}} {Page.reads * 100_000}\n".encode())

    def log_message(self, *_):
        pass


def busy(port):
    """Answer 503 until it was asked twice."""
    asked = threading.Semaphore(0)

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(503)
            self.send_header("retry-after", "1")
            self.end_headers()
            asked.release()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert asked.acquire(timeout=60)
    assert asked.acquire(timeout=60)
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("prometheus"), reason="Prometheus is not installed")
def test_a_real_prometheus_writes_into_a_book_whatever_happens_to_the_server(tmp_path):
    """It is answered 503 at first, then the server comes, is killed, and comes again: each scrape is in the book once,
    with its own time and value, and the books have what the counter counted from the first scrape to the last."""
    book = new_book(tmp_path)
    exporter = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    port, write_port = free_port(), free_port()
    (tmp_path / "prom.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: dcgm, static_configs: [{{targets: ['127.0.0.1:{exporter.server_port}']}}]}}]\n"
        f"remote_write: [{{url: 'http://127.0.0.1:{write_port}/api/v1/write', "
        "queue_config: {batch_send_deadline: 1s, max_backoff: 1s}}]\n"
    )
    command = [
        "prometheus", f"--config.file={tmp_path / 'prom.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    daemon = Daemon("prometheus", command, tmp_path)
    try:
        busy(write_port)
        first = Serving(book, fold_every=0.2, port=write_port)
        first.wait_folded(3)
        first.kill()
        first.client.close()
        with Serving(book, fold_every=0.2, port=write_port) as server:
            server.wait_folded(4)
            exporter.shutdown()  # the target goes down: its series end with a stale marker
            sent = 'wattkeeper_ingest_requests_total{format="remote_write",status="204"}'
            before, end = server.metric(sent), time.monotonic() + 60
            while server.metric(sent) < before + 3:
                assert time.monotonic() < end
                time.sleep(0.1)
    finally:
        daemon.stop()
        exporter.server_close()
    opened = type(book)(book.root)
    rows = opened.readings.table.scan().unique().sort("time_ms").collect()

    assert set(rows["meter"]) == {METER}
    assert rows["value"].to_list() == [(rows["value"][0] // 100_000 + i) * 100_000 for i in range(rows.height)]
    assert rows.select(pl.col("time_ms").diff().drop_nulls().is_between(500, 5_000).all()).item()
    loop.attribute(opened)
    posted = opened.postings.scan().select(pl.col("energy_mj").sum()).collect().item()
    assert posted == rows["value"][-1] - rows["value"][0]
    assert loop.check(opened).largest_mj == 0
