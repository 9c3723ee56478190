"""The demo: a simulated week of 16 nodes and 128 GPUs, written as files that are imported like real ones.

Everything that goes wrong in real life is in it: MIG and time-shared GPUs, idle GPUs held by jobs, a driver reload that
resets counters, an agent outage of hours, failed reads, a GPU without a meter, a file that comes twice and one that
comes late, jobs over midnight and over a clock change, failed, cancelled and requeued jobs, a PDU that disagrees.
All values are made up; the shapes are those of real clusters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.core.clock import day_of, day_start_ms, iso

Floats = NDArray[np.float64]

ZONE = "Europe/Berlin"
START_MS = day_start_ms("2026-10-19", ZONE)
END_MS = day_start_ms("2026-10-26", ZONE)
"""A week whose Sunday has 25 hours."""

STEP_MS = 30_000
HOUR_MS = 3_600_000
NODES = [f"n{i:02d}" for i in range(1, 17)]
GPUS = 8
IDLE_W, CONTEXT_W, FULL_W = 72.0, 118.0, 690.0
"""A GPU that nobody holds, one with a context and no work, one at full load [W]."""

SITE_FILE = """# The demo cluster: 16 nodes of 8 GPUs in two racks.
name = "Demo cluster"

[[site]]
id = "demo"
timezone = "Europe/Berlin"
zone = "synthetic"
intensity = "intensity:synthetic"
price = "price:synthetic"
currency = "EUR"

[[asset]]
id = "r1"
kind = "rack"
parent = "demo"

[[asset]]
id = "r2"
kind = "rack"
parent = "demo"

[[nodes]]
names = "n[01-08]"
parent = "r1"
cpus = 128
gpus = 8
gpu_model = "simulated 700 W GPU"
gpu_embodied_kg = 164
node_embodied_kg = 1215
embodied_source = "GPU: NVIDIA HGX H100 PCF summary, 1312 kg for eight. Server: median of 48 vendors' PCFs."

[[nodes]]
names = "n[09-16]"
parent = "r2"
cpus = 128
gpus = 8
gpu_model = "simulated 700 W GPU"
gpu_embodied_kg = 164
node_embodied_kg = 1215
embodied_source = "GPU: NVIDIA HGX H100 PCF summary, 1312 kg for eight. Server: median of 48 vendors' PCFs."
{mig}
[csv.gpu]
kind = "readings"
quantity = "energy_counter"
unit = "mJ"
meter = "{{asset}}:energy"
asset = "{{asset}}"
asset_kind = "gpu"

[csv.utilisation]
kind = "readings"
quantity = "utilisation"
unit = "percent"
meter = "{{asset}}:utilisation"
asset = "{{asset}}"
asset_kind = "gpu"

[csv.bmc]
kind = "readings"
quantity = "power"
unit = "W"
meter = "{{asset}}:power"
asset = "{{asset}}"

[csv.pdu]
kind = "readings"
quantity = "energy_counter"
unit = "kWh"
meter = "{{asset}}:pdu"
asset = "{{asset}}"
asset_kind = "rack"
accuracy_pct = 1.0

[csv.facility]
kind = "readings"
quantity = "energy_interval"
unit = "kWh"
interval_ms = 900000
meter = "{{asset}}:utility"
asset = "{{asset}}"
asset_kind = "site"
accuracy_pct = 0.5

[csv.intensity]
kind = "signals"
signal = "intensity:synthetic"
unit = "g/kWh"
provider = "synthetic"
method = "average, lifecycle"

[csv.price]
kind = "signals"
signal = "price:synthetic"
unit = "EUR/kWh"
provider = "synthetic"
"""


@dataclass(frozen=True)
class DemoFiles:
    """What was written: the site file, and (layout or command, file) in the order of import."""

    site_file: Path
    imports: tuple[tuple[str, Path], ...]
    truth: Path


@dataclass
class _Job:
    """A job of the simulation: GPUs it holds as (node, gpu), from and to in steps, how busy it keeps them."""

    id: str
    user: str
    project: str
    state: str
    gpus: list[tuple[int, int]]
    begin: int
    end: int
    load: float
    share: float = 1.0
    instance: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)


def write(root: Path, *, seed: int = 1) -> DemoFiles:
    """Write the week's files into a directory; the same seed writes the same files."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    steps = (END_MS - START_MS) // STEP_MS
    jobs = _jobs(rng, steps)
    power_w, busy = _gpu_power(rng, jobs, steps)
    rest_w = 1450 + 0.07 * power_w.sum(axis=1) + rng.normal(0, 25, (len(NODES), steps))
    (root / "site.toml").write_text(SITE_FILE.format(mig=_mig_lines()), "utf-8")
    imports = [
        *_gpu_files(root, rng, power_w, busy),
        *_upper_files(root, rng, power_w.sum(axis=1) + rest_w),
        *_job_files(root, jobs),
        *_signal_files(root, rng),
    ]
    truth = {j.id: _drawn_j(j, power_w) for j in jobs if j.share == 1.0}
    (root / "truth.json").write_text(json.dumps(truth, indent=1), "utf-8")
    return DemoFiles(root / "site.toml", tuple(imports), root / "truth.json")


