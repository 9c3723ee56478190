"""A real upsd with dummy-ups drivers, which serve recorded or written .dev files."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from tests.daemons import Daemon, free_port

RECORDED = Path(__file__).resolve().parents[3] / "../shared/data/devices/ups"
DRIVERS = Path("/lib/nut")


class Upsd:
    """upsd on a free port, and one driver for each UPS, name → .dev file or variables."""

    def __init__(self, root: Path, several: dict[str, Path | dict], *, port: int = 0) -> None:
        self.root, self.port = root, port or free_port()
        self.env = {
            "NUT_CONFPATH": str(root),
            "NUT_STATEPATH": str(root),
            "NUT_ALTPIDPATH": str(root),
            "MODE": "standalone",
        }
        for name, what in several.items():
            self.put(name, what)
        sections = [
            f"[{name}]\n driver = dummy-ups\n port = {root / name}.dev\n pollinterval = 1\n" for name in several
        ]
        (root / "ups.conf").write_text(f"maxretry = 1\nuser = root\nstatepath = {root}\n{''.join(sections)}")
        (root / "upsd.conf").write_text(f"LISTEN 127.0.0.1 {self.port}\nMAXAGE 3\nSTATEPATH {root}\n")
        (root / "upsd.users").touch()
        for file in ("upsd.conf", "upsd.users"):
            (root / file).chmod(0o600)
        self.drivers = {name: self.driver(name) for name in several}
        for name, driver in self.drivers.items():
            driver.wait_ready((root / f"dummy-ups-{name}").exists)
        self.daemon = Daemon("upsd", [str(DRIVERS / "upsd"), "-u", "root", "-D"], root, self.env)
        self.daemon.wait_ready(lambda: all(self.serves(name) for name in several))

    def __enter__(self) -> Upsd:
        return self

    def __exit__(self, *_fault: object) -> None:
        for one in (self.daemon, *self.drivers.values()):
            one.stop()

    def put(self, name: str, what: Path | dict) -> None:
        """Write the file that a driver serves."""
        file = self.root / f"{name}.dev"
        if isinstance(what, Path):
            shutil.copy(what, file)
        else:
            file.write_text("".join(f"{key}: {value}\n" for key, value in what.items()))

    def driver(self, name: str) -> Daemon:
        """Start the driver of one UPS; it needs a second."""
        command = [str(DRIVERS / "dummy-ups"), "-u", "root", "-a", name, "-D"]
        return Daemon(f"driver-{name}", command, self.root, self.env)

    def serves(self, name: str) -> bool:
        """Return whether upsd has the variables of a UPS."""
        with socket.socket() as s:
            s.settimeout(5)
            if s.connect_ex(("127.0.0.1", self.port)):
                return False
            s.sendall(f"GET VAR {name} ups.status\n".encode())
            answer = s.recv(200)
            return answer.startswith(b"VAR ") and (name == "starting" or b'"WAIT"' not in answer)
