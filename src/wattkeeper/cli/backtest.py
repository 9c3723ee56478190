"""`wattkeeper backtest`: what a history of jobs would have come to under other policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

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
    figure: Path | None = common.PAGE,
    json: bool = common.JSON,
) -> None:
    """Run a history of jobs again under policies, on the sites' GPUs and against their signals.

    Shows carbon, cost, delay, missed deadlines and jobs without a place, beside running now and beside the plan that
    knew everything in advance; no plan can be below its bound. No policy plans beyond the end of the signals. Jobs that
    no policy could run are named, and the exit code is then 3.

    Example: wattkeeper backtest --book mybook --period 2026-10 --slack 12 --forecast day-before --figure october.html
    """
    from wattkeeper import backtesting, histories, questions
    from wattkeeper.plan.problem import Weights

    if figure is not None:
        common.check_figure(figure)
    if history is not None and (period is not None or move is not None):
        common.misused(
            "--period and --move are for the book's jobs. A file names times and places itself: release, and sites such as "
            "fra;sto:2.5:30."
        )
    opened = common.open_book(book)
    chosen = [one.id for one in histories.sites_named(opened, site)]
    setting = backtesting.Setting(
        slot_ms=slot * 60_000, slack_ms=round(slack * 3_600_000), weights=Weights(money_g=money, delay_g_per_gpu_h=delay),
        forecast=forecast, error=error, seed=seed, idle_w=idle, suspendable=suspendable,
        resume_ms=round(resume_min * 60_000), resume_kwh=resume_kwh,
    )  # fmt: skip
    with common.progress("running again") as told:
        told("reading", 0, 0)
        if history is not None:
            jobs, rejects = histories.read_history(history)
        else:
            span = questions.span_ms(opened, period)
            jobs, rejects = histories.book_history(opened, chosen, *span, _move(move))
        found = backtesting.backtest(
            opened, chosen, jobs, setting=setting, names=policy, gpus=_counts(gpus, chosen),
            signals=_by_site(signal, chosen, "--signal"), rejects=rejects, progress=told,
        )  # fmt: skip
        if figure is not None:
            told("drawing", 0, 0)
            _write(found, figure)
    if figure is not None:
        typer.echo(f"Wrote {figure}.", err=True)
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

FEW = 3
"""Jobs with the same reason that are told one by one."""

MOST_LEFT = 50
"""The same on a page."""


_WIDE = 110
"""Columns of a terminal from which on delays are told in hours and minutes; below, in hours."""


def _header(found: Backtest, *, brief: bool = False) -> tuple[str, ...]:
    moved = ("Moved",) if len(found.stages) > 1 else ()
    if brief and moved:
        return ("Policy", "CO2e", "Saved", "Cost", "Wait h", "Late", "Left", *moved, "Regret", "Bound")
    cost = "Cost" if brief else f"Cost {found.currency or ''}".strip()
    wait = ("Wait h", "p95", "p99") if brief else ("Wait, mean", "95 %", "99 %")
    return ("Policy", "CO2e", "Saved", cost, *wait, "Late", "Left", *moved, "Regret", "Bound")


def _cells(found: Backtest, row: Row, *, brief: bool = False) -> tuple[str, ...]:
    from wattkeeper.report.words import amount, carbon, duration, grouped, percent

    best = found.rows[-1].weighed_g
    waits = (row.delay_mean_h, row.delay_p95_h, row.delay_p99_h)[: 1 if brief and len(found.stages) > 1 else 3]
    return (
        row.policy, carbon(row.carbon_g), percent(row.saving), amount(row.cost, 0),
        *(amount(h, 1) if brief else duration(h) for h in waits),
        grouped(row.missed), grouped(row.unplaced), *((grouped(row.moved),) if len(found.stages) > 1 else ()),
        percent(None if row.regret_g is None or best <= 0 else row.regret_g / best), percent(row.above_bound),
    )  # fmt: skip


def _words(found: Backtest) -> list[str]:
    from wattkeeper.backtesting import COUNTERFACTUAL
    from wattkeeper.core.clock import iso
    from wattkeeper.report.words import count, grouped, minute

    setting = found.setting
    seen = setting.forecast if not setting.error else f"with an error of {setting.error:.0%}"
    where = ", ".join(f"{one.gpus} GPUs of {one.site}" for one in found.stages)
    known = minute(iso(found.known_ms))
    signals = []
    for info in dict.fromkeys(one.signal for one in found.stages):
        method = ", ".join(filter(None, (info.provider, info.method)))
        signals.append(f"{info.id}{f' ({method})' if method else ''}")
    words = [
        f"{grouped(found.jobs)} jobs from {minute(iso(found.grid.start_ms))} to {known} UTC on {where}, in slots of "
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
    if left := max(row.unplaced for row in found.rows):
        words.insert(
            1,
            f"Up to {count(left, 'job')} of {grouped(found.jobs)} did not end in that time: the GPUs cannot hold them all, and "
            f"sums over fewer jobs say little beside each other. Jobs hold whole slots: take a shorter --slot than "
            f"{found.grid.slot_ms // 60_000} min where many are short, a longer --slack, or more --gpus.",
        )
    after_kwh = max(row.after_kwh for row in found.rows)
    if found.cut or after_kwh:
        words.insert(
            1,
            f"The signals end {known} UTC, and no policy may plan beyond: {count(found.cut, 'deadline')} moved "
            f"up to it. What the queue pushes past it (at most {grouped(after_kwh, 1)} kWh) is weighed with the mean until then.",
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
    brief = out.width < _WIDE
    out.print(
        common.table(
            _header(found, brief=brief), [_cells(found, row, brief=brief) for row in found.rows], fold=["Policy"]
        )
    )
    for line in words[1:]:
        out.print(line, style="dim")
    left = _left(found)
    for line in left[:SHOWN]:
        out.print(line, style="red")
    if len(left) > SHOWN:
        out.print(f"… and {len(left) - SHOWN} more; --json names all.", style="red")


def _left(found: Backtest) -> list[str]:
    """Return in words what could not be run again; many with the same reason are told as one."""
    same: dict[str, list[str]] = {}
    for name, why in found.skipped.items():
        same.setdefault(why, []).append(name)
    left = []
    for why, names in same.items():
        if len(names) > FEW:
            left.append(f"{len(names)} jobs ({', '.join(names[:3])} …): {why}.")
        else:
            left += [f"{name}: {why}." for name in names]
    return left + [f"{f'row {reject.row}: ' if reject.row else ''}{reject.reason}." for reject in found.rejects]


def _write(found: Backtest, path: Path) -> None:
    from html import escape

    from wattkeeper.report import backtested, charts
    from wattkeeper.report.page import cards, chart, listed, page, plain_table
    from wattkeeper.report.words import carbon, duration, percent

    rows = [
        backtested.Shown(r.policy, r.carbon_g, r.saving, r.cost, r.delay_mean_h, r.delay_p95_h, r.missed)
        for r in found.rows
    ]
    weights = found.setting.weights
    alone = not (weights.money_g or weights.delay_g_per_gpu_h)
    whole = not any(r.unplaced for r in found.rows)
    bound_g = found.bound_g if alone and whole and found.bound_g > 0 else None
    title, words = f"Back-test of {', '.join(one.site for one in found.stages)}", _words(found)
    if path.suffix != ".html":
        charts.write_figure(backtested.figure(rows, bound_g, found.currency, title, words[:1]), path)
        return
    told = [
        (r.policy, percent(r.saving), f"{carbon(r.carbon_g)}; jobs end {duration(r.delay_mean_h)} later in the mean")
        for r in found.rows[1:]
        if r.policy in {"planner", "clairvoyant"} or len(found.rows) <= 4
    ]
    now = ("run now", carbon(found.rows[0].carbon_g), "of the jobs, what savings are against")
    body = [
        f'<h1>{escape(title)}</h1><p class="soft">{escape(words[0])}</p>',
        cards([now, *((f"{name} saves", saves, more) for name, saves, more in told)]),
        "<h2>Policies</h2>",
        chart("backtest", about="Carbon, cost, delay and missed deadlines of each policy"),
        plain_table(_header(found), [_cells(found, row) for row in found.rows]),
        f"<h2>How to read it</h2>{listed(words[1:])}",
    ]
    if left := _left(found):
        more = [f"… and {len(left) - MOST_LEFT} more; --json names all."] if len(left) > MOST_LEFT else []
        body.append(f"<h2>Not run again</h2>{listed([*left[:MOST_LEFT], *more])}")
    path.write_text(page(title, "".join(body), {"backtest": backtested.figure(rows, bound_g, found.currency)}), "utf-8")
