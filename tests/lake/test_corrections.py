"""Corrections: what contradicts the book is told, and with replace it takes the book's place."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.books.small import HOUR, SITE, START, book, counter, held, node, power, watts
from wattkeeper import loop
from wattkeeper.core.errors import BatchError, ConfigError
from wattkeeper.core.roles import Intake, SignalInfo
from wattkeeper.core.schema import ALLOCATIONS, JOBS, READINGS, SIGNALS

INFO = SignalInfo("i", "intensity", "g/kWh", "t")


@pytest.fixture
def made(tmp_path):
    """A node at 1000 W for an hour, held by j1, at 400 g/kWh: 1 kWh, 400 g."""
    site = "name = 'T'\n" + SITE + "intensity = 'i'\n" + node("n1", 0)
    made = book(tmp_path, site.replace("intensity = 'i'\n", ""), [power("n1", 1000)], [held("j1", "n1")])
    made.take(signal(400.0), now_ms=0)
    made.write_site_file(site)
    loop.attribute(made)
    return made


def signal(value, start=START, end=START + HOUR):
    return Intake("s", signals=pl.DataFrame([("i", start, end, value)], schema=SIGNALS.schema, orient="row"),
                  signal_infos=[INFO])  # fmt: skip


def readings(*rows):
    return pl.DataFrame(list(rows), schema=READINGS.schema, orient="row")


def job(end_ms, state="COMPLETED", user="ada"):
    row = dict.fromkeys(JOBS.schema.names()) | {
        "job_id": "j1", "user": user, "state": state, "start_ms": START, "end_ms": end_ms
    }  # fmt: skip
    allocations = pl.DataFrame([("j1", "n1", START, end_ms, 1.0, False)], schema=ALLOCATIONS.schema, orient="row")
    return Intake("sacct", jobs=pl.DataFrame([row], schema=JOBS.schema), allocations=allocations)


def carbon_g(made):
    loop.attribute(made)
    return loop.statement(made).total("carbon_g")


def test_a_signal_revised_downwards(made):
    """100 g/kWh changes nothing and is told; with replace it counts."""
    (refused,) = made.take(signal(100.0), now_ms=0)
    assert refused.reason == (
        "signal 'i' (1): the book has it otherwise and the larger value stands; to correct it: --replace"
    )
    assert carbon_g(made) == pytest.approx(400.0)

    assert made.take(signal(100.0), now_ms=0, replace=True) == []
    assert carbon_g(made) == pytest.approx(100.0)
    assert made.signals_table.scan().collect().height == 1


def test_a_coarser_correction_takes_the_place_of_finer_stretches(made):
    """Two half hours within the corrected hour go, one beyond it stays."""
    half = HOUR // 2
    for i in range(3):
        made.take(signal(500.0, START + i * half, START + (i + 1) * half), now_ms=0)
    made.take(signal(300.0), now_ms=0, replace=True)

    assert carbon_g(made) == pytest.approx(300.0)
    assert sorted(made.signals_table.scan().select("start_ms", "value").collect().rows()) == [
        (START, 300.0), (START + HOUR, 500.0),
    ]  # fmt: skip


def test_a_reading_that_was_too_high(made):
    """One sample of 2000 W adds 1 000 W × 15 s = 15 kJ; the right file with replace takes them away again."""
    meter, right = power("n1", 1000)
    made.take(Intake("r", readings=readings((meter.id, START + 900_000, 2_000_000))), now_ms=0)
    loop.attribute(made)
    assert loop.statement(made).meter_mj == 3_600_000_000 + 15_000_000

    made.take(Intake("r", readings=right), now_ms=0)
    loop.attribute(made)
    assert loop.statement(made).meter_mj == 3_600_000_000 + 15_000_000  # the larger stands, whatever comes last

    made.take(Intake("r", readings=right), now_ms=0, replace=True)
    loop.attribute(made)
    assert loop.statement(made).meter_mj == 3_600_000_000
    assert loop.check(made).largest_mj == 0


def test_a_job_that_ended_earlier(made):
    """The first record says an hour, the second 30 min: told, and with replace j1 has half."""
    made.take(job(START + HOUR), now_ms=0)
    refused = made.take(job(START + HOUR // 2), now_ms=0)
    assert [r.reason.split(":")[0] for r in refused] == ["job 'j1' (1)"]

    assert made.take(job(START + HOUR // 2, user="zoe"), now_ms=0, replace=True) == []
    loop.attribute(made)
    rows = loop.statement(made).rows.select("job_id", "user", "energy_mj").rows()
    assert rows == [("j1", "zoe", 1_800_000_000)]


def test_the_same_again_is_no_contradiction(made):
    made.take(job(START + HOUR), now_ms=0)

    assert made.take(job(START + HOUR), now_ms=0) == []
    assert made.take(signal(400.0), now_ms=0) == []


def test_power_that_nothing_can_draw_is_refused(made):
    """A node draws at most 30 kW by default; 1.2 × that is still taken."""
    meter, _ = power("n1", 1000)
    rows = readings((meter.id, START + HOUR + 1, 36_000_000), (meter.id, START + HOUR + 2, 36_000_001))
    (refused,) = made.take(Intake("r", readings=rows), now_ms=0)

    assert refused.reason == (
        "1 readings of meter 'n1:ipmi:power': up to 36,000 W, and 'n1' cannot draw more than 30,000 W; "
        "is the unit right? Else set max_power_w of 'n1' in the site file"
    )
    kept = made.readings.table.scan().filter(pl.col("time_ms") > START + HOUR).collect()
    assert kept["value"].to_list() == [36_000_000]


def test_a_meter_of_an_unknown_asset_says_so(made):
    made.write_site_file(SITE + "[[meter]]\nid = 'm'\nasset = 'labb'\nquantity = 'power'\n")
    (refused,) = made.take(Intake("r", readings=readings(("m", START, 1))), now_ms=0)

    assert "readings of meter 'm', which measures 'labb': the book has no such asset" in refused.reason


def test_an_edited_site_file_is_noticed(made):
    """A price written into site.toml by hand: the statement asks for attribute, which then counts it."""
    assert loop.attribute(made).days == 0
    path = made.root / "site.toml"
    path.write_text(path.read_text().replace("intensity = 'i'\n", "intensity = 'i'\nprice = 0.5\n"))
    edited = type(made)(made.root)

    with pytest.raises(ConfigError, match=r"site.toml was edited since the ledger was made. Run: wattkeeper attribute"):
        loop.statement(edited)
    loop.attribute(edited)
    assert loop.statement(edited).total("cost") == pytest.approx(0.5)


def test_two_values_for_one_instant_are_told(made):
    """10 samples of the hour come 500 W higher: told once with the first; the same again is told nothing more."""
    _, right = power("n1", 1000)
    higher = right.head(10).with_columns(pl.col("value") + 500_000)
    (refused,) = made.take(Intake("r", readings=pl.concat([higher, right.tail(5)])), now_ms=0)

    assert refused.reason == (
        "two values for one instant in 10 readings of 1 meters, first 'n1:ipmi:power' at 2025-10-09T09:00:00Z: "
        "1,000,000 and 1,500,000 mW; the larger value stands; to correct it: --replace"
    )
    assert made.take(Intake("r", readings=right.tail(5)), now_ms=0) == []
    loop.attribute(made)  # one file, the larger values
    assert made.take(Intake("r", readings=higher), now_ms=0) == []
    assert len(made.take(Intake("r", readings=right), now_ms=0)) == 1
    assert made.take(Intake("r", readings=right), now_ms=0, replace=True) == []


def test_two_values_within_one_file_are_told(made):
    meter, _ = power("n1", 1000)
    at = START + 2 * HOUR
    rows = readings(
        (meter.id, at + 1, 7), (meter.id, at, 1), (meter.id, at, 2), (meter.id, at, 1), (meter.id, at + 1, 7)
    )
    told = [made.take(Intake("r", readings=rows), now_ms=0, replace=replace) for replace in (True, False)]

    assert [r.reason.partition(";")[0] for rejects in told for r in rejects] == [
        "two values for one instant in 1 readings of 1 meters, first 'n1:ipmi:power' at 2025-10-09T11:00:00Z: "
        "1 and 2 mW"
    ] * 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=40),
       st.integers(1, 7), st.booleans())  # fmt: skip
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_double_is_found_in_whatever_pieces_readings_come(tmp_path_factory, rows, size, compact):
    """A batch is told of exactly when one of its meters and instants has another value in it or before it."""
    made = book(tmp_path_factory.mktemp("b"), SITE + node("n1", 4), [power(f"n1/gpu{i}", 100) for i in range(4)])
    seen: dict = {}
    for begin in range(0, len(rows), size):
        some = [(f"n1/gpu{m}:ipmi:power", START + 2 * HOUR + t, v) for m, t, v in rows[begin : begin + size]]
        for m, t, v in some:
            seen.setdefault((m, t), set()).add(v)
        expected = len({(m, t) for m, t, _ in some if len(seen[m, t]) > 1})
        told = made.take(Intake("r", readings=readings(*some)), now_ms=0)
        counts = [int(r.reason.split("in ")[1].split(" ")[0]) for r in told]
        assert counts == ([expected] if expected else [])
        if compact:
            loop.attribute(made)
            seen = {key: {max(values)} for key, values in seen.items()}


def test_a_revised_stretch_of_a_signal_goes_and_the_same_stays(made):
    """A fetch says what it knows of the hour: 400 → 300 in the first half; the second half is as it was."""
    half = HOUR // 2
    fetched = [signal(v, START + i * half, START + (i + 1) * half) for v, i in ((300.0, 0), (400.0, 1))]
    both = Intake("s", signals=pl.concat(f.signals for f in fetched), signal_infos=[INFO],
                  replaces=[("i", START, START + HOUR)])  # fmt: skip
    assert made.take(both, now_ms=0) == []
    version = made.signals_table.version()
    assert carbon_g(made) == pytest.approx(350.0)
    assert made.take(both, now_ms=0) == []
    assert made.signals_table.version() == version


def test_jobs_of_other_ids_keep_what_they_have(made):
    """Correcting j1 leaves j2 and its allocation, and a job that comes again as it was leaves the files alone."""
    other = job(START + HOUR)
    other.jobs = other.jobs.with_columns(job_id=pl.lit("j2"))
    other.allocations = other.allocations.with_columns(job_id=pl.lit("j2"))
    made.take(other, now_ms=0)
    made.take(job(START + HOUR), now_ms=0)
    made.take(job(START + HOUR // 2), now_ms=0, replace=True)
    assert made.jobs().select("job_id", "end_ms").rows() == [("j1", START + HOUR // 2), ("j2", START + HOUR)]
    assert sorted(made.allocations().select("job_id", "end_ms").rows()) == [
        ("j1", START + HOUR // 2), ("j2", START + HOUR)
    ]  # fmt: skip
    versions = [t.version() for t in made.plain_tables]
    made.take(job(START + HOUR // 2), now_ms=0, replace=True)
    assert [t.version() for t in made.plain_tables] == versions


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_what_is_held_without_an_end_ends_with_its_run(tmp_path, order):
    """A prolog said j1 holds the GPU and no epilog came; accounting ends that run after 15 min and the next after 45.

    500 W: j1 has 15 min and, in its second run, 15 more; idle is the rest of the hour. The same in any order.
    """
    quarter = HOUR // 4
    columns = dict.fromkeys(JOBS.schema.names())
    runs = [(START + 5, START + quarter, "NODE_FAIL"), (START + 2 * quarter, START + 3 * quarter, "COMPLETED")]
    told = [
        Intake("sacct", jobs=pl.DataFrame(
            [columns | {"job_id": "j1", "start_ms": a, "end_ms": b, "state": s}], schema=JOBS.schema))
        for a, b, s in runs
    ]  # fmt: skip
    holds = [("j1", "n1/gpu0", START, None, 1.0, False), ("j1", "n1/gpu0", START + 2 * quarter, None, 1.0, False)]
    told.append(Intake("prolog", allocations=pl.DataFrame(holds, schema=ALLOCATIONS.schema, orient="row")))
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)])
    for i in order:
        assert made.take(told[i], now_ms=0) == []
        loop.attribute(made)
    assert watts(made) == {"j1": 250.0, "idle": 250.0}
    assert [made.take(t, now_ms=0) for t in told] == [[], [], []]  # an earlier run is no contradiction


def test_a_job_that_runs_still_holds_what_it_holds(tmp_path):
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)], [held("j1", "n1/gpu0", end=None)])
    row = dict.fromkeys(JOBS.schema.names()) | {"job_id": "j1", "start_ms": START, "state": "RUNNING"}
    made.take(Intake("sacct", jobs=pl.DataFrame([row], schema=JOBS.schema)), now_ms=0)
    loop.attribute(made)
    assert watts(made) == {"j1": 500.0}


def test_a_job_that_was_requeued_runs_again(made):
    """Its last run has no end yet, so it has none; a record of the time before it ended changes nothing."""
    rows = [(START, START + 900, "REQUEUED"), (START + 1000, None, "RUNNING")]
    again = pl.DataFrame([
        dict.fromkeys(JOBS.schema.names()) | {"job_id": "j1", "start_ms": a, "end_ms": b, "state": s}
        for a, b, s in rows
    ], schema=JOBS.schema)  # fmt: skip
    made.take(Intake("sacct", jobs=again), now_ms=0)
    assert made.jobs().select("start_ms", "end_ms", "state").rows() == [(START, None, "RUNNING")]
    made.take(
        Intake("sacct", jobs=again.tail(1).with_columns(end_ms=pl.lit(START + 5000), state=pl.lit("COMPLETED"))), 0
    )
    assert made.jobs().select("start_ms", "end_ms", "state").rows() == [(START, START + 5000, "COMPLETED")]


def test_a_signal_of_another_kind_is_told(made):
    made.write_site_file(SITE + "price = 'i'\n" + node("n1", 0))
    with pytest.raises(ConfigError, match=r"takes its price from signal 'i', which is of intensity\.$"):
        loop.attribute(made)


def stretch(**change):
    """An hour of signal p, a price in euros unless changed."""
    info = SignalInfo(**{"id": "p", "kind": "price", "unit": "EUR/kWh", "provider": "t"} | change)
    rows = pl.DataFrame([("p", START, START + HOUR, 0.1)], schema=SIGNALS.schema, orient="row")
    return Intake("s", signals=rows, signal_infos=[info])


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({}, {"unit": "USD/kWh"}, "'p' is kept as price in EUR/kWh, and this is price in USD/kWh"),
        ({}, {"kind": "intensity", "unit": "g/kWh"}, "kept as price in EUR/kWh, and this is intensity in g/kWh"),
        ({"method": "average, lifecycle"}, {"method": "marginal"}, "EUR/kWh, average, and this is .*marginal"),
        ({"method": "average, lifecycle"}, {"method": "average, direct"}, "lifecycle, and this is .*direct"),
    ],
)
def test_two_currencies_or_kinds_never_share_a_signal(made, first, second, told):
    """The numbers alone would fit; nothing of the batch is taken, with replace or without."""
    made.take(stretch(**first), now_ms=0)
    for replace in (False, True):
        with pytest.raises(BatchError, match=told):
            made.take(stretch(**second), now_ms=0, replace=replace)

    assert made.signal_rows("p").height == 1


def test_a_method_that_says_less_is_no_contradiction(made):
    """A file that does not say its boundary is believed to be what the signal is."""
    made.take(stretch(method="average, lifecycle"), now_ms=0)
    made.take(stretch(method=""), now_ms=0)
    made.take(stretch(method="average"), now_ms=0)

    assert made.signal_rows("p").height


def test_a_price_in_another_currency_than_the_sites_is_told(made):
    """Dollars are not booked as euros; with the signal's currency they are booked."""
    made.take(stretch(unit="USD/kWh"), now_ms=0)
    site = (made.root / "site.toml").read_text().replace("intensity = 'i'\n", "intensity = 'i'\nprice = 'p'\n")
    made.write_site_file(site)
    with pytest.raises(ConfigError, match=r"counts in EUR and takes its price from signal 'p', which is in USD/kWh"):
        loop.attribute(made)
    made.write_site_file(site.replace("price = 'p'\n", "price = 'p'\ncurrency = 'USD'\n"))
    loop.attribute(made)

    assert loop.statement(made).total("cost") == pytest.approx(0.1)  # 1 kWh at 0.1
