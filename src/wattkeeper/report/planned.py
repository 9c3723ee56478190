"""The figure of a plan: intensity of each site over time, and below it what runs when, before and after.

Few jobs have a row each, with both bars in it. Many are laid out as the cluster holds them: each site's GPUs over time,
run now above planned.
"""

from __future__ import annotations

import heapq
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wattkeeper.report.charts import (
    COLOURS,
    SOFT,
    altair,
    ink_on,
    same_time,
    scale,
    small_title,
    time_axis,
    titled,
    when,
)
from wattkeeper.report.words import short

MOST_ROWS = 60
"""Jobs that have a row each; beyond, names would lie upon each other."""

MOST_DRAWN = 4000
"""Jobs that are drawn at all; those that hold most GPU hours come first."""

WIDTH, WIDE = 850, 950
NOW, PLANNED = "run now", "planned"
NOWHERE = "no place now"

_ROW, _LEAST, _MOST = 18, 64, 230  # px
_SHADES = 10


@dataclass(frozen=True, slots=True)
class Step:
    """Intensity of a site's electricity over [start_ms, end_ms); None where nobody knows it."""

    site: str
    start_ms: int
    end_ms: int
    intensity_g_per_kwh: float | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch in which a job holds its GPUs. plan: NOW or PLANNED. home: the site where it would run now, or NOWHERE.

    power: of its cap level, as a part of full power. told: (name, words) for the reader who points at it.
    """

    plan: str
    job: str
    site: str
    home: str
    gpus: int
    start_ms: int
    end_ms: int
    power: float
    told: tuple[tuple[str, str], ...] = ()


def figure(steps: Sequence[Step], bars: Sequence[Bar], title: str = "", under: Sequence[str] = ()) -> dict[str, Any]:
    """Return a Vega-Lite spec. title, under: for figures that stand alone.

    Raises MissingExtraError without the extra `report`.
    """
    alt = altair()
    sites = list(dict.fromkeys(s.site for s in steps))
    times = [t for s in steps for t in (s.start_ms, s.end_ms)]
    span = (min(times), max(times))
    drawn = _drawn(bars)
    few = len({b.job for b in drawn}) <= MOST_ROWS
    names = [*sites, *([NOWHERE] if any(b.home == NOWHERE for b in drawn) and not few else [])]
    charts = [curves(steps, names, span, WIDTH if few else WIDE, "" if few else "Intensity")]
    charts += [_rows(drawn, names, span)] if few else _held(steps, drawn, names, span)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Automatically deduplicated selection parameter"
        )  # one for all panels is meant
        made = alt.vconcat(*charts, spacing=8).resolve_scale(color="shared", x="independent")
    spec: dict[str, Any] = titled(made, title, [*under, *notes(bars)]).to_dict()
    return spec


def notes(bars: Sequence[Bar]) -> list[str]:
    """Return what the reader of the figure has to know, as sentences."""
    jobs, drawn = len({b.job for b in bars}), len({b.job for b in _drawn(bars)})
    if drawn <= MOST_ROWS:
        return ["Thin bars: run now; thick bars: planned. The filled part is the power of its cap."]
    told = [
        "Height: GPUs held. Colour: the site where the job would run now. The filled part is the power of its cap. "
        "Grey behind: hours of high intensity."
    ]
    return [*told, f"{jobs - drawn} jobs that hold fewer GPU hours are not drawn."] if drawn < jobs else told


def _drawn(bars: Sequence[Bar]) -> list[Bar]:
    """Return the bars of the jobs that are drawn."""
    hold: dict[str, int] = defaultdict(int)
    for b in bars:
        hold[b.job] += b.gpus * (b.end_ms - b.start_ms)
    if len(hold) <= MOST_DRAWN:
        return list(bars)
    most = set(sorted(hold, key=lambda job: -hold[job])[:MOST_DRAWN])
    return [b for b in bars if b.job in most]


def _scale(names: Sequence[str]) -> Any:
    chosen = scale(names)
    if NOWHERE in names:
        chosen.range[-1] = COLOURS[6]
    return chosen


def _colour(names: Sequence[str], *, lines: bool = False) -> Any:
    """Return the colour of sites. lines: the legend shows lines, else squares."""
    shape: dict[str, Any] = {"symbolType": "stroke", "symbolStrokeWidth": 3} if lines else {"symbolStrokeWidth": 0}
    legend = altair().Legend(
        **{"orient": "top", "direction": "horizontal", "symbolType": "square", "symbolOpacity": 1} | shape
    )
    return altair().Color("site:N", title=None, scale=_scale(names), legend=legend)


def curves(
    steps: Sequence[Step],
    names: Sequence[str],
    span: tuple[int, int],
    width: int,
    title: str = "",
    *,
    alone: bool = False,
) -> Any:
    """Return the chart of the sites' intensities; names: all that the figure colours, the sites first.
    alone: it shares its legend with no other chart."""
    alt = altair()
    rows = [{"time_ms": s.start_ms, "site": s.site, "g": s.intensity_g_per_kwh} for s in steps]
    last = {s.site: s for s in steps}
    rows += [{"time_ms": s.end_ms, "site": s.site, "g": s.intensity_g_per_kwh} for s in last.values()]
    curve = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(interpolate="step-after", strokeWidth=2, invalid="break-paths-show-domains")
        .encode(
            x=time_axis("time_ms", span),
            y=alt.Y("g:Q", title="g CO2e/kWh"),
            color=_colour(names, lines=alone),
            strokeDash=alt.StrokeDash("site:N", legend=None, scale=_dashes(names)),
            tooltip=[
                "site:N",
                when("time_ms", "from"),
                alt.Tooltip("g:Q", title="g CO2e/kWh", format=",.0f"),
            ],
        )
    )
    return curve.properties(width=width, height=130, **({"title": small_title(title)} if title else {}))


def _dashes(names: Sequence[str]) -> Any:
    dashes = ([1, 0], [7, 3], [2, 2], [8, 2, 2, 2])
    return altair().Scale(domain=list(names), range=[dashes[i % 4] for i in range(len(names))])


def _told(bars: Sequence[Bar]) -> list[Any]:
    """Return the lines of a tooltip."""
    alt = altair()
    names = list(dict.fromkeys(name for b in bars for name, _ in b.told))
    return [
        "job:N", "plan:N", "site:N", when("start_ms", "from"), when("end_ms", "to"), "gpus:Q",
        alt.Tooltip("power:Q", format=".0%"), *(alt.Tooltip(f"{n}:N") for n in names),
    ]  # fmt: skip


def _data(bars: Sequence[Bar], places: Sequence[tuple[float, float]], colour: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows for the bars, each at its place (top, bottom)."""
    return [
        {
            "plan": b.plan, "job": b.job, "site": b.site, "colour": c, "gpus": b.gpus, "start_ms": b.start_ms,
            "end_ms": b.end_ms, "power": b.power, "top": top, "bottom": bottom, "fill": bottom - (bottom - top) * b.power,
        } | dict(b.told)
        for b, (top, bottom), c in zip(bars, places, colour, strict=True)
    ]  # fmt: skip


