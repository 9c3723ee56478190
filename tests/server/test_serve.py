"""The server over real HTTP: what it acknowledges is in the book, once, whatever happens to it."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import polars as pl
import pyarrow as pa
import pytest

from tests.server.serving import ARROW, METER, QUICK, START, Serving, body, kept, new_book, sent
from wattkeeper import loop
from wattkeeper.cli import main
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.live import Sample
from wattkeeper.lake.book import Book
from wattkeeper.lake.fold import journal_root
from wattkeeper.lake.journal import Journal
from wattkeeper.server.serve import Settings, serve

NODE_JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One server for the tests that need no other."""
    book = new_book(tmp_path_factory.mktemp("served"))
    with Serving(book, "--max-body", "0.5") as server:
        server.book = book
        yield server


def wattkeeper(*words):
    """Run a command; return what it prints."""
    command = [str(Path(sys.executable).with_name("wattkeeper")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | QUICK)


def test_a_batch_is_acknowledged_with_its_id_and_folded_after_a_while(served):
    answer = served.send(body(0, "n1/first"))

    told = answer.json()
    assert answer.status_code == 200
    assert (told["id"], told["readings"], told["skew_ms"]) == ("n1/first/0", 5, None)
    served.wait_folded(5)
    assert set(sent(0, sender="n1/first")) <= set(kept(served.book))


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_packed_bodies_are_unpacked(served, coding):
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, coding) as stream:
        stream.write(body(0, f"n1/{coding}"))

    answer = served.send(out.getvalue().to_pybytes(), **{"content-encoding": coding})

    assert answer.json()["id"] == f"n1/{coding}/0"


def test_json_rows_are_taken(served):
    """With ids, meters and assets as in a batch; readings without an id are taken each time."""
    rows = {
        "id": "script/1",
        "meters": [{"id": "s", "asset": "n1", "quantity": "power", "source": "script"}],
        "readings": [{"meter": "s", "time_ms": START, "value": 250_000}],
    }
    assert served.client.post("/v1/readings", json=rows).json()["readings"] == 1
    assert served.client.post("/v1/readings", json={"readings": rows["readings"]}).json()["id"] == ""


WRONG = [
    (b"rubbish", ARROW, 400, "not a whole Arrow stream: .*"),
    (b"", ARROW, 400, "not a whole Arrow stream: .*"),
    (b"x" * 600_000, ARROW, 413, r"the body is larger than 524288 bytes; send smaller batches"),
    (gzip.compress(b"0" * 2**20), ARROW | {"content-encoding": "gzip"}, 413, "unpacked, the body is larger than 524288 bytes"),
    (b"rubbish", ARROW | {"content-encoding": "gzip"}, 400, "the body is not gzip: .*"),
    (b"rubbish", ARROW | {"content-encoding": "zstd"}, 400, "the body is not zstd: .*"),
    (b"", ARROW | {"content-encoding": "br"}, 415, "Content-Encoding is 'br'; send gzip, zstd or none"),
    (b"a", {"content-type": "text/csv"}, 415, "Content-Type is 'text/csv'; send application/vnd.apache.arrow.stream or .*"),
    (b"{", NODE_JSON, 400, "not the JSON that is wanted: Input data was truncated"),
    (b'{"readings": [{"meter": "m", "time_ms": 1.5, "value": 1}]}', NODE_JSON, 400,
     r"not the JSON that is wanted: Expected `int`, got `float` - at `\$.readings\[0\].time_ms`"),
    (b'{"readings": [{"meter": "m", "time_ms": 1, "value": 1}]}', NODE_JSON, 400, "a reading is of 1 ms, before .*"),
    (b'{"readings": [{"meter": "m", "time_ms": 1, "value": 18446744073709551615}]}', NODE_JSON, 400,
     "a number does not fit into 64 bits: .*"),
    (b'{"readings": [], "colour": 1}', NODE_JSON, 400, ".*unknown field `colour`"),
    (b'{"readings": [], "assets": [{"id": "x", "kind": "boat"}]}', NODE_JSON, 400, ".*kind 'boat'.*"),
]  # fmt: skip


