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
    site: list[str] = typer.Option([], help="A site; may be given again. Default: all of the book."),
    period: str | None = typer.Option(None, help="Jobs of the book that began in it: 2026-10, 2026-W41, 2026-10-07 …"),
    move: str | None = typer.Option(
        None,
        help="KWH:MIN: let the book's jobs run at any of the sites; what moving one's data takes, 0:0 for nothing.",
    ),
    gpus: list[str] = typer.Option([], help="[SITE=]N: GPUs that are there. Default: all of the site."),
    signal: list[str] = typer.Option([], help="[SITE=]ID: another intensity than the site's: had it stood elsewhere."),
    policy: list[str] = typer.Option(
        [], help="Only these: run now, cleanest site, lowest window, wait awhile, threshold, elastic, planner …"
    ),
    forecast: str = typer.Option("perfect", help="perfect; ridge, our own; day-before; or the id of an imported one."),
    error: float = typer.Option(
        0.0, min=0.0, max=10.0, help="Gaussian error of a perfect forecast, over the mean: 0.05."
    ),
    seed: int = typer.Option(0, help="Of that error."),
    slack: float = typer.Option(
        24.0, min=0.0, max=87600.0, help="How much later a job without a deadline may end [h]."
    ),
    slot: int = typer.Option(60, min=1, max=1440, help="Length of a slot [min]."),
    suspendable: bool = typer.Option(False, "--suspendable", help="Let every job be suspended and resumed."),
    resume_min: float = typer.Option(
        0.0, min=0.0, max=10000.0, help="What each resume takes, where a job does not say [min]."
    ),
    resume_kwh: float = typer.Option(0.0, min=0.0, max=1e6, help="The same [kWh]."),
    idle: float = typer.Option(
        0.0, min=0.0, max=1e5, help="Power of a GPU that nobody holds, which no policy saves [W]."
    ),
    money: float = typer.Option(0.0, min=0.0, help="What a unit of money is worth [g CO2e]."),
    delay: float = typer.Option(0.0, min=0.0, help="What an hour of delay of one GPU is worth [g CO2e]."),
    html: Path | None = typer.Option(None, help="Write a page here that opens offline."),
    json: bool = common.JSON,
) -> None:
    """Run a history of jobs again under policies, on the sites' GPUs and against their signals.

    Shows carbon, cost, delay, missed deadlines and jobs without a place, beside running now and beside the plan that
    knew everything in advance; no plan can be below its bound. No policy plans beyond the end of the signals. Jobs that
    no policy could run are named, and the exit code is then 3.

    Example: wattkeeper backtest --book mybook --period 2026-10 --slack 12 --forecast day-before --html october.html
    """
    from wattkeeper import backtesting, histories, questions
    from wattkeeper.plan.problem import Weights

    opened = common.open_book(book)
    chosen = [one.id for one in histories.sites_named(opened, site)]
    if history is not None:
        jobs, rejects = histories.read_history(history)
    else:
        span = questions.span_ms(opened, period)
        jobs, rejects = histories.book_history(opened, chosen, *span, _move(move))
    setting = backtesting.Setting(
        slot_ms=slot * 60_000, slack_ms=round(slack * 3_600_000), weights=Weights(money_g=money, delay_g_per_gpu_h=delay),
        forecast=forecast, error=error, seed=seed, idle_w=idle, suspendable=suspendable,
        resume_ms=round(resume_min * 60_000), resume_kwh=resume_kwh,
    )  # fmt: skip
    with common.progress("running again") as told:
        found = backtesting.backtest(
            opened, chosen, jobs, setting=setting, names=policy, gpus=_counts(gpus, chosen),
            signals=_by_site(signal, chosen, "--signal"), rejects=rejects, progress=told,
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


MOST_GPUS = 10_000_000


def _by_site(words: list[str], sites: list[str], option: str) -> dict[str, str]:
    """Read [SITE=]WORD options; a word alone is of the only site."""
    found = {}
    for word in words:
        name, sign, value = word.rpartition("=")
        if not sign and len(sites) > 1:
            common.misused(f"{option} {word}: say of which site, such as {option} {sites[0]}={word}.")
        found[name if sign else sites[0]] = value
    return found


def _counts(words: list[str], sites: list[str]) -> dict[str, float]:
    found = {}
    for name, count in _by_site(words, sites, "--gpus").items():
        if not count.isdecimal() or not 0 < int(count) <= MOST_GPUS:
            common.misused(f"--gpus {count}: give a whole number of 1 to {MOST_GPUS}, such as --gpus {name}=128.")
        found[name] = float(count)
    return found


def _move(words: str | None) -> tuple[float, int] | None:
    """Read KWH:MIN as energy [kWh] and time [ms]."""
    if words is None:
        return None
    try:
        kwh, minutes = (float(part) for part in words.split(":"))
    except ValueError:
        kwh = minutes = -1.0
    if not (0 <= kwh < float("inf") and 0 <= minutes < float("inf")):
        common.misused(f"--move {words}: write KWH:MIN, two numbers of at least 0, such as 0.5:10.")
    return kwh, round(minutes * 60_000)


SHOWN = 10
"""Jobs that are named at most where they could not be run again; --json has all."""


def _header(found: Backtest) -> tuple[str, ...]:
    moved = ("Moved",) if len(found.stages) > 1 else ()
    return ("Policy", "CO2e", "Saved", "Cost", "Wait h", "p95", "p99", "Late", "Left", *moved, "Regret", "Bound")


def _cells(found: Backtest, row: Row) -> tuple[str, ...]:
    from wattkeeper.report.words import amount, carbon, percent

    best = found.rows[-1].weighed_g
    return (
        row.policy, carbon(row.carbon_g), percent(row.saving), amount(row.cost, 0),
        *(amount(h, 1) for h in (row.delay_mean_h, row.delay_p95_h, row.delay_p99_h)),
        str(row.missed), str(row.unplaced), *((str(row.moved),) if len(found.stages) > 1 else ()),
        percent(None if row.regret_g is None or best <= 0 else row.regret_g / best), percent(row.above_bound),
    )  # fmt: skip


def _words(found: Backtest) -> list[str]:
    from wattkeeper.backtesting import COUNTERFACTUAL
    from wattkeeper.core.clock import iso
    from wattkeeper.report.words import count, grouped

    setting = found.setting
    seen = setting.forecast if not setting.error else f"with an error of {setting.error:.0%}"
    where = ", ".join(f"{one.gpus} GPUs of {one.site}" for one in found.stages)
    signals = []
    for info in dict.fromkeys(one.signal for one in found.stages):
        method = ", ".join(filter(None, (info.provider, info.method)))
        signals.append(f"{info.id}{f' ({method})' if method else ''}")
    words = [
        f"{grouped(found.jobs)} jobs from {iso(found.grid.start_ms)} to {iso(found.known_ms)} on {where}, in slots of "
        f"{found.grid.slot_ms // 60_000} min; forecast: {seen}.",
        f"Intensity: {'; '.join(signals)}. Energy is that of the jobs"
        + (f" above {setting.idle_w:g} W of an idle GPU." if setting.idle_w else ", idle GPUs not counted."),
        *(
            [
                f"Without a deadline: {grouped(found.undated)} of the jobs; it is assumed that each may end "
                f"{setting.slack_ms / 3_600_000:g} h later than it could (--slack)."
            ]
            if found.undated
            else []
        ),
        f"Saved is against run now: {COUNTERFACTUAL}.",
        "Wait is how much later jobs end than on an empty cluster. Late: ended after the deadline. Left: did not end; then "
        "nothing is saved. Regret is the weighed cost above that of the clairvoyant plan, which whoever is late can be below; "
        "Bound is the cost above what no plan can be below, told where no deadline was missed that the plan keeps.",
    ]
    after_kwh = max(row.after_kwh for row in found.rows)
    if found.cut or after_kwh:
        words.insert(
            1,
            f"The signals end {iso(found.known_ms)}, and no policy may plan beyond: {count(found.cut, 'deadline')} moved up "
            f"to it. What the queue pushes past it (at most {grouped(after_kwh, 1)} kWh) is weighed with the mean until then.",
        )
    if len(found.stages) > 1:
        words.append(
            "Moved: jobs that ran away from their own site. The rows 'at home' move none: what they save is by time alone, "
            "what 'cleanest site' saves by place alone."
        )
    return words


def _show(found: Backtest) -> None:
    out = common.console()
    words = _words(found)
    out.print(words[0], style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in _header(found):
        table.add_column(name, justify="left" if name == "Policy" else "right", overflow="fold")
    for row in found.rows:
        table.add_row(*_cells(found, row))
    out.print(table)
    for line in words[1:]:
        out.print(line, style="dim")
    left = [f"{name}: {why}." for name, why in found.skipped.items()]
    left += [f"{f'row {reject.row}: ' if reject.row else ''}{reject.reason}." for reject in found.rejects]
    for line in left[:SHOWN]:
        out.print(line, style="red")
    if len(left) > SHOWN:
        out.print(f"… and {len(left) - SHOWN} more; --json names all.", style="red")


def _write(found: Backtest, path: Path) -> None:
    from wattkeeper.report.backtested import figure, page
    from wattkeeper.report.charts import svg_of

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
    title = f"Back-test of {', '.join(one.site for one in found.stages)}"
    table = [_cells(found, row) for row in found.rows]
    path.write_text(page(title, _words(found), _header(found), table, svg_of(spec)), "utf-8")
