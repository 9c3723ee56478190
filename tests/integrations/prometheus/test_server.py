"""Against a real Prometheus: a scraped exposition, backfilled blocks, chunks, a server that goes away."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import httpx
import polars as pl
import pytest
from tests.daemons import Daemon, free_port

from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.prometheus.api import PrometheusSource

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="Prometheus is not installed"
)

START = 1_760_000_400
LABELS = 'gpu="0",UUID="GPU-1",Hostname="n1"'


def start(root, config="scrape_configs: []\n"):
    """Start a Prometheus on a data folder; return it and its URL."""
    port = free_port()
    (root / "prom.yml").write_text(config)
    command = [
        "prometheus", f"--config.file={root / 'prom.yml'}", f"--storage.tsdb.path={root / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=100y",
    ]  # fmt: skip
    daemon = Daemon("prometheus", command, root)
    url = f"http://127.0.0.1:{port}"
    daemon.wait_ready(lambda: _answers(f"{url}/-/ready"))
    return daemon, url


def _answers(url):
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def backfilled(tmp_path_factory):
    """Three hours of a GPU's counter at 100 W each 15 s, with 20 silent minutes, as blocks that promtool wrote."""
    root = tmp_path_factory.mktemp("prom")
    lines = ["# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION gauge"]
    lines += [
        f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{LABELS}}} {10**9 + s * 100_000} {START + s}"
        for s in range(0, 3 * 3600 + 1, 15)
        if not 3600 < s < 4800
    ]
    (root / "x.om").write_text("\n".join([*lines, "# EOF\n"]))
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", root / "x.om", root / "data"], check=True, capture_output=True
    )
    return root


def rows(*intakes):
    """Return all readings, sorted."""
    return pl.concat([i.readings for i in intakes]).sort("meter", "time_ms")


def test_backfilled_blocks_come_back_sample_by_sample(backfilled):
    """Every sample once, with its own time stamp, in whatever chunks; nothing is invented in the silence."""
    daemon, url = start(backfilled)
    try:
        span = (START * 1000, (START + 3 * 3600 + 1) * 1000)
        whole = rows(*PrometheusSource(url, *span, chunk_ms=10**9).read())
        pieces = rows(*PrometheusSource(url, *span, chunk_ms=977_000).read())
    finally:
        daemon.stop()

    times = [(START + s) * 1000 for s in range(0, 3 * 3600 + 1, 15) if not 3600 < s < 4800]
    assert times == whole["time_ms"].to_list()
    assert [10**9 + t * 100 - START * 100_000 for t in times] == whole["value"].to_list()
    assert whole.equals(pieces)


def test_a_server_that_goes_away_does_not_move_the_cursor(backfilled):
    """What was stored before the server died is kept; reading on from the cursor gives the rest, nothing twice."""
    daemon, url = start(backfilled)
    source = PrometheusSource(url, START * 1000, (START + 3 * 3600 + 1) * 1000, chunk_ms=3_600_000)
    kept = []
    batches = source.read()
    kept += [next(batches), next(batches)]
    daemon.stop()
    with pytest.raises(SourceError, match="What came before 2025-10-09T11:00:00Z is kept"):
        next(batches)
    assert source.position_ms == (START + 7200) * 1000

    daemon, url = start(backfilled)
    try:
        kept += list(PrometheusSource(url, source.position_ms, source.end_ms, chunk_ms=3_600_000).read())
        whole = rows(*PrometheusSource(url, START * 1000, source.end_ms).read())
    finally:
        daemon.stop()
    assert whole.equals(rows(*kept))


def test_a_scraped_exposition_is_read_with_its_scrape_times(tmp_path):
    """Prometheus scrapes a recorded page each second; its samples come back with unit and device."""
    page = tmp_path / "www"
    page.mkdir()
    (page / "metrics").write_text(f"DCGM_FI_DEV_POWER_USAGE{{{LABELS}}} 412.331\n")
    port = free_port()
    web = Daemon("www", [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(page)], tmp_path)
    web.wait_ready(lambda: _answers(f"http://127.0.0.1:{port}/metrics"))
    config = f"scrape_configs: [{{job_name: dcgm, scrape_interval: 1s, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    begin = int(time.time() * 1000) - 1000
    daemon, url = start(tmp_path, config)
    try:
        daemon.wait_ready(lambda: rows(*PrometheusSource(url, begin, int(time.time() * 1000)).read()).height >= 3)
        found = rows(*PrometheusSource(url, begin, int(time.time() * 1000)).read())
    finally:
        daemon.stop()
        web.stop()

    assert {("n1/gpu0:GPU-1:dcgm-average:power", 412_331)} == set(found.select("meter", "value").rows())
    assert found["time_ms"].min() >= begin


def test_a_query_that_is_refused_is_told(backfilled):
    """A wrong matcher is told in Prometheus' own words."""
    daemon, url = start(backfilled)
    try:
        with pytest.raises(SourceError, match="refused: .*parse error"):
            next(PrometheusSource(url, START * 1000, (START + 60) * 1000, match="a=").read())
    finally:
        daemon.stop()
