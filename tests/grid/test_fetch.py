"""Fetching into a book: what is there is not asked for again, what was revised is replaced, what fails moves nothing."""

from __future__ import annotations

import json

import polars as pl
import pytest

from tests.integrations import services
from tests.integrations.services import HOUR, KEY, NOW, FakeService, moment, value_at
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.signal import Signal
from wattkeeper.core.spans import Stretch
from wattkeeper.grid.fetch import Revision, fetch, publisher_of
from wattkeeper.lake.book import Book

DAY = 24 * HOUR
ID = "intensity:DE:electricitymaps:lifecycle"


@pytest.fixture
def service(monkeypatch):
    """A fake of Electricity Maps."""
    monkeypatch.setenv("ELECTRICITYMAPS_TOKEN", KEY)
    with FakeService(services.electricitymaps) as one:
        yield one


@pytest.fixture
def book(service, tmp_path):
    """A book whose site file names the fake."""
    site = '[[site]]\nid = "a"\n[grid.electricitymaps]\n'
    return Book.create(tmp_path / "book", f'{site}url = "{service.url}"\npace_s = 0\nretries = 0\n')


def run(book, start=None, end=None, now=NOW, kind="intensity", name="", **more):
    publisher = publisher_of(book, "electricitymaps", "DE", kind, name)
    return fetch(book, publisher, start_ms=start, end_ms=end, now_ms=now, **more)


def answer(values, **more):
    """Return an answer of the service with hour → value, hours from now."""
    data = [{"zone": "DE", "datetime": moment(NOW + h * HOUR), "carbonIntensity": v, **more} for h, v in values]
    return 200, {}, json.dumps({"data": data})


