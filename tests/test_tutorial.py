"""The tutorial, run as it is written, on the real wall meters of a 64-node H100 training run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
WALL = SHARED / "gpu/mlperf/smc_gpt3_64node_ac.csv"
GRID = SHARED / "grid/intensity/US-CAL-CISO_2024_hourly.csv.gz"
SERIES = sorted((SHARED / "gpu/mlperf/series").glob("*.csv")) if SHARED.exists() else []


def wattkeeper(*words, cwd):
    """Run the command line; return what it printed."""
    command = [sys.executable, "-c", "from wattkeeper.cli import main; main()", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not WALL.exists(), reason="the recorded wall meters are not here")
def test_the_tutorial_gives_what_it_says(tmp_path):
    """415.4 kWh over 3 412 s on 64 nodes, all on one job, balanced, with the carbon of the grid of that hour."""
    text = (ROOT / "docs/tutorial/a-real-training-run.md").read_text("utf-8")
    (tmp_path / "site.toml").write_text(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    shells = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for file in (WALL, GRID):
        shutil.copy(file, tmp_path)
    subprocess.run(["bash", "-e", "-c", shells[0]], cwd=tmp_path, check=True)
    fill = (
        f"wattkeeper() {{ {sys.executable} -c 'from wattkeeper.cli import main; main()' \"$@\"; }}\n"
        + shells[1]
        + shells[2]
    )
    done = subprocess.run(
        ["bash", "-e", "-c", fill], cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ.copy()
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(wattkeeper("statement", "--book", "run", "--by", "node", "--json", cwd=tmp_path))
    job = made["accounts"][0]

    assert made["balance"]["line"].startswith("meter 415.366 kWh = jobs 415.366 + held idle 0.000")
    assert made["balance"]["residual_mj"] == 0
    assert len(made["rows"]) == 64
    assert sum(r["energy_mj"] for r in made["rows"]) == made["balance"]["meter_mj"]
    assert job["held_ms"] == 64 * 3_412_000
    assert job["carbon_g"] / 1000 == pytest.approx(23.2, abs=0.05)
    # 64 independent meters of ±1 %: 415.4 kWh × 1 % / √3 / √64
    assert made["balance"]["uncertainty_kwh"] == pytest.approx(415.366 * 0.01 / 3**0.5 / 8, rel=0.02)
    assert "415.366" in text


@pytest.mark.skipif(not SERIES, reason="the recorded wall meters are not here")
@pytest.mark.parametrize("path", SERIES, ids=lambda p: p.stem)
def test_single_nodes_at_one_hertz(path, tmp_path):
    """A wall meter of one node, watts each second, moved to July 2024: the trapezoid's energy to the millijoule a step."""
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    seconds, watts = [float(r[0]) for r in rows], [float(r[1]) for r in rows]
    expected_j = sum((b - a) * (p + q) / 2 for a, b, p, q in zip(seconds, seconds[1:], watts, watts[1:], strict=False))
    (tmp_path / "site.toml").write_text(
        "[[site]]\nid = 'lab'\n[[nodes]]\nnames = 'node'\nparent = 'lab'\n[csv.wall]\nkind = 'readings'\nmeter = 'wall'\n"
        "asset = 'node'\nquantity = 'power'\nunit = 'W'\ncolumns = { time = 't_s', value = 'wall_w' }\ntime_format = 's'\n"
        "shift_ms = 1720000000000\n"  # the log counts from its own start
    )
    wattkeeper("init", "book", "--site-file", "site.toml", cwd=tmp_path)
    wattkeeper("import", "csv", path, "--as", "wall", "--book", "book", cwd=tmp_path)
    wattkeeper("attribute", "--book", "book", cwd=tmp_path)
    made = json.loads(wattkeeper("statement", "--book", "book", "--json", cwd=tmp_path))

    assert made["balance"]["residual_mj"] == 0
    assert made["balance"]["meter_mj"] / 1000 == pytest.approx(expected_j, rel=1e-6)
