"""The intensity of a mix: what one kWh of each kind of generation emits, from named tables, weighed by what ran.

Sources: IPCC AR5 WG3 (2014) Annex III, table A.III.2, medians, for all but solar, oil and what is unknown. Solar: between
its rooftop (41) and utility (48) photovoltaics; wind: its onshore (offshore is 12). Oil: UK POST note 268 (2006) for the
life cycle; EIA 2020 and BEIS 2021 blended for direct. Unknown: the mean of thermal generation that Electricity Maps
assumes. All are those of Electricity Maps' defaults (config/defaults.yaml). Peat and oil shale burn as coal,
coal-derived gas as coal, waste as what is unknown. Direct biomass is 0, as what burns had been taken from the air.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from wattkeeper.core.signal import Signal
from wattkeeper.core.units import MS_PER_DAY

Floats = NDArray[np.float64]

FACTORS_G_PER_KWH: dict[str, dict[str, float]] = {
    "lifecycle": {
        "coal": 820.0, "gas": 490.0, "oil": 650.0, "biomass": 230.0, "geothermal": 38.0, "hydro": 24.0, "nuclear": 12.0,
        "solar": 45.0, "wind": 11.0, "marine": 17.0, "unknown": 700.0,
    },
    "direct": {
        "coal": 760.0, "gas": 370.0, "oil": 406.0, "biomass": 0.0, "geothermal": 0.0, "hydro": 0.0, "nuclear": 0.0,
        "solar": 0.0, "wind": 0.0, "marine": 0.0, "unknown": 575.0,
    },
}  # fmt: skip
"""By boundary and kind of generation [g CO2e/kWh]."""

FACTORS_NAME = "IPCC AR5 2014 medians"

LEAST_SHARE = 0.01
"""A kind that makes up less of a span than this may be missing from an hour."""

CONTEXT_MS = 7 * MS_PER_DAY
"""How much before a span is read with it [ms]: of a single hour that lacks its coal nothing else would say so."""


def intensity_of_mix(parts: Mapping[str, Signal], boundary: str) -> tuple[NDArray[np.int64], Floats, list[int]]:
    """Return breaks [ms], intensity between them [g/kWh], and the instants that lack a kind of generation.

    parts: generation by kind [MW], NaN where it is not told; less than nothing counts as nothing. Where a kind with at
    least LEAST_SHARE of the span's generation is not told, the intensity of that time is NaN: a mix without its coal
    would look clean. Kinds must be keys of FACTORS_G_PER_KWH[boundary].
    """
    factors = FACTORS_G_PER_KWH[boundary]
    edges = np.unique(np.concatenate([s.breaks_ms for s in parts.values()] or [np.zeros(1, np.int64)]))
    power = {kind: np.maximum(s.at(edges[:-1]), 0.0) for kind, s in parts.items()}
    span_ms = np.diff(edges)
    energy = {kind: float(np.nansum(p * span_ms)) for kind, p in power.items()}
    whole = sum(energy.values())
    need = [kind for kind, part in energy.items() if whole and part / whole >= LEAST_SHARE]
    told = np.zeros(len(span_ms), np.bool_)
    for p in power.values():
        told |= ~np.isnan(p)
    lacking = np.zeros(len(span_ms), np.bool_)
    for kind in need:
        lacking |= np.isnan(power[kind])
    total = np.sum([np.nan_to_num(p) for p in power.values()], axis=0) if power else np.zeros(0)
    grams = np.sum([np.nan_to_num(p) * factors[kind] for kind, p in power.items()], axis=0) if power else np.zeros(0)
    sound = told & ~lacking & (total > 0)
    values = np.full(len(span_ms), np.nan)
    values[sound] = grams[sound] / total[sound]
    return edges, values, edges[:-1][told & lacking].tolist()
