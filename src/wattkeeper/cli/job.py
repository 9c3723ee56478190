"""`wattkeeper job`: one job's energy, asset by asset."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from wattkeeper.cli import common


def job(
    job_id: str = typer.Argument(..., help="The job's id."),
    book: Path = common.BOOK,
    json: bool = common.JSON,
) -> None:
    """Show what one job drew, on which assets, with its carbon and cost, and how sure that is.

    Example: wattkeeper job 1001 --book mybook
    """
    from wattkeeper import loop
    from wattkeeper.core.clock import iso
    from wattkeeper.core.units import MJ_PER_KWH
    from wattkeeper.report.words import amount, carbon, energy, grouped, percent

    found = loop.job(common.open_book(book), job_id)
    if json:
        common.print_json({**found.facts, "assets": found.assets.to_dicts()})
        return
    facts = found.facts
    out = common.console()
    out.print(f"Job {job_id}  {facts['name'] or ''}  {facts['user'] or ''}  {facts['state'] or ''}", style="bold")
    if facts["start_ms"] is None:
        out.print("Its scheduler's record was not imported.", style="dim")
    else:
        end = iso(facts["end_ms"]) if facts["end_ms"] else "now"
        out.print(f"{iso(facts['start_ms'])} to {end}", style="dim")
    out.print(
        f"{energy(facts['energy_mj'])} ± {grouped(facts['uncertainty_mj'] / MJ_PER_KWH, 3)} kWh, "
        f"{carbon(facts['carbon_g'])} CO2e, {amount(facts['cost'])}; "
        f"covered {percent(facts['coverage'])}, of it held idle {energy(facts['held_idle_mj'])}"
    )
    if facts["embodied_g"] is not None:
        out.print(f"Making the hardware it held emitted {carbon(facts['embodied_g'])}, for that time.", style="dim")
    if facts["scheduler_energy_j"] is not None:
        out.print(f"The scheduler itself says {energy(facts['scheduler_energy_j'] * 1000)}.", style="dim")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Asset", "Account", "kWh", "Hours", "Mean W", "Covered"):
        table.add_column(name, justify="left" if name in {"Asset", "Account"} else "right")
    for row in found.assets.iter_rows(named=True):
        hours = row["held_ms"] / 3_600_000
        watts = row["energy_mj"] / row["held_ms"] if row["held_ms"] else 0.0
        coverage = row["covered_ms"] / row["held_ms"] if row["held_ms"] else None
        table.add_row(
            row["asset"], row["account"].replace("_", " "), grouped(row["energy_mj"] / MJ_PER_KWH, 3),
            f"{hours:,.2f}", f"{watts:,.0f}", percent(coverage),
        )  # fmt: skip
    out.print(table)
