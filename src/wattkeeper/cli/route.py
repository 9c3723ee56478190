"""`wattkeeper route`: which site and which model variant should answer the requests of an inference service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.routing import Routed


def route(
    service: Path = typer.Argument(..., help="Service file (TOML): variants, origins, and a quality floor."),
    book: Path = common.BOOK,
    start: str | None = typer.Option(None, "--from", help="First instant. Default: the next full slot."),
    hours: float = typer.Option(24.0, min=0.01, help="How far ahead [h]."),
    slot: int = typer.Option(60, min=1, help="Length of a slot [min]."),
    gpus: list[str] = typer.Option([], help="SITE=N: GPUs that the service may hold. Default: all of the site."),
    requests: Path | None = typer.Option(
        None, help="CSV: time, origin, requests_per_h; in place of the service file's."
    ),
    money: float = typer.Option(0.0, min=0.0, help="What a unit of money is worth [g CO2e]."),
    figure: Path | None = common.PAGE,
    json: bool = common.JSON,
) -> None:
    """Split the requests of a service among sites and model variants, hour by hour.

    Least carbon (and money) under each site's GPUs, each origin's latency limit and the quality floor. Prints a lower
    bound that no split can be below, and what is saved against the nearest site with the best variant. Requests that
    cannot be served are told with the reason, nothing is then saved, and the exit code is 3. Needs the extra `polish`.

    Example: wattkeeper route service.toml --book mybook --hours 24 --gpus fra=64 --gpus sto=32 --figure routes.html
    """
    from wattkeeper import routing
    from wattkeeper.plan.problem import Weights

    grid, held = common.slots(start, hours, slot), common.numbers(gpus, "--gpus")
    if figure is not None:
        common.check_figure(figure)
    with common.progress("routing") as told:
        told("reading", 0, 0)
        found = routing.routed(
            common.open_book(book),
            service,
            grid=grid,
            weights=Weights(money_g=money),
            gpus=held,
            requests=requests,
        )
        if figure is not None:
            told("drawing", 0, 0)
            _write(found, f"Routes of {service.name}", figure)
    if figure is not None:
        typer.echo(f"Wrote {figure}.", err=True)
    if json:
        common.print_json(routing.to_json(found))
    else:
        _show(found, routing.to_json(found))
    if found.planned.unserved.any():
        raise typer.Exit(common.REFUSED)


SHOWN = 20
"""Hours with unserved requests that are named at most; --json has all."""


def _show(found: Routed, told: dict[str, Any]) -> None:
    out = common.console()
    out.print(_span(told), style="bold")
    out.print(common.table(_heads(told), _totals(told)))
    out.print(common.table(*_shares(told)))
    for line in _words(told):
        out.print(line, style="bold red" if told["unserved"] else "")
    out.print()
    names, rows, left = _slots(found)
    out.print(common.table(("Slot UTC", *names), rows[:SLOTS]))
    if left:
        out.print(f"Others: {', '.join(left)}, each under 1 % in all.", style="dim")
    if len(rows) > SLOTS:
        out.print(f"… and {len(rows) - SLOTS} more slots; --json has all.", style="dim")
    for line in _unserved(told):
        out.print(line, style="red")
    for site, infos in told["signals"].items():
        out.print(f"{site}: intensity {infos['intensity']['id']}" if "intensity" in infos else site, style="dim")


SLOTS = 48
"""Slots that the terminal and the page show."""


def _span(told: dict[str, Any]) -> str:
    from wattkeeper.report.words import minute

    return f"Routes from {minute(told['start'])} to {minute(told['end'])} UTC, slots of {told['slot_min']:g} min"


def _heads(told: dict[str, Any]) -> tuple[str, ...]:
    return ("", "Requests", "kWh", "CO2e", "g/1000", f"Cost {told['currency'] or ''}".strip(), "GPU h", "Quality")


def _totals(told: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the usual split, the planned one, and what is saved where both serve all."""
    from wattkeeper.report.words import amount, carbon, grouped, percent

    rows: list[tuple[str, ...]] = []
    for name in ("usual", "planned"):
        one = told[name]
        each = 1000 * one["carbon_g"] / one["requests"] if one["requests"] else None
        rows.append((
            name, grouped(one["requests"]), grouped(one["energy_kwh"], 1), carbon(one["carbon_g"]), amount(each, 1),
            amount(one["cost"]), grouped(one["gpu_h"], 1), amount(one["quality"], 3),
        ))  # fmt: skip
    if told["saving"] is not None:
        usual, planned = told["usual"], told["planned"]
        less = {k: usual[k] - planned[k] for k in ("energy_kwh", "carbon_g", "gpu_h")}
        cost = None if usual["cost"] is None else usual["cost"] - planned["cost"]
        rows.append((
            f"saved {percent(told['saving'])}", "", grouped(less["energy_kwh"], 1), carbon(less["carbon_g"]), "",
            amount(cost), grouped(less["gpu_h"], 1), "",
        ))  # fmt: skip
    return rows


