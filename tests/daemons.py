"""Real servers for tests: one process each, in the foreground, ready when they answer, gone at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Daemon:
    """A process with its log; `wait_ready` asks the service itself."""

    def __init__(self, name: str, command: list[str], root: Path, env: dict[str, str] | None = None) -> None:
        self.log = root / f"{name}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(env or {})},
                start_new_session=True,
            )  # fmt: skip

    def wait_ready(self, probe: Callable[[], bool], timeout: float = 60) -> None:
        """Wait until the probe answers true. Raises RuntimeError with the log's end when the process is gone."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(self.log.read_text(errors="replace")[-2000:])
            if probe():
                return
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text(errors="replace")[-2000:])

    def stop(self) -> None:
        """End the process, by force where it does not listen."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
