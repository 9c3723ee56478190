"""Series in plain words, and what an intake says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wattkeeper.core.roles import Intake
from wattkeeper.integrations.prometheus.series import Series

NOW = 1_760_000_400_000
"""2025-10-09 09:00 UTC."""

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "telemetry" / "ceems"

GPU = {"gpu": "0", "UUID": "GPU-1", "device": "nvidia0", "modelName": "NVIDIA H100 80GB HBM3", "Hostname": "n1"}
ENERGY, POWER = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_POWER_USAGE"
ENGINE = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"


def of(name: str, values: float | list[float], labels: dict[str, str], *, at_s: list[int] | None = None) -> Series:
    """Return a series, at the given seconds after NOW (by default each 30 s)."""
    value = np.atleast_1d(np.array(values, np.float64))
    seconds = at_s if at_s is not None else [30 * i for i in range(len(value))]
    return Series(name, labels, NOW + 1000 * np.array(seconds, np.int64), value)


def values(intake: Intake) -> dict[str, list[int]]:
    """Return meter → its values in time order."""
    return dict(intake.readings.group_by("meter", maintain_order=True).agg("value").iter_rows())


def holdings(intake: Intake) -> list[tuple]:
    """Return (job, asset, from [s after NOW], to, share) of the allocations."""
    rows = intake.allocations.select("job_id", "asset", "start_ms", "end_ms", "share").iter_rows()
    return [(job, asset, (a - NOW) // 1000, (b - NOW) // 1000, share) for job, asset, a, b, share in rows]
