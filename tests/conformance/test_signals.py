"""What every grid provider promises, each against a fake of its service: values, faults, the cursor, the key."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from tests.integrations import services
from tests.integrations.services import HOUR, KEY, NOW, FakeService, hours, value_at
from wattkeeper.core import web
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.spans import SpanSource
from wattkeeper.grid.fetch import providers


@dataclass(frozen=True)
class Case:
    """A provider: a zone of its own, its variables for keys, and the requests of a first read."""

    name: str
    zone: str
    variables: tuple[str, ...] = ()
    first: int = 1


CASES = [
    Case("electricitymaps", "DE", ("ELECTRICITYMAPS_TOKEN",)),
    Case("watttime", "CAISO_NORTH", ("WATTTIME_USER", "WATTTIME_PASSWORD"), first=2),
    Case("ukgrid", "GB"),
    Case("entsoe", "DE", ("ENTSOE_TOKEN",)),
    Case("eia", "CISO", ("EIA_API_KEY",)),
]
QUICK = {"backoff_s": 0.001, "retries": 2, "pace_s": 0.0}


def test_each_provider_is_tried():
    """All that are installed; a series of Prometheus is tried against a real server."""
    assert sorted(providers()) == sorted([*(c.name for c in CASES), "prometheus"])


@pytest.fixture(params=CASES, ids=lambda c: c.name)
def case(request, monkeypatch):
    """A provider with its key in the environment."""
    for name in request.param.variables:
        monkeypatch.setenv(name, KEY)
    return request.param


@pytest.fixture
def service(case):
    """Its fake."""
    with FakeService(getattr(services, case.name)) as one:
        yield one


def publisher(case, service, kind="intensity", **config):
    return service.keep(providers()[case.name](case.zone, kind, {"url": service.url, **QUICK, **config}))


def at_now(found) -> float:
    """Return the value at midnight."""
    return next(value for start, _, value in found.rows if start == NOW)


def test_values_come_in_grams_per_kilowatt_hour(case, service):
    """All fakes publish 100 g at midnight and 10 g more each hour: 06:00 to 09:00 are 160, 170 and 180 g."""
    found = publisher(case, service).read(NOW + 6 * HOUR, NOW + 9 * HOUR)
    at = {start: value for start, end, value in found.rows}

    assert [at[NOW + h * HOUR] for h in (6, 7, 8)] == pytest.approx([160.0, 170.0, 180.0])
    assert found.refused == []


def test_a_source_cuts_spans_into_chunks_that_the_service_allows(case, service):
    """Every hour of 40 days comes once; no request asks for more than a chunk, and nothing beyond the end is taken."""
    one = publisher(case, service)
    end_ms = NOW + 40 * 24 * HOUR
    source = SpanSource(one, [(NOW, end_ms)])
    rows = [r for intake in source.read() for r in intake.signals.rows()]
    on_the_hour = [(start, value) for _, start, _, value in rows if start % HOUR == 0]

    assert [start for start, _ in on_the_hour] == list(hours(NOW, end_ms))
    assert [value for _, value in on_the_hour] == pytest.approx([value_at(t) for t in hours(NOW, end_ms)])
    assert len(service.asked) >= case.first - 1 + -(-40 * 24 * HOUR // one.chunk_ms)


def test_a_leap_day_has_its_hours(case, service):
    """From 28 February to 1 March 2028 there are 48 hours, those of the 29th among them, in one piece."""
    start_ms, end_ms = services.ms("2028-02-28T00:00+00:00"), services.ms("2028-03-01T00:00+00:00")
    (intake,) = SpanSource(publisher(case, service), [(start_ms, end_ms)]).read()
    starts, ends = intake.signals["start_ms"].to_list(), intake.signals["end_ms"].to_list()

    assert [t for t in starts if t % HOUR == 0] == list(range(start_ms, start_ms + 48 * HOUR, HOUR))
    assert [*starts[1:], end_ms] == ends


def test_the_signal_says_what_it_is(case, service):
    """Provider, version, average or marginal and the boundary stand in every signal, and its id holds the zone."""
    one = publisher(case, service)
    one.read(NOW, NOW + HOUR)

    assert one.info.id.startswith(f"intensity:{case.zone}:{case.name}")
    assert one.info.unit == "g/kWh"
    assert one.info.method in {"average, lifecycle", "average, direct", "marginal, direct"}
    assert one.info.provider
    assert one.info.version


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_one_sentence_without_the_key(case, service, status):
    """The service says no and echoes the key; the sentence names the cure and not the key."""
    service.faults = [(status, {}, f"invalid key {KEY}")] * 2
    with pytest.raises(SourceError) as fault:
        publisher(case, service).read(NOW, NOW + HOUR)

    assert "refuses us" in str(fault.value)
    assert "Check the key" in str(fault.value)
    if case.variables:
        assert KEY not in str(fault.value)


def test_a_pause_that_is_asked_for_is_kept(case, service, monkeypatch):
    """429 with Retry-After 7: seven seconds later it is tried again, and comes."""
    slept = []
    monkeypatch.setattr("httpx_retries.retry.time", SimpleNamespace(sleep=slept.append))
    service.faults = [(429, {"Retry-After": "7"}, "slow down")]
    found = publisher(case, service).read(NOW, NOW + HOUR)

    assert [s for s in slept if s] == [7.0]
    assert at_now(found) == pytest.approx(100.0)


def test_a_pause_that_is_too_long_is_left_to_the_user(case, service):
    """429 with Retry-After one hour: it is not tried again, and the sentence says when."""
    service.faults = [(429, {"Retry-After": "3600"}, "come back later")]
    with pytest.raises(SourceError, match="asks for a pause of 3600 s"):
        publisher(case, service).read(NOW, NOW + HOUR)

    assert len(service.asked) == 1


def test_a_service_that_fails_is_tried_again(case, service):
    """Two answers 503, then a good one."""
    service.faults = [(503, {}, "busy"), (500, {}, "oops")]

    assert at_now(publisher(case, service).read(NOW, NOW + HOUR)) == pytest.approx(100.0)


def test_a_service_that_keeps_failing_is_one_sentence(case, service):
    """After two retries it is told with its status."""
    service.faults = [(502, {}, "bad gateway")] * 3
    with pytest.raises(SourceError, match="answers with status 502: bad gateway"):
        publisher(case, service).read(NOW, NOW + HOUR)


def test_a_service_that_moved_is_told(case, service):
    """Nobody is followed with a key in hand: the new address is named."""
    service.faults = [(301, {"Location": "https://elsewhere.example/api"}, "")]
    with pytest.raises(SourceError, match=r"has moved from http://127.* to https://elsewhere.example/api. Set url"):
        publisher(case, service).read(NOW, NOW + HOUR)


@pytest.mark.parametrize("status", [200, 502])
def test_a_web_page_in_the_place_of_data_is_a_fault(case, service, status):
    """A proxy's page is told by its title, be its status a success or not."""
    page = "<!DOCTYPE html>\n<html><head><title>Guest\n network</title></head><body>log in</body></html>"
    service.faults = [(status, {"Content-Type": "text/html"}, page)] * 2
    with pytest.raises(SourceError, match="Guest network"):
        publisher(case, service, retries=0).read(NOW, NOW + HOUR)


