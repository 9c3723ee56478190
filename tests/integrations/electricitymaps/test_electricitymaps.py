"""Electricity Maps, against a fake of its service."""

from __future__ import annotations

import json

import pytest

from tests.integrations import services
from tests.integrations.services import HOUR, KEY, NOW, FakeService, moment
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.integrations.electricitymaps.signal import provider


@pytest.fixture
def service(monkeypatch):
    """A fake that has all hours."""
    monkeypatch.setenv("ELECTRICITYMAPS_TOKEN", KEY)
    with FakeService(services.electricitymaps) as one:
        yield one


def make(service, kind="intensity", **config):
    return service.keep(provider("DE", kind, {"url": service.url, "pace_s": 0, "retries": 0, **config}))


def row(hour, value, **more):
    """Return a row of an answer."""
    return {"zone": "DE", "datetime": moment(NOW + hour * HOUR), "carbonIntensity": value, "isEstimated": False, **more}


def test_what_is_asked(service):
    """Zone, span and factors are named, the place of the caller is never used, and the key is a header."""
    make(service, boundary="direct").read(NOW, NOW + 2 * HOUR)
    path, params, headers = service.asked[0]

    assert path == "/v3/carbon-intensity/past-range"
    assert params == {
        "zone": "DE", "start": "2026-10-01T00:00:00Z", "end": "2026-10-01T02:00:00Z", "temporalGranularity": "hourly",
        "disableCallerLookup": "true", "emissionFactorType": "direct", "disableEstimations": "false",
    }  # fmt: skip
    assert headers["auth-token"] == KEY


def test_prices_keep_their_currency(service):
    """100 EUR/MWh at midnight is 0.1 EUR/kWh."""
    one = make(service, "price")
    found = one.read(NOW, NOW + HOUR)

    assert found.rows == [(NOW, NOW + HOUR, 0.1)]
    assert (one.info.id, one.info.unit, one.info.method) == ("price:DE:electricitymaps", "EUR/kWh", "day-ahead")


def test_a_missing_value_stays_a_gap(service):
    """Null is not 0: of three hours the second has no row."""
    service.faults = [(200, {}, json.dumps({"data": [row(0, 300), row(1, None), row(2, 320.5)]}))]

    assert make(service).read(NOW, NOW + 3 * HOUR).rows == [
        (NOW, NOW + HOUR, 300.0),
        (NOW + 2 * HOUR, NOW + 3 * HOUR, 320.5),
    ]


def test_estimates_can_be_left_out(service):
    """The site file takes none: the hour stays a gap and is listed."""
    service.faults = [(200, {}, json.dumps({"data": [row(0, 300), row(1, 310, isEstimated=True)]}))]
    found = make(service, estimated=False).read(NOW, NOW + 2 * HOUR)

    assert [r[2] for r in found.rows] == [300.0]
    assert found.refused == ["2026-10-01T01:00:00Z: the value is an estimate, and the site file takes none"]
    assert service.asked[0][1]["disableEstimations"] == "true"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"zone": "FR"}, "asked for zone 'DE' and answers with 'FR'"),
        ({"emissionFactorType": "direct"}, "asked for emissionFactorType 'lifecycle' and answers with 'direct'"),
        ({"temporalGranularity": "daily"}, "asked for temporalGranularity 'hourly' and answers with 'daily'"),
    ],
)
def test_an_answer_to_another_question_is_refused(service, more, told):
    """The service falls back to other zones, factors and steps; we do not."""
    service.faults = [(200, {}, json.dumps({"data": [row(0, 300, **more)]}))]
    with pytest.raises(SourceError, match=told):
        make(service).read(NOW, NOW + HOUR)


@pytest.mark.parametrize("unit", ["EUR/kWh", "EUR", "/MWh"])
def test_prices_in_another_unit_are_refused(service, unit):
    """A price per kWh taken for one per MWh would be a thousandth."""
    data = [{"zone": "DE", "datetime": moment(NOW), "value": 1.0, "unit": unit}]
    service.faults = [(200, {}, json.dumps({"data": data}))]
    with pytest.raises(SourceError, match="not in one currency per MWh"):
        make(service, "price").read(NOW, NOW + HOUR)


def test_other_quantities_are_refused(service):
    """Water has no provider here."""
    with pytest.raises(ConfigError, match="Electricity Maps publishes intensity and price, no water"):
        make(service, "water")
