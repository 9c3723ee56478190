"""Jobs from `sacct --parsable2`: a file with a header line, a list of fields, or the command itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from wattkeeper.config import expand_hosts
from wattkeeper.core.clock import LATEST_MS, to_ms, zone
from wattkeeper.core.errors import ConfigError, ImportFileError, SourceError
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.core.schema import ALLOCATIONS, JOBS

FIELDS = (
    "JobID", "JobName", "User", "Account", "Partition", "State", "Submit", "Start", "End", "NNodes", "NCPUS",
    "AllocTRES", "NodeList", "ConsumedEnergyRaw",
)  # fmt: skip
"""What the command is asked for; a file may have more, in any order."""

NEEDED = ("JobID", "State", "Start", "End", "NodeList")

NEVER = frozenset({"", "Unknown", "None", "None assigned", "N/A"})
"""What Slurm prints for a time or a node list that there is not."""


@dataclass(frozen=True, slots=True)
class NodeSize:
    """What a node has to give: CPUs and GPUs."""

    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a job: a requeued job has several."""

    job_id: str
    row: dict[str, str]
    state: str
    submit_ms: int | None
    start_ms: int
    end_ms: int | None
    nodes: list[str]
    cpus: int | None
    gpus: int


class SacctSource:
    """Jobs and allocations from accounting.

    path: a file of `sacct --parsable2` output; None runs the command for [start, end), any times sacct takes.
    fields: names of the columns of a file without a header line.
    timezone: zone of times without an offset. cluster: put before each job id, as cluster:id, where one book has several.
    sizes: CPUs and GPUs of each node; what is not known is treated as held whole.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        sizes: Mapping[str, NodeSize],
        fields: Sequence[str] = (),
        timezone: str = "UTC",
        cluster: str = "",
        start: str = "now-1day",
        end: str = "now",
    ) -> None:
        self.path, self.sizes, self.fields, self.timezone = path, sizes, tuple(fields), timezone
        self.prefix = f"{cluster}:" if cluster else ""
        self.start, self.end = start, end

    def read(self) -> Iterator[Intake]:
        """Yield all jobs as one batch. Raises SourceError when sacct fails, ImportFileError for a file without jobs."""
        name = self.path.name if self.path else "sacct"
        lines = (self._text().rstrip("\n") or "").split("\n")
        first = 1
        fields = self.fields
        if not fields:
            fields, lines, first = tuple(lines[0].split("|")), lines[1:], 2
        missing = [f for f in NEEDED if f not in fields]
        if missing:
            raise ImportFileError(
                f"{name}: no column {', '.join(missing)} in the header '{'|'.join(fields)[:80]}'. "
                "Run sacct with --parsable2 and a header, or name the fields."
            )
        intake = Intake(name)
        runs, energy_j = self._runs(name, lines, first, fields, intake.rejects)
        intake.jobs = _jobs(runs, energy_j)
        rows = [a for run in runs for a in _held(run, self.sizes)]
        intake.allocations = pl.DataFrame(rows, schema=ALLOCATIONS.schema, orient="row").unique(maintain_order=True)
        yield intake

    def _text(self) -> str:
        if self.path is not None:
            try:
                return self.path.read_text("utf-8-sig", "replace")
            except OSError as error:
                raise ImportFileError(f"Cannot read {self.path}: {error.strerror}.") from error
        known = set(_run(["sacct", "--helpformat"]).split())
        fields = [f for f in FIELDS if f in known]
        command = ["sacct", "--parsable2", "--allusers", "--duplicates", f"--format={','.join(fields)}"]
        return _run([*command, f"--starttime={self.start}", f"--endtime={self.end}"])

    def _runs(
        self, name: str, lines: list[str], first: int, fields: tuple[str, ...], rejects: list[Reject]
    ) -> tuple[list[_Run], dict[str, float]]:
        """Return the runs of all jobs, and the energy that steps say they drew; refuse what cannot be read."""
        runs: list[_Run] = []
        energy_j: dict[str, float] = {}
        for at, row in rows_of(name, lines, first, fields, rejects):
            try:
                run = self._run_of(row)
            except (ValueError, ConfigError) as error:
                rejects.append(Reject(name, at, str(error), "|".join(row.values())[:200]))
                continue
            _add_energy(energy_j, self.prefix, row)
            if run is not None:
                runs.append(run)
        return runs, energy_j

    def _run_of(self, row: dict[str, str]) -> _Run | None:
        """Return a row's run; None for steps, jobs that never started and arrays still waiting."""
        job_id = row["JobID"]
        if not job_id:
            raise ValueError("JobID is empty")
        if "." in job_id or "[" in job_id or row["Start"] in NEVER:
            return None
        start_ms = time_ms(row["Start"], self.timezone)
        end_ms = None if row["End"] in NEVER else time_ms(row["End"], self.timezone, start_ms)
        if end_ms is not None and end_ms < start_ms:
            raise ValueError(f"ends at {row['End']}, before it starts at {row['Start']}")
        nodes = [] if row["NodeList"] in NEVER else expand_hosts(row["NodeList"])
        state = row["State"].split()[0] if row["State"].strip() else ""
        submit = row.get("Submit", "")
        submit_ms = None if submit in NEVER else time_ms(submit, self.timezone)
        tres = parse_tres(row.get("AllocTRES", ""))
        cpus = _count(tres["cpu"], "cpu") if "cpu" in tres else None
        return _Run(self.prefix + job_id, row, state, submit_ms, start_ms, end_ms, nodes, cpus, gpus_of(tres))