def _mig_lines() -> str:
    """Return the MIG instances of node n13: a 4g and a 3g slice on each of its first four GPUs."""
    lines = ""
    for gpu in range(4):
        for instance, part in ((1, 4 / 7), (2, 3 / 7)):
            lines += f'\n[[asset]]\nid = "n13/gpu{gpu}/{instance}"\nkind = "mig"\nparent = "n13/gpu{gpu}"\nslice = {part:.6f}\n'
    return lines


def _jobs(rng: np.random.Generator, steps: int) -> list[_Job]:
    """Return the week's jobs: training on whole nodes, small jobs, shared GPUs, and notebooks that hold and wait."""
    jobs: list[_Job] = []
    hour = HOUR_MS // STEP_MS

    def add(users: str, gpus: list[tuple[int, int]], begin: int, length: int, load: float, **more: object) -> _Job:
        user = str(rng.choice(users.split()))
        state = str(rng.choice(["COMPLETED", "FAILED", "CANCELLED by 1004", "TIMEOUT"], p=[0.8, 0.08, 0.08, 0.04]))
        end = min(begin + length, steps)
        project = {"ada": "llm", "bo": "llm", "chen": "vision", "dora": "bio"}.get(user, "teaching")
        jobs.append(_Job(str(1001 + len(jobs)), user, project, state, gpus, begin, end, load, **more))  # type: ignore[arg-type]
        return jobs[-1]

    for group in ((0, 1, 2, 3), (4, 5), (6, 7)):  # training on whole nodes
        at = int(rng.integers(0, 4 * hour))
        while at < steps:
            length = int(rng.integers(9, 34)) * hour
            job = add(
                "ada bo", [(n, g) for n in group for g in range(GPUS)], at, length, float(rng.uniform(0.75, 0.97))
            )
            at = job.end + int(rng.integers(1, 2 * hour))
    for node in (8, 9, 10, 11):  # small jobs, some under a minute
        for first, width in ((0, 4), (4, 2), (6, 1), (7, 1)):
            at = int(rng.integers(0, hour))
            while at < steps:
                length = max(1, int(rng.lognormal(np.log(1.5 * hour), 1.4)))
                add(
                    "chen dora eve",
                    [(node, g) for g in range(first, first + width)],
                    at,
                    length,
                    float(rng.uniform(0.3, 0.95)),
                )
                at += length + int(rng.exponential(0.5 * hour)) + 1
    for gpu in range(4):  # two tenants on MIG slices
        for instance in (1, 2):
            add("dora eve", [(12, gpu)], int(rng.integers(0, 20 * hour)), 110 * hour, 0.5, share=0.5, instance=instance)
    for gpu in range(8):  # time-shared GPUs
        for _ in range(2 + gpu % 2):
            add("eve finn", [(13, gpu)], int(rng.integers(0, 30 * hour)), 96 * hour, 0.45, share=0.5)
    for node in (14, 15):  # notebooks: held for days, busy for minutes
        for gpu in range(0, 8, 2):
            add("finn gus", [(node, gpu), (node, gpu + 1)], int(rng.integers(0, 40 * hour)), 80 * hour, 0.04)
    requeued = jobs[1]
    third = (requeued.end - requeued.begin) // 3
    requeued.runs = [(requeued.begin, requeued.begin + third), (requeued.begin + third + 20, requeued.end)]
    for job in jobs:
        job.runs = job.runs or [(job.begin, job.end)]
    return jobs


def _gpu_power(rng: np.random.Generator, jobs: list[_Job], steps: int) -> tuple[Floats, Floats]:
    """Return what each GPU draws [W] and how busy it is: (nodes, GPUs, steps)."""
    busy = np.zeros((len(NODES), GPUS, steps))
    held = np.zeros((len(NODES), GPUS, steps), bool)
    for job in jobs:
        for begin, end in job.runs:
            wave = np.clip(job.load + 0.04 * rng.standard_normal(end - begin), 0.02, 1.0)
            if job.load < 0.1:  # a notebook works now and then, and not at all in between
                wave = np.where(rng.random(end - begin) < job.load, 0.8, 0.0)
            for node, gpu in job.gpus:
                busy[node, gpu, begin:end] += wave * job.share
                held[node, gpu, begin:end] = True
    busy = np.clip(busy, 0, 1)
    power_w = np.where(held, CONTEXT_W + busy * (FULL_W - CONTEXT_W), IDLE_W)
    return power_w + rng.normal(0, 3, power_w.shape), busy