@pytest.mark.parametrize("wrong", range(len(WRONG)))
def test_what_cannot_be_taken_is_answered_with_one_reason(served, wrong):
    data, headers, status, reason = WRONG[wrong]
    answer = served.client.post("/v1/readings", content=data, headers=headers)

    assert answer.status_code == status
    assert re.fullmatch(reason, answer.json()["error"])
    assert answer.text.count("\n") == 1
    assert served.client.get("/healthz").json() == {"status": "ok"}


def test_a_sender_that_reads_only_after_sending_all_sees_why_it_was_refused(served):
    """Ten megabytes to a server that takes half of one: it is read on, so that the answer arrives; no cut connection."""
    link = http.client.HTTPConnection("127.0.0.1", served.port)
    for _ in range(2):
        link.request("POST", "/v1/readings", b"x" * 10_000_000, ARROW)
        answer = link.getresponse()
        assert (answer.status, json.loads(answer.read())["error"][:23]) == (413, "the body is larger than")
    link.close()


def test_what_is_not_there_is_told(served):
    assert served.client.get("/").status_code == 404
    assert served.client.put("/v1/readings").headers["allow"] == "POST"


def test_a_clock_that_is_off_is_told_and_counted(served):
    """By the sender's word, or by a reading from the future; the readings are taken."""
    before = served.metric("wattkeeper_ingest_skewed_batches_total")
    late = served.send(body(0, "n1/late"), **{"wattkeeper-sent-ms": str(START)}).json()
    future_ms = late["time_ms"] + 3_600_000
    ahead = encode(Batch("n1/ahead/0", [Sample(METER.id, future_ms, 1)], [], [METER]))
    early = served.send(ahead).json()

    assert late["skew_ms"] == START - late["time_ms"]
    assert early["skew_ms"] == future_ms - early["time_ms"]
    assert served.metric("wattkeeper_ingest_skewed_batches_total") == before + 2


class Sender(threading.Thread):
    """Sends batches of its own until the server is gone or it is told to stop; `good` are the numbers that were acknowledged."""

    def __init__(self, url, name):
        super().__init__()
        self.url, self.sender, self.good, self.tried, self.stopping = url, name, [], 0, False

    def run(self):
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self.stopping:
                try:
                    answer = client.post("/v1/readings", content=body(self.tried, self.sender), headers=ARROW)
                except httpx.HTTPError:
                    return
                finally:
                    self.tried += 1
                if answer.status_code == 200:
                    self.good.append(self.tried - 1)


def test_a_kill_while_clients_send_loses_nothing_acknowledged_and_doubles_nothing(tmp_path):
    """Killed twice; then all is sent again in another order: every reading is in the book exactly once."""
    book = new_book(tmp_path)
    names = [f"n1/{c}" for c in "abc"]
    lanes = {n: sent(0, sender=n)[0] for n in names}
    assert len(set(lanes.values())) == 3
    good, tried = {n: set() for n in names}, dict.fromkeys(names, 0)
    for _ in range(2):
        server = Serving(book, fold_every=0.1)
        senders = [Sender(server.url, n) for n in names]
        for s in senders:
            s.tried = tried[s.sender]
            s.start()
        while min(len(s.good) for s in senders) < 30:
            time.sleep(0.005)
        server.kill()
        server.client.close()
        for s in senders:
            s.join()
            good[s.sender] |= set(s.good)
            tried[s.sender] = s.tried

    with Serving(book):
        pass  # what the kill left in the journal is folded
    after_kill = kept(Book(book.root))
    assert len(after_kill) == len(set(after_kill))
    assert {t for n in names for t in sent(*good[n], sender=n)} <= set(after_kill)

    again = [(n, i) for n in names for i in range(tried[n])]
    random.Random(1).shuffle(again)
    with Serving(book) as server:
        for name, number in again:
            assert server.send(body(number, name)).status_code == 200
    assert kept(Book(book.root)) == sorted(t for n in names for t in sent(*range(tried[n]), sender=n))


