"""The requests that are answered: readings in, health and metrics out. Plain ASGI: one function a path.

A batch is answered with 200 after it is safe on disk, and not before. What can never be taken is answered with 4xx and
the reason; what may be taken later with 503 and `Retry-After`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from wattkeeper.core.errors import BatchError, JournalError
from wattkeeper.server import bodies, metrics, remote_write
from wattkeeper.server.bodies import Body, TooLargeError
from wattkeeper.server.keeper import Keeper
from wattkeeper.server.metrics import Metrics
from wattkeeper.server.tokens import Gate

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 32 * 2**20
"""A body as sent, and as unpacked."""

AT_ONCE = 512
"""Requests whose bodies are held at a time."""

ASIDE_BYTES = 2**20
"""A body from this size on is read in a thread, so that others are answered meanwhile."""

RETRY_AFTER_S = 5

SKEW_MS = 5_000
"""A sender's clock that is further off is told."""

SENT_HEADER = "wattkeeper-sent-ms"


class Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """A request that is answered with a status and a reason."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class App:
    """One server. open_keeper: called within the event loop as it starts; None for a server that takes no readings."""

    def __init__(
        self, open_keeper: Callable[[], Keeper] | None, gate: Gate, metrics: Metrics, *,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:  # fmt: skip
        self._open_keeper, self._gate, self.metrics, self.max_body_bytes = open_keeper, gate, metrics, max_body_bytes
        self.keeper: Keeper | None = None
        self._active = 0
        self._routes: dict[str, tuple[str, Handler]] = {
            "/healthz": ("GET", self._health),
            "/metrics": ("GET", self._metrics),
        }
        if open_keeper:
            self._routes |= {"/v1/readings": ("POST", self._readings), "/api/v1/write": ("POST", self._remote_write)}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            try:
                await self._route(scope)(scope, receive, send)
            except Refused as no:
                await _answer_json(send, no.status, {"error": no.reason}, no.headers)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.startup":
                self.keeper = self._open_keeper() if self._open_keeper else None
            elif self.keeper:
                await asyncio.to_thread(self.keeper.close)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    def _route(self, scope: Message) -> Handler:
        method, handler = self._routes.get(scope["path"], ("", None))
        if handler is None:
            where = (
                "readings go to /v1/readings" if self._open_keeper else "it takes no readings; start it with --ingest"
            )
            raise Refused(404, f"there is nothing at {scope['path']} of this server; {where}")
        if scope["method"] != method:
            raise Refused(405, f"{scope['path']} takes {method}", allow=method)
        return handler

    async def _health(self, _scope: Message, _receive: Receive, send: Send) -> None:
        fault = self.keeper.fault if self.keeper else ""
        await _answer_json(
            send, 503 if fault else 200, {"status": "failing", "error": fault} if fault else {"status": "ok"}
        )

    async def _metrics(self, _scope: Message, _receive: Receive, send: Send) -> None:
        await _answer(send, 200, self.metrics.page(), metrics.CONTENT_TYPE)

    async def _readings(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        name = {bodies.ARROW: "arrow", bodies.JSON: "json"}.get(kind, "other")

        def read(data: bytes, now_ms: int) -> Body:
            if name == "other":
                raise Refused(415, f"Content-Type is '{kind}'; send {bodies.ARROW} or {bodies.JSON}")
            plain = bodies.unpack(data, coding, self.max_body_bytes)
            return bodies.of_arrow(plain, now_ms) if name == "arrow" else bodies.of_json(plain, now_ms)

        coding = headers.get("content-encoding", "").strip().lower()
        if coding not in bodies.CODINGS:
            raise Refused(415, f"Content-Encoding is '{coding}'; send gzip, zstd or none")
        with _Counted(self, name) as counted:
            body, begun_s, now_ms = await self._body(headers, receive, read)
            skew_ms = _skew_ms(headers, body, now_ms)
            await self._keep(body, begun_s, name)
            if skew_ms is not None and abs(skew_ms) >= SKEW_MS:
                self.metrics.skewed.inc()
            counted.status = 200
            told = {"id": body.batch.id, "readings": body.batch.rows, "time_ms": now_ms, "skew_ms": skew_ms}
            await _answer_json(send, 200, told)

    async def _remote_write(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        coding = headers.get("content-encoding", "").strip().lower()
        if wanted := remote_write.wanted(headers.get("content-type", ""), coding):
            raise Refused(415, wanted)

        def read(data: bytes, now_ms: int) -> remote_write.Written:
            return remote_write.of_remote_write(data, now_ms, self.max_body_bytes)

        with _Counted(self, "remote_write") as counted:
            written, begun_s, _ = await self._body(headers, receive, read, aside_bytes=0)
            if written.body is not None:
                await self._keep(written.body, begun_s, "remote_write")
            self.metrics.refused_samples.inc(written.refused)
            if written.late:
                raise Refused(400, written.late)
            counted.status = 204
            await _answer(send, 204, b"", "")

    async def _body(
        self,
        headers: dict[str, str],
        receive: Receive,
        read: Callable[[bytes, int], Any],
        aside_bytes: int = ASIDE_BYTES,
    ) -> tuple[Any, float, int]:
        """Return what a body says, when its last byte was there [s, monotonic], and the time then [ms UTC]."""
        if not self._gate.passes(headers.get("authorization", "")):
            raise Refused(401, "no token, or not a good one; make one with: wattkeeper token add NAME",
                          **{"www-authenticate": "Bearer"})  # fmt: skip
        data = await _whole(headers, receive, self.max_body_bytes)
        begun_s, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        try:
            if len(data) >= aside_bytes:
                return await asyncio.to_thread(read, data, now_ms), begun_s, now_ms
            return read(data, now_ms), begun_s, now_ms
        except TooLargeError as error:
            raise Refused(413, str(error)) from error
        except BatchError as error:
            raise Refused(400, str(error)) from error

    async def _keep(self, body: Body, begun_s: float, name: str) -> None:
        assert self.keeper is not None
        try:
            await self.keeper.keep(body.data)
        except JournalError as error:
            raise _later(str(error)) from error
        self.metrics.acknowledged.observe(time.monotonic() - begun_s)
        self.metrics.readings.labels(name).inc(body.batch.rows)


class _Counted:
    """Counts a request by its status, and refuses it where too many are at work. status: as answered."""

    def __init__(self, app: App, name: str) -> None:
        self._app, self._name, self.status = app, name, 500

    def __enter__(self) -> _Counted:
        if self._app._active >= AT_ONCE:
            raise _later("too many requests at once")
        self._app._active += 1
        return self

    def __exit__(self, _kind: object, fault: BaseException | None, _trace: object) -> None:
        self._app._active -= 1
        status = fault.status if isinstance(fault, Refused) else self.status
        self._app.metrics.requests.labels(self._name, str(status)).inc()


def _later(reason: str) -> Refused:
    return Refused(503, reason, **{"retry-after": str(RETRY_AFTER_S)})


def _headers(scope: Message) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _whole(headers: dict[str, str], receive: Receive, limit_bytes: int) -> bytes:
    """Return the whole body. Raises Refused where it is larger than the limit or the sender hangs up."""
    told = headers.get("content-length", "0")
    too_large = Refused(413, f"the body is larger than {limit_bytes} bytes; send smaller batches")
    if told.isdigit() and int(told) > limit_bytes:
        raise too_large
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the sender hung up")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > limit_bytes:
            raise too_large
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _skew_ms(headers: dict[str, str], body: Body, now_ms: int) -> int | None:
    """Return how far a sender's clock is ahead: by its own word, else by readings from the future; None: unknown."""
    sent = headers.get(SENT_HEADER, "")
    if sent.isdecimal() and len(sent) < 19:
        return int(sent) - now_ms
    newest_ms = body.batch.newest_ms()
    return newest_ms - now_ms if newest_ms is not None and newest_ms > now_ms else None


async def _answer_json(send: Send, status: int, told: object, headers: dict[str, str] | None = None) -> None:
    await _answer(send, status, json.dumps(told).encode() + b"\n", bodies.JSON, headers)


async def _answer(send: Send, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
    pairs = [(b"content-length", b"%d" % len(body))] if status != 204 else []
    pairs += [(b"content-type", kind.encode())] if kind else []
    pairs += [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
