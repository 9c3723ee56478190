"""A planned queue as plain data, for scripts and for the next plan; and as bars, for the figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from wattkeeper.core.clock import iso
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.placement import Placement
from wattkeeper.plan.problem import Grid, Site
from wattkeeper.planning.outlook import Line, Outlook, Saved, Totals, User
from wattkeeper.planning.supply import about
from wattkeeper.report.planned import NOW, NOWHERE, PLANNED, Bar, Step
from wattkeeper.report.words import carbon, duration


def to_json(found: Outlook) -> dict[str, Any]:
    """Return everything as plain data: times in ISO 8601, amounts with their unit in the name."""
    grid = found.grid
    powers, spans, gpus = powers_of(found), _spans(found), gpus_of(found)
    return {
        "start": iso(grid.start_ms),
        "end": iso(grid.end_ms),
        "slot_min": grid.slot_ms / 60_000,
        "currency": found.currency,
        "jobs": [
            {
                "job_id": line.job,
                "gpus": gpus[line.job],
                "why": line.why,
                "now": _place(grid, powers, line.now),
                "planned": _place(grid, powers, line.planned),
                "saved_carbon_g": line.saved_g,
                "saved_cost": line.saved_cost,
                "delay_h": line.delay_h,
                **_drawn("now", line.drawn_now),
                **_drawn("planned", line.drawn),
                **({"beside_previous": line.was} if line.was else {}),
                **spans.get(line.job, {}),
            }
            for line in found.lines
        ],
        "users": [{name: getattr(user, name) for name in User.__slots__} for user in found.users],
        "now": _sums(found.now),
        "planned": _sums(found.planned),
        "saved": {name: getattr(found.saved, name) for name in Saved.__slots__},
        "bound_weighed_g": found.bound_g,
        "gap": found.gap,
        "unplaced": found.made.unplaced,
        "skipped": found.made.problem.skipped,
        "refused": [{"row": r.row, "reason": r.reason, "job_id": r.text} for r in found.rejects],
        "notes": list(found.notes),
        "signals": {site: {kind: about(info) for kind, info in infos.items()} for site, infos in found.signals.items()},
        "prices": _prices(found),
    }


def _drawn(name: str, one: tuple[float, float] | None) -> dict[str, float | None]:
    kwh, g = one or (None, None)
    return {f"energy_{name}_kwh": kwh, f"carbon_{name}_g": g}


def _spans(found: Outlook) -> dict[str, dict[str, float]]:
    """Return of each job whose duration is uncertain the confidence, for how long GPUs are held, and its mean."""
    jobs = found.made.problem.jobs
    held_ms, mean_ms = jobs.held_ms(), jobs.mean_ms()
    return {
        jobs.ids[i]: {
            "confidence": float(jobs.confidence[i]),
            "held_h": float(held_ms[i]) / MS_PER_HOUR,
            "expected_h": float(mean_ms[i]) / MS_PER_HOUR,
        }
        for i in np.flatnonzero(jobs.uncertain).tolist()
    }


def _prices(found: Outlook) -> dict[str, dict[str, Any]]:
    """Return the prices by site and user, from which the next plan goes on (see `Prices`)."""
    prices, problem = found.made.prices, found.made.problem
    ids = [s.id for s in problem.sites]
    return {
        "gpu_g": dict(zip(ids, np.round(prices.gpu, 6).tolist(), strict=True)),
        "power_g": dict(zip(ids, np.round(prices.power, 6).tolist(), strict=True)),
        "delay_g": dict(zip(problem.users, np.round(prices.delay, 6).tolist(), strict=True)),
    }


def gpus_of(found: Outlook) -> dict[str, int]:
    """Return how many GPUs each job holds."""
    jobs = found.made.problem.jobs
    return dict(zip(jobs.ids, jobs.gpus.astype(int).tolist(), strict=True))


def _sums(totals: Totals) -> dict[str, float | None]:
    return {name: getattr(totals, name) for name in Totals.__slots__}


def powers_of(found: Outlook) -> dict[str, list[float]]:
    """Return the power of each job's cap levels, as a part of full power."""
    jobs = found.made.problem.jobs
    return dict(zip(jobs.ids, jobs.power.tolist(), strict=True))


def _place(grid: Grid, powers: Mapping[str, list[float]], one: Placement | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "site": one.site,
        "power": powers[one.job][one.level],
        "stretches": [{"start": iso(grid.at_ms(a)), "end": iso(grid.at_ms(b))} for a, b in one.slots],
    }


def chart_rows(found: Outlook) -> tuple[list[Step], list[Bar]]:
    """Return what the figure draws: intensity by site and slot, and the stretches of each job now and planned."""
    grid, problem = found.grid, found.made.problem
    powers, gpus = powers_of(found), gpus_of(found)
    bars = [
        Bar(
            name, one.job, one.site, line.now.site if line.now else NOWHERE, gpus[one.job], grid.at_ms(a), grid.at_ms(b),
            powers[one.job][one.level], told_of(line),
        )
        for line in found.lines
        for name, one in ((NOW, line.now), (PLANNED, line.planned))
        if one
        for a, b in one.slots
    ]  # fmt: skip
    return steps_of(problem.sites, grid), bars


def steps_of(sites: Iterable[Site], grid: Grid) -> list[Step]:
    """Return the intensity of sites slot by slot, for a figure."""
    return [
        Step(site.id, grid.at_ms(t), grid.at_ms(t + 1), None if np.isnan(value) else float(value))
        for site in sites
        for t, value in enumerate(np.broadcast_to(np.asarray(site.intensity_g_per_kwh, np.float64), grid.slots))
    ]


def told_of(line: Line) -> tuple[tuple[str, str], ...]:
    """Return what there is to say of a job: why it stands where it stands, what it saves, how long it waits."""
    told = [("why", line.why)]
    if line.saved_g is not None:
        told += [("saves", carbon(line.saved_g)), ("delay", duration(line.delay_h))]
    return (*told, ("intensity g/kWh", intensities(line)))


def intensities(line: Line) -> str:
    """Return the mean intensity of what a job draws [g/kWh], run now and planned, such as "650 → 48"."""
    sides = [f"{g / kwh:.0f}" if kwh else "–" for kwh, g in (line.drawn_now or (0.0, 0.0), line.drawn or (0.0, 0.0))]
    return " → ".join(sides)
