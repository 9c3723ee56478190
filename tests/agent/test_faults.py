"""Faults in real processes, and the book after them: to the millijoule what the simulated meters counted.

An agent reads counters as the kernel shows them, a server takes what it sends into a book. Whatever happens on the way, the
energy between the first and the last reading of each counter is what it counted; what was read and is not in the book is
told as lost.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from tests.agent.test_process import MAIN
from tests.daemons import Daemon, free_port
from wattkeeper.lake.book import Book

pytestmark = pytest.mark.slow

SITE = "[[site]]\nid = 'a'\n"
WRAP_UJ, FIRST_UJ = 262_143_329_000, 262_143_000_000

CLOCK = """
import time
from pathlib import Path
shift = Path(__file__).with_name("shift")
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + float(shift.read_text())
time.time_ns = lambda: real_ns() + int(float(shift.read_text()) * 1e9)
"""
"""A clock that can be set while the process runs: the machine's, moved by what a file says [s]."""


class Counters:
    """RAPL counters, some of which count while the agent reads them. energy_mj: what each of these has counted.

    They stand 329 mJ before their wrap at first.
    """

    def __init__(self, root: Path, zones: int, live: int) -> None:
        self.path = root / "powercap"
        self.energy_mj = [0] * live
        self._random = random.Random(1)
        for i in range(zones):
            zone = self.path / f"intel-rapl:{i}"
            zone.mkdir(parents=True)
            (zone / "name").write_text(f"package-{i}\n")
            (zone / "max_energy_range_uj").write_text(f"{WRAP_UJ}\n")
            (zone / "energy_uj").write_text(f"{FIRST_UJ}\n")

    def draw(self) -> None:
        """Let each count on by as little as a CPU can draw between any two readings."""
        for i in range(len(self.energy_mj)):
            self.energy_mj[i] += self._random.randrange(1, 100)
            file = self.path / f"intel-rapl:{i}" / "energy_uj"
            file.with_suffix(".new").write_text(f"{(FIRST_UJ + 1000 * self.energy_mj[i]) % WRAP_UJ}\n")
            file.with_suffix(".new").replace(file)


