"""Against a real Slurm: what it hands out is what the importers say it handed out."""

from __future__ import annotations

import os
import re
import time

import pytest

from tests.integrations.slurm.cluster import SlurmCluster, missing, until
from wattkeeper.integrations.slurm.gres import ScontrolSource, SqueueSource
from wattkeeper.integrations.slurm.listed import SACCT, SQUEUE
from wattkeeper.integrations.slurm.sacct import NodeSize, SacctSource
from wattkeeper.plan.problem import Grid
from wattkeeper.planning import read_queue
from wattkeeper.planning.printed import printed

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=f"Slurm is not all installed: {', '.join(missing())}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a Slurm of one's own needs root"),
]

SIZES = {n: NodeSize(cpus=64, gpus=8) for n in ("node1", "node2")}


@pytest.fixture(scope="module")
def slurm():
    """A running cluster."""
    with SlurmCluster() as cluster:
        yield cluster


def sacct(slurm, monkeypatch):
    """Return what the sacct command of this cluster says."""
    for key in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(key, slurm.env[key])
    return next(SacctSource(None, sizes=SIZES, start="now-1hour", end="now+1hour").read())


def of_job(intake, job):
    """Return (asset, share, estimated) of one job."""
    rows = intake.allocations.select("job_id", "asset", "share", "estimated").rows()
    return sorted(r[1:] for r in rows if r[0] == job)


def test_accounting_tells_jobs_nodes_and_gpu_counts(slurm, monkeypatch):
    """Two whole nodes, two GPUs of one, an array, a cancelled and a failed job: states and shares as Slurm ran them."""
    whole = slurm.submit("-N2", "--gres=gpu:h100:8", "-n2")
    slurm.wait(whole, "COMPLETED")
    part = slurm.submit("--gres=gpu:2")
    array = slurm.submit("--array=1-2", "-n4")
    failed = slurm.submit("-n1", script="exit 3")
    cancelled = slurm.submit("-n1", script="sleep 60")
    for job, state in ((part, "COMPLETED"), (array, "COMPLETED"), (failed, "FAILED"), (cancelled, "RUNNING")):
        slurm.wait(job, state)
    time.sleep(1)
    slurm.run("scancel", cancelled)
    slurm.wait(cancelled, "CANCELLED", "by", "0")
    intake = sacct(slurm, monkeypatch)
    jobs = {r["job_id"]: r for r in intake.jobs.iter_rows(named=True)}

    gpus = [(f"{n}/gpu{i}", 1.0, False) for n in ("node1", "node2") for i in range(8)]
    assert sorted([("node1", 1.0, False), ("node2", 1.0, False), *gpus]) == of_job(intake, whole)
    assert 9 == len(of_job(intake, part))  # the node, and an eighth-wise guess at each GPU
    assert {0.25} == {s for _, s, _ in of_job(intake, part)}
    assert {f"{array}_1", f"{array}_2", failed, cancelled} <= set(jobs)
    assert ("FAILED", "CANCELLED") == (jobs[failed]["state"], jobs[cancelled]["state"])
    assert (16, 2, "ml", "root") == tuple(jobs[whole][k] for k in ("gpus", "nodes", "project", "user"))
    assert jobs[whole]["end_ms"] - jobs[whole]["start_ms"] >= 1000
    assert [] == intake.rejects


def test_the_controller_tells_which_gpus(slurm, tmp_path):
    """The indices that scontrol and squeue give are those that the job itself sees, on every node."""
    job = slurm.submit(
        "-N2", "--gres=gpu:h100:3", "-n2", script="srun -N2 sh -c 'echo $SLURM_NODEID $SLURM_JOB_GPUS'; sleep 20"
    )
    other = slurm.submit("-w", "node1", "--gres=gpu:1", script="sleep 20")
    slurm.wait_running(job)
    slurm.wait_running(other)
    (tmp_path / "job.txt").write_text(slurm.run("scontrol", "show", "job", "-d"))
    (tmp_path / "queue.json").write_text(slurm.run("squeue", "--json"))
    zone = time.strftime("%Z") if time.strftime("%Z") in {"UTC", "GMT"} else "UTC"
    by_text = next(ScontrolSource(tmp_path / "job.txt", timezone=zone).read()).allocations
    by_json = next(SqueueSource(tmp_path / "queue.json").read()).allocations
    running = [job, other]
    text = {r[:2] for r in by_text.select("job_id", "asset", "end_ms").rows() if r[0] in running and r[2] is None}

    assert text == {r for r in by_json.select("job_id", "asset").rows() if r[0] in running}
    assert 7 == len(text)  # three on each node, and one
    detail = slurm.run("scontrol", "show", "job", "-d", other)
    index = re.search(r"IDX:(\d+)", detail)[1]
    assert (other, f"node1/gpu{index}") in text
    slurm.run("scancel", job, other)


