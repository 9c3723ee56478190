"""The EIA's hourly generation by fuel, against a fake of its service."""

from __future__ import annotations

import json

import pytest

from tests.integrations import services
from tests.integrations.services import HOUR, KEY, NOW, FakeService
from wattkeeper.core.errors import ConfigError, SourceError, UnknownZoneError
from wattkeeper.integrations.eia import signal
from wattkeeper.integrations.eia.signal import provider


@pytest.fixture
def service(monkeypatch):
    """A fake that has all hours."""
    monkeypatch.setenv("EIA_API_KEY", KEY)
    with FakeService(services.eia) as one:
        yield one


def make(service, **config):
    return service.keep(provider("CISO", "intensity", {"url": service.url, "pace_s": 0, "retries": 0, **config}))


def answer(*rows, total=None):
    """Return an answer; a row is period, fuel, value."""
    data = [
        {"period": p, "respondent": "CISO", "fueltype": f, "value": v, "value-units": "megawatthours"}
        for p, f, v in rows
    ]
    return 200, {}, json.dumps({"response": {"total": str(len(data) if total is None else total), "data": data}})


def test_an_hour_is_named_by_its_end(service):
    """What is told for 01 o'clock was generated from 00 to 01; asked for are 01 to 02 and the week before."""
    service.faults = [answer(("2026-10-01T01", "NG", "100"), ("2026-10-01T02", "NUC", "100"))]
    found = make(service).read(NOW, NOW + 2 * HOUR)
    params = service.asked[0][1]

    assert (params["start"], params["end"]) == ("2026-09-24T01", "2026-10-01T02")
    assert [(start, end) for start, end, _ in found.rows] == []  # neither hour tells of both fuels
    assert found.refused[0].startswith("2026-10-01T00:00:00Z, and 1 more: a fuel")


def test_intensity_by_hand(service):
    """100 MWh of gas, 200 of coal, 100 of wind: (49 000 + 164 000 + 1 100) / 400 = 535.25 g; direct (37 000 + 152 000) / 400."""
    rows = answer(("2026-10-01T01", "NG", "100"), ("2026-10-01T01", "COL", 200), ("2026-10-01T01", "WND", "100.0"))
    service.faults = [rows, rows]

    assert make(service).read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR, 535.25)]
    assert make(service, boundary="direct").read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR, 472.5)]


def test_batteries_and_pumped_storage_are_left_out(service):
    """What they give was generated before."""
    service.faults = [
        answer(("2026-10-01T01", "NG", "100"), ("2026-10-01T01", "BAT", "900"), ("2026-10-01T01", "PS", "-50"))
    ]

    assert make(service).read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR, 490.0)]


def test_solar_with_and_without_batteries_adds_up(service):
    """50 + 50 MWh of solar beside 100 of gas: 267.5 g."""
    rows = [("2026-10-01T01", f, v) for f, v in (("SUN", 50), ("SNB", 50), ("NG", 100))]
    service.faults = [answer(*rows)]

    assert make(service).read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR, 267.5)]


def test_an_hour_that_lacks_its_gas_stays_a_gap(service):
    """Null is not 0: without its gas the second hour would look clean."""
    service.faults = [
        answer(("2026-10-01T01", "NG", "100"), ("2026-10-01T01", "SUN", "100"),
               ("2026-10-01T02", "NG", None), ("2026-10-01T02", "SUN", "100"))
    ]  # fmt: skip
    found = make(service).read(NOW, NOW + 2 * HOUR)

    assert found.rows == [(NOW, NOW + HOUR, 267.5)]
    assert found.refused == ["2026-10-01T01:00:00Z: a fuel that other hours have is missing; the hour stays a gap"]


def test_pages_are_put_together(service, monkeypatch):
    """Three rows an hour for ten hours in pages of seven: five requests, and every hour comes."""
    monkeypatch.setattr(signal, "PAGE", 7)
    monkeypatch.setattr(signal, "CONTEXT_MS", 0)
    found = make(service).read(NOW, NOW + 10 * HOUR)

    assert [p["offset"] for _, p, _ in service.asked] == ["0", "7", "14", "21", "28"]
    assert len(found.rows) == 10


