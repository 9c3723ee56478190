"""Lists of jobs that Slurm prints in other forms, as the jobs of `squeue --json`: `sacct`, `sacct --json`, `squeue -O`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from wattkeeper.core.errors import ImportFileError
from wattkeeper.core.roles import Reject
from wattkeeper.integrations.slurm.gres import number
from wattkeeper.integrations.slurm.sacct import NEVER, rows_of, time_ms

SQUEUE = (
    'SLURM_TIME_FORMAT=%s squeue -O "JobArrayID:|,State:|,UserName:|,tres-alloc:|,TimeLimit:|,EndTime:|,EligibleTime:|,'
    'Deadline:|,NodeList:|,Reason:|,Dependency:|,Comment:|,Name:|"'
)
SACCT = (
    "SLURM_TIME_FORMAT=%s sacct -aXP -s PD,R,S -S now-7days -E now+7days "
    "-o JobID,State,User,ReqTRES,AllocTRES,Timelimit,Start,Eligible,NodeList,Reason,Comment,JobName"
)
"""Commands that print what a plan needs."""

COLUMNS = {
    "jobid": "job_id", "state": "job_state", "user": "user_name", "name": "name", "jobname": "name",
    "comment": "comment", "reason": "state_reason", "dependency": "dependency", "nodelist": "nodes",
    "timelimit": "time_limit", "timelimitraw": "time_limit", "starttime": "start_time", "start": "start_time",
    "endtime": "end_time", "end": "end_time", "eligibletime": "eligible_time", "eligible": "eligible_time",
    "deadline": "deadline", "tresalloc": "tres_alloc_str", "alloctres": "tres_alloc_str", "reqtres": "tres_req_str",
}  # fmt: skip
"""Columns of squeue and sacct, in small letters without _, and the fields of squeue --json that they are."""

TIMES = ("start_time", "end_time", "eligible_time", "deadline")

_ID = re.compile(r"(\d+)(?:_(\d+)|_\[(.+)\]|\+(\d+))?")
_LIMIT = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")


def is_listed(header: str) -> bool:
    """Tell whether a line is the header of what squeue or sacct prints."""
    return "JOBID" in re.split(r"[|,;\s]+", header.strip().upper())


def of_text(name: str, text: str) -> tuple[dict[str, Any], list[Reject]]:
    """Return the jobs of `squeue -O` or `sacct --parsable2` with a header, and the lines that cannot be read.

    Times without an offset are UTC. Raises ImportFileError that says the command where a column is missing.
    """
    header, *lines = (line.strip().removesuffix("|") for line in text.split("\n"))
    fields = tuple(COLUMNS.get(c.strip().lower().replace("_", ""), c.strip()) for c in header.split("|"))
    needed = {"job_id": "JobID", "job_state": "State", "time_limit": "TimeLimit"}
    missing = [words for field, words in needed.items() if field not in fields]
    missing += [] if {"tres_alloc_str", "tres_req_str"} & {*fields} else ["the GPUs (tres-alloc, or ReqTRES)"]
    if missing:
        raise ImportFileError(f"{name}: no column {', '.join(missing)}, parted by |. Print: {SQUEUE} or: {SACCT}")
    rejects: list[Reject] = []
    jobs = []
    if fields[-1] in {"name", "comment"}:  # what users write may have a | of its own
        lines = ["|".join(c.replace("|", " ") for c in line.split("|", len(fields) - 1)) for line in lines]
    for at, row in rows_of(name, lines, 2, fields, rejects):
        try:
            if "." not in row["job_id"]:
                jobs.append(_of_row(row))
        except ValueError as error:
            rejects.append(Reject(name, at, str(error), row["job_id"]))
    return {"jobs": jobs}, rejects


def of_sacct(told: dict[str, Any]) -> dict[str, Any]:
    """Return what `sacct --json` prints as what `squeue --json` does; what is that already as it is."""
    jobs = told["jobs"]
    return {"jobs": [_of_sacct(job) if "job_state" not in job and "state" in job else job for job in jobs]}


def _of_row(row: dict[str, str]) -> dict[str, Any]:
    """Return a job of a line. Raises ValueError for what cannot be read."""
    job: dict[str, Any] = {f: "" if v.strip() in {"(null)", *NEVER} else v.strip() for f, v in row.items()}
    found = _ID.fullmatch(job["job_id"])
    if not found:
        raise ValueError(f"its id '{job['job_id']}' cannot be read")
    lead, task, tasks, offset = found.groups()
    job["job_id"] = int(lead)
    if task:
        job |= {"array_job_id": int(lead), "array_task_id": int(task)}
    elif tasks:
        job |= {"array_job_id": int(lead), "array_task_string": tasks}
    elif offset:
        job |= {"het_job_id": int(lead), "het_job_offset": int(offset)}
    job["job_state"] = job["job_state"].partition(" ")[0]
    job["time_limit"] = _minutes(job["time_limit"])
    for field in TIMES:
        job[field] = time_ms(job[field], "UTC") // 1000 if job.get(field) else None
    if job["start_time"] and job["time_limit"] and not job["end_time"]:
        job["end_time"] = job["start_time"] + 60 * job["time_limit"]
    return job


def _minutes(text: str) -> int | None:
    """Return a time limit, [D-][HH:]MM:SS or whole minutes; None where there is none."""
    if text.isdecimal():
        return int(text)
    if found := _LIMIT.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return (days * 24 + hours) * 60 + minutes + (seconds > 0)
    return None


def _of_sacct(job: dict[str, Any]) -> dict[str, Any]:
    state, time, array, het = (job.get(part) or {} for part in ("state", "time", "array", "het"))
    limit_min, start_s = number(time.get("limit")), number(time.get("start"))
    return {
        **job,
        "job_state": state.get("current"),
        "state_reason": state.get("reason"),
        "user_name": (job.get("association") or {}).get("user") or job.get("user"),
        "nodes": None if job.get("nodes") in NEVER else job.get("nodes"),
        "time_limit": limit_min,
        "eligible_time": time.get("eligible"),
        "end_time": number(time.get("end")) or (start_s + 60 * limit_min if start_s and limit_min else None),
        "array_job_id": array.get("job_id"),
        "array_task_id": array.get("task_id"),
        "array_task_string": _tasks(str(array.get("task") or "")),
        "het_job_id": het.get("job_id"),
        "het_job_offset": het.get("job_offset"),
        "tres_req_str": ",".join(_tres((job.get("tres") or {}).get("requested") or [])),
        "tres_alloc_str": ",".join(_tres((job.get("tres") or {}).get("allocated") or [])),
    }


def _tasks(text: str) -> str:
    """Return the tasks of an array as a range: accounting has them as a mask, 0xE being 1 to 3. Raises ValueError."""
    if not text.startswith("0x"):
        return text
    mask = int(text.partition("%")[0], 16)
    return ",".join(str(task) for task in range(mask.bit_length()) if mask >> task & 1)


def _tres(items: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the GPUs of a list of resources as a TRES string has them."""
    for item in items:
        if item.get("type") == "gres":
            yield f"gres/{item.get('name')}={item.get('count')}"
