"""Lines of the kernel as the tables of the ledger: codes become names, arrays become columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from wattkeeper.core import counter
from wattkeeper.core.jit import njit
from wattkeeper.core.units import PPM
from wattkeeper.ledger import kernel
from wattkeeper.ledger.day import Lines, Window

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

ACCOUNTS = ("job", "held_idle", "idle", "overhead", "unaccounted")
_ACCOUNTS, _EVENTS = pa.array(ACCOUNTS), pa.array(counter.EVENT_NAMES)

_AMOUNTS = {
    "energy_mj": kernel.ENERGY,
    "imputed_mj": kernel.IMPUTED,
    "bridged_mj": kernel.BRIDGED,
    "estimated_mj": kernel.ESTIMATED,
    "held_ms": kernel.HELD_MS,
    "covered_ms": kernel.COVERED_MS,
}
"""Columns of a posting that hold an amount as the kernel has it."""

_HOUR_COLUMNS = ("start_ms", "energy_mj", "imputed_mj", "bridged_mj", "spanned_ms", "covered_ms")
_EVENT_COLUMNS = ("start_ms", "end_ms", "energy_mj")
"""Columns of meter_hours and findings after their codes, in the order of kernel.Out."""

VALUED = ("carbon_g", "cost", "water_l")
"""Columns of a posting that signals fill, in the order of the kernel's grid."""


def to_tables(lines: Lines, window: Window, jobs: pl.Series, valued: Sequence[bool]) -> dict[str, pa.Table]:
    """Return postings, job_days, meter_hours and findings, without the columns that their partition carries.

    jobs: ids by code. valued: for each of VALUED, whether the lines have it.
    """
    layout = window.layout
    units, assets, meters = layout.names
    hour_ms = window.frame.hour_ms
    keys, amounts = lines.keys.T, lines.amounts.T
    known_ms, busy_ms = amounts[kernel.KNOWN_MS], amounts[kernel.BUSY] // PPM
    who = _Jobs.of(keys[4], jobs)
    postings = {
        "hour_ms": hour_ms[keys[2]],
        "start_ms": keys[5],
        "unit": _coded(keys[0], units),
        "asset": _coded(keys[1], assets),
        "account": _coded(keys[3], _ACCOUNTS),
        "job_id": who.named(keys[4]),
        **{c: amounts[at] for c, at in _AMOUNTS.items()},
        "busy_ms": pa.array(busy_ms, mask=known_ms == 0),
        "known_ms": known_ms,
    }
    columns = iter(lines.valued.T)
    worth = {name: next(columns) if here else None for name, here in zip(VALUED, valued, strict=True)}
    for name, value in worth.items():
        postings[name] = pa.nulls(len(lines.keys), pa.float64()) if value is None else value
    hours, events = lines.hours.T, lines.events.T
    meter_hours = {
        "hour_ms": hour_ms[hours[1]],
        "start_ms": hours[2],
        "unit": _coded(layout.meter_unit[hours[0]], units),
        "asset": _coded(layout.meter_asset[hours[0]], assets),
        "meter": _coded(hours[0], meters),
        "primary": window.primary[hours[0]] == 1,
        **dict(zip(_HOUR_COLUMNS[1:], hours[3:], strict=True)),
    }
    findings = {
        "unit": _coded(layout.meter_unit[events[0]], units),
        "meter": _coded(events[0], meters),
        "kind": _coded(events[1], _EVENTS),
        **dict(zip(_EVENT_COLUMNS, events[2:], strict=True)),
    }
    days = _job_days(keys[3], keys[4], who, amounts, busy_ms, worth)
    tables = {"postings": postings, "meter_hours": meter_hours, "findings": findings}
    return {**{name: pa.table(columns) for name, columns in tables.items()}, "job_days": days}


