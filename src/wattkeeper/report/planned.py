"""The figure of a plan: intensity of each site over time, and below it what runs when, before and after."""

from __future__ import annotations

from typing import Any

from wattkeeper.report.charts import COLOURS, altair

MOST_BARS = 60
"""Jobs that a Gantt chart shows; beyond, the bars would be lines."""

WIDTH = 760


def figure(curves: list[dict[str, Any]], bars: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a Vega-Lite spec.

    curves: time, site, intensity_g_per_kwh. bars: plan ("run now" or "planned"), job, site, start, end; times in ISO
    8601. Raises MissingExtraError without the extra `report`.
    """
    alt = altair()
    jobs = list(dict.fromkeys(b["job"] for b in sorted(bars, key=lambda b: (b["start"], b["job"]))))[:MOST_BARS]
    sites = list(dict.fromkeys(c["site"] for c in curves))
    times = [c["time"] for c in curves] + [b[k] for b in bars for k in ("start", "end")]
    colour = alt.Color(
        "site:N", title=None, scale=alt.Scale(domain=sites, range=[COLOURS[i % 8] for i in range(len(sites))]),
        legend=alt.Legend(orient="top"),
    )  # fmt: skip
    span = alt.Scale(type="utc", domain=[min(times), max(times)] if times else [])
    axis = alt.Axis(format="%a %H:%M")
    curve = (
        alt.Chart(alt.Data(values=curves))
        .mark_line(interpolate="step-after")
        .encode(
            x=alt.X("time:T", title=None, scale=span, axis=axis),
            y=alt.Y("intensity_g_per_kwh:Q", title="g CO2e/kWh"),
            color=colour,
        )
        .properties(width=WIDTH, height=140)
    )
    charts = [curve]
    for name in ("run now", "planned"):
        rows = [b for b in bars if b["plan"] == name and b["job"] in jobs]
        charts.append(
            alt.Chart(alt.Data(values=rows))
            .mark_bar(height=alt.RelativeBandSize(0.8))
            .encode(
                x=alt.X("start:T", title="UTC" if name == "planned" else None, scale=span, axis=axis),
                x2="end:T",
                y=alt.Y("job:N", title=name, sort=jobs, scale=alt.Scale(domain=jobs)),
                color=colour,
                tooltip=["job:N", "site:N", "start:T", "end:T"],
            )
            .properties(width=WIDTH, height=alt.Step(max(5, 16 - len(jobs) // 6)))
        )
    spec: dict[str, Any] = alt.vconcat(*charts).to_dict()
    return spec
