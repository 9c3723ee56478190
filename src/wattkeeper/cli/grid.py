"""`wattkeeper grid …`: carbon intensity and price of a grid zone, fetched, shown and forecast."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from wattkeeper.cli import common

if TYPE_CHECKING:
    from wattkeeper.grid.fetch import Fetched, Revision
    from wattkeeper.grid.forecast import Backtest, Forecast
    from wattkeeper.grid.series import Hourly
    from wattkeeper.lake.book import Book

app = typer.Typer(help="Carbon intensity and price of a grid zone: fetch, show, forecast.", no_args_is_help=True)

ZONE = typer.Option(..., "--zone", help="Grid zone, as its provider names it. None is ever guessed.")
KIND = typer.Option("intensity", "--kind", help="intensity or price.")
SIGNAL = typer.Option("", "--signal", help="Id of the signal, where the zone has several.")
FIGURE = typer.Option(None, "--figure", "--html", help="Write the figure here: .html that opens offline, .svg or .png.")
HOURS = typer.Option(96, min=1, max=336, help="How far ahead [h].")
TREES = typer.Option(False, "--trees", help="Also try boosted trees; needs the extra forecast, and some seconds.")
PRICES = typer.Option(
    "", "--prices", help="Id of a signal of European day-ahead prices; a model that is told them joins."
)

COLUMNS = 70
"""Columns of a chart in the terminal."""


@app.command("fetch")
def fetch(
    zone: str = ZONE,
    provider: str = typer.Option(..., help="electricitymaps, watttime, ukgrid, entsoe, eia or prometheus."),
    book: Path = common.BOOK,
    kind: str = KIND,
    start: str = typer.Option("", "--from", help="From this time (ISO 8601, UTC); needed the first time only."),
    end: str = typer.Option("", "--to", help="Up to this time. Default: what is published now."),
    again: bool = typer.Option(False, "--again", help="With --from: read again what the book has, too."),
    name: str = typer.Option("", "--as", help="Keep it under this id. Default: kind:zone:provider:boundary."),
    json: bool = common.JSON,
) -> None:
    """Fetch carbon intensity or price of a grid zone into the book.

    Goes on behind the last value; with --from only what the book lacks is asked for. Keys come from the
    environment or from key_file under [grid.PROVIDER] in the site file, and are never printed.

    Example: wattkeeper grid fetch --zone DE --provider entsoe --from 2026-01-01 --book mybook
    """
    from wattkeeper.core.clock import iso
    from wattkeeper.grid.fetch import fetch as run
    from wattkeeper.grid.fetch import publisher_of

    opened = common.open_book(book)
    publisher = publisher_of(opened, provider, zone, kind, name)
    with common.progress("fetching") as told:
        done = run(
            opened, publisher, start_ms=common.time_ms(start) if start else None,
            end_ms=common.time_ms(end) if end else None, now_ms=common.now_ms(), again=again, progress=told,
        )  # fmt: skip
    info, asked = done.info, [{"start": iso(a), "end": iso(b)} for a, b in done.asked]
    if json:
        common.print_json(
            {
                "signal": info.id, "unit": info.unit, "provider": info.provider, "version": info.version,
                "method": info.method, "asked": asked, "rows": done.rows, "estimated": done.estimated,
                "revised": [{"start": iso(r.start_ms), "old": r.old, "new": r.new} for r in done.revised],
                "refused": [r.reason for r in done.refused],
            }
        )  # fmt: skip
    else:
        told_of = ", ".join(w for w in (info.provider, info.method, info.unit) if w)
        typer.echo(f"{info.id}: {done.rows:,} values came ({told_of}).")
        for span in asked:
            typer.echo(f"  asked for {span['start']} to {span['end']}")
        for line in _happened(done):
            typer.echo(f"  {line}")
        for reject in done.refused:
            typer.echo(f"  {reject.reason}", err=True)
        if not asked:
            typer.echo("  The book has all of that time. --again, with --from, reads it again.")
        if asked and not done.rows:
            typer.echo(
                "No value came for that time; what the book has is kept. Check --zone, or run it again later.", err=True
            )
        else:
            money = f', currency = "{info.unit.partition("/")[0]}"' if info.kind == "price" and info.unit else ""
            typer.echo(f'Use it in the site file: {info.kind} = "{info.id}"{money}')
    if done.refused:
        raise typer.Exit(common.REFUSED)


def _happened(done: Fetched) -> list[str]:
    """Return what a user should know of the values that came: which are estimates, and which were others before."""
    from wattkeeper.core.clock import iso

    lines = []
    if done.estimated:
        lines.append(f"{done.estimated:,} of {done.rows:,} values are estimates of the provider")
    changed = [r for r in done.revised if r.new is not None]
    gone = [r for r in done.revised if r.new is None]
    if changed:
        one = changed[0]
        lines.append(
            f"{_values(changed)} revised, the first at {iso(one.start_ms)} from {one.old:.6g} to {one.new:.6g} "
            f"{done.info.unit}"
        )
    if gone:
        lines.append(f"{_values(gone)} withdrawn and now missing, the first at {iso(gone[0].start_ms)}")
    return lines


def _values(revised: list[Revision]) -> str:
    return f"{len(revised):,} {'value was' if len(revised) == 1 else 'values were'}"


@app.command("show")
def show(
    zone: str = ZONE,
    book: Path = common.BOOK,
    kind: str = KIND,
    signal: str = SIGNAL,
    start: str = typer.Option("", "--from", help="From this time (ISO 8601, UTC). Default: a week before the end."),
    end: str = typer.Option("", "--to", help="Up to this time. Default: the last value."),
    figure: Path | None = FIGURE,
    json: bool = common.JSON,
) -> None:
    """Show a zone's signal and the newest forecast of it, with what is missing.

    Example: wattkeeper grid show --zone DE --figure de.html --book mybook
    """
    from wattkeeper.grid.series import find_signal
    from wattkeeper.grid.show import course, read_course

    if figure is not None:
        common.check_figure(figure)
    opened = common.open_book(book)
    info = find_signal(opened, zone, kind, signal)
    found = read_course(
        opened, info, common.time_ms(start) if start else None, common.time_ms(end) if end else None
    )  # fmt: skip
    if figure is not None:
        common.write_figure(course(found), figure)
    if json:
        from wattkeeper.grid.show import to_json

        common.print_json(to_json(found))
    else:
        _draw(found.hourly, found.ahead)


def _draw(hourly: Hourly, ahead: Hourly | None, *, shown: bool = True) -> None:
    """Print the head, the chart and the gaps; shown: also that there are none."""
    from wattkeeper.core.clock import iso
    from wattkeeper.grid.show import columns
    from wattkeeper.report.signals import in_terminal
    from wattkeeper.report.words import grouped

    out, info = common.console(), hourly.info
    out.print(Text(info.id, style="bold"))
    words = (info.provider, info.version, info.method, info.note)
    out.print(Text(", ".join(w for w in words if w), style="dim"))
    values, marks, styles, hours = columns(hourly, ahead, COLUMNS)
    for line in in_terminal(values, info.unit, marks, styles):
        out.print(line)
    each = "an hour" if hours == 1 else f"{grouped(hours)} h"
    out.print(Text(f"{'':10}{iso(hourly.start_ms)} on, UTC; a column is {each}", style="dim"))
    gaps = hourly.gaps()
    lost_h = sum(b - a for a, b in gaps) / 3_600_000
    if gaps:
        out.print(f"{grouped(lost_h)} of {grouped(len(hourly.values))} h are missing:", style="red")
        for a, b in gaps[:10]:
            out.print(f"  {iso(a)} to {iso(b)}", style="red")
        if len(gaps) > 10:
            out.print(f"  … and {len(gaps) - 10} more; --json lists all.", style="red")
    elif shown:
        out.print("No value is missing.", style="dim")


@app.command("forecast")
def forecast(
    zone: str = ZONE,
    book: Path = common.BOOK,
    kind: str = KIND,
    signal: str = SIGNAL,
    hours: int = HOURS,
    levels: str = typer.Option("10,25,50,75,90", "--quantiles", help="Quantiles to keep [%], joined by commas."),
    at: str = typer.Option("", "--at", help="Issue it at this time, from what was known then. Default: now."),
    prices: str = PRICES,
    trees: bool = TREES,
    figure: Path | None = FIGURE,
    json: bool = common.JSON,
) -> None:
    """Forecast a zone's signal from its own past, with quantiles, and keep it in the book.

    A rolling back-test of the last year is made. The model that did best in its last eight weeks is used and named;
    quantiles come from all errors it made there, in the size that errors had of late. Kept as SIGNAL:forecast@TIME and,
    the newest, as SIGNAL:forecast, each with :q10 and so on.

    Example: wattkeeper grid forecast --zone DE --hours 96 --book mybook
    """
    _one_thread()
    from wattkeeper.grid.forecast import forecast as make
    from wattkeeper.grid.forecast import models_of, to_intake
    from wattkeeper.grid.series import find_signal, read_hourly
    from wattkeeper.grid.show import Course, course

    if figure is not None:
        common.check_figure(figure)
    opened = common.open_book(book)
    hourly = read_hourly(opened, find_signal(opened, zone, kind, signal))
    issued_ms = common.time_ms(at) if at else common.now_ms()
    with common.progress("judging") as told:
        made = make(
            hourly, issued_ms, hours, models=models_of(trees=trees), levels=_levels(levels),
            prices=_prices(opened, prices), progress=told,
        )  # fmt: skip
    opened.take(to_intake(made), common.now_ms())
    if figure is not None:
        from wattkeeper.grid.show import as_hourly, band

        week = read_hourly(opened, made.info, made.start_ms - 7 * 86_400_000, made.start_ms)
        common.write_figure(course(Course(week, as_hourly(made), band(made))), figure)
    if json:
        from wattkeeper.grid.show import forecast_json

        common.print_json(forecast_json(made))
    else:
        _tell(made)


def _one_thread() -> None:
    """Keep linear algebra to one thread, unless the environment says otherwise: the matrices are small.

    On busy cores its threads wait for one another many times as long as they work. To be called before numpy is imported.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _prices(book: Book, signal: str) -> Hourly | None:
    """Return the prices named, where some are. Raises ConfigError where the signal is none of prices."""
    from wattkeeper.core.errors import ConfigError
    from wattkeeper.grid.series import find_signal, read_hourly

    if not signal:
        return None
    info = find_signal(book, "", "price", signal)
    if info.kind != "price":
        raise ConfigError(f"--prices: '{signal}' is a signal of {info.kind}, not of prices.")
    return read_hourly(book, info)


