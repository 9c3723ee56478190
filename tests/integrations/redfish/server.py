"""A real Redfish mock-up server, sushy-static of OpenStack's sushy-tools, over trees that were recorded."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from tests.daemons import Daemon, free_port

RECORDED = Path(__file__).resolve().parents[3] / "../shared/data/devices/redfish"


class Server:
    """sushy-static over a folder of `<path below /redfish/v1>/index.json`."""

    def __init__(self, tree: Path, root: Path, *, port: int = 0, tls: tuple[Path, Path] | None = None) -> None:
        self.port = port or free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        command = [str(Path(sys.executable).parent / "sushy-static"), "-i", "127.0.0.1", "-p", str(self.port)]
        command += ["-m", str(tree)] + (["-c", str(tls[0]), "-k", str(tls[1])] if tls else [])
        self.daemon = Daemon("sushy-static", command, root)
        self.daemon.wait_ready(self._listens)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.daemon.stop()

    def _listens(self) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0


def put(tree: Path, page: dict) -> None:
    """Write a page where the server looks for it."""
    folder = tree / page["@odata.id"].removeprefix("/redfish/v1").strip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_text(json.dumps(page))


def tree_of(pages: list[dict], tree: Path) -> Path:
    """Write pages as a tree; the root and the collections above them where they are missing."""
    for page in pages:
        put(tree, page)
    if not (tree / "index.json").exists():
        put(tree, {"@odata.id": "/redfish/v1", "Chassis": {"@odata.id": "/redfish/v1/Chassis"}})
    if not (tree / "Chassis/index.json").exists():
        names = sorted(p.name for p in (tree / "Chassis").iterdir())
        found = [{"@odata.id": f"/redfish/v1/Chassis/{name}"} for name in names]
        put(tree, {"@odata.id": "/redfish/v1/Chassis", "Members": found})
    return tree


def flat(folder: Path, tree: Path) -> Path:
    """Turn a folder of flat files, one page each, into a tree."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return tree_of([page for page in found if isinstance(page, dict) and "@odata.id" in page], tree)
