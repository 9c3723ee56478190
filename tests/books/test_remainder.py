"""Where the rest of an asset's meter goes, as the site file says."""

from __future__ import annotations

import pytest

from tests.books.small import SITE, book, counter, held, node, power, watts
from wattkeeper.core.assets import Asset
from wattkeeper.core.errors import ConfigError


def asset(name, kind, parent, remainder=""):
    said = f"remainder = '{remainder}'\n" if remainder else ""
    return f"[[asset]]\nid = '{name}'\nkind = '{kind}'\nparent = '{parent}'\n{said}"


@pytest.mark.parametrize(
    ("remainder", "expected"), [("", {"j1": 1000}), ("jobs", {"j1": 1000}), ("overhead", {"j1": 600, "overhead": 400})]
)
def test_a_nodes_rest(tmp_path, remainder, expected):
    """A node at 1000 W whose one GPU draws 600 W for j1: the other 400 W are j1's, or overhead where so declared."""
    site = "name = 'T'\n" + SITE + asset("n1", "node", "a", remainder) + asset("n1/gpu0", "gpu", "n1")
    made = book(tmp_path, site, [power("n1", 1000), counter("n1/gpu0", 600)], [held("j1", "n1/gpu0"), held("j1", "n1")])

    assert watts(made) == pytest.approx(expected)


@pytest.mark.parametrize("remainder", ["unaccounted", "overhead"])
def test_a_racks_rest(tmp_path, remainder):
    """A rack at 1100 W with a node at 1000 W in it: 100 W."""
    site = "name = 'T'\n" + SITE + asset("r1", "rack", "a", remainder) + node("n1", 0, "r1")
    made = book(tmp_path, site, [power("r1", 1100, "snmp"), power("n1", 1000)], [held("j1", "n1")])

    assert watts(made) == pytest.approx({"j1": 1000, remainder: 100})


@pytest.mark.parametrize(("kind", "remainder"), [("rack", "jobs"), ("node", "unaccounted"), ("gpu", "overhead")])
def test_what_nobody_could_do_is_refused(kind, remainder):
    with pytest.raises(ConfigError, match=f"Asset 'x', a {kind}, has remainder '{remainder}'"):
        Asset("x", kind, "a", remainder=remainder)
