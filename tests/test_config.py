"""The site file: what it makes, and how it says what is wrong."""

from __future__ import annotations

import pytest

from wattkeeper import config
from wattkeeper.core.errors import ConfigError

SITE = "[[site]]\nid = 'a'\n"


def test_a_node_group_becomes_nodes_and_gpus():
    """n[01-02] with two GPUs each is six assets in natural order."""
    tree = config.parse(SITE + "[[nodes]]\nnames = 'n[01-02]'\nparent = 'a'\ngpus = 2\n").assets()

    assert ["a", "n01", "n01/gpu0", "n01/gpu1", "n02", "n02/gpu0", "n02/gpu1"] == [a.id for a in tree.walk()]
    assert tree.unit_of("n01/gpu1") == "n01"
    assert tree.ancestors("n01/gpu1") == ["n01", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[site]]\nid = 'a'\ntimezone = 'Mars'\n", "No time zone named 'Mars'"),
        ("[[site]]\nid = 'a b'\n", r"site file: \[\[site\]\] number 1, id: String should match pattern"),
        (SITE + "intensty = 3\n", r"\[\[site\]\] number 1, intensty: unknown key; did you mean 'intensity'\?"),
        (SITE + "xyzzy = 3\n", r"xyzzy: unknown key; there are id, timezone, "),
        (SITE + "pue = 0.5\n", r"number 1, pue: should be greater than or equal to 1\.$"),
        (SITE + "[csv.a]\nkind = 'readings'\nunitt = 'W'\n", r"\[csv.a\], unitt: unknown key; did you mean 'unit'\?"),
        (SITE + "[[asset]]\nid = 'x'\nkind = 'oven'\nparent = 'a'\n", "kind 'oven'. Choose one of site, hall"),
        (SITE + "[[asset]]\nid = 'x'\nkind = 'rack'\nparent = 'b'\n", "stands in 'b', which is not declared"),
        (SITE + "[[nodes]]\nnames = 'n[1-'\nparent = 'a'\n", "Write it like n\\[01-16,20\\]"),
        (
            SITE + "intensity = 'average:Germany'\n",
            r"number 1, intensity: No yearly average named 'Germany'\. Near it are azure:germany",
        ),
        (
            SITE + "intensity = 'average:us-east-1'\n",
            r"Near it are aws:us-east-1, .*Countries are .*azure:westeurope\.$",
        ),
        (SITE + "price = 'average:DE'\n", r"number 1, price: yearly averages are of intensity only; write a number"),
        (SITE + "intensity = -5\n", r"number 1, intensity: should be greater than or equal to 0\.$"),
        (SITE + "price = nan\n", r"number 1, price: should be a finite number\.$"),
        (SITE + SITE, r"^Asset 'a' is declared twice in the site file\. Keep one of them\.$"),
        (
            SITE + "".join(f"[[nodes]]\nnames = 'n[{i}-3]'\nparent = 'a'\n" for i in (1, 3)),
            "^Asset 'n3' is declared twice",
        ),
        (SITE + 2 * "[[meter]]\nid = 'm'\nasset = 'a'\nquantity = 'power'\n", "^Meter 'm' is declared twice"),
        (SITE + "[[meter]]\nid = 'm'\nasset = 'a'\nquantity = 'energy_interval'\n", "needs interval_ms above 0"),
        (
            SITE + "[[asset]]\nid = 'm'\nkind = 'mig'\nparent = 'a'\n",
            "^MIG instance 'm' stands in 'a', which is no gpu",
        ),
        ("[[site]\n", "is not TOML"),
        ("", r"site: is missing|site"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, message):
    """Each fault names the key or the value."""
    with pytest.raises(ConfigError, match=message):
        config.parse(text)


def test_assets_in_a_circle_are_refused():
    """Two racks inside each other stand under no site."""
    racks = "".join(f"[[asset]]\nid = '{a}'\nkind = 'rack'\nparent = '{b}'\n" for a, b in (("x", "y"), ("y", "x")))
    with pytest.raises(ConfigError, match="circle"):
        config.parse(SITE + racks)


def test_two_sites_need_a_place_for_new_nodes():
    """With two sites an unknown node is not put anywhere by guess."""
    with pytest.raises(ConfigError, match="Set default_parent"):
        _ = config.parse(SITE + "[[site]]\nid = 'b'\n").parent_of_new_nodes


def test_a_site_file_is_text_with_or_without_a_byte_order_mark(tmp_path):
    """Windows editors put one before the text; UTF-16 is told in one line."""
    path = tmp_path / "site.toml"
    path.write_text(SITE, "utf-8-sig")
    assert config.load(path).site[0].id == "a"
    path.write_text(SITE, "utf-16")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text\. Save it in UTF-8\.$"):
        config.load(path)


def test_a_host_list_without_end_is_refused_before_it_is_expanded():
    """A hundred million hosts are counted, not made; so is a square of ranges, and a list of many long ones."""
    for names in ("n[1-100000000]", "r[1-1000]n[1-1000]", "a[1-150000],b[1-150000]"):
        with pytest.raises(ConfigError, match=r"at most 200,000 are read"):
            config.expand_hosts(names)
    assert len(config.expand_hosts("n[1-9,11-19/2],m7,r[1-2]c[01-03]")) == 9 + 5 + 1 + 6


def test_costs_of_several_currencies_are_never_added():
    """Two sites, one with a tariff in dollars: their costs would be one sum. Without a tariff nothing is added."""
    two = '[[site]]\nid = "a"\n[[site]]\nid = "b"\ncurrency = "USD"\n'

    with pytest.raises(ConfigError, match=r"sites have several currencies \(EUR, USD\), and their costs are added"):
        config.parse(two + "price = 0.1\n")
    assert [s.currency for s in config.parse(two).site] == ["EUR", "USD"]
