"""What waits in Slurm: pending jobs of `squeue --json` as rows of a queue file for `wattkeeper plan`.

A job's own wishes stand in its comment: `sbatch --comment="wattkeeper: tier=elastic, suspendable=yes"`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ClusterShell.RangeSet import RangeSet, RangeSetException

from wattkeeper.config import expand_hosts
from wattkeeper.core.clock import iso
from wattkeeper.integrations.slurm.gres import number
from wattkeeper.integrations.slurm.sacct import gpus_of, parse_tres

MARK = "wattkeeper:"
"""Begins what a job's comment says to the planner."""

WAITS = "Dependency"
"""Slurm's reason for a job that waits for another one: when it may start is not known."""


def waiting(told: dict[str, Any]) -> Iterator[tuple[dict[str, str], str]]:
    """Yield each pending job that asks for GPUs: its cells by column of a queue file, and why it cannot be planned, ""
    where it can.

    Two more cells are no columns: `name`, and `limit_h` where the time limit stands for the duration.

    told: the output of squeue --json, of 22.05 and later. Each task of a pending array is a job of its own.
    """
    for job in told["jobs"]:
        states = job.get("job_state") or ""
        if "PENDING" not in ([states] if isinstance(states, str) else states):
            continue
        gpus = gpus_of(parse_tres(job.get("tres_req_str") or ""))
        if not gpus:
            continue
        cells, why = _cells(job), ""
        limit_min = number(job.get("time_limit"))
        if cells.get("duration_h") is None:
            if limit_min:
                cells["duration_h"] = cells["limit_h"] = str(limit_min / 60)
            else:
                why = "it has no time limit: set one, or say duration_h in its comment"
        if job.get("state_reason") == WAITS:
            why = "it waits for another job"
        try:
            ids = _ids(job)
        except RangeSetException:
            ids, why = [str(job["job_id"])], f"its array tasks '{job.get('array_task_string')}' are not a range"
        for job_id in ids:
            yield {"gpus": str(gpus), **cells, "job_id": job_id}, why


def running(told: dict[str, Any]) -> Iterator[tuple[str, float, list[str], int | None]]:
    """Yield each running job that holds GPUs: id, how many, the nodes it is on, and when its time limit ends [ms]."""
    for job in told["jobs"]:
        states = job.get("job_state") or ""
        if not {"RUNNING", "COMPLETING"} & set([states] if isinstance(states, str) else states):
            continue
        gpus = gpus_of(parse_tres(job.get("tres_alloc_str") or job.get("tres_req_str") or ""))
        if gpus:
            end_s = number(job.get("end_time")) if number(job.get("time_limit")) else None
            nodes = expand_hosts(job["nodes"]) if job.get("nodes") else []
            yield str(job["job_id"]), float(gpus), nodes, end_s * 1000 if end_s else None


def _cells(job: dict[str, Any]) -> dict[str, str]:
    cells = {"user": job.get("user_name") or "", "name": job.get("name") or ""}
    for column, field in (("release", "eligible_time"), ("deadline", "deadline")):
        if seconds := number(job.get(field)):
            cells[column] = iso(seconds * 1000)
    comment = job.get("comment") or ""
    text = comment if isinstance(comment, str) else comment.get("job") or ""
    _before, mark, wishes = text.partition(MARK)
    for wish in wishes.split(",") if mark else ():
        column, _, value = wish.partition("=")
        cells[column.strip()] = value.strip()
    return cells


def _ids(job: dict[str, Any]) -> list[str]:
    """Return the ids a job stands for: several where it is an array whose tasks wait together."""
    array, task = number(job.get("array_job_id")), number(job.get("array_task_id"))
    tasks = str(job.get("array_task_string") or "").partition("%")[0]
    if tasks:
        return [f"{job['job_id']}_{t}" for t in RangeSet(tasks.replace(":", "/")).intiter()]
    return [f"{array}_{task}" if array and task is not None else str(job["job_id"])]
