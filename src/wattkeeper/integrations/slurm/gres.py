"""Which GPU each job held: from `scontrol show job -d`, `squeue --json`, or a log that prolog and epilog write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from wattkeeper.config import expand_hosts
from wattkeeper.core.clock import LATEST_MS, to_ms, zone
from wattkeeper.core.errors import ConfigError, ImportFileError
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.core.schema import ALLOCATIONS

_GRES = re.compile(r"gpu(?::[^:,()\s]+)?:(\d+)\(IDX:([\d,\-]*)\)")
_NODES = re.compile(r"Nodes=(\S+) .*?GRES=(\S*)")
_FIELD = re.compile(r"(\w[\w:/]*)=(\S*)")

_LOGGED = re.compile(r"(?P<epoch>[0-9]+) (?P<event>start|end) (?P<job>\S+) (?P<host>\S+)(?: (?P<gpus>\d[\d,-]*))?")

Row = tuple[str, str, int, int | None, float, bool]


def indices(text: str) -> list[int]:
    """Return the numbers of a list such as 0-2,5."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found.extend(range(int(low), int(high or low) + 1))
    return found


def gpus_in(gres: str) -> list[int]:
    """Return the GPU indices of a GRES detail such as gpu:h100:3(IDX:0-2)."""
    return [i for match in _GRES.finditer(gres) for i in indices(match[2])]


class ScontrolSource:
    """Exact GPU allocations from the text of `scontrol show job -d`."""

    def __init__(self, path: Path, *, timezone: str = "UTC", cluster: str = "") -> None:
        self.path, self.timezone = path, timezone
        self.prefix = f"{cluster}:" if cluster else ""

    def read(self) -> Iterator[Intake]:
        """Yield one batch. Raises ImportFileError when the file cannot be read."""
        rows: list[Row] = []
        intake = Intake(self.path.name)
        line = 1
        for block in re.split(r"\n\s*\n", _text(self.path)):
            try:
                rows += self._job(block)
            except (ValueError, ConfigError) as error:
                intake.rejects.append(Reject(self.path.name, line, str(error), block.strip().split("\n")[0][:200]))
            line += block.count("\n") + 2
        intake.allocations = pl.DataFrame(rows, schema=ALLOCATIONS.schema, orient="row")
        yield intake

    def _job(self, block: str) -> Iterator[Row]:
        facts = dict(_FIELD.findall(block))
        if "JobId" not in facts or facts.get("StartTime", "Unknown") in {"Unknown", "N/A"}:
            return
        job = facts["JobId"]
        if facts.get("ArrayJobId") and facts.get("ArrayTaskId", "").isdigit():
            job = f"{facts['ArrayJobId']}_{facts['ArrayTaskId']}"
        running = facts.get("JobState") in {"RUNNING", "SUSPENDED", "COMPLETING"}
        start_ms = self._time_ms(facts["StartTime"])
        end_ms = None if running else self._time_ms(facts["EndTime"])
        if end_ms is not None and end_ms <= start_ms:
            return
        for names, gres in _NODES.findall(block):
            for node in expand_hosts(names):
                for i in gpus_in(gres):
                    yield self.prefix + job, f"{node}/gpu{i}", start_ms, end_ms, 1.0, False

    def _time_ms(self, text: str) -> int:
        return to_ms(datetime.fromisoformat(text).replace(tzinfo=zone(self.timezone)))


class SqueueSource:
    """Exact GPU allocations of running jobs from `squeue --json`."""

    def __init__(self, path: Path, *, cluster: str = "") -> None:
        self.path = path
        self.prefix = f"{cluster}:" if cluster else ""

    def read(self) -> Iterator[Intake]:
        """Yield one batch. Raises ImportFileError when the file is not what squeue prints."""
        try:
            jobs = json.loads(_text(self.path))["jobs"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ImportFileError(f"{self.path} is not the output of squeue --json: {error}.") from error
        rows = [row for job in jobs for row in self._job(job)]
        yield Intake(self.path.name, allocations=pl.DataFrame(rows, schema=ALLOCATIONS.schema, orient="row"))

    def _job(self, job: dict[str, Any]) -> Iterator[Row]:
        nodes, detail = job.get("nodes") or "", job.get("gres_detail") or []
        if not nodes or not detail:
            return
        array, task = number(job.get("array_job_id")), number(job.get("array_task_id"))
        job_id = f"{array}_{task}" if array and task is not None else str(job["job_id"])
        start_ms = (number(job.get("start_time")) or 0) * 1000
        for node, gres in zip(expand_hosts(nodes), detail, strict=False):
            for i in gpus_in(gres):
                yield self.prefix + job_id, f"{node}/gpu{i}", start_ms, None, 1.0, False


class PrologSource:
    """Exact GPU allocations from the log of prolog.sh and epilog.sh: `epoch start|end job host indices` a line."""

    def __init__(self, path: Path, *, cluster: str = "") -> None:
        self.path = path
        self.prefix = f"{cluster}:" if cluster else ""

    def read(self) -> Iterator[Intake]:
        """Yield one batch. Raises ImportFileError when the file cannot be read."""
        intake = Intake(self.path.name)
        begun: dict[tuple[str, str], list[tuple[int, list[int]]]] = {}
        rows: list[Row] = []
        for at, line in enumerate(_text(self.path).splitlines(), 1):
            if not line.strip():
                continue
            match = _LOGGED.fullmatch(line.strip())
            if match is None or int(match["epoch"]) * 1000 > LATEST_MS:
                reason = "is not 'epoch start|end job host indices'"
                intake.rejects.append(Reject(self.path.name, at, reason, line[:200]))
                continue
            time_ms, job, host = int(match["epoch"]) * 1000, match["job"], match["host"]
            if match["event"] == "start":
                begun.setdefault((job, host), []).append((time_ms, indices(match["gpus"] or "")))
            elif begun.get((job, host)):
                rows += self._rows(job, host, *begun[job, host].pop(0), time_ms)
        rows += [r for (job, host), open_ in begun.items() for o in open_ for r in self._rows(job, host, *o, None)]
        intake.allocations = pl.DataFrame(rows, schema=ALLOCATIONS.schema, orient="row")
        yield intake

    def _rows(self, job: str, host: str, start_ms: int, gpus: list[int], end_ms: int | None) -> list[Row]:
        if end_ms is not None and end_ms <= start_ms:
            return []
        return [(self.prefix + job, f"{host}/gpu{i}", start_ms, end_ms, 1.0, False) for i in gpus]


def number(value: Any) -> int | None:
    """Return a number of Slurm's JSON, plain or as {set, infinite, number}."""
    if isinstance(value, dict):
        return int(value["number"]) if value.get("set") else None
    return int(value) if value is not None else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig", "replace")
    except OSError as error:
        raise ImportFileError(f"Cannot read {path}: {error.strerror}.") from error
