"""Corrections: which rows of a book give way to what comes in, and what comes in that the book has otherwise.

A book keeps what it is given, and where two rows tell of one thing differently a rule that does not know the order of
import says which of them stands: the larger reading or value, the later end of a job. The other changes nothing, which
is told. To correct the book against that rule its rows have to go, whether someone asked for it (`replace`) or the
source says what it knows better (`Intake.replaces`): `giving_way` says which rows those are, `make_way` takes them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import polars as pl

from wattkeeper.core.assets import Meter
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import BatchError
from wattkeeper.core.roles import Intake, Reject, SignalInfo
from wattkeeper.core.schema import ALLOCATIONS, JOBS, SIGNALS
from wattkeeper.lake.delta import DataFile, Table

Mask = Callable[[pl.DataFrame], pl.Series]
"""Says of each row of a table whether it gives way."""

CURE = "to correct it: --replace"

_END, _START = pl.col("end_ms"), pl.col("start_ms")
_AGAIN = _END.is_null() & (_END.max().over("job_id") <= _START)
_PHASE = pl.when(_AGAIN).then(2).when(_END.is_not_null()).then(1).otherwise(0)

BY_RANK = ["job_id", _PHASE, "end_ms", "start_ms", "state", "name", "user", "project"]
"""Order of what is known of a job, the last word last: ended over running, but running again over ended."""


OPPOSITES = ({"average", "marginal"}, {"lifecycle", "direct"})
"""Words of a signal's method of which it can be one only."""


def must_be_alike(known: SignalInfo, now: SignalInfo) -> None:
    """Raise BatchError where values of two kinds, units, currencies or methods would share a signal."""
    before, after = f"{known.kind} in {known.unit}", f"{now.kind} in {now.unit}"
    for pair in OPPOSITES:
        one, other = (pair & set(i.method.replace(",", " ").split()) for i in (known, now))
        if one and other and one != other:
            before, after = f"{before}, {' '.join(one)}", f"{after}, {' '.join(other)}"
    if before != after:
        raise BatchError(f"Signal '{now.id}' is kept as {before}, and this is {after}. Give it an id of its own.")


def giving_way(intake: Intake, *, replace: bool) -> dict[str, Mask]:
    """Return by table which rows give way to an intake's; a table that is not named loses none.

    replace: jobs of the same id; allocations of those jobs, or of the same job on the same asset; stretches of a signal
    that lie within one of the intake's. With `intake.replaces` those and what lies within one of its spans give way in
    any case. Readings are looked at day by day: see `same_readings`.
    """
    masks: dict[str, Mask] = {}
    if replace and intake.jobs.height:
        masks[JOBS.name] = _in(intake.jobs.select("job_id"))
    if replace and intake.allocations.height:
        masks[ALLOCATIONS.name] = _any(
            _in(intake.jobs.select("job_id")), _in(intake.allocations.select("job_id", "asset"))
        )
    if intake.replaces or (replace and intake.signals.height):
        told = intake.signals.select("signal", "start_ms", "end_ms").unique()
        masks[SIGNALS.name] = _within([*intake.replaces, *told.iter_rows()])
    return masks


def same_readings(rows: pl.DataFrame) -> Mask:
    """Say that readings of the same meters at the same instants give way."""
    return _in(rows.select(pl.col("meter").cast(pl.String), "time_ms"))


