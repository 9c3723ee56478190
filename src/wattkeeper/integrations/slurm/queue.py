"""What waits in Slurm and what runs: jobs of `squeue --json`, pending ones as rows of a queue file for `wattkeeper plan`.

`listed.py` brings what else Slurm prints into that form.

A job's own wishes stand in its comment: `sbatch --comment="wattkeeper: tier=elastic, suspendable=yes"`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ClusterShell.RangeSet import RangeSet, RangeSetException

from wattkeeper.config import expand_hosts
from wattkeeper.core.clock import iso
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.roles import Holder
from wattkeeper.integrations.slurm.gres import number
from wattkeeper.integrations.slurm.sacct import gpus_of, parse_tres

MARK = "wattkeeper:"
"""Begins what a job's comment says to the planner."""

HELD = frozenset({"JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue"})
"""Slurm's reasons for a job that somebody has put on hold."""

HOLDING = frozenset({
    "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "STAGE_OUT", "RESIZING", "SIGNALING", "STOPPED",
})  # fmt: skip
"""States in which a job has its GPUs, suspended ones among them (slurm.schedmd.com/gres.html)."""


def waiting(told: dict[str, Any]) -> Iterator[tuple[dict[str, str], str]]:
    """Yield each pending job that asks for GPUs: its cells by column of a queue file, and why it cannot be planned, ""
    where it can.

    Two more cells are no columns: `name`, and `limit_h` where the time limit stands for the duration.

    told: the output of squeue --json, of 22.05 and later. Each task of a pending array is a job of its own; the
    components of a heterogeneous job start together and are one, with the GPUs of all.
    """
    parts: dict[str, list[dict[str, Any]]] = {}
    for job in told["jobs"]:
        if "PENDING" in _states(job):
            parts.setdefault(str(number(job.get("het_job_id")) or job["job_id"]), []).append(job)
    for together in parts.values():
        together.sort(key=lambda job: number(job.get("het_job_offset")) or 0)
        lead = together[0]
        why = _stands_against(lead)
        try:
            gpus = sum(
                gpus_of(parse_tres(job.get("tres_req_str") or job.get("tres_alloc_str") or "")) for job in together
            )
        except ValueError as error:
            gpus, why = 0, str(error)
        if not gpus and not why.startswith("gres"):
            continue
        cells = _cells(lead)
        limits_min = [number(job.get("time_limit")) for job in together]
        if cells.get("duration_h") is None:
            if all(limits_min):
                cells["duration_h"] = cells["limit_h"] = str(max(filter(None, limits_min)) / 60)
            else:
                why = why or "it has no time limit: set one, or say duration_h in its comment"
        try:
            ids = _ids(lead)
        except RangeSetException:
            ids, why = [str(lead["job_id"])], f"its array tasks '{lead.get('array_task_string')}' are not a range"
        for job_id in ids:
            yield {"gpus": str(gpus), **cells, "job_id": job_id}, why


def running(told: dict[str, Any]) -> Iterator[Holder]:
    """Yield each job that holds GPUs, on its nodes. What of one cannot be read is said; no other suffers."""
    for job in told["jobs"]:
        if not HOLDING & _states(job):
            continue
        odd, gpus, nodes, end_s = [], None, [], None
        try:
            gpus = float(gpus_of(parse_tres(job.get("tres_alloc_str") or job.get("tres_req_str") or "")))
        except ValueError as error:
            odd.append(str(error))
        try:
            nodes = expand_hosts(job["nodes"]) if job.get("nodes") else []
        except ConfigError:
            odd.append(f"node list '{job['nodes']}' cannot be read")
        try:
            end_s = number(job.get("end_time")) if number(job.get("time_limit")) else None
        except ValueError:
            odd.append(f"end time '{job.get('end_time')}' cannot be read")
        if gpus or gpus is None:
            yield Holder(str(job["job_id"]), gpus, nodes, end_s * 1000 if end_s else None, "; ".join(odd))


def _states(job: dict[str, Any]) -> set[str]:
    states = job["job_state"] or ""
    return {states} if isinstance(states, str) else set(states)


def _stands_against(job: dict[str, Any]) -> str:
    """Return why a pending job cannot be planned although it is sound. A held one can be if it speaks to the planner."""
    reason = str(job.get("state_reason") or "")
    if reason.startswith("Dependency") or "(unfulfilled)" in str(job.get("dependency") or ""):
        return "it waits for another job"
    if (reason in HELD or {"REQUEUE_HOLD", "SPECIAL_EXIT"} & _states(job)) and MARK not in _comment(job):
        return f"it is held: release it, or say what it wishes in its comment ({MARK} …)"
    return ""


def _comment(job: dict[str, Any]) -> str:
    comment = job.get("comment") or ""
    return comment if isinstance(comment, str) else comment.get("job") or ""


def _cells(job: dict[str, Any]) -> dict[str, str]:
    cells = {"user": job.get("user_name") or "", "name": job.get("name") or ""}
    for column, field in (("release", "eligible_time"), ("deadline", "deadline")):
        if seconds := number(job.get(field)):
            cells[column] = iso(seconds * 1000)
    _before, mark, wishes = _comment(job).partition(MARK)
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
