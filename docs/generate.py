"""Write the reference pages that come from the code: `python docs/generate.py`; a test fails when they are stale."""

from __future__ import annotations

import types
import typing
from importlib.metadata import entry_points
from pathlib import Path

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from wattkeeper import cli, config, routing
from wattkeeper.agent import build
from wattkeeper.core import schema

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made from the code by docs/generate.py. -->\n\n"


def pages() -> dict[str, str]:
    """Return file name → text of every generated page."""
    return {
        "cli.md": cli_page(),
        "site-file.md": model_page("Site file", config.SiteFile) + agent_tables(),
        "service-file.md": model_page("Service file", routing.ServiceFile),
        "tables.md": tables_page(),
    }


def cli_page() -> str:
    """Return the reference of all commands: what each is for, an example, its options."""
    lines = [NOTE + "# Command line\n", (cli.__doc__ or "").split("\n", 1)[1].strip() + "\n"]
    root = typer.main.get_command(cli.app)
    lines += _commands(root, "wattkeeper")
    return "\n".join(lines)


def _commands(command: typing.Any, path: str) -> list[str]:
    lines = []
    for name, sub in sorted(getattr(command, "commands", {}).items()):
        full = f"{path} {name}"
        if getattr(sub, "commands", None):
            lines += _commands(sub, full)
            continue
        lines += [f"## {full}\n", _help(sub.help or "") + "\n"]
        rows = [_parameter(p) for p in sub.params if p.name != "help"]
        lines += ["| option | default | meaning |", "|---|---|---|", *rows, ""]
    return lines


def _help(text: str) -> str:
    """Return help text with its example as code."""
    body, _, example = text.partition("Example:")
    return f"{body.strip()}\n\n```sh\n{example.strip()}\n```" if example else body.strip()


def _parameter(p: typing.Any) -> str:
    name = ", ".join(f"`{o}`" for o in p.opts) if p.param_type_name == "option" else f"`{(p.name or '').upper()}`"
    default = "" if p.default is None or callable(p.default) or p.required else f"`{p.default}`"
    if p.param_type_name == "option" and p.is_flag:
        default = ""
    return f"| {name} | {default} | {_cell(getattr(p, 'help', '') or '')} |"


def model_page(title: str, top: type[BaseModel]) -> str:
    """Return the reference of a TOML file: every table and key."""
    lines = [NOTE + f"# {title}\n", "TOML. Unknown keys are refused, so a typing error never goes unnoticed.\n"]
    seen: list[type[BaseModel]] = [top]
    titles = {top: "Top level"}
    for model in seen:
        title = titles[model]
        lines += [f"## {title}\n", (model.__doc__ or "").strip() + "\n"]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            inner = _model_in(field.annotation)
            if inner and inner not in seen:
                seen.append(inner)
                titles[inner] = _title(name, field.annotation)
            default = "required" if field.is_required() else _default(field)
            lines.append(f"| `{name}` | {_type(field.annotation)} | {default} | {_cell(field.description or '')} |")
        lines.append("")
    return "\n".join(lines)


def agent_tables() -> str:
    """Return the tables of a site file that integrations read live have."""
    lines = [
        "\n## `[[agent.NAME]]`\n",
        "Keys of every integration that is read live, and then of each.\n",
        *_rows(build.Common),
        "",
    ]
    for point in sorted(entry_points(group=build.GROUP), key=lambda p: p.name):
        lines += _tables(f"agent.{point.name}", typing.get_type_hints(point.load())["config"])
    return "\n".join(lines)


def _tables(name: str, model: type[BaseModel]) -> list[str]:
    """Return a table of tables with its keys, and those inside it."""
    lines = [f"## `[[{name}]]`\n", (model.__doc__ or "").strip() + "\n", *_rows(model), ""]
    for key, field in model.model_fields.items():
        if inner := _model_in(field.annotation):
            lines += _tables(f"{name}.{key}", inner)
    return lines


def _rows(model: type[BaseModel]) -> list[str]:
    """Return the table of a model's keys."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _default(field)
        rows.append(f"| `{name}` | {_type(field.annotation)} | {default} | {_cell(field.description or '')} |")
    return rows


def _title(name: str, kind: typing.Any) -> str:
    origin = typing.get_origin(kind)
    return f"`[[{name}]]`" if origin is list else f"`[{name}.NAME]`" if origin is dict else f"`[{name}]`"


def _model_in(kind: typing.Any) -> type[BaseModel] | None:
    for one in (kind, *typing.get_args(kind)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _type(kind: typing.Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _type(args[0])
    if origin is typing.Literal:
        return " or ".join(f"`{a}`" for a in args if a)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(a) for a in args if a is not type(None))
    if _model_in(kind):
        return "table" if origin is not list else "tables"
    return getattr(kind, "__name__", str(kind)) if not args else f"{origin.__name__} of {_type(args[-1])}"


def _default(field: typing.Any) -> str:
    value = field.default
    if value is PydanticUndefined or value is None or str(value) == "":
        return ""
    return f"`{value}`"


def tables_page() -> str:
    """Return the reference of the tables of a book."""
    lines = [
        NOTE + "# Tables\n",
        "Each is a Delta table in the book's directory, readable by Polars, DuckDB, Spark, Trino.\n",
    ]
    for table in schema.TABLES:
        lines += [
            f"## {table.name}\n",
            f"One row is {table.row}.\n",
            "| column | type | unit | meaning |",
            "|---|---|---|---|",
        ]
        for c in table.columns:
            null = " (may be null)" if c.nullable else ""
            lines.append(f"| `{c.name}` | {c.dtype} | {c.unit} | {_cell(c.meaning)}{null} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    for page, text in pages().items():
        (REFERENCE / page).write_text(text, "utf-8")
        print(f"wrote {REFERENCE / page}")