def _picked() -> Any:
    """Return the selection of the job that is pointed at, in all panels at once."""
    return altair().selection_point(name="pointed", fields=["job"], on="pointerover", clear="pointerout", empty=True)


def _blocks(rows: list[dict[str, Any]], names: Sequence[str], tips: list[Any]) -> list[Any]:
    """Return bars: their outline pale, and full up to the power they draw."""
    alt = altair()
    pick = _picked()
    colour = _colour(names)
    colour.shorthand = "colour:N"
    base = alt.Chart(alt.Data(values=rows)).encode(x=same_time("start_ms"), x2="end_ms:T", color=colour, tooltip=tips)
    pale = base.mark_rect().encode(
        y=alt.Y("top:Q"), y2="bottom:Q", opacity=alt.condition(pick, alt.value(0.35), alt.value(0.08))
    )
    full = base.mark_rect().encode(
        y=alt.Y("fill:Q"), y2="bottom:Q", opacity=alt.condition(pick, alt.value(1.0), alt.value(0.2))
    )
    return [pale, full.add_params(pick)]


def _rows(bars: Sequence[Bar], names: Sequence[str], span: tuple[int, int]) -> Any:
    """Return a row a job: run now as a thin bar, and the plan below it."""
    alt = altair()
    ordered = sorted(bars, key=lambda b: (b.plan != NOW, b.start_ms, b.job))
    jobs = list(dict.fromkeys(b.job for b in ordered))
    at = {job: i for i, job in enumerate(jobs)}
    edges = {NOW: (0.1, 0.3), PLANNED: (0.36, 0.92)}
    places = [(at[b.job] + edges[b.plan][0], at[b.job] + edges[b.plan][1]) for b in bars]
    rows = _data(bars, places, [b.site for b in bars])
    y = alt.Y(
        "top:Q", title=None, axis=None, scale=alt.Scale(domainMin=0, domainMax=len(jobs), reverse=True, nice=False)
    )
    x = time_axis("start_ms", span)
    lines = [{"name": short(job, 26), "job": job, "middle": i + 0.5} for job, i in at.items()]
    names_of = alt.Chart(alt.Data(values=lines)).mark_text(align="right", fontSize=10)
    left = names_of.encode(x=alt.value(-6), y=alt.Y("middle:Q"), text="name:N", tooltip="job:N")
    ends: dict[str, list[int]] = defaultdict(list)
    for b in bars:
        if b.plan == PLANNED:
            ends[b.job] += [b.start_ms, b.end_ms]
    links = [
        {"start_ms": min(t), "end_ms": max(t), "top": at[job] + 0.64} for job, t in ends.items() if len(t) > 2
    ]  # where it is taken off
    ground = alt.Chart(alt.Data(values=[{"start_ms": span[0], "end_ms": span[1], "top": 0, "bottom": len(jobs)}]))
    layers = [ground.mark_rect(opacity=0).encode(x=x, x2="end_ms:T", y=y, y2="bottom:Q")]
    if links:
        line = alt.Chart(alt.Data(values=links)).mark_rule(color=SOFT, strokeDash=[2, 2])
        layers.append(line.encode(x=same_time("start_ms"), x2="end_ms:T", y=alt.Y("top:Q")))
    layers += [*_blocks(rows, names, _told(bars)), left]
    capped = [r for r in rows if r["power"] < 0.9995]
    last = list({r["job"]: r for r in capped}.values())
    if last:
        label = alt.Chart(alt.Data(values=last)).mark_text(align="left", dx=3, fontSize=9, color=SOFT)
        layers.append(label.encode(x=same_time("end_ms"), y=alt.Y("middle:Q"), text=alt.Text("power:Q", format=".0%")))
        for r in last:
            r["middle"] = (r["top"] + r["bottom"]) / 2
    return alt.layer(*layers).properties(width=WIDTH, height=max(_ROW * len(jobs), 40))


