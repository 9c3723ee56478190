"""What a simulated cluster draws, and the book it writes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from wattkeeper import loop
from wattkeeper.core.roles import Intake, SignalInfo
from wattkeeper.core.schema import SIGNALS
from wattkeeper.core.signal import Signal
from wattkeeper.lake.book import Book
from wattkeeper.plan.simulate.cluster import Fleet, Stretches, curve_of, gpus_of, intake
from wattkeeper.plan.simulate.events import NONE, Parts, simulate

HOUR = 3_600_000
START = 1_760_000_400_000


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_energy_is_the_sum_of_what_runs():
    """1 kW for two hours and 0.5 kW for the second and third: 1, 1.5, 0.5 kWh; what is after the span is left out."""
    curve = curve_of(ints(0, HOUR), ints(2 * HOUR, 4 * HOUR), ints(10**6, 500_000), (0, 3 * HOUR))

    assert np.diff(curve.at(HOUR * np.arange(4))).tolist() == [3_600_000_000, 5_400_000_000, 1_800_000_000]
    assert curve.end_ms == 3 * HOUR


def test_parts_of_a_watt_are_not_lost():
    """1 mW for 1 500 ms and then 1 mW for 1 500 ms: 1.5 mJ each, 3 mJ together and not 2."""
    curve = curve_of(ints(0, 1500), ints(1500, 3000), ints(1, 1), (0, 3000))

    assert curve.energy_mj[-1] == 3
    # a year of 100 MW: 10^8 W × 3.2e10 ms fits as mJ and would not as µJ
    assert curve_of(ints(0), ints(8760 * HOUR), ints(10**11), (0, 8760 * HOUR)).energy_mj[-1] == 10**8 * 8760 * HOUR


def test_gpus_are_given_back_before_they_are_given():
    """A stretch that starts when another ends takes its GPUs; one too many is a fault."""
    held = Stretches(ints(0, 1, 2), ints(0, 0, 5), ints(5, 9, 9), ints(2, 1, 2), ints(0, 0, 0))

    assert gpus_of(held, 3) == [[0, 1], [2], [0, 1]]
    with pytest.raises(ValueError, match="needs 1 GPUs and 0 are free"):
        gpus_of(held, 2)


def test_a_simulated_cluster_writes_a_book_that_balances(tmp_path):
    """60 jobs on 16 GPUs: each job's energy and the carbon of all in the ledger are those of the simulation."""
    rng = np.random.default_rng(3)
    n, minute = 60, 60_000
    parts = Parts(
        START + np.sort(rng.integers(0, 600, n)) * minute,
        rng.choice([1, 2, 8], n),
        rng.integers(1, 120, n) * minute,
        np.full(n, NONE, np.int64),
    )
    start_ms = simulate(parts, 16)
    end_ms = start_ms + parts.duration_ms
    held = Stretches(np.arange(n), start_ms, end_ms, parts.gpus, parts.gpus * rng.integers(200, 700, n) * 1000)
    hours = -(-int(end_ms.max() - START) // HOUR)
    span = (START, START + hours * HOUR)
    book = Book.create(tmp_path / "book", "[[site]]\nid = 'a'\nintensity = 'ci'\n")
    info = SignalInfo("ci", "intensity", "g/kWh", "test")
    edges = START + HOUR * np.arange(hours + 1)
    values = rng.uniform(50, 500, hours)
    rows = pl.DataFrame({"signal": "ci", "start_ms": edges[:-1], "end_ms": edges[1:], "value": values})
    book.take(Intake("test", signals=rows.select(SIGNALS.schema.names()), signal_infos=[info]), now_ms=0)
    names = [f"j{i}" for i in range(n)]
    assert book.take(intake(Fleet("a", 16, 8, idle_w=70.0), held, names, span, minute), now_ms=0) == []
    loop.attribute(book)

    assert loop.check(book).largest_mj == 0
    ledger = book.postings.scan().collect()
    by_job = dict(ledger.group_by("job_id").agg(pl.col("energy_mj").sum()).iter_rows())
    drawn = held.power_mw * parts.duration_ms // 1000
    assert {name: by_job[name] for name in names} == dict(zip(names, drawn.tolist(), strict=True))
    # nobody's GPUs: 70 W × what is not held
    free_ms = 16 * hours * HOUR - int((parts.gpus * parts.duration_ms).sum())
    assert by_job[None] == 70 * free_ms
    jobs = curve_of(start_ms, end_ms, held.power_mw, span)
    carbon_g = ledger.filter(pl.col("job_id").is_not_null())["carbon_g"].sum()
    assert Signal(edges, values, info).integrate(jobs) == pytest.approx(carbon_g, rel=1e-12)
