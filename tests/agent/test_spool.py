"""The spool: never full, never over its limit, whatever kills it; and what a server may have is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattkeeper.agent.spool import SEGMENTS, Spool
from wattkeeper.core.batch import Batch, decode, encode
from wattkeeper.core.curve import EnergyCurve
from wattkeeper.core.live import Sample
from wattkeeper.lake.journal import Journal, Reader

T0 = 1_795_000_000_000
LIMIT = 64 * 1024


def quantity(meter):
    return {"c": "energy_counter", "p": "power"}.get(meter[0], "")


def spool_of(root, limit=LIMIT):
    return Spool(root, "n01", limit_bytes=limit, quantity=quantity)


def batch(number, rows=20, step_ms=1000):
    """Batch `number`: a counter that gains 7 mJ a reading, and a power of 7 mW, each step_ms."""
    first = (number - 1) * rows
    at = [(T0 + step_ms * i, 7 * i) for i in range(first, first + rows)]
    return Batch(f"n01/a/{number:06}", [s for t, v in at for s in (Sample("c", t, v), Sample("p", t, 7))])


def fill(spool, count, start=1, **more):
    for number in range(start, start + count):
        spool.append(encode(batch(number, **more)))


def told(root):
    """Return all batches that stand in the spool."""
    reader = Reader(root, "n01")
    batches = [decode(data) for _, data in reader.read()]
    assert reader.doubts == []
    return batches


def counter(batches):
    return [(s.time_ms, s.value) for b in batches for s in b.samples if s.meter == "c"]


def lost(batches, meter="c"):
    return sum(loss.readings for b in batches for loss in b.lost if loss.meter == meter)


def on_disk(root):
    return sum(p.stat().st_size for p in (root / "n01").iterdir())


def test_a_spool_takes_what_comes_within_its_limit(tmp_path, caplog):
    """500 batches of some 2 kB into 64 KiB: never over it, one warning, the counter's ends there, each loss counted."""
    spool = spool_of(tmp_path)
    most = 0
    for number in range(1, 501):
        spool.append(encode(batch(number)))
        most = max(most, on_disk(tmp_path))
    batches = told(tmp_path)
    kept = counter(batches)

    assert most <= LIMIT
    assert (kept[0], kept[-1]) == ((T0, 0), (T0 + 9_999_000, 7 * 9_999))
    assert kept == sorted(kept)
    assert len(kept) + lost(batches) == 10_000
    assert spool.lost == lost(batches) + lost(batches, "p")
    assert len({b.id for b in batches}) == len(batches)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "detail goes from now on, the oldest last" in caplog.records[0].message


def test_the_oldest_is_thinned_last_and_no_stretch_much_more_than_another(tmp_path):
    """Once full, the newest closed segments are thinned first; the two oldest and the newest never."""
    spool = spool_of(tmp_path)
    number = 0
    while not spool.lost:
        number += 1
        fill(spool, 1, number)
    steps = np.diff([t for t, _ in counter(told(tmp_path))]) // 1000
    thinned = np.flatnonzero(steps == 2)
    assert thinned[0] > len(steps) // 2
    assert steps[: thinned[0]].max() == 1  # all before is as it was

    fill(spool, 300, number + 1)
    whole = np.diff([t for t, _ in counter(told(tmp_path))]) // 1000
    oldest = int(np.argmax(whole > 1))
    inner = whole[oldest : -len(batch(1).samples) * 3]
    assert oldest >= 40  # two segments of 4 KiB
    assert whole[-1] == 1
    assert np.percentile(inner, 75) <= 4 * np.percentile(inner, 25)


def test_segments_that_may_be_on_their_way_stay(tmp_path):
    """What a reader has come to is not replaced under it: it reads each batch once, though all is thinned meanwhile."""
    spool = spool_of(tmp_path)
    fill(spool, 20)
    reading = spool.read()
    seen = [decode(next(reading)[1]) for _ in range(14)]  # in the fifth segment
    fill(spool, 200, 21)
    seen += [decode(data) for _, data in reading]
    kept = counter(seen)

    assert [b.id for b in seen[:14]] == [f"n01/a/{i:06}" for i in range(1, 15)]
    assert kept == sorted(set(kept))
    assert len({b.id for b in seen}) == len(seen)


def test_what_is_delivered_meanwhile_is_gone_and_the_rest_follows(tmp_path):
    """A server that takes a batch for each four written: together they are the whole counter, in order."""
    spool = spool_of(tmp_path)
    delivered = []
    for number in range(1, 300):
        fill(spool, 1, number)
        if number % 4 == 0:
            position, data = next(spool.read())
            delivered.append(decode(data))
            spool.forget(position)
    for position, data in spool.read():
        delivered.append(decode(data))
        spool.forget(position)
    kept = counter(delivered)

    assert kept == sorted(set(kept))
    assert (kept[0][1], kept[-1][1]) == (0, 7 * (299 * 20 - 1))
    assert len(kept) + lost(delivered) == 299 * 20
    assert told(tmp_path) == []


def test_a_spool_goes_on_where_another_run_ended(tmp_path):
    """Opened and closed twenty times: small segments too are thinned, and nothing is lost but what is counted."""
    for run in range(20):
        spool = spool_of(tmp_path)
        fill(spool, 12, 12 * run + 1)
        spool.close()
    batches = told(tmp_path)

    assert on_disk(tmp_path) <= LIMIT
    assert len(counter(batches)) + lost(batches) == 20 * 12 * 20