def test_sigterm_folds_what_is_there_and_ends_well(tmp_path):
    book = new_book(tmp_path)
    with Serving(book, fold_every=3600) as server:
        server.wait_folded(0)
        for i in range(3):
            server.send(body(i))
    assert server.daemon.process.returncode == 0
    assert kept(book) == sent(0, 1, 2)


def test_attribute_folds_first(tmp_path):
    book = new_book(tmp_path)
    server = Serving(book, fold_every=3600)
    server.send(body(0))
    server.kill()
    server.client.close()
    (book.root / "journal" / "server" / "000000000009.wal").write_bytes(b"wkjrnl1\n" + b"torn")

    told = wattkeeper("attribute", "--book", book.root)

    assert told.returncode == 0, told.stderr
    assert "from 5 readings" in told.stdout
    assert kept(book) == sent(0)


def test_attributing_while_readings_come_in_ends_in_the_same_books(tmp_path):
    """Attributions between folds, in another process than the folds: no reading is passed over, the books balance."""
    book = new_book(tmp_path)
    with Serving(book, fold_every=0.1) as server:
        sender = Sender(server.url, "n1/a")
        sender.start()
        for _ in range(6):
            loop.attribute(Book(book.root))
        while len(sender.good) < 100:
            time.sleep(0.01)
        sender.stopping = True
        sender.join()
    loop.attribute(Book(book.root))

    assert kept(book) == sent(*range(sender.tried))
    last = 5 * sender.tried - 1  # 1 mJ each ms from the first reading on
    assert Book(book.root).postings.scan().select(pl.col("energy_mj").sum()).collect().item() == last
    assert loop.check(Book(book.root)).largest_mj == 0


def test_a_full_disk_is_answered_with_later_and_the_server_goes_on_once_there_is_room(tmp_path):
    """The journal on a file system of 1 MiB: 503 while it is full, nothing acknowledged lost, 200 after folding."""
    book = new_book(tmp_path)
    disk = book.root / "journal"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.strip()}")
    try:
        good = []
        with Serving(book, fold_every=3600) as server:
            for i in range(30):
                answer = server.send(body(i, rows=5000))  # 100 kB
                if answer.status_code != 200:
                    break
                good.append(i)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert "cannot be written: No space left on device. Make room" in answer.json()["error"]
            assert server.client.get("/healthz").status_code == 503
            assert server.send(body(0, "n1/b", rows=1)).status_code == 200  # a small one still fits
            assert server.client.get("/healthz").status_code == 200
        assert 5 <= len(good) <= 10
        with Serving(book, fold_every=0.1) as server:
            assert server.send(body(len(good), rows=5000)).status_code == 200
        expected = sorted(sent(*good, len(good), rows=5000) + sent(0, sender="n1/b", rows=1))
        assert kept(Book(book.root)) == expected
    finally:
        subprocess.run(["umount", disk], check=True)


def test_tokens_open_and_close_the_server(tmp_path):
    """Without any it is open on this machine; one that is added shuts out all others within seconds; revoked it fails."""
    book = new_book(tmp_path)
    token = wattkeeper("token", "add", "cluster-a", "--book", book.root).stdout.strip()
    assert re.fullmatch(r"wk_[\w-]{43}", token)
    assert token.encode() not in (book.root / "state.sqlite").read_bytes()
    assert "cluster-a" in wattkeeper("token", "list", "--book", book.root).stdout
    (tmp_path / "tokens").write_text("# by hand\nfrom-the-file\n")
    with Serving(book, "--token-file", str(tmp_path / "tokens")) as server:
        for bad in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {token}"}):
            answer = server.send(body(0), **bad)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert server.send(body(0), authorization=f"Bearer {token}").status_code == 200
        assert server.send(body(1), authorization="bearer from-the-file").status_code == 200
        assert server.client.get("/healthz").status_code == 200
        assert wattkeeper("token", "revoke", "cluster-a", "--book", book.root).returncode == 0
        while server.send(body(2), authorization=f"Bearer {token}").status_code == 200:
            time.sleep(0.1)
    assert kept(book)[:10] == sent(0, 1)
    again = wattkeeper("token", "revoke", "cluster-a", "--book", book.root)
    assert (again.returncode, again.stderr) == (1, "wattkeeper: No token named 'cluster-a' in this book.\n")


