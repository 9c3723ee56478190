"""Keys of what --json prints beside those that docs/reference/json.md tells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
NAMED = {"skipped", "signals", "prices", "gpu_g", "power_g", "delay_g", "sites", "variants", "limits_kw", "free_for_gpus_w",
         "gpu_power_w"}  # fmt: skip
"""Objects whose keys are names of things."""


def keys_of(value: Any, path: str = "", name: str = "") -> set[str]:
    """Return the paths of all values: a.b, a[].b for lists, a.* where keys are names."""
    if isinstance(value, dict):
        named = name in NAMED and name != "prices"
        found = {k for key, one in value.items() for k in keys_of(one, f"{path}.{'*' if named else key}", key)}
        if name == "signals":  # by site, and in it by kind
            found = {k for kinds in value.values() for one in kinds.values() for k in keys_of(one, f"{path}.*.*")}
        return found
    if isinstance(value, list):
        return {k for one in value for k in keys_of(one, f"{path}[]", "")}
    return {path.lstrip(".")}


def told(command: str) -> tuple[set[str], set[str]]:
    """Return the keys that the page tells of a command: those always there, and those there where they apply."""
    section = PAGE.read_text("utf-8").partition(f"## wattkeeper {command}\n")[2].partition("\n## ")[0]
    always, sometimes = set(), set()
    for line in section.splitlines():
        if line.startswith("| `"):
            cell = line.split("|")[1]
            (sometimes if "*(or)*" in cell else always).update(re.findall(r"`([^`]+)`", cell))
    return always, sometimes


def check(command: str, data: Any) -> None:
    """Assert that each key is told, and each key that is always there is there."""
    always, sometimes = told(command)
    found = keys_of(data)

    null = {
        k for k in found if any(one.startswith(f"{k}.") for one in always | sometimes)
    }  # of an object that is not there
    assert found - always - sometimes - null == set()
    assert always - found == set()
