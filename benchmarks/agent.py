"""The agent: CPU and memory for eight GPUs at 1 and 10 Hz, beside codecarbon and zeus on the same fake driver.

`python benchmarks/agent.py [--quick]` prints one line per bar, `name value limit holds|falls short`, and exits with 1
where one falls short. Each is a process of its own; all run side by side and are measured over the same seconds. The
driver is FakeNvml under the real module `pynvml`; each call to it waits 1 ms, as eight GPUs take up to 10 ms for one
value each (research of 2026-11).
"""

# ruff: noqa: N802, N803, N815 - the names are those of the library
from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

CALL_S = 0.001
GPUS = 8
PLAYERS = ("wattkeeper", "zeus", "codecarbon", "zeus_bare")
"""The last is no product but a loop over a library's classes, without discovery, faults or a disk: a note, no bar."""

VALUES_FOR_A_READING = {"zeus": 2}
"""A window reads each counter at its begin and its end, and tells one energy."""


def fake_driver(folder: Path) -> object:
    """Put eight fake GPUs under `pynvml`, with what the peers ask for beside what we do; return them."""
    import pynvml
    from tests.fake_nvml import FakeGpu, FakeNvml

    class Slow(FakeNvml):
        """Each call waits; what is told is counted."""

        def __init__(self) -> None:
            super().__init__(*(FakeGpu(f"GPU-{i}") for i in range(GPUS)))
            self.values = 0

        def _gpu(self, handle, call):
            time.sleep(CALL_S)
            if call in {
                "nvmlDeviceGetTotalEnergyConsumption",
                "nvmlDeviceGetUtilizationRates",
                "nvmlDeviceGetPowerUsage",
            }:
                self._told(1)
            return super()._gpu(handle, call)

        def nvmlDeviceGetFieldValues(self, handle, fieldIds):
            told = super().nvmlDeviceGetFieldValues(handle, fieldIds)
            self._told(sum(value.nvmlReturn == 0 for value in told))
            return told

        def _told(self, count):
            started = self.values >= 4 * GPUS
            self.values += count
            if not started and self.values >= 4 * GPUS:
                (folder / "started").touch()

        def nvmlDeviceGetArchitecture(self, device):
            return pynvml.NVML_DEVICE_ARCH_HOPPER

        def nvmlDeviceGetMemoryInfo(self, handle, version=None):
            self._gpu(handle, "memory")
            return pynvml.c_nvmlMemory_t()

        def nvmlDeviceGetTemperature(self, handle, sensor):
            self._gpu(handle, "temperature")
            return 50

        def nvmlDeviceGetComputeMode(self, handle):
            return 0

        def nvmlDeviceGetComputeRunningProcesses(self, handle):
            self._gpu(handle, "processes")
            return []

        nvmlDeviceGetGraphicsRunningProcesses = nvmlDeviceGetComputeRunningProcesses

        def nvmlDeviceGetC2cModeInfoV(self, device):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    fake = Slow()
    for name in dir(fake):
        if name.startswith("nvml"):
            setattr(pynvml, name, getattr(fake, name))
    return fake


def wattkeeper(hz: float, folder: Path) -> None:
    """Run the agent as its users do: counter, two powers and utilisation of each GPU, into a book."""
    from wattkeeper.cli import main

    (folder / "book").mkdir()
    (folder / "book" / "state.sqlite").touch()
    site = f'[agent]\nname = "n01"\nbook = "{folder}/book"\n[[agent.nvml]]\nnode = "n01"\nperiod_s = {1 / hz}\n'
    (folder / "site.toml").write_text(site)
    sys.argv = ["wattkeeper", "agent", "run", "--config", str(folder / "site.toml")]
    main()


def zeus(hz: float, folder: Path) -> None:
    """Measure one window after the other with ZeusMonitor, which reads the counters and writes them to its log."""
    from zeus.monitor import ZeusMonitor

    monitor = ZeusMonitor(approx_instant_energy=False, log_file=str(folder / "zeus.csv"))
    due = time.monotonic()
    while True:
        monitor.begin_window("w", sync_execution=False)
        due += 1 / hz
        time.sleep(max(due - time.monotonic(), 0))
        monitor.end_window("w", sync_execution=False)


def zeus_bare(hz: float, folder: Path) -> None:
    """Read counter and two powers of each GPU by zeus' device classes alone, in a loop of our own, into a text file."""
    from zeus.device import get_gpus

    gpus = get_gpus().gpus
    due = time.monotonic()
    with (folder / "zeus.csv").open("w") as out:
        while True:
            for i, gpu in enumerate(gpus):
                energy_mj = gpu.get_total_energy_consumption()
                out.write(
                    f"{time.time()},{i},{energy_mj},{gpu.get_average_power_usage()},{gpu.get_instant_power_usage()}\n"
                )
            due += 1 / hz
            time.sleep(max(due - time.monotonic(), 0))


def codecarbon(hz: float, _folder: Path) -> None:
    """Let codecarbon watch the GPUs; CPU and memory power are given to it, so that it need not measure them."""
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA", measure_power_secs=1 / hz, save_to_file=False, log_level="critical",
        force_cpu_power=100, force_ram_power=50, allow_multiple_runs=True,
    )  # fmt: skip
    tracker.start()
    while True:
        time.sleep(3600)


def play(who: str, hz: float, folder: Path) -> None:
    """Be one of them until told to stop; then write how many values were read."""
    fake = fake_driver(folder)

    def stop(*_: object) -> None:
        (folder / "values").write_text(str(fake.values))
        os._exit(0)

    if who != "wattkeeper":
        signal.signal(signal.SIGTERM, stop)
    try:
        {"wattkeeper": wattkeeper, "zeus": zeus, "codecarbon": codecarbon, "zeus_bare": zeus_bare}[who](hz, folder)
    finally:
        stop()


