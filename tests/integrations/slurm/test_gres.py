"""Which GPUs a job held: scontrol's text, squeue's JSON, and the log of prolog and epilog."""

from __future__ import annotations

import json

import pytest

from wattkeeper.core.errors import ImportFileError
from wattkeeper.integrations.slurm.gres import PrologSource, ScontrolSource, SqueueSource, gpus_in, indices

SCONTROL = """JobId=5 JobName=wrap
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)
   SubmitTime=2026-10-07T10:00:00 EligibleTime=2026-10-07T10:00:00
   StartTime=2026-10-07T10:00:01 EndTime=2026-10-14T10:00:01 Deadline=N/A
   NodeList=node[1-2]
     Nodes=node[1-2] CPU_IDs=0-1,32-33 Mem=4000 GRES=gpu:h100:3(IDX:0-1,5)
   Power=

JobId=9 ArrayJobId=8 ArrayTaskId=3 JobName=wrap
   JobState=COMPLETED Reason=None Dependency=(null)
   StartTime=2026-10-07T10:00:01 EndTime=2026-10-07T10:00:11 Deadline=N/A
     Nodes=node1 CPU_IDs=0 Mem=1 GRES=gpu:h100:1(IDX:7)

JobId=10 JobName=wrap
   JobState=PENDING Reason=Priority Dependency=(null)
   StartTime=Unknown EndTime=Unknown Deadline=N/A
"""


def test_lists_of_numbers():
    """0-2,5 is 0, 1, 2, 5; a detail may name several types."""
    assert [0, 1, 2, 5] == indices("0-2,5")
    assert [0, 1, 4] == gpus_in("gpu:h100:2(IDX:0-1),gpu:a30:1(IDX:4)")
    assert [] == gpus_in("(null)")


def test_scontrol_names_the_gpus_of_each_node(tmp_path):
    """Nodes with equal allocations share a line; a running job is open; a pending one holds nothing."""
    (tmp_path / "job.txt").write_text(SCONTROL)
    rows = next(ScontrolSource(tmp_path / "job.txt", timezone="UTC").read()).allocations

    start = 1_791_367_201_000  # 2026-10-07T10:00:01Z
    expected = [("5", f"node{n}/gpu{g}", start, None, 1.0, False) for n in (1, 2) for g in (0, 1, 5)]
    assert [*expected, ("8_3", "node1/gpu7", start, start + 10_000, 1.0, False)] == rows.rows()


@pytest.mark.parametrize("wrapped", [False, True])
def test_squeue_names_the_gpus_in_node_order(tmp_path, wrapped):
    """gres_detail has one entry a node; numbers are plain in old Slurm and wrapped in new."""
    number = (lambda v: {"set": True, "infinite": False, "number": v}) if wrapped else (lambda v: v)
    job = {
        "job_id": 5, "nodes": "n[1-2]", "start_time": number(100), "array_job_id": number(0),
        "gres_detail": ["gpu:h100:2(IDX:0-1)", "gpu:h100:1(IDX:3)"],
    }  # fmt: skip
    (tmp_path / "q.json").write_text(json.dumps({"jobs": [job, {"job_id": 6, "nodes": "", "gres_detail": []}]}))
    rows = next(SqueueSource(tmp_path / "q.json").read()).allocations

    assert ["n1/gpu0", "n1/gpu1", "n2/gpu3"] == rows["asset"].to_list()
    assert {100_000} == set(rows["start_ms"])


def test_squeue_that_is_no_json_is_refused(tmp_path):
    """Text that squeue did not print is told."""
    (tmp_path / "q.json").write_text("JOBID PARTITION")
    with pytest.raises(ImportFileError, match="is not the output of squeue --json"):
        next(SqueueSource(tmp_path / "q.json").read())


def test_the_log_of_prolog_and_epilog(tmp_path):
    """A start and an end make an allocation; a start alone is still open; a torn line is refused with its number."""
    log = "100 start 5 n1 0,1\n150 start 6 n1 2\n200 end 5 n1 0,1\n2"
    (tmp_path / "gpu.log").write_text(log)
    intake = next(PrologSource(tmp_path / "gpu.log").read())

    expected = {("5", "n1/gpu0", 100_000, 200_000), ("5", "n1/gpu1", 100_000, 200_000), ("6", "n1/gpu2", 150_000, None)}
    assert expected == set(intake.allocations.select("job_id", "asset", "start_ms", "end_ms").rows())
    assert [(4, "is not 'epoch start|end job host indices'")] == [(r.row, r.reason) for r in intake.rejects]