def _levels(text: str) -> tuple[float, ...]:
    from wattkeeper.core.errors import ConfigError

    try:
        found = tuple(sorted({float(part) / 100 for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or found[0] <= 0 or found[-1] >= 1:
        raise ConfigError(
            f"--quantiles '{text}' cannot be read. Write percentages between 0 and 100, such as 10,50,90."
        )
    return found


def _tell(made: Forecast) -> None:
    """Print the chart, the day-by-day means and how the model was chosen."""
    from wattkeeper.core.clock import iso
    from wattkeeper.grid.show import as_hourly, daily

    _draw(as_hourly(made), None, shown=False)
    out = common.console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("from (UTC)")
    for name in ("forecast", *(f"{level * 100:g} %" for level in made.levels)):
        table.add_column(name, justify="right")
    for start_ms, values in daily(made):
        table.add_row(f"{iso(start_ms)[:13]}h", *(f"{v:,.4g}" for v in values))
    out.print(table)
    errors = ", ".join(f"{name} {error:,.4g}" for name, error in sorted(made.mae.items(), key=lambda x: x[1]))
    out.print(f"Model: {made.model}, least mean error over {made.days} days ({errors} {made.info.unit}).")
    out.print(f"Kept as {made.info.id}:forecast", style="dim")


@app.command("backtest")
def backtest(
    zone: str = ZONE,
    book: Path = common.BOOK,
    kind: str = KIND,
    signal: str = SIGNAL,
    hours: int = HOURS,
    days: int = typer.Option(180, min=7, help="Days that are scored, the last of the signal."),
    prices: str = PRICES,
    trees: bool = TREES,
    figure: Path | None = FIGURE,
    json: bool = common.JSON,
) -> None:
    """Score forecasts of a zone's signal as they would have been made, a day at a time.

    Errors by hours ahead for each model and for the one that would have been chosen on each day, beside persistence
    and, where there are any, published figures of the region; pinball loss and coverage of the quantiles.

    Example: wattkeeper grid backtest --zone DE --days 180 --figure errors.html --book mybook
    """
    _one_thread()
    from wattkeeper.grid.forecast import backtest as score
    from wattkeeper.grid.forecast import models_of
    from wattkeeper.grid.series import find_signal, read_hourly
    from wattkeeper.grid.show import backtest_json, error_rows

    if figure is not None:
        common.check_figure(figure)
    opened = common.open_book(book)
    hourly = read_hourly(opened, find_signal(opened, zone, kind, signal))
    with common.progress("scoring") as told:
        done = score(hourly, hours, days, models=models_of(trees=trees), prices=_prices(opened, prices), progress=told)
    if figure is not None:
        from wattkeeper.report.signals import errors_by_day

        rows, measure = error_rows(done)
        common.write_figure(errors_by_day(rows, measure, done.info.id), figure)
    if json:
        common.print_json(backtest_json(done))
    else:
        _scores(done)


def _scores(done: Backtest) -> None:
    from wattkeeper.core.clock import iso
    from wattkeeper.grid.show import error_rows, hour_names

    out = common.console()
    out.print(Text(f"{done.info.id}, {done.origins} forecasts from {iso(done.start_ms)} to {iso(done.end_ms)}", "bold"))
    rows, measure = error_rows(done)
    out.print(_errors(rows, hour_names(len(done.scores[0].mae)), measure))
    out.print("Chosen: " + ", ".join(f"{name} on {n} days" for name, n in done.picks.items()) + ".")
    if done.pinball is not None:
        shares = [
            f"{level * 100:g} %: {'–' if c is None else f'{c * 100:.1f} %'}"
            for level, c in zip(done.levels, done.coverage, strict=True)
        ]
        out.print(
            f"Quantiles: pinball loss {done.pinball:.4g} {done.info.unit}; values below the quantile of "
            + ", ".join(shares)
        )
    if done.published:
        out.print(
            "CarbonCast: published by its authors for the region, other years and factors, with weather.", style="dim"
        )


def _errors(rows: list[dict[str, Any]], names: list[str], measure: str) -> Table:
    form = ".2f" if measure.endswith("[%]") else ".4g"
    table = Table(box=None, pad_edge=False, header_style="bold", title=measure, title_justify="left")
    table.add_column("hours ahead")
    for name in names:
        table.add_column(name, justify="right")
    for model in dict.fromkeys(r["model"] for r in rows):
        cells = {r["hours"]: r["error"] for r in rows if r["model"] == model}
        table.add_row(model, *("–" if cells.get(n) is None else f"{cells[n]:{form}}" for n in names))
    return table
