"""Lines of the kernel as the tables of the ledger: codes become names, arrays become columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from wattkeeper.core import counter
from wattkeeper.core.units import PPM
from wattkeeper.ledger import kernel
from wattkeeper.ledger.day import Lines, Window

Int64s = NDArray[np.int64]

ACCOUNTS = ("job", "held_idle", "idle", "overhead", "unaccounted")
_ACCOUNTS, _EVENTS = pa.array(ACCOUNTS), pa.array(counter.EVENT_NAMES)

VALUED = ("carbon_g", "cost", "water_l")
"""Columns of a posting that signals fill, in the order of the kernel's grid."""


def to_tables(lines: Lines, window: Window, jobs: pl.Series, valued: Sequence[bool]) -> dict[str, pa.Table]:
    """Return postings, meter_hours and findings, without the columns that their partition carries.

    jobs: ids by code. valued: for each of VALUED, whether the lines have it.
    """
    layout = window.layout
    units, assets, meters = layout.names
    hour_ms = window.frame.hour_ms
    keys, amounts = lines.keys.T, lines.amounts.T
    known_ms = amounts[kernel.KNOWN_MS]
    postings = {
        "hour_ms": hour_ms[keys[2]],
        "start_ms": keys[5],
        "unit": _coded(keys[0], units),
        "asset": _coded(keys[1], assets),
        "account": _coded(keys[3], _ACCOUNTS),
        "job_id": _jobs(keys[4], jobs),
        "energy_mj": amounts[kernel.ENERGY],
        "imputed_mj": amounts[kernel.IMPUTED],
        "bridged_mj": amounts[kernel.BRIDGED],
        "estimated_mj": amounts[kernel.ESTIMATED],
        "held_ms": amounts[kernel.HELD_MS],
        "covered_ms": amounts[kernel.COVERED_MS],
        "busy_ms": pa.array(amounts[kernel.BUSY] // PPM, mask=known_ms == 0),
        "known_ms": known_ms,
    }
    at = 0
    for name, here in zip(VALUED, valued, strict=True):
        postings[name] = lines.valued[:, at] if here else pa.nulls(len(lines.keys), pa.float64())
        at += here
    hours, events = lines.hours.T, lines.events.T
    meter_hours = {
        "hour_ms": hour_ms[hours[1]],
        "start_ms": hours[2],
        "unit": _coded(layout.meter_unit[hours[0]], units),
        "asset": _coded(layout.meter_asset[hours[0]], assets),
        "meter": _coded(hours[0], meters),
        "primary": window.primary[hours[0]] == 1,
        "energy_mj": hours[3],
        "imputed_mj": hours[4],
        "bridged_mj": hours[5],
        "spanned_ms": hours[6],
        "covered_ms": hours[7],
    }
    findings = {
        "unit": _coded(layout.meter_unit[events[0]], units),
        "meter": _coded(events[0], meters),
        "kind": _coded(events[1], _EVENTS),
        "start_ms": events[2],
        "end_ms": events[3],
        "energy_mj": events[4],
    }
    tables = {"postings": postings, "meter_hours": meter_hours, "findings": findings}
    return {name: pa.table(columns) for name, columns in tables.items()}


def _coded(codes: Int64s, names: pa.Array) -> pa.Array:
    """Return names by code, without spelling them out."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), names)


def _jobs(codes: Int64s, jobs: pl.Series) -> pa.Array:
    """Return job ids by code, none for −1, with a dictionary of only those that occur."""
    occurs = np.zeros(len(jobs) + 1, bool)  # the last one stands for −1
    occurs[codes] = True
    place = (np.cumsum(occurs) - 1).astype(np.int32)
    names = jobs.filter(pl.Series(occurs[:-1])).to_arrow()
    return pa.DictionaryArray.from_arrays(pa.array(place[codes], mask=codes < 0), names)
