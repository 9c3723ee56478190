"""A back-test as figure and page: carbon beside the bound, money, and how long the jobs waited for it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from wattkeeper.report.charts import altair

WIDTH = 420
_CARBON, _BOUND, _DELAY, _COST = "#2f7d4f", "#c8503c", "#5b8fc7", "#d9a01e"

_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }"""


def figure(rows: Sequence[dict[str, Any]], bound_kg: float | None) -> dict[str, Any]:
    """Return a Vega-Lite spec.

    rows: policy, carbon_kg, cost (None without a price), delay_mean_h, delay_p95_h. bound_kg: a line, where it is of
    carbon alone.
    Raises MissingExtraError without the extra `report`.
    """
    alt = altair()
    names = [row["policy"] for row in rows]
    few = alt.Axis(tickCount=3)
    y = alt.Y("policy:N", sort=names, title=None)
    size = {"width": WIDTH, "height": alt.Step(26)}
    bars = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar(color=_CARBON)
        .encode(x=alt.X("carbon_kg:Q", title="kg CO2e"), y=y, tooltip=["policy:N", "carbon_kg:Q"])
    )
    layers = [bars]
    if bound_kg is not None:
        line = alt.Chart(alt.Data(values=[{"bound_kg": bound_kg}])).mark_rule(color=_BOUND, strokeDash=[4, 3])
        layers.append(line.encode(x="bound_kg:Q"))
    delay = alt.Chart(alt.Data(values=list(rows))).encode(y=y)
    waits = alt.layer(
        delay.mark_bar(color=_DELAY).encode(x=alt.X("delay_mean_h:Q", title="delay, mean, 95 % [h]", axis=few)),
        delay.mark_tick(color="#333", thickness=2).encode(x="delay_p95_h:Q"),
    )
    narrow = {"width": WIDTH // 3, "height": alt.Step(26)}
    panels = [alt.layer(*layers).properties(**size), waits.properties(**narrow)]
    if all(row["cost"] is not None for row in rows):
        money = delay.mark_bar(color=_COST).encode(x=alt.X("cost:Q", title="cost", axis=few))
        panels.insert(1, money.properties(**narrow))
    spec: dict[str, Any] = alt.hconcat(*panels).properties(padding=12).to_dict()
    return spec


def page(title: str, words: Sequence[str], header: Sequence[str], table: Sequence[Sequence[str]], svg: str) -> str:
    """Return one HTML page that opens offline. words: paragraphs. svg: the figure; empty for none."""
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>\n" for row in table)
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    told = "".join(f"<p>{html.escape(one)}</p>\n" for one in words)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{told}"
        f"<table><thead><tr>{heads}</tr></thead><tbody>\n{cells}</tbody></table>\n{svg}\n</body></html>\n"
    )
