"""The statement as one page that opens offline: no request leaves it, light and dark, and it prints well."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from wattkeeper.core.clock import iso
from wattkeeper.core.units import MJ_PER_KWH
from wattkeeper.report.figures import COLOURS, figures
from wattkeeper.report.page import cards, chart, page, table
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

MOST_ROWS = 200
"""Rows of the breakdown on the page; CSV and JSON have all."""

_TITLES = {"energy": "Energy", "carbon": "Carbon", "users": "Largest users"}


def write_html(statement: Statement, path: Path) -> None:
    """Write the page. Raises MissingExtraError without the extra `report`."""
    path.write_text(to_html(statement), "utf-8")


def to_html(statement: Statement) -> str:
    """Return the page. Raises MissingExtraError without the extra `report`."""
    specs = figures(statement)
    charts = "".join(f"<h2>{_TITLES[n]}</h2>{chart(n, about=_TITLES[n])}" for n in specs)
    body = "".join(
        [_head(statement), _sum(statement), _cards(statement), charts, _accounts(statement), _rows(statement),
         _quality(statement), _made(statement)]
    )  # fmt: skip
    return page(statement.title or "Energy statement", body, specs)


def _head(statement: Statement) -> str:
    sites = ", ".join(f"{s.id} ({s.timezone}{', ' + s.zone if s.zone else ''})" for s in statement.sites)
    zone = statement.sites[0].timezone
    period = statement.period
    return (
        f"<h1>{escape(statement.title or 'Energy statement')}</h1>"
        f'<p class="soft">{escape(span(period.name, period.start_ms, period.end_ms, zone))} · {escape(sites)}</p>'
    )


def _sum(statement: Statement) -> str:
    """Return the balance line, large."""
    parts = [f"<span>meter <b>{energy(statement.meter_mj)}</b></span>"]
    for i, account in enumerate(ACCOUNTS):
        parts.append(f'<span class="op">{"=" if i == 0 else "+"}</span>')
        value = grouped(statement.energy_mj(account) / MJ_PER_KWH, 3)
        parts.append(f"<span>{_dot(account)}{NAMES[account]} {value}</span>")
    if statement.residual_mj:
        parts.append(f'<span class="wrong">The books do not balance: {statement.residual_mj:+,} mJ</span>')
    else:
        parts.append('<span class="ok">The postings add up to the meters to 0 mJ.</span>')
    return f'<div class="sum">{"".join(parts)}</div>'


def _dot(account: str) -> str:
    return f'<i class="dot" style="background:{COLOURS[NAMES[account]]}"></i>'


def _cards(statement: Statement) -> str:
    currency = statement.sites[0].currency
    cost = statement.total("cost")
    told = [
        ("Energy", energy(statement.meter_mj), f"± {energy(statement.uncertainty_mj)} (standard uncertainty)"),
        ("Carbon, location-based", carbon(statement.total("carbon_g")), _without(statement, "intensity")),
        ("Cost", f"{amount(cost)} {currency}", _without(statement, "price")) if cost is not None
        else ("Cost", "–", "no tariff given"),
        ("Coverage", percent(statement.coverage), "of asset-time in which a meter was read"),
        ("GPU utilisation", percent(statement.utilisation), f"known for {percent(statement.utilisation_known, 0)} of held time"),
        ("Energy per job", f"{grouped(statement.kwh_per_job, 3)} kWh" if statement.kwh_per_job is not None else "–",
         f"{count(statement.jobs_ended, 'job')} ended"),
    ]  # fmt: skip
    if statement.pue is not None:
        told.append(("PUE (interim)", f"{statement.pue:.3f}", "facility energy / IT energy of this period"))
    water = statement.total("water_l")
    if water is not None:
        told.append(("Water", f"{grouped(water, 0)} L", _without(statement, "water")))
    return cards(told)


def _without(statement: Statement, kind: str) -> str:
    part = statement.unvalued.get(kind, 0.0)
    return f"{percent(part)} of energy without {kind}" if part else ""


def _numbers(row: dict[str, Any]) -> list[str]:
    return [
        grouped(row["energy_mj"] / MJ_PER_KWH, 3), carbon(row["carbon_g"]), amount(row["cost"]), percent(row["coverage"]),
    ]  # fmt: skip


def _accounts(statement: Statement) -> str:
    heads = [
        "Account",
        "kWh",
        "CO2e",
        escape(statement.sites[0].currency),
        "Covered",
        "± kWh",
        "Imputed",
        "Bridged",
        "By count",
    ]
    rows = []
    for row in statement.accounts.iter_rows(named=True):
        parts = [
            percent(row[c] / row["energy_mj"]) if row["energy_mj"] else "–"
            for c in ("imputed_mj", "bridged_mj", "estimated_mj")
        ]
        band = grouped(row["uncertainty_mj"] / MJ_PER_KWH, 3)
        rows.append([_dot(row["account"]) + NAMES[row["account"]], *_numbers(row), band, *parts])
    return "<h2>Accounts</h2>" + table(heads, rows)


def _rows(statement: Statement) -> str:
    """Return the breakdown; by node, rack, hall or site with its energy by account."""
    if statement.note:
        return f"<h2>By {escape(statement.by)}</h2><p>{escape(statement.note)}</p>"
    accounts = ACCOUNTS if statement.by in LEVELS else ()
    if not statement.rows.height:
        return f"<h2>By {escape(statement.by)}</h2><p>No {escape(statement.by)} has energy in this period.</p>"
    keys = {"job": ["job_id", "name", "user", "project", "state"], "hour": ["hour_ms"]}.get(
        statement.by, [statement.by]
    )
    heads = [escape(k.replace("_ms", "").replace("_", " ")) for k in keys]
    heads += ["kWh", *(_dot(a) + NAMES[a] for a in accounts)]
    currency = escape(statement.sites[0].currency)
    full = statement.unspread is not None
    heads += ["Full kWh", "Full CO2e", f"Full {currency}"] if full else ["CO2e", currency]
    heads += ["Covered", "± kWh", *["Embodied"] * statement.has_embodied]
    zone = statement.sites[0].timezone
    rows = []
    for row in statement.rows.head(MOST_ROWS).iter_rows(named=True):
        none = nameless(statement.by)
        words = [
            clock(row[k], zone) if k == "hour_ms" else escape(str(row[k] if row[k] is not None else none)) for k in keys
        ]
        total, *rest = _numbers(row)
        rest.append(grouped(row["uncertainty_mj"] / MJ_PER_KWH, 3))
        if statement.has_embodied:
            rest.append(carbon(row["embodied_g"]))
        if full:
            full_kwh = None if row["full_mj"] is None else row["full_mj"] / MJ_PER_KWH
            rest[:2] = [amount(full_kwh, 3), carbon(row["full_carbon_g"]), amount(row["full_cost"])]
        rows.append([*words, total, *(grouped(row[f"{a}_mj"] / MJ_PER_KWH, 3) for a in accounts), *rest])
    more = statement.rows.height - MOST_ROWS
    note = f'<p class="soft">… and {grouped(more)} more in the CSV and JSON.</p>' if more > 0 else ""
    note += f'<p class="soft">{escape(statement.full_cost_line)}</p>' if full else ""
    return f"<h2>By {escape(statement.by)}</h2>" + table(heads, rows, len(keys)) + note


def _quality(statement: Statement) -> str:
    """Return what the reader should know of the meters and of jobs that came to nothing."""
    found = [
        [escape(r["kind"]), grouped(r["count"]), grouped(r["meters"]), grouped(r["energy_mj"] / MJ_PER_KWH, 3)]
        for r in statement.findings.iter_rows(named=True)
    ]
    out = "<h2>Data quality</h2>"
    out += (
        table(["Finding", "Count", "Meters", "kWh booked over it"], found)
        if found
        else "<p>Nothing was found amiss.</p>"
    )
    for line in (statement.restless_line, statement.by_count_line, statement.lost_line):
        out += f"<p>{escape(line)}</p>" if line else ""
    if statement.failed.height:
        rows = [[escape(s), grouped(n), grouped(e / MJ_PER_KWH, 3)] for s, n, e in statement.failed.iter_rows()]
        out += "<h2>Jobs without a result</h2>" + table(["State", "Jobs", "kWh"], rows)
    if statement.embodied_g:
        rows = [[escape(a), carbon(g)] for a, g in sorted(statement.embodied_g.items(), reverse=True)]
        out += "<h2>Embodied carbon of the hardware over this time</h2>" + table(["Account", "CO2e"], rows)
        out += '<p class="soft">Amortised in a straight line over each device\'s life; never added to the carbon above.</p>'
    return out


def _made(statement: Statement) -> str:
    """Return how the numbers were made."""
    lines = []
    for info in statement.signals:
        lines.append(f"{escape(info.kind)}: <b>{escape(info.id)}</b> [{escape(info.unit)}] {escape(source(info))}")
    lines.append(
        "Energy is kept in whole millijoules; carbon and cost are ∫ signal dE, read at the signal's own steps."
    )
    lines.append("Held idle is energy of a held GPU while it did not work; unaccounted is what meters disagree about.")
    lines.append(BANDS)
    lines.append("Tables: " + ", ".join(f"{escape(t)} v{v}" for t, v in statement.versions.items()))
    span = f"[{iso(statement.period.start_ms)}, {iso(statement.period.end_ms)})"
    return (
        f"<h2>How these numbers were made</h2><ul>{''.join(f'<li>{x}</li>' for x in lines)}<li>Span {span}.</li></ul>"
    )
