"""Jobs from sacct: states, times, nodes, GPUs, runs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.clock import to_ms
from wattkeeper.core.errors import ImportFileError, SourceError
from wattkeeper.integrations.slurm.sacct import NodeSize, SacctSource, gpus_of, parse_tres

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "telemetry" / "slurm" / "sacct.txt"
HEAD = "JobID|JobName|User|Account|Partition|State|Submit|Start|End|NCPUS|AllocTRES|NodeList|ConsumedEnergyRaw"
SIZES = {f"n{i}": NodeSize(cpus=64, gpus=8) for i in range(1, 5)}


def read(tmp_path, *lines, **options):
    """Return the intake of some sacct lines."""
    file = tmp_path / "sacct.txt"
    file.write_text("\n".join([HEAD, *lines]) + "\n")
    return next(SacctSource(file, sizes=SIZES, **options).read())


def held(intake):
    """Return (asset, share, estimated) of all allocations."""
    return intake.allocations.select("asset", "share", "estimated").rows()


def test_a_job_with_all_gpus_of_a_node_holds_each_of_them(tmp_path):
    """Eight of eight GPUs: the node and its GPUs are the job's, and that is exact."""
    intake = read(tmp_path, "7|train|ann|ml|gpu|COMPLETED|0|100|200|64|cpu=64,gres/gpu=8,gres/gpu:h100=8,node=1|n1|")

    assert [("n1", 1.0, False), *((f"n1/gpu{i}", 1.0, False) for i in range(8))] == held(intake)
    assert (100_000, 200_000) == intake.allocations.select("start_ms", "end_ms").row(0)
    assert 8 == intake.jobs["gpus"].item()  # the typed count says the same eight again


def test_some_gpus_of_a_node_are_split_by_count_and_marked(tmp_path):
    """Two of eight GPUs, not known which: a quarter of each, estimated; a quarter of the node."""
    intake = read(tmp_path, "7|train|ann|ml|gpu|COMPLETED|0|100|200|16|cpu=16,gres/gpu=2|n1|")

    assert [("n1", 0.25, False), *((f"n1/gpu{i}", 0.25, True) for i in range(8))] == held(intake)


def test_gpus_are_spread_over_the_nodes(tmp_path):
    """Sixteen GPUs on two nodes are eight on each."""
    intake = read(tmp_path, "7|train|ann|ml|gpu|COMPLETED|0|100|200|128|cpu=128,gres/gpu=16,node=2|n[1-2]|")

    assert {("n1", 1.0, False), ("n2", 1.0, False), ("n2/gpu7", 1.0, False)} <= set(held(intake))
    assert 18 == intake.allocations.height


def test_a_cpu_job_holds_its_part_of_the_cpus(tmp_path):
    """Sixteen of 64 CPUs are a quarter of the node, and no GPU."""
    assert [("n1", 0.25, False)] == held(read(tmp_path, "7|x|ann|ml|cpu|COMPLETED|0|100|200|16|cpu=16|n1|"))


def test_a_running_job_has_no_end(tmp_path):
    """Unknown is not a time: the end stays open."""
    intake = read(tmp_path, "7|x|ann|ml|cpu|RUNNING|0|100|Unknown|64|cpu=64|n1|")

    assert [None] == intake.jobs["end_ms"].to_list() == intake.allocations["end_ms"].to_list()


def test_cancelled_by_somebody_is_cancelled(tmp_path):
    """The state is its first word."""
    assert "CANCELLED" == read(tmp_path, "7|x|a|m|p|CANCELLED by 1001|0|100|200|1|cpu=1|n1|").jobs["state"].item()


def test_jobs_that_never_ran_and_steps_are_no_jobs(tmp_path):
    """Pending arrays, jobs cancelled in the queue and steps are passed over, not refused."""
    intake = read(
        tmp_path,
        "9_[5-9]|x|a|m|p|PENDING|0|Unknown|Unknown|1||None assigned|",
        "8|x|a|m|p|CANCELLED by 0|0|None|150|0||None assigned|",
        "7|x|a|m|p|COMPLETED|0|100|200|64|cpu=64|n1|",
        "7.batch|batch||m||COMPLETED|100|100|200|64|cpu=64|n1|4900",
        "7.0|step||m||COMPLETED|100|100|200|64|cpu=64|n1|5000",
    )

    assert ["7"] == intake.jobs["job_id"].to_list()
    assert [] == intake.rejects
    assert 5000.0 == intake.jobs["scheduler_energy_j"].item()  # the largest of its steps


