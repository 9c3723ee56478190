"""The docs match the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from wattkeeper.core import assets, counter, schema
from wattkeeper.ledger.tables import ACCOUNTS

DOCS = Path(__file__).parents[1] / "docs"


def _generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["cli.md", "site-file.md", "service-file.md", "tables.md"])
def test_generated_pages_are_up_to_date(page):
    """A reference page equals what docs/generate.py makes of the code now."""
    assert _generate().pages()[page] == (DOCS / "reference" / page).read_text("utf-8"), "run: python docs/generate.py"


def test_every_quantity_is_in_the_nomenclature():
    """Each column with a unit, each kind, quantity, account and finding has its line."""
    text = (DOCS / "reference" / "nomenclature.md").read_text("utf-8")
    words = set(re.findall(r"[\w]+", text))
    quantities = {c.name for t in schema.TABLES for c in t.columns if c.unit} - {"submit_ms"}
    missing = {*quantities, *assets.KINDS, *assets.QUANTITIES, *ACCOUNTS, *counter.EVENT_NAMES} - words

    assert missing == set()


def test_no_word_of_the_nomenclature_has_two_meanings():
    """Each row of its tables names a word once."""
    text = (DOCS / "reference" / "nomenclature.md").read_text("utf-8")
    tables = [part.splitlines() for part in text.split("\n## ")]
    for lines in tables:
        words = [w.strip() for line in lines if line.startswith("| ") for w in line.split("|")[1].split(",")]
        assert sorted({w for w in words if words.count(w) > 1 and w}) == []


def test_links_between_pages_lead_somewhere():
    """Every relative link in the docs and the README names a file that is there."""
    broken = []
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")

    assert broken == []
