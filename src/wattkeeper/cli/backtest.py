"""`wattkeeper backtest`: what a history of jobs would have come to under other policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.backtesting import Backtest, Row


def backtest(
    history: Path | None = typer.Argument(
        None, help="CSV or Parquet, as for plan, with a release. Default: the book's jobs."
    ),
    book: Path = common.BOOK,
    site: str | None = typer.Option(None, help="The site. Default: the only one."),
    period: str | None = typer.Option(None, help="Jobs of the book that began in it: 2026-10, 2026-W41, 2026-10-07 …"),
    gpus: int | None = typer.Option(None, min=1, help="GPUs of the cluster. Default: all of the site."),
    signal: str | None = typer.Option(None, help="Another intensity than the site's, by id: had it stood elsewhere."),
    policy: list[str] = typer.Option(
        [], help="Only these: run now, lowest window, wait awhile, threshold, elastic, planner."
    ),
    forecast: str = typer.Option("perfect", help="perfect; ridge, our own; day-before; or the id of an imported one."),
    error: float = typer.Option(0.0, min=0.0, help="Gaussian error of a perfect forecast, over the mean: 0.05."),
    seed: int = typer.Option(0, help="Of that error."),
    slack: float = typer.Option(24.0, min=0.0, help="How much later a job without a deadline may end [h]."),
    slot: int = typer.Option(60, min=1, help="Length of a slot [min]."),
    suspendable: bool = typer.Option(False, "--suspendable", help="Let every job be suspended and resumed."),
    resume_min: float = typer.Option(0.0, min=0.0, help="What each resume takes, where a job does not say [min]."),
    resume_kwh: float = typer.Option(0.0, min=0.0, help="The same [kWh]."),
    idle: float = typer.Option(0.0, min=0.0, help="Power of a GPU that nobody holds, which no policy saves [W]."),
    money: float = typer.Option(0.0, min=0.0, help="What a unit of money is worth [g CO2e]."),
    delay: float = typer.Option(0.0, min=0.0, help="What an hour of delay of one GPU is worth [g CO2e]."),
    html: Path | None = typer.Option(None, help="Write a page here that opens offline."),
    json: bool = common.JSON,
) -> None:
    """Run a history of jobs again under policies, on the site's GPUs and against its signal.

    Shows carbon, cost, delay, missed deadlines and jobs without a place, beside running now and beside the plan that
    knew everything in advance; no plan can be below its bound. Jobs that no policy could run are named, and the exit
    code is then 3.

    Example: wattkeeper backtest --book mybook --period 2026-10 --slack 12 --forecast day-before --html october.html
    """
    from wattkeeper import backtesting, questions
    from wattkeeper.plan.problem import Weights

    opened = common.open_book(book)
    if history is not None:
        jobs, rejects = backtesting.read_history(history)
    else:
        jobs, rejects = backtesting.book_history(opened, site, *questions.span_ms(opened, period))
    setting = backtesting.Setting(
        slot_ms=slot * 60_000, slack_ms=round(slack * 3_600_000), weights=Weights(money_g=money, delay_g_per_gpu_h=delay),
        forecast=forecast, error=error, seed=seed, idle_w=idle, suspendable=suspendable,
        resume_ms=round(resume_min * 60_000), resume_kwh=resume_kwh,
    )  # fmt: skip
    with common.progress("running again"):
        found = backtesting.backtest(
            opened, site, jobs, setting=setting, names=policy or backtesting.NAMES, gpus=gpus, signal=signal,
            rejects=rejects,
        )  # fmt: skip
    if html is not None:
        _write(found, html)
        typer.echo(f"Wrote {html}.", err=True)
    if json:
        common.print_json(backtesting.to_json(found))
    else:
        _show(found)
    if found.rejects or found.skipped:
        raise typer.Exit(common.REFUSED)


HEADER = ("Policy", "CO2e", "Saved", "Cost", "Wait h", "p95", "p99", "Late", "Left", "Regret", "Bound")


def _cells(found: Backtest, row: Row) -> tuple[str, ...]:
    from wattkeeper.report.words import amount, carbon, percent

    best = found.rows[-1].weighed_g
    return (
        row.policy, carbon(row.carbon_g), percent(row.saving), amount(row.cost, 0),
        *(amount(h, 1) for h in (row.delay_mean_h, row.delay_p95_h, row.delay_p99_h)),
        str(row.missed), str(row.unplaced),
        percent(None if row.regret_g is None or best <= 0 else row.regret_g / best), percent(row.above_bound),
    )  # fmt: skip


def _words(found: Backtest) -> list[str]:
    from wattkeeper.backtesting import COUNTERFACTUAL
    from wattkeeper.core.clock import iso

    setting = found.setting
    seen = setting.forecast if not setting.error else f"with an error of {setting.error:.0%}"
    method = ", ".join(filter(None, (found.signal.provider, found.signal.method)))
    return [
        f"{found.jobs} jobs from {iso(found.grid.start_ms)} to {iso(found.grid.end_ms)} on {found.gpus} GPUs of {found.site}, "
        f"in slots of {found.grid.slot_ms // 60_000} min; forecast: {seen}.",
        f"Intensity: {found.signal.id}{f' ({method})' if method else ''}. Energy is that of the jobs"
        + (f" above {setting.idle_w:g} W of an idle GPU." if setting.idle_w else ", idle GPUs not counted."),
        f"Saved is against run now: {COUNTERFACTUAL}.",
        "Wait is how much later jobs end than on an empty cluster. Late: ended after the deadline. Left: did not end; then "
        "nothing is saved. Regret is the weighed cost above that of the clairvoyant plan, which whoever is late can be below; "
        "Bound is the cost above what no plan can be below, told where no deadline was missed that the plan keeps.",
    ]


def _show(found: Backtest) -> None:
    out = common.console()
    words = _words(found)
    out.print(words[0], style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in HEADER:
        table.add_column(name, justify="left" if name == "Policy" else "right", overflow="fold")
    for row in found.rows:
        table.add_row(*_cells(found, row))
    out.print(table)
    for line in words[1:]:
        out.print(line, style="dim")
    for name, why in found.skipped.items():
        out.print(f"{name}: {why}.", style="red")
    for reject in found.rejects:
        out.print(f"{f'row {reject.row}: ' if reject.row else ''}{reject.reason}.", style="red")


def _write(found: Backtest, path: Path) -> None:
    from wattkeeper.report.backtested import figure, page, svg_of

    rows = [
        {
            "policy": r.policy, "carbon_kg": r.carbon_g / 1000, "cost": r.cost, "delay_mean_h": r.delay_mean_h,
            "delay_p95_h": r.delay_p95_h,
        }
        for r in found.rows
    ]  # fmt: skip
    weights = found.setting.weights
    alone = not (weights.money_g or weights.delay_g_per_gpu_h)
    spec = figure(rows, found.bound_g / 1000 if alone and found.bound_g > 0 else None)
    title = f"Back-test of {found.site}"
    table = [_cells(found, row) for row in found.rows]
    path.write_text(page(title, _words(found), HEADER, table, svg_of(spec)), "utf-8")