def test_a_requeued_job_has_its_runs(tmp_path):
    """Both runs of a requeued job hold the node, each in its time; array and heterogeneous ids stay as they are."""
    intake = read(
        tmp_path,
        "7_4|x|a|m|p|REQUEUED|0|100|150|64|cpu=64|n1|",
        "7_4|x|a|m|p|COMPLETED|0|300|400|64|cpu=64|n2|",
        "12+0|x|a|m|p|COMPLETED|0|100|200|64|cpu=64|n3|",
        "12+1|x|a|m|p|COMPLETED|0|100|200|64|cpu=64|n4|",
    )

    runs = intake.allocations.select("job_id", "asset", "start_ms", "end_ms").rows()
    assert [("7_4", "n1", 100_000, 150_000), ("7_4", "n2", 300_000, 400_000)] == runs[:2]
    assert ["12+0", "12+1"] == intake.jobs["job_id"].to_list()[2:]


def test_times_carry_their_offset_or_take_the_given_zone(tmp_path):
    """14:37:07+0100 is 13:37:07 UTC; without an offset the zone of the cluster counts."""
    line = "7|x|a|m|p|COMPLETED|{0}|{0}|{1}|64|cpu=64|n1|"
    offset = read(tmp_path, line.format("2023-02-21T14:37:07+0100", "2023-02-21T15:37:07+0100"))
    plain = read(tmp_path, line.format("2023-02-21T14:37:07", "2023-02-21T15:37:07"), timezone="Europe/Berlin")

    assert 1_676_986_627_000 == offset.jobs["start_ms"].item() == plain.jobs["start_ms"].item()


def test_a_job_of_no_length_holds_nothing(tmp_path):
    """A job that ended in the second it started is a job without allocations."""
    intake = read(tmp_path, "7|x|a|m|p|FAILED|0|100|100|64|cpu=64|n1|")

    assert (1, 0) == (intake.jobs.height, intake.allocations.height)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("7|x|a|m|p|COMPLETED|0|100", "has 8 fields, not 13"),
        ("7|x|a|m|p|COMPLETED|0|yesterday|200|1|cpu=1|n1|", "time 'yesterday' cannot be read"),
        ("7|x|a|m|p|COMPLETED|0|300|200|1|cpu=1|n1|", "before it starts"),
        ("7|x|a|m|p|COMPLETED|0|100|200|1|cpu=1|n[1-|", "Host list"),
        ("|x|a|m|p|COMPLETED|0|100|200|1|cpu=1|n1|", "JobID is empty"),
    ],
)
def test_a_bad_row_is_refused_and_the_good_ones_are_kept(tmp_path, line, reason):
    """The row is told with its number in the file; the row after it counts."""
    intake = read(tmp_path, line, "8|x|a|m|p|COMPLETED|0|100|200|64|cpu=64|n1|")

    assert [2] == [r.row for r in intake.rejects]
    assert reason in intake.rejects[0].reason
    assert ["8"] == intake.jobs["job_id"].to_list()


def test_a_file_that_is_no_accounting_is_refused(tmp_path):
    """A header without the needed columns is told with the cure."""
    (tmp_path / "x.txt").write_text("a|b\n1|2\n")
    with pytest.raises(ImportFileError, match="no column JobID, State, Start, End, NodeList"):
        next(SacctSource(tmp_path / "x.txt", sizes={}).read())


