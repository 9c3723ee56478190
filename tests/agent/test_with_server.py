"""Agent, server and book together: what the counter gained is in the books, whatever happened on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from tests.agent.test_process import MAIN, tree_of
from tests.daemons import Daemon, free_port

pytestmark = pytest.mark.slow

SITE = "[[site]]\nid = 'a'\n"


def run(*words):
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, words)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def begin(tmp_path):
    """Start commands, and end them."""
    made = []

    def start(*words):
        made.append(Daemon(f"process{len(made)}", [sys.executable, "-c", MAIN, *map(str, words)], tmp_path))
        return made[-1]

    yield start
    for one in made:
        one.stop()


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def count_to(root, joules):
    file = root / "powercap" / "intel-rapl:0" / "energy_uj"
    file.with_suffix(".new").write_text(f"{round(joules * 1_000_000)}\n")
    file.with_suffix(".new").rename(file)


def energy_kwh(book):
    return [row["energy_kwh"] for row in json.loads(run("meters", "--book", book, "--json"))]


def test_a_kill_of_the_agent_and_an_absence_of_the_server_cost_no_joule(tmp_path, begin):
    """From 1 000 J to 1 003.6 J over a kill and without a server for a while: 3.6 J, a millionth of a kWh."""
    book, port = tmp_path / "book", free_port()
    (tmp_path / "a.toml").write_text(SITE)
    run("init", book, "--site-file", tmp_path / "a.toml")
    (tmp_path / "token").write_text(run("token", "add", "n01", "--book", book))
    tree_of(tmp_path)
    config = tmp_path / "site.toml"
    config.write_text(
        f'[agent]\nname = "n01"\nurl = "http://127.0.0.1:{port}"\ntoken_file = "{tmp_path}/token"\nbatch_s = 0.05\n'
        f'spool = "{tmp_path}/spool"\nbackoff_max_s = 0.1\n'
        f'[[agent.rapl]]\nnode = "n01"\nperiod_s = 0.05\npath = "{tmp_path}/powercap"\n'
    )
    count_to(tmp_path, 1000)
    first = begin("agent", "run", "--config", config)
    first.wait_ready(lambda: "Readings wait on disk" in first.log.read_text())
    first.wait_ready(lambda: any(p.stat().st_size > 2000 for p in (tmp_path / "spool" / "n01").glob("*.wal")))
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    count_to(tmp_path, 1002)
    server = begin("serve", book, "--listen", f"127.0.0.1:{port}", "--fold-every", "0.2")
    server.wait_ready(lambda: answers(port))
    second = begin("agent", "run", "--config", config, "--json")
    second.wait_ready(lambda: any((tmp_path / "spool" / "n01").glob("forgotten")))
    count_to(tmp_path, 1003.6)
    run("agent", "run", "--config", _once(tmp_path, config), "--once")
    for one in (second, server):
        one.process.terminate()
        assert one.process.wait(60) == 0
    run("attribute", "--book", book)

    assert energy_kwh(book) == [pytest.approx(1e-6, rel=1e-9)]


def _once(root, config):
    """Return the site file of another agent of the same meter, whose reading comes last."""
    path = root / "once.toml"
    path.write_text(config.read_text().replace('name = "n01"', 'name = "n01-once"'))
    return path


def test_an_agent_beside_its_book_is_folded_by_attribute(tmp_path):
    """1 000 J, then 1 003.6 J, each read once into the journal: a millionth of a kWh after attribute."""
    book = tmp_path / "book"
    (tmp_path / "a.toml").write_text(SITE)
    run("init", book, "--site-file", tmp_path / "a.toml")
    tree_of(tmp_path)
    config = tmp_path / "site.toml"
    config.write_text(
        f'[agent]\nname = "n01"\nbook = "{book}"\n[[agent.rapl]]\nnode = "n01"\npath = "{tmp_path}/powercap"\n'
    )
    for joules in (1000, 1003.6):
        count_to(tmp_path, joules)
        run("agent", "run", "--config", config, "--once")
    run("attribute", "--book", book)

    assert energy_kwh(book) == [pytest.approx(1e-6, rel=1e-9)]
