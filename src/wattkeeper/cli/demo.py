"""`wattkeeper demo`: a simulated week, from files to a balanced statement."""

from __future__ import annotations

import shutil
from pathlib import Path

import typer

from wattkeeper.cli import common


def demo(
    book: Path = typer.Option(Path("demo-book"), "--book", "-b", help="Directory of the new book; made anew."),
    html: Path = typer.Option(Path("demo-report.html"), "--html", help="Where the report goes."),
    seed: int = typer.Option(1, help="Another seed makes another week."),
) -> None:
    """Simulate a 16-node, 128-GPU cluster over a week with all that goes wrong, and print its statement.

    The week is written as files and imported the way real ones are; they stay beside the book, in demo-book-files/.

    Example: wattkeeper demo
    """
    from wattkeeper import demo as week
    from wattkeeper import loop
    from wattkeeper.cli.imports import source_of
    from wattkeeper.core.errors import BookError
    from wattkeeper.lake.book import Book
    from wattkeeper.report.charts import altair, converter
    from wattkeeper.report.html import write_html
    from wattkeeper.report.terminal import render
    from wattkeeper.report.words import count

    altair(), converter()  # without them the page cannot be made: say so before the work, not after it
    files_root = book.with_name(f"{book.name}-files")
    if book.exists():
        if not (book / "state.sqlite").exists():
            raise BookError(f"{book} exists and is not a book. Choose another directory with --book.")
        shutil.rmtree(book)
    with common.progress("simulating a week"):
        files = week.write(files_root, seed=seed)
    opened = Book.create(book, files.site_file.read_text("utf-8"))
    with common.progress("importing") as told:
        for at, (what, path) in enumerate(files.imports, 1):
            _, refused = loop.take(opened, source_of(opened, what, path), common.now_ms())
            told(path.name, at, len(files.imports))
            for r in refused:
                typer.echo(f"  {r.source}:{r.row}: {r.reason}", err=True)
    with common.progress("attributing (the first run compiles its kernels)") as told:
        done = loop.attribute(opened, progress=told)
    balance = loop.check(opened)
    made = loop.statement(opened, by="user")
    common.console().print(render(made))
    write_html(made, html)
    typer.echo(
        f"\n{count(done.readings, 'reading')} became {count(done.postings, 'posting')}; "
        f"{count(balance.compared, 'meter-hour')} compared, "
        f"largest difference {balance.largest_mj} mJ.\n"
        f"Report: {html}   Book: {book}   Its input: {files_root}\n"
        f"Go on with: wattkeeper statement --book {book} --by job, wattkeeper job 1001 --book {book}"
    )
    if balance.largest_mj:
        raise typer.Exit(common.UNBALANCED)
