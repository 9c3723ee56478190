"""`wattkeeper top`: watts now, by site, rack, node and GPU."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wattkeeper.cli import common
from wattkeeper.cli.agent import MAYBE
from wattkeeper.core.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from wattkeeper.agent.watts import Now, Row
    from wattkeeper.lake.book import Book

BAR = 12
JOBS = 8
"""Jobs that a screen shows, those that draw most."""

STYLES = {"site": "bold", "hall": "bold", "rack": "bold cyan", "node": "bold"}

PATIENCE_S = 0.5
ONCE_PATIENCE_S = 20.0
"""How long a look waits for a slow device: on a screen what comes later is shown later, a single look has no later."""

Refresh = Callable[[float], Awaitable[None]]
Close = Callable[[], Awaitable[None]]


def top(
    config: Path | None = MAYBE,
    book: Path | None = typer.Option(
        None, "--book", "-b", help="Show the newest readings of this book; with --config, its jobs and grid only."
    ),
    once: bool = typer.Option(False, "--once", help="Print one table and stop."),
    seconds: float = typer.Option(1.0, min=0.2, help="Time between two looks [s]."),
    depth: int = typer.Option(
        9, min=0, help="Show so many levels: 0 sites or nodes at the top, 1 what stands in them …"
    ),
    json: bool = typer.Option(False, "--json", help="Print one look as JSON and stop."),
) -> None:
    """Show watts and utilisation of each asset, refreshed each second: of this machine, of a site file's devices, or of
    a book. Jobs and the grid's carbon intensity are those of the book, the site file's own where it has one. Stop with Ctrl-C.

    A single look (--once, --json) at which nothing tells its power has exit code 1.

    Example: wattkeeper top --once
    """
    from wattkeeper.agent.watts import Now, to_json

    now = Now()
    with suppress(KeyboardInterrupt):
        rows = asyncio.run(_watch(now, config, book, seconds, once=once or json, depth=depth, quiet=json))
        if json:
            common.print_json(to_json(rows, now))
        if all(row.power_w is None for row in rows):
            raise typer.Exit(1)


async def _watch(
    now: Now, config: Path | None, book: Path | None, seconds: float, *, once: bool, depth: int, quiet: bool
) -> list[Row]:
    faults: list[str] = []
    devices = config is not None or book is None
    refresh, close = await (_from_devices(now, config, book, faults) if devices else _from_book(now, book))
    try:
        await refresh(ONCE_PATIENCE_S if once else PATIENCE_S)
        if once:
            if devices:  # a counter tells watts from its second reading on
                await asyncio.sleep(seconds)
                await refresh(ONCE_PATIENCE_S)
            rows = _deep(now.rows(common.now_ms()), depth)
            if not quiet:
                common.console().print(_screen(now, rows, faults, 10**6))
            return rows + now.jobs(now.rows(common.now_ms()))
        if not config and not book:
            await refresh(ONCE_PATIENCE_S)
            if not now.rows(common.now_ms()):
                raise SourceError(
                    "Nothing here tells its power. See why: wattkeeper doctor. Or name a --config or --book."
                )
        out = common.console()
        with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
            while True:
                rows = _deep(now.rows(common.now_ms()), depth)
                live.update(_screen(now, rows, faults, out.height), refresh=True)
                await asyncio.sleep(seconds)
                await refresh(PATIENCE_S)
    finally:
        await close()


async def _from_devices(now: Now, config: Path | None, book: Path | None, faults: list[str]) -> tuple[Refresh, Close]:
    """Return what reads the devices anew, and what closes them; those that are slow or fail hold up no other.

    Jobs and the grid are those of a book: the one that is named, else the one that the site file keeps readings in.
    """
    from wattkeeper.agent.look import planned
    from wattkeeper.agent.top import Watched
    from wattkeeper.config import load_agent

    file = load_agent(config) if config else None
    devices, _missing = planned(file)
    if file is not None and not devices:
        raise ConfigError(f"{config} names nothing to read. See: wattkeeper agent discover")
    watched = [Watched(one, now) for one in devices]
    if file is not None and file.site:
        now.know(file.assets().assets.values(), [])
    kept = book or (file.agent.book if file is not None else None)
    around = _around(now, common.open_book(kept)) if kept and (book or (kept / "state.sqlite").exists()) else None

    async def refresh(patience_s: float) -> None:
        await asyncio.gather(*(w.look(patience_s) for w in watched))
        if around is not None:
            await around()
        faults[:] = [w.fault for w in watched if w.fault] if file is not None else []

    async def close() -> None:
        await asyncio.gather(*(w.close() for w in watched))

    return refresh, close


async def _from_book(now: Now, book: Path | None) -> tuple[Refresh, Close]:
    """Return what reads the newest readings of a book, and nothing to close."""
    from wattkeeper import latest

    opened = common.open_book(book or Path())
    seen, around = latest.Latest(opened), _around(now, opened)

    async def refresh(_patience_s: float) -> None:
        found, samples = await asyncio.to_thread(seen.look, common.now_ms())
        now.know(found.assets, found.meters)
        now.take(samples)
        now.stale_ms = None if samples else await asyncio.to_thread(seen.newest_ms)
        await around()

    async def close() -> None:
        pass

    return refresh, close


def _around(now: Now, book: Book) -> Callable[[], Awaitable[None]]:
    """Return what asks a book for the sites, for who holds what, and for how clean the grid is."""
    from wattkeeper import latest
    from wattkeeper.agent.watts import Holding

    async def ask() -> None:
        now_ms = common.now_ms()
        now.know(book.tree().assets.values(), [])
        now.holdings = [Holding(*h) for h in await asyncio.to_thread(latest.holdings, book, now_ms)]
        now.intensity_g_per_kwh = await asyncio.to_thread(latest.intensities, book, now_ms)

    return ask


def _deep(rows: list[Row], depth: int) -> list[Row]:
    return [r for r in rows if r.depth <= depth]


def _screen(now: Now, rows: list[Row], faults: list[str], height: int) -> Group:
    """Return the tables of assets and of jobs and the sites' carbon, cut to a screen's height."""
    every = now.rows(common.now_ms())
    jobs, carbon = now.jobs(every), _carbon(now, every)
    shown = jobs[:JOBS]
    room = max(height - 4 - len(faults) - len(carbon) - (len(shown) + 2 if jobs else 0), 3)
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("Asset", overflow="ellipsis", no_wrap=True, max_width=34)
    table.add_column("Watts", justify="right", no_wrap=True)
    table.add_column("Busy", justify="left", no_wrap=True)
    table.add_column("Source", overflow="ellipsis", no_wrap=True, max_width=14)
    for row in rows[:room]:
        table.add_row(*_cells(row), style=STYLES.get(row.kind, ""))
    lines: list[Table | Text] = [table]
    if not rows:
        lines.append(Text("Nothing tells its power. See: wattkeeper doctor"))
    if len(rows) > room:
        lines.append(Text(f"… {len(rows) - room} more; see --depth, or a taller window", style="dim"))
    if jobs:
        by_job = Table(box=None, pad_edge=False, header_style="bold")
        by_job.add_column("Job", overflow="ellipsis", no_wrap=True, max_width=34)
        by_job.add_column("Watts", justify="right", no_wrap=True)
        for job in shown:
            by_job.add_row(Text(job.asset), Text(f"{job.power_w:,.0f}"))
        if len(jobs) > len(shown):
            by_job.add_row(Text(f"… {len(jobs) - len(shown)} more", style="dim"), Text(""))
        lines += [Text(), by_job]
    lines += carbon
    lines += [Text(f"! {fault}", style="yellow", overflow="ellipsis", no_wrap=True) for fault in faults]
    if now.stale_ms is not None:
        lines.append(Text(_age(now.stale_ms, common.now_ms()), "yellow"))
    lines.append(Text(time.strftime("%Y-%m-%d %H:%M:%S %Z"), style="dim"))
    return Group(*lines)


def _age(newest_ms: int, now_ms: int) -> str:
    """Return how old the book's newest reading is, in words."""
    from wattkeeper.core.clock import iso
    from wattkeeper.report.words import duration

    when = iso(newest_ms)[:16].replace("T", " ")
    return f"The book's newest reading is of {when} UTC, {duration((now_ms - newest_ms) / 3_600_000)} ago."


def _carbon(now: Now, rows: list[Row]) -> list[Text]:
    """Return a line for each site whose intensity is known."""
    from wattkeeper.report.words import carbon

    per_h = now.carbon_g_per_h(rows)
    return [
        Text(
            f"{site}: {intensity:,.0f} g CO2e/kWh" + (f", {carbon(per_h[site])} an hour" if site in per_h else ""),
            "green",
        )
        for site, intensity in now.intensity_g_per_kwh.items()
    ]


def _cells(row: Row) -> list[Text]:
    busy = ""
    if row.utilisation is not None:
        full = round(row.utilisation * BAR)
        busy = f"{'█' * full}{'·' * (BAR - full)} {row.utilisation:4.0%}"
    name = row.asset if row.depth == 0 else row.asset.rpartition("/")[2]
    watts = "–" if row.power_w is None else f"{'Σ ' if row.summed else ''}{row.power_w:,.0f}"
    return [Text("  " * row.depth + name), Text(watts), Text(busy), Text("" if row.summed else row.source)]