def test_a_requeued_job_has_both_runs(slurm, monkeypatch):
    """A job that was requeued while it ran held its node twice."""
    job = slurm.submit("-n1", "--requeue", script="sleep 5")
    slurm.wait_running(job)
    time.sleep(1.5)
    slurm.run("scontrol", "requeue", job)
    until(lambda: slurm.run("squeue", "-h", "-j", job, "-o", "%T") == "PENDING", 30)
    time.sleep(3)  # the node turns away a second run that begins in the second in which the first one ended

    def started():  # Slurm sets a later begin time a moment after the requeue; ask until it holds
        slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")
        time.sleep(1)
        return slurm.run("squeue", "-h", "-j", job, "-o", "%T") != "PENDING"

    until(started, 30)
    slurm.wait(job, "COMPLETED")
    intake = sacct(slurm, monkeypatch)
    runs = [r for r in intake.allocations.select("job_id", "start_ms", "end_ms").rows() if r[0] == job]

    assert 2 == len(runs)
    assert runs[0][2] <= runs[1][1]  # one after the other


def test_what_waits_can_be_planned(slurm, tmp_path):
    """A job that may begin in an hour and an array of two, as squeue prints them; a running one and one without GPUs are
    not in it."""
    options = ("--begin=now+1hour", "--gres=gpu:4", "--time=90")
    one = slurm.submit(*options, "--comment=wattkeeper: tier=elastic, power_w=600", "--deadline=now+1day")
    array = slurm.submit(*options, "--array=1,3%1", "--comment=wattkeeper: power_w=500")
    plain = slurm.submit("--begin=now+1hour", "-n1")
    running = slurm.submit("--gres=gpu:1", script="sleep 60")
    slurm.wait_running(running)
    (tmp_path / "queue.json").write_text(slurm.run("squeue", "--json"))
    for job in (one, array, plain, running):
        slurm.run("scancel", job)
    start_ms = int(time.time() * 1000)
    jobs, rejects = read_queue(tmp_path / "queue.json", Grid(start_ms, 3_600_000, 48))
    found = {j.id: (j.gpus, j.duration_ms, j.power_w, j.tier) for j in jobs}

    assert rejects == []
    assert found == {
        one: (4, 5_400_000, 600, "elastic"),
        f"{array}_1": (4, 5_400_000, 500, "elastic"),
        f"{array}_3": (4, 5_400_000, 500, "elastic"),
    }
    release_ms = next(j.release_ms for j in jobs if j.id == one)
    assert 3_500_000 < release_ms - start_ms < 3_700_000
    assert next(j.deadline_ms for j in jobs if j.id == one) > start_ms + 80_000_000


def test_all_that_slurm_prints_is_the_same_queue(slurm, tmp_path):
    """Running, waiting, array, heterogeneous and held jobs: squeue's JSON, YAML and text, and sacct's JSON and text.

    Each says the same, but that sacct does not list what is held.
    """
    begin = ("--begin=now+1hour", "--time=90")
    one = slurm.submit(*begin, "--gres=gpu:4", "--job-name=a|b")
    array = slurm.submit(*begin, "--gres=gpu:1", "--array=1-5:2%1")
    het = slurm.run(
        "sbatch", "--parsable", "--account=ml", *begin, "--gres=gpu:1", ":", *begin, "--gres=gpu:2", "--wrap", "sleep 1"
    )
    held = slurm.submit("--hold", "--gres=gpu:2", "--time=30")
    running = slurm.submit("-N2", "--gres=gpu:3", "--time=20", script="sleep 120")
    slurm.wait_running(running)
    slurm.wait(running, "RUNNING")
    until(lambda: len(slurm.run("sacct", "-anXP", "-s", "PD", "-E", "now+7days", "-o", "JobID").split()) >= 4, 60)

    def found(name, command):
        words = ["bash", "-c", command]
        (tmp_path / name).write_text(slurm.run(*words) + "\n")
        told = printed(tmp_path / name)
        waits = {c["job_id"]: (c["gpus"], c["duration_h"], c.get("release"), why) for c, why in told.waiting}
        return waits, told.running, told.rejects

    epoch = "-s PD,R,S -S now-7days -E now+7days"
    answers = {
        "squeue.json": found("squeue.json", "squeue --json"),
        "squeue.yaml": found("squeue.yaml", "squeue --yaml"),
        "squeue.txt": found("squeue.txt", SQUEUE),
        "sacct.json": found("sacct.json", f"sacct -aX {epoch} --json"),
        "sacct.txt": found("sacct.txt", SACCT),
    }
    slurm.run("scancel", one, array, het, held, running)
    waits, holds, _ = answers["squeue.json"]

    mine = {one: "4", het: "3", **dict.fromkeys((f"{array}_{task}" for task in (1, 3, 5)), "1")}
    assert {name: gpus for name, (gpus, *_) in waits.items()} == {**mine, held: "2"}
    assert waits[held][3].startswith("it is held")
    assert all(waits[name][1] == "1.5" and not waits[name][3] for name in mine)
    assert [(h.job_id, h.gpus, h.where, h.odd) for h in holds] == [(running, 6.0, ["node1", "node2"], "")]
    for name, (other, others, rejects) in answers.items():
        assert rejects == [], name
        assert others == holds, name
        assert other == {job: of for job, of in waits.items() if job != held or name.startswith("squeue")}, name
