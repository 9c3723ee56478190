"""A plan read back from what was printed: whole, or refused; a damaged one neither breaks a rule nor lifts the bound."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from wattkeeper.core.errors import ImportFileError
from wattkeeper.planning import read_previous

STRETCH = {"start": "2026-10-01T01:00:00Z", "end": "2026-10-01T03:00:00Z"}
PLAN: dict[str, Any] = {
    "start": "2026-10-01T00:00:00Z",
    "end": "2026-10-01T04:00:00Z",
    "slot_min": 60.0,
    "prices": {"gpu_g": {"a": [0.0, 1, 2, 0]}, "power_g": {"a": [0.0] * 4}, "delay_g": {"ada": 0.5}},
    "jobs": [
        {"job_id": "j", "planned": {"site": "a", "power": 1.0, "stretches": [STRETCH]}},
        {"job_id": "lost", "planned": None},
    ],
}


def damaged(*path: str | int, to: object) -> dict[str, Any]:
    """Return the plan with something else at a path of keys."""
    told = copy.deepcopy(PLAN)
    at = told
    for key in path[:-1]:
        at = at[key]  # type: ignore[index]
    at[path[-1]] = to  # type: ignore[index]
    return told


def write(folder: Path, told: object) -> Path:
    (folder / "plan.json").write_text(told if isinstance(told, str) else json.dumps(told))
    return folder / "plan.json"


def test_a_plan_comes_back_whole(tmp_path: Path):
    """Prices by site and user, and where each placed job stood, in slots."""
    before = read_previous(write(tmp_path, PLAN))

    assert (before.grid.slot_ms, before.grid.slots) == (3_600_000, 4)
    assert before.gpu["a"].tolist() == [0, 1, 2, 0]
    assert before.delay == {"ada": 0.5}
    assert before.spots == {"j": ("a", 1.0, ((1, 3),))}


PRICE = ("prices", "gpu_g", "a")
STOOD = ("jobs", 0, "planned", "stretches")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        # a price below 0 would make a bound that plans can be below
        (damaged(*PRICE, to=[-5.0, 0, 0, 0]), "a price in it is below 0 or no number"),
        (damaged(*PRICE, to=[float("nan")] * 4), "a price in it is below 0 or no number"),
        (damaged(*PRICE, to=[None] * 4), "a price in it is below 0 or no number"),
        (damaged("prices", "power_g", "a", to=[float("inf")] * 4), "a price in it is below 0 or no number"),
        (damaged("prices", "delay_g", "ada", to=float("nan")), "a price in it is below 0 or no number"),
        (damaged(*PRICE, to=[1.0]), "its prices are not 4 for each site"),
        # stretches that overlap would count as more work than is done
        (damaged(*STOOD, to=[STRETCH, STRETCH]), "do not follow each other"),
        (damaged(*STOOD, to=[]), "do not follow each other"),
        (damaged(*STOOD, 0, to={"start": STRETCH["end"], "end": STRETCH["start"]}), "do not follow each other"),
        (damaged("slot_min", to=0), "is no whole plan"),
        (damaged("slot_min", to=float("inf")), "is not what wattkeeper plan --json prints"),
        ("[" * 100_000, "is not what wattkeeper plan --json prints"),
    ],
)
def test_a_damaged_plan_is_refused_in_one_line(tmp_path: Path, told: object, words: str):
    with pytest.raises(ImportFileError, match=words) as fault:
        read_previous(write(tmp_path, told))

    assert "\n" not in str(fault.value)
