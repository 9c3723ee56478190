"""Electricity Maps, against a fake of its service."""

from __future__ import annotations

import json

import pytest

from tests.integrations import services
from tests.integrations.services import HOUR, KEY, NOW, FakeService, moment
from wattkeeper.core.errors import ConfigError, SourceError, UnknownZoneError
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

    assert path == "/v4/carbon-intensity/past-range"
    assert params == {
        "zone": "DE", "start": "2026-10-01T00:00:00Z", "end": "2026-10-01T02:00:00Z", "temporalGranularity": "hourly",
        "disableCallerLookup": "true", "emissionFactorType": "direct", "flowTraced": "true", "disableEstimations": "false",
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


V4 = {
    "zone": "DE", "temporalGranularity": "hourly",
    "data": [
        {
            "zone": "DE", "carbonIntensity": 412, "datetime": "2026-10-01T00:00:00.000Z",
            "updatedAt": "2026-10-01T03:12:44.117Z", "createdAt": "2026-09-28T00:51:02.501Z",
            "emissionFactorType": "lifecycle", "flowTraced": True, "isEstimated": False, "estimationMethod": None,
            "temporalGranularity": "hourly",
        },
        {
            "zone": "DE", "carbonIntensity": 398, "datetime": "2026-10-01T01:00:00.000Z",
            "updatedAt": "2026-10-01T03:12:44.117Z", "createdAt": "2026-09-28T01:51:02.501Z",
            "emissionFactorType": "lifecycle", "flowTraced": True, "isEstimated": True,
            "estimationMethod": "TIME_SLICER_AVERAGE", "temporalGranularity": "hourly",
        },
    ],
}  # fmt: skip
"""An answer of v4 in the shape that clients of 2026 read; numbers are ours."""


def test_an_answer_of_v4(service):
    """Two hours from their starts; the second is an estimate, and known as one."""
    service.faults = [(200, {}, json.dumps(V4))]
    one = make(service)
    found = one.read(NOW, NOW + 2 * HOUR)

    assert found.rows == [(NOW, NOW + HOUR, 412.0), (NOW + HOUR, NOW + 2 * HOUR, 398.0)]
    assert found.estimated == {NOW + HOUR}
    assert (one.info.version, one.info.note) == ("v4", "flow-traced")


@pytest.mark.parametrize(
    "change",
    [
        {"_disclaimer": "SANDBOX MODE: values in this response are intentionally inaccurate"},
        {"data": [V4["data"][0] | {"isEstimated": True, "estimationMethod": "SANDBOX_MODE_DATA"}]},
    ],
)
def test_made_up_values_of_the_sandbox_are_refused(service, change):
    """A sandbox key gets numbers that are wrong on purpose; none may be booked."""
    service.faults = [(200, {}, json.dumps(V4 | change))]
    with pytest.raises(SourceError, match="made-up values, as it does for keys of its sandbox"):
        make(service).read(NOW, NOW + HOUR)


def test_generation_without_trade_is_not_taken_for_what_is_used(service):
    """An answer that is not flow-traced is another quantity."""
    service.faults = [(200, {}, json.dumps({"data": [row(0, 300, flowTraced=False)]}))]
    with pytest.raises(SourceError, match="asked for flowTraced 'True' and answers with 'False'"):
        make(service).read(NOW, NOW + HOUR)


@pytest.mark.parametrize(
    ("zone", "told"),
    [("DK1", "Did you mean DK-DK1"), ("de", "Did you mean DE"), ("XYZ", r"It has DE, DK-DK1, DK-DK2, US-CAL-CISO …")],
)
def test_a_zone_that_is_none_is_told_with_those_written_alike(service, zone, told):
    """The service says 400; its list of zones says why."""
    service.faults = [(400, {}, json.dumps({"error": f"Zone '{zone}' does not exist"}))]
    one = service.keep(provider(zone, "intensity", {"url": service.url, "pace_s": 0, "retries": 0}))
    with pytest.raises(UnknownZoneError, match=f"Electricity Maps has no zone '{zone}'. {told}"):
        one.read(NOW, NOW + HOUR)


def test_a_request_that_is_refused_for_another_reason_keeps_its_words(service):
    """The zone exists: the answer's own words are told."""
    service.faults = [(400, {}, json.dumps({"error": "time range too long"}))]
    with pytest.raises(SourceError, match=r"status 400.*time range too long"):
        make(service).read(NOW, NOW + HOUR)


def test_a_plan_without_the_zone_is_told(service):
    """401 is also what a plan that does not cover a zone gets."""
    body = {"error": "Request unauthorized for zoneKey=DE,requestType=past-range,dataType=carbon-intensity."}
    service.faults = [(401, {}, json.dumps(body))]
    with pytest.raises(SourceError, match=r"Check the key and what its plan covers.*unauthorized for zoneKey=DE"):
        make(service).read(NOW, NOW + HOUR)


def test_a_time_without_an_offset_is_refused(service):
    """It could be any zone's; the machine's own is never taken for it."""
    service.faults = [(200, {}, json.dumps({"data": [row(0, 300, datetime="2026-10-01T00:00:00")]}))]
    with pytest.raises(SourceError, match="has no offset"):
        make(service).read(NOW, NOW + HOUR)


def test_prices_of_two_currencies_are_refused(service):
    """The second hour comes in DKK: nothing of the answer is taken."""
    data = [
        {"zone": "DE", "datetime": moment(NOW), "value": 50.0, "unit": "EUR/MWh", "source": "nordpool.com"},
        {"zone": "DE", "datetime": moment(NOW + HOUR), "value": 370.0, "unit": "DKK/MWh", "source": "nordpool.com"},
    ]
    service.faults = [(200, {}, json.dumps({"data": data}))]
    with pytest.raises(SourceError, match="'DKK/MWh', not in one currency"):
        make(service, "price").read(NOW, NOW + 2 * HOUR)


def test_v3_goes_on_where_a_book_has_it(service):
    """v3 knows no flow tracing: it is neither asked for nor noted, and rows that do not tell it are taken."""
    one = make(service, version="v3")
    service.faults = [(200, {}, json.dumps({"zone": "DE", "data": [row(0, 300)]}))]

    assert one.read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR, 300.0)]
    path, params, _ = service.asked[0]
    assert path == "/v3/carbon-intensity/past-range"
    assert "flowTraced" not in params
    assert (one.info.version, one.info.note) == ("v3", "")


def test_a_service_without_our_version_is_told(service):
    """Neither the values nor the zones are where v4 has them."""
    service.faults = [(404, {}, "not here"), (404, {}, "not here")]
    with pytest.raises(SourceError, match=r"It may not know v4: try another version in \[grid.electricitymaps\]"):
        make(service).read(NOW, NOW + HOUR)
