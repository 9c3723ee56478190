"""The command line: one file per command; heavy imports wait until a command needs them.

Exit codes: 0 done · 1 a fault, told in one line · 2 wrong usage · 3 done, but some rows were refused or something is
doubted · 4 the books do not balance.
"""

from __future__ import annotations

import sys

import typer

from wattkeeper import __version__
from wattkeeper.cli import agent, grid, imports, token
from wattkeeper.cli.attribute import attribute
from wattkeeper.cli.backtest import backtest
from wattkeeper.cli.budget import budget
from wattkeeper.cli.check import check
from wattkeeper.cli.demo import demo
from wattkeeper.cli.doctor import doctor
from wattkeeper.cli.init import init
from wattkeeper.cli.job import job
from wattkeeper.cli.meters import meters
from wattkeeper.cli.plan import plan
from wattkeeper.cli.route import route
from wattkeeper.cli.serve import serve
from wattkeeper.cli.statement import statement
from wattkeeper.cli.top import top
from wattkeeper.cli.vacuum import vacuum
from wattkeeper.core.errors import WattkeeperError

app = typer.Typer(
    help="Energy and carbon books for AI clusters: every measured joule lands on exactly one account.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _top(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


app.command("init")(init)
app.add_typer(imports.app, name="import")
app.add_typer(agent.app, name="agent")
app.command("doctor")(doctor)
app.command("top")(top)
app.command("attribute")(attribute)
app.command("check")(check)
app.command("statement")(statement)
app.command("job")(job)
app.command("meters")(meters)
app.command("serve")(serve)
app.add_typer(token.app, name="token")
app.command("vacuum")(vacuum)
app.command("plan")(plan)
app.command("backtest")(backtest)
app.command("route")(route)
app.command("budget")(budget)
app.add_typer(grid.app, name="grid")
app.command("demo")(demo)


def main() -> None:
    """Run the command line; a fault is one line on standard error."""
    try:
        app()
    except WattkeeperError as error:
        print(f"wattkeeper: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        named = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        cure = " If it is a file of the ledger, run: wattkeeper attribute --all" if ".parquet" in named else ""
        print(f"wattkeeper: {named}{cure}", file=sys.stderr)
        sys.exit(1)