def lines_of(tables: Mapping[str, pl.DataFrame], window: Window, jobs: pl.Series, valued: Sequence[bool]) -> Lines:
    """Return lines of tables written before, as to_tables takes them; the inverse of it.

    tables: postings, meter_hours and findings. Their units, assets and meters must be in the layout, their jobs in jobs.
    """
    layout, rows, hours, events = window.layout, tables["postings"], tables["meter_hours"], tables["findings"]
    meter_code = {m.id: i for i, m in enumerate(layout.meters)}
    slot_ms = window.frame.slot_ms
    job_code = (
        dict(zip(jobs.to_list(), range(len(jobs)), strict=True)) if rows["job_id"].null_count() < rows.height else {}
    )
    account = _codes(rows["account"], {a: i for i, a in enumerate(ACCOUNTS)})
    start_ms = rows["start_ms"].to_numpy()
    slot = np.searchsorted(slot_ms, start_ms, side="right") - 1
    unit, asset = _codes(rows["unit"], layout.unit_code), _codes(rows["asset"], layout.asset_code)
    amounts = np.zeros((kernel.N_AMOUNTS, rows.height), np.int64)
    for column, at in _AMOUNTS.items():
        amounts[at] = rows[column].to_numpy()
    amounts[kernel.BUSY] = rows["busy_ms"].fill_null(0).to_numpy() * PPM
    amounts[kernel.KNOWN_MS] = rows["known_ms"].to_numpy()
    worth = [rows[c].to_numpy() for c, here in zip(VALUED, valued, strict=True) if here]
    hour_slot = np.searchsorted(slot_ms, hours["start_ms"].to_numpy(), side="right") - 1
    kind = {name: i for i, name in enumerate(counter.EVENT_NAMES)}
    return Lines(
        np.stack([unit, asset, slot, account, _codes(rows["job_id"], job_code), start_ms], axis=1),
        amounts.T,
        np.array(worth, np.float64).reshape(len(worth), rows.height).T,
        np.stack(
            [_codes(hours["meter"], meter_code), hour_slot, *(hours[c].to_numpy() for c in _HOUR_COLUMNS)], axis=1
        ),
        np.stack(
            [_codes(events["meter"], meter_code), _codes(events["kind"], kind)]
            + [events[c].to_numpy() for c in _EVENT_COLUMNS],
            axis=1,
        ),
    )


def _codes(names: pl.Series, code: Mapping[str, int]) -> Int64s:
    """Return the code of each name, −1 for none; names are looked up once each."""
    kept = names.cast(pl.Categorical)
    distinct = kept.drop_nulls().unique()
    place = distinct.to_physical().to_numpy()
    by_place = np.full(int(place.max(initial=0)) + 2, -1, np.int64)  # the last one stands for none
    by_place[place] = [code[name] for name in distinct.cast(pl.String)]
    codes: Int64s = by_place[kept.to_physical().fill_null(len(by_place) - 1).to_numpy()]
    return codes


@dataclass(frozen=True)
class _Jobs:
    """The jobs that occur in some lines. place: (j + 1,) of each job by code among them, the last for no job; their ids."""

    place: Int64s
    names: pa.Array

    @classmethod
    def of(cls, codes: Int64s, jobs: pl.Series) -> _Jobs:
        """Return those of some codes, −1 for no job; jobs: ids by code."""
        occurs = np.zeros(len(jobs) + 1, bool)
        occurs[codes] = True
        names = jobs.filter(pl.Series(occurs[:-1])).to_arrow()
        return cls(np.cumsum(occurs) - 1, names)

    def named(self, codes: Int64s) -> pa.Array:
        """Return job ids by code, none for −1, without spelling them out."""
        return self.at(self.place[codes], codes < 0)

    def at(self, place: Int64s, nobody: NDArray[np.bool_]) -> pa.Array:
        """Return job ids by place."""
        return pa.DictionaryArray.from_arrays(pa.array(place.astype(np.int32), mask=nobody), self.names)


def _job_days(
    account: Int64s, job: Int64s, jobs: _Jobs, amounts: Int64s, busy_ms: Int64s, worth: dict[str, Floats | None]
) -> pa.Table:
    """Return sums by account and job. account, job: (p,) codes, −1 for no job. amounts: (N_AMOUNTS, p) of the kernel."""
    key = jobs.place[job] * len(ACCOUNTS) + account
    used = np.flatnonzero(np.bincount(key))
    row = np.zeros(int(key.max(initial=0)) + 1, np.int64)
    row[used] = np.arange(len(used))
    into = row[key]
    sums = _summed(amounts, into, len(used))
    busy = _summed(busy_ms[None, :], into, len(used))[0]
    place = used // len(ACCOUNTS)
    columns = {
        "account": _coded(used % len(ACCOUNTS), _ACCOUNTS),
        "job_id": jobs.at(place, place == len(jobs.names)),
        **{c: sums[at] for c, at in _AMOUNTS.items()},
        "busy_ms": pa.array(busy, mask=sums[kernel.KNOWN_MS] == 0),
        "known_ms": sums[kernel.KNOWN_MS],
    }
    for name, value in worth.items():
        whole = None if value is None else np.bincount(into, value, len(used))
        columns[name] = pa.nulls(len(used), pa.float64()) if whole is None else whole
    return pa.table(columns)


@njit
def _summed(columns: Int64s, into: Int64s, rows: int) -> Int64s:
    """Return sums of some columns (c, p) by row: (c, rows). into: (p,) the row of each value."""
    sums = np.zeros((len(columns), rows), np.int64)
    for c in range(len(columns)):
        for i in range(len(into)):
            sums[c, into[i]] += columns[c, i]
    return sums


def _coded(codes: Int64s, names: pa.Array) -> pa.Array:
    """Return names by code, without spelling them out."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), names)
