"""agent, doctor and top, as a user meets them, over trees of files as the kernel shows them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import tomllib
from contextlib import suppress

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.test_process import tree_of
from tests.daemons import Daemon
from wattkeeper import config
from wattkeeper.agent.build import build
from wattkeeper.agent.look import Seen, as_toml, asked, snippet
from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.errors import ConfigError, MissingExtraError
from wattkeeper.core.live import Discovery, Sample
from wattkeeper.core.roles import Intake
from wattkeeper.core.schema import ALLOCATIONS, READINGS
from wattkeeper.lake.book import Book
from wattkeeper.lake.journal import Journal

SITE = "[[site]]\nid = 'a'\n[[asset]]\nid = 'rack-1'\nkind = 'rack'\nparent = 'a'\n"


def run(*words):
    """Run wattkeeper in a process of its own, 80 columns wide."""
    command = [sys.executable, "-c", "from wattkeeper.cli import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"})


@pytest.fixture
def site(tmp_path):
    """A site file of one node with one CPU package whose counter gains 50 J every 50 ms or so."""
    Book.create(tmp_path / "book", SITE)
    path = tmp_path / "site.toml"
    path.write_text(
        f'{SITE}[agent]\nname = "n01"\nbook = "{tmp_path}/book"\n'
        f'[[agent.rapl]]\nnode = "n01"\nparent = "rack-1"\npath = "{tree_of(tmp_path)}"\n'
    )
    file, stop = tmp_path / "powercap" / "intel-rapl:0" / "energy_uj", threading.Event()

    def count():
        energy_uj = 1_000_000
        while not stop.wait(0.05):
            energy_uj += 50_000_000
            with suppress(FileNotFoundError):  # a test may take the folder away
                file.with_suffix(".new").write_text(f"{energy_uj}\n")
                file.with_suffix(".new").rename(file)

    thread = threading.Thread(target=count)
    thread.start()
    yield path
    stop.set()
    thread.join()


def test_discover_shows_what_is_there_with_its_value(site):
    done = run("agent", "discover", "--config", site)
    (told,) = json.loads(run("agent", "discover", "--config", site, "--json").stdout)

    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == ["Asset", "Model", "Reports", "Now", "Source", "Rank"]
    assert done.stdout.splitlines()[1].split()[:2] == ["n01/cpu0", "counter"]
    assert [a["id"] for a in told["assets"]] == ["n01", "n01/cpu0"]
    assert told["meters"][0]["value"] > 1000
    assert told["fault"] is None


def test_discover_without_a_site_file_tries_what_a_machine_may_have():
    """Whatever this one has, each source is named, and what is printed in the end is a site file for an agent."""
    done = run("agent", "discover")
    told = json.loads(run("agent", "discover", "--json").stdout)
    file = "[agent]" + done.stdout.partition("[agent]")[2]

    assert [t["integration"] for t in told] == ["nvml", "amdsmi", "rapl", "cray", "hwmon", "ipmi"]
    assert config._parse(file, "printed", config.AgentFile).agent.name


def test_what_discover_prints_reads_what_it_found():
    """A table for each integration that has a meter, none for those without."""
    found = Discovery([Asset("n01", "node", "")], [Meter("m", "n01", "power", "x")])
    text = snippet(
        [Seen("nvml", "nvml n01", found), Seen("rapl", "rapl n01"), Seen("ipmi", "ipmi n01", found)], "n01", keep={}
    )
    agent = config._parse(text, "printed", config.AgentFile).agent

    assert agent.tables == {"nvml": [{"node": "n01"}], "ipmi": [{"asset": "n01"}]}
    assert [one.device.name for one in build(agent)] == ["nvml n01", "ipmi n01"]


def test_agent_with_a_site_file_and_no_command_runs(site, tmp_path):
    """Until SIGTERM, which ends it well; a --config before another command goes nowhere and is refused."""
    command = [sys.executable, "-c", "from wattkeeper.cli import main; main()", "agent", "--config", str(site)]
    agent = Daemon("agent", command, tmp_path)
    try:
        agent.wait_ready(lambda: any((tmp_path / "book" / "journal").rglob("*.wal")))
        os.kill(agent.process.pid, signal.SIGTERM)
        ended = agent.process.wait(60)
    finally:
        agent.stop()
    refused = run("agent", "--config", site, "discover")

    assert ended == 0
    assert refused.returncode == 2
    assert "--config goes behind discover" in refused.stderr


def test_a_single_run_says_why_the_server_took_nothing(tmp_path):
    """Nobody listens at port 1: one line with the reason and where the readings are, exit code 3."""
    tree_of(tmp_path)
    site = tmp_path / "once.toml"
    site.write_text(
        f'[agent]\nname = "n01"\nurl = "http://127.0.0.1:1"\nspool = "{tmp_path}/spool"\n'
        f'[[agent.rapl]]\npath = "{tmp_path}/powercap"\nnode = "n01"\n'
    )
    done = run("agent", "run", "--config", site, "--once")

    assert done.returncode == 3
    assert "server http://127.0.0.1:1 cannot be reached: Connection refused." in done.stderr
    assert done.stderr.count("Readings wait on disk.") == 1


def test_discover_prints_a_file_on_which_the_agent_runs(site, tmp_path):
    """Typed: the source and its keys; printed: a table with them; run once on it, word for word."""
    settings = [f"path={tmp_path}/powercap", "node=n07", "parent=rack-1"]
    shown = run("agent", "discover", "rapl", *(f"--set={s}" for s in settings), "--book", tmp_path / "book")
    printed = tmp_path / "printed.toml"
    printed.write_text("[agent]" + shown.stdout.partition("[agent]")[2])
    done = run("agent", "run", "--config", printed, "--once", "--json")

    assert (shown.returncode, shown.stderr) == (0, "")
    assert printed.read_text().splitlines()[4:] == [
        "[[agent.rapl]]", f'path = "{tmp_path}/powercap"', 'node = "n07"', 'parent = "rack-1"',
    ]  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["readings"]) == (0, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["snmpp", "pdu"], "snmpp: no integration is named 'snmpp'. There are amdsmi, "),
        (["snmp", "pdu", "--set", "port"], "--set port: write key=value, such as --set port=1161."),
        (["snmp", "pdu", "--set", "prot=1"], "[[agent.snmp]]: prot: unknown key; did you mean 'port'"),
        (["rapl", "here"], "rapl has no address of its own. Give its table with --set, as on its page."),
    ],
)
def test_discover_names_what_was_typed_wrong(words, said):
    """One line."""
    done = run("agent", "discover", *words)

    assert done.returncode == 1
    assert done.stderr.startswith(f"wattkeeper: {said}")
    assert done.stderr.count("\n") == 1


SIMPLE = st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TABLES = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@given(TABLES)
def test_whatever_a_table_holds_is_written_so_that_it_reads_back(value):
    """Quotes, line ends, control characters, nested tables."""
    assert tomllib.loads(f"key = {as_toml(value)}")["key"] == value


def test_an_asset_is_named_after_its_host():
    """pdu-a1.mgmt → pdu-a1; an address of numbers stays whole; what is typed goes first."""
    tables = [asked(*words)[1] for words in (
        ("redfish", "https://bmc-n01.mgmt:8443", []), ("snmp", "10.0.7.12", []), ("snmp", "pdu", ["asset=r1", "port=1161"]),
    )]  # fmt: skip

    assert [one["asset"] for one in tables] == ["bmc-n01", "10.0.7.12", "r1"]
    assert tables[2] == {"host": "pdu", "asset": "r1", "port": 1161}


def test_the_doctor_finds_nothing_where_nothing_is_wrong(site):
    done = run("doctor", "--config", site, "--seconds", "0.3")

    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok", "ok"]


def test_the_doctor_says_what_is_missing_and_what_may_be_wrong(site, tmp_path):
    """A source that is not there is a fault, exit code 1; a counter that stands still a doubt, exit code 3."""
    (tmp_path / "powercap").rename(tmp_path / "gone")
    gone = run("doctor", "--config", site, "--seconds", "0.1", "--json")
    still = tree_of(tmp_path / "still")
    site.write_text(site.read_text().replace(f'{tmp_path}/powercap"', f'{still}"'))
    stands = run("doctor", "--config", site, "--seconds", "0.1", "--json")

    assert gone.returncode == 1
    assert [(line["grade"], line["subject"]) for line in json.loads(gone.stdout)] == [
        ("fault", "rapl n01"), ("ok", f"{tmp_path}/book/journal"),
    ]  # fmt: skip
    assert stands.returncode == 3
    assert [line["grade"] for line in json.loads(stands.stdout)] == ["ok", "doubt", "ok"]


def test_top_shows_watts_by_place_in_80_columns(site):
    """A rack, its node and the CPU; the counter tells watts from its second reading on, the rest are sums."""
    done = run("top", "--config", site, "--once", "--seconds", "0.5")
    rows = {r["asset"]: r for r in json.loads(run("top", "--config", site, "--json", "--seconds", "0.5").stdout)}
    lines = done.stdout.splitlines()

    assert [line.split()[0] for line in lines[:5]] == ["Asset", "a", "rack-1", "n01", "cpu0"]
    assert [len(line) - len(line.lstrip()) for line in lines[1:5]] == [0, 2, 4, 6]
    assert max(map(len, lines)) <= 80
    assert rows["n01/cpu0"]["power_w"] > 0
    assert {rows[a]["power_w"] for a in ("a", "rack-1", "n01")} == {rows["n01/cpu0"]["power_w"]}
    assert [rows[a]["summed"] for a in ("a", "n01", "n01/cpu0")] == [True, True, False]


def test_top_is_drawn_anew_until_ctrl_c(site):
    """On a terminal of 80 columns and 12 lines; interrupted, it ends well."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 80, 0, 0))
    command = [sys.executable, "-c", "from wattkeeper.cli import main; main()", "top", "--config", str(site)]
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")} | {"TERM": "xterm"}
    with subprocess.Popen([*command, "--seconds", "0.2"], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as top:
        shown = b""
        while len(re.findall(rb"cpu0 +[\d,]+ ", shown)) < 3:
            shown += os.read(ours, 65_536)
        os.kill(top.pid, signal.SIGINT)
        ended = top.wait(60)
    os.close(theirs)
    os.close(ours)
    moves = re.sub(r"\x1b\[[0-9;?]*[a-ln-zA-Z]", "\n", shown.decode())
    plain = re.sub(r"\x1b\[[0-9;]*m", "", moves)

    assert ended == 0
    assert max(len(line) for line in plain.replace("\r", "\n").splitlines()) <= 80


def test_top_with_nothing_to_read_says_so_and_ends(tmp_path):
    """A site file without sources; a book without readings; this machine, if it has no meter that we may read."""
    (tmp_path / "site.toml").write_text("[agent]\nname = 'n01'\n")
    Book.create(tmp_path / "book", SITE)
    empty, silent = run("top", "--config", tmp_path / "site.toml"), run("top", "--book", tmp_path / "book", "--once")
    nowhere = run("top", "--book", tmp_path / "none")
    here = run("top", "--once", "--seconds", "0.2")

    assert (empty.returncode, empty.stderr) == (
        1, f"wattkeeper: {tmp_path / 'site.toml'} names nothing to read. See: wattkeeper agent discover\n",
    )  # fmt: skip
    assert (silent.returncode, silent.stdout.splitlines()[1].split()) == (1, ["a", "–"])
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (1, 1)
    if "Nothing tells its power" in here.stdout:
        forever = run("top")
        assert (here.returncode, forever.returncode) == (1, 1)
        assert forever.stderr.startswith("wattkeeper: Nothing here tells its power. See why: wattkeeper doctor.")


def test_top_of_a_book_shows_its_newest_readings(tmp_path):
    """600 W of a second ago; 900 W of ten minutes ago is no longer drawn; 50 W stand in the journal only."""
    book = Book.create(tmp_path / "book", SITE)
    now_ms = time.time_ns() // 1_000_000
    assets = [Asset(n, "node", "rack-1") for n in ("n1", "n2")]
    rows = pl.DataFrame(
        {
            "meter": ["n1", "n1", "n2"],
            "time_ms": [now_ms - 9000, now_ms - 1000, now_ms - 600_000],
            "value": [1, 600_000, 900_000],
        },
        schema=READINGS.schema,
    )
    book.take(Intake("test", assets, [Meter(a.id, a.id, "power", "ipmi") for a in assets], rows), now_ms)
    journal = Journal(tmp_path / "book" / "journal", "n3")
    meter, there = Meter("n3", "n3", "power", "ipmi"), [Asset("n3", "node", "rack-1"), Asset("n1", "node", "")]
    journal.append(encode(Batch("n3/a/1", [Sample("n3", now_ms - 500, 50_000)], there, [meter])))
    journal.close()
    told = {r["asset"]: r["power_w"] for r in json.loads(run("top", "--book", tmp_path / "book", "--json").stdout)}

    assert told == {"a": 650.0, "rack-1": 650.0, "n1": 600.0, "n2": None, "n3": 50.0}


def test_top_of_a_book_knows_jobs_and_the_grid(tmp_path):
    """n1 at 600 W is held by j1, which runs; j0 has ended. 600 W at 250 g/kWh are 150 g an hour."""
    book = Book.create(tmp_path / "book", SITE.replace("id = 'a'", "id = 'a'\nintensity = 250.0", 1))
    now_ms = time.time_ns() // 1_000_000
    rows = pl.DataFrame([("n1", now_ms - 1000, 600_000)], schema=READINGS.schema, orient="row")
    held = [("j0", "n1", now_ms - 9000, now_ms - 5000, 1.0, False), ("j1", "n1", now_ms - 5000, None, 1.0, False)]
    allocations = pl.DataFrame(held, schema=ALLOCATIONS.schema, orient="row")
    meters = [Meter("n1", "n1", "power", "ipmi")]
    book.take(Intake("test", [Asset("n1", "node", "rack-1")], meters, rows, allocations=allocations), now_ms)
    told = {r["asset"]: r for r in json.loads(run("top", "--book", tmp_path / "book", "--json").stdout)}
    screen = run("top", "--book", tmp_path / "book", "--once").stdout

    assert (told["j1"]["kind"], told["j1"]["power_w"]) == ("job", 600.0)
    assert "j0" not in told
    assert (told["a"]["intensity_g_per_kwh"], told["a"]["carbon_g_per_h"]) == (250.0, 150.0)
    assert "a: 250 g CO2e/kWh, 0.15 kg an hour" in screen
    assert [line.split() for line in screen.splitlines() if line.startswith("j1")] == [["j1", "600"]]


def test_top_of_devices_knows_jobs_and_the_grid_of_their_book(site, tmp_path):
    """The site file's own book; the CPU is held by j1, and a site of 250 g/kWh emits a quarter of its watts in g/h."""
    (tmp_path / "book").rename(tmp_path / "old")
    book = Book.create(tmp_path / "book", SITE.replace("id = 'a'", "id = 'a'\nintensity = 250.0", 1))
    start_ms = time.time_ns() // 1_000_000 - 5000
    held = pl.DataFrame([("j1", "n01", start_ms, None, 1.0, False)], schema=ALLOCATIONS.schema, orient="row")
    none = pl.DataFrame(schema=READINGS.schema)
    book.take(Intake("test", [Asset("n01", "node", "rack-1")], [], none, allocations=held), start_ms)
    top = run("top", "--config", site, "--json", "--seconds", "0.5")
    told = {r["asset"]: r for r in json.loads(top.stdout)}

    assert (told["a"]["intensity_g_per_kwh"], told["j1"]["kind"]) == (250.0, "job")
    assert told["a"]["carbon_g_per_h"] == pytest.approx(told["a"]["power_w"] * 0.25)
    assert told["n01/cpu0"]["power_w"] > 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[[agent.nvmll]]\n", r"\[\[agent.nvmll\]\]: no integration is named 'nvmll'. There are amdsmi, "),
        ("[[agent.rapl]]\nnodes = 'n01'\n", r"\[\[agent.rapl\]\]: nodes: unknown key; did you mean 'node'"),
        ("[[agent.rapl]]\n[[agent.rapl]]\npath = 3\n", r"\[\[agent.rapl\]\] number 2: path: Input is not a valid path"),
        (
            "[[agent.rapl]]\nperiod_s = 0\n",
            r"\[\[agent.rapl\]\]: period_s: should be greater than or equal to 0.05",
        ),
        ("[[agent.rapl]]\nnode = 'a'\n" * 2, r"\[\[agent.rapl\]\]: rapl a is named twice. Remove one of its tables."),
    ],
)
def test_a_table_at_fault_is_named(table, message):
    """The integration, which of its tables, and the key."""
    with pytest.raises(ConfigError, match=message):
        build(config._parse(table, "site.toml", config.AgentFile).agent)


