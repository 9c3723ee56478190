"""Remote write: from a real Prometheus that scrapes an exporter's page, and what is refused of a request."""

from __future__ import annotations

import http.server
import shutil
import threading

import polars as pl
import pyarrow as pa
import pytest

from tests.daemons import Daemon, free_port
from tests.server.serving import Serving, new_book
from wattkeeper.core.errors import BatchError
from wattkeeper.server.bodies import TooLargeError
from wattkeeper.server.remote_write import PROTOBUF, WriteRequest, of_remote_write

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
    body, refused = of_remote_write(data, NOW, LIMIT)

    assert refused == 0
    assert body.batch.meters == [METER]
    assert (body.batch.time_ms.tolist(), body.batch.value.tolist()) == ([NOW, NOW + 15_000], [5_000_000, 6_000_000])
    assert [(a.id, a.kind, a.parent) for a in body.batch.assets] == [("n1", "node", ""), ("n1/gpu0", "gpu", "n1")]


def test_marks_of_silence_and_absurd_values_are_counted_and_left():
    """NaN is Prometheus' mark that a series has ended: no reading, and never 0."""
    data = write_request((ENERGY, GPU, [(NOW, 5e6), (NOW + 15_000, float("nan")), (NOW + 30_000, -1.0)]))
    body, refused = of_remote_write(data, NOW, LIMIT)

    assert (body.batch.value.tolist(), refused) == ([5_000_000], 2)
    assert of_remote_write(write_request((ENERGY, GPU, [(NOW, float("nan"))])), NOW, LIMIT) == (None, 1)
    assert of_remote_write(write_request(), NOW, LIMIT) == (None, 0)


def test_a_body_that_is_none_is_refused():
    with pytest.raises(BatchError, match="the body is not snappy"):
        of_remote_write(b"\x05rubbish", NOW, LIMIT)
    with pytest.raises(BatchError, match=r"not a write request of Prometheus remote write 1\.0"):
        of_remote_write(pa.compress(b"\x0a\xff", codec="snappy", asbytes=True), NOW, LIMIT)
    with pytest.raises(TooLargeError, match="larger than 1048576 bytes"):
        of_remote_write(pa.compress(b"0" * 2**21, codec="snappy", asbytes=True), NOW, LIMIT)
    with pytest.raises(TooLargeError):
        of_remote_write(b"\xff\xff\xff\xff\x0f", NOW, LIMIT)
    with pytest.raises(BatchError, match="ahead of this clock"):
        of_remote_write(write_request((ENERGY, GPU, [(NOW + 10**9, 5e6)])), NOW, LIMIT)


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


@pytest.mark.skipif(not shutil.which("prometheus"), reason="Prometheus is not installed")
def test_a_real_prometheus_writes_into_a_book(tmp_path):
    """What it scrapes each second arrives with its own times and values; its stale marks are no readings."""
    book = new_book(tmp_path)
    exporter = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    port = free_port()
    with Serving(book) as server:
        (tmp_path / "prom.yml").write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: dcgm, static_configs: [{{targets: ['127.0.0.1:{exporter.server_port}']}}]}}]\n"
            f"remote_write: [{{url: '{server.url}/api/v1/write', queue_config: {{batch_send_deadline: 1s}}}}]\n"
        )
        command = [
            "prometheus", f"--config.file={tmp_path / 'prom.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        daemon = Daemon("prometheus", command, tmp_path)
        try:
            server.wait_folded(3)
        finally:
            daemon.stop()
            exporter.shutdown()
            exporter.server_close()
        wrong = server.client.post(
            "/api/v1/write", content=b"x", headers={"content-type": f"{PROTOBUF};proto=io.v2.Request"}
        )
        assert wrong.status_code == 415
    rows = book.readings.table.scan().sort("time_ms").collect()

    assert set(rows["meter"]) == {METER}
    assert rows["value"].to_list() == [i * 100_000 for i in range(1, rows.height + 1)]
    assert rows.height >= 3
    assert rows.select(pl.col("time_ms").diff().drop_nulls().is_between(500, 5_000).all()).item()