def test_rows_that_were_promised_must_come(service):
    """Five are promised, one comes, then none."""
    service.faults = [answer(("2026-10-01T01", "NG", "1"), total=5), answer(total=5)]
    with pytest.raises(SourceError, match="promised 5 rows and sent 1"):
        make(service).read(NOW, NOW + HOUR)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"value-units": "megawatts"}, "gives generation in 'megawatts', not in megawatthours"),
        ({"respondent": "PJM"}, "asked for 'CISO' and answers with 'PJM'"),
        ({"fueltype": "XYZ"}, "has a fuel 'XYZ' that we do not know"),
        ({"period": "2026-10-01"}, "format we do not know"),
        ({"value": "much"}, "format we do not know"),
    ],
)
def test_what_is_not_as_published_is_refused(service, change, told):
    """Units, respondent, fuel, time and number."""
    status, headers, text = answer(("2026-10-01T01", "NG", "100"))
    body = json.loads(text)
    body["response"]["data"][0] |= change
    service.faults = [(status, headers, json.dumps(body))]
    with pytest.raises(SourceError, match=told):
        make(service).read(NOW, NOW + HOUR)


def test_prices_are_refused(service):
    """It has none."""
    with pytest.raises(ConfigError, match="EIA publishes generation"):
        provider("CISO", "price", {"url": service.url})


def test_biomass_is_a_fuel(service):
    """100 MWh of biomass and 100 of gas: (23 000 + 49 000) / 200 = 360 g; nothing direct from what grew."""
    rows = answer(("2026-10-01T01", "BM", "100"), ("2026-10-01T01", "NG", "100"))
    service.faults = [rows, rows]

    assert make(service).read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR, 360.0)]
    assert make(service, boundary="direct").read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR, 185.0)]


def test_a_row_on_two_pages_counts_once(service):
    """Gas comes twice, solar once: half and half, 267.5 g, not two to one."""
    service.faults = [
        answer(("2026-10-01T01", "NG", "100"), ("2026-10-01T01", "SUN", "100"), ("2026-10-01T01", "NG", "100"))
    ]

    assert make(service).read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR, 267.5)]


def test_what_plants_use_themselves_is_no_generation(service):
    """Solar of -3 MWh at night counts as nothing: gas alone, 490 g."""
    service.faults = [answer(("2026-10-01T01", "NG", "100"), ("2026-10-01T01", "SUN", "-3"))]

    assert make(service).read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR, 490.0)]


def test_a_number_that_is_left_empty_is_missing(service):
    """As null is."""
    service.faults = [answer(("2026-10-01T01", "NG", "100"), ("2026-10-01T01", "OIL", ""))]

    assert make(service).read(NOW, NOW + HOUR).rows == [(NOW, NOW + HOUR, 490.0)]


@pytest.mark.parametrize(("zone", "told"), [("CAISO", "Did you mean CISO"), ("ercot", "Did you mean ERCO")])
def test_a_respondent_that_is_none_is_told_with_those_written_alike(service, zone, told):
    """To the EIA a wrong name is no fault but no rows; its list of respondents says why."""
    one = service.keep(provider(zone, "intensity", {"url": service.url, "pace_s": 0, "retries": 0}))
    with pytest.raises(UnknownZoneError, match=f"EIA has no zone '{zone}'. {told}"):
        one.read(NOW, NOW + HOUR)


def test_a_respondent_that_gives_nothing_stays_a_gap(service):
    """SWPW is one, and has no rows for that time."""
    one = service.keep(provider("SWPW", "intensity", {"url": service.url, "pace_s": 0, "retries": 0}))

    assert one.read(NOW, NOW + HOUR).rows == []


def test_a_wrong_key_as_the_gateway_says_it(service):
    """403 with a code and a message; the key is struck out."""
    error = {"error": {"code": "API_KEY_INVALID", "message": f"An invalid api_key was supplied: {KEY}"}}
    service.faults = [(403, {}, json.dumps(error))]
    with pytest.raises(SourceError, match=r"status 403.*An invalid api_key was supplied") as fault:
        make(service).read(NOW, NOW + HOUR)

    assert KEY not in str(fault.value)


def test_a_single_hour_that_lacks_its_gas_is_judged_by_the_week_before(service):
    """Asked for is one hour, and all that came for it is solar: the hours before had gas, so it is no clean hour."""
    before = [(f"2026-09-30T{h:02}", f, "100") for h in range(20, 24) for f in ("NG", "SUN")]
    service.faults = [answer(*before, ("2026-10-01T01", "SUN", "100"))]
    found = make(service).read(NOW, NOW + HOUR)

    assert found.rows == []
    assert found.refused == ["2026-10-01T00:00:00Z: a fuel that other hours have is missing; the hour stays a gap"]
