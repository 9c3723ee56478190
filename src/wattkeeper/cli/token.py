"""`wattkeeper token`: who may send readings to the server."""

from __future__ import annotations

from pathlib import Path

import typer

from wattkeeper.cli import common

app = typer.Typer(help="Tokens of those who may send readings to the server.", no_args_is_help=True)


@app.command("add")
def add(
    name: str = typer.Argument(help="What it is for, such as the name of a cluster."), book: Path = common.BOOK
) -> None:
    """Make a token and print it, this once: the book keeps only its digest.

    Example: wattkeeper token add cluster-a --book mybook
    """
    from wattkeeper.core.errors import ConfigError
    from wattkeeper.server import tokens

    made = tokens.make()
    if not common.open_book(book).state.add_token(name, tokens.digest(made), common.now_ms()):
        raise ConfigError(f"There is a token named '{name}' already. Revoke it first, or choose another name.")
    typer.echo(made)


@app.command("list")
def list_tokens(book: Path = common.BOOK, json: bool = common.JSON) -> None:
    """List the names of the tokens and when they were made.

    Example: wattkeeper token list --book mybook
    """
    from wattkeeper.core.clock import iso

    made = [{"name": name, "made": iso(made_ms)} for name, _, made_ms in common.open_book(book).state.tokens()]
    if json:
        common.print_json(made)
        return
    for one in made:
        typer.echo(f"{one['made']}  {one['name']}")


@app.command("revoke")
def revoke(name: str = typer.Argument(help="Its name."), book: Path = common.BOOK) -> None:
    """Strike a token; a server that runs refuses it within seconds.

    Example: wattkeeper token revoke cluster-a --book mybook
    """
    from wattkeeper.core.errors import UnknownNameError

    state = common.open_book(book).state
    if not state.drop_token(name):
        raise UnknownNameError("token", name, [n for n, _, _ in state.tokens()])
