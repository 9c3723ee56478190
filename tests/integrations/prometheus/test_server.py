"""Against a real Prometheus: a scraped page, backfilled blocks with a gap, a server that goes away midway."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import polars as pl
import pytest

from tests.daemons import Daemon, free_port
from tests.integrations.prometheus.conftest import ENERGY, NOW, SHARED
from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.prometheus.api import PrometheusSource
from wattkeeper.integrations.prometheus.link import Access
from wattkeeper.integrations.prometheus.series import Options

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="Prometheus is not installed"
)

HOUR = 3_600_000
STEP = 15_000
SPAN = (NOW, NOW + 3 * HOUR + 1)
SILENCE = (NOW + HOUR, NOW + HOUR + 1_200_000)
"""Twenty minutes without samples, longer than the five for which PromQL repeats the last value."""

TIMES = [t for t in range(NOW, NOW + 3 * HOUR + 1, STEP) if not SILENCE[0] < t < SILENCE[1]]
ONCE = Access(retries=0)


def answers(url):
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


class Server:
    """A Prometheus on a data folder."""

    def __init__(self, root: Path, scrape: str = "[]") -> None:
        port = free_port()
        (root / "prom.yml").write_text(f"scrape_configs: {scrape}\n")
        command = [
            "prometheus", f"--config.file={root / 'prom.yml'}", f"--storage.tsdb.path={root / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=100y",
        ]  # fmt: skip
        self.url = f"http://127.0.0.1:{port}"
        self.daemon = Daemon("prometheus", command, root)
        self.daemon.wait_ready(lambda: answers(f"{self.url}/-/ready"))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.daemon.stop()


@pytest.fixture(scope="module")
def blocks():
    """Three hours of a GPU's counter at 100 W, twice, once with a job, as blocks that promtool wrote."""
    root = Path(tempfile.mkdtemp(prefix="wk-prom-"))
    labels = 'gpu="0",UUID="GPU-1",Hostname="n1"'
    lines = [f"# TYPE {ENERGY} gauge"]
    for extra, first, last in (("", SPAN[0], SPAN[1]), (',hpc_job="7"', NOW + 600_000, NOW + 2 * HOUR)):
        lines += [f"{ENERGY}{{{labels}{extra}}} {counter(t)} {t // 1000}" for t in TIMES if first <= t < last]
    (root / "page.om").write_text("\n".join([*lines, "# EOF\n"]))
    backfill = ["promtool", "tsdb", "create-blocks-from", "openmetrics", root / "page.om", root / "data"]
    subprocess.run(backfill, check=True, capture_output=True)
    yield root
    shutil.rmtree(root)


def counter(time_ms):
    """100 W are 100 mJ a millisecond."""
    return 10**9 + 100 * (time_ms - NOW)


def rows(intakes):
    """Return all readings as the book keeps them: those that come twice once."""
    return pl.concat([i.readings for i in intakes]).unique().sort("meter", "time_ms")


def held(intakes):
    """Return how long each job held each asset [s], with overlaps counted twice."""
    found = pl.concat([i.allocations for i in intakes])
    lengths = found.with_columns(s=(pl.col("end_ms") - pl.col("start_ms")) // 1000)
    return lengths.group_by("job_id", "asset").agg(pl.col("s").sum()).rows()


def test_blocks_come_back_sample_by_sample(blocks):
    """Every sample once with its own time stamp, nothing invented in the silence, however the span is cut."""
    with Server(blocks) as server:
        whole = rows(PrometheusSource(server.url, *SPAN, chunk_ms=10**9).read())
        hourly = list(PrometheusSource(server.url, *SPAN, chunk_ms=HOUR).read())
        odd = list(PrometheusSource(server.url, *SPAN, chunk_ms=977_000).read())
        few = list(PrometheusSource(server.url, *SPAN, max_samples=100).read())

    assert TIMES == whole["time_ms"].to_list()
    assert [counter(t) for t in TIMES] == whole["value"].to_list()
    for batches in (hourly, odd, few):
        assert whole.equals(rows(batches))
        assert len(TIMES) == sum(b.readings.height for b in batches)  # no sample in two batches


def test_a_server_that_goes_away_midway_loses_and_doubles_nothing(blocks):
    """It stops after the second hour; going on from the cursor gives the same readings as one go."""
    moved = []
    with Server(blocks) as server:
        options = {"chunk_ms": HOUR, "access": ONCE, "options": Options(jobs_from="hpc_job")}
        batches = PrometheusSource(server.url, *SPAN, advance=moved.append, **options).read()
        kept = [next(batches), next(batches)]
        server.daemon.stop()
        with pytest.raises(SourceError, match="does not answer"):
            next(batches)
    assert [NOW + HOUR, NOW + 2 * HOUR] == moved  # both batches were taken: we came back for a third

    with Server(blocks) as server:
        kept += PrometheusSource(server.url, *SPAN, cursor_ms=moved[-1], advance=moved.append, **options).read()
        whole = list(PrometheusSource(server.url, *SPAN, options=options["options"]).read())
        odd = list(PrometheusSource(server.url, *SPAN, options=options["options"], chunk_ms=977_000).read())

    assert SPAN[1] == moved[-1]
    assert rows(whole).equals(rows(kept))
    # named from 600 s to 3600 s and from 4800 s to 7185 s, each with one scrape of 15 s: 3015 s + 2400 s
    for batches in (whole, kept, odd):
        assert [("7", "n1/gpu0", 5415)] == held(batches)


def test_a_query_that_is_refused_is_told(blocks):
    """A matcher that is no PromQL is told in the server's own words."""
    with Server(blocks) as server, pytest.raises(SourceError, match=r"status 400: .*parse error"):
        list(PrometheusSource(server.url, *SPAN, matchers="a=", access=ONCE).read())


@pytest.mark.skipif(not SHARED.exists(), reason="the recorded expositions are not here")
def test_a_scraped_page_is_read_with_its_scrape_times(tmp_path):
    """Prometheus scrapes a recorded node each second; `instance` stands in for the empty host name of the page."""
    (tmp_path / "www").mkdir()
    shutil.copy(SHARED / "e2e-test-cgroupsv2-nvidia-ipmiutil-output.txt", tmp_path / "www" / "metrics")
    port = free_port()
    serve = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(tmp_path / "www")]
    page = Daemon("page", serve, tmp_path)
    page.wait_ready(lambda: answers(f"http://127.0.0.1:{port}/metrics"))
    begin_ms = time.time_ns() // 10**6
    jobs = f"[{{job_name: n, scrape_interval: 1s, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]"

    def read():
        end_ms = time.time_ns() // 10**6
        return list(PrometheusSource(server.url, begin_ms, end_ms).read())

    with Server(tmp_path, jobs) as server:
        server.daemon.wait_ready(lambda: any(i.readings["time_ms"].n_unique() > 2 for i in read()))
        found = rows(read())
    page.stop()

    assert {
        ("127.0.0.1/cpu0::ceems:energy_counter", 258_218_293),
        ("127.0.0.1/cpu1::ceems:energy_counter", 130_570_506),
        ("127.0.0.1/dram0::ceems:energy_counter", 24_468_410),
        ("127.0.0.1/dram1::ceems:energy_counter", 64_930_395),
        ("127.0.0.1::ceems-ipmi:power", 49_000),
        ("127.0.0.1::ceems-redfish/Chassis_1:power", 397_000),
        ("127.0.0.1::ceems-redfish/Chassis_2:power", 1_696_000),
    } == set(found.select("meter", "value").rows())
    assert found["time_ms"].min() >= begin_ms
