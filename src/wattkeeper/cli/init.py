"""`wattkeeper init`: make a book."""

from __future__ import annotations

from pathlib import Path

import typer

STARTER = """# The site file of this book. Every option: docs/reference/site-file.md
name = "My cluster"

[[site]]
id = "site-a"
timezone = "{timezone}"
# zone = "DE-LU"                    # grid zone
# intensity = "intensity:DE-LU"     # an imported signal, a number [g/kWh], or "average:DE"
# price = 0.25                      # per kWh, or an imported signal
# pue = 1.3                         # where no facility meter stands on the site

# [[nodes]]
# names = "n[01-16]"
# parent = "site-a"
# gpus = 8
"""


def init(
    book: Path = typer.Argument(..., help="Directory of the new book."),
    site_file: Path | None = typer.Option(None, "--site-file", "-s", help="Site file (TOML) to start with."),
    timezone: str = typer.Option("UTC", help="Time zone of the starter site file."),
) -> None:
    """Make an empty book with a site file.

    Example: wattkeeper init mybook --site-file site.toml
    """
    from wattkeeper.config import text_of
    from wattkeeper.lake.book import Book

    Book.create(book, text_of(site_file) if site_file else STARTER.format(timezone=timezone))
    typer.echo(f"Made book {book}. Its site file is {book / 'site.toml'}.")
