"""The ENTSO-E Transparency Platform, against a fake of its service."""

from __future__ import annotations

import pytest

from tests.integrations import services
from tests.integrations.services import (
    HOUR,
    KEY,
    NOW,
    FakeService,
    acknowledgement,
    generation_document,
    ms,
    period,
    price_document,
    price_series,
    type_series,
)
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.integrations.entsoe.signal import provider


@pytest.fixture
def service(monkeypatch):
    """A fake that has all of it."""
    monkeypatch.setenv("ENTSOE_TOKEN", KEY)
    with FakeService(services.entsoe) as one:
        yield one


def make(service, zone="DE-LU", kind="price", **config):
    return service.keep(provider(zone, kind, {"url": service.url, "pace_s": 0, "retries": 0, **config}))


def prices(points, *, end=NOW + 3 * HOUR, resolution="PT60M", auction=1, **more):
    """Return a series of prices from midnight on."""
    return price_series(auction, period(NOW, end, resolution, points, "price.amount"), **more)


def values(found):
    """Return hour → value, rounded."""
    return {(start - NOW) / HOUR: round(value, 6) for start, _, value in found.rows}


def test_what_is_asked(service):
    """Document, zone by its code, and the span to the minute."""
    make(service).read(NOW, NOW + 24 * HOUR)
    make(service, "DE", "intensity").read(NOW, NOW + 24 * HOUR)
    (_, price, _), (_, mix, _) = service.asked

    assert price == {
        "documentType": "A44", "contract_MarketAgreement.type": "A01", "in_Domain": "10Y1001A1001A82H",
        "out_Domain": "10Y1001A1001A82H",
        "periodStart": "202610010000", "periodEnd": "202610020000", "securityToken": KEY,
    }  # fmt: skip
    assert (mix["documentType"], mix["processType"], mix["in_Domain"]) == ("A75", "A16", "10Y1001A1001A83F")


def test_a_position_left_out_repeats_the_one_before(service):
    """Curve type A03: hours 0 and 2 are told, hour 1 costs what hour 0 costs."""
    service.faults = [(200, {}, price_document([prices([(1, 50.0), (3, -16.75)])]))]

    assert values(make(service).read(NOW, NOW + 3 * HOUR)) == {0: 0.05, 1: 0.05, 2: -0.01675}


def test_in_a_fixed_curve_it_is_a_gap(service):
    """Curve type A01: hour 1 has no price."""
    service.faults = [(200, {}, price_document([prices([(1, 50.0), (3, 60.0)], curve="A01")]))]

    assert values(make(service).read(NOW, NOW + 3 * HOUR)) == {0: 0.05, 2: 0.06}


def test_the_auction_is_chosen_by_its_number(service):
    """The other auction comes first in the document; it is not taken unless it is asked for."""
    both = [prices([(1, 99.0)], auction=2), prices([(1, 50.0)])]
    service.faults = [(200, {}, price_document(both))] * 2

    assert values(make(service).read(NOW, NOW + HOUR))[0] == 0.05
    assert values(make(service, auction=2).read(NOW, NOW + HOUR))[0] == 0.099


def test_prices_of_intraday_auctions_are_left_out(service):
    """Spain's answers hold them beside the day-ahead ones, under the same number; contract A07 is theirs."""
    late = prices([(1, 70.0)]).replace(
        "<curveType>", "<contract_MarketAgreement.type>A07</contract_MarketAgreement.type><curveType>"
    )
    assert "A07" in late
    service.faults = [(200, {}, price_document([prices([(1, 50.0)]), late]))]

    assert set(values(make(service).read(NOW, NOW + 3 * HOUR)).values()) == {0.05}


def test_of_two_resolutions_the_finer_counts(service):
    """Quarters where there are any, else the hour."""
    series = [prices([(1, 50.0), (2, 60.0)], end=NOW + 2 * HOUR)]
    series += [prices([(n, 10.0 * n) for n in (1, 2, 3, 4)], end=NOW + HOUR, resolution="PT15M")]
    service.faults = [(200, {}, price_document(series))]

    assert values(make(service).read(NOW, NOW + 2 * HOUR)) == {0: 0.01, 0.25: 0.02, 0.5: 0.03, 0.75: 0.04, 1: 0.06}


@pytest.mark.parametrize(
    ("start", "end", "n"),
    [("2026-03-28T23:00", "2026-03-29T22:00", 23), ("2026-10-24T22:00", "2026-10-25T23:00", 25)],
)
def test_days_the_clocks_change(service, start, end, n):
    """A day of prices has 23 or 25 hours; each is once, an hour after the other."""
    begin, until = ms(f"{start}+00:00"), ms(f"{end}+00:00")
    points = [(i + 1, float(i)) for i in range(n)]
    body = price_series(1, period(begin, until, "PT60M", points, "price.amount"))
    service.faults = [(200, {}, price_document([body]))]
    found = make(service).read(begin, until)

    assert [r[0] for r in found.rows] == list(range(begin, until, HOUR))
    assert [r[2] for r in found.rows] == pytest.approx([i / 1000 for i in range(n)])


