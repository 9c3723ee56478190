"""The Carbon Intensity API of Great Britain, against a fake of its service."""

from __future__ import annotations

import json

import pytest

from tests.integrations import services
from tests.integrations.services import HOUR, NOW, FakeService, ms
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.spans import SpanSource
from wattkeeper.integrations.ukgrid.signal import provider


@pytest.fixture
def service():
    """A fake that has all half-hours."""
    with FakeService(services.ukgrid) as one:
        yield one


def make(service):
    return service.keep(provider("GB", "intensity", {"url": service.url, "pace_s": 0, "retries": 0}))


def test_what_is_asked(service):
    """From and to stand in the path, to the minute and in UTC; no key is sent."""
    make(service).read(NOW, NOW + 24 * HOUR)
    path, params, headers = service.asked[0]

    assert path == "/intensity/2026-10-01T00:00Z/2026-10-02T00:00Z"
    assert params == {}
    assert "authorization" not in headers


def test_a_half_hour_without_an_actual_value_stays_a_gap(service):
    """The forecast beside it is not taken for it."""
    rows = [
        {"from": "2026-10-01T00:00Z", "to": "2026-10-01T00:30Z", "intensity": {"forecast": 90, "actual": 95}},
        {"from": "2026-10-01T00:30Z", "to": "2026-10-01T01:00Z", "intensity": {"forecast": 91, "actual": None}},
    ]
    service.faults = [(200, {}, json.dumps({"data": rows}))]

    assert make(service).read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR // 2, 95.0)]


def test_the_day_the_clocks_go_back_has_twenty_five_hours(service):
    """From local midnight to local midnight, 2026-10-25 in London: 50 half-hours, each once."""
    start_ms, end_ms = ms("2026-10-24T23:00+00:00"), ms("2026-10-26T00:00+00:00")
    found = [r for r in make(service).read(start_ms, end_ms).rows if r[0] >= start_ms]

    assert len(found) == 50
    assert len({r[0] for r in found}) == 50


def test_only_great_britain_is_known(service):
    """Another zone is not taken for it."""
    with pytest.raises(ConfigError, match="knows zone GB, not 'DE'"):
        provider("DE", "intensity", {"url": service.url})
    with pytest.raises(ConfigError, match="publishes intensity, no price"):
        provider("GB", "price", {"url": service.url})


def test_an_answer_as_published(service):
    """The half-hour that ends at FROM comes first; the last has no actual value yet. Kept by the source is what lies inside."""
    rows = [
        {"from": f, "to": t, "intensity": {"forecast": guess, "actual": told, "index": "low"}}
        for f, t, guess, told in (
            ("2026-09-30T23:30Z", "2026-10-01T00:00Z", 71, 70),
            ("2026-10-01T00:00Z", "2026-10-01T00:30Z", 68, 66),
            ("2026-10-01T00:30Z", "2026-10-01T01:00Z", 65, None),
        )
    ]
    service.faults = [(200, {}, json.dumps({"data": rows}))]
    (intake,) = SpanSource(make(service), [(NOW, NOW + HOUR)]).read()

    assert intake.signals.rows() == [("intensity:GB:ukgrid", NOW, NOW + HOUR // 2, 66.0)]


def test_a_bad_request_keeps_its_words(service):
    """The service's faults are {"error": {"code", "message"}}."""
    error = {"error": {"code": "400 Bad Request", "message": "Please enter a valid date range"}}
    service.faults = [(400, {}, json.dumps(error))]
    with pytest.raises(SourceError, match=r"status 400.*Please enter a valid date range"):
        make(service).read(NOW, NOW + HOUR)
