"""The books of random clusters balance to 0 mJ, agree with the oracle, and do not depend on how data arrived."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.books import oracle
from tests.strategies import Cluster, clusters
from wattkeeper import loop
from wattkeeper.core.roles import Intake
from wattkeeper.lake.book import Book

SLOW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def booked(cluster: Cluster, root: str) -> Book:
    """Return an attributed book of a cluster."""
    book = Book.create(Path(root) / "book", cluster.site_file)
    book.take(cluster.intake(), now_ms=0)
    loop.attribute(book)
    return book


def ledger(book: Book) -> list[pl.DataFrame]:
    """Return everything attribution made, in a fixed order."""
    return [t.scan().collect().select(t.spec.schema.names()).sort(pl.all()) for t in book.ledger.values()]


@SLOW
@given(cluster=clusters())
def test_every_asset_and_hour_balances_to_zero(cluster):
    """Whatever is measured, missing, shared or reset: postings in an asset add up to its meter, to 0 mJ."""
    with tempfile.TemporaryDirectory() as root:
        book = booked(cluster, root)
        balance = loop.check(book)

        assert balance.largest_mj == 0, balance.broken
        keys, amounts = ["day", "account", "job_id"], ["energy_mj", "imputed_mj", "held_ms", "busy_ms", "known_ms"]
        by_day = [
            t.scan().group_by(keys).agg(pl.col(amounts).sum()).sort(keys).collect()
            for t in (book.postings, book.job_days)
        ]
        assert by_day[0].equals(by_day[1])


@SLOW
@given(cluster=clusters())
def test_every_job_agrees_with_the_oracle(cluster):
    """Each (asset, account, job) has the energy that the slow, plain computation gives it."""
    with tempfile.TemporaryDirectory() as root:
        book = booked(cluster, root)
        zone = book.site_file.site[0].timezone
        expected = oracle.accounts(cluster, book.tree(), zone)
        rows = book.postings.scan().filter(~pl.col("asset").is_in(["a", "rack"])).collect()
        found: dict[tuple, int] = defaultdict(int)
        lines: dict[tuple, int] = defaultdict(int)
        for asset, account, job, energy in rows.select("asset", "account", "job_id", "energy_mj").iter_rows():
            found[asset, account, job] += energy
            lines[asset, account, job] += 1
        for key in {*found, *expected}:
            # each curve reading and each split is floored once: under 1 mJ a step, some steps a line
            slack = 2 + 60 * lines[key]
            assert abs(found[key] - expected[key]) <= slack, (key, found[key], float(expected[key]))


@SLOW
@given(cluster=clusters(), seed=st.integers(0, 2**32 - 1), pieces=st.integers(2, 5))
def test_the_ledger_does_not_depend_on_how_data_arrived(cluster, seed, pieces):
    """Importing in shuffled pieces, some twice, attributing in between, gives the identical ledger."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as once, tempfile.TemporaryDirectory() as often:
        whole = booked(cluster, once)
        book = Book.create(Path(often) / "book", cluster.site_file)
        every = cluster.intake()
        piece = rng.integers(0, pieces, cluster.readings.height)
        for n in [*rng.permutation(pieces), int(rng.integers(0, pieces))]:
            some = cluster.readings.filter(pl.Series(piece == n))
            shuffled = some.sample(fraction=1, shuffle=True, seed=int(n))
            book.take(Intake("piece", meters=every.meters, readings=shuffled), now_ms=1)
            if rng.random() < 0.5:
                loop.attribute(book) if book.state.signal_infos() else None
            if n == 0:
                book.take(
                    Intake(
                        "jobs", allocations=every.allocations, signals=every.signals, signal_infos=every.signal_infos
                    ),
                    now_ms=2,
                )
        loop.attribute(book)

        for expected, actual in zip(ledger(whole), ledger(book), strict=True):
            assert expected.equals(actual), _differences(expected, actual)


def _differences(expected: pl.DataFrame, actual: pl.DataFrame) -> str:
    """Return the lines that only one of two ledgers has."""
    keys = expected.columns
    only = [a.join(b, on=keys, how="anti", nulls_equal=True) for a, b in ((expected, actual), (actual, expected))]
    return "\n".join(str(side.rows(named=True)[:3]) for side in only)
