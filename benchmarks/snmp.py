"""SNMP: a thousand PDUs with 24 metered outlets, each polled every ten seconds by one process on one core.

`python benchmarks/snmp.py [--quick]` prints one line per bar, `name value limit holds|falls short`, and exits with 1
where one falls short. The PDUs are fake agents in a process of their own (tests/integrations/snmp/fake_agent.py), on the
other core where there is one. A cycle is missed where a value is not there, or not before the next cycle begins. Fifty
more PDUs are switched off: they take time and must take none from the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from attribution import Bars
from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.snmp.link import Config
from wattkeeper.integrations.snmp.meter import SnmpDevice

HERE = Path(__file__).parent
AGENT = HERE.parent / "tests/integrations/snmp/fake_agent.py"
EPDU = "1.3.6.1.4.1.534.6.6.7"
PDUS, SILENT, OUTLETS, EVERY_S = 1000, 50, 24, 10.0


def objects() -> dict[str, int | str]:
    """Return what each PDU shows: an Eaton ePDU of one inlet, three phases, 24 outlets."""
    told: dict[str, int | str] = {"1.3.6.1.2.1.1.2.0": f"oid:{EPDU}", "1.3.6.1.2.1.1.1.0": "ePDU MA 24 outlets"}
    told |= {f"{EPDU}.3.5.1.4.0.1": OUTLETS * 300, f"{EPDU}.3.5.1.5.0.1": OUTLETS * 1_000_000}
    for phase in (1, 2, 3):
        told |= {f"{EPDU}.3.2.1.3.0.1.{phase}": 230_000, f"{EPDU}.3.3.1.4.0.1.{phase}": 10_500}
        told |= {f"{EPDU}.3.4.1.4.0.1.{phase}": OUTLETS * 100, f"{EPDU}.3.4.1.5.0.1.{phase}": OUTLETS * 333_333}
    for n in range(1, OUTLETS + 1):
        told |= {f"{EPDU}.6.4.1.3.0.{n}": 1300, f"{EPDU}.6.5.1.3.0.{n}": 300, f"{EPDU}.6.5.1.4.0.{n}": 1_000_000}
    return told


class Responders:
    """The PDUs, in a process of their own."""

    def __init__(self, number: int, folder: Path, core: set[int]) -> None:
        shown, opened = folder / "objects.json", folder / "ports.json"
        shown.write_text(json.dumps(objects()))
        self.process = subprocess.Popen([sys.executable, str(AGENT), str(number), str(shown), str(opened)])
        os.sched_setaffinity(self.process.pid, core)
        while not opened.exists():
            if self.process.poll() is not None:
                raise SystemExit("the responders did not start")
            time.sleep(0.05)
        self.ports: list[int] = json.loads(opened.read_text())

    def __enter__(self) -> Responders:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.process.terminate()
        self.process.wait()


class Poller:
    """Polls each device at its own moment of the cycle."""

    def __init__(self, devices: list[SnmpDevice], silent: list[SnmpDevice], values: int) -> None:
        self.devices, self.silent, self.values = devices, silent, values
        self.took_s: list[float] = []
        self.missed = self.read = self.faults = 0

    async def run(self, cycles: int) -> None:
        """Poll so many times."""
        begin = time.monotonic() + 0.5
        await asyncio.gather(*(
            self._poll(device, begin + place / len(devices) * EVERY_S, cycles)
            for devices in (self.devices, self.silent)
            for place, device in enumerate(devices)
        ))  # fmt: skip

    async def _poll(self, device: SnmpDevice, begin: float, cycles: int) -> None:
        for cycle in range(cycles):
            due = begin + cycle * EVERY_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                got = await device.sample()
            except SourceError:
                self.faults += 1
                continue
            self.took_s.append(time.monotonic() - due)
            self.read += len(got)
            self.missed += len(got) < self.values or self.took_s[-1] > EVERY_S


async def discover(devices: list[SnmpDevice]) -> None:
    """Discover all, some at a time, as an agent that has just started."""
    gate = asyncio.Semaphore(50)

    async def one(device: SnmpDevice) -> None:
        async with gate:
            await device.discover()

    await asyncio.gather(*map(one, devices))


def measure(bars: Bars, cycles: int) -> None:
    """Discover and poll."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    with tempfile.TemporaryDirectory() as folder, Responders(PDUS, Path(folder), {cores[-1]}) as pdus:
        feeds = {str(n): f"n{n:02d}" for n in range(1, OUTLETS + 1)}
        devices = [
            SnmpDevice(Config(host="127.0.0.1", port=port, asset="rack", outlets=feeds), "rack") for port in pdus.ports
        ]
        mute = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SILENT)]
        for one in mute:
            one.bind(("127.0.0.1", 0))
        silent = [SnmpDevice(Config(host="127.0.0.1", port=m.getsockname()[1], asset="rack"), "rack") for m in mute]
        loop = asyncio.new_event_loop()
        before_mib, begin, spent_s = _peak_mib(), time.perf_counter(), time.process_time()
        loop.run_until_complete(discover(devices))
        bars.note(
            f"discovery of {PDUS}: {time.perf_counter() - begin:.1f} s, {time.process_time() - spent_s:.1f} s CPU"
        )
        poller = Poller(devices, silent, 2 + 2 * OUTLETS)
        begin, spent_s = time.perf_counter(), time.process_time()
        loop.run_until_complete(poller.run(cycles))
        wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - spent_s
        loop.close()
        for one in mute:
            one.close()
    took = statistics.quantiles(poller.took_s, n=1000)
    name = f"{PDUS} PDUs, {cycles} cycles of {EVERY_S:g} s"
    expected = PDUS * cycles
    bars.at_most(f"{name}: missed", poller.missed + expected - len(poller.took_s), 0, "{:.0f}")
    bars.at_most(f"{name}: faults of those that are off", poller.faults, SILENT * cycles, "{:.0f}")
    bars.at_most(f"{name}: CPU of a core [%]", 100 * cpu_s / wall_s, 25, "{:.1f}")
    bars.at_least(
        f"{name}: values/s", poller.read / (cycles * EVERY_S), PDUS * (2 + 2 * OUTLETS) / EVERY_S * 0.999, "{:.0f}"
    )
    bars.at_most("memory per PDU [KiB]", (_peak_mib() - before_mib) * 1024 / PDUS, 200, "{:.0f}")
    bars.note(
        f"{poller.read} values, {cpu_s / poller.read * 1e6:.0f} µs of CPU each; from due to read: median "
        f"{took[499] * 1000:.1f} ms, 99.9 % {took[998] * 1000:.1f} ms"
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two cycles")
    quick = parser.parse_args().quick
    bars = Bars()
    measure(bars, 2 if quick else 30)
    if not quick:
        note = f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {os.cpu_count()} cores {platform.python_version()}"
        result = HERE / "results" / f"snmp-{datetime.now(UTC):%Y-%m-%d}.txt"
        result.write_text("\n".join([note, *bars.lines]) + "\n")
    return 1 if bars.failed else 0


if __name__ == "__main__":
    sys.exit(main())
