"""What commands share: the book they work on, progress, and how they print."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

if TYPE_CHECKING:
    from rich.table import Table

    from wattkeeper.attribution import Progress as Told
    from wattkeeper.lake.book import Book
    from wattkeeper.plan.problem import Grid

BOOK = typer.Option(Path(), "--book", "-b", envvar="WATTKEEPER_BOOK", help="The book's directory.")
JSON = typer.Option(False, "--json", help="Print JSON for scripts.")
PAGE = typer.Option(
    None, "--figure", "--html", help="Write it here: a page (.html) that opens offline, or the figure (.svg, .png)."
)

_MOST_SLOTS = 1_000_000

REFUSED, UNBALANCED = 3, 4
"""Exit codes of a command that is done but has something to say."""


def console() -> Console:
    """Return a console for standard output."""
    return Console(highlight=False, soft_wrap=False)


def open_book(path: Path) -> Book:
    """Open a book; a long wait for another process that writes to it is told on standard error. Raises BookError where
    there is none."""
    from wattkeeper.lake.book import Book

    return Book(path, lambda words: typer.echo(words, err=True))


def print_json(data: Any) -> None:
    """Print a value as indented JSON."""
    json.dump(data, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def write_figure(spec: dict[str, Any], path: Path) -> None:
    """Write a figure, and say on standard error where it is. Raises ConfigError for an ending that is no figure's."""
    from wattkeeper.report import charts

    charts.write_figure(spec, path)
    typer.echo(f"Wrote {path}.", err=True)


def check_figure(path: Path) -> None:
    """Raise ConfigError for a figure that cannot be written, before the work is done."""
    from wattkeeper.report import charts

    charts.check_figure(path)
    charts.altair(), charts.converter()


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], text: Collection[str] = (), fold: Collection[str] = ()
) -> Table:
    """Return a table: numbers stand right; the first column and those of the heads in text left. Cells stay on their line,
    cut where they must be, but for those of the heads in fold."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for i, name in enumerate(heads):
        side: Literal["left", "right"] = "left" if not i or name in text else "right"
        folds = name in fold
        found.add_column(name, justify=side, no_wrap=not folds, overflow="fold" if folds else "ellipsis")
    for row in rows:
        found.add_row(*(Text(cell) for cell in row))
    return found


def misused(what: str) -> NoReturn:
    """End the command as wrongly used: one line, exit code 2."""
    from typer import BadParameter

    raise BadParameter(what)


@contextmanager
def usage() -> Iterator[None]:
    """Tell what is wrong with an option's words as wrong usage."""
    from wattkeeper.core.errors import ConfigError

    try:
        yield
    except ConfigError as error:
        misused(str(error))


def check_period(period: str | None) -> str | None:
    """Return a period that can be read; anything else is wrong usage. For options, as their callback."""
    from wattkeeper.core.clock import period_days

    if period is not None:
        with usage():
            period_days(period)
    return period


def reading(quantity: str, value: int) -> str:
    """Return a meter's value as people read it."""
    from wattkeeper.report.words import grouped

    if quantity == "power":
        return f"{grouped(value / 1000, 1)} W"
    if quantity == "utilisation":
        return f"{value / 10_000:.0f} %"
    return f"{grouped(value / 3_600_000_000, 3)} kWh"


def slots(start: str | None, hours: float, slot_min: int) -> Grid:
    """Return the slots of a time ahead, by default from the next full one on; too many of them are wrong usage."""
    from wattkeeper.plan.problem import Grid

    if hours * 60 / slot_min > _MOST_SLOTS:
        misused(f"--hours {hours:g} is over {_MOST_SLOTS:,} slots of {slot_min} min. Plan fewer or longer ones.")
    slot_ms = slot_min * 60_000
    start_ms = time_ms(start) if start else -(-now_ms() // slot_ms) * slot_ms
    return Grid(start_ms, slot_ms, max(int(hours * 60 // slot_min), 1))


def numbers(words: Sequence[str], option: str, of: str = "SITE") -> dict[str, float]:
    """Read options such as SITE=NUMBER, of numbers of at least 0; anything else is wrong usage."""
    found = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            misused(f"{option} {word} cannot be read. Write {option} {of}=NUMBER.")
        if not 0 <= found[name] < float("inf"):
            misused(f"{option} {word} cannot be. Give a number of at least 0.")
    return found


def now_ms() -> int:
    """Return the time."""
    return time.time_ns() // 1_000_000


@contextmanager
def progress(what: str) -> Iterator[Told]:
    """Show a progress bar on standard error while work goes on; yields what the work calls to tell how far it is."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    shown = Console(stderr=True)
    with Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def told(step: str, done: int, total: int) -> None:
            bar.update(task, description=f"{what}: {step}", completed=done, total=total or None)

        yield told


@contextmanager
def given(path: Path) -> Iterator[Path]:
    """Give a file that can be read more than once: the path, or what stands on standard input where that is -."""
    from wattkeeper.core.errors import ImportFileError

    if path != Path("-"):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "standard input"
        with copy.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        try:
            yield copy
        except ImportFileError as error:
            raise ImportFileError(str(error).replace(str(copy), copy.name)) from error


def time_ms(text: str) -> int:
    """Return an ISO 8601 time, UTC where it has no offset, as milliseconds; anything else is wrong usage."""
    from datetime import UTC, datetime

    from wattkeeper.core.clock import to_ms

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        misused(f"'{text}' is not a time. Write 2026-10-01 or 2026-10-01T12:00.")
    return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
