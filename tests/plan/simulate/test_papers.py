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