def test_an_integration_without_its_package_names_the_extra(monkeypatch):
    """As where httpx is missing for redfish."""
    monkeypatch.setitem(sys.modules, "wattkeeper.integrations.redfish.meter", None)
    table = "[[agent.redfish]]\nurl = 'https://bmc'\nasset = 'n01'\n"
    with pytest.raises(MissingExtraError, match=r"\[\[agent.redfish\]\] needs .*wattkeeper\[redfish\]"):
        build(config._parse(table, "site.toml", config.AgentFile).agent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[agent]\nbatch_row = 3\n", r"\[agent\], batch_row: "),
        ("[agent]\nurl = 'watts:8443'\n", r"\[agent\], url: "),
        ("[agent]\nurl = 'http://x'\nbook = 'b'\n", "give book or url, not both"),
        ("[agent]\nname = 'a b'\n", r"\[agent\], name: "),
        ("[agent.rapl]\nnode = 'a'\n", r"\[agent\], rapl: "),
    ],
)
def test_what_is_wrong_in_agent_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        config._parse(text, "site.toml", config.AgentFile)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[agent]\nbook = 'nowhere'\n[[agent.rapl]]\n",
            "nowhere is not a book. Make one with: wattkeeper init nowhere",
        ),
        ("[[agent.rapl]]\n", "[agent] says neither book nor url. Say where readings go."),
        ("[agent]\nbook = 'nowhere'\n", "The site file names nothing to read."),
    ],
)
def test_an_agent_that_cannot_begin_says_why_in_one_line(tmp_path, text, message):
    (tmp_path / "site.toml").write_text(text)
    done = run("agent", "run", "--config", tmp_path / "site.toml")

    assert done.returncode == 1
    assert done.stderr.startswith(f"wattkeeper: {message}")
    assert done.stderr.count("\n") == 1
