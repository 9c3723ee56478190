"""A server that takes batches over real HTTP, for as long as it is told to."""

from __future__ import annotations

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa


class Receiver:
    """Answers POST /v1/readings. answers: status codes to give in turn, then 200; batches: what it took, in order."""

    def __init__(self, port: int = 0, token: str = "", context: ssl.SSLContext | None = None) -> None:
        self.batches: list[bytes] = []
        self.answers: list[int] = []
        self.asked: list[tuple[str, str, str | None, str | None]] = []
        self.token, self.ahead_s = token, 0.0
        self._arrived = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._http.daemon_threads = True
        if context is not None:
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/watts"

    @property
    def values(self) -> list[int]:
        """All values it has, each batch once, in order."""
        tables = {json.loads(t.schema.metadata[b"wattkeeper"])["id"]: t for t in map(_table, self.batches)}
        return [v for t in tables.values() for v in t["value"].to_pylist()]

    def wait_for(self, count: int) -> None:
        """Wait until so many batches have arrived."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.batches) >= count, 30)

    def stop(self) -> None:
        """Go away, connections included."""
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                head = self.headers
                receiver.asked.append((self.command, self.path, head["Content-Type"], head["Authorization"]))
                status = receiver.answers.pop(0) if receiver.answers else 200
                if receiver.token and head["Authorization"] != f"Bearer {receiver.token}":
                    status = 401
                if status == 200:
                    with receiver._arrived:
                        receiver.batches.append(body)
                        receiver._arrived.notify_all()
                told = {
                    200: {"time_ms": round((time.time() + receiver.ahead_s) * 1000)},
                    400: {"error": "no such meter"},
                }
                self._answer(status, json.dumps(told.get(status, {})).encode())

            def _answer(self, status, text):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        return Handler


def _table(batch: bytes) -> pa.Table:
    return pa.ipc.open_stream(batch).read_all()
