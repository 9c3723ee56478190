"""The figure of a power budget: over time, what the jobs would draw, what they are capped at, and what they may draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wattkeeper.report.charts import COLOURS, ORANGE, RED, SKY, altair, same_time, small_title, time_axis, titled, when

WIDTH, HEIGHT = 950, 150
SITE = "site"
_TIERS = {"critical": COLOURS[5], "deadline": SKY, "elastic": ORANGE}


@dataclass(frozen=True, slots=True)
class Held:
    """A limit over [start_ms, end_ms). row: SITE for the whole site. free_w: what the limit leaves for the GPUs; full_w: what
    they would draw without caps; by_tier_w: what they draw with them [W]."""

    row: str
    start_ms: int
    end_ms: int
    limit_kw: float
    free_w: float
    full_w: float
    by_tier_w: dict[str, float]


def figure(held: Sequence[Held], title: str = "", under: Sequence[str] = ()) -> dict[str, Any]:
    """Return a Vega-Lite spec: a panel for the site and one for each row that has a limit.

    Raises MissingExtraError without the extra `report`.
    """
    alt = altair()
    rows = sorted({h.row for h in held}, key=lambda r: (r != SITE, r))
    span = (min(h.start_ms for h in held), max(h.end_ms for h in held))
    panels = [_panel([h for h in held if h.row == row], row, span) for row in rows]
    made = alt.vconcat(*panels, spacing=12).resolve_scale(color="shared", x="independent")
    spec: dict[str, Any] = titled(made, title, under).to_dict()
    return spec


LIMIT, FULL = "left for the GPUs by the limit", "drawn without caps"


def _panel(held: Sequence[Held], row: str, span: tuple[int, int]) -> Any:
    alt = altair()
    blocks: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for h in held:
        low = 0.0
        times = {"start_ms": h.start_ms, "end_ms": h.end_ms}
        for tier in _TIERS:
            high = low + h.by_tier_w.get(tier, 0.0) / 1000
            if high > low:
                blocks.append(
                    times | {"low": low, "high": high, "what": tier, "kW": high - low, "limit kW": h.limit_kw}
                )
            low = high
        lines.append(times | {"kW": h.free_w / 1000, "what": LIMIT})
        lines.append(times | {"kW": h.full_w / 1000, "what": FULL})
    names = [*_TIERS, LIMIT, FULL]
    colour = alt.Color(
        "what:N", title=None, scale=alt.Scale(domain=names, range=[*_TIERS.values(), RED, COLOURS[6]]),
        legend=alt.Legend(orient="top", direction="horizontal", columns=5, labelLimit=220),
    )  # fmt: skip
    ends = [when("start_ms", "from"), when("end_ms", "to")]
    bars = (
        alt.Chart(alt.Data(values=blocks))
        .mark_rect()
        .encode(
            x=time_axis("start_ms", span), x2="end_ms:T", y=alt.Y("low:Q", title="kW of GPUs"), y2="high:Q", color=colour,
            tooltip=["what:N", *ends, alt.Tooltip("kW:Q", format=",.1f"), alt.Tooltip("limit kW:Q", format=",.1f")],
        )
    )  # fmt: skip
    rules = (
        alt.Chart(alt.Data(values=lines))
        .mark_rule(strokeWidth=2.5)
        .encode(
            x=same_time("start_ms"), x2="end_ms:T", y=alt.Y("kW:Q"), color=colour,
            strokeDash=alt.StrokeDash("what:N", legend=None, scale=alt.Scale(domain=[LIMIT, FULL], range=[[1, 0], [4, 3]])),
            tooltip=["what:N", *ends, alt.Tooltip("kW:Q", format=",.1f")],
        )
    )  # fmt: skip
    name = small_title("Site" if row == SITE else f"Row {row}")
    return alt.layer(bars, rules).properties(width=WIDTH, height=HEIGHT, title=name)
