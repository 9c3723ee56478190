"""Faults at exact points of a real process: on its PYTHONPATH, this runs before anything else.

WATTKEEPER_TEST_KILL: "module:name|when|nth|flag": at the nth call of a function the process kills itself with signal 9,
`before` it, `after` it, or with `half` of the bytes that it was to write; once, for the file `flag` says that it is done.
WATTKEEPER_TEST_GATE: a file without which no write of the journal comes to the disk; waiting for it is what a slow disk is.
WATTKEEPER_TEST_AHEAD_S: how far this process's clock is ahead [s].
"""

from __future__ import annotations

import importlib
import os
import signal
import time
from typing import Any


def _owner(where: str) -> tuple[Any, str]:
    module, _, path = where.partition(":")
    owner = importlib.import_module(module)
    *outer, name = path.split(".")
    for one in outer:
        owner = getattr(owner, one)
    return owner, name


def _die(flag: str) -> None:
    with open(flag, "x", encoding="ascii"):  # noqa: PTH123
        os.kill(os.getpid(), signal.SIGKILL)


def _arm(spec: str) -> None:
    where, when, nth, flag = spec.split("|")
    owner, name = _owner(where)
    real, calls = getattr(owner, name), 0

    def hit(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != int(nth) or os.path.exists(flag):  # noqa: PTH110
            return real(*args, **kwargs)
        if when == "half":
            real(args[0], args[1][: len(args[1]) // 2])
        elif when == "after":
            real(*args, **kwargs)
        return _die(flag)

    setattr(owner, name, hit)


def _hold(gate: str) -> None:
    owner, name = _owner("wattkeeper.lake.journal:Journal.append_many")
    real = getattr(owner, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        while not os.path.exists(gate):  # noqa: PTH110
            time.sleep(0.01)
        return real(*args, **kwargs)

    setattr(owner, name, slow)


if ahead_s := float(os.environ.get("WATTKEEPER_TEST_AHEAD_S", "0")):
    true_s = time.time
    time.time = lambda: true_s() + ahead_s
if spec := os.environ.get("WATTKEEPER_TEST_KILL"):
    _arm(spec)
if gate := os.environ.get("WATTKEEPER_TEST_GATE"):
    _hold(gate)
