"""A Prometheus series as a grid signal, against a small server of our own and against a real Prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.daemons import Daemon, free_port
from tests.integrations.services import HOUR, NOW, FakeService
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.spans import SpanSource
from wattkeeper.integrations.prometheus.signal import provider

SELECTOR = 'grid_intensity{zone="{zone}"}'


def answer(samples, series=1):
    """Return what a server says: samples are (ms, value)."""
    values = [[t / 1000, str(v)] for t, v in samples]
    rows = [{"metric": {"n": str(i)}, "values": values} for i in range(series)]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": rows if samples else []}})


def make(service, **config):
    return service.keep(
        provider("DE", "intensity", {"url": service.url, "intensity": SELECTOR, "retries": 0, **config})
    )


def read(samples, start_ms=NOW, end_ms=NOW + HOUR, series=1, **config):
    with FakeService(lambda *_: answer(samples, series)) as service:
        return make(service, **config).read(start_ms, end_ms), service.asked


def test_a_sample_holds_until_the_next():
    """300 from 00:00, 350 from 00:20 to the end of the span."""
    found, asked = read([(NOW, 300), (NOW + 1_200_000, 350)])

    assert found.rows == [(NOW, NOW + 1_200_000, 300.0), (NOW + 1_200_000, NOW + HOUR, 350.0)]
    assert asked[0][1]["query"] == f'grid_intensity{{zone="DE"}}[{2 * HOUR}ms]'


def test_a_sample_before_the_span_reaches_into_it():
    """Scraped at 23:50, it holds until 00:10."""
    found, _ = read([(NOW - 600_000, 250), (NOW + 600_000, 300)], hold_s=3600)

    assert found.rows[0] == (NOW, NOW + 600_000, 250.0)


def test_a_silence_is_a_gap():
    """A sample holds ten minutes at most: from 00:10 to 00:30 nothing is known."""
    found, _ = read([(NOW, 300), (NOW + HOUR // 2, 310)], hold_s=600)

    assert found.rows == [(NOW, NOW + 600_000, 300.0), (NOW + HOUR // 2, NOW + HOUR // 2 + 600_000, 310.0)]


def test_not_a_number_is_a_gap():
    """A stale marker is no value."""
    found, _ = read([(NOW, "NaN"), (NOW + HOUR // 2, 310)])

    assert found.rows == [(NOW + HOUR // 2, NOW + HOUR, 310.0)]


def test_a_selector_that_matches_nothing_is_a_gap():
    """The server knows no such series: no value, and no fault."""
    found, _ = read([])

    assert found.rows == []


def test_an_intensity_is_finite_and_not_negative():
    """Two of three samples cannot be one: they are told, and their times stay gaps."""
    samples = [(NOW, "+Inf"), (NOW + HOUR // 4, "-5"), (NOW + HOUR // 2, 310)]
    with FakeService(lambda *_: answer(samples)) as service:
        (intake,) = SpanSource(make(service), [(NOW, NOW + HOUR)]).read()

    assert intake.signals.select("start_ms", "value").rows() == [(NOW + HOUR // 2, 310.0)]
    assert [r.reason for r in intake.rejects] == [
        "2026-10-01T00:00:00Z, and 1 more: the value is negative or infinite; the time stays a gap"
    ]


def test_a_price_has_a_method_of_its_own():
    """What is said of the intensity is not said of the price; a price may be negative."""
    config = {"price": "p", "method": "average, direct", "price_method": "day-ahead"}
    with FakeService(lambda *_: answer([(NOW, -0.01)])) as service:
        one = service.keep(provider("DE", "price", {"url": service.url, "retries": 0, **config}))
        (intake,) = SpanSource(one, [(NOW, NOW + HOUR)]).read()

    assert one.info.method == "day-ahead"
    assert intake.signals["value"].to_list() == [-0.01]


def test_units_become_ours():
    """1 lb/MWh is 0.45359237 g/kWh; 80 EUR/MWh are 0.08 EUR/kWh; others are refused."""
    assert read([(NOW, 1000)], intensity_unit="lb/MWh")[0].rows[0][2] == pytest.approx(453.59237)
    with FakeService(lambda *_: answer([(NOW, 80)])) as service:
        config = {"url": service.url, "price": "p", "price_unit": "EUR/MWh"}
        one = service.keep(provider("DE", "price", config))
        assert one.read(NOW, NOW + HOUR).rows[0][2] == pytest.approx(0.08)
        assert (one.info.id, one.info.unit) == ("price:DE:prometheus", "EUR/kWh")
        with pytest.raises(ConfigError, match="price_unit is 'EUR/Wh'"):
            provider("DE", "price", config | {"price_unit": "EUR/Wh"})
        with pytest.raises(ConfigError, match="has no selector for intensity"):
            provider("DE", "intensity", config)


def test_a_token_comes_from_the_environment_or_a_file(monkeypatch, tmp_path):
    """It is sent as a bearer token and stands in no option."""
    monkeypatch.setenv("WATTKEEPER_PROMETHEUS_TOKEN", "one")
    (tmp_path / "token").write_text("two\n")
    sent = [read([(NOW, 1)], **more)[1][0][2]["authorization"] for more in ({}, {"token_file": tmp_path / "token"})]

    assert sent == ["Bearer one", "Bearer two"]


def test_two_series_are_no_signal():
    """They are not added and none is picked."""
    with pytest.raises(SourceError, match="2 series match"):
        read([(NOW, 1)], series=2)


@pytest.mark.skipif(not (shutil.which("prometheus") and shutil.which("promtool")), reason="Prometheus is not installed")
def test_against_a_real_prometheus(tmp_path):
    """Six hours backfilled every ten minutes, one hour left out: five hours of values and the gap come."""
    start_s = NOW // 1000
    lines = ["# TYPE grid_intensity gauge"]
    for i in range(36):
        if not 12 <= i < 18:  # 02:00 to 03:00
            lines.append(f'grid_intensity{{zone="DE"}} {300 + i} {start_s + 600 * i}')
    (tmp_path / "data.om").write_text("\n".join([*lines, "# EOF", ""]))
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", tmp_path / "data.om", tmp_path / "data"]
    subprocess.run(blocks, check=True, capture_output=True)
    (tmp_path / "prometheus.yml").write_text("")
    port = free_port()
    server = Daemon(
        "prometheus",
        ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
         "--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}"],
        tmp_path,
    )  # fmt: skip
    try:
        import httpx

        server.wait_ready(lambda: _ready(httpx, port))
        config = {"url": f"http://127.0.0.1:{port}", "intensity": SELECTOR, "hold_s": 600}
        one = provider("DE", "intensity", config)
        found = one.read(NOW, NOW + 6 * HOUR)
        one.close()
    finally:
        server.stop()

    assert [value for _, _, value in found.rows] == [300.0 + i for i in range(36) if not 12 <= i < 18]
    assert sum(end - start for start, end, _ in found.rows) == 5 * HOUR
    assert not any(NOW + 2 * HOUR <= start < NOW + 3 * HOUR for start, _, _ in found.rows)


def _ready(httpx, port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/ready").is_success
    except httpx.HTTPError:
        return False
