"""How numbers read on every face: one place for units, separators and plus-minus."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from wattkeeper.core.assets import ASSUMED_PCT
from wattkeeper.core.roles import SignalInfo
from wattkeeper.core.units import MJ_PER_KWH

THIN = "\u2009"


def grouped(value: float, decimals: int = 0) -> str:
    """Return a number with thin spaces between thousands and a true minus."""
    return f"{value:,.{decimals}f}".replace(",", THIN).replace("-", "\u2212")


def energy(energy_mj: float) -> str:
    """Return energy in kWh, or in MWh from 100 MWh on."""
    in_kwh = energy_mj / MJ_PER_KWH
    return f"{grouped(in_kwh / 1000, 3)} MWh" if abs(in_kwh) >= 1e5 else f"{grouped(in_kwh, 3)} kWh"


def carbon(carbon_g: float | None) -> str:
    """Return carbon in kg, in t from 10 t on, and in g below 10 g; a dash where it is unknown."""
    if carbon_g is None:
        return "–"
    if 0.05 <= abs(carbon_g) < 10:
        return f"{grouped(carbon_g, 1)} g"
    return f"{grouped(carbon_g / 1e6, 3)} t" if abs(carbon_g) >= 1e7 else f"{grouped(carbon_g / 1e3, 2)} kg"


def amount(value: float | None, decimals: int = 2) -> str:
    """Return a plain amount; a dash where it is unknown."""
    return "–" if value is None else grouped(value, decimals)


def duration(hours: float | None) -> str:
    """Return a length of time such as "3 h 20 min", in days from four days on; a dash where it is unknown."""
    if hours is None:
        return "–"
    minutes = round(abs(hours) * 60)
    sign = "\u2212" if hours < 0 and minutes else ""
    whole, rest = divmod(minutes, 60)
    if whole >= 96:
        days, left = divmod(round(minutes / 60), 24)
        parts = [f"{days} d", f"{left} h" if left else ""]
    else:
        parts = [f"{whole} h" if whole else "", f"{rest} min" if rest or not whole else ""]
    return sign + " ".join(p for p in parts if p)


def short(name: str, most: int) -> str:
    """Return a name of at most so many characters; its middle goes first, as names differ at their ends."""
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[len(name) - tail :]}"


BANDS = (
    f"± is standard uncertainty from each meter's error band; ±{ASSUMED_PCT:g} % is assumed where the site file or the "
    "source gives none."
)


def percent(ratio: float | None, decimals: int = 1) -> str:
    """Return a ratio in percent; a dash where it is unknown."""
    return "–" if ratio is None else f"{ratio * 100:.{decimals}f}{THIN}%"


def count(n: int, what: str) -> str:
    """Return how many there are of something, such as "1 job" or "2 jobs"."""
    if n == 1:
        return f"1 {what}"
    if what.endswith("y") and what[-2] not in "aeiou":
        return f"{grouped(n)} {what[:-1]}ies"
    return f"{grouped(n)} {what}{'es' if what[-1] in 'hsx' else 's'}"


def nameless(by: str) -> str:
    """Return what a row of a cut is called that has no name."""
    return "nobody" if by in {"user", "project"} else f"in no {by}" if by in {"node", "rack", "hall", "site"} else "–"


def clock(time_ms: int, zone: str, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return an instant on a site's clock."""
    return datetime.fromtimestamp(time_ms / 1000, ZoneInfo(zone)).strftime(form)


def minute(time: str) -> str:
    """Return an ISO 8601 time to the minute, such as "2026-10-01 12:00"."""
    return time[:16].replace("T", " ")


def span(name: str, start_ms: int, end_ms: int, zone: str) -> str:
    """Return a period: its name, where it has one that does not repeat its ends, and its ends on a site's clock."""
    ends = f"{clock(start_ms, zone)} to {clock(end_ms, zone)}"
    return ends if " to " in name else f"{name} · {ends}"


def source(info: SignalInfo) -> str:
    """Return where a signal's values come from, in words; "" where nothing is known."""
    return ", ".join(w.strip() for w in (info.provider, info.version, info.method, info.note) if w.strip())
