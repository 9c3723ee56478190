"""A real broker, mosquitto, on a free port, and a client that publishes to it."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from pathlib import Path

import aiomqtt

from tests.daemons import Daemon, free_port


class Broker:
    """mosquitto. users: name → password, else anybody may; lines: more of mosquitto.conf."""

    def __init__(
        self, root: Path, *, port: int = 0, users=None, tls: tuple[Path, Path] | None = None, lines=()
    ) -> None:
        self.port, self.users = port or free_port(), users or {}
        conf = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'false' if users else 'true'}",
            "user root",
            *lines,
        ]
        if users:
            file = root / "passwords"
            file.unlink(missing_ok=True)
            file.touch(mode=0o600)
            for name, password in users.items():
                subprocess.run(["mosquitto_passwd", "-b", str(file), name, password], check=True, capture_output=True)
            conf.append(f"password_file {file}")
        if tls:
            conf += [f"certfile {tls[0]}", f"keyfile {tls[1]}"]
        (root / "mosquitto.conf").write_text("\n".join([*conf, ""]))
        self.daemon = Daemon("mosquitto", ["mosquitto", "-v", "-c", str(root / "mosquitto.conf")], root)
        self.daemon.wait_ready(self._listens)

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.daemon.stop()

    def _listens(self) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    async def publish(self, topic: str, told, *, retain: bool = False) -> None:
        """Publish JSON, or text and bytes as they are, so that the broker has passed it on."""
        user = next(iter(self.users), None)
        payload = told if isinstance(told, str | bytes) else json.dumps(told)
        async with aiomqtt.Client("127.0.0.1", self.port, username=user, password=self.users.get(user)) as client:
            await client.publish(topic, payload, qos=1, retain=retain)

    async def subscribed(self, count: int) -> None:
        """Wait until the broker has granted so many subscriptions since it started."""
        async with asyncio.timeout(20):
            while self.daemon.log.read_text(errors="replace").count("Sending SUBACK") < count:
                await asyncio.sleep(0.02)
