"""Bad input: a sentence each, and the rest is planned all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.plan.instances import HOUR, START
from wattkeeper.plan.place import plan
from wattkeeper.plan.placement import placements
from wattkeeper.plan.problem import Grid, Job, Level, PlanInputError, Site, Weights, pose

GRID = Grid(START, HOUR, 6)
SITES = [Site("a", 8, 100.0), Site("b", 4, 200.0)]
GOOD = Job("good", 1, HOUR, 500.0, START, START + 3 * HOUR)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"power_w": np.nan}, "its power is nan kW for each GPU; give one between 0 and 100"),
        ({"power_w": np.inf}, "its power is inf kW for each GPU; give one between 0 and 100"),
        ({"power_w": -1000.0}, "its power is -1 kW for each GPU; give one between 0 and 100"),
        ({"gpus": 0, "power_w": 0.0}, "it asks for 0 GPUs; give a whole number of at least 1"),
        ({"duration_ms": 0}, "its duration is 0 h; give one above 0"),
        (
            {"deadline_ms": START - HOUR},
            "its deadline 2025-10-09T08:00:00Z is not after its release 2025-10-09T09:00:00Z",
        ),
        ({"gpus": 9}, "it asks for 9 GPUs and the largest of its sites (a, b) has 8"),
        ({"gpus": 5, "sites": {"b": (0.0, 0)}}, "it asks for 5 GPUs and the largest of its sites (b) has 4"),
        ({"sites": {"c": (0.0, 0)}}, "none of its sites is known; known are a, b"),
        ({"tier": "urgent"}, "its tier is none of critical, deadline, elastic"),
        ({"levels": [Level(0.9, 0.7)]}, "a cap level has a slowdown under 1 or a power outside 0 to 1"),
        ({"sites": {"a": (-1.0, 0)}}, "a data transfer takes an energy or a time that cannot be"),
        ({"profile": [(0, 100.0)]}, "a phase of its profile has no length or no finite power"),
        ({"profile": [(HOUR, 100.0)], "suspendable": True}, "it is suspendable and has a profile; leave out one"),
        ({"duration_ms": 4 * HOUR}, "it needs 4 slots of 60 min, and between its release and its deadline lie 3"),
        (
            {"duration_ms": 9 * HOUR, "deadline_ms": None},
            "it needs 9 slots of 60 min, and between its release and the end of the horizon lie 6",
        ),
    ],
)
def test_a_job_that_cannot_be_planned_is_left_out_with_a_reason(change: dict[str, object], words: str):
    """The sentence says what is wrong; the good job is planned as if the other were not there."""
    problem = pose(GRID, SITES, [replace(GOOD, id="bad", **change), GOOD])  # type: ignore[arg-type]
    made = plan(problem)

    assert list(problem.skipped) == ["bad"]
    assert words in problem.skipped["bad"]
    assert [p.job for p in placements(problem, made.places) if p] == ["good"]


def test_an_id_twice_is_planned_once():
    """The second job of the same id is left out."""
    problem = pose(GRID, SITES, [GOOD, GOOD])

    assert problem.skipped == {"good": "another job has the same id"}
    assert len(problem.planned) == 1


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (Site("a", np.inf, 100.0), "Site 'a': gpus is inf at 2025-10-09T09:00:00Z; it must be a number of at least 0."),
        (Site("a", -1, 100.0), "Site 'a': gpus is -1"),
        (Site("a", 1, -5.0), "Site 'a': intensity_g_per_kwh is -5"),
        (Site("a", 1, np.array([1.0, 2.0])), "Site 'a': intensity_g_per_kwh has 2 values for 6 slots."),
        (Site("a", 1, 100.0, pue=0.9), "Site 'a': pue is 0.9"),
        (Site("a", 1, 100.0, power_kw=np.nan), "Site 'a': power_kw is nan"),
        (Site("a", 1, np.nan), "No site has a forecast between"),
    ],
)
def test_a_site_that_cannot_be_planned_for_is_refused(site: Site, words: str):
    """No plan is made from sites that cannot be."""
    with pytest.raises(PlanInputError) as fault:
        pose(GRID, [site], [GOOD])

    assert words in str(fault.value)


def test_weights_must_be_numbers():
    """A weight that is none is named."""
    with pytest.raises(PlanInputError, match=r"Weight money_g is nan; it must be a number of at least 0\."):
        pose(GRID, SITES, [GOOD], Weights(money_g=np.nan))


def test_hours_without_a_forecast_are_planned_around():
    """The first two hours have none: the job runs in the third, at 300, and a job that needs the first is left out."""
    site = Site("a", 4, np.array([np.nan, np.nan, 300.0, 400.0, np.nan, 10.0]))
    early = Job("early", 1, HOUR, 500.0, START, START + HOUR)
    problem = pose(GRID, [site], [early, GOOD])
    made = plan(problem)

    assert made.unplaced == ["early"]
    assert made.cost_g == pytest.approx(0.5 * 300.0)


def test_a_missing_forecast_is_the_reason_where_nothing_else_is():
    """A job whose only site has no forecast at all says so."""
    problem = pose(GRID, [Site("a", 4, np.nan), Site("b", 4, 100.0)], [replace(GOOD, sites={"a": (0.0, 0)})])

    assert problem.skipped["good"].startswith("no forecast for a between 2025-10-09T09:00:00Z and")


def test_why_no_site_can_take_a_job_is_told_site_by_site():
    """Too small, too weak and dark, each in its own way; a site that could is not blamed."""
    sites = [Site("a", 1, 100.0), Site("b", 4, 100.0, power_kw=0.1), Site("c", 4, np.nan)]
    problem = pose(GRID, sites, [replace(GOOD, gpus=2)])

    assert problem.skipped["good"] == (
        "none of its sites can take 2 GPUs at 1 kW: a has too few GPUs, b has too little power, c has no forecast"
    )


def test_a_price_that_is_not_weighed_may_be_missing():
    """Only signals with a weight are needed."""
    site = Site("a", 4, 100.0, price_per_kwh=np.nan)

    assert plan(pose(GRID, [site], [GOOD])).cost_g == pytest.approx(50.0)


def test_a_critical_job_is_never_touched():
    """It starts at its release at home and at full power, however dirty the hour and clean the other site."""
    sites = [Site("a", 4, np.array([900.0, 1.0, 1.0, 1.0, 1.0, 1.0])), Site("b", 4, 1.0)]
    job = Job("j", 1, HOUR, 500.0, START, None, "critical", {"a": (0.0, 0), "b": (0.1, 0)}, levels=[Level(1.0, 0.5)])

    assert plan(pose(GRID, sites, [job])).cost_g == pytest.approx(450.0)