def _held(steps: Sequence[Step], bars: Sequence[Bar], names: Sequence[str], span: tuple[int, int]) -> list[Any]:
    """Return for each site its GPUs over time, run now and planned, and how clean its electricity is behind them."""
    groups: dict[tuple[str, str], list[Bar]] = defaultdict(list)
    for b in bars:
        groups[b.site, b.plan].append(b)
    sites = [s for s in dict.fromkeys(one.site for one in steps) if groups[s, NOW] or groups[s, PLANNED]]
    laid = {key: lanes([(b.start_ms, b.end_ms, b.gpus) for b in some]) for key, some in groups.items()}
    peak = {
        s: max((high for plan in (NOW, PLANNED) for x in laid.get((s, plan), []) for _, high in x), default=1)
        for s in sites
    }
    most = max(peak.values(), default=1)
    shades = _shades(steps)
    tips = _told(bars)
    charts = []
    for site in sites:
        height = min(max(round(_MOST * peak[site] / most), _LEAST), _MOST)
        for plan in (NOW, PLANNED):
            last = site == sites[-1] and plan == PLANNED
            panel = _panel(
                groups[site, plan],
                laid.get((site, plan), []),
                shades[site],
                names,
                span,
                peak[site],
                height,
                tips,
                last,
            )
            charts.append(panel.properties(width=WIDE, height=height, title=small_title(f"{site}, {plan}")))
    return charts


