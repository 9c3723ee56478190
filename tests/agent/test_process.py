"""A real agent process over real trees of files: killed, stopped, cut off from its server, out of room."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.agent.receiver import Receiver
from tests.daemons import Daemon, free_port
from wattkeeper.lake.journal import Reader

MAIN = "from wattkeeper.cli import main; main()"


def tree_of(root: Path, zones: int = 1) -> Path:
    """Make RAPL zones as the kernel shows them."""
    for i in range(zones):
        zone = root / "powercap" / f"intel-rapl:{i}"
        zone.mkdir(parents=True)
        for name, text in (("name", f"package-{i}"), ("max_energy_range_uj", "262143328850"), ("energy_uj", "5000")):
            (zone / name).write_text(f"{text}\n")
    return root / "powercap"


def site_file(root: Path, agent: str, *, zones: int = 1, period_s: float = 0.05) -> Path:
    path = root / "site.toml"
    path.write_text(
        f'[agent]\nname = "n01"\nspool = "{root}/spool"\n{agent}\n'
        f'[[agent.rapl]]\nnode = "n01"\npath = "{tree_of(root, zones)}"\nperiod_s = {period_s}\n'
    )
    return path


@pytest.fixture
def start(tmp_path):
    """Start agents, and end them."""
    made = []

    def begin(config: Path, *words: str, **env: str) -> Daemon:
        command = [sys.executable, "-c", MAIN, "agent", "run", "--config", str(config), *words]
        made.append(Daemon(f"agent{len(made)}", command, tmp_path, env))
        return made[-1]

    yield begin
    for one in made:
        one.stop()


def opened(folder: Path):
    """Return the heads and values of all batches in a journal."""
    reader = Reader(folder, "n01")
    tables = [pa.ipc.open_stream(b).read_all() for _, b in reader.read()]
    assert reader.doubts == []
    heads = [json.loads(t.schema.metadata[b"wattkeeper"]) for t in tables]
    return heads, [v for t in tables for v in t["value"].to_pylist()]


def book_of(root: Path) -> Path:
    book = root / "book"
    subprocess.run([sys.executable, "-c", MAIN, "init", str(book)], check=True, capture_output=True)
    return book


def numbers(heads):
    """Return each run's batch numbers."""
    runs: dict[str, list[int]] = {}
    for head in heads:
        _, run, number = head["id"].split("/")
        runs.setdefault(run, []).append(int(number))
    return list(runs.values())


def ids_of(receiver):
    """Return the ids of what a server has, each once: a batch that was on its way at a stop is sent again."""
    heads = [json.loads(pa.ipc.open_stream(b).schema.metadata[b"wattkeeper"]) for b in receiver.batches]
    return list(dict.fromkeys(head["id"] for head in heads))


def test_kill_9_loses_nothing_that_was_written_and_the_next_run_goes_on(tmp_path, start):
    """Killed three times in the middle of its work: each run's batches are there from the first to its last."""
    book = book_of(tmp_path)
    config = site_file(tmp_path, f'book = "{book}"\nbatch_s = 0.05')

    def runs():
        return numbers(opened(book / "journal")[0])

    for i in range(3):
        agent = start(config)
        agent.wait_ready(
            lambda i=i: len(numbers(opened(book / "journal")[0])) > i and len(opened(book / "journal")[0]) > 4 * i + 3
        )
        os.kill(agent.process.pid, signal.SIGKILL)
        agent.process.wait()
    heads, values = opened(book / "journal")

    assert [run == list(range(1, len(run) + 1)) for run in runs()] == [True] * 3
    assert set(values) == {5}  # 5 000 µJ are 5 mJ
    assert [sorted(a["id"] for a in h["assets"]) for h in heads if h["id"].endswith("/000001")] == [
        ["n01", "n01/cpu0"]
    ] * 3


def test_sigterm_writes_all_that_was_read(tmp_path, start):
    """Batches of an hour: what it counted is on disk when it is gone; systemd hears READY, WATCHDOG and STOPPING."""
    book = book_of(tmp_path)
    config = site_file(tmp_path, f'book = "{book}"\nbatch_s = 3600')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        agent = start(config, "--json", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="100000")
        first = manager.recv(1000).decode()
        while not (said := manager.recv(1000).decode()).startswith("WATCHDOG=1") or ", 0 readings" in said:
            pass
        agent.process.terminate()
        while (last := manager.recv(1000).decode()).startswith("WATCHDOG=1"):
            pass
    assert agent.process.wait(30) == 0
    log = agent.log.read_text()
    done = json.loads(log[log.index("{\n") :])

    assert first == "READY=1\nSTATUS=1 devices, 0 faults, 0 readings, 0 missed, 0 lost"
    assert last == "STOPPING=1"
    assert done["readings"] == len(opened(book / "journal")[1]) > 0
    assert done["faults"] == {}


def test_a_server_that_comes_back_gets_what_was_read_before_a_kill_too(tmp_path, start):
    """Away, killed meanwhile, started again, server back: batches of both runs arrive, the spool is empty."""
    port = free_port()
    config = site_file(tmp_path, f'url = "http://127.0.0.1:{port}"\nbatch_s = 0.05\nbackoff_max_s = 0.1')
    first = start(config)
    first.wait_ready(lambda: len(opened(tmp_path / "spool")[0]) >= 5)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    before = [h["id"] for h in opened(tmp_path / "spool")[0]]
    second = start(config)
    second.wait_ready(lambda: "Readings wait on disk" in second.log.read_text())
    receiver = Receiver(port)
    try:
        receiver.wait_for(len(before) + 5)
        second.process.terminate()
        assert second.process.wait(30) == 0
    finally:
        receiver.stop()
    ids = ids_of(receiver)

    assert ids[: len(before)] == before
    assert len(numbers([{"id": i} for i in ids])) == 2
    assert opened(tmp_path / "spool") == ([], [])
    assert second.log.read_text().count("cannot be reached") == 1


