"""`wattkeeper route`: which site and which model variant should answer the requests of an inference service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.routing import Routed


def route(
    service: Path = typer.Argument(..., help="Service file (TOML): variants, origins, and a quality floor."),
    book: Path = common.BOOK,
    start: str | None = typer.Option(None, "--from", help="First instant. Default: the next full slot."),
    hours: float = typer.Option(24.0, min=0.01, max=87600.0, help="How far ahead [h]."),
    slot: int = typer.Option(60, min=1, help="Length of a slot [min]."),
    gpus: list[str] = typer.Option([], help="SITE=N: GPUs that the service may hold. Default: all of the site."),
    requests: Path | None = typer.Option(
        None, help="CSV: time, origin, requests_per_h; in place of the service file's."
    ),
    money: float = typer.Option(0.0, min=0.0, help="What a unit of money is worth [g CO2e]."),
    json: bool = common.JSON,
) -> None:
    """Split the requests of a service among sites and model variants, hour by hour.

    Least carbon (and money) under each site's GPUs, each origin's latency limit and the quality floor. Prints a lower
    bound that no split can be below, and what is saved against the nearest site with the best variant. Requests that
    cannot be served are told with the reason, nothing is then saved, and the exit code is 3. Needs the extra `polish`.

    Example: wattkeeper route service.toml --book mybook --hours 24 --gpus fra=64 --gpus sto=32
    """
    from wattkeeper import planning, routing
    from wattkeeper.plan.problem import Grid, Weights

    slot_ms = slot * 60_000
    start_ms = common.time_ms(start) if start else -(-common.now_ms() // slot_ms) * slot_ms
    found = routing.routed(
        common.open_book(book),
        service,
        grid=Grid(start_ms, slot_ms, max(int(hours * 60 // slot), 1)),
        weights=Weights(money_g=money),
        gpus=planning.parse_by_site(gpus, "--gpus"),
        requests=requests,
    )
    if json:
        common.print_json(routing.to_json(found))
    else:
        _show(found, routing.to_json(found))
    if found.planned.unserved.any():
        raise typer.Exit(common.REFUSED)


SHOWN = 20
"""Hours with unserved requests that are named at most; --json has all."""


def _show(found: Routed, told: dict[str, Any]) -> None:
    from wattkeeper.report.words import carbon, grouped, percent

    out = common.console()
    out.print(f"Routes from {told['start']} to {told['end']}", style="bold")
    out.print(_totals(told))
    for part in ("sites", "variants"):
        out.print(", ".join(f"{name} {percent(share, 0)}" for name, share in told["planned"][part].items()))
    if told["unserved"]:
        out.print("No saving and no gap are stated: not every request is served.", style="bold red")
    else:
        out.print(
            f"Saves {percent(told['saving'])} of the carbon of the usual split: {told['counterfactual']}."
            if told["saving"] is not None
            else "The usual split does not serve all requests, so no saving is stated."
        )
        above = "" if told["gap"] is None else f" this one is {percent(told['gap'], 2)} above."
        out.print(f"No split can be below {carbon(told['bound_weighed_g'])} weighed;{above}")
    out.print()
    out.print(_slots(found))
    for one in told["unserved"][:SHOWN]:
        lost = f"{grouped(one['requests'])} requests of {one['origin']} are not served: {one['why']}."
        out.print(f"{one['start']}: {lost}", style="red")
    if len(told["unserved"]) > SHOWN:
        out.print(f"… and {len(told['unserved']) - SHOWN} more; --json names all.", style="red")
    for site, infos in told["signals"].items():
        out.print(f"{site}: intensity {infos['intensity']['id']}" if "intensity" in infos else site, style="dim")


def _totals(told: dict[str, Any]) -> Table:
    from wattkeeper.report.words import amount, carbon, grouped

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "Requests", "kWh", "CO2e", "Cost", "GPU h", "Quality"):
        table.add_column(name, justify="right" if name else "left")
    for name in ("usual", "planned"):
        one = told[name]
        table.add_row(
            name, grouped(one["requests"]), grouped(one["energy_kwh"], 1), carbon(one["carbon_g"]), amount(one["cost"]),
            grouped(one["gpu_h"], 1), amount(one["quality"], 3),
        )  # fmt: skip
    return table


def _slots(found: Routed) -> Table:
    """Return the share of each site and variant by slot."""
    import numpy as np

    from wattkeeper.core.clock import iso

    made, grid = found.planned, found.grid
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Slot")
    names = [f"{s.id} {v.name}" for s in found.sites for v in found.service.variants]
    place = made.site * len(found.service.variants) + made.variant
    sums = np.zeros((grid.slots, len(names)))
    np.add.at(sums, (made.slot, place), made.requests)
    used = np.flatnonzero(sums.any(0))
    for i in used:
        table.add_column(names[int(i)], justify="right", overflow="fold")
    for t in range(min(grid.slots, 48)):
        whole = max(float(sums[t].sum()), 1e-300)
        table.add_row(iso(grid.at_ms(t))[5:16], *(f"{sums[t, i] / whole:.0%}" for i in used))
    return table
