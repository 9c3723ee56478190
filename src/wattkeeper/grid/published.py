"""Published errors of forecasts of the same regions, for comparison. Other years and factors: read them as a yardstick."""

from __future__ import annotations

CARBONCAST_MAPE_PCT = {
    "CISO": (9.70, 12.38, 13.18, 13.68),
    "DE": (13.29, 17.20, 18.19, 19.73),
}
"""CarbonCast (Maji, Shenoy, Sitaraman, BuildSys '22), mean MAPE by day ahead 1 to 4 [%], forecast at midnight UTC with
weather and generation forecasts, which we do not have. Source: github.com/carbonfirst/CarbonCast,
data/CISO/CISO_MAPE_iter0.txt @ 0faf82f and data/EU_DATA/DE/DE_MAPE_iter0.txt @ 544b28a, which name neither year nor
factors. The file for GB (56 % on each day) is of a model that failed, and is left out."""

_SAME = {"US-CAL-CISO": "CISO", "CISO": "CISO", "CAISO": "CISO", "DE": "DE", "DE-LU": "DE"}


def carboncast_mape_pct(zone: str) -> tuple[float, ...] | None:
    """Return CarbonCast's figures for a zone under any provider's name for it; None where it has none."""
    region = _SAME.get(zone)
    return CARBONCAST_MAPE_PCT[region] if region else None
