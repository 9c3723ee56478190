"""The figure of a routed service: intensity of each site, and below it who answers: by site, and by model variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wattkeeper.report.charts import COLOURS, altair, small_title, time_axis, titled, when
from wattkeeper.report.planned import Step, curves

WIDTH, HEIGHT = 950, 150
UNSERVED = "not served"


@dataclass(frozen=True, slots=True)
class Share:
    """Requests an hour over [start_ms, end_ms) that a site answers with a variant; site and variant UNSERVED for none."""

    start_ms: int
    end_ms: int
    site: str
    variant: str
    requests_per_h: float


def figure(
    steps: Sequence[Step], shares: Sequence[Share], title: str = "", under: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a Vega-Lite spec. title, under: for figures that stand alone.

    Raises MissingExtraError without the extra `report`.
    """
    alt = altair()
    sites = list(dict.fromkeys(s.site for s in steps))
    variants = [v for v in dict.fromkeys(s.variant for s in shares) if v != UNSERVED]
    span = (min(s.start_ms for s in steps), max(s.end_ms for s in steps))
    charts = [
        curves(steps, sites, span, WIDTH, alone=True),
        _stack(shares, "site", sites, COLOURS, span),
        _stack(shares, "variant", variants, COLOURS[3:] + COLOURS[:3], span),
    ]
    made = alt.vconcat(*charts, spacing=12).resolve_scale(color="independent", x="independent")
    spec: dict[str, Any] = titled(made, title, under).to_dict()
    return spec


def _stack(
    shares: Sequence[Share], by: str, names: Sequence[str], palette: Sequence[str], span: tuple[int, int]
) -> Any:
    """Return stacked bars of requests an hour."""
    alt = altair()
    sums: dict[tuple[int, int, str], float] = {}
    for s in shares:
        key = (s.start_ms, s.end_ms, getattr(s, by))
        sums[key] = sums.get(key, 0.0) + s.requests_per_h
    lost = [UNSERVED] if any(name == UNSERVED for _, _, name in sums) else []
    order = [*names, *lost]
    rows: list[dict[str, Any]] = []
    for start in sorted({a for a, _, _ in sums}):
        low = 0.0
        for name in order:
            for end in {b for a, b, n in sums if a == start and n == name}:
                high = low + sums[start, end, name]
                rows.append({
                    "start_ms": start, "end_ms": end, by: name, "low": low, "high": high, "requests_per_h": high - low,
                })  # fmt: skip
                low = high
    range_ = [*(palette[i % len(palette)] for i in range(len(names))), *([COLOURS[6]] * len(lost))]
    legend = alt.Legend(orient="top", direction="horizontal")
    colour = alt.Color(f"{by}:N", title=None, legend=legend, scale=alt.Scale(domain=order, range=range_))
    x = time_axis("start_ms", span)
    y = alt.Y("low:Q", title="requests/h", axis=alt.Axis(format="~s", tickCount=4))
    tips = [f"{by}:N", when("start_ms", "from"), when("end_ms", "to"), alt.Tooltip("requests_per_h:Q", format=",.0f")]
    base = alt.Chart(alt.Data(values=rows), width=WIDTH, height=HEIGHT, title=small_title(f"by {by}"))
    return base.mark_rect(stroke=None).encode(x=x, x2="end_ms:T", y=y, y2="high:Q", color=colour, tooltip=tips)