class Site:
    """A book with its server, and an agent beside its counters; everything that was started ends with the test."""

    def __init__(self, root: Path) -> None:
        self.root, self.book, self.port = root, root / "book", free_port()
        self.env: dict[str, str] = {}
        self._made: list[Daemon] = []
        (root / "a.toml").write_text(SITE)
        self.run("init", self.book, "--site-file", root / "a.toml")
        (root / "token").write_text(self.run("token", "add", "n01", "--book", self.book))

    def configure(self, zones: int = 1, live: int = 1, *, port: int = 0, **agent: object) -> None:
        """Make counters and the agent's site file."""
        self.counters = Counters(self.root, zones, live)
        self.spool = Path(str(agent.pop("spool", self.root / "spool")))
        keys = {"batch_s": 0.05, "backoff_max_s": 0.1, **agent}
        (self.root / "site.toml").write_text(
            f'[agent]\nname = "n01"\nurl = "http://127.0.0.1:{port or self.port}"\n'
            f'token_file = "{self.root}/token"\nspool = "{self.spool}"\n'
            + "".join(f"{key} = {value}\n" for key, value in keys.items())
            + f'[[agent.rapl]]\nnode = "n01"\nperiod_s = 0.05\npath = "{self.counters.path}"\n'
        )

    def run(self, *words: object) -> str:
        command = [sys.executable, "-c", MAIN, *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **self.env}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *words: object) -> Daemon:
        command = [sys.executable, "-c", MAIN, *map(str, words)]
        self._made.append(Daemon(f"process{len(self._made)}", command, self.root, self.env))
        return self._made[-1]

    def agent(self) -> Daemon:
        """Start the agent and wait for its first batch: nothing was counted before its first reading."""
        agent = self.start("agent", "run", "--config", self.root / "site.toml")
        agent.wait_ready(lambda: self.spooled() > 0)
        return agent

    def serve(self) -> Daemon:
        server = self.start("serve", self.book, "--listen", f"127.0.0.1:{self.port}", "--fold-every", "0.2")
        server.wait_ready(self._answers)
        return server

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def spooled(self) -> int:
        """Bytes of batches that wait."""
        return sum(p.stat().st_size for p in (self.spool / "n01").glob("*.wal"))

    def drawing(self, agent: Daemon, until) -> None:
        """Let the counters count until something is true."""

        def drawn() -> bool:
            self.counters.draw()
            return until()

        agent.wait_ready(drawn, 120)

    def grow(self, agent: Daemon, by: int = 3000) -> None:
        """Let the counters count until so many more bytes wait."""
        had = self.spooled()
        self.drawing(agent, lambda: self.spooled() > had + by)

    def end(self, agent: Daemon, server: Daemon) -> None:
        """Deliver all, a last reading included, and attribute."""
        agent.process.terminate()
        assert agent.process.wait(60) == 0
        self.counters.draw()
        last = (self.root / "site.toml").read_text()
        (self.root / "last.toml").write_text(re.sub(r"127.0.0.1:\d+", f"127.0.0.1:{self.port}", last))
        self.run("agent", "run", "--config", self.root / "last.toml", "--once")
        server.process.terminate()
        assert server.process.wait(60) == 0
        self.run("attribute", "--book", self.book)
        self.run("check", "--book", self.book)

    def energy_mj(self) -> list[int]:
        """Return what the book has for each counter that counted."""
        rows = Book(self.book).meter_hours.scan().group_by("meter").agg(pl.col("energy_mj").sum()).collect()
        sums = dict(rows.iter_rows())
        return [sums[f"n01/cpu{i}:package-{i}:rapl:energy_counter"] for i in range(len(self.counters.energy_mj))]

    def lost(self) -> int:
        return sum(row["lost"] or 0 for row in json.loads(self.run("meters", "--book", self.book, "--json")))

    def stop(self) -> None:
        for one in self._made:
            one.stop()


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def disk(tmp_path):
    """A disk of 320 KiB of its own: real ENOSPC and EROFS, also for root."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=320k", "none", path], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting needs CAP_SYS_ADMIN")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def swaps(spool: Path) -> int:
    """Return how many segments of a spool stand for others too."""
    numbers = sorted(int(p.stem) for p in (spool / "n01").glob("*.wal"))
    return sum(b - a > 1 for a, b in pairwise(numbers))


def test_a_server_that_is_away_longer_than_the_spool_lasts(site):
    """Three counters of 300 draw while 1 MiB is filled and thinned, the agent is killed in the middle of that: to the
    millijoule what they counted, wraps included; and what went is told by `meters` and the statement."""
    site.configure(300, 3, spool_limit_bytes=2**20)
    first = site.agent()
    site.drawing(first, lambda: swaps(site.spool) > 1)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    second = site.agent()
    site.drawing(second, lambda: "detail goes from now on" in second.log.read_text())
    assert site.spooled() <= 2**20
    server = site.serve()
    site.drawing(second, lambda: "takes readings again" in second.log.read_text())
    site.end(second, server)
    statement = json.loads(site.run("statement", "--book", site.book, "--json"))

    assert site.energy_mj() == site.counters.energy_mj
    assert site.lost() == sum(loss["readings"] for loss in statement["lost"]) > 1000


def test_a_full_disk_that_gets_its_room_back_by_delivery(site, disk):
    """320 KiB for all that waits: the disk says no, readings wait in memory, and go out when the server is back."""
    site.configure(100, 2, spool=disk, spool_limit_bytes=2**20)
    agent = site.agent()
    site.drawing(agent, lambda: "No space left" in agent.log.read_text())
    server = site.serve()
    site.drawing(agent, lambda: "Readings are written again" in agent.log.read_text())
    site.end(agent, server)

    assert site.energy_mj() == site.counters.energy_mj


def test_a_disk_that_was_made_read_only(site, disk):
    """An agent that cannot write says so and ends; what it holds is read and sent when the disk is mended."""
    site.configure(1, 1, spool=disk)
    first = site.agent()
    site.grow(first)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    held = site.spooled()
    remount(disk, "ro")
    refused = site.start("agent", "run", "--config", site.root / "site.toml")
    assert refused.process.wait(60) == 1
    assert refused.log.read_text() == (
        f"wattkeeper: The journal {disk}/n01 cannot be written: Read-only file system. "
        "Make room or mend the disk; what it holds is intact.\n"
    )
    assert site.spooled() == held
    remount(disk, "rw")
    second, server = site.agent(), site.serve()
    site.drawing(second, (disk / "n01" / "forgotten").exists)
    site.end(second, server)

    assert site.energy_mj() == site.counters.energy_mj


def test_a_disk_that_takes_nothing_for_a_while(site):
    """No file may grow, as on a disk gone read-only under a running agent: it reads on, and all of it arrives."""
    site.configure()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(site.root / "notify"))
        manager.settimeout(60)
        site.env = {"NOTIFY_SOCKET": str(site.root / "notify"), "WATCHDOG_USEC": "100000"}
        agent, server = site.agent(), site.serve()

        def readings() -> int:
            return int(manager.recv(1000).decode().partition(" faults, ")[2].split()[0])

        while readings() < 20:
            site.counters.draw()
        soft, hard = resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (0, hard))
        had, size = readings(), site.spooled()
        while readings() < had + 40:
            site.counters.draw()
        assert site.spooled() <= size
        resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        site.env = {}
    site.drawing(agent, lambda: "Readings are written again; 0 were lost" in agent.log.read_text())
    site.end(agent, server)

    assert site.energy_mj() == site.counters.energy_mj
    assert site.lost() == 0


@pytest.mark.parametrize("damage", ["cut off", "noise after", "a bit within"])
def test_a_damaged_end_of_the_spool(site, damage):
    """After a kill the last batch is cut, or noise stands after it, or a batch within has a flipped bit: the counter
    bridges what is not there, and the agent says where it was."""
    site.configure()
    first = site.agent()
    site.grow(first, 10_000)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    last = max((site.spool / "n01").glob("*.wal"))
    data = last.read_bytes()
    last.write_bytes(
        {
            "cut off": data[:-7],
            "noise after": data + os.urandom(300),
            "a bit within": data[:5000] + bytes([data[5000] ^ 4]) + data[5001:],
        }[damage]
    )
    second, server = site.agent(), site.serve()
    site.drawing(second, (site.spool / "n01" / "forgotten").exists)
    site.end(second, server)
    said = {"a bit within": "are damaged and were left out"}.get(damage, "bytes of an unfinished batch were cut off")

    assert said in second.log.read_text()
    assert site.energy_mj() == site.counters.energy_mj


def test_a_clock_that_jumps_forward_and_back(site):
    """An hour ahead and back again, then two days ahead, which no book takes, and back: what counters counted is whole,
    and what was left out until the clock had passed its last reading is told."""
    site.configure()
    folder = site.root / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CLOCK)

    def set_clock(by_s: float) -> None:
        (folder / "shift.new").write_text(str(by_s))
        (folder / "shift.new").rename(folder / "shift")

    set_clock(0)
    server = site.serve()
    site.env = {"PYTHONPATH": str(folder)}
    agent = site.agent()

    def said(what: str) -> bool:
        return what in agent.log.read_text()

    site.drawing(agent, (site.spool / "n01" / "forgotten").exists)
    set_clock(3600)
    site.drawing(agent, lambda: said("was set forward by 3600"))
    set_clock(0)
    site.drawing(agent, lambda: said("was set back by 3600") and said("before its last reading"))
    set_clock(3700)
    site.drawing(agent, lambda: said("was set forward by 3700"))
    set_clock(2 * 86_400)
    site.drawing(agent, lambda: said("The batch is kept in"))
    set_clock(3700)
    site.drawing(agent, lambda: agent.log.read_text().count("was set back") == 2)
    site.end(agent, server)

    assert site.energy_mj() == site.counters.energy_mj
    assert site.lost() > 0


class Forgetful:
    """Stands between agent and server, and lets the answer to each second batch go: the agent sends it again."""

    def __init__(self, port: int) -> None:
        self.again = 0
        seen: set[bytes] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                through = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                through.request("POST", self.path, body, dict(self.headers))
                answer = through.getresponse()
                told = answer.read()
                through.close()
                outer.again += body in seen
                if body not in seen and len(seen) % 2 == 0:
                    seen.add(body)
                    self.close_connection = True
                    return
                seen.add(body)
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


def test_answers_that_do_not_arrive(site):
    """Each second batch is on the server's disk and the agent does not hear of it: sent again, counted once."""
    server = site.serve()
    between = Forgetful(site.port)
    try:
        site.configure(port=between.port)
        agent = site.agent()
        site.drawing(agent, lambda: between.again > 5)
        site.end(agent, server)
    finally:
        between.http.shutdown()
        between.http.server_close()
    rows = Book(site.book).readings.table.scan().collect()

    assert rows.height == rows.unique().height
    assert site.energy_mj() == site.counters.energy_mj