def rows_of(
    name: str, lines: Sequence[str], first: int, fields: Sequence[str], rejects: list[Reject]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the fields of each line; refuse those that have more or fewer. first: number of the first."""
    for at, line in enumerate(lines, first):
        values = line.split("|")
        if not line.strip():
            continue
        if len(values) == len(fields):
            yield at, dict(zip(fields, values, strict=True))
        else:
            rejects.append(Reject(name, at, f"has {len(values)} fields, not {len(fields)}", line[:200]))


def time_ms(text: str, timezone: str, after_ms: int = 0) -> int:
    """Return a time of Slurm's [ms UTC]: epoch seconds, or ISO with or without an offset.

    Of an hour that clocks show twice it is the first one, unless that lies before after_ms. Raises ValueError.
    """
    try:
        if text.isdecimal():
            found_ms = int(text) * 1000
        else:
            moment = datetime.fromisoformat(text)
            local = moment if moment.tzinfo else moment.replace(tzinfo=zone(timezone))
            found_ms = to_ms(local)
            if found_ms < after_ms:
                found_ms = to_ms(local.replace(fold=1))
    except (ValueError, OverflowError):
        raise ValueError(f"time '{text}' cannot be read; use SLURM_TIME_FORMAT=%s or the standard form") from None
    if not 0 <= found_ms <= LATEST_MS:
        raise ValueError(f"time '{text}' lies outside 1970 to 2100")
    return found_ms


def _run(command: list[str]) -> str:
    """Run a command with epoch times; return what it printed. Raises SourceError where it fails."""
    try:
        done = subprocess.run(
            ["env", "SLURM_TIME_FORMAT=%s", *command], capture_output=True, text=True, check=False, timeout=600
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"Cannot run {command[0]}: {error}.") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise SourceError(f"{command[0]} failed with {done.returncode}: {said}")
    return done.stdout


def parse_tres(text: str) -> dict[str, str]:
    """Return the resources of a TRES string such as cpu=8,gres/gpu=4,mem=320.5G."""
    return dict(item.split("=", 1) for item in text.split(",") if "=" in item)


def gpus_of(tres: Mapping[str, str]) -> int:
    """Return the GPUs of a TRES: the plain count, else the sum over types, never both. Raises ValueError."""
    if "gres/gpu" in tres:
        return _count(tres["gres/gpu"], "gres/gpu")
    return sum(_count(v, k) for k, v in tres.items() if k.startswith("gres/gpu:"))


def _count(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError(f"{what}={text} is not a count")
    return int(text)


def _add_energy(energy_j: dict[str, float], prefix: str, row: dict[str, str]) -> None:
    """Note what a row says was drawn [J]: the job's own figure, else the largest of its steps."""
    raw = row.get("ConsumedEnergyRaw", "") or parse_tres(row.get("AllocTRES", "")).get("energy", "")
    if raw.isascii() and raw.isdecimal() and 0 < int(raw) < 2**62:
        job = prefix + row["JobID"].split(".")[0]
        energy_j[job] = max(energy_j.get(job, 0.0), float(raw))


def _jobs(runs: list[_Run], energy_j: dict[str, float]) -> pl.DataFrame:
    """Return one row per run; a book takes the last of a job."""
    rows = []
    for run in runs:
        get = run.row.get
        rows.append((
            run.job_id, get("JobName") or None, get("User") or None, get("Account") or None, get("Partition") or None,
            run.state or None, run.submit_ms, run.start_ms, run.end_ms,
            len(run.nodes) or None, run.cpus, run.gpus, energy_j.get(run.job_id),
        ))  # fmt: skip
    return pl.DataFrame(rows, schema=JOBS.schema, orient="row")


def _held(run: _Run, sizes: Mapping[str, NodeSize]) -> Iterator[tuple[str, str, int, int | None, float, bool]]:
    """Yield what a run held: each of its nodes, and GPUs on them.

    A job with GPUs holds of a node what it holds of its GPUs, another what it holds of its CPUs; a node of unknown size
    is held whole. GPUs and CPUs are spread evenly over the nodes, as accounting does not tell. Which GPUs they are is
    known here only when all of a node's are held; else each GPU gets its part and is marked as estimated.
    """
    if not run.nodes or (run.end_ms is not None and run.end_ms <= run.start_ms):
        return
    gpus, cpus = run.gpus / len(run.nodes), (run.cpus or 0) / len(run.nodes)
    for node in run.nodes:
        size = sizes.get(node, NodeSize(0, 0))
        share = gpus / size.gpus if gpus and size.gpus else cpus / size.cpus if cpus and size.cpus else 1.0
        yield run.job_id, node, run.start_ms, run.end_ms, min(share, 1.0), False
        whole = gpus >= size.gpus
        for i in range(size.gpus if gpus else 0):
            part = 1.0 if whole else gpus / size.gpus
            yield run.job_id, f"{node}/gpu{i}", run.start_ms, run.end_ms, part, not whole