def test_a_currency_is_kept(service):
    """Poland once told its prices in PLN: they are not taken for euros."""
    service.faults = [(200, {}, price_document([prices([(1, 400.0)], currency="PLN")]))]
    one = make(service, "PL")

    assert values(one.read(NOW, NOW + HOUR))[0] == 0.4
    assert one.info.unit == "PLN/kWh"


def test_prices_in_another_unit_are_refused(service):
    """A price per kWh is not one per MWh."""
    service.faults = [(200, {}, price_document([prices([(1, 0.05)], unit="KWH")]))]
    with pytest.raises(SourceError, match="gives prices in EUR/KWH"):
        make(service).read(NOW, NOW + HOUR)


def series_of(code, points, *, resolution="PT60M", end=NOW + 2 * HOUR, **more):
    """Return a series of generation."""
    return type_series(code, period(NOW, end, resolution, points, "quantity"), **more)


def test_intensity_by_hand(service):
    """Lignite and hard coal are coal: (100 + 100) MW × 820 + 200 MW wind (on and off shore) × 11, / 400 = 415.5 g."""
    series = [
        series_of(code, [(1, mw), (2, mw)]) for code, mw in (("B02", 100), ("B05", 100), ("B18", 150), ("B19", 50))
    ]
    service.faults = [(200, {}, generation_document(series))]

    assert values(make(service, "DE", "intensity").read(NOW, NOW + 2 * HOUR)) == {0: 415.5, 1: 415.5}


def test_what_plants_and_pumps_consume_is_left_out(service):
    """Consumption comes in series of its own; pumped storage is not generation."""
    series = [series_of("B04", [(1, 100), (2, 100)]), series_of("B16", [(1, 100), (2, 100)])]
    series += [series_of("B04", [(1, 9e9), (2, 9e9)], domain="outBiddingZone_Domain"), series_of("B10", [(1, 9e9)])]
    service.faults = [(200, {}, generation_document(series))]

    assert values(make(service, "DE", "intensity").read(NOW, NOW + 2 * HOUR)) == {0: 267.5, 1: 267.5}


def test_a_time_that_lacks_a_type_stays_a_gap(service):
    """Hour 1 has no hard coal, lignite is told: the sum of coal would be too small."""
    series = [
        series_of("B02", [(1, 100), (2, 100)]),
        series_of("B05", [(1, 100)]),
        series_of("B16", [(1, 200), (2, 200)]),
    ]
    service.faults = [(200, {}, generation_document(series))]
    found = make(service, "DE", "intensity").read(NOW, NOW + 2 * HOUR)

    assert values(found) == {0: 432.5}  # (200 × 820 + 200 × 45) / 400
    assert found.refused[0].startswith("2026-10-01T01:00:00Z: a type of generation that other hours have is missing")


def test_types_may_have_steps_of_their_own(service):
    """Gas by the hour, solar by the quarter: four values in the hour."""
    series = [series_of("B04", [(1, 100)], end=NOW + HOUR)]
    series += [series_of("B16", [(1, 0), (2, 100), (3, 300), (4, 900)], resolution="PT15M", end=NOW + HOUR)]
    service.faults = [(200, {}, generation_document(series))]

    assert values(make(service, "DE", "intensity").read(NOW, NOW + HOUR)) == {
        0: 490,
        0.25: 267.5,
        0.5: 156.25,
        0.75: 89.5,
    }


@pytest.mark.parametrize(
    ("series", "told"),
    [
        (series_of("B04", [(1, 1)], unit="KWT"), "gives generation in 'KWT', not in MAW"),
        (series_of("B99", [(1, 1)]), "a type of generation 'B99' that we do not know"),
        (series_of("B04", [(1, 1), (3, 1)]), "format we do not know: ValueError: position 3 outside its period"),
        (series_of("B04", [(1, 1)], resolution="P1Y"), "format we do not know: ValueError: resolution P1Y"),
    ],
)
def test_what_is_not_as_published_is_refused(service, series, told):
    """Unit, type, position and step."""
    service.faults = [(200, {}, generation_document([series]))]
    with pytest.raises(SourceError, match=told):
        make(service, "DE", "intensity").read(NOW, NOW + 2 * HOUR)


@pytest.mark.parametrize("status", [200, 400])
def test_no_matching_data_is_a_gap(service, status):
    """The platform says so in an acknowledgement, with either status."""
    service.faults = [(status, {}, acknowledgement("No matching data found for Data item ENERGY_PRICES"))]

    assert make(service).read(NOW, NOW + HOUR).rows == []


def test_any_other_acknowledgement_is_a_fault(service):
    """Too long a span has the same code and another text; the key in it is struck out."""
    service.faults = [(400, {}, acknowledgement(f"Delivered time interval is too long for {KEY}"))]
    with pytest.raises(SourceError, match=r"ENTSO-E refuses: Delivered time interval is too long for …"):
        make(service).read(NOW, NOW + HOUR)