def test_a_server_for_the_network_wants_a_token(tmp_path):
    book = new_book(tmp_path)
    with pytest.raises(ConfigError, match=r"Without a token anyone who reaches 0\.0\.0\.0 could write"):
        serve(book.root, Settings(host="0.0.0.0"), print)


def test_a_server_that_takes_nothing_folds_what_agents_beside_it_journal(tmp_path):
    """Without --ingest: readings are sent away with the reason, on any address and without a token; health and metrics
    are answered, and the journal of a local agent comes into the book."""
    book = new_book(tmp_path)
    agent = Journal(journal_root(book.root), "n01")
    agent.append(body(0))
    with Serving(book, "--no-ingest") as server:
        server.wait_folded(5)
        agent.append(body(1))
        server.wait_folded(10)
        refused = server.send(body(2))
        assert (refused.status_code, refused.json()["error"]) == (
            404, "there is nothing at /v1/readings of this server; it takes no readings; start it with --ingest"
        )  # fmt: skip
        assert server.client.post("/api/v1/write").status_code == 404
        assert server.client.get("/healthz").json() == {"status": "ok"}
        assert server.metric("wattkeeper_journal_bytes") > 0
        with Serving(book, "--ingest") as other:  # nothing of the first one is in its way
            assert other.send(body(3)).status_code == 200
    agent.close()
    assert kept(book) == sent(0, 1, 3)


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path):
    book, other = new_book(tmp_path), tmp_path / "other"
    other.mkdir()
    with Serving(book) as server:
        taken = wattkeeper("serve", new_book(other).root, "--listen", f"127.0.0.1:{server.port}")
        twice = wattkeeper("serve", book.root, "--listen", "127.0.0.1:1")
    assert taken.returncode == twice.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{server.port}. Is the port taken?" in taken.stderr
    assert "is being written by another process" in twice.stderr
    assert "Traceback" not in taken.stderr + twice.stderr
    assert "Listening" not in taken.stderr + twice.stderr
    assert server.daemon.log.read_text() == f"Listening on {server.url}\n"


@pytest.mark.parametrize("listen", ["8470", "host:", "a:b", "a:99999"])
def test_a_wrong_address_is_told(tmp_path, monkeypatch, capsys, listen):
    monkeypatch.setattr(sys, "argv", ["wattkeeper", "serve", str(tmp_path), "--listen", listen])
    with pytest.raises(SystemExit):
        main()
    assert f"'{listen}' is not an address to listen on. Write 127.0.0.1:8470." in capsys.readouterr().err


def test_a_folding_process_that_dies_is_started_again(tmp_path):
    book = new_book(tmp_path)
    with Serving(book) as server:
        server.send(body(0))
        server.wait_folded(5)
        (child,) = subprocess.run(
            ["pgrep", "-P", str(server.daemon.process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        os.kill(int(child), 9)
        server.send(body(1))
        server.wait_folded(10)
        assert server.metric("wattkeeper_fold_faults_total") == 1
    assert kept(book) == sent(0, 1)


def test_health_and_metrics_are_what_monitors_expect(served):
    from prometheus_client.parser import text_string_to_metric_families

    names = {f.name for f in text_string_to_metric_families(served.client.get("/metrics").text)}
    assert {"wattkeeper_ingest_requests", "wattkeeper_ingest_readings", "wattkeeper_journal_bytes"} <= names
    assert json.loads(served.client.get("/healthz").text) == {"status": "ok"}
