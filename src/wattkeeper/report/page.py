"""One page that opens offline: no request leaves it, it is light or dark as the reader's system is, and it prints."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from wattkeeper.report.charts import converter


def page(title: str, body: str, specs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page. body: HTML; where it has `chart(NAME)` the spec of that name is drawn.

    Raises MissingExtraError without the extra `report`.
    """
    data = json.dumps(specs).replace("<", "\\u003c")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_asset("page.css")}</style></head>'
        f'<body><main>{body}</main><script type="application/json" id="specs">{data}</script>'
        f"<script>{_bundle()}</script><script>{_asset('page.js')}</script></body></html>"
    )


def chart(name: str, *, about: str = "") -> str:
    """Return the place of a chart. about: what it shows, for readers who do not see it."""
    label = f' role="img" aria-label="{escape(about)}"' if about else ""
    return f'<div class="chart" id="chart-{name}"{label}></div>'


def cards(told: Sequence[tuple[str, str, str]]) -> str:
    """Return cards, each of a name, a value and a line below it."""
    return '<div class="cards">' + "".join(
        f'<div class="card"><small>{escape(n)}</small><div>{escape(v)}</div><small>{escape(t)}</small></div>'
        for n, v, t in told
    ) + "</div>"  # fmt: skip


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table from cells that are escaped already; the first `left` columns are text."""
    return _table(heads, rows, ["l" if i < left else "" for i in range(len(heads))])


def plain_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], text: Collection[str] = (), fold: Collection[str] = ()
) -> str:
    """Return a table from plain words. The first column and those of the heads in text are words, all others numbers;
    those in fold may be broken. A name that is cut for want of room is whole in its tooltip."""
    kinds = ["w" if h in fold else "l" if not i or h in text else "" for i, h in enumerate(heads)]
    cells = [
        [
            f'<span title="{escape(c)}">{escape(c)}</span>' if k == "l" and len(c) > 16 else escape(c)
            for k, c in zip(kinds, row, strict=True)
        ]
        for row in rows
    ]
    return _table([escape(h) for h in heads], cells, kinds)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str]) -> str:
    cell = [f' class="{k}"' if k else "" for k in kinds]
    top = "".join(f"<th{c}>{h}</th>" for c, h in zip(cell, heads, strict=True))
    body = "".join("<tr>" + "".join(f"<td{c}>{v}</td>" for c, v in zip(cell, r, strict=True)) + "</tr>" for r in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def listed(words: Sequence[str]) -> str:
    """Return sentences as a list."""
    return f"<ul>{''.join(f'<li>{escape(w)}</li>' for w in words)}</ul>" if words else ""


def _asset(name: str) -> str:
    """Return a file that ships beside this one."""
    return (resources.files("wattkeeper.report") / name).read_text("utf-8")


def _bundle() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script."""
    snippet: Any = None  # the default bundle; the stub wrongly asks for text
    return str(converter().javascript_bundle(snippet)).replace("</script", "<\\/script")
