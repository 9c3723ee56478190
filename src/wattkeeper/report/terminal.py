"""The statement in a terminal, at 80 columns."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wattkeeper.core.units import MJ_PER_KWH
from wattkeeper.report.statement import ACCOUNTS, LEVELS, NAMES, Statement
from wattkeeper.report.words import (
    BANDS,
    amount,
    carbon,
    clock,
    count,
    energy,
    grouped,
    nameless,
    percent,
    source,
    span,
)

STYLES = {"job": "green", "held_idle": "yellow", "idle": "blue", "overhead": "magenta", "unaccounted": "red"}


def render(statement: Statement, *, most: int = 15) -> RenderableType:
    """Return the whole statement; at most so many rows of its breakdown."""
    zone = statement.sites[0].timezone
    period = statement.period
    head = Text(statement.title or "Statement", style="bold")
    return Group(
        head,
        Text(f"{span(period.name, period.start_ms, period.end_ms, zone)} {zone}", style="dim"),
        Text(),
        _balance(statement),
        Text(),
        _accounts(statement),
        Text(),
        *_bars(statement),
        _breakdown(statement, most),
        Text(),
        _failed(statement),
        _notes(statement),
    )


def _balance(statement: Statement) -> Text:
    """Return the balance line, one account a line, so that it reads like a sum."""
    text = Text(f"meter {energy(statement.meter_mj):>22}  ± {energy(statement.uncertainty_mj)}", style="bold")
    for i, account in enumerate(ACCOUNTS):
        sign = "=" if i == 0 else "+"
        text.append(f"\n  {sign} {NAMES[account]:<12}{energy(statement.energy_mj(account)):>14}", style=STYLES[account])
    if statement.residual_mj:
        text.append(f"\nThe books do NOT balance: {statement.residual_mj:+,} mJ", style="bold red")
    else:
        text.append("\nThe books balance to 0 mJ.", style="dim")
    return text


def _accounts(statement: Statement) -> Table:
    currency = statement.sites[0].currency
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Account")
    for name in ("Share", "CO2e", currency, "Covered", "Imputed", "± kWh"):
        table.add_column(name, justify="right")
    for row in statement.accounts.iter_rows(named=True):
        if row["energy_mj"] == 0 and not row["held_ms"]:
            continue
        share = row["energy_mj"] / statement.meter_mj if statement.meter_mj else None
        imputed = row["imputed_mj"] / row["energy_mj"] if row["energy_mj"] else None
        table.add_row(
            Text(NAMES[row["account"]], style=STYLES[row["account"]]),
            percent(share),
            carbon(row["carbon_g"]),
            amount(row["cost"]),
            percent(row["coverage"]),
            percent(imputed),
            grouped(row["uncertainty_mj"] / MJ_PER_KWH, 2),
        )
    total = statement.total
    table.add_row(
        Text("total", style="bold"), "", carbon(total("carbon_g")), amount(total("cost")), percent(statement.coverage)
    )
    return table


def _bars(statement: Statement, width: int = 60) -> list[RenderableType]:
    """Return a bar a day (or an hour, for up to two days), its accounts side by side."""
    hours = statement.hours.filter(pl.col("energy_mj") > 0)
    if not hours.height:
        return []
    zone = statement.sites[0].timezone
    n_hours = hours["hour_ms"].n_unique()
    form = "%m-%d %H:00" if n_hours <= 48 else "%a %m-%d"
    label = pl.col("hour_ms").map_elements(lambda t: clock(t, zone, form), pl.String).alias("when")
    sums = hours.with_columns(label).group_by("when", "account", maintain_order=True).agg(pl.col("energy_mj").sum())
    totals = sums.group_by("when", maintain_order=True).agg(pl.col("energy_mj").sum())
    longest = max(totals["energy_mj"].to_list())
    lines: list[RenderableType] = []
    for when, total in totals.iter_rows():
        line = Text(f"{when:>11} ", style="dim")
        parts = dict(sums.filter(pl.col("when") == when).select("account", "energy_mj").iter_rows())
        done = 0.0
        for account in ACCOUNTS:
            before, done = done, done + parts.get(account, 0) / longest * (width - 14)
            line.append("█▓▒░·"[ACCOUNTS.index(account)] * (math.floor(done) - math.floor(before)), STYLES[account])
        line.append(f" {grouped(total / MJ_PER_KWH, 1)}", style="dim")
        lines.append(line)
    legend = Text(" " * 12)
    for mark, account in zip("█▓▒░·", ACCOUNTS, strict=True):
        legend.append(f"{mark} {NAMES[account]}  ", STYLES[account])
    legend.append("[kWh]", "dim")
    return [*lines, legend, Text()]


def _breakdown(statement: Statement, most: int) -> RenderableType:
    rows = statement.rows
    if statement.note:
        return Text(statement.note)
    if not rows.height:
        return Text(f"No {statement.by} has energy in this period.")
    if statement.by in LEVELS:
        return _levels(statement, most)
    table = Table(box=None, pad_edge=False, header_style="bold")
    keys = {
        "job": ("job_id", "user") if statement.unspread else ("job_id", "user", "state"),
        "hour": ("hour_ms",),
    }.get(statement.by, (statement.by,))
    for key in keys:
        table.add_column(
            "by " + statement.by if key == keys[0] else key, overflow="ellipsis", max_width=26, no_wrap=True
        )
    table.add_column("kWh", justify="right", no_wrap=True)
    currency = statement.sites[0].currency
    full = statement.unspread is not None
    for name in ("full kWh", "full CO2e", f"full {currency}") if full else ("CO2e", currency, "Covered", "± kWh"):
        table.add_column(name, justify="right", no_wrap=True)
    cells = _full if full else _own
    for row in rows.head(most).iter_rows(named=True):
        own_kwh = grouped(row["energy_mj"] / MJ_PER_KWH, 3)
        table.add_row(*(_key(row, k, statement) for k in keys), own_kwh, *cells(row))
    return _with_more(table, rows.height - most)


def _own(row: dict[str, Any]) -> tuple[str, ...]:
    band = grouped(row["uncertainty_mj"] / MJ_PER_KWH, 3)
    return carbon(row["carbon_g"]), amount(row["cost"]), percent(row["coverage"]), band


def _full(row: dict[str, Any]) -> tuple[str, ...]:
    full_kwh = None if row["full_mj"] is None else row["full_mj"] / MJ_PER_KWH
    return amount(full_kwh, 3), carbon(row["full_carbon_g"]), amount(row["full_cost"])


def _with_more(table: Table, more: int) -> RenderableType:
    if more <= 0:
        return table
    return Group(table, Text(f"… and {grouped(more)} more; --csv or --json lists all.", style="dim"))


def _levels(statement: Statement, most: int) -> RenderableType:
    """Return a row a node, rack, hall or site: its energy, and on which accounts it is [kWh]."""
    rows = statement.rows
    shown = [a for a in ACCOUNTS if rows.select((pl.col(f"{a}_mj") != 0).any()).item()]
    decimals = 3 if rows["energy_mj"].abs().sum() < 1000 * MJ_PER_KWH else 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("by " + statement.by, overflow="ellipsis", max_width=18, no_wrap=True)
    table.add_column("kWh", justify="right", no_wrap=True)
    for account in shown:
        table.add_column(NAMES[account], justify="right", no_wrap=True, style=STYLES[account])
    for row in rows.head(most).iter_rows(named=True):
        name = nameless(statement.by) if row[statement.by] is None else row[statement.by]
        parts = ("energy_mj", *(f"{a}_mj" for a in shown))
        table.add_row(Text(name), *(grouped(row[c] / MJ_PER_KWH, decimals) for c in parts))
    return _with_more(table, rows.height - most)


def _key(row: dict[str, Any], key: str, statement: Statement) -> str:
    value = row[key]
    if value is None:
        return nameless(key) if key == statement.by else "–"
    if key == "hour_ms":
        return clock(value, statement.sites[0].timezone)
    return NAMES.get(value, value) if key == "account" else str(value)


def _failed(statement: Statement) -> RenderableType:
    if not statement.failed.height:
        return Text()
    states = ", ".join(f"{n} {s.lower()} {energy(e)}" for s, n, e in statement.failed.iter_rows())
    return Text(f"Jobs without a result: {states}.\n")


def _notes(statement: Statement) -> Text:
    lines = [line for line in (statement.by_count_line, statement.lost_line) if line]
    if statement.kwh_per_job is not None:
        each = grouped(statement.kwh_per_job, 3)
        lines.append(f"{count(statement.jobs_ended, 'job')} ended, {each} kWh each on average.")
    if statement.utilisation is not None:
        known = percent(statement.utilisation_known, 0)
        lines.append(f"GPU utilisation {percent(statement.utilisation)} while held (read in {known} of that time).")
    if statement.pue is not None:
        lines.append(f"PUE {statement.pue:.3f}, interim: less than 12 months, or IT measured at nodes.")
    for row in statement.findings.iter_rows(named=True):
        found = f"{count(row['count'], row['kind'])} on {count(row['meters'], 'meter')}"
        lines.append(f"{found}: {energy(row['energy_mj'])} booked.")
    if statement.restless_line:
        lines.append(statement.restless_line)
    for info in statement.signals:
        words = source(info)
        lines.append(f"{info.kind}: {info.id} [{info.unit}]{', ' if words else ''}{words}")
    if (water := statement.total("water_l")) is not None:
        lines.append(f"Water: {grouped(water, 1)} L.")
    for kind, part in statement.unvalued.items():
        if part > 0:
            what = {"intensity": "carbon", "price": "cost"}.get(kind, kind)
            lines.append(f"No {kind} is known for {percent(part)} of the energy; its {what} is left out.")
    if statement.full_cost_line:
        lines.append(statement.full_cost_line)
    if statement.embodied_g:
        parts = ", ".join(f"{a} {carbon(g)}" for a, g in sorted(statement.embodied_g.items(), reverse=True))
        lines.append(f"Embodied carbon of the hardware over this time, never added to the above: {parts}.")
    lines.append(BANDS)
    versions = ", ".join(f"{t} v{v}" for t, v in statement.versions.items())
    lines.append(f"Made from {versions}.")
    return Text("\n".join(lines), style="dim")