@pytest.mark.parametrize(
    "text", ['{"data": [{"datetime": "2026-10-', "<TimeSeries><Period>", "", "{}", "[]", "null", "7"]
)
def test_an_answer_that_breaks_off_is_a_fault(case, service, text):
    """Truncated or foreign JSON and XML give one sentence, never a value."""
    service.faults = [(200, {}, text)] * 2
    with pytest.raises(SourceError):
        publisher(case, service).read(NOW, NOW + HOUR)


def test_a_failed_request_moves_nothing(case, service):
    """The second chunk fails: the cursor stands behind the first, and the first is kept."""
    one = publisher(case, service, retries=0)
    seen, cursor = [], []
    source = SpanSource(one, [(NOW, NOW + one.chunk_ms), (NOW + one.chunk_ms, NOW + 2 * one.chunk_ms)], cursor.append)

    def read() -> None:
        for intake in source.read():
            seen.append(intake.signals.height)
            service.faults = [(500, {}, "down")]

    with pytest.raises(SourceError):
        read()

    assert len(seen) == 1
    assert seen[0] > 0
    assert cursor == [NOW + one.chunk_ms]


def test_requests_keep_their_pace(case, service, monkeypatch):
    """With 3 s between requests the second waits for what is left of them."""
    slept: list[float] = []
    monkeypatch.setattr(web, "time", SimpleNamespace(monotonic=lambda: 100.0, sleep=slept.append))
    one = publisher(case, service, pace_s=3.0)
    one.read(NOW, NOW + HOUR)
    one.read(NOW, NOW + HOUR)

    assert slept[0] == 3.0


def test_a_service_that_is_not_there_is_one_sentence(case, service):
    """The address is named, without a password that stands in it."""
    service.server.shutdown()
    service.server.server_close()
    one = service.keep(
        providers()[case.name](
            case.zone, "intensity", {"url": service.url.replace("//", "//user:hunter2@"), **QUICK, "retries": 0}
        )
    )
    with pytest.raises(SourceError, match="does not answer") as fault:
        one.read(NOW, NOW + HOUR)

    assert "hunter2" not in str(fault.value)
    assert "127.0.0.1" in str(fault.value)


@pytest.mark.parametrize("name", [c.name for c in CASES if c.variables])
def test_without_a_key_nothing_is_asked(name, monkeypatch):
    """The sentence names the variable and the table."""
    case = next(c for c in CASES if c.name == name)
    for variable in case.variables:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=rf"\[grid.{name}\] needs a key. Set {case.variables[0]}"):
        providers()[name](case.zone, "intensity", {})


def test_a_key_may_stand_in_a_file(case, service, monkeypatch, tmp_path):
    """One line for each part of the key."""
    for name in case.variables:
        monkeypatch.delenv(name)
    (tmp_path / "key").write_text(f"{KEY}\n" * len(case.variables))

    assert publisher(case, service, key_file=tmp_path / "key").read(NOW, NOW + HOUR).rows


def test_an_unknown_key_in_the_site_file_is_named(case, service):
    """A typing error never goes unnoticed."""
    with pytest.raises(ConfigError, match=rf"\[grid.{case.name}\] boundry"):
        publisher(case, service, boundry="direct")


@pytest.mark.parametrize("zone", ["", "DE:x", " DE"])
def test_a_zone_is_never_guessed(case, service, zone):
    """An empty or malformed zone is refused before anything is asked."""
    with pytest.raises(ConfigError):
        providers()[case.name](zone, "intensity", {"url": service.url})

    assert service.asked == []
