"""`wattkeeper route` as a user meets it."""

from __future__ import annotations

import json

import pytest

from tests.cli import keys
from tests.cli.test_commands import run

pytest.importorskip("highspy")

SITE = """[[site]]
id = "fra"
intensity = "intensity:A"
price = 0.3
pue = 1.5
[[site]]
id = "sto"
intensity = 50.0
price = 0.1
[csv.ci]
kind = "signals"
columns = { start = "time", value = "g" }
signal = "intensity:A"
unit = "g/kWh"
"""
SERVICE = """quality = 0.8
[[variant]]
name = "70b"
energy_wh = 4.0
gpu_s = 4.0
quality = 0.9
latency_ms = 400
[[variant]]
name = "8b"
energy_wh = 1.0
gpu_s = 1.0
quality = 0.7
latency_ms = 100
[[origin]]
name = "eu"
requests_per_h = 1000
latency_limit_ms = 500
network_ms = { fra = 20, sto = 40 }
[[origin]]
name = "game"
requests_per_h = 100
latency_limit_ms = 130
network_ms = { fra = 20, sto = 40 }
"""
WORDS = ("--from", "2026-10-01", "--hours", 2, "--gpus", "fra=8", "--gpus", "sto=1")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A book of a dirty and a clean site, and a service with a hasty origin."""
    root = tmp_path_factory.mktemp("route")
    (root / "site.toml").write_text(SITE)
    (root / "ci.csv").write_text(
        "time,g\n" + "".join(f"2026-10-01T{h:02d}:00:00Z,{g}\n" for h, g in enumerate([400, 20, 20]))
    )
    (root / "service.toml").write_text(SERVICE)
    assert run("init", root / "book", "--site-file", root / "site.toml").returncode == 0
    assert run("import", "csv", root / "ci.csv", "--as", "ci", "--book", root / "book").returncode == 0
    return root


def route(root, *more, service="service.toml"):
    return run("route", root / service, "--book", root / "book", *WORDS, *more)


def test_a_split_in_json(made):
    """A mean quality of 0.8 takes 550 of each variant: 'game' only 8b and only at fra (30 ms too far for sto)."""
    done = route(made, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first = {(r["origin"], r["site"], r["variant"]): r["requests"] for r in found["routes"] if "T00" in r["start"]}
    second = [r for r in found["routes"] if "T01" in r["start"]]

    # 00:00: sto (50 g) has 3600 GPU s: what saves most a second goes there; per GPU second both save the same
    served = {v: sum(n for (_, _, name), n in first.items() if name == v) for v in ("70b", "8b")}
    assert served == {"70b": pytest.approx(550), "8b": pytest.approx(550)}
    assert first["game", "fra", "8b"] == pytest.approx(100)
    held_s = sum(n * {"70b": 4, "8b": 1}[v] for (_, site, v), n in first.items() if site == "sto")
    assert held_s <= 3600 * (1 + 1e-9)
    # 2750 GPU s are needed but for 'game', all of them fit at sto: 2.65 kWh × 50 g, and 0.1 kWh × 1.5 × 400 g at fra
    assert held_s == pytest.approx(550 * 4 + 450)
    # 01:00: fra has 20 × 1.5 = 30 g, below 50: everything is there
    assert {r["site"] for r in second} == {"fra"}
    assert found["planned"]["carbon_g"] == pytest.approx(
        2.65 * 50 + 0.1 * 600 + 2.75 * 30, rel=1e-5
    )  # HiGHS keeps rows to 1e-7
    assert found["planned"]["quality"] == pytest.approx(0.8)
    # usual: nearest is fra, 1000 × 4 Wh and 100 × 1 Wh in both hours
    assert found["usual"]["carbon_g"] == pytest.approx(4.1 * (600 + 30))
    assert found["saving"] == pytest.approx(1 - 275 / (4.1 * 630), rel=1e-5)
    assert found["bound_weighed_g"] == pytest.approx(275, rel=1e-5)
    assert found["gap"] == pytest.approx(0, abs=1e-5)
    assert found["counterfactual"].startswith("the best variant at the nearest site")


def test_the_table_fits_the_terminal(made):
    done = route(made)

    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert all(
        words in done.stdout for words in ("usual", "planned", "No split can be below", "fra 70b", "10-01 01:00")
    )


def test_requests_from_a_file_and_too_many_of_them(made, tmp_path):
    """100 000 an hour do not fit on nine GPUs: what is left is told, nothing is saved, and the exit code is 3."""
    rows = [f"2026-10-01T0{h}:00:00Z,{o},{n}\n" for h in (0, 1) for o, n in (("eu", 100_000), ("game", 0))]
    (tmp_path / "r.csv").write_text("time,origin,requests_per_h\n" + "".join(rows))
    done = route(made, "--requests", tmp_path / "r.csv", "--json")
    found = json.loads(done.stdout)
    (tmp_path / "r.csv").write_text("time,origin,requests_per_h\n" + "".join(rows[:3]))
    holed = route(made, "--requests", tmp_path / "r.csv")

    assert done.returncode == 3
    assert found["saving"] is found["bound_weighed_g"] is found["gap"] is None
    assert found["unserved"][0]["origin"] == "eu"
    assert found["planned"]["gpu_h"] == pytest.approx(2 * 9)
    assert holed.returncode == 1
    assert "has no requests of 'game' for the slot at 2026-10-01T01:00:00Z" in holed.stderr


def test_faults_are_one_line(made):
    """A site that is not there, a latency nobody can keep, a typing error, no file."""
    cases = [
        (SERVICE.replace("sto = 40 }", "oslo = 40 }", 1), "Origin 'eu' names site 'oslo'. The book has fra, sto."),
        (
            SERVICE.replace("130", "90"),
            "Origin 'game' has a limit of 90 ms; the nearest site and the fastest variant take 120 ms",
        ),
        (SERVICE.replace("gpu_s = 1.0", "gpus = 1.0"), "[[variant]] number 2, gpu_s: is missing."),
        (
            SERVICE.replace("quality = 0.8", "quality = 0.99"),
            "The quality floor 0.99 is above the best variant, 70b with 0.9.",
        ),
        (SERVICE.replace("[[variant]]", "[[variant", 1), "is not TOML"),
    ]
    for text, words in cases:
        (made / "wrong.toml").write_text(text)
        done = route(made, service="wrong.toml")
        assert done.returncode == 1
        assert words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert "Cannot read" in route(made, service="none.toml").stderr


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--gpus", "fra"), "--gpus fra cannot be read. Write --gpus SITE=NUMBER."),
        (("--gpus", "fra=-1"), "--gpus fra=-1 cannot be. Give a number of at least 0."),
        (("--hours", "inf"), "--hours inf is over 1,000,000 slots of 60 min. Plan fewer or longer ones."),
    ],
)
def test_numbers_that_cannot_be_are_wrong_usage(made, option, words):
    done = route(made, *option)

    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


def test_the_page_and_the_keys(made, tmp_path):
    """The page has a title, what is saved, and both splits; every key of the JSON is told."""
    pytest.importorskip("altair")
    done = route(made, "--figure", tmp_path / "routes.html", "--json")
    text = (tmp_path / "routes.html").read_text().partition("<script")[0]
    told = json.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    assert "<h1>Routes of service.toml</h1>" in text
    assert f"{100 * told['saving']:.1f}\u2009%" in text
    assert all(words in text for words in ("usual", "planned", "Above the bound", "Quality, mean", "sto 70b"))
    assert told["currency"] == "EUR"
    keys.check("route", told)
