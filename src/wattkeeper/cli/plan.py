"""`wattkeeper plan`: where and when the jobs of a queue should run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.planning import Outlook


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
    figure: Path | None = common.PAGE,
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
    from wattkeeper.plan.problem import Weights

    if figure is not None:
        common.check_figure(figure)
    if previous and polish:
        common.misused("--polish moves jobs that --previous keeps. Use one of them.")
    grid = common.slots(start, hours, slot)
    held, drawn_kw = common.numbers(gpus, "--gpus"), common.numbers(power, "--power")
    opened = common.open_book(book)
    with common.progress("planning") as told, common.given(queue) as source:
        found = planning.outlook(
            opened,
            source,
            grid=grid,
            weights=Weights(money_g=money, water_g_per_l=water, delay_g_per_gpu_h=delay, fairness_g=fairness),
            gpus=held,
            power_kw=drawn_kw,
            limits=planning.read_limits(limits) if limits else (),
            confidence=confidence / 100,
            before=planning.read_previous(previous) if previous else None,
            polish_s=polish,
            progress=told,
        )
        if figure is not None:
            told("drawing", 0, 0)
            planning.write_figure(found, f"Plan of {source.name}", figure)
    if figure is not None:
        typer.echo(f"Wrote {figure}.", err=True)
    if json:
        common.print_json(planning.to_json(found))
    else:
        _show(found, most)
    if found.rejects or any(line.planned is None for line in found.lines):
        raise typer.Exit(common.REFUSED)


def _show(found: Outlook, most: int) -> None:
    from wattkeeper.planning import page

    out = common.console()
    out.print(f"Plan of {page.span_of(found)}", style="bold")
    if found.lines:
        _summary(found)
    else:
        out.print("Nothing to plan: no job of the queue that could be read waits for GPUs.")
    for line in page.sources(found, brief=True):
        out.print(line, style="dim")
    out.print()
    if len(found.users) > 1:
        out.print(common.table(page.USERS, page.users(found)[:most]))
        if len(found.users) > most:
            out.print(f"… and {len(found.users) - most} more users; --most or --json shows them.", style="dim")
        out.print()
    if found.lines:
        _jobs(found, most)
    for line in page.not_planned(found):
        out.print(line, style="red")


def _summary(found: Outlook) -> None:
    """Print the sums, the bound, and what became of an earlier plan."""
    from wattkeeper.planning import page
    from wattkeeper.report.words import duration

    out = common.console()
    out.print(common.table(page.totals_heads(found), page.totals(found)))
    if found.made.unplaced:
        out.print(page.bound_line(found), style="bold red")
    else:
        out.print(page.bound_line(found))
    if found.saved.jobs:
        mean = duration(found.saved.delay_h / found.saved.jobs)
        out.print(f"A job ends {mean} later than run now in the mean; saved is over jobs that have a place in both.")
    if any(line.was for line in found.lines):
        counts = {was: sum(line.was == was for line in found.lines) for was in ("kept", "moved", "new")}
        out.print(
            "Beside the previous plan: {kept} jobs keep their place, {moved} move, {new} are new.".format(**counts)
        )


_NARROW = ("Job", "Site", "Starts UTC", "Ends UTC", "Power", "Saves", "Delay", "Why")
"""What is told of a job in 80 columns; a wider terminal has all columns."""

_WIDE, _WHOLE = 110, 150
"""Columns of a terminal from which on all columns are shown, and all reasons."""


def _jobs(found: Outlook, most: int) -> None:
    """Print the jobs that save most. Names are cut in their middle so that a job stays on its line."""
    from wattkeeper.planning import page
    from wattkeeper.report.words import short

    out = common.console()
    wide = out.width >= _WIDE
    names = page.JOBS if wide else _NARROW
    rows = []
    for line in page.placed(found)[:most]:
        form = "%a %H:%M" if not wide and found.grid.end_ms - found.grid.start_ms <= 6 * 86_400_000 else "%d %b %H:%M"
        cells = dict(zip(page.JOBS, page.cells(found, line, form), strict=True))
        cells["Job"] = short(cells["Job"], 30 if wide else 18)
        if not wide:
            cells["Site"] = cells["Site"].replace(" → ", "→")
        if out.width < _WHOLE:
            cells["Why"] = _rest(cells["Why"])
        rows.append([cells[name] for name in names])
    out.print(common.table(names, rows, page.TEXT, fold={"Why"}))
    if len(page.placed(found)) > most:
        out.print(f"… and {len(page.placed(found)) - most} more; --most or --json shows them.", style="dim")


def _rest(why: str) -> str:
    """Return in few words the reasons that no other column shows; all of them where that is none."""
    parts = why.replace("suspended (", "").replace("pieces)", "pieces").split(", ")
    left = [p for p in parts if p not in {"other site", "lower power"}]
    return ", ".join(left) if left else why.replace("other ", "").replace("lower ", "")
