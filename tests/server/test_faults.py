"""A real server under faults. At the end of each the books have what the simulated counters counted, to the millijoule."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import httpx
import polars as pl
import pyarrow as pa
import pytest

from tests.books.small import SITE, node
from tests.daemons import free_port
from tests.server.serving import ARROW, QUICK, START, Serving
from wattkeeper import loop
from wattkeeper.core.assets import Meter
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.live import Sample
from wattkeeper.lake.book import Book
from wattkeeper.lake.journal import MAGIC
from wattkeeper.server.app import AT_ONCE

FAULTS = str(Path(__file__).with_name("faults"))
STEP_MS = 100
ROWS = 20


class Device:
    """A GPU with a joule counter of its own, read each 100 ms: device k draws (k + 1) × 100 W."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.meter = Meter(f"n1/gpu{k}:sim", f"n1/gpu{k}", "energy_counter", "sim")

    def sample(self, i: int) -> Sample:
        """Return its i-th reading."""
        return Sample(self.meter.id, START + i * STEP_MS, self.counted_mj(i))

    def counted_mj(self, i: int) -> int:
        """Return what it counted until its i-th reading [mJ]."""
        return i * STEP_MS * (self.k + 1) * 100

    def batch(self, number: int, sender: str = "", rows: int = ROWS) -> bytes:
        """Return the readings of one batch, numbered from 0."""
        samples = [self.sample(number * rows + i) for i in range(rows)]
        return encode(Batch(f"{sender or f'agent{self.k}'}/run/{number}", samples, [], [self.meter]))


class Agent(threading.Thread):
    """Sends a device's batches in order, each until it is acknowledged, whatever happens to the server meanwhile."""

    def __init__(self, url: str, device: Device, batches: int) -> None:
        super().__init__(daemon=True)
        self.url, self.device, self.batches, self.acknowledged, self.paused = url, device, batches, 0, False

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while self.acknowledged < self.batches:
                try:
                    answer = client.post("/v1/readings", content=self.device.batch(self.acknowledged), headers=ARROW)
                except httpx.HTTPError:
                    time.sleep(0.02)  # as long as nobody is there
                    continue
                assert answer.status_code in (200, 503), answer.text
                self.acknowledged += answer.status_code == 200


def new_book(root: Path, gpus: int = 3) -> Book:
    return Book.create(root / "book", SITE + node("n1", gpus))


def kept(book: Book) -> list[tuple[str, int, int]]:
    """Return all readings in the book, as often as they are there."""
    return sorted(Book(book.root).readings.table.scan().select("meter", "time_ms", "value").collect().rows())


