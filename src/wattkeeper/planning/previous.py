"""A plan made earlier, read back from what `wattkeeper plan --json` printed, so that the next one keeps what it can."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from wattkeeper.core.clock import iso, to_ms
from wattkeeper.core.errors import ConfigError, ImportFileError
from wattkeeper.plan.again import Before, Spot
from wattkeeper.plan.problem import Grid

_MOST_G = 1e15


def read_previous(path: Path) -> Before:
    """Return the plan of a file. Raises ImportFileError where it is no plan."""
    try:
        told = json.loads(path.read_text("utf-8"))
        start_ms, slot_ms = _ms(told["start"]), max(round(told["slot_min"] * 60_000), 1)
        grid = Grid(start_ms, slot_ms, (_ms(told["end"]) - start_ms) // slot_ms)
        prices = told["prices"]
        gpu, power = (
            {site: np.array(values, np.float64) for site, values in prices[kind].items()}
            for kind in ("gpu_g", "power_g")
        )
        delay = {str(user): float(value) for user, value in prices["delay_g"].items()}
        spots = {job["job_id"]: _spot(grid, job["planned"]) for job in told["jobs"] if job["planned"]}
    except OSError as error:
        raise ImportFileError(f"Cannot read {path}: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise ImportFileError(
            f"{path} line {error.lineno} is no JSON. Give what wattkeeper plan --json printed."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ImportFileError(f"{path} is not what wattkeeper plan --json prints: {error!r}.") from error
    if any(values.shape != (grid.slots,) for values in (*gpu.values(), *power.values())):
        raise ImportFileError(f"{path} is no whole plan: its prices are not {grid.slots} for each site.")
    told_prices = np.concatenate([np.empty(0), *gpu.values(), *power.values(), [*delay.values()]])
    if not ((told_prices >= 0) & (told_prices < _MOST_G)).all():  # the bound holds for no other prices
        raise ImportFileError(f"{path} is no plan: a price in it is below 0 or no number.")
    return Before(grid, gpu, power, delay, spots)


def check_grid(before: Before, grid: Grid) -> None:
    """Raise ConfigError where a plan cannot go on along the slots of an earlier one."""
    old = before.grid
    if old.slot_ms != grid.slot_ms:
        raise ConfigError(
            f"The previous plan has slots of {old.slot_ms / 60_000:g} min. Plan with --slot {old.slot_ms / 60_000:g}."
        )
    if grid.start_ms < old.start_ms or (grid.start_ms - old.start_ms) % old.slot_ms:
        raise ConfigError(
            f"The previous plan has slots of {old.slot_ms / 60_000:g} min from {iso(old.start_ms)} on, and this one "
            f"begins at {iso(grid.start_ms)}. Begin it with one of those slots."
        )


def _ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


def _spot(grid: Grid, place: Mapping[str, Any]) -> Spot:
    stretches = [
        tuple((_ms(one[k]) - grid.start_ms) // grid.slot_ms for k in ("start", "end")) for one in place["stretches"]
    ]
    edges = [edge for stretch in stretches for edge in stretch]
    if not edges or any(b <= a for a, b in itertools.pairwise(edges)):
        raise ValueError(f"stretches {place['stretches']} do not follow each other")
    return str(place["site"]), float(place["power"]), tuple((a, b) for a, b in stretches)
