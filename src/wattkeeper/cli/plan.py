"""`wattkeeper plan`: where and when the jobs of a queue should run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.plan.placement import Placement
    from wattkeeper.planning import Line, Outlook, Totals

_MOST_SLOTS = 1_000_000


def plan(
    queue: Path = typer.Argument(
        ...,
        help="CSV or Parquet: job_id, gpus, duration_h, power_w, and more; or what squeue, sacct or kubectl print. "
        "- reads standard input. See below.",
    ),
    book: Path = common.BOOK,
    start: str | None = typer.Option(None, "--from", help="First instant planned. Default: the next full slot."),
    hours: float = typer.Option(96.0, min=0.01, help="How far ahead to plan [h]."),
    slot: int = typer.Option(60, min=1, help="Length of a slot [min]."),
    gpus: list[str] = typer.Option([], help="SITE=N: GPUs that the jobs may hold. Default: all of the site."),
    power: list[str] = typer.Option([], help="SITE=KW: facility power that the jobs may draw [kW]."),
    limits: Path | None = typer.Option(None, help="CSV: site, start, end, gpus, power_kw; such limits over time."),
    money: float = typer.Option(0.0, min=0.0, help="What a unit of money is worth [g CO2e]."),
    water: float = typer.Option(0.0, min=0.0, help="What a litre of water is worth [g CO2e]."),
    delay: float = typer.Option(1.0, min=0.0, help="What an hour of delay of one GPU is worth [g CO2e]."),
    fairness: float = typer.Option(
        1.0, min=0.0, help="What each hour that a user's GPUs wait on average adds to that worth [g CO2e]."
    ),
    confidence: float = typer.Option(
        90.0, min=0.1, max=100.0, help="Chance of keeping a deadline where a duration is uncertain [%]."
    ),
    previous: Path | None = typer.Option(
        None, help="What plan --json printed before: jobs keep their place where they can."
    ),
    polish: float = typer.Option(0.0, min=0.0, help="Seconds that HiGHS may polish a plan of up to 2000 jobs."),
    figure: Path | None = typer.Option(None, help="Write the figure here: .svg, .png, or .html that opens offline."),
    most: int = typer.Option(20, help="Jobs that the terminal shows, those that save most first."),
    json: bool = common.JSON,
) -> None:
    """Say for each job of a queue where, when and at which power to run it, and what that saves.

    Prints the totals beside those of running now, and a lower bound that no plan can be below. Nothing is acted upon.
    The queue may also have: release, deadline (ISO 8601), tier (critical, deadline, elastic), sites (a;b:KWH:MINUTES
    where data must be moved), levels (cap levels, SLOWDOWN@POWER such as 1.06@0.8;1.25@0.7), suspendable (yes, no),
    resume_min, resume_kwh, delay_weight, user, duration_quantiles (PERCENT@HOURS such as 50@2;90@5.5; duration_h is then
    the longest), confidence_pct, profile (HOURS@WATTS of one GPU such as 0.5@300;2@700), curve (watts of a GPU @
    throughput, in place of levels).

    The queue may also be what a scheduler prints: `squeue --json`, `sacct --json`, their text parted by |, or
    `kubectl get workloads,jobs,pods -A` with -o json or -o yaml. Jobs that wait are planned, and say such wishes in
    their comment or annotations; those that run keep their GPUs.

    Jobs that cannot be planned are named and the exit code is then 3.

    Example: squeue --json | wattkeeper plan - --book mybook

    Example: wattkeeper plan queue.csv --book mybook --hours 48 --money 500 --figure plan.html
    """
    from wattkeeper import planning
    from wattkeeper.plan.problem import Grid, Weights

    if previous and polish:
        common.misused("--polish moves jobs that --previous keeps. Use one of them.")
    if hours * 60 / slot > _MOST_SLOTS:
        common.misused(f"--hours {hours:g} is over {_MOST_SLOTS:,} slots of {slot} min. Plan fewer or longer ones.")
    slot_ms = slot * 60_000
    start_ms = common.time_ms(start) if start else -(-common.now_ms() // slot_ms) * slot_ms
    with common.usage():
        held, drawn_kw = planning.parse_by_site(gpus, "--gpus"), planning.parse_by_site(power, "--power")
    opened = common.open_book(book)
    with common.progress("planning"), common.given(queue) as source:
        found = planning.outlook(
            opened,
            source,
            grid=Grid(start_ms, slot_ms, max(int(hours * 60 // slot), 1)),
            weights=Weights(money_g=money, water_g_per_l=water, delay_g_per_gpu_h=delay, fairness_g=fairness),
            gpus=held,
            power_kw=drawn_kw,
            limits=planning.read_limits(limits) if limits else (),
            confidence=confidence / 100,
            before=planning.read_previous(previous) if previous else None,
            polish_s=polish,
        )
    if figure is not None:
        from wattkeeper.report.planned import figure as draw

        common.write_figure(draw(*planning.chart_rows(found)), figure)
    if json:
        common.print_json(planning.to_json(found))
    else:
        _show(found, most)
    if found.rejects or any(line.planned is None for line in found.lines):
        raise typer.Exit(common.REFUSED)


def _show(found: Outlook, most: int) -> None:
    from wattkeeper.core.clock import iso

    out = common.console()
    out.print(f"Plan from {iso(found.grid.start_ms)} to {iso(found.grid.end_ms)}", style="bold")
    if found.lines:
        _summary(found)
    else:
        out.print("Nothing to plan: no job of the queue that could be read waits for GPUs.")
    for note in found.notes:
        out.print(f"{note}.", style="dim")
    out.print()
    if len(found.users) > 1:
        out.print(_users(found, most))
        out.print()
    if found.lines:
        out.print(_jobs(found, most))
    for line in (x for x in found.lines if x.planned is None):
        out.print(f"{line.job}: {line.why}.", style="red")
    for reject in found.rejects:
        named = f"{reject.text} (row {reject.row})" if reject.text else f"row {reject.row}"
        out.print(f"{named}: {reject.reason}.", style="red")


def _summary(found: Outlook) -> None:
    """Print the sums, the bound, and which signals they are made of."""
    from wattkeeper.report.words import carbon, percent

    out = common.console()
    out.print(_totals(found))
    if found.made.unplaced:
        out.print("No gap is stated: not every job has a place.", style="bold red")
    elif found.gap is None:
        out.print(f"No plan can be below {carbon(found.bound_g)} weighed. A bound that is not above 0 states no gap.")
    else:
        out.print(f"No plan can be below {carbon(found.bound_g)} weighed; this one is {percent(found.gap, 2)} above.")
    if any(line.was for line in found.lines):
        counts = {was: sum(line.was == was for line in found.lines) for was in ("kept", "moved", "new")}
        out.print(
            "Beside the previous plan: {kept} jobs keep their place, {moved} move, {new} are new.".format(**counts)
        )
    for site, infos in found.signals.items():
        told = ", ".join(filter(None, (infos["intensity"].provider, infos["intensity"].method)))
        out.print(f"{site}: intensity {infos['intensity'].id}{f' ({told})' if told else ''}", style="dim")
        for kind in ("intensity forecast", "price forecast"):
            if kind in infos:
                out.print(f"{site}: {kind} {infos[kind].id} ({infos[kind].version})", style="dim")


def _totals(found: Outlook) -> Table:
    from wattkeeper.report.words import amount, carbon, grouped

    table = Table(box=None, pad_edge=False, header_style="bold")
    units = {infos["price"].unit.partition("/")[0] for infos in found.signals.values() if "price" in infos}
    cost = " + ".join(sorted(units)) or "Cost"
    for name in ("", "Jobs", "kWh", "CO2e", cost, "Delay h", "Weighed"):
        table.add_column(name, justify="right" if name else "left")

    def add(name: str, one: Totals) -> None:
        table.add_row(
            name, str(one.jobs), grouped(one.energy_kwh, 1), carbon(one.carbon_g), amount(one.cost),
            grouped(one.delay_h, 1), carbon(one.weighed_g),
        )  # fmt: skip

    add("run now", found.now)
    add("planned", found.planned)
    return table


def _users(found: Outlook, most: int) -> Table:
    from wattkeeper.report.words import amount, carbon, grouped

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("User", "Jobs", "GPUs", "Saves", "Saves money", "Mean delay", "Run now"):
        table.add_column(name, justify="left" if name == "User" else "right", overflow="fold")
    for one in found.users[:most]:
        table.add_row(
            one.user, str(one.jobs), grouped(one.gpus, 0), carbon(one.saved_g), amount(one.saved_cost),
            f"{one.delay_h:.1f} h", f"{one.delay_now_h:.1f} h",
        )  # fmt: skip
    if len(found.users) > most:
        table.caption = f"… and {len(found.users) - most} more users; --most or --json shows them."
    return table


def _jobs(found: Outlook, most: int) -> Table:
    from wattkeeper.planning import powers_of

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Job", "Site", "From UTC", "To UTC", "Power", "Saves", "Later", "Why"):
        table.add_column(name, justify="right" if name in {"Power", "Saves", "Later"} else "left", overflow="fold")
    powers = powers_of(found)
    placed = sorted(((x, x.planned) for x in found.lines if x.planned), key=lambda x: -(x[0].saved_g or 0.0))
    for line, planned in placed[:most]:
        table.add_row(*_cells(found, line, planned, powers[line.job][planned.level]))
    if len(placed) > most:
        table.caption = f"… and {len(placed) - most} more; --most or --json shows them."
    return table


def _cells(found: Outlook, line: Line, planned: Placement, power: float) -> tuple[str, ...]:
    from datetime import UTC, datetime

    from wattkeeper.report.words import carbon

    grid = found.grid
    ends = (planned.slots[0][0], planned.slots[-1][1])
    begin, end = (f"{datetime.fromtimestamp(grid.at_ms(t) / 1000, UTC):%a %d %H:%M}" for t in ends)
    later = "–" if line.delay_h is None else f"{line.delay_h:.1f} h"
    why = f"{line.why} (moved)" if line.was == "moved" else line.why
    return line.job, planned.site, begin, end, f"{power:.0%}", carbon(line.saved_g), later, why