def _panel(
    bars: Sequence[Bar], laid: Sequence[Sequence[tuple[int, int]]], shades: list[dict[str, Any]], names: Sequence[str],
    span: tuple[int, int], peak: int, height: int, tips: list[Any], last: bool,
) -> Any:  # fmt: skip
    alt = altair()
    parts = [(b, part) for b, places in zip(bars, laid, strict=True) for part in places]
    px, chosen = height / peak, _scale(names)
    rows = _data([b for b, _ in parts], [(peak - b, peak - a) for _, (a, b) in parts], [b.home for b, _ in parts])
    for r in rows:
        wide = (r["end_ms"] - r["start_ms"]) / (span[1] - span[0]) * WIDE
        inset = min(0.5 / px, (r["bottom"] - r["top"]) / 8)
        r["top"], r["fill"], r["bottom"] = r["top"] + inset, r["fill"] + inset, r["bottom"] - inset
        room = int((wide - 6) / 5.6)
        if (r["bottom"] - r["top"]) * px >= 10 and room >= min(len(r["job"]), 8):
            r["label"] = short(r["job"], room)
            r["middle"] = (r["top"] + r["bottom"]) / 2
            r["ink"] = ink_on(chosen.range[names.index(r["colour"])])
    x = time_axis("start_ms", span, bare=not last)
    y = alt.Y(
        "top:Q", title="GPUs", scale=alt.Scale(domainMin=0, domainMax=peak, reverse=True, nice=False),
        axis=alt.Axis(values=[peak - v for v in _ticks(peak)], grid=False, labelExpr=f"format({peak} - datum.value, 'd')"),
    )  # fmt: skip
    ground = (
        alt.Chart(alt.Data(values=[{**s, "top": 0, "bottom": peak} for s in shades]))
        .mark_rect(color=SOFT)
        .encode(x=x, x2="end_ms:T", y=y, y2="bottom:Q", opacity=alt.Opacity("shade:Q", scale=None, legend=None))
    )
    layers = [ground, *(_blocks(rows, names, tips) if rows else [])]
    if named := [r for r in rows if "label" in r]:
        text = alt.Chart(alt.Data(values=named)).mark_text(align="left", dx=3, fontSize=9, clip=True)
        ink = alt.Color("ink:N", scale=None, legend=None)
        layers.append(text.encode(x=same_time("start_ms"), y=alt.Y("middle:Q"), text="label:N", color=ink))
    return alt.layer(*layers)


def _ticks(peak: int) -> list[int]:
    """Return a few round numbers from 0 up to a peak."""
    step = next(s for e in range(12) for s in (10**e, 2 * 10**e, 5 * 10**e) if peak / s <= 4)
    return list(range(0, peak + 1, step))


def _shades(steps: Sequence[Step]) -> dict[str, list[dict[str, Any]]]:
    """Return stretches of like intensity by site, pale where it is low among all sites and hours."""
    known = [s.intensity_g_per_kwh for s in steps if s.intensity_g_per_kwh is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for s in steps:
        if s.intensity_g_per_kwh is None:
            continue
        part = round(_SHADES * (s.intensity_g_per_kwh - low) / ((high - low) or 1.0))
        row = {"start_ms": s.start_ms, "end_ms": s.end_ms, "shade": 0.35 * part / _SHADES}
        if found[s.site] and found[s.site][-1]["end_ms"] == s.start_ms and found[s.site][-1]["shade"] == row["shade"]:
            found[s.site][-1]["end_ms"] = s.end_ms
        else:
            found[s.site].append(row)
    return found


def lanes(stretches: Sequence[tuple[int, int, int]]) -> list[list[tuple[int, int]]]:
    """Return for each (start, end, GPUs) the ranges [from, to) of GPUs that it holds: one where one is free, else several.

    At no time are two on the same GPU, and no GPU is used that is above the most that are held at once.
    """
    edges = sorted([(t, -n) for _, t, n in stretches] + [(t, n) for t, _, n in stretches])
    most = held = 0
    for _, n in edges:
        held += n
        most = max(most, held)
    free = [(0, most)]
    running: list[tuple[int, list[tuple[int, int]]]] = []
    found: list[list[tuple[int, int]]] = [[] for _ in stretches]
    for i in sorted(range(len(stretches)), key=lambda i: (stretches[i][0], -stretches[i][2], i)):
        start, end, gpus = stretches[i]
        while running and running[0][0] <= start:
            free = _merged(free + heapq.heappop(running)[1])
        fit = min((f for f in free if f[1] - f[0] >= gpus), key=lambda f: (f[1] - f[0], f), default=None)
        left = gpus
        for low, high in [fit] if fit else list(free):
            take = min(left, high - low)
            free.remove((low, high))
            free += [(low + take, high)] if low + take < high else []
            found[i].append((low, low + take))
            left -= take
            if not left:
                break
        free.sort()
        heapq.heappush(running, (end, found[i]))
    return found


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, those that touch as one."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if out and out[-1][1] == low:
            out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out
