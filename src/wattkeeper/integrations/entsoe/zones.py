"""Bidding zones and countries by the names that people use, with their EIC codes.

Prices exist for bidding zones, generation for both: Germany's is DE, its price zone DE-LU.
"""

from __future__ import annotations

import re

from wattkeeper.core.errors import ConfigError, UnknownZoneError

EIC = {
    "AL": "10YAL-KESH-----5", "AT": "10YAT-APG------L", "BA": "10YBA-JPCC-----D", "BE": "10YBE----------2",
    "BG": "10YCA-BULGARIA-R", "CH": "10YCH-SWISSGRIDZ", "CY": "10YCY-1001A0003J", "CZ": "10YCZ-CEPS-----N",
    "DE": "10Y1001A1001A83F", "DE-LU": "10Y1001A1001A82H", "DK": "10Y1001A1001A65H", "DK1": "10YDK-1--------W",
    "DK2": "10YDK-2--------M", "EE": "10Y1001A1001A39I", "ES": "10YES-REE------0", "FI": "10YFI-1--------U",
    "FR": "10YFR-RTE------C", "GB": "10YGB----------A", "GE": "10Y1001A1001B012", "GR": "10YGR-HTSO-----Y",
    "HR": "10YHR-HEP------M", "HU": "10YHU-MAVIR----U", "IE": "10YIE-1001A00010", "IE-SEM": "10Y1001A1001A59C",
    "IT": "10YIT-GRTN-----B", "IT-NORD": "10Y1001A1001A73I", "IT-CNOR": "10Y1001A1001A70O",
    "IT-CSUD": "10Y1001A1001A71M", "IT-SUD": "10Y1001A1001A788", "IT-SARD": "10Y1001A1001A74G",
    "IT-SICI": "10Y1001A1001A75E", "IT-CALA": "10Y1001C--00096J", "LT": "10YLT-1001A0008Q", "LU": "10YLU-CEGEDEL-NQ",
    "LV": "10YLV-1001A00074", "MD": "10Y1001A1001A990", "ME": "10YCS-CG-TSO---S", "MK": "10YMK-MEPSO----8",
    "NIE": "10Y1001A1001A016", "NL": "10YNL----------L", "NO": "10YNO-0--------C", "NO1": "10YNO-1--------2",
    "NO2": "10YNO-2--------T", "NO3": "10YNO-3--------J", "NO4": "10YNO-4--------9", "NO5": "10Y1001A1001A48H",
    "PL": "10YPL-AREA-----S", "PT": "10YPT-REN------W", "RO": "10YRO-TEL------P", "RS": "10YCS-SERBIATSOV",
    "SE": "10YSE-1--------K", "SE1": "10Y1001A1001A44P", "SE2": "10Y1001A1001A45N", "SE3": "10Y1001A1001A46L",
    "SE4": "10Y1001A1001A47J", "SI": "10YSI-ELES-----O", "SK": "10YSK-SEPS-----K", "UA": "10Y1001C--00003F",
    "XK": "10Y1001C--00100H",
}  # fmt: skip
"""From the platform's list of areas (Web API guide, area codes; as entsoe-py had it in 2026)."""

NO_PRICE = {
    "DE": "DE-LU", "DK": "DK1 or DK2", "IE": "IE-SEM", "IT": "IT-NORD and so on", "LU": "DE-LU", "NIE": "IE-SEM",
    "NO": "NO1 to NO5", "SE": "SE1 to SE4",
}  # fmt: skip
"""Areas that are not one price zone of their own, and where their prices are."""


def eic(zone: str, kind: str) -> str:
    """Return a zone's code; an EIC code stands for itself. Raises ConfigError where there is none."""
    if kind == "price" and zone in NO_PRICE:
        raise ConfigError(f"{zone} is not one price zone. Use {NO_PRICE[zone]}.")
    if zone in EIC:
        return EIC[zone]
    if re.fullmatch(r"\d\d[XYZTWV][A-Z0-9-]{13}", zone):
        return zone
    raise UnknownZoneError("ENTSO-E, by the names we know,", zone, EIC)
