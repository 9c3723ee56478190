"""What figures share: the packages of the extra `report`, colours, and writing a spec to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wattkeeper.core.errors import ConfigError, MissingExtraError

COLOURS = ("#2f7d4f", "#5b8fc7", "#d9a01e", "#9a86b8", "#c8503c", "#4aa3a2", "#8c6d46", "#d985b4")


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


def svg_of(spec: dict[str, Any]) -> str:
    """Return a spec as SVG. Raises MissingExtraError without the extra `report`."""
    return str(converter().vegalite_to_svg(spec))


def write_figure(spec: dict[str, Any], path: Path) -> None:
    """Write a spec as .svg, .png, or .html that opens offline. Raises ConfigError for another ending."""
    if path.suffix == ".svg":
        path.write_text(svg_of(spec), "utf-8")
    elif path.suffix == ".png":
        path.write_bytes(bytes(converter().vegalite_to_png(spec, scale=2)))
    elif path.suffix == ".html":
        path.write_text(str(converter().vegalite_to_html(spec, bundle=True)), "utf-8")
    else:
        raise ConfigError(f"A figure cannot be written as '{path.suffix}'. Use .svg, .png or .html.")
