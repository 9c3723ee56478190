"""A planned queue as plain data: for scripts, for the next plan, and for the figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wattkeeper.core.clock import iso
from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.plan.placement import Placement
from wattkeeper.plan.problem import Grid
from wattkeeper.planning.outlook import Outlook, Totals, User


def to_json(found: Outlook) -> dict[str, Any]:
    """Return everything as plain data: times in ISO 8601, amounts with their unit in the name."""
    grid = found.grid
    powers, spans = powers_of(found), _spans(found)
    return {
        "start": iso(grid.start_ms),
        "end": iso(grid.end_ms),
        "slot_min": grid.slot_ms / 60_000,
        "jobs": [
            {
                "job_id": line.job,
                "why": line.why,
                "now": _place(grid, powers, line.now),
                "planned": _place(grid, powers, line.planned),
                "saved_carbon_g": line.saved_g,
                "saved_cost": line.saved_cost,
                "delay_h": line.delay_h,
                **({"beside_previous": line.was} if line.was else {}),
                **spans.get(line.job, {}),
            }
            for line in found.lines
        ],
        "users": [{name: getattr(user, name) for name in User.__slots__} for user in found.users],
        "now": _sums(found.now),
        "planned": _sums(found.planned),
        "bound_weighed_g": found.bound_g,
        "gap": found.gap,
        "unplaced": found.made.unplaced,
        "skipped": found.made.problem.skipped,
        "refused": [{"row": r.row, "reason": r.reason, "job_id": r.text} for r in found.rejects],
        "notes": list(found.notes),
        "signals": {
            site: {k: {"id": i.id, "provider": i.provider, "method": i.method} for k, i in infos.items()}
            for site, infos in found.signals.items()
        },
        "prices": _prices(found),
    }


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


def chart_rows(found: Outlook) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what the figure draws: intensity by site and slot, and the stretches of each job now and planned."""
    grid, problem = found.grid, found.made.problem
    curves = [
        {"time": iso(grid.at_ms(t)), "site": site.id, "intensity_g_per_kwh": float(value)}
        for site in problem.sites
        for t, value in enumerate(np.broadcast_to(np.asarray(site.intensity_g_per_kwh, np.float64), grid.slots))
        if not np.isnan(value)
    ]
    bars = [
        {"plan": name, "job": one.job, "site": one.site, "start": iso(grid.at_ms(a)), "end": iso(grid.at_ms(b))}
        for line in found.lines
        for name, one in (("run now", line.now), ("planned", line.planned))
        if one
        for a, b in one.slots
    ]
    return curves, bars
