"""What figures share: the packages of the extra `report`, colours, a time axis, and writing a spec to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wattkeeper.core.errors import ConfigError, MissingExtraError

COLOURS = ("#00825f", "#56b4e9", "#e69f00", "#b05f93", "#d55e00", "#1f4e8c", "#a8a8a8", "#e9dc5a")
"""Colours in the order in which figures use them: readers who lack a kind of cone tell any two apart, and their
lightness differs for paper. After B. Wong, Nature Methods 8, 441 (2011)."""

GREEN, SKY, ORANGE, PURPLE, RED = COLOURS[:5]

SOFT = "#7c8894"
"""Of lines and words that are no data; it is seen on white and on a dark page."""

TIME = "%a %d %b %H:%M"
"""How an instant reads in a figure. All are UTC."""

FIGURES = (".html", ".svg", ".png")


def altair() -> Any:
    """Return the module that makes specs. Raises MissingExtraError without the extra `report`."""
    try:
        import altair as found  # noqa: PLC0415 - heavy, and optional
    except ImportError as error:
        raise MissingExtraError("wattkeeper.report", "altair", "report") from error
    return found


def converter() -> Any:
    """Return the module that draws specs. Raises MissingExtraError without the extra `report`."""
    try:
        import vl_convert as found  # noqa: PLC0415 - heavy, and optional
    except ImportError as error:
        raise MissingExtraError("wattkeeper.report", "vl-convert-python", "report") from error
    return found


def scale(names: Sequence[str]) -> Any:
    """Return the colour scale of names that keep their colour wherever they come in the same order."""
    return altair().Scale(domain=list(names), range=[COLOURS[i % len(COLOURS)] for i in range(len(names))])


def time_axis(field: str, span_ms: tuple[int, int], *, bare: bool = False) -> Any:
    """Return the x of a field of milliseconds UTC over a span: hours, and the day at midnight. bare: without labels."""
    alt = altair()
    words = f"utchours(datum.value) + utcminutes(datum.value) ? {_form('%H:%M')} : {_form('%a %d %b')}"
    return alt.X(
        f"{field}:T",
        title=None if bare else "UTC",
        # not domain=: beside x2 Vega-Lite takes one twice, and warns
        scale=alt.Scale(type="utc", domainMin=span_ms[0], domainMax=span_ms[1], nice=False),
        axis=alt.Axis(
            labels=not bare, ticks=not bare, tickCount=10, labelExpr=words, labelOverlap="parity", labelSeparation=8
        ),
    )


def same_time(field: str) -> Any:
    """Return the x of a further layer, on the axis that `time_axis` gave the first."""
    return altair().X(f"{field}:T")


def _form(form: str) -> str:
    return f"utcFormat(datum.value, '{form}')"


def when(field: str, title: str) -> Any:
    """Return a tooltip line for an instant, in UTC wherever the reader is: without a UTC unit it would be local time."""
    unit = "utcyearmonthdatehoursminutes"
    return altair().Tooltip(f"{field}:T", timeUnit=unit, title=f"{title} (UTC)", format=TIME)


def ink_on(colour: str) -> str:
    """Return black or white, whichever is read better on a colour (W3C relative luminance)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def titled(chart: Any, title: str, under: Sequence[str]) -> Any:
    """Return a figure with its title and the lines under it, for one that stands alone; as it is without a title."""
    if not title:
        return chart
    lines = altair().TitleParams(text=title, subtitle=list(under), anchor="start", subtitleColor=SOFT, offset=14)
    return chart.properties(title=lines)


def small_title(text: str) -> Any:
    """Return the title of one panel of a figure."""
    return altair().TitleParams(text=text, anchor="start", fontSize=11, fontWeight=600, offset=4)


def svg_of(spec: dict[str, Any]) -> str:
    """Return a spec as SVG. Raises MissingExtraError without the extra `report`."""
    return str(converter().vegalite_to_svg(spec))


def check_figure(path: Path) -> None:
    """Raise ConfigError for an ending that is no figure's, or a directory that is not there."""
    if path.suffix not in FIGURES:
        raise ConfigError(f"A figure cannot be written as '{path.suffix}'. Use .svg, .png or .html.")
    if not path.parent.is_dir():
        raise ConfigError(f"Cannot write {path}: there is no directory {path.parent}. Make it first.")


def write_figure(spec: dict[str, Any], path: Path) -> None:
    """Write a spec as .svg, .png, or .html that opens offline. Raises ConfigError for another ending."""
    check_figure(path)
    if path.suffix == ".svg":
        path.write_text(svg_of(spec), "utf-8")
    elif path.suffix == ".png":
        path.write_bytes(bytes(converter().vegalite_to_png(spec, scale=2)))
    else:
        path.write_text(str(converter().vegalite_to_html(spec, bundle=True)), "utf-8")