def test_entities_are_not_expanded(service):
    """A document that defines entities is refused: it could fill the memory."""
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><Publication_MarketDocument>&a;</Publication_MarketDocument>'
    service.faults = [(200, {}, bomb)]
    with pytest.raises(SourceError, match="sent no whole XML"):
        make(service).read(NOW, NOW + HOUR)


def test_zones(service):
    """A country is not its price zone; an EIC code stands for itself; others are refused."""
    with pytest.raises(ConfigError, match=r"DE is not one price zone\. Use DE-LU\."):
        make(service, "DE")
    with pytest.raises(ConfigError, match="has no zone 'CISO'"):
        make(service, "CISO")
    assert make(service, "10Y1001A1001A82H").info.id == "price:10Y1001A1001A82H:entsoe"


@pytest.mark.parametrize(
    ("zone", "kind", "told"),
    [
        ("de_lu", "price", "Did you mean DE-LU"),
        ("NO-NO1", "price", "NO1"),
        ("IT_NORD", "price", "Did you mean IT-NORD"),
        ("LU", "price", "LU is not one price zone. Use DE-LU"),
        ("IE", "price", "IE is not one price zone. Use IE-SEM"),
    ],
)
def test_a_zone_that_is_none_is_told_with_those_written_alike(service, zone, kind, told):
    """The platform answers a wrong zone as it answers no data, so names are checked before anything is asked."""
    with pytest.raises(ConfigError, match=told):
        make(service, zone, kind)

    assert service.asked == []


QUARTERS = """<?xml version="1.0" encoding="utf-8"?>
<Publication_MarketDocument xmlns="urn:iec62325.351:tc57wg16:451-3:publicationdocument:7:3">
  <mRID>a</mRID><revisionNumber>1</revisionNumber><type>A44</type>
  <createdDateTime>2026-09-30T11:00:00Z</createdDateTime>
  <period.timeInterval><start>2026-09-30T22:00Z</start><end>2026-10-01T22:00Z</end></period.timeInterval>
  <TimeSeries>
    <mRID>1</mRID><auction.type>A01</auction.type><businessType>A62</businessType>
    <in_Domain.mRID codingScheme="A01">10Y1001A1001A82H</in_Domain.mRID>
    <out_Domain.mRID codingScheme="A01">10Y1001A1001A82H</out_Domain.mRID>
    <contract_MarketAgreement.type>A01</contract_MarketAgreement.type>
    <currency_Unit.name>EUR</currency_Unit.name><price_Measure_Unit.name>MWH</price_Measure_Unit.name>
    <classificationSequence_AttributeInstanceComponent.position>1</classificationSequence_AttributeInstanceComponent.position>
    <curveType>A03</curveType>
    <Period>
      <timeInterval><start>2026-10-01T00:00Z</start><end>2026-10-01T02:00Z</end></timeInterval>
      <resolution>PT15M</resolution>
      <Point><position>1</position><price.amount>80</price.amount></Point>
      <Point><position>2</position><price.amount>-4.5</price.amount></Point>
      <Point><position>4</position><price.amount>10</price.amount></Point>
    </Period>
  </TimeSeries>
</Publication_MarketDocument>"""


def test_an_answer_as_published_since_quarter_hours_are_traded(service):
    """15 min steps: 80, -4.5 (twice: the third is left out), then 10 to the period's end, five times."""
    service.faults = [(200, {}, QUARTERS)]
    found = make(service).read(NOW, NOW + 2 * HOUR)

    assert [v for _, _, v in found.rows] == [0.08, -0.0045, -0.0045, 0.01, 0.01, 0.01, 0.01, 0.01]
    assert {end - start for start, end, _ in found.rows} == {HOUR // 4}


def test_a_time_without_an_offset_is_refused(service):
    """The machine's own zone is never taken for it."""
    service.faults = [(200, {}, QUARTERS.replace("2026-10-01T00:00Z", "2026-10-01T00:00"))]
    with pytest.raises(SourceError, match="has no offset"):
        make(service).read(NOW, NOW + HOUR)


def test_a_document_of_another_type_is_refused(service):
    """Generation where prices were asked for: not a day without prices."""
    service.faults = [(200, {}, generation_document([]))]
    with pytest.raises(SourceError, match="format we do not know: a document named GL_MarketDocument"):
        make(service).read(NOW, NOW + HOUR)


def test_a_single_hour_that_lacks_its_gas_is_judged_by_the_week_before(service):
    """Asked for is one hour, for which only solar came; the day before had gas half and half: the hour stays a gap."""
    day = NOW - 24 * HOUR

    def told(code, end):
        points = [(i + 1, 100.0) for i in range((end - day) // HOUR)]
        return type_series(code, period(day, end, "PT60M", points, "quantity"))

    service.faults = [(200, {}, generation_document([told("B04", NOW), told("B16", NOW + HOUR)]))]
    found = make(service, "DE", "intensity").read(NOW, NOW + HOUR)

    assert service.asked[0][1]["periodStart"] == "202609240000"
    assert found.rows == []
    assert found.refused[0].startswith("2026-10-01T00:00:00Z: a type of generation that other hours have is missing")