def test_a_full_spool_is_told_once_thins_and_empties_when_the_server_is_back(tmp_path, start):
    """1 MiB, 300 counters: the limit is said once and kept; with the server back the first batches arrive first, and
    what was read is there or counted as lost."""
    port = free_port()
    config = site_file(
        tmp_path, f'url = "http://127.0.0.1:{port}"\nbatch_s = 0.05\nbackoff_max_s = 0.1\nspool_limit_bytes = 1048576',
        zones=300,
    )  # fmt: skip
    agent = start(config, "--json")
    agent.wait_ready(lambda: "is at its limit of 1048576 bytes: detail goes" in agent.log.read_text())
    assert sum(p.stat().st_size for p in (tmp_path / "spool" / "n01").iterdir()) <= 1048576
    oldest = [h["id"] for h in opened(tmp_path / "spool")[0][:5]]
    receiver = Receiver(port)
    try:
        agent.wait_ready(lambda: "takes readings again" in agent.log.read_text())
        agent.process.terminate()
        assert agent.process.wait(30) == 0
    finally:
        receiver.stop()
    ids = ids_of(receiver)
    log = agent.log.read_text()
    done = json.loads(log[log.index("{\n") :])
    left = [batch for _, batch in Reader(tmp_path / "spool", "n01").read()]  # what it had no time to send
    tables = [pa.ipc.open_stream(batch).read_all() for batch in (*receiver.batches, *left)]
    heads = [json.loads(t.schema.metadata[b"wattkeeper"]) for t in tables]
    rows = {head["id"]: t.num_rows for head, t in zip(heads, tables, strict=True)}
    lost = {head["id"]: sum(n for *_, n in head.get("lost", [])) for head in heads}

    assert ids[:5] == oldest
    assert ids == sorted(ids)
    assert log.count("is at its limit") == 1
    assert done["lost"] == sum(lost.values()) > 0
    assert sum(rows.values()) + done["lost"] == done["readings"]


def test_a_source_that_goes_away_and_comes_back(tmp_path, start):
    """The module is unloaded and loaded while the agent runs: one line each, and the same meters."""
    book = book_of(tmp_path)
    config = site_file(tmp_path, f'book = "{book}"\nbatch_s = 0.05\nbackoff_max_s = 0.1')
    agent = start(config)
    agent.wait_ready(lambda: len(opened(book / "journal")[0]) > 2)
    (tmp_path / "powercap").rename(tmp_path / "away")
    agent.wait_ready(lambda: "rapl n01: " in agent.log.read_text())
    (tmp_path / "away").rename(tmp_path / "powercap")
    agent.wait_ready(lambda: "rapl n01 is read again" in agent.log.read_text())
    had = len(opened(book / "journal")[0])
    agent.wait_ready(lambda: len(opened(book / "journal")[0]) > had)
    heads, _ = opened(book / "journal")

    assert {m for h in heads for m in h["meters"]} == {"n01/cpu0:package-0:rapl:energy_counter"}
    assert agent.log.read_text().count("WARNING") == 1


def test_two_agents_of_one_name_do_not_write_over_each_other(tmp_path, start):
    """The second ends with one line."""
    book = book_of(tmp_path)
    config = site_file(tmp_path, f'book = "{book}"\nbatch_s = 0.05')
    first = start(config)
    first.wait_ready(lambda: bool(opened(book / "journal")[0]))
    second = start(config)

    assert second.process.wait(30) == 1
    assert second.log.read_text().startswith("wattkeeper: The journal ")
    assert "being written by another process" in second.log.read_text()
    assert first.process.poll() is None


def test_an_agent_needs_none_of_the_heavy_packages(tmp_path):
    """Everything it does has been done, NVML included, when its modules are looked at."""
    book = book_of(tmp_path)
    config = site_file(tmp_path, f'book = "{book}"\n[[agent.nvml]]')
    code = (
        "import sys\nfrom wattkeeper.cli import main\n"
        f"sys.argv = ['wattkeeper', 'agent', 'run', '--once', '--config', {str(config)!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'polars', 'pyarrow', 'numpy', 'sqlalchemy', 'deltalake', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    assert "Read 2 devices: 1 readings, 1 faults." in done.stdout


def test_once_reads_writes_and_says_so(tmp_path):
    """Exit code 0; with nothing but a device that fails 3."""
    book = book_of(tmp_path)
    config = site_file(tmp_path, f'book = "{book}"')
    command = [sys.executable, "-c", MAIN, "agent", "run", "--config", str(config), "--once"]
    good = subprocess.run(command, capture_output=True, text=True, check=False)
    (tmp_path / "powercap" / "intel-rapl:0" / "name").unlink()
    bad = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)

    assert (good.returncode, good.stdout) == (0, "Read 1 devices: 1 readings, 0 faults.\n")
    assert opened(book / "journal")[1] == [5]
    assert bad.returncode == 3
    assert "has no RAPL package" in json.loads(bad.stdout)["faults"]["rapl n01"]
