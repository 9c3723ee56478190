"""The event loop, against a slow and obvious one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.simulate import slow
from wattkeeper.plan.simulate.events import NONE, Parts, SimulationError, simulate


def parts_of(*rows: tuple[int, int, int]) -> Parts:
    """Return parts of (hold_ms, gpus, duration_ms); a fourth number is the part it follows."""
    columns = [[r[k] if k < len(r) else NONE for r in rows] for k in range(4)]
    return Parts(*(np.array(c, np.int64) for c in columns))


@st.composite
def histories(draw: st.DrawFn) -> tuple[Parts, int, int]:
    """Draw parts with many ties, some of them in chains, a cluster and a depth."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, gpus = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    after = np.full(n, NONE, np.int64)
    if draw(st.booleans()):
        for i in range(1, n):
            if rng.random() < 0.4:
                after[i] = i - 1
    order = rng.permutation(n)  # followers may stand before what they follow
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    after = np.where(after == NONE, NONE, place[after])[order]
    parts = Parts(
        rng.integers(0, draw(st.sampled_from([5, 60, 300])), n),
        rng.integers(1, gpus + 1, n),
        rng.integers(1, draw(st.sampled_from([3, 40])), n),
        after,
    )
    return parts, gpus, draw(st.sampled_from([1, 2, 5, 100]))


@settings(max_examples=300, deadline=None)
@given(histories())
def test_starts_are_those_of_the_obvious_loop(history: tuple[Parts, int, int]):
    """Every part starts at the same instant, whatever the ties, chains, gangs and depth."""
    parts, gpus, depth = history

    assert simulate(parts, gpus, depth=depth).tolist() == slow.simulate(parts, gpus, depth)


def test_a_short_one_slips_in_before_the_head_and_a_long_one_does_not():
    """3 of 4 GPUs are held until 10: the gang of 4 waits for 10, 5 long fits before, 11 long would delay it."""
    started = simulate(parts_of((0, 3, 10), (1, 4, 5), (2, 1, 9), (3, 1, 5)), 4)

    assert started.tolist() == [0, 10, 15, 3]


def test_what_the_head_leaves_over_may_be_held_for_long():
    """The head needs 3 of 4 at 10, so one GPU may be held beyond."""
    started = simulate(parts_of((0, 3, 10), (1, 3, 5), (2, 1, 100), (2, 1, 100)), 4)

    # the second long one waits: at 10 the head takes 3, and the fourth GPU is held until 102; at 15 it is free
    assert started.tolist() == [0, 10, 2, 15]


def test_a_hold_keeps_a_part_out_of_the_queue():
    """A part held until 7 neither runs before nor stands in anyone's way."""
    assert simulate(parts_of((7, 1, 2), (0, 1, 3), (1, 1, 3)), 1).tolist() == [7, 0, 3]
    # in the queue since 7: it comes after the one that waits since 1
    assert simulate(parts_of((7, 1, 2), (0, 1, 9), (1, 1, 3)), 1).tolist() == [12, 0, 9]


def test_a_follower_waits_for_the_end_and_its_own_hold():
    """The second stretch of a job starts at its hold (20), the third when the second has ended (25)."""
    parts = parts_of((0, 1, 5), (20, 1, 5, 0), (0, 1, 5, 1))

    assert simulate(parts, 1).tolist() == [0, 20, 25]


def test_impossible_parts_are_told():
    """Too large, no time, waiting for nothing, two followers, a circle."""
    faults = [
        (((0, 5, 1),), "asks for 5 GPUs; more than the 4"),
        (((0, 0, 1),), "asks for 0 GPUs; at least 1"),
        (((0, 1, 0),), "lasts 0 ms"),
        (((0, 1, 1, 7),), "waits for one that is not there"),
        (((0, 1, 1), (0, 1, 1, 0), (0, 1, 1, 0)), "Two parts wait for the same one"),
        (((0, 1, 1, 1), (0, 1, 1, 0)), "in a circle"),
    ]
    for rows, words in faults:
        with pytest.raises(SimulationError, match=words):
            simulate(parts_of(*rows), 4)
    assert simulate(Parts(*(np.empty(0, np.int64),) * 4), 4).tolist() == []


LOAD = """
import json, sys
import numpy as np
from wattkeeper.core.jit import COMPILED
from wattkeeper.plan.simulate.events import Parts, simulate
rng = np.random.default_rng(7)
n = 4000
parts = Parts(np.sort(rng.integers(0, 60_000, n)), rng.choice([1, 2, 8, 64], n), rng.integers(1, 900, n),
              np.full(n, -1, np.int64))
print(json.dumps([COMPILED, simulate(parts, 256).tolist()]))
"""


def test_plain_python_gives_the_same_starts_and_so_does_the_peer():
    """4 000 jobs on 256 GPUs: compiled, as plain Python, and the heapq peer of the benchmark."""
    found = {}
    for name, extra in (("as installed", {}), ("plain", {"NUMBA_DISABLE_JIT": "1"})):
        done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True,
                              env={**os.environ, **extra})  # fmt: skip
        found[name] = json.loads(done.stdout)
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        from easy import run
    finally:
        sys.path.pop(0)
    rng = np.random.default_rng(7)
    n = 4000
    hold, gpus, duration = np.sort(rng.integers(0, 60_000, n)), rng.choice([1, 2, 8, 64], n), rng.integers(1, 900, n)

    assert found["plain"][0] is False
    assert found["plain"][1] == found["as installed"][1] == run(hold.tolist(), gpus.tolist(), duration.tolist(), 256)
    assert (np.array(found["plain"][1]) > hold).mean() > 0.5  # most had to wait, so the order mattered
