"""What the README and the examples show works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from wattkeeper import cli, config

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda p: p.name)
def test_examples_load(path):
    """Each example site file is a valid one."""
    assert config.load(path).assets().assets


def test_commands_shown_exist():
    """Every `wattkeeper …` in the README and the docs names a command there is."""
    root = typer.main.get_command(cli.app)
    unknown = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for words in re.findall(r"wattkeeper ((?:[a-z][a-z-]* ?)+)", page.read_text("utf-8")):
            command = root
            for word in words.split():
                if not hasattr(command, "commands"):
                    break
                command = command.commands.get(word)
                if command is None:
                    unknown.append(f"{page.name}: wattkeeper {words}")
                    break
    assert unknown == []