def _shares(told: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return heads and rows: the part of all requests that each site and each variant answers."""
    from wattkeeper.report.words import percent

    parts = {part: list(told["planned"][part]) for part in ("sites", "variants")}
    names = [*parts["sites"], *parts["variants"]]
    rows = [
        (name, *(percent(told[name][part][one], 0) for part in ("sites", "variants") for one in parts[part]))
        for name in ("usual", "planned")
    ]
    return ("Share of", *names), rows


def _words(told: dict[str, Any]) -> list[str]:
    """Return in sentences what is saved and how good a split can be."""
    from wattkeeper.report.words import carbon, percent

    if told["unserved"]:
        return ["No saving and no gap are stated: not every request is served."]
    saved = (
        f"Saves {percent(told['saving'])} of the carbon of the usual split: {told['counterfactual']}."
        if told["saving"] is not None
        else "The usual split does not serve all requests, so no saving is stated."
    )
    above = "" if told["gap"] is None else f" this one is {percent(told['gap'], 2)} above."
    return [saved, f"No split can be below {carbon(told['bound_weighed_g'])} weighed;{above}"]


def _unserved(told: dict[str, Any]) -> list[str]:
    """Return in sentences which requests are not served, and why."""
    from wattkeeper.report.words import grouped, minute

    lines = [
        f"{minute(one['start'])}: {grouped(one['requests'])} requests of {one['origin']} are not served: {one['why']}."
        for one in told["unserved"][:SHOWN]
    ]
    more = len(told["unserved"]) - SHOWN
    return [*lines, f"… and {more} more; --json has all."] if more > 0 else lines


def _slots(found: Routed) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
    """Return names of site and variant, their share in each slot, and the names that are left out as too small."""
    import numpy as np

    from wattkeeper.core.clock import iso
    from wattkeeper.report.words import minute

    made, grid = found.planned, found.grid
    names = [f"{s.id} {v.name}" for s in found.sites for v in found.service.variants]
    place = made.site * len(found.service.variants) + made.variant
    sums = np.zeros((grid.slots, len(names)))
    np.add.at(sums, (made.slot, place), made.requests)
    whole = np.maximum(sums.sum(1, keepdims=True), 1e-300)
    used = [int(i) for i in np.flatnonzero(sums.any(0))]
    shown = [i for i in used if sums[:, i].sum() >= 0.01 * sums.sum()]
    rows = [
        (minute(iso(grid.at_ms(t)))[5:], *(f"{sums[t, i] / whole[t, 0]:.0%}" for i in shown)) for t in range(grid.slots)
    ]
    return [names[i] for i in shown], rows, [names[i] for i in used if i not in shown]


def _write(found: Routed, title: str, path: Path) -> None:
    from html import escape

    from wattkeeper import routing
    from wattkeeper.report import charts, routed
    from wattkeeper.report.page import cards, chart, listed, page, plain_table
    from wattkeeper.report.words import amount, carbon, grouped, percent

    told, rows = routing.to_json(found), routing.chart_rows(found)
    if path.suffix != ".html":
        charts.write_figure(routed.figure(*rows, title, [_span(told), *_words(told)]), path)
        return
    planned = told["planned"]
    lost = sum(one["requests"] for one in told["unserved"])
    names, slots, _ = _slots(found)
    sources = [
        f"{site}: {kind} {info['id']}" for site, infos in told["signals"].items() for kind, info in infos.items()
    ]
    body = [
        f'<h1>{escape(title)}</h1><p class="soft">{escape(_span(told))}</p><p>{escape(" ".join(_words(told)))}</p>',
        cards([
            ("Saved carbon", percent(told["saving"]), "of the usual split"),
            ("Carbon", carbon(planned["carbon_g"]), f"usual: {carbon(told['usual']['carbon_g'])}"),
            ("Above the bound", percent(told["gap"], 2), "no split can be below it"),
            ("Quality, mean", amount(planned["quality"], 3), f"floor {found.service.quality:g}"),
            ("Requests answered", grouped(planned["requests"]), f"{grouped(lost)} are not" if lost else "all"),
        ]),
        "<h2>Who answers when</h2>", chart("route", about=" ".join(_words(told))),
        *(["<h2>Not served</h2>", listed(_unserved(told))] if lost else []),
        "<h2>Totals</h2>", plain_table(_heads(told), _totals(told)), plain_table(*_shares(told)),
        "<h2>Share by slot</h2>", plain_table(("Slot UTC", *names), slots[:SLOTS]),
        "<h2>How this was made</h2>",
        listed([f"Usual split: {told['counterfactual']}.", *sources]),
    ]  # fmt: skip
    path.write_text(page(title, "".join(body), {"route": routed.figure(*rows)}), "utf-8")
