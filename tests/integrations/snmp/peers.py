"""Real SNMP peers for the tests: snmpsim with recordings, and net-snmp's snmpd."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from pathlib import Path

from gufo.snmp.sync import SnmpSession

from tests.daemons import Daemon, free_port

RECORDED = Path(__file__).resolve().parents[3] / "../shared/data/devices/snmp"
SNMPD = shutil.which("snmpset") and shutil.which("snmpd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def answers(port: int, community: str, oid: str) -> bool:
    """Return whether an agent answers."""
    try:
        session = SnmpSession("127.0.0.1", port, community=community, timeout=0.3)
        return bool(session.get_many([oid]))
    except (TimeoutError, BlockingIOError):
        return False


class Simulator:
    """snmpsim over a folder of .snmprec files; the community is the file's name without its ending."""

    def __init__(self, root: Path, files: dict[str, Path | str], port: int = 0) -> None:
        self.port, data = port or free_port(), root / "data"
        data.mkdir(parents=True, exist_ok=True)
        for community, source in files.items():
            text = source.read_text("latin1") if isinstance(source, Path) else source
            (data / f"{community}.snmprec").write_text(text, "latin1")
        (data / "ready.snmprec").write_text("1.3.6.1.2.1.1.3.0|67|1\n")
        command = [str(Path(sys.executable).with_name("snmpsim-command-responder")), f"--data-dir={data}"]
        command += [f"--agent-udpv4-endpoint=127.0.0.1:{self.port}", f"--cache-dir={root / 'cache'}"]
        if os.geteuid() == 0:
            command += ["--process-user=root", "--process-group=root"]
        self.daemon = Daemon("snmpsim", command, root)
        self.daemon.wait_ready(lambda: answers(self.port, "ready", "1.3.6.1.2.1.1.3.0"))

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.daemon.stop()


class Snmpd:
    """net-snmp's agent. What it shows is set with `override` lines, its users with createUser."""

    def __init__(self, root: Path, lines: list[str], port: int = 0) -> None:
        self.port, self.root, self.lines = port or free_port(), root, lines
        self.root.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start it, with a fresh engine where it runs for the first time."""
        conf = self.root / "snmpd.conf"
        ready = f"ready{uuid.uuid4().hex[:8]}"
        conf.write_text("\n".join([f"agentAddress udp:127.0.0.1:{self.port}", f"rocommunity {ready}", *self.lines, ""]))
        command = [
            str(SNMPD),
            "-f",
            "-C",
            "-c",
            str(conf),
            f"--persistentDir={self.root / 'state'}",
            "-Lo",
            "-I",
            "-smux",
        ]
        self.daemon = Daemon("snmpd", command, self.root)
        self.daemon.wait_ready(lambda: answers(self.port, ready, "1.3.6.1.2.1.1.3.0"))

    def restart(self) -> None:
        """Stop and start: its boots go up, its time starts again."""
        self.daemon.stop()
        self.start()

    def __enter__(self) -> Snmpd:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.daemon.stop()
