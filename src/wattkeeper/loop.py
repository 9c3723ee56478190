"""The loop: measure → keep → attribute → value → report, each step one function on a book.

This is the one room that knows the order of things. `take` keeps what a source yields, `fold` what agents have sent and
a server has journaled, `attribute` turns readings into postings for every day that may have changed, `check` proves that
they add up; `statement`, `job` and `meter_summary` ask the ledger.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl

from wattkeeper.attribution import Attributed, Progress, attribute_sites
from wattkeeper.core.assets import Asset
from wattkeeper.core.counter import RESETS_A_DAY
from wattkeeper.core.roles import Reject, Source
from wattkeeper.core.units import MJ_PER_KWH
from wattkeeper.lake.book import Book
from wattkeeper.lake.fold import fold, kept_aside
from wattkeeper.lake.reporters import reported_twice
from wattkeeper.questions import job, meter_summary, statement
from wattkeeper.valuing import signal_of

__all__ = [
    "Balance", "attribute", "check", "fold", "job", "kept_aside", "meter_summary", "reported_twice", "restless",
    "signal_of", "statement", "take",
]  # fmt: skip


def quiet(_what: str, _done: int, _total: int) -> None:
    """Report no progress."""


def take(
    book: Book, source: Source, now_ms: int, progress: Progress = quiet, *, replace: bool = False
) -> tuple[int, list[Reject]]:
    """Keep everything a source yields; return how many rows were kept, and the rows that were refused.

    replace: it takes the place of what the book has of the same, as Book.take says.
    Batches are committed one by one: when a source breaks off, what it yielded before stays.
    """
    kept, refused = 0, []
    for intake in source.read():
        refused += book.take(intake, now_ms, replace=replace)
        kept += sum(t.height for t in (intake.readings, intake.jobs, intake.allocations, intake.signals))
        progress("rows", kept, 0)
    return kept, refused


def attribute(book: Book, *, everything: bool = False, workers: int = 2, progress: Progress = quiet) -> Attributed:
    """Bring the ledger up to date with readings, jobs and signals; return what was done.

    Looks at the days that something may have changed (all with `everything`, or when the site file was edited) and makes
    anew the units whose inputs differ from those of last time. Readings are streamed, a row group at a time, so memory
    does not grow with days.
    """
    done = Attributed()
    with book.writing(), _known_is_kept():
        site_digest = book.site_digest
        everything |= book.state.fact("attributed_by") != site_digest
        attribute_sites(book, book.site_file.site, done, everything, workers, progress)
        versions = json.dumps({name: table.version() for name, table in book.ledger.items()})
        book.state.remember(ledger=versions, attributed_by=site_digest)
    return done


@dataclass(frozen=True)
class Balance:
    """The proof: lines compared, the largest difference, and the lines that differ."""

    compared: int
    largest_mj: int
    broken: pl.DataFrame


@contextmanager
def _known_is_kept() -> Iterator[None]:
    """Keep the collector from looking, again and again, at all that was there before: modules, mostly."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def check(book: Book) -> Balance:
    """Compare, for every metered asset and hour, the meter with the postings of all that stands in it."""
    hours = book.meter_hours.scan().filter("primary").collect()
    tree = book.tree()
    inside = pl.DataFrame(
        [(a, above) for a in tree.assets for above in (a, *tree.ancestors(a))],
        schema={"asset": pl.String, "above": pl.String},
        orient="row",
    ).filter(pl.col("above").is_in(hours["asset"].unique().to_list()))
    meters = hours.group_by("asset", "hour_ms", "start_ms").agg(
        pl.col("energy_mj").sum(), (pl.col("start_ms") + pl.col("spanned_ms")).max().alias("end_ms")
    )
    lines = (
        book.postings.scan()
        .group_by("asset", "hour_ms", "start_ms")
        .agg(pl.col("energy_mj").sum().alias("posted_mj"))
        .collect()
        .join(inside, on="asset")
        .group_by("above", "hour_ms", "start_ms")
        .agg(pl.col("posted_mj").sum())
        .sort("start_ms")
    )
    posted = (
        lines.join_asof(
            meters.rename({"asset": "above", "start_ms": "part_ms"}).drop("energy_mj").sort("part_ms"),
            left_on="start_ms", right_on="part_ms", by=["above", "hour_ms"], check_sortedness=False,
        )
        .filter(pl.col("start_ms") < pl.col("end_ms"))
        .group_by(pl.col("above").alias("asset"), "hour_ms", pl.col("part_ms").alias("start_ms"))
        .agg(pl.col("posted_mj").sum())
    )  # fmt: skip
    both = meters.join(posted, on=["asset", "hour_ms", "start_ms"], how="left").with_columns(
        (pl.col("posted_mj").fill_null(0) - pl.col("energy_mj")).alias("difference_mj")
    )
    broken = both.filter(pl.col("difference_mj") != 0).sort("hour_ms", "asset")
    largest = both.select(pl.col("difference_mj").abs().max()).item()
    return Balance(both.height, largest or 0, broken)


def restless(book: Book) -> list[str]:
    """Return a sentence for each meter whose counter was reset implausibly often, told for the worst of its days.

    It looks so where max_power_w is too low or a unit wrong: each step that rises faster than the asset can draw counts
    as a reset, and its energy is not booked as measured.
    """
    worst = (
        book.findings.scan()
        .filter(pl.col("kind") == "reset")
        .group_by("meter", "day")
        .agg(pl.len().alias("resets"), pl.col("energy_mj").sum())
        .filter(pl.col("resets") > RESETS_A_DAY)
        .sort("meter", pl.col("resets"), "day", descending=[False, True, False])
        .unique("meter", keep="first", maintain_order=True)
        .collect()
    )
    tree, asset_of = book.tree(), {m.id: m.asset for m in book.meters()}
    return [_restless(row, tree[asset_of[row["meter"]]]) for row in worst.iter_rows(named=True)]


def _restless(row: dict[str, Any], asset: Asset) -> str:
    over = f", or rises faster than the {asset.ceiling_w:,.0f} W that '{asset.id}' can draw" if asset.ceiling_w else ""
    return (
        f"meter '{row['meter']}' has {row['resets']:,} resets on {row['day']}, over which only "
        f"{row['energy_mj'] / MJ_PER_KWH:,.3f} kWh are booked: its counter falls{over}; "
        f"is the unit right? Else set max_power_w of '{asset.id}' in the site file"
    )