def spans(service):
    """Return the spans that were asked for, in hours from now."""
    return [tuple((services.ms(p[n]) - NOW) // HOUR for n in ("start", "end")) for _, p, _ in service.asked]


def values(book, signal=ID):
    """Return start → value."""
    return {start: value for _, start, _, value in book.signal_rows(signal).sort("start_ms").rows()}


def test_the_first_time_a_start_is_needed(book, service):
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match=r"never fetched into this book\. Give --from"):
        run(book)

    assert service.asked == []


def test_twelve_days_come_in_two_requests(book, service):
    """Ten days are allowed at once; every hour is kept once, and its origin with it."""
    done = run(book, NOW - 12 * DAY)
    info = book.state.signal_infos()[ID]

    assert spans(service) == [(-288, -48), (-48, 0)]
    assert (done.rows, len(values(book))) == (288, 288)
    assert values(book)[NOW - 5 * HOUR] == value_at(NOW - 5 * HOUR)
    assert (info.provider, info.version, info.method) == ("Electricity Maps", "v4", "average, lifecycle")
    assert info.note == "flow-traced; first retrieved 2026-10-01T00:00:00Z"


def test_what_is_there_is_not_asked_for_again(book, service):
    """A second fetch of the same days asks for nothing; of a longer span only for what lacks on both sides."""
    run(book, NOW - 2 * DAY, NOW - DAY)
    service.asked.clear()
    run(book, NOW - 2 * DAY, NOW - DAY)

    assert service.asked == []
    run(book, NOW - 3 * DAY, NOW)
    assert spans(service) == [(-72, -48), (-24, 0)]


def test_it_goes_on_where_it_stopped(book, service):
    """A day later the last three days, which may have been revised, are read again with the new one."""
    run(book, NOW - 5 * DAY)
    service.asked.clear()
    done = run(book, now=NOW + DAY)

    assert spans(service) == [(-72, 24)]
    assert done.rows == 96
    assert book.signal_rows(ID).height == len(values(book)) == 6 * 24


def test_a_revised_value_takes_the_place_of_the_old(book, service):
    """170 g for 07:00 becomes 55: lower or not, the newer counts, and no other row changes."""
    run(book, NOW - DAY)
    old = values(book)
    at = NOW - DAY + 7 * HOUR
    data = [{"zone": "DE", "datetime": moment(t), "carbonIntensity": v} for t, v in old.items()]
    data[7]["carbonIntensity"] = 55
    service.faults = [(200, {}, json.dumps({"data": data}))]
    done = run(book, now=NOW)
    rows = book.signal_rows(ID)

    assert old[at] == 170.0
    assert values(book) == old | {at: 55.0}
    assert done.revised == (Revision(at, 170.0, 55.0),)
    assert Signal.from_table(rows, book.state.signal_infos()[ID]).at(pl.Series([at]).to_numpy())[0] == 55.0
    assert rows.height == 24


def test_what_comes_again_as_it_was_changes_nothing(book, service):
    """No hour becomes stale, and no file is written."""
    run(book, NOW - DAY)
    book.state.settle("a", {}, book.state.stale_spans("a"))
    version = book.signals_table.version()
    run(book, now=NOW)

    assert spans(service) == [(-24, 0)] * 2
    assert book.state.stale_spans("a") == []
    assert book.signals_table.version() == version


def test_a_request_that_fails_moves_nothing(book, service):
    """Of 25 days the second ten fail: the first ten are kept, and the next fetch goes on behind them."""
    count = []
    publisher = publisher_of(book, "electricitymaps", "DE", "intensity")

    def once(start_ms, end_ms, read=publisher.read):
        count.append(start_ms)
        if len(count) == 2:
            service.faults = [(500, {}, "down")]
        return read(start_ms, end_ms)

    publisher.read = once
    with pytest.raises(SourceError, match="status 500"):
        fetch(book, publisher, start_ms=NOW - 25 * DAY, end_ms=None, now_ms=NOW)

    assert len(values(book)) == 240
    assert book.state.cursor_ms(f"grid {ID}") == NOW - 15 * DAY
    run(book)
    assert len(values(book)) == 25 * 24


def test_the_cursor_never_passes_the_present(book, service):
    """Day-ahead prices reach into tomorrow; the next fetch still starts from now."""
    run(book, NOW - DAY, kind="price")

    assert spans(service) == [(-24, 24)]
    assert book.state.cursor_ms("grid price:DE:electricitymaps") == NOW


def test_a_signal_stays_what_it_is(book, service):
    """Under one id the factors cannot change from one fetch to the next."""
    run(book, NOW - DAY, name="intensity:DE")
    text = (book.root / "site.toml").read_text() + 'boundary = "direct"\n'
    book.write_site_file(text)
    with pytest.raises(
        SourceError, match=r"is kept as Electricity Maps, v4, average, lifecycle, g/kWh and would now be"
    ):
        run(book, now=NOW + DAY, name="intensity:DE")

    assert len(values(book, "intensity:DE")) == 24


def test_a_gap_at_the_provider_stays_a_gap(book, service):
    """Null for two hours: no rows, and an explicit fetch asks for these two hours again."""
    data = [{"zone": "DE", "datetime": moment(NOW - DAY + h * HOUR), "carbonIntensity": None if h in (3, 4) else 1}
            for h in range(24)]  # fmt: skip
    service.faults = [(200, {}, json.dumps({"data": data}))]
    run(book, NOW - DAY)
    assert len(values(book)) == 22
    service.asked.clear()
    run(book, NOW - DAY, NOW)

    assert spans(service) == [(-21, -19)]
    assert values(book)[NOW - DAY + 3 * HOUR] == 130.0


def test_unknown_providers_are_named(book):
    """With those that there are."""
    with pytest.raises(ConfigError, match=r"No provider named 'x'\. There are eia, electricitymaps, entsoe"):
        publisher_of(book, "x", "DE", "intensity")


def test_an_estimate_that_is_settled_later_is_told(book, service):
    """Two of three hours are estimates; later one of them is 260 instead of 250, and the last is withdrawn."""
    service.faults = [
        (200, {}, json.dumps({"data": [
            {"zone": "DE", "datetime": moment(NOW - (3 - h) * HOUR), "carbonIntensity": v, "isEstimated": h > 0}
            for h, v in enumerate((240, 250, 255))
        ]}))
    ]  # fmt: skip
    first = run(book, NOW - 3 * HOUR)
    service.faults = [answer([(-3, 240), (-2, 260), (-1, None)])]
    later = run(book)

    assert (first.estimated, first.revised) == (2, ())
    assert later.estimated == 0
    assert later.revised == (Revision(NOW - 2 * HOUR, 250.0, 260.0), Revision(NOW - HOUR, 255.0, None))
    assert values(book) == {NOW - 3 * HOUR: 240.0, NOW - 2 * HOUR: 260.0}


def test_an_hour_that_comes_twice_counts_once(book, service):
    """The later of the two is taken; the hour weighs no more than another."""
    service.faults = [answer([(-2, 100), (-2, 120), (-1, 130)])]
    run(book, NOW - 2 * HOUR)

    assert book.signal_rows(ID).select("start_ms", "value").rows() == [(NOW - 2 * HOUR, 120.0), (NOW - HOUR, 130.0)]


def test_what_is_published_late_is_asked_for_until_it_comes(book, service):
    """Nothing comes for five days; then the whole of them is asked for, not the last three days alone."""
    run(book, NOW - DAY)
    service.asked.clear()
    for day in range(1, 6):
        service.faults = [answer([])]
        run(book, now=NOW + day * DAY)
    late = run(book, now=NOW + 6 * DAY)

    assert spans(service) == [(-24, 24 * day) for day in range(1, 7)]
    assert late.rows == 7 * 24
    assert len(values(book)) == 7 * 24


def test_a_zone_that_ended_does_not_make_each_request_longer(book, service):
    """After thirty days without a value the old ones are given up."""
    run(book, NOW - DAY)
    service.faults = [answer([])] * 100
    run(book, now=NOW + 60 * DAY)

    assert book.state.cursor_ms(f"grid {ID}") == NOW + 30 * DAY


@pytest.mark.parametrize("days", [20, 60])
def test_a_clock_that_was_ahead_loses_nothing(book, service, days):
    """The clock was days ahead while it fetched; set right, the next fetch goes on at the last value."""
    run(book, NOW - DAY)
    service.faults = [answer([])] * 9
    run(book, now=NOW + days * DAY)
    service.faults.clear()
    service.asked.clear()
    run(book, now=NOW + DAY)

    assert spans(service) == [(-24, 24)]
    assert len(values(book)) == 48
    assert book.state.cursor_ms(f"grid {ID}") == NOW + DAY


def test_again_reads_what_the_book_has_too(book, service):
    """Without it an explicit span that is all there asks for nothing."""
    run(book, NOW - 9 * DAY)
    service.asked.clear()
    service.faults = [answer([(h, 1) for h in range(-216, -192)])]
    done = run(book, NOW - 9 * DAY, NOW - 8 * DAY, again=True)

    assert spans(service) == [(-216, -192)]
    assert len(done.revised) == 24
    with pytest.raises(ConfigError, match=r"--again.*--from"):
        run(book, again=True)


def price(hours, unit):
    """Return an answer with prices of 50 a MWh."""
    data = [{"zone": "DE", "datetime": moment(NOW + h * HOUR), "value": 50.0, "unit": unit} for h in hours]
    return 200, {}, json.dumps({"data": data})


def test_days_without_a_price_say_nothing_of_its_currency(book, service):
    """The first ten days are empty: the signal is not kept in '/kWh', and euros come after."""
    service.faults = [price([], ""), price([-2, -1], "EUR/MWh")]
    run(book, NOW - 12 * DAY, NOW, kind="price")

    assert book.state.signal_infos()["price:DE:electricitymaps"].unit == "EUR/kWh"
    assert set(values(book, "price:DE:electricitymaps").values()) == {0.05}


def test_two_currencies_never_share_an_id(book, service):
    """Leva first, euros ten days later in the same fetch: what came first is kept, the second is refused."""
    service.faults = [price([-288], "BGN/MWh"), price([-1], "EUR/MWh")]
    with pytest.raises(SourceError, match="EUR/MWh"):
        run(book, NOW - 12 * DAY, NOW, kind="price")
    service.faults = [price([-1], "EUR/MWh")]
    with pytest.raises(SourceError, match=r"is kept as .*BGN/kWh and would now be .*EUR/kWh"):
        run(book, NOW - DAY, NOW, kind="price")

    assert list(values(book, "price:DE:electricitymaps")) == [NOW - 288 * HOUR]


def test_a_page_in_the_place_of_data_is_told_by_its_title(book, service):
    """A captive portal answers 200 with HTML."""
    page = "<!DOCTYPE html><html><head><title>Guest network &amp; login</title></head><body>…</body></html>"
    service.faults = [(200, {"Content-Type": "text/html"}, page)]
    with pytest.raises(SourceError, match="sent a web page, not data: Guest network & login"):
        run(book, NOW - DAY)


def test_half_a_compressed_answer_is_a_fault(book, service):
    """The gzip stream breaks off: no value is taken, the next fetch gets all."""
    service.faults = [(200, {"Content-Encoding": "gzip"}, "no gzip at all")]
    with pytest.raises(SourceError, match="Electricity Maps"):
        run(book, NOW - DAY)
    run(book, NOW - DAY)

    assert len(values(book)) == 24


def test_a_finer_step_with_the_same_value_is_no_revision(book):
    """A held value that comes again in another cut: [0, 2 h) at 300 becomes two hours at 300, and 310 after them."""

    class Held:
        info = SignalInfo("intensity:X", "intensity", "g/kWh", "t")
        chunk_ms, revised_ms, ahead_ms = DAY, DAY, 0

        def __init__(self, *rows):
            self.rows = rows

        def read(self, _start, _end):
            return Stretch([(NOW + a * HOUR, NOW + b * HOUR, v) for a, b, v in self.rows])

        def close(self):
            pass

    fetch(book, Held((-4, -2, 300.0), (-2, -1, 305.0)), start_ms=NOW - 4 * HOUR, end_ms=None, now_ms=NOW)
    done = fetch(book, Held((-4, -3, 300.0), (-3, -2, 300.0), (-2, -1, 310.0)), start_ms=None, end_ms=None, now_ms=NOW)

    assert done.revised == (Revision(NOW - 2 * HOUR, 305.0, 310.0),)
