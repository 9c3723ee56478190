"""A fake BMC that speaks the real protocol, IPMI 2.0 over RMCP+, with a DCMI power meter: `fake_bmc.py PORT FILE`.

The session layer is pyghmi's. FILE holds what it shows, read anew for each request, as JSON: watts now, minimum, maximum,
mean, time stamp [s], period [ms], state byte; or a completion code to refuse with. ipmi_sim of OpenIPMI knows no DCMI.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

from pyghmi.ipmi.bmc import Bmc

DCMI, POWER_READING, GROUP = 0x2C, 0x02, 0xDC
INVALID_COMMAND = 0xC1


class FakeBmc(Bmc):
    """One user, one command."""

    shows: Path

    def handle_raw_request(self, request, session):
        if request["netfn"] != DCMI:
            super().handle_raw_request(request, session)
            return
        told = json.loads(self.shows.read_text())
        if request["command"] != POWER_READING or isinstance(told, int):
            session.send_ipmi_response(code=told if isinstance(told, int) else INVALID_COMMAND)
            return
        session.send_ipmi_response(data=bytes([GROUP]) + struct.pack("<HHHHIIB", *told))


if __name__ == "__main__":
    bmc = FakeBmc({"monitor": "geheim"}, port=int(sys.argv[1]), address="127.0.0.1")
    bmc.shows = Path(sys.argv[2])
    Path(sys.argv[2]).with_suffix(".ready").touch()
    bmc.listen()
