"""Assets that a batch meets for the first time: they get a place, or are refused, and never break the book."""

from __future__ import annotations

import polars as pl

from tests.books.small import START
from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.roles import Intake
from wattkeeper.core.schema import READINGS
from wattkeeper.lake.book import Book

SITE = (
    "[[site]]\nid = 'dc'\n[[asset]]\nid = 'r1'\nkind = 'rack'\nparent = 'dc'\n[[nodes]]\nnames = 'n1'\nparent = 'r1'\n"
)


def reading(meter):
    return pl.DataFrame([(meter, START, 1)], schema=READINGS.schema, orient="row")


def test_a_place_left_open_is_the_site_files(tmp_path):
    """n1 is declared in r1 and stays there; n2 is new and goes to the only site; in any order within the batch."""
    book = Book.create(tmp_path / "b", SITE)
    assets = [Asset("n2/gpu0", "gpu", "n2"), Asset("n1", "node", ""), Asset("n2", "node", "")]

    assert book.take(Intake("t", assets), now_ms=0) == []
    assert {a: book.tree()[a].parent for a in ("n1", "n2", "n2/gpu0")} == {"n1": "r1", "n2": "dc", "n2/gpu0": "n2"}


def test_an_asset_without_a_place_is_refused_and_the_book_goes_on(tmp_path):
    """x stands in what nobody knows, y and z in each other; what is good in the same batch is kept."""
    book = Book.create(tmp_path / "b", SITE)
    assets = [Asset("x/gpu0", "gpu", "x"), Asset("y", "node", "z"), Asset("z", "node", "y"), Asset("n2", "node", "r1")]
    meters = [Meter("m1", "x/gpu0", "power"), Meter("m2", "n2", "power")]

    refused = book.take(Intake("t", assets, meters, pl.concat([reading("m1"), reading("m2")])), now_ms=0)
    reasons = [r.reason for r in refused]

    assert reasons[0] == "asset 'x/gpu0' stands in 'x', which the book does not have: declare it in the site file"
    assert [r.split("'")[1] for r in reasons[1:3]] == ["y", "z"]
    assert reasons[3].startswith("1 readings of meter 'm1', which measures 'x/gpu0'")
    assert "n2" in Book(book.root).tree().assets
    assert Book(book.root).readings.table.scan().collect()["meter"].to_list() == ["m2"]
