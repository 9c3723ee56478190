"""A Modbus TCP server, pymodbus's own, in a process of its own: units with registers, and a log of what was asked."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from pathlib import Path

from tests.daemons import Daemon, free_port

FORMATS = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip


def words(kind, *values, order="big"):
    """Return values as registers."""
    found = []
    for value in values:
        packed = struct.pack(f">{FORMATS[kind]}", value)
        one = list(struct.unpack(f">{len(packed) // 2}H", packed))
        found += one if order == "big" else one[::-1]
    return found


class Server:
    """Units by id, each `{table: {address: registers}}`; what is not given is an illegal address.

    faults: unit → exception code it answers everything with, 0 where it never answers.
    """

    def __init__(self, root: Path, units: dict, *, port: int = 0, faults=None, framing: str = "tcp") -> None:
        self.port = port or free_port()
        self.asked = root / "modbus.log"
        file = root / "modbus.json"
        file.write_text(json.dumps({"units": units, "faults": faults or {}, "framing": framing, "port": self.port}))
        self.daemon = Daemon("modbus", [sys.executable, "-m", "tests.integrations.modbus.server", str(file)], root)
        self.daemon.wait_ready(self._listens)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.daemon.stop()

    def requests(self) -> list[tuple[int, int, int, int]]:
        """Return unit, function, address and count of each request so far."""
        return [tuple(map(int, line.split()[1:])) for line in self.log() if line.startswith("asked ")]

    def connections(self) -> int:
        """Return how often somebody connected, without us waiting for the port."""
        return sum(line.startswith("connected") for line in self.log()) - 1

    def log(self) -> list[str]:
        return self.daemon.log.read_text(errors="replace").splitlines()

    def _listens(self) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0


async def _serve(told: dict) -> None:
    from pymodbus import FramerType
    from pymodbus.constants import ExcCodes
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    def block(registers):
        return [SimData(int(a), values=w, datatype=DataType.REGISTERS) for a, w in registers.items()] or [
            SimData(65_000)
        ]

    def device(unit, tables):
        async def fail(*_request):
            if code == 0:
                await asyncio.Event().wait()
            return ExcCodes(code) if code else None

        code = told["faults"].get(unit)
        bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        blocks = (bits, list(bits), block(tables.get("holding", {})), block(tables.get("input", {})))
        return SimDevice(int(unit), simdata=blocks, action=fail)

    def asked(sending, pdu):
        if not sending and hasattr(pdu, "address"):
            print("asked", pdu.dev_id, pdu.function_code, pdu.address, pdu.count, flush=True)
        return pdu

    server = ModbusTcpServer(
        [device(unit, tables) for unit, tables in told["units"].items()],
        framer=FramerType.SOCKET if told["framing"] == "tcp" else FramerType.RTU,
        address=("127.0.0.1", told["port"]),
        trace_pdu=asked,
        trace_connect=lambda connect: print("connected" if connect else "left", flush=True),
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