def make_way(
    table: Table, files: Iterable[DataFile], new: pl.DataFrame, gives_way: Mask
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Stage some files of a table without the rows that give way; return those rows, and the new ones to be added.

    A row that comes again as it was stays where it is, so that nothing is attributed anew for it.
    """
    columns = table.spec.schema.names()
    again = new.select(columns).unique().with_columns(again=pl.lit(value=True))
    gone, stayed = [table.spec.empty()], [table.spec.empty()]
    for file in files:
        rows = pl.read_parquet(table.root / file.path, columns=columns)
        rows = rows.join(again, on=columns, how="left", nulls_equal=True, maintain_order="left")
        place = gives_way(rows)
        goes = place & rows["again"].is_null()
        stayed.append(rows.filter(place & ~goes).select(columns))
        if goes.any():
            gone.append(rows.filter(goes).select(columns))
            table.drop([file])
            if not goes.all():
                table.write(rows.filter(~goes).select(columns), (file.site, file.day))
    return pl.concat(gone), new.join(pl.concat(stayed), on=columns, how="anti", nulls_equal=True)


def contradicted_signals(new: pl.DataFrame, known: pl.DataFrame, source: str) -> list[Reject]:
    """Return by signal what changes nothing, as the book has a larger value for the same stretch."""
    keys = ["signal", "start_ms", "end_ms"]
    both = new.unique().join(known.group_by(keys).agg(pl.col("value").max()), on=keys, suffix="_known")
    found = both.filter(pl.col("value") < pl.col("value_known"))
    return _told(found, "signal", "the larger value stands", source)


def contradicted_jobs(new: pl.DataFrame, known: pl.DataFrame, source: str) -> list[Reject]:
    """Return by job what changes nothing, as the book has a later end of the same run, or other words on the same end.

    known: rows of the book for those jobs. Runs of a job, as of one that was requeued, differ in their start.
    """
    words, run = ["user", "project", "state"], ["job_id", "start_ms"]
    stands = (
        known.drop_nulls("end_ms")
        .sort(BY_RANK)
        .group_by(run, maintain_order=True)
        .agg(pl.col("end_ms").last(), pl.col(words).drop_nulls().last())
    )
    both = new.join(stands, on=run, suffix="_known")
    other = pl.any_horizontal(pl.col(c).is_not_null() & (pl.col(c) != pl.col(f"{c}_known")) for c in words)
    end_ms, known_ms = pl.col("end_ms"), pl.col("end_ms_known")
    found = both.filter((end_ms < known_ms) | ((end_ms == known_ms) & other))
    return _told(found.rename({"job_id": "job"}), "job", "the later end stands", source)


def contradicted_readings(pairs: pl.DataFrame, meters: Mapping[str, Meter], source: str) -> list[Reject]:
    """Return, as one, the readings that have two values, with the first one. pairs: see ReadingsStore.append."""
    if not pairs.height:
        return []
    count, some = pairs.select("meter", "time_ms").n_unique(), pairs["meter"].n_unique()
    meter, time_ms, value, known = pairs.sort("time_ms", "meter", "value", "known").row(0)
    unit = {"power": "mW", "utilisation": "ppm"}.get(meters[meter].quantity, "mJ")
    first = f"'{meter}' at {iso(time_ms)}: {min(value, known):,} and {max(value, known):,} {unit}"
    why = f"two values for one instant in {count:,} readings of {some:,} meters, first {first}"
    return [Reject(source, 0, f"{why}; the larger value stands; {CURE}")]


def _told(found: pl.DataFrame, what: str, stands: str, source: str) -> list[Reject]:
    counts = found.group_by(what).len().sort(what).iter_rows()
    return [
        Reject(source, 0, f"{what} '{name}' ({n}): the book has it otherwise and {stands}; {CURE}")
        for name, n in counts
    ]


def _in(keys: pl.DataFrame) -> Mask:
    told = keys.unique().with_columns(told=pl.lit(value=True))

    def mask(rows: pl.DataFrame) -> pl.Series:
        return rows.join(told, on=keys.columns, how="left", maintain_order="left")["told"].fill_null(value=False)

    return mask


def _any(*masks: Mask) -> Mask:
    return lambda rows: pl.select(pl.any_horizontal(*(mask(rows) for mask in masks))).to_series()


def _within(stretches: Iterable[tuple[str, int, int]]) -> Mask:
    """Say that stretches of signals give way that lie within one of these."""
    spans = pl.DataFrame(list(stretches), ["signal", "start_ms", "until_ms"], orient="row")
    spans = spans.sort("start_ms").with_columns(pl.col("until_ms").cum_max().over("signal"))

    def mask(rows: pl.DataFrame) -> pl.Series:
        placed = rows.with_row_index("row").sort("start_ms")
        found = placed.join_asof(spans, on="start_ms", by="signal", check_sortedness=False)
        return found.sort("row").select((pl.col("until_ms") >= pl.col("end_ms")).fill_null(value=False)).to_series()

    return mask
