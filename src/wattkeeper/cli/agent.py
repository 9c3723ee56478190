"""`wattkeeper agent`: read meters live, and find out which there are."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.agent.look import Seen

app = typer.Typer(no_args_is_help=True, invoke_without_command=True)

CONFIG = typer.Option(
    ..., "--config", "-c", envvar="WATTKEEPER_CONFIG", help="Site file (TOML) with [agent] and [[agent.NAME]]."
)
MAYBE = typer.Option(
    None, "--config", "-c", envvar="WATTKEEPER_CONFIG",
    help="Site file (TOML) with [agent] tables. Left out: what this machine may have is tried.",
)  # fmt: skip


@app.callback()
def agent(
    context: typer.Context,
    config: Path | None = typer.Option(None, "--config", "-c", help="Site file; without a command, the same as run."),
) -> None:
    """Read power meters of this machine, or of many from one place.

    Example: wattkeeper agent --config site.toml
    """
    if context.invoked_subcommand is None and config is not None:
        run(config, once=False, json=False)
    elif config is not None:
        raise typer.BadParameter(f"--config goes behind {context.invoked_subcommand}.")


@app.command("run")
def run(
    config: Path = CONFIG,
    once: bool = typer.Option(False, "--once", help="Read each device once, write, send, and stop."),
    json: bool = typer.Option(False, "--json", help="At the end, print what was done as JSON."),
) -> None:
    """Read every device of the site file until told to stop (SIGTERM); keep the readings in a book or send them.

    One line on standard error for each change of state. With --once the exit code is 3 where a device failed.

    Example: wattkeeper agent run --config site.toml
    """
    from wattkeeper.agent.build import build
    from wattkeeper.agent.run import Agent, log_to_stderr
    from wattkeeper.config import load_agent

    log_to_stderr()
    file = load_agent(config)
    agent = Agent(file, build(file.agent))
    done = asyncio.run(agent.once() if once else agent.run())
    if json:
        common.print_json(asdict(done))
    elif once:
        typer.echo(f"Read {done.devices} devices: {done.readings} readings, {len(done.faults)} faults.")
    if once and done.faults:
        raise typer.Exit(common.REFUSED)


@app.command("discover")
def discover(
    source: str = typer.Argument("", help="Integration to try, such as snmp. Left out: what this machine may have."),
    address: str = typer.Argument("", help="Where it is: a host or a URL."),
    settings: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="A further key of its table, as in the site file; repeatable."
    ),
    book: Path | None = typer.Option(None, "--book", "-b", help="Book for the site file that is printed."),
    url: str = typer.Option("", help="Server for the site file that is printed, instead of a book."),
    config: Path | None = MAYBE,
    json: bool = common.JSON,
) -> None:
    """Show what can be read, with its value now, and print a site file that reads it.

    Example: wattkeeper agent discover snmp pdu-a1.mgmt --set community=read --set asset=rack-a1
    """
    from wattkeeper.agent.look import asked, look, planned, snippet
    from wattkeeper.config import load_agent
    from wattkeeper.core.sysfs import this_node

    table = None
    if source:
        devices, table = asked(source, address, settings)
        seen = asyncio.run(look(devices))
    else:
        devices, missing = planned(load_agent(config) if config else None)
        seen = [*asyncio.run(look(devices)), *missing]
    here = [s for s in seen if s.found.meters]
    if json:
        common.print_json([_as_json(s) for s in seen])
        return
    out = common.console()
    if here:
        out.print(_table(here))
    for one in here:
        for doubt in one.found.doubts:
            out.print(f"! {doubt}", markup=False)
    for one in seen:
        if one not in here:
            out.print(f"not here: {one.fault or f'{one.name} has no meter'}", markup=False, style="dim")
    if source or not config:
        keep = {"book": str(book)} if book else {"url": url} if url else {}
        out.print()
        out.print(snippet(seen, this_node(), keep=keep, table=table), markup=False, soft_wrap=True, highlight=False)


def _table(seen: list[Seen]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Asset", "Model", "Reports", "Now", "Source", "Rank"):
        table.add_column(name, justify="right" if name in {"Now", "Rank"} else "left", overflow="fold")
    for one in seen:
        models, values = {a.id: a.model for a in one.found.assets}, one.values()
        for meter in one.found.meters:
            value = values.get(meter.id)
            now = common.reading(meter.quantity, value.value) if value else "–"
            what = meter.quantity.replace("energy_", "")
            table.add_row(
                escape(meter.asset), escape(models.get(meter.asset, "")), what, now, meter.source, str(meter.rank)
            )
    return table


def _as_json(one: Seen) -> dict[str, object]:
    values = one.values()
    return {
        "integration": one.kind,
        "device": one.name,
        "fault": one.fault or None,
        "assets": [asdict(a) for a in one.found.assets],
        "meters": [{**asdict(m), "value": values[m.id].value if m.id in values else None} for m in one.found.meters],
        "doubts": one.found.doubts,
    }