@dataclass
class Cost:
    """What one cost. cpu: share of a core; rss_mib: memory at the end; per_s: readings told in a second."""

    cpu: float
    rss_mib: float
    per_s: float

    @property
    def ms_per_1000(self) -> float:
        """CPU time for a thousand readings [ms]."""
        return 1e6 * self.cpu / self.per_s

    def __str__(self) -> str:
        return (
            f"{100 * self.cpu:.2f} % of a core, {self.rss_mib:.0f} MiB, {self.per_s:.0f} readings/s, "
            f"{self.ms_per_1000:.0f} ms for 1 000"
        )


def cpu_s(pid: int) -> float:
    """Return CPU time of a process, threads that have ended included [s], by its clock (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process [MiB]."""
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def measure(rates: tuple[float, ...], warm_s: float, seconds: float) -> dict[tuple[float, str], Cost]:
    """Run all players at all rates side by side."""
    with tempfile.TemporaryDirectory(prefix="wattkeeper-bench-") as root:
        folders = {(hz, who): Path(root) / f"{who}-{hz:g}" for hz in rates for who in PLAYERS}
        processes = {}
        for (hz, who), folder in folders.items():
            folder.mkdir()
            (folder / "nvidia-smi").write_text("#!/bin/sh\n")  # codecarbon wants one to run before it looks for GPUs
            (folder / "nvidia-smi").chmod(0o755)
            command = [sys.executable, __file__, "--play", who, "--hz", str(hz), "--folder", str(folder)]
            env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
            quiet = subprocess.DEVNULL
            processes[hz, who] = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=env)
        for folder in folders.values():
            wait_for(folder / "started")
        time.sleep(warm_s)
        before = {key: cpu_s(p.pid) for key, p in processes.items()}
        start_s = time.monotonic()
        time.sleep(seconds)
        spent_s = time.monotonic() - start_s
        used = {key: (cpu_s(p.pid) - before[key]) / spent_s for key, p in processes.items()}
        rss = {key: rss_mib(p.pid) for key, p in processes.items()}
        costs = {}
        for key, process in processes.items():
            since_s = time.time() - (folders[key] / "started").stat().st_mtime
            process.terminate()
            process.wait(300)
            read = int((folders[key] / "values").read_text()) / VALUES_FOR_A_READING.get(key[1], 1)
            costs[key] = Cost(used[key], rss[key], read / since_s)
        return costs


NEEDED = {"zeus": "zeus", "zeus_bare": "zeus", "codecarbon": "codecarbon"}
"""The package that each player is of, beside ours."""


def missing(players: Sequence[str]) -> str:
    """Return what to install so that the players can play; "" where nothing is missing."""
    lacking = sorted({NEEDED[p] for p in players if p in NEEDED and importlib.util.find_spec(NEEDED[p]) is None})
    if not lacking:
        return ""
    return f"{' and '.join(lacking)} not installed: uv sync --all-extras --group bench"


def wait_for(file: Path) -> None:
    """Wait until a process has begun its work."""
    end_s = time.monotonic() + 60
    while not file.exists():
        if time.monotonic() > end_s:
            raise SystemExit(f"{file} does not come; does it start at all?")
        time.sleep(0.1)


def median(runs: list[dict[tuple[float, str], Cost]], hz: float, who: str) -> Cost:
    """Return each figure's median."""
    mine = [run[hz, who] for run in runs]
    return Cost(*(statistics.median(getattr(c, name) for c in mine) for name in ("cpu", "rss_mib", "per_s")))


def bars_of(bars, hz: float, runs: list[dict[tuple[float, str], Cost]]) -> None:
    """Print the bars of one rate."""
    costs = {who: median(runs, hz, who) for who in PLAYERS}
    ours, name = costs["wattkeeper"], f"8 GPUs at {hz:g} Hz"
    for who, cost in costs.items():
        bars.note(f"{name}, {who}: {cost}")
    bars.at_least(f"{name}, readings [1/s]", ours.per_s, 0.9 * 4 * GPUS * hz)
    if hz == 1:
        bars.at_most(f"{name}, CPU [% of a core]", 100 * ours.cpu, 1.0)
    bars.at_most(f"{name}, memory [MB]", ours.rss_mib * 2**20 / 1e6, 60, "{:.1f}")
    for who in ("zeus", "codecarbon"):
        bars.at_most(f"{name}, CPU/reading / {who}", ours.ms_per_1000 / costs[who].ms_per_1000, 1.0)
        bars.at_most(f"{name}, memory / {who}", ours.rss_mib / costs[who].rss_mib, 1.0)


def main() -> int:
    """Run the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs, under 50 s")
    parser.add_argument("--play", choices=PLAYERS, help=argparse.SUPPRESS)
    parser.add_argument("--hz", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.play:
        play(given.play, given.hz, given.folder)
        return 0
    if lacking := missing(PLAYERS):
        raise SystemExit(lacking)
    from attribution import Bars

    bars = Bars()
    warm_s, seconds, times = (3, 6, 1) if given.quick else (10, 45, 3)
    rates = (1.0, 10.0)
    runs = [measure(rates, warm_s, seconds) for _ in range(times)]
    for hz in rates:
        bars_of(bars, hz, runs)
    if not given.quick:
        note = f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {os.cpu_count()} cores {platform.python_version()}"
        result = HERE / "results" / f"agent-{datetime.now(UTC):%Y-%m-%d}.txt"
        result.write_text("\n".join([note, *bars.lines]) + "\n")
    return 1 if bars.failed else 0


if __name__ == "__main__":
    sys.exit(main())
