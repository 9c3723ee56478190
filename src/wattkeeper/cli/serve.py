"""`wattkeeper serve`: a book on the network."""

from __future__ import annotations

from pathlib import Path

import typer


def serve(
    book: Path = typer.Argument(Path(), envvar="WATTKEEPER_BOOK", help="The book's directory."),
    ingest: bool = typer.Option(
        True,
        help="Take readings: batches of agents and scripts, and Prometheus remote write. Without it only health and "
        "metrics are answered, and what agents on this machine journal is folded.",
    ),
    listen: str = typer.Option("127.0.0.1:8470", help="Address and port; [::]:8470 for IPv6."),
    token_file: Path | None = typer.Option(
        None, help="File with tokens, one a line, that may send beside those of `wattkeeper token`."
    ),
    fold_every: float = typer.Option(
        60.0, min=0.1, help="Seconds from one fold of the journal into the book to the next."
    ),
    max_body: float = typer.Option(32.0, min=0.001, help="Largest body of a request [MiB], as sent and as unpacked."),
    cert: Path | None = typer.Option(None, help="Certificate for TLS (PEM)."),
    key: Path | None = typer.Option(None, help="Its private key (PEM)."),
) -> None:
    """Serve a book: take readings from agents, scripts and Prometheus over HTTP, and fold them into it.

    What is acknowledged is safe on disk. Stops on SIGTERM or Ctrl-C, after folding what it has into the book.

    Example: wattkeeper serve mybook --ingest --listen 0.0.0.0:8470 --token-file /etc/wattkeeper/tokens
    """
    from wattkeeper.server.serve import Settings, serve

    host, port = _parted(listen)
    settings = Settings(host, port, ingest, token_file, fold_every, round(max_body * 2**20), cert, key)
    serve(book, settings, lambda words: typer.echo(words, err=True))


def _parted(listen: str) -> tuple[str, int]:
    """Return address and port. Raises ConfigError."""
    from wattkeeper.core.errors import ConfigError

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"'{listen}' is not an address to listen on. Write 127.0.0.1:8470.")
    return host.strip("[]"), int(port)
