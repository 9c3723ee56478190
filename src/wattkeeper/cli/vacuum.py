"""`wattkeeper vacuum`: give back the disk that replaced files take."""

from __future__ import annotations

from pathlib import Path

import typer

from wattkeeper.cli import common


def vacuum(
    book: Path = common.BOOK,
    keep_days: float = typer.Option(
        30.0,
        min=0.0,
        help="Days whose versions can still be opened afterwards. 0 only where nothing else uses the book.",
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would go, and delete nothing."),
    json: bool = common.JSON,
) -> None:
    """Delete files that later versions have replaced, and the log of the versions that needed them.

    Readings, jobs and the ledger stay as they are now. Nothing else deletes anything of a book.

    Example: wattkeeper vacuum --book mybook --keep-days 90 --dry-run
    """
    files, size = common.open_book(book).vacuum(keep_days, dry_run=dry_run)
    if json:
        common.print_json({"files": files, "bytes": size, "dry_run": dry_run})
        return
    from wattkeeper.report.words import count, grouped

    done = "Would delete" if dry_run else "Deleted"
    typer.echo(f"{done} {count(files, 'file')}, {grouped(size / 2**20, 1)} MiB.")