@pytest.mark.parametrize("stop", ["before", "after the first", "before the last"])
def test_a_swap_that_was_cut_short_is_ended_by_the_next_run(tmp_path, monkeypatch, stop):
    """Killed once the new segment is complete, with none, some or all of the old ones gone: the new one stands."""
    spool = spool_of(tmp_path)
    fill(spool, 12)
    numbers = spool._segments()
    first, last = numbers[1], numbers[3]
    spool.stage([encode(batch(99))])
    real, gone = Path.unlink, []

    class KilledError(Exception):
        pass

    def unlink(path, **more):
        if stop == "before" or (stop == "after the first" and gone):
            raise KilledError
        gone.append(path)
        real(path, **more)

    def rename(path, to, _real=Path.rename):
        if stop == "before the last" and path.suffix == ".ready":
            raise KilledError
        return _real(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KilledError):
            spool.swap(first, last)
    before = [b.id for b in told(tmp_path)]
    spool.close()
    spool_of(tmp_path).close()
    after = [b.id for b in told(tmp_path)]

    assert "n01/a/000099" not in before
    assert after.count("n01/a/000099") == 1
    assert len(after) == len(set(after))
    assert [p.name for p in (tmp_path / "n01").iterdir() if p.suffix == ".ready"] == []


def test_a_record_that_is_no_batch_is_left_with_its_neighbour(tmp_path):
    """Bytes of something else in the middle: the others are thinned around it, and it is still there."""
    spool = spool_of(tmp_path)
    fill(spool, 10)
    spool.append(b"something else")
    fill(spool, 200, 11)
    data = [data for _, data in spool.read()]

    assert b"something else" in data
    assert spool.lost > 0
    assert on_disk(tmp_path) <= LIMIT


def test_damage_is_left_out_and_told(tmp_path):
    """A record with a flipped bit in a segment that is thinned: 20 readings are not there, and it is said where."""
    spool = spool_of(tmp_path)
    fill(spool, 14)
    path = spool._path(spool._segments()[4])
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    fill(spool, 100, 15)
    batches = [decode(b) for _, b in spool.read()]

    assert len(counter(batches)) + lost(batches) == 114 * 20 - 20
    assert len(set(spool.doubts)) == 1
    assert "are damaged and were left out" in spool.doubts[0]


WRITE = """
import sys
from pathlib import Path
from wattkeeper.agent.spool import Spool
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.live import Sample
quantity = {"c": "energy_counter", "p": "power"}.get
spool = Spool(Path(sys.argv[1]), "n01", limit_bytes=int(sys.argv[3]), quantity=quantity)
for number in range(int(sys.argv[2]), 10**6):
    at = [(1_795_000_000_000 + 1000 * i, 7 * i) for i in range(20 * number - 20, 20 * number)]
    samples = [s for t, v in at for s in (Sample("c", t, v), Sample("p", t, 7))]
    spool.append(encode(Batch(f"n01/a/{number:06}", samples)))
    print(number, flush=True)
"""


def test_kill_9_in_the_midst_of_thinning_counts_nothing_twice_and_loses_nothing(tmp_path):
    """Six times, at any moment: what was said to be on disk is there or counted as lost, each reading once."""
    number = 1
    for run in range(6):
        command = [sys.executable, "-c", WRITE, str(tmp_path), str(number), str(LIMIT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            for said, line in enumerate(writer.stdout):
                number = int(line) + 1
                if said > 60 + 17 * run:
                    os.kill(writer.pid, signal.SIGKILL)
        Journal(tmp_path, "n01").close()  # what a next run does first
        batches = told(tmp_path)
        kept = counter(batches)
        safe = kept[-1][1] // 7 + 1  # the last one may be written and not yet said

        assert safe in ((number - 1) * 20, number * 20)
        assert kept == sorted(set(kept))
        assert len(kept) + lost(batches) == safe
        assert on_disk(tmp_path) <= LIMIT + LIMIT // SEGMENTS
        number = safe // 20 + 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 200), st.booleans(), st.integers(0, 5)), min_size=5, max_size=60),
    st.integers(20, 60),
)
def test_the_counters_energy_is_the_same_whatever_happened(tmp_path_factory, events, kilobytes):
    """Batches of any size, restarts and deliveries in any order: all that is delivered is the counter to the mJ."""
    root = tmp_path_factory.mktemp("spool")
    spool, delivered, value, at = spool_of(root, kilobytes * 1024), [], 0, 0
    for number, (rows, again, taken) in enumerate(events):
        samples = []
        for _ in range(rows):
            at, value = at + 1, value + at % 13
            samples.append(Sample("c", T0 + 1000 * at, value))
        spool.append(encode(Batch(f"n01/a/{number}", samples)))
        for _, (position, data) in zip(range(taken), spool.read(), strict=False):
            delivered.append(decode(data))
            spool.forget(position)
        if again:
            spool.close()
            spool = spool_of(root, kilobytes * 1024)
    delivered += [decode(data) for _, data in spool.read()]
    spool.close()
    readings = np.array(counter(delivered), np.int64).T
    curve = EnergyCurve.from_counter(*readings)

    assert int(curve.energy_mj[-1]) == value
    assert len(readings[0]) + lost(delivered) == at
    assert len({b.id for b in delivered}) == len(delivered)
