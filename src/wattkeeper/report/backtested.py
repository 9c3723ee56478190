"""The figure of a back-test: carbon beside the bound, money, how long the jobs waited for it, and how many were late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wattkeeper.report.charts import GREEN, ORANGE, RED, SKY, SOFT, altair, titled
from wattkeeper.report.words import amount, carbon, duration, percent

WIDTH, NARROW, ROW = 380, 130, 26  # px


@dataclass(frozen=True, slots=True)
class Shown:
    """A policy in the figure. cost: None without a price. saving: of carbon, None where nothing can be said of it."""

    policy: str
    carbon_g: float
    saving: float | None
    cost: float | None
    delay_mean_h: float | None
    delay_p95_h: float | None
    missed: int


def figure(
    rows: Sequence[Shown], bound_g: float | None, currency: str | None, title: str = "", under: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a Vega-Lite spec. bound_g: a line, where it is of carbon alone. title, under: for figures that stand alone.

    Raises MissingExtraError without the extra `report`.
    """
    alt = altair()
    tonnes = max((r.carbon_g for r in rows), default=0.0) >= 1e7
    size, unit = (1e6, "t") if tonnes else (1e3, "kg")
    data = [
        {
            "policy": r.policy, "carbon": r.carbon_g / size, "cost": r.cost, "mean": r.delay_mean_h, "p95": r.delay_p95_h,
            "missed": r.missed, "told": f"{carbon(r.carbon_g)}, {percent(r.saving)} saved",
            "saves": "" if r.saving is None or not i else f"{percent(r.saving)} saved",
            "carbon told": carbon(r.carbon_g), "cost told": f"{amount(r.cost)} {currency or ''}".strip(),
            "mean delay": duration(r.delay_mean_h), "95 % within": duration(r.delay_p95_h),
        }
        for i, r in enumerate(rows)
    ]  # fmt: skip
    names = [r.policy for r in rows]
    tips = ["policy:N", "carbon told:N", "saves:N", "cost told:N", "mean delay:N", "95 % within:N", "missed:Q"]

    def panel(field: str, title: str, colour: str, width: int, *, names_shown: bool = False) -> Any:
        y = alt.Y("policy:N", sort=names, title=None, axis=alt.Axis(ticks=False) if names_shown else None)
        x = alt.X(f"{field}:Q", title=title, axis=alt.Axis(tickCount=4 if width == NARROW else 6))
        base = alt.Chart(alt.Data(values=data), width=width, height=alt.Step(ROW))
        return base.mark_bar(color=colour, height=alt.RelativeBandSize(0.75)).encode(x=x, y=y, tooltip=tips)

    bars = panel("carbon", f"{unit} CO2e", GREEN, WIDTH, names_shown=True)
    inside = bars.mark_text(align="left", dx=5, fontSize=10, color="white").encode(x=alt.value(0), text="saves:N")
    layers = [bars, inside]
    if bound_g is not None:
        line = alt.Chart(alt.Data(values=[{"bound": bound_g / size, "name": f"bound {carbon(bound_g)}"}]))
        layers.append(
            line.mark_rule(color=RED, strokeDash=[5, 3], strokeWidth=2).encode(x="bound:Q", tooltip=["name:N"])
        )
        word = line.mark_text(align="center", baseline="bottom", dy=-3, fontSize=10, color=SOFT)
        layers.append(word.encode(x="bound:Q", y=alt.value(0), text="name:N"))
    waits = panel("mean", "delay [h]: mean; tick: 95 %", SKY, NARROW)
    ticks = waits.mark_tick(color=SOFT, thickness=3, height=18).encode(x="p95:Q")
    panels = [alt.layer(*layers), alt.layer(waits, ticks)]
    if all(r.cost is not None for r in rows):
        panels.insert(1, panel("cost", f"cost [{currency}]" if currency else "cost", ORANGE, NARROW))
    panels.append(panel("missed", "deadlines missed", RED, NARROW))
    made = alt.hconcat(*panels, spacing=18)
    spec: dict[str, Any] = titled(made, title, under).properties(padding=12).to_dict()
    return spec
