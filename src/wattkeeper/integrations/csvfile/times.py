"""Times: from what a cell says to milliseconds UTC, through formats, zones and clock changes."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import polars as pl

from wattkeeper.core.clock import EARLIEST_MS, LATEST_MS, zone
from wattkeeper.integrations.csvfile.reasons import why

EPOCH_MS = {"s": Decimal(1000), "ms": Decimal(1), "us": Decimal("0.001")}

_OFFSET = r"\s*([Zz]|UTC|[+-]\d\d(?::?\d\d)?)$"
_ISO_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
_RUN_MS = 43_200_000


def read_times(cells: pl.Series, *, what: str, layout: str, timezone: str, shift_ms: int = 0) -> pl.DataFrame:
    """Return one row per cell: time_ms [ms UTC], later_ms and why.

    what: name of the column in the reason. layout: "" for ISO 8601, "s", "ms", "us" for epoch numbers, else strptime.
    later_ms: the second instant at which clocks showed the same, where a clock change makes a local time ambiguous;
    time_ms is the first. why: the reason where there is no time_ms, else null.
    """
    zone(timezone)
    if cells.dtype.is_temporal():
        times = _from_datetime(cells, timezone)
    elif layout in EPOCH_MS:
        times = _from_epoch(cells, EPOCH_MS[layout])
    elif layout:
        clock = cells.cast(pl.String).str.to_datetime(layout, strict=False, time_unit="us")
        times = _from_datetime(clock, timezone)
    else:
        times = _from_iso(cells.cast(pl.String), timezone)
    named = f"a number of {layout} since 1970" if layout in EPOCH_MS else f"'{layout}'" if layout else "ISO 8601"
    times = times.with_columns(pl.col("time_ms", "later_ms") + shift_ms)
    possible = pl.col("time_ms").is_between(EARLIEST_MS, LATEST_MS)
    reason = why(
        [
            (cells.is_null(), f"{what} is missing"),
            (pl.col("skipped"), f"{what} does not exist in {timezone}: the clock is put forward over it"),
            (pl.col("time_ms").is_null(), f"{what} cannot be read as {named}"),
            (~possible, f"{what} lies outside 2000 to 2100; is time_format right?"),
        ]
    )
    return times.select(pl.when(possible).then(pl.col("time_ms", "later_ms")), reason)


def settle(rows: pl.DataFrame, series: str, *, rising: bool) -> pl.DataFrame:
    """Return rows of ambiguous time with time_ms decided and later_ms dropped.

    A series that goes through the doubled hour twice, in file order, says which instant is which: its first pass is
    the earlier one (the later one in a file that runs backwards). Anything else is the earlier instant.
    rows: columns "row", time_ms, later_ms and the one named by series, all of them ambiguous.
    """
    parts = [_settled(part, rising=rising) for part in rows.sort("row").partition_by(series, maintain_order=True)]
    return pl.concat(parts) if parts else rows.drop("later_ms")


def _settled(rows: pl.DataFrame, *, rising: bool) -> pl.DataFrame:
    """Decide the ambiguous rows of one series; rows of one clock change follow each other within half a day."""
    first_ms, later_ms = rows["time_ms"].to_numpy(), rows["later_ms"].to_numpy()
    later = np.zeros(rows.height, np.bool_)
    starts = np.flatnonzero(np.abs(np.diff(first_ms, prepend=first_ms[0])) > _RUN_MS)
    for run in np.split(np.arange(rows.height), starts):
        steps = np.diff(first_ms[run]) * (1 if rising else -1)
        back = np.flatnonzero(steps < 0) if len(run) > 2 else np.flatnonzero(steps <= 0)
        if len(back) == 1:
            second = np.arange(len(run)) > back[0]
            later[run] = second if rising else ~second
    return rows.with_columns(pl.Series("time_ms", np.where(later, later_ms, first_ms))).drop("later_ms")


def _from_iso(text: pl.Series, timezone: str) -> pl.DataFrame:
    """Read dates, and times to the minute, second or fraction, with or without an offset."""
    cell, offset = pl.col("cell"), pl.col("offset")
    parts = text.to_frame("cell").with_columns(offset=cell.str.extract(r"^.{11}.*?" + _OFFSET))
    body = pl.when(offset.is_null()).then(cell).otherwise(cell.str.replace(_OFFSET, ""))
    body = body.str.replace(r"^(\d{4}-\d\d-\d\d)[Tt]", "$1 ").str.replace(r",(\d+)$", ".$1")
    parts = parts.with_columns(body=body)
    one_of = (pl.col("body").str.to_datetime(one, strict=False, time_unit="us") for one in _ISO_FORMATS)
    parts = parts.with_columns(clock=pl.coalesce(one_of))
    local = _localised(parts["clock"], timezone)
    if parts["offset"].null_count() == parts.height:
        return local
    digits = offset.str.replace(":", "").str.slice(1).str.pad_end(4, "0").cast(pl.Int64, strict=False).fill_null(0)
    minutes = (digits // 100 * 60 + digits % 100) * pl.when(offset.str.starts_with("-")).then(-1).otherwise(1)
    exact = _without_doubt(parts.select(pl.col("clock").dt.epoch("us") // 1000 - minutes * 60_000).to_series())
    naive = parts["offset"].is_null()
    return pl.select(pl.when(naive).then(local[name]).otherwise(exact[name]).alias(name) for name in local.columns)


def _from_epoch(cells: pl.Series, unit_ms: Decimal) -> pl.DataFrame:
    """Read epoch numbers; what is finer than a millisecond is dropped, and absurdly large ones are null."""
    number = pl.col("cell").cast(pl.Decimal(38, 18), strict=False)
    near = pl.when(cells.cast(pl.Float64, strict=False).abs() < 1e16).then(number)
    return _without_doubt(cells.to_frame("cell").select((near * unit_ms).cast(pl.Int64, strict=False)).to_series())


def _from_datetime(cells: pl.Series, timezone: str) -> pl.DataFrame:
    if isinstance(cells.dtype, pl.Datetime) and cells.dtype.time_zone:
        return _without_doubt(cells.dt.epoch("us") // 1000)
    return _localised(cells.cast(pl.Datetime("us")), timezone)


def _localised(clock: pl.Series, timezone: str) -> pl.DataFrame:
    """Return the instants at which clocks in a zone showed these times."""
    if timezone == "UTC":
        return _without_doubt(clock.dt.epoch("us") // 1000)
    first = clock.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    last = clock.dt.replace_time_zone(timezone, ambiguous="latest", non_existent="null")
    times = pl.DataFrame({"time_ms": first.dt.epoch("us") // 1000, "last_ms": last.dt.epoch("us") // 1000})
    later = pl.when(pl.col("last_ms") > pl.col("time_ms")).then("last_ms")
    return times.select("time_ms", later.alias("later_ms"), skipped=first.is_null() & clock.is_not_null())


def _without_doubt(time_ms: pl.Series) -> pl.DataFrame:
    return pl.select(time_ms.alias("time_ms"), later_ms=pl.lit(None, pl.Int64), skipped=pl.lit(value=False))
