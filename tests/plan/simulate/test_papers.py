"""Published experiments, found again: a few numbers of benchmarks/papers, with its own functions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

PAPERS = Path(__file__).parents[3] / "benchmarks" / "papers"


@pytest.fixture(scope="module")
def paper():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("lets_wait_awhile", PAPERS / "lets_wait_awhile.py")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    if not module.DATA.exists():
        pytest.skip("the recordings are not here")
    return module


def test_nightly_jobs_come_out_as_published(paper):
    """A window of ± 2 h in Great Britain: 171.5553 g/kWh with the first night dropped, 172.0490 with all 365."""
    true = paper.intensity("gb")

    assert paper.nightly(true, 4, 0.0, 1, as_coded=True) == pytest.approx(171.5553, abs=5e-5)
    assert paper.nightly(true, 4, 0.0, 1, as_coded=False) == pytest.approx(172.0490, abs=5e-5)


def test_the_ml_project_comes_out_as_published(paper):
    """Semi-weekly and interruptible in Germany: 18.498 % with the last step of a forecast, 18.481 % without."""
    true = paper.intensity("ger")

    assert paper.ml_jobs()[1].sum() == 311_252
    assert paper.saving_pct(true, "semi-weekly", 0.0, 1, rest=True, as_coded=True) == pytest.approx(18.498, abs=5e-4)
    assert paper.saving_pct(true, "semi-weekly", 0.0, 1, rest=True, as_coded=False) == pytest.approx(18.481, abs=5e-4)


def test_other_series_are_read_as_the_papers_own_are(paper, tmp_path):
    """The paper's file comes out the same by way of --series; an hourly one holds each value for two steps."""
    since, true = paper.series_of(paper.DATA / "gb_ci.csv.gz", None, None)
    rows = [f"{paper.datetime(2023, 1, 1, h % 24) + paper.timedelta(days=h // 24)},{h}" for h in range(8760)]
    (tmp_path / "zone.csv").write_text("Time,g\n" + "\n".join(rows))
    year, hours = paper.series_of(tmp_path / "zone.csv", None, None)

    assert since == paper.FIRST
    assert (true == paper.intensity("gb")).all()
    assert (year.year, len(hours), hours[:5].tolist(), hours[-1]) == (2023, 17520, [0, 0, 1, 1, 2], 8759)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: t.replace("Time,g", "Time,g,h").replace(",7\n", ",7,7\n"),
            "has 2 columns that may be the intensity",
        ),
        (lambda t: t.replace("2023-01-05 03:00:00,99\n", ""), "no value for 2 half-hours, the first 2023-01-05T03:00Z"),
        (lambda t: t.replace(",99\n", ",-99\n"), "row 101: an intensity of -99"),
        (lambda t: t.replace("2023-01-05 03:00:00", "noon"), "row 101: 'noon' is no time"),
        (lambda t: "".join(t.splitlines(keepends=True)[:4_000]), "which is not all of 2023"),
    ],
)
def test_a_series_that_cannot_be_used_is_told_in_a_sentence(paper, tmp_path, change, words):
    rows = [f"{paper.datetime(2023, 1, 1, h % 24) + paper.timedelta(days=h // 24)},{h}" for h in range(8760)]
    (tmp_path / "zone.csv").write_text(change("Time,g\n" + "\n".join(rows) + "\n"))

    with pytest.raises(SystemExit, match=words):
        paper.series_of(tmp_path / "zone.csv", None, None)
