"""A fake Redfish service with sessions and basic authentication, speaking the real protocol over HTTP: sushy-static has none."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BASIC = "Basic bW9uaXRvcjpnZWhlaW0="
"""monitor:geheim (RFC 7617)."""

SESSIONS = "/redfish/v1/SessionService/Sessions"


class FakeService:
    """Pages behind a log-in as of DSP0266 section 13; `pages` and `tokens` may be changed while it runs."""

    def __init__(self, pages: dict[str, dict]) -> None:
        service = self
        self.pages, self.tokens, self.opened, self.asked = pages, set(), 0, []
        self.moved = ""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, page=None, headers=()):
                body = json.dumps(page or {}).encode()
                self.send_response(status)
                for name, value in (*headers, ("Content-Length", str(len(body)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                entry = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != SESSIONS or entry != {"UserName": "monitor", "Password": "geheim"}:
                    self.answer(401)
                    return
                service.opened += 1
                token = f"token-{service.opened}"
                service.tokens.add(token)
                self.answer(201, headers=[("X-Auth-Token", token), ("Location", f"{SESSIONS}/{service.opened}")])

            def do_DELETE(self):
                service.tokens.discard(f"token-{self.path.rpartition('/')[2]}")
                self.answer(204)

            def do_GET(self):
                service.asked.append(self.path)
                known = self.headers.get("Authorization") == BASIC or self.headers.get("X-Auth-Token") in service.tokens
                if self.path.rstrip("/") != "/redfish/v1" and not known:
                    self.answer(401)
                    return
                if service.moved and not self.path.endswith("/"):
                    self.answer(308, headers=[("Location", f"{service.moved}{self.path}/")])
                    return
                page = service.pages.get(self.path.rstrip("/"))
                self.answer(200 if page else 404, page)

            def log_message(self, *_args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self) -> FakeService:
        self.thread.start()
        return self

    def __exit__(self, *_fault: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
