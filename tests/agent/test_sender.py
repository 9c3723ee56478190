"""Delivery over real HTTP: in order, again after any failure, and nothing forgotten before it is taken."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
import subprocess

import pytest

from tests.agent.receiver import Receiver
from tests.daemons import free_port
from wattkeeper.agent.sender import Sender
from wattkeeper.config import AgentConfig
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.errors import ConfigError, SourceError
from wattkeeper.core.live import Sample
from wattkeeper.lake.journal import Journal


@pytest.fixture
def receiver():
    made = Receiver(token="s3cret")
    yield made
    made.stop()


def batch(i):
    return encode(Batch(f"n01/a/{i:06}", [Sample("g", 1_795_000_000_000 + i, i)]))


@pytest.fixture
def spool(tmp_path):
    """A spool with batches 0 to 4."""
    journal = Journal(tmp_path, "n01", segment_bytes=1000)
    for i in range(5):
        journal.append(batch(i))
    yield journal
    journal.close()


@pytest.fixture
def sender_of(spool):
    """Make senders of the spool, and close them at the end."""
    made = []

    def make(url, **more):
        config = AgentConfig(url=url, **{"token": "s3cret", "backoff_max_s": 0.05, **more})
        made.append(Sender(config, spool))
        return made[-1]

    yield make
    for one in made:
        asyncio.run(one.close())


def waiting(spool):
    return len(list(spool.read()))


def test_batches_arrive_in_order_with_type_and_token_and_are_forgotten(sender_of, spool, receiver):
    asyncio.run(sender_of(receiver.url).drain())

    assert receiver.values == [0, 1, 2, 3, 4]
    assert set(receiver.asked) == {
        ("POST", "/watts/v1/readings", "application/vnd.apache.arrow.stream", "Bearer s3cret")
    }
    assert waiting(spool) == 0


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_what_the_server_does_not_take_now_stays(sender_of, spool, receiver, status):
    """The third batch is answered so: two are delivered, three wait, and go the next time."""
    receiver.answers = [200, 200, status]
    sender = sender_of(receiver.url)

    async def main():
        with pytest.raises(SourceError, match=f"server {receiver.url} answers {status}"):
            await sender.drain()
        left = waiting(spool)
        await sender.drain()
        return left

    assert asyncio.run(main()) == 3
    assert receiver.values == [0, 1, 2, 3, 4]


def test_a_batch_that_will_never_be_taken_is_put_aside(sender_of, spool, receiver, caplog):
    """400 for the second: the others go on, and it is kept for a person to look at."""
    receiver.answers = [200, 400]
    sender = sender_of(receiver.url)
    asyncio.run(sender.drain())
    aside = Journal(spool.folder.parent, "n01.refused")

    assert receiver.values == [0, 2, 3, 4]
    assert [b for _, b in aside.read()] == [batch(1)]
    assert (sender.sent, sender.refused, waiting(spool)) == (4, 1, 0)
    assert 'answers 400 Bad Request: {"error": "no such meter"}. The batch is kept in' in caplog.records[0].message
    aside.close()


def test_a_server_that_is_away_is_told_once_and_gets_everything_when_it_is_back(sender_of, spool, caplog):
    """Away from the start, then there: one line each; batches that came meanwhile arrive too."""
    caplog.set_level(logging.INFO)
    port = free_port()
    sender = sender_of(f"http://127.0.0.1:{port}/watts")

    async def until(true):
        async with asyncio.timeout(30):
            while not true():
                await asyncio.sleep(0.01)

    async def main():
        task = asyncio.create_task(sender.run())
        await until(lambda: sender.fault)
        spool.append(batch(5))
        sender.wake()
        receiver = Receiver(port, "s3cret")
        await asyncio.to_thread(receiver.wait_for, 6)
        spool.append(batch(6))
        sender.wake()
        await asyncio.to_thread(receiver.wait_for, 7)
        await until(lambda: not waiting(spool))
        task.cancel()
        receiver.stop()
        return receiver.values

    assert asyncio.run(main()) == [0, 1, 2, 3, 4, 5, 6]
    said = [r.message for r in caplog.records]
    assert len(said) == 2
    assert (
        "cannot be reached: Connection refused. Check url, network and certificate. Readings wait on disk." in said[0]
    )
    assert said[1].endswith("takes readings again.")


def test_a_connection_that_breaks_before_the_answer_sends_the_batch_again(sender_of, spool, receiver):
    """Taken, but the answer is lost: it is sent twice under one id, which counts once."""
    sender = sender_of(receiver.url)
    link = sender._link
    real, broken = link._connection.getresponse, []

    def lose_the_first():
        answer = real()
        if not broken:
            broken.append(answer)
            answer.read()
            raise ConnectionResetError("Connection reset by peer")
        return answer

    link._connection.getresponse = lose_the_first

    async def main():
        with pytest.raises(SourceError, match="cannot be reached: Connection reset by peer"):
            await sender.drain()
        await sender.drain()

    asyncio.run(main())
    assert len(receiver.batches) == 6
    assert receiver.values == [0, 1, 2, 3, 4]


def test_a_connection_that_the_server_closed_while_idle_is_no_fault(sender_of, spool, receiver, caplog):
    """Servers close connections after some seconds without a request: the next batch opens one anew, in silence."""
    caplog.set_level(logging.INFO)
    sender = sender_of(receiver.url)

    async def main():
        await sender.drain()
        sender._link._connection.sock.shutdown(socket.SHUT_RDWR)  # what a write then finds is a broken pipe
        spool.append(batch(5))
        await sender.drain()

    asyncio.run(main())
    assert receiver.values == [0, 1, 2, 3, 4, 5]
    assert len(receiver.batches) == 6
    assert caplog.records == []


def test_a_token_file_is_read_anew_each_time(sender_of, spool, receiver, tmp_path):
    """A wrong token is named; the right one in its place works without a restart."""
    (tmp_path / "token").write_text("old\n")
    sender = sender_of(receiver.url, token="", token_file=tmp_path / "token")

    async def main():
        with pytest.raises(SourceError, match=r"answers 401 Unauthorized: \{\}\. Check token or token_file"):
            await sender.drain()
        (tmp_path / "token").write_text("s3cret\n")
        await sender.drain()

    asyncio.run(main())
    assert receiver.values == [0, 1, 2, 3, 4]


def test_a_full_disk_that_cannot_note_what_was_sent_sends_nothing_twice(sender_of, spool, receiver):
    """Forgetting fails once: the next try goes on behind what was taken."""
    sender = sender_of(receiver.url)
    real, failed = sender._reader.forget, []

    def fail_once(position):
        if not failed:
            failed.append(position)
            raise SourceError("No space left on device.")
        real(position)

    sender._reader.forget = fail_once

    async def main():
        with pytest.raises(SourceError, match="No space left"):
            await sender.drain()
        await sender.drain()

    asyncio.run(main())
    assert len(receiver.batches) == 5
    assert waiting(spool) == 0


def test_a_server_whose_clock_differs_is_told_once(sender_of, spool, receiver, caplog):
    """Five batches, an hour ahead: one line, and all are delivered."""
    receiver.ahead_s = 3600.0
    asyncio.run(sender_of(receiver.url).drain())

    assert len(receiver.batches) == 5
    assert [r.message for r in caplog.records] == [
        f"server {receiver.url} has a clock 3600 s ahead of this machine's. Is NTP running on both?"
    ]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_server_s_certificate_is_checked_against_the_one_that_is_named(sender_of, spool, tmp_path):
    """Signed by nobody we know it is refused by name; with ca_file it is trusted."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    receiver = Receiver(token="s3cret", context=context)
    url = f"https://localhost:{receiver.port}"

    async def main():
        with pytest.raises(SourceError, match=r"certificate verify failed.*Check url, network and certificate"):
            await sender_of(url).drain()
        await sender_of(url, ca_file=certificate).drain()

    try:
        asyncio.run(main())
    finally:
        receiver.stop()
    assert receiver.values == [0, 1, 2, 3, 4]


def test_a_ca_file_that_is_none_is_named(sender_of, spool, tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate\n")
    with pytest.raises(ConfigError, match=r"Cannot use ca_file .*ca.pem"):
        sender_of("https://localhost", ca_file=tmp_path / "ca.pem")