def test_a_command_that_fails_yields_nothing(tmp_path, monkeypatch):
    """When sacct fails, its last words are passed on and nothing is imported."""
    fake = tmp_path / "sacct"
    fake.write_text("#!/bin/sh\necho 'sacct: error: Connection refused' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(SourceError, match="sacct failed with 1: sacct: error: Connection refused"):
        next(SacctSource(None, sizes={}).read())


def test_gpus_are_counted_once():
    """The plain count, else the sum over types."""
    assert [6, 3, 0] == [
        gpus_of(parse_tres(t)) for t in ("gres/gpu:h100=6,gres/gpu=6", "gres/gpu:a=1,gres/gpu:b=2", "cpu=1")
    ]


@given(
    st.lists(
        st.tuples(st.integers(1, 10**6), st.integers(0, 10**9), st.integers(1, 10**6), st.integers(1, 4)), max_size=30
    )
)
def test_what_was_written_is_read(tmp_path_factory, runs):
    """Any runs, written as sacct writes them, come back with their times and nodes."""
    lines = [f"{j}|x|a|m|p|COMPLETED|0|{s}|{s + n}|64|cpu=64|n{k}|" for j, s, n, k in runs]
    intake = read(tmp_path_factory.mktemp("x"), *lines)
    expected = {(str(j), f"n{k}", s * 1000, (s + n) * 1000) for j, s, n, k in runs}

    assert expected == set(intake.allocations.select("job_id", "asset", "start_ms", "end_ms").rows())


@pytest.mark.skipif(not SHARED.exists(), reason="the recorded sacct rows are not here")
def test_recorded_rows():
    """Twelve rows of a real cluster, with offsets, fractions of memory and open ends."""
    names = [
        "JobID",
        "Partition",
        "QOS",
        "Account",
        "Group",
        "GID",
        "User",
        "UID",
        "Submit",
        "Start",
        "End",
        "Elapsed",
        "ElapsedRaw",
        "ExitCode",
        "State",
        "AllocTRES",
        "NodeList",
        "JobName",
        "WorkDir",
    ]
    sizes = {f"compute-{i}": NodeSize(cpus=80, gpus=8) for i in range(3)}
    intake = next(SacctSource(SHARED, fields=names, sizes=sizes).read())
    by_id = {r["job_id"]: r for r in intake.jobs.iter_rows(named=True)}

    assert (12, []) == (intake.jobs.height, intake.rejects)
    assert by_id["2009248"]["end_ms"] is None
    # 15:49:06 to 15:57:23 are 497 s, whatever ElapsedRaw says (4500)
    assert 497_000 == by_id["1481508"]["end_ms"] - by_id["1481508"]["start_ms"]
    assert 1_439_089.0 == by_id["1481508"]["scheduler_energy_j"]
    one = intake.allocations.filter(pl.col("job_id") == "1479763")
    assert 9 == one.height  # one node, all of its eight GPUs
    from datetime import UTC, datetime

    assert to_ms(datetime(2022, 2, 21, 13, 37, 7, tzinfo=UTC)) == by_id["1479763"]["start_ms"]


def test_an_end_in_the_doubled_hour_lies_after_its_start(tmp_path):
    """02:50 to 02:10 on the night clocks go back is twenty minutes: 00:50 to 01:10 UTC."""
    line = "7|x|ann|ml|cpu|COMPLETED|Unknown|2026-10-25T02:50:00|2026-10-25T02:10:00|64|cpu=64|n1|"
    intake = read(tmp_path, line, timezone="Europe/Berlin")

    assert intake.rejects == []
    start_ms, end_ms = intake.jobs.select("start_ms", "end_ms").row(0)
    assert end_ms - start_ms == 20 * 60_000


@pytest.mark.parametrize(
    ("start", "tres", "reason"),
    [
        ("99999999999999999", "cpu=1", "time '99999999999999999' lies outside 1970 to 2100"),
        ("0001-01-01T00:00:00", "cpu=1", "time '0001-01-01T00:00:00' lies outside 1970 to 2100"),
        ("1790000000", "cpu=many", "cpu=many is not a count"),
        ("1790000000", "gres/gpu=1.5", "gres/gpu=1.5 is not a count"),
        ("1790000000", "gres/gpu:mig=x", "gres/gpu:mig=x is not a count"),
        ("1790000000", "gres/gpu=²", "gres/gpu=² is not a count"),
    ],
)
def test_a_row_that_cannot_be_true_costs_itself_only(tmp_path, start, tres, reason):
    good = "8|x|ann|ml|cpu|COMPLETED|Unknown|1790000000|1790000100|64|cpu=64|n1|"
    intake = read(tmp_path, f"7|x|ann|ml|cpu|COMPLETED|Unknown|{start}|Unknown|64|{tres}|n1|", good)

    assert [(r.row, r.reason) for r in intake.rejects] == [(2, reason)]
    assert intake.jobs["job_id"].to_list() == ["8"]


@pytest.mark.parametrize("form", [("utf-8-sig", "\n"), ("utf-8", "\r\n"), ("utf-8-sig", "\r\n")])
def test_a_file_that_went_through_windows_is_read(tmp_path, form):
    """A byte order mark and carriage returns change nothing."""
    encoding, newline = form
    file = tmp_path / "sacct.txt"
    line = "7|x|ann|ml|cpu|COMPLETED|Unknown|0|100|64|cpu=64|n1|"
    file.write_text(f"{HEAD}\n{line}\n", encoding, newline=newline)
    assert next(SacctSource(file, sizes=SIZES).read()).jobs["job_id"].to_list() == ["7"]
