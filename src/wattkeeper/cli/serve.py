"""`wattkeeper serve`: receive readings over HTTP."""

from __future__ import annotations

from pathlib import Path

import typer


def serve(
    book: Path = typer.Argument(Path(), envvar="WATTKEEPER_BOOK", help="The book's directory."),
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
    """Receive readings from agents, scripts and Prometheus over HTTP; what is acknowledged is safe on disk.

    Stops on SIGTERM or Ctrl-C, after folding what it has into the book.

    Example: wattkeeper serve mybook --listen 0.0.0.0:8470 --token-file /etc/wattkeeper/tokens
    """
    from wattkeeper.server.serve import Settings, serve

    host, port = _parted(listen)
    settings = Settings(host, port, token_file, fold_every, round(max_body * 2**20), cert, key)
    serve(book, settings, lambda words: typer.echo(words, err=True))


def _parted(listen: str) -> tuple[str, int]:
    """Return address and port. Raises ConfigError."""
    from wattkeeper.core.errors import ConfigError

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"'{listen}' is not an address to listen on. Write 127.0.0.1:8470.")
    return host.strip("[]"), int(port)