def _times() -> NDArray[np.int64]:
    """Return the ends of all steps, and the start: (steps + 1,) [ms UTC]."""
    return np.arange(START_MS, END_MS + 1, STEP_MS)


def _gpu_files(root: Path, rng: np.random.Generator, power_w: Floats, busy: Floats) -> list[tuple[str, Path]]:
    """Write counters and utilisation, a file a day; one day comes twice, one node's Friday comes late."""
    times = _times()
    frames = []
    for n, node in enumerate(NODES):
        for g in range(GPUS):
            if (n, g) == (15, 7):
                continue  # this GPU has no meter
            energy = np.concatenate(([0.0], np.cumsum(power_w[n, g] * STEP_MS)))
            counter = int(rng.integers(10**9, 10**12)) + energy.astype(np.int64)
            if n == 4:  # the driver is reloaded on Wednesday at 14:10: counters start again
                reload = int((day_start_ms("2026-10-21", ZONE) + 14 * HOUR_MS + 600_000 - START_MS) // STEP_MS)
                counter[reload:] -= counter[reload - 1]
            jitter = rng.integers(-400, 400, len(times))
            jitter[0] = abs(jitter[0])
            jitter[-1] = -abs(jitter[-1]) - 1
            # a reading a little early or late shows a little less or more
            step_w = np.concatenate((power_w[n, g, :1], power_w[n, g]))
            counter = counter + (np.where(np.arange(len(times)) > 0, jitter, 0) * step_w).astype(np.int64)
            if (n, g) == (2, 2):
                counter[rng.integers(100, len(times) - 100, 4)] = 0  # failed reads
            ratio = np.concatenate(([0.0], busy[n, g])) * 100
            frames.append(_gpu_frame(rng, f"{node}/gpu{g}", n, times + jitter, counter, ratio))
    rows = pl.concat(frames)
    late = (pl.col("asset").str.starts_with("n08/")) & (pl.col("day") == "2026-10-23")
    files: list[tuple[str, Path]] = []
    for (day,), part in rows.filter(~late).partition_by("day", as_dict=True, maintain_order=True).items():
        path = root / f"gpu-{day}.parquet"
        part.select("asset", "time_ms", "value").write_parquet(path)
        files += [("gpu", path)] * (2 if day == "2026-10-20" else 1)
    rows.filter(late).select("asset", "time_ms", "value").write_parquet(root / "gpu-late.parquet")
    activity = rows.gather_every(2).select("asset", "time_ms", pl.col("busy").round(1).alias("value"))
    activity.write_parquet(root / "utilisation.parquet")
    return [*files, ("utilisation", root / "utilisation.parquet"), ("gpu", root / "gpu-late.parquet")]


def _gpu_frame(
    rng: np.random.Generator,
    asset: str,
    node: int,
    time_ms: NDArray[np.int64],
    counter: NDArray[np.int64],
    ratio: Floats,
) -> pl.DataFrame:
    """Return one GPU's rows, without those that were lost: single samples, and an outage of three hours on four nodes."""
    out_ms = day_start_ms("2026-10-22", ZONE) + 2 * HOUR_MS
    keep = rng.random(len(time_ms)) > 0.003
    if 8 <= node <= 11:
        keep &= (time_ms < out_ms) | (time_ms > out_ms + 3 * HOUR_MS)
    edges = np.array([day_start_ms(f"2026-10-{d}", ZONE) for d in range(19, 27)])
    days = np.array([day_of(int(e), ZONE) for e in edges])
    place = np.clip(np.searchsorted(edges, time_ms[keep], side="right") - 1, 0, len(days) - 1)
    return pl.DataFrame(
        {"asset": asset, "time_ms": time_ms[keep], "value": counter[keep], "busy": ratio[keep], "day": days[place]}
    )


def _upper_files(root: Path, rng: np.random.Generator, node_w: Floats) -> list[tuple[str, Path]]:
    """Write node power (with the outage), PDU counters (one 3 % high) and the utility's quarter hours."""
    times = _times()[1:]
    out_ms = day_start_ms("2026-10-22", ZONE) + 2 * HOUR_MS
    frames = []
    for n, node in enumerate(NODES):
        keep = np.arange(len(times)) % 2 == 0  # the BMC is read each minute
        if 8 <= n <= 11:
            keep &= (times < out_ms) | (times > out_ms + 3 * HOUR_MS)
        watts = np.rint(node_w[n][keep] / 4) * 4  # it shows steps of 4 W
        frames.append(pl.DataFrame({"asset": node, "time_ms": times[keep], "value": watts}))
    pl.concat(frames).write_parquet(root / "bmc.parquet")
    rack_kwh = [np.cumsum(node_w[k : k + 8].sum(axis=0)) * STEP_MS / 3.6e9 for k in (0, 8)]
    pdus = []
    for name, kwh, gain in (("r1", rack_kwh[0], 1.002), ("r2", rack_kwh[1], 1.03)):
        at = slice(9, None, 10)  # each five minutes
        pdus.append(pl.DataFrame({"asset": name, "time_ms": times[at], "value": (kwh[at] * gain + 5120).round(1)}))
    pl.concat(pdus).write_csv(root / "pdu.csv")
    it_kwh = (rack_kwh[0] * 1.002 + rack_kwh[1] * 1.03)[29::30]
    quarter = np.diff(it_kwh, prepend=0.0)
    pue = 1.21 + 0.05 * np.sin(np.arange(len(quarter)) / 96 * 2 * np.pi - 2) + rng.normal(0, 0.003, len(quarter))
    facility = pl.DataFrame({"asset": "demo", "time_ms": times[29::30], "value": (quarter * pue).round(3)})
    facility.write_csv(root / "facility.csv")
    return [("bmc", root / "bmc.parquet"), ("pdu", root / "pdu.csv"), ("facility", root / "facility.csv")]


def _job_files(root: Path, jobs: list[_Job]) -> list[tuple[str, Path]]:
    """Write accounting as sacct prints it, the prolog's log, and the shares of shared GPUs."""
    lines = ["JobID|JobName|User|Account|Partition|State|Submit|Start|End|NCPUS|AllocTRES|NodeList"]
    log: list[tuple[int, str]] = []
    shared = ["job_id,asset,start_ms,end_ms,share"]
    for job in jobs:
        nodes = sorted({n for n, _ in job.gpus})
        names = ",".join(NODES[n] for n in nodes)
        cpus = 16 * len(job.gpus)
        last = job.runs[-1]
        for begin, end in job.runs:
            at, until = ((START_MS + s * STEP_MS) // 1000 for s in (begin, end))
            running = end * STEP_MS + START_MS >= END_MS
            state = "REQUEUED" if (begin, end) != last else "RUNNING" if running else job.state
            lines.append(
                f"{job.id}|{job.project}-{job.id}|{job.user}|{job.project}|gpu|{state}|{at - 60}|{at}|"
                f"{'Unknown' if running else until}|{cpus}|cpu={cpus},gres/gpu={len(job.gpus)},node={len(nodes)}|{names}"
            )
            if job.share < 1:
                node, gpu = job.gpus[0]
                asset = f"{NODES[node]}/gpu{gpu}" + (f"/{job.instance}" if job.instance else "")
                part = (4 / 7, 3 / 7)[job.instance - 1] if job.instance else job.share
                shared.append(f"{job.id},{asset},{at * 1000},{'' if running else until * 1000},{part:.6f}")
                continue
            for node in nodes:
                mine = ",".join(str(g) for n, g in job.gpus if n == node)
                log.append((at, f"{at} start {job.id} {NODES[node]} {mine}"))
                if not running:
                    log.append((until, f"{until} end {job.id} {NODES[node]} {mine}"))
    (root / "sacct.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (root / "gpus.log").write_text("\n".join(line for _, line in sorted(log)) + "\n", "utf-8")
    (root / "shared.csv").write_text("\n".join(shared) + "\n", "utf-8")
    return [("sacct", root / "sacct.txt"), ("gpu-log", root / "gpus.log"), ("allocations", root / "shared.csv")]


def _signal_files(root: Path, rng: np.random.Generator) -> list[tuple[str, Path]]:
    """Write a half-hourly intensity with a solar dip and an hourly price that follows it."""
    half = np.arange(START_MS, END_MS, HOUR_MS // 2)
    hour = half / HOUR_MS % 24
    sun = np.maximum(np.sin((hour - 5) / 14 * np.pi), 0) * (hour > 5) * (hour < 19)
    grams = 410 - 210 * sun + 40 * np.sin(half / HOUR_MS / 37) + rng.normal(0, 6, len(half))
    price = (0.09 + grams / 3500)[::2]
    _signal(root / "intensity.csv", half, grams.round(1))
    _signal(root / "price.csv", half[::2], price.round(4))
    return [("intensity", root / "intensity.csv"), ("price", root / "price.csv")]


def _signal(path: Path, start_ms: NDArray[np.int64], values: Floats) -> None:
    pl.DataFrame({"start": [iso(int(t)) for t in start_ms], "value": values}).write_csv(path)


def _drawn_j(job: _Job, power_w: Floats) -> float:
    """Return what a job's GPUs drew while it held them [J]."""
    return float(sum(power_w[n, g, b:e].sum() for n, g in job.gpus for b, e in job.runs) * STEP_MS / 1000)
