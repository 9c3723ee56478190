"""The statement for scripts: JSON with units in its keys, CSV of its breakdown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import polars as pl

from wattkeeper.core.clock import iso
from wattkeeper.core.units import MJ_PER_KWH
from wattkeeper.report.statement import LEVELS, Statement
from wattkeeper.report.words import nameless


def to_json(statement: Statement) -> dict[str, Any]:
    """Return a statement as plain values; what is unknown is null."""
    return {
        "title": statement.title,
        "period": {
            "name": statement.period.name,
            "start": iso(statement.period.start_ms),
            "end": iso(statement.period.end_ms),
        },
        "balance": {
            "line": statement.balance_line,
            "meter_mj": statement.meter_mj,
            "residual_mj": statement.residual_mj,
            "uncertainty_kwh": statement.uncertainty_mj / MJ_PER_KWH,
        },
        "accounts": [_readable(r) for r in statement.accounts.iter_rows(named=True)],
        "by": statement.by,
        "note": statement.note,
        "rows": [_readable(r) for r in statement.rows.iter_rows(named=True)],
        "failed": [_readable(r) for r in statement.failed.iter_rows(named=True)],
        "consumers": [_readable(r) for r in statement.consumers.iter_rows(named=True)],
        "findings": statement.findings.to_dicts(),
        "lost": [loss._asdict() for loss in statement.lost],
        "jobs_ended": statement.jobs_ended,
        "energy_per_job_kwh": statement.kwh_per_job,
        "gpu_utilisation": statement.utilisation,
        "gpu_utilisation_known": statement.utilisation_known,
        "coverage": statement.coverage,
        "pue_interim": statement.pue,
        **{f"energy_without_{kind}": part for kind, part in statement.unvalued.items()},
        "embodied_g": statement.embodied_g,
        "unspread": statement.unspread,
        "signals": [asdict(s) for s in statement.signals],
        "versions": statement.versions,
    }


DECIMALS = 9
"""Of energy in kWh, so that whole millijoules do not print as 1.9368999999999998."""

_TOLD = ("energy_mj", "uncertainty_mj", "full_mj")


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    told = {f"{c.removesuffix('_mj')}_kwh": row[c] for c in _TOLD if row.get(c) is not None}
    return row | {name: round(value / MJ_PER_KWH, DECIMALS) for name, value in told.items()}


def to_csv(statement: Statement) -> str:
    """Return the breakdown as CSV; what has no user, project or place is called so."""
    rows, by = statement.rows, statement.by
    if by in {"user", "project", *LEVELS}:
        rows = rows.with_columns(pl.col(by).fill_null(nameless(by)))
    return rows.with_columns((pl.col("energy_mj") / MJ_PER_KWH).round(DECIMALS).alias("energy_kwh")).write_csv()
