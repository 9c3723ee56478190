"""`wattkeeper doctor`: what is wrong with what is measured, and what to do about it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path

import typer

from wattkeeper.cli import common
from wattkeeper.cli.agent import MAYBE

_MARKS = {
    "ok": ("ok   ", "green"),
    "absent": ("–    ", "dim"),
    "doubt": ("doubt", "yellow"),
    "fault": ("FAULT", "bold red"),
}


def doctor(
    config: Path | None = MAYBE,
    seconds: float = typer.Option(3.0, min=0.1, help="How long to watch whether counters move [s]."),
    json: bool = common.JSON,
) -> None:
    """Ask every source, and say what looks wrong: unreachable, silent, wrong unit, a counter that stands still, a
    controller that leaves out the GPUs, a clock that is off, a server that takes nothing, readings kept out of the book.

    Exit code 1 where something is missing (FAULT), 3 where numbers may be wrong (doubt), else 0.

    Example: wattkeeper doctor --config site.toml
    """
    from wattkeeper.agent.doctor import Line, examine, examine_target
    from wattkeeper.agent.look import look, planned
    from wattkeeper.config import load_agent
    from wattkeeper.core.sysfs import this_node

    file = load_agent(config) if config else None
    devices, missing = planned(file)
    seen = [*asyncio.run(look(devices, rounds=2, pause_s=seconds)), *missing]
    lines = examine(seen, optional=file is None, now_s=time.time())
    if file is not None:
        lines += examine_target(file.agent, file.agent.name or this_node())
        if (root := file.agent.book) and (root / "state.sqlite").exists():
            lines += [Line("doubt", f"book {root}", words) for words in _aside(root)]
        if not devices:
            lines.append(Line("fault", str(config), "It names nothing to read. See: wattkeeper agent discover"))
    elif not any(s.found.meters for s in seen):
        lines.append(
            Line("fault", this_node(), "Nothing here can be read. Meters elsewhere need a site file: --config.")
        )
    if json:
        common.print_json([asdict(line) for line in lines])
    else:
        out = common.console()
        for line in lines:
            mark, style = _MARKS[line.grade]
            out.print(mark, style=style, end=" ")
            said = line.text if line.text.startswith(line.subject) else f"{line.subject}: {line.text}"
            out.print(said, markup=False, soft_wrap=True)
    grades = {line.grade for line in lines}
    if grades & {"fault", "doubt"}:
        raise typer.Exit(1 if "fault" in grades else common.REFUSED)


def _aside(root: Path) -> list[str]:
    """Return what of a book's live readings is kept out of it."""
    from wattkeeper import loop

    return loop.kept_aside(common.open_book(root), common.now_ms())
