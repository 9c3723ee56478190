"""Fake agents that speak SNMP v1 and v2c over UDP, for what no real one can be made to do: `fake_agent.py PORTS FILE`.

PORTS is a number of agents. FILE holds the objects of each as JSON, OID → number or text. An agent can take only some
values at once (tooBig), lose requests, or let its counters run. Used by the benchmark too, as a thousand PDUs.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

GET, GET_NEXT, RESPONSE, GET_BULK = 0xA0, 0xA1, 0xA2, 0xA5
TOO_BIG, NO_SUCH_NAME = 1, 2
NO_SUCH_INSTANCE, END_OF_VIEW = b"\x81\x00", b"\x82\x00"

Oid = tuple[int, ...]


def tlv(tag: int, content: bytes) -> bytes:
    """Return an element of BER (X.690 8.1)."""
    n = len(content)
    size = n.to_bytes((n.bit_length() + 7) // 8, "big")
    head = bytes([n]) if n < 128 else bytes([128 + len(size)]) + size
    return bytes([tag]) + head + content


def integer(value: int, tag: int = 0x02) -> bytes:
    """Return an INTEGER, or another number by its tag."""
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid_bytes(oid: Oid) -> bytes:
    """Return an OBJECT IDENTIFIER."""
    out = bytearray([oid[0] * 40 + oid[1]])
    for part in oid[2:]:
        septets = [part & 127]
        while part := part >> 7:
            septets.append(part & 127 | 128)
        out += bytes(reversed(septets))
    return tlv(0x06, bytes(out))


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of the elements in a row."""
    at = 0
    while at < len(data):
        tag, n, at = data[at], data[at + 1], at + 2
        if n > 127:
            n, at = int.from_bytes(data[at : at + n - 128], "big"), at + n - 128
        yield tag, data[at : at + n]
        at += n


def oid_of(content: bytes) -> Oid:
    """Return an OBJECT IDENTIFIER's parts."""
    parts, part = [content[0] // 40, content[0] % 40], 0
    for byte in content[1:]:
        part = part << 7 | byte & 127
        if byte < 128:
            parts.append(part)
            part = 0
    return tuple(parts)


class FakeAgent:
    """One agent's objects. most: values it takes at once; lose: of how many requests it loses one; run: counters' pace.

    up_s: since when it runs, so that 1.3.6.1.2.1.1.3.0 counts hundredths of seconds.
    """

    def __init__(self, objects: dict[str, int | str], most: int = 999, lose: int = 0) -> None:
        self.most, self.lose, self.asked, self.counts = most, lose, 0, {"requests": 0, "values": 0}
        self.up_s = time.monotonic()
        self.objects: dict[Oid, bytes] = {}
        for oid, value in objects.items():
            self.show(oid, value)
        self.names = sorted(self.objects)

    def show(self, oid: str, value: int | str) -> None:
        """Set an object: a number, a text, or an OID where the text starts with "oid:"."""
        if isinstance(value, int):
            shown = integer(value)
        elif value.startswith("oid:"):
            shown = oid_bytes(tuple(map(int, value[4:].split("."))))
        else:
            shown = tlv(0x04, value.encode())
        self.objects[tuple(map(int, oid.split(".")))] = shown
        self.names = sorted(self.objects)

    def answer(self, request: bytes) -> bytes | None:
        """Return the response to a request; None where it gets lost."""
        self.asked += 1
        if self.lose and self.asked % self.lose == 0:
            return None
        _tag, message = next(elements(request))
        (_, version), (_, community), (kind, pdu) = elements(message)
        (_, request_id), (_, second), (_, third), (_, varbinds) = elements(pdu)
        asked = [oid_of(next(elements(one))[1]) for _tag, one in elements(varbinds)]
        self.counts["requests"] += 1
        self.counts["values"] += len(asked)
        status = index = 0
        if kind == GET_BULK:
            pairs = self._bulk(asked, int.from_bytes(second, "big"), int.from_bytes(third, "big"))
        elif kind == GET_NEXT:
            pairs = [self._next(oid) for oid in asked]
        else:
            pairs = [(oid, self._value(oid)) for oid in asked]
        if kind == GET and len(asked) > self.most:
            status, pairs = TOO_BIG, []
        missing = [place for place, (_oid, value) in enumerate(pairs, 1) if value in (NO_SUCH_INSTANCE, END_OF_VIEW)]
        if version == b"\0" and missing:
            status, index, pairs = NO_SUCH_NAME, missing[0], [(oid, b"\x05\x00") for oid in asked]
        told = tlv(0x30, b"".join(tlv(0x30, oid_bytes(oid) + value) for oid, value in pairs))
        body = tlv(0x02, request_id) + integer(status) + integer(index) + told
        return tlv(0x30, tlv(0x02, version) + tlv(0x04, community) + tlv(RESPONSE, body))

    def _value(self, oid: Oid) -> bytes:
        if oid == (1, 3, 6, 1, 2, 1, 1, 3, 0):
            return integer(int((time.monotonic() - self.up_s) * 100), 0x43)
        return self.objects.get(oid, NO_SUCH_INSTANCE)

    def _next(self, oid: Oid) -> tuple[Oid, bytes]:
        place = bisect_right(self.names, oid)
        if place == len(self.names):
            return oid, END_OF_VIEW
        return self.names[place], self._value(self.names[place])

    def _bulk(self, asked: list[Oid], single: int, repeat: int) -> list[tuple[Oid, bytes]]:
        pairs = [self._next(oid) for oid in asked[:single]]
        for oid in asked[single:]:
            for _row in range(repeat):
                oid, value = self._next(oid)  # noqa: PLW2901
                pairs.append((oid, value))
                if value == END_OF_VIEW:
                    break
        return pairs


def serve(agents: list[FakeAgent], ports: Path) -> None:
    """Answer for ever, each agent at a port of its own; the ports are written to a file when all are open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    choose = selectors.DefaultSelector()
    opened = []
    for agent in agents:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("127.0.0.1", 0))
        choose.register(one, selectors.EVENT_READ, agent)
        opened.append(one.getsockname()[1])
    ports.with_suffix(".part").write_text(json.dumps(opened))
    ports.with_suffix(".part").rename(ports)
    while True:
        for key, _events in choose.select():
            request, sender = key.fileobj.recvfrom(65_535)
            if (response := key.data.answer(request)) is not None:
                key.fileobj.sendto(response, sender)


if __name__ == "__main__":
    number, objects, ports, options = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    told = json.loads(objects.read_text())
    serve([FakeAgent(told, **json.loads(options[0] if options else "{}")) for _ in range(number)], ports)
