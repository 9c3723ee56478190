"""Figures of a signal: its course with what is missing, its forecast with the band, and errors by day ahead."""

from __future__ import annotations

import math
from typing import Any

from rich.text import Text

from wattkeeper.report.charts import COLOURS, altair, when

WIDTH, HEIGHT = 760, 260


def course(points: list[dict[str, Any]], gaps: list[dict[str, Any]], unit: str, title: str) -> dict[str, Any]:
    """Return a Vega-Lite spec. points: time, value (None where missing), low, high, what ("measured" or "forecast").

    gaps: start, end; they are shaded, and the line breaks there. Times in ISO 8601.
    """
    alt = altair()
    kinds = list(dict.fromkeys(p["what"] for p in points))
    colour = alt.Color(
        "what:N", title=None, scale=alt.Scale(domain=kinds, range=list(COLOURS[: len(kinds)])),
        legend=alt.Legend(orient="top"),
    )  # fmt: skip
    x = alt.X("time:T", title="UTC", scale=alt.Scale(type="utc"))
    base = alt.Chart(alt.Data(values=points))
    layers = [
        alt.Chart(alt.Data(values=gaps))
        .mark_rect(color=COLOURS[4], opacity=0.18)
        .encode(
            x=alt.X("start:T", scale=alt.Scale(type="utc")),
            x2="end:T",
            tooltip=[when("start", "missing from"), when("end", "to")],
        )
    ]
    if any(p.get("low") is not None for p in points):
        band = base.transform_filter("isValid(datum.low)").mark_area(opacity=0.2, interpolate="step-after")
        layers.append(band.encode(x=x, y=alt.Y("low:Q", title=unit), y2="high:Q", color=colour))
    line = base.mark_line(interpolate="step-after", invalid="break-paths-show-domains")
    tip = [when("time", "from"), alt.Tooltip("value:Q", format=",.4~f"), "what:N"]
    layers.append(line.encode(x=x, y=alt.Y("value:Q", title=unit), color=colour, tooltip=tip))
    spec: dict[str, Any] = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=title).to_dict()
    return spec


def errors_by_day(rows: list[dict[str, Any]], measure: str, title: str) -> dict[str, Any]:
    """Return a Vega-Lite spec of errors. rows: model, hours ("1-24" …), error."""
    alt = altair()
    models = list(dict.fromkeys(r["model"] for r in rows))
    hours = list(dict.fromkeys(r["hours"] for r in rows))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(models))]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("hours:N", sort=hours, title="hours ahead", axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("model:N", sort=models),
            y=alt.Y("error:Q", title=measure),
            color=alt.Color("model:N", title=None, sort=models, scale=alt.Scale(domain=models, range=colours)),
            tooltip=["model:N", "hours:N", alt.Tooltip("error:Q", format=".2f")],
        )
        .properties(width=WIDTH, height=HEIGHT, title=title)
    )
    spec: dict[str, Any] = chart.to_dict()
    return spec


ROWS = 10
MISSING = "·"


def in_terminal(values: list[float | None], unit: str, marks: list[str], styles: list[str]) -> list[Text]:
    """Return a chart of columns: a bar for each value, a dot at the bottom where it is missing.

    marks: a label under each column, "" for none. styles: of each column. Bars start at 0, or at the least value where
    that is below 0.
    """
    known = [v for v in values if v is not None]
    top, bottom = max(known, default=1.0), min(min(known, default=0.0), 0.0)
    span = (top - bottom) or 1.0
    levels = [None if v is None else (v - bottom) / span * ROWS * 8 for v in values]
    decimals = max(3 - math.floor(math.log10(max(top, -bottom) or 1.0)), 0)
    lines = []
    for row in range(ROWS - 1, -1, -1):
        edge = {ROWS - 1: top, 0: bottom}.get(row)
        line = Text(f"{'' if edge is None else f'{round(edge, decimals) + 0.0:,.10g}':>9} ", style="dim")
        for level, style in zip(levels, styles, strict=True):
            if level is None:
                line.append(MISSING if row == 0 else " ", "red")
            else:
                line.append(" ▁▂▃▄▅▆▇█"[max(0, min(8, round(level - row * 8)))], style)
        lines.append(line)
    lines.append(Text(f"{unit:>9} {_under(marks)}", style="dim"))
    return lines


def _under(marks: list[str]) -> str:
    """Return labels in a line, each from its column on; one that would run into the next is left out."""
    line = ""
    for at, mark in enumerate(marks):
        if mark and len(line) <= at:
            line = line.ljust(at) + mark + " "
    return line.rstrip()
