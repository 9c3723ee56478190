"""A BACnet/IP device, bacpypes3's own, in a process of its own on a loopback port."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

from tests.daemons import Daemon

INSTANCE = 1234


def free_udp_port() -> int:
    """Return a UDP port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A device with objects, "analog-input,1" → properties; together: whether it knows ReadPropertyMultiple.

    longest: the longest answer it gives in one piece, where it does not split answers.
    """

    def __init__(self, root: Path, objects: dict, *, port: int = 0, together: bool = True, longest: int = 0) -> None:
        self.port = port or free_udp_port()
        self.address = f"127.0.0.1:{self.port}"
        file = root / "bacnet.json"
        told = {"objects": objects, "together": together, "longest": longest, "address": self.address}
        file.write_text(json.dumps(told))
        self.daemon = Daemon("bacnet", [sys.executable, "-m", "tests.integrations.bacnet.server", str(file)], root)
        self.daemon.wait_ready(lambda: "ready" in self.log())

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.daemon.stop()

    def log(self) -> list[str]:
        """Return what it was asked, one line for each request."""
        return self.daemon.log.read_text(errors="replace").splitlines()


async def _serve(told: dict) -> None:
    from bacpypes3 import object as objects
    from bacpypes3.basetypes import Scale, Segmentation
    from bacpypes3.errors import UnrecognizedService
    from bacpypes3.ipv4.app import NormalApplication
    from bacpypes3.local.device import DeviceObject
    from bacpypes3.pdu import IPv4Address

    class Meter(NormalApplication):
        async def do_ReadPropertyMultipleRequest(self, apdu):  # noqa: N802
            print("several", len(apdu.listOfReadAccessSpecs), flush=True)
            if not told["together"]:
                raise UnrecognizedService("ReadPropertyMultiple")
            await super().do_ReadPropertyMultipleRequest(apdu)

        async def do_ReadPropertyRequest(self, apdu):  # noqa: N802
            print("one", apdu.objectIdentifier, apdu.propertyIdentifier, flush=True)
            await super().do_ReadPropertyRequest(apdu)

        async def do_WhoIsRequest(self, apdu):  # noqa: N802
            print("who", apdu.deviceInstanceRangeLowLimit, flush=True)
            await super().do_WhoIsRequest(apdu)

    short = {"maxApduLengthAccepted": told["longest"], "segmentationSupported": Segmentation.noSegmentation}
    device = DeviceObject(
        objectIdentifier=("device", INSTANCE),
        objectName="meter",
        vendorIdentifier=999,
        **(short if told["longest"] else {}),
    )
    app = Meter(device, IPv4Address(told["address"]))
    for name, properties in told["objects"].items():
        kind = "".join(part.capitalize() for part in name.partition(",")[0].split("-"))
        if "scale" in properties:
            properties["scale"] = Scale(**properties["scale"])
        if isinstance(properties["presentValue"], str):
            properties["presentValue"] = float(properties["presentValue"])
        app.add_object(getattr(objects, f"{kind}Object")(objectIdentifier=name, **{"objectName": name, **properties}))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
