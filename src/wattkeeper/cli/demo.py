"""`wattkeeper demo`: a simulated week, from files to a balanced statement."""

from __future__ import annotations

from pathlib import Path

import typer


def demo(
    book: Path = typer.Option(Path("demo-book"), "--book", "-b", help="Directory of the new book; made anew."),
    html: Path = typer.Option(Path("demo-report.html"), "--html", help="Where the report goes."),
) -> None:
    """Simulate a 16-node, 128-GPU cluster over a week with all that goes wrong, and print its statement.

    Example: wattkeeper demo
    """
    raise NotImplementedError
