"""What a scheduler printed is told apart by what stands in it, and read whole or refused in one line."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.integrations.kubernetes.test_objects import RUNNING, job, listed, pod
from tests.integrations.kubernetes.test_queue import workload
from tests.integrations.slurm.test_listed import SACCT, SQUEUE, accounted
from wattkeeper.core.errors import ImportFileError
from wattkeeper.plan.problem import Grid
from wattkeeper.planning import read_queue
from wattkeeper.planning.printed import printed

HOUR = 3_600_000
NOTED = {"wattkeeper.io/power-w": "500"}
OBJECTS = (
    workload("w", 4, maximumExecutionTimeSeconds=7200, noted=NOTED),
    job("j", suspend=True, noted=NOTED),
    job("r", status=RUNNING, noted=NOTED),
    pod("p", node="n1", phase="Running"),
)
WAITS = [("ml/w", 4, 2 * HOUR, 500.0), ("ml/j", 2, 2 * HOUR, 500.0)]


def jobs_of(path):
    jobs, rejects = read_queue(path, Grid(0, HOUR, 4))
    assert rejects == []
    return [(j.id, j.gpus, j.duration_ms, j.power_w) for j in jobs]


def documents(*objects):
    return "---\n".join(yaml.safe_dump(one) for one in objects)


@pytest.mark.parametrize("name", ["q.yaml", "q.yml", "q", "q.txt"])
@pytest.mark.parametrize(
    "text",
    [
        yaml.safe_dump(listed(*OBJECTS)),
        "# of two clusters\n---\n" + documents(*OBJECTS),
        documents(listed(*OBJECTS[:2]), listed(), None, listed(*OBJECTS[2:])),
        "\ufeff" + json.dumps(listed(*OBJECTS)),
    ],
)
def test_objects_as_yaml_and_json(tmp_path, name, text):
    """One List, documents one by one, Lists after each other: the same jobs, whatever the file is called."""
    (tmp_path / name).write_text(text, "utf-8")

    assert jobs_of(tmp_path / name) == WAITS
    assert [(one.job_id, one.gpus) for one in printed(tmp_path / name).running] == [("ml/r", 2.0), ("ml/p", 2.0)]


def test_times_of_yaml_are_the_text_that_they_are_in_json(tmp_path):
    """A manifest may leave its times unquoted; true and 7200 are no text."""
    text = yaml.safe_dump(listed(job("r", status=RUNNING), job("s", suspend=True, noted=NOTED)))
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(text.replace("'2026-10-01T00:00:00Z'", "2026-10-01T00:00:00Z"))
    first, second = printed(tmp_path / "a.yaml"), printed(tmp_path / "b.yaml")

    assert "'2026" not in (tmp_path / "b.yaml").read_text()
    assert first.running == second.running
    assert first.running[0].end_ms is not None


@pytest.mark.parametrize("name", ["q.json", "q.txt", "q.csv"])
@pytest.mark.parametrize("text", [SQUEUE, SACCT])
def test_text_of_slurm_is_known_by_its_header(tmp_path, name, text):
    """Only .json says that it is JSON, and then it has to be."""
    (tmp_path / name).write_text(text)

    if name == "q.json":
        with pytest.raises(ImportFileError, match="is not what squeue --json"):
            printed(tmp_path / name)
    else:
        assert printed(tmp_path / name).running[0].job_id == "4"


def test_json_and_yaml_of_slurm(tmp_path):
    """squeue --yaml of 22.05 has tags at every value."""
    told = {"jobs": [accounted(3, "PENDING", 3, comment={"job": "wattkeeper: power_w=600"})]}
    (tmp_path / "sacct").write_text(json.dumps(told))
    (tmp_path / "squeue").write_text(
        "%YAML 1.1\n--- !!map\n!!str errors: !!seq []\n!!str jobs: !!seq\n- !!map\n  !!str job_id: !!int 3\n"
        "  !!str job_state: !!str PENDING\n  !!str time_limit: !!int 20\n  !!str tres_req_str: !!str gres/gpu=3\n"
        "  !!str comment: !!str 'wattkeeper: power_w=600'\n  !!str deadline: !!null null\n"
    )

    assert jobs_of(tmp_path / "sacct") == jobs_of(tmp_path / "squeue") == [("3", 3, 20 * 60_000, 600.0)]


@pytest.mark.parametrize(
    "text", ["job_id,gpus,duration_h,power_w\n", "job_id;gpus\n", "sep=;\njob_id;gpus\n", "\n", "PAR1"]
)
def test_tables_are_not_a_schedulers(tmp_path, text):
    (tmp_path / "q.csv").write_text(text)

    assert printed(tmp_path / "q.csv") is None


CUT = yaml.safe_dump(listed(*OBJECTS))
WRONG = [
    ("q.yaml", "", "it is empty"),
    ("q.yaml", "a: [1", "line 2: did not find expected"),
    ("q.yaml", "a: 1\n b: 2\n", "line 2: mapping values are not allowed"),
    ("q.yaml", "a: !!python/object/apply:os.getcwd []\n", "line 1: could not determine a constructor"),
    ("q.yaml", "3\n", "argument of type 'int'"),
    ("q.yaml", CUT[: CUT.index("kind: List")], "its list does not end: it is cut off"),
    ("q.yaml", "a: \x07\n", ""),
    ("q.json", json.dumps(listed(*OBJECTS))[:-9], ""),
    ("q.json", '{"kind": "Deployment", "metadata": {"name": "x"}}', "an item is a Deployment, not a Workload, Job"),
    ("q.json", '{"items": [null]}', ""),
    ("q.json", '{"jobs": null}', ""),
    ("q.json", '{"jobs": [null]}', ""),
    ("q.json", '{"jobs": [{"job_id": 1}]}', "no 'job_state'"),
]


@pytest.mark.parametrize(("name", "text", "said"), WRONG)
def test_what_is_nothing_of_the_kind_is_refused_in_one_line(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)

    with pytest.raises(ImportFileError) as caught:
        printed(tmp_path / name)
    assert f"{name} is not what squeue --json, sacct --json or kubectl get " in str(caught.value)
    assert f" prints: {said}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['{"items": []}', '{"items": null}', '{"jobs": []}', "kind: List\nitems: []\n"])
def test_an_empty_list_is_an_empty_queue(tmp_path, text):
    (tmp_path / "q").write_text(text)

    assert jobs_of(tmp_path / "q") == printed(tmp_path / "q").running == []