def posted_mj(book: Book) -> dict[str, int]:
    """Attribute, and return the energy of each asset [mJ]; the books balance."""
    loop.fold(Book(book.root), time.time_ns() // 1_000_000)
    loop.attribute(Book(book.root))
    opened = Book(book.root)
    assert loop.check(opened).largest_mj == 0
    return dict(opened.postings.scan().group_by("asset").agg(pl.col("energy_mj").sum()).collect().rows())


def balanced(book: Book, devices: list[Device], batches: int) -> None:
    """Every reading is in the book once, and the ledger has what each device counted from its first to its last."""
    readings = sorted(tuple(d.sample(i)) for d in devices for i in range(batches * ROWS))
    posted = posted_mj(book)
    assert kept(book) == readings
    assert posted == {f"n1/gpu{d.k}": d.counted_mj(batches * ROWS - 1) for d in devices}


def begun(url: str, devices: list[Device], batches: int) -> list[Agent]:
    agents = [Agent(url, d, batches) for d in devices]
    for a in agents:
        a.start()
    return agents


def ended(agents: list[Agent]) -> None:
    for a in agents:
        a.join(120)
        assert a.acknowledged == a.batches


def send_all(server: Serving, devices: list[Device], numbers: Iterable[int]) -> None:
    for number in numbers:
        for d in devices:
            assert server.send(d.batch(number)).status_code == 200


def until(true, server: Serving | None = None) -> None:
    end = time.monotonic() + 90
    while not true():
        assert time.monotonic() < end, server and server.daemon.log.read_text()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_server_killed_at_random_points_ends_in_balanced_books(tmp_path, seed):
    """Six kills, each after a random number of acknowledgements, and a new server at once, while the old one's folding
    may still be at work."""
    chance, book, port = random.Random(seed), new_book(tmp_path), free_port()
    devices, batches = [Device(k) for k in range(3)], 300
    agents = begun(f"http://127.0.0.1:{port}", devices, batches)
    for _ in range(6):
        server = Serving(book, fold_every=0.1, port=port)
        goal = sum(a.acknowledged for a in agents) + chance.randrange(1, 120)
        until(lambda: sum(a.acknowledged for a in agents) >= goal or not any(a.is_alive() for a in agents))  # noqa: B023
        time.sleep(chance.random() / 50)  # into the middle of whatever is being done
        server.daemon.process.send_signal(signal.SIGKILL)
        server.daemon.process.wait()
        server.client.close()
    with Serving(book, fold_every=0.1, port=port):
        ended(agents)
    balanced(book, devices, batches)


IN_SERVER = [
    ("wattkeeper.lake.journal:Journal.append_many", "before"),
    ("wattkeeper.lake.journal:Journal.append_many", "after"),  # on disk, and nobody told
    ("wattkeeper.lake.journal:_write", "half"),
]


@pytest.mark.parametrize(("where", "when"), IN_SERVER)
def test_a_server_killed_around_its_journal_loses_and_doubles_nothing(tmp_path, where, when):
    book, port, flag = new_book(tmp_path), free_port(), tmp_path / "killed"
    env = {"PYTHONPATH": FAULTS, "WATTKEEPER_TEST_KILL": f"{where}|{when}|12|{flag}"}
    devices, batches = [Device(0), Device(1)], 40
    server = Serving(book, fold_every=0.1, port=port, env=env)
    agents = begun(server.url, devices, batches)
    assert server.daemon.process.wait(60) == -signal.SIGKILL
    server.client.close()
    assert flag.exists()
    with Serving(book, fold_every=0.1, port=port, env=env):
        ended(agents)
    balanced(book, devices, batches)


IN_FOLD = [
    ("wattkeeper.lake.state:State.register", "after"),
    ("wattkeeper.lake.readings:ReadingsStore.append", "after"),
    ("wattkeeper.lake.delta:Table.commit", "before"),
    ("wattkeeper.lake.delta:Table.commit", "after"),
    ("wattkeeper.lake.state:State.log_import", "before"),
    ("wattkeeper.lake.state:State.see", "before"),
    ("wattkeeper.lake.journal:Reader.forget", "before"),
    ("wattkeeper.lake.journal:Reader.forget", "after"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("where", "when"), IN_FOLD)
def test_folding_killed_at_any_step_is_made_good(tmp_path, where, when):
    """The process that folds dies in its second fold, and the server with it; the next ones make it good."""
    book, flag, devices, some = new_book(tmp_path), tmp_path / "killed", [Device(0), Device(1)], 5
    nth = 5 if where.endswith("Table.commit") else 2  # four tables are committed in a fold
    env = {"PYTHONPATH": FAULTS, "WATTKEEPER_TEST_KILL": f"{where}|{when}|{nth}|{flag}"}
    server = Serving(book, fold_every=0.1, env=env)
    send_all(server, devices, range(some))
    until(lambda: len(kept(book)) == 2 * some * ROWS, server)
    send_all(server, devices, range(some, 2 * some))
    until(flag.exists, server)
    server.daemon.process.send_signal(signal.SIGKILL)
    server.daemon.process.wait()
    server.client.close()
    with Serving(book, fold_every=0.1, env=env) as server:
        send_all(server, devices, range(some, 3 * some))  # half of it again
    balanced(book, devices, 3 * some)


class Disk:
    """A small file system of its own, until the end of a `with`."""

    def __init__(self, root: Path, *options: str) -> None:
        self.root, self.options = root / "disk", options
        self.root.mkdir()
        self.mount()

    def mount(self) -> None:
        """Mount it. Skips the test where that is not allowed."""
        done = subprocess.run(["mount", *self.options, self.root], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no right to mount a small disk: {done.stderr.strip()}")

    def unmount(self) -> None:
        subprocess.run(["umount", self.root], check=True)

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_fault: object) -> None:
        subprocess.run(["umount", "--lazy", self.root], check=False)


def test_a_book_on_a_full_disk_keeps_what_was_acknowledged_and_takes_the_rest_once_there_is_room(tmp_path):
    """Book and journal on one disk that something else fills up: folding fails and is told, sending is answered 503."""
    with Disk(tmp_path, "-t", "tmpfs", "-o", "size=12m", "none") as disk:
        book, devices, batches = new_book(disk.root), [Device(0), Device(1)], 60
        with Serving(book, fold_every=0.1) as server:
            agents = begun(server.url, devices, batches)
            until(lambda: sum(a.acknowledged for a in agents) >= 20)
            full = disk.root / "ballast"
            with full.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
            until(lambda: server.client.get("/healthz").status_code == 503, server)
            assert "cannot be written: No space left on device" in server.client.get("/healthz").json()["error"]
            refused = server.send(devices[0].batch(0))
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            full.unlink()
            ended(agents)
            assert server.client.get("/healthz").json() == {"status": "ok"}
        balanced(book, devices, batches)


def read_only_disk(root: Path) -> tuple[Disk, Path]:
    """Return a disk that turns read-only at an error, as most do, and the file that makes the kernel see one."""
    image = root / "image"
    with image.open("wb") as file:
        file.truncate(48 * 2**20)
    made = subprocess.run(["mkfs.ext4", "-q", image], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no disk to be made: {made.stderr.strip()}")
    disk = Disk(root, "-o", "loop,errors=remount-ro", str(image))
    device = next(
        words.split()[0] for words in Path("/proc/mounts").read_text().splitlines() if str(disk.root) in words
    )
    trigger = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
    if not os.access(trigger, os.W_OK):
        disk.unmount()
        pytest.skip("no right to make a disk fail")
    return disk, trigger


@pytest.mark.skipif(not shutil.which("mkfs.ext4") or os.geteuid() != 0, reason="needs root and mkfs.ext4")
def test_a_disk_that_turns_read_only_is_answered_with_later_and_nothing_acknowledged_is_lost(tmp_path):
    """503 with the reason while it is; a server does not even start on it; mounted anew the rest is taken."""
    disk, trigger = read_only_disk(tmp_path)
    with disk:
        book, devices, batches, port = new_book(disk.root), [Device(0), Device(1)], 60, free_port()
        book.state.engine.dispose()  # or this process keeps the disk busy
        os.sync()  # the book was made long ago
        with Serving(book, fold_every=0.1, port=port) as server:
            agents = begun(server.url, devices, batches)
            until(lambda: sum(a.acknowledged for a in agents) >= 20)
            trigger.write_text("a fault of this test\n")
            until(lambda: server.client.get("/healthz").status_code == 503, server)
            assert "cannot be written: Read-only file system" in server.client.get("/healthz").json()["error"]
            refused = server.send(devices[0].batch(0))
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        words = [str(Path(sys.executable).with_name("wattkeeper")), "serve", str(book.root), "--listen", "127.0.0.1:1"]
        told = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | QUICK, timeout=60)
        assert (told.returncode, told.stderr.count("\n")) == (1, 1)
        assert re.search("read-only|readonly", told.stderr, re.IGNORECASE), told.stderr
        disk.unmount()
        disk.mount()
        with Serving(book, fold_every=0.1, port=port):
            ended(agents)
        balanced(book, devices, batches)


def killed_before_folding(book: Book, devices: list[Device], batches: int) -> Path:
    """Have a server acknowledge batches and die before any is folded; return the segment they are in."""
    server = Serving(book, fold_every=3600)
    until(lambda: server.metric("wattkeeper_fold_timestamp_seconds"), server)
    (folding,) = subprocess.run(
        ["pgrep", "-P", str(server.daemon.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(folding), signal.SIGSTOP)
    send_all(server, devices, range(batches))
    server.daemon.process.send_signal(signal.SIGKILL)
    server.daemon.process.wait()
    os.kill(int(folding), signal.SIGKILL)
    server.client.close()
    (segment,) = (book.root / "journal" / "server").glob("*.wal")
    return segment


def test_a_torn_end_of_the_journal_costs_nothing_that_was_acknowledged(tmp_path):
    """Half a record after the last whole one, as a kill leaves it: cut off, told, and the balance is whole."""
    book, devices = new_book(tmp_path), [Device(0), Device(1)]
    segment = killed_before_folding(book, devices, 10)
    torn = devices[0].batch(10)[:50]
    with segment.open("ab") as file:
        file.write(len(torn * 2).to_bytes(4, "little") + b"\0\0\0\0" + torn)
    with Serving(book, fold_every=0.1) as server:
        assert f"{segment}: 58 bytes of an unfinished batch were cut off." in server.daemon.log.read_text()
        send_all(server, devices, range(10, 12))
    balanced(book, devices, 12)


def test_damage_in_the_middle_of_the_journal_costs_that_batch_and_no_joule(tmp_path):
    """A bit that the disk has turned over in the fourth of ten batches: told, the others are there, and as the counter
    survived, the energy is whole."""
    book, devices = new_book(tmp_path, 1), [Device(0)]
    segment = killed_before_folding(book, devices, 10)
    data = bytearray(segment.read_bytes())
    at = data.index(b"agent0/run/3")
    data[at] ^= 1
    segment.write_bytes(data)
    with Serving(book, fold_every=0.1) as server:
        send_all(server, devices, range(10, 12))
    size = 8 + len(devices[0].batch(3))  # each as long as the next but for its number, all of one digit
    begin = len(MAGIC) + 3 * size
    assert f"{segment}: bytes {begin} to {begin + size} are damaged and were left out." in server.daemon.log.read_text()
    assert posted_mj(book) == {"n1/gpu0": devices[0].counted_mj(12 * ROWS - 1)}
    lost = {tuple(devices[0].sample(i)) for i in range(3 * ROWS, 4 * ROWS)}
    assert set(kept(book)) == {tuple(devices[0].sample(i)) for i in range(12 * ROWS)} - lost


def test_batches_late_doubled_and_in_any_order_end_in_the_same_books(tmp_path):
    """Each batch two or three times, shuffled, some of them after the books of that hour were made."""
    book, devices, batches, chance = new_book(tmp_path), [Device(0), Device(1)], 30, random.Random(7)
    order = [(d, i) for d in devices for i in range(batches) for _ in range(chance.choice((2, 3)))]
    chance.shuffle(order)
    late = {(0, 4), (1, 0), (1, 29)}
    with Serving(book, fold_every=0.1) as server:
        for d, i in order:
            if (d.k, i) not in late:
                assert server.send(d.batch(i)).status_code == 200
        server.wait_folded((2 * batches - len(late)) * ROWS)
        before = posted_mj(book)
        assert before["n1/gpu1"] == devices[1].counted_mj(29 * ROWS - 1) - devices[1].counted_mj(ROWS)
        for d, i in order:
            if (d.k, i) in late:
                assert server.send(d.batch(i)).status_code == 200
    balanced(book, devices, batches)


def test_a_slow_disk_is_waited_for_and_what_is_too_much_is_asked_for_later(tmp_path):
    """Nothing comes to the disk for a while: 512 requests wait, the others are answered 503 at once, none is dropped."""
    book, devices, gate = new_book(tmp_path), [Device(0), Device(1)], tmp_path / "gate"
    env = {"PYTHONPATH": FAULTS, "WATTKEEPER_TEST_GATE": str(gate)}
    batches = [(d, i) for i in range(300) for d in devices]

    async def send(client: httpx.AsyncClient, d: Device, i: int) -> int:
        answer = await client.post("/v1/readings", content=d.batch(i), headers=ARROW)
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "5"
            assert answer.json() == {"error": "too many requests at once"}
        return answer.status_code

    async def all_at_once(url: str) -> list[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            sending = [asyncio.create_task(send(client, d, i)) for d, i in batches]
            while sum(s.done() for s in sending) < len(batches) - AT_ONCE:
                await asyncio.sleep(0.01)
            assert {s.result() for s in sending if s.done()} == {503}
            gate.touch()
            return list(await asyncio.gather(*sending))

    with Serving(book, fold_every=0.1, env=env) as server:
        statuses = asyncio.run(all_at_once(server.url))
        assert (statuses.count(200), statuses.count(503)) == (AT_ONCE, len(batches) - AT_ONCE)
        for (d, i), status in zip(batches, statuses, strict=True):
            if status == 503:
                assert server.send(d.batch(i)).status_code == 200
    balanced(book, devices, 300)


def rows(time_ms: int = START, value: float = 1, declared: list | None = None) -> bytes:
    """Return a batch of one reading as no agent would send it."""
    fields = [pa.field("meter", pa.int32(), False), pa.field("time_ms", pa.int64(), False)]
    fields.append(pa.field("value", pa.int64() if isinstance(value, int) else pa.float64(), False))
    head = {"id": "bad/run/0", "meters": ["n1/gpu0:sim"], "assets": [], "declared": declared or []}
    schema = pa.schema(fields, {"wattkeeper": json.dumps(head)})
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, schema) as writer:
        writer.write_table(pa.table([[0], [time_ms], [value]], schema=schema))
    return out.getvalue().to_pybytes()


def test_what_is_refused_leaves_the_books_as_they_are(tmp_path):
    """Between good batches: other units, NaN, times of tomorrow and of 1970, text for numbers, a broken stream, no token."""
    book, devices = new_book(tmp_path, 1), [Device(0)]
    tomorrow = START + 30 * 86_400_000
    meter = {"id": "n1/gpu0:sim", "asset": "n1/gpu0", "quantity": "kWh"}
    json_nan = b'{"readings": [{"meter": "n1/gpu0:sim", "time_ms": 1795267958098, "value": NaN}]}'
    bad = [
        (rows(value=float("nan")), ARROW, 400, "columns are .*value double.*, not "),
        (json_nan, {"content-type": "application/json"}, 400, "not the JSON that is wanted"),
        (rows(declared=[meter]), ARROW, 400, "quantity 'kWh'. Choose one of energy_counter"),
        (rows(time_ms=tomorrow), ARROW, 400, "s ahead of this clock; set the sender's clock"),
        (rows(time_ms=1000), ARROW, 400, "before the year 2000; set the sender's clock"),
        (devices[0].batch(3)[:-40], ARROW, 400, "not a whole Arrow stream"),
        (b"x" * 70_000, ARROW, 413, "larger than 65536 bytes"),
        (devices[0].batch(3), ARROW | {"authorization": "Bearer wrong"}, 401, "not a good one"),
    ]
    (tmp_path / "tokens").write_text("good\n")
    with Serving(book, "--max-body", "0.0625", "--token-file", str(tmp_path / "tokens"), fold_every=0.1) as server:
        server.client.headers["authorization"] = "Bearer good"
        for i, (data, headers, status, why) in enumerate(bad):
            assert server.send(devices[0].batch(i)).status_code == 200
            answer = server.client.post("/v1/readings", content=data, headers=headers)
            assert (answer.status_code, bool(re.search(why, answer.json()["error"]))) == (status, True), answer.text
    balanced(book, devices, len(bad))


def test_readings_out_of_order_and_counters_that_go_back_keep_every_joule(tmp_path):
    """Times in no order within a batch; a counter that begins again at 0 after a driver reload, so that the step over it is
    the one thing nobody measured: it is imputed at the power before it."""
    book, device, n = new_book(tmp_path), Device(1), 40 * ROWS
    after = n // 2
    base = device.counted_mj(after)
    samples = [device.sample(i) for i in range(n)]
    samples = [s if i < after else s._replace(value=s.value - base) for i, s in enumerate(samples)]
    chance = random.Random(3)
    with Serving(book, fold_every=0.1) as server:
        for number in range(40):
            some = samples[number * ROWS : (number + 1) * ROWS]
            chance.shuffle(some)
            batch = Batch(f"agent/run/{number}", some, [], [device.meter])
            assert server.send(encode(batch)).status_code == 200
    # the counter shows 0 again after 400 steps: 200 W for its 100 ms are what was drawn, and what is imputed
    assert posted_mj(book) == {"n1/gpu1": device.counted_mj(n - 1)}
