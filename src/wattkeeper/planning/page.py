"""A plan as a figure, and as a page: what it saves, how good it can be, what runs when, and job by job."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path

from wattkeeper.core.clock import iso
from wattkeeper.planning.outlook import Line, Outlook, Totals
from wattkeeper.planning.told import chart_rows, gpus_of, intensities, powers_of
from wattkeeper.report import charts
from wattkeeper.report.page import cards, chart, listed, page, plain_table
from wattkeeper.report.planned import figure, notes
from wattkeeper.report.words import amount, carbon, count, duration, grouped, minute, percent, source

MOST_ROWS = 200
"""Jobs in the page's table, those that save most first; --json has all."""


def write_figure(found: Outlook, title: str, path: Path) -> None:
    """Write the plan as .html, a page with all that is to say, or as .svg or .png, the figure alone.

    Raises ConfigError for another ending, MissingExtraError without the extra `report`.
    """
    charts.check_figure(path)
    if path.suffix == ".html":
        spec = figure(*chart_rows(found))
        path.write_text(page(title, _body(found, title), {"plan": spec}), "utf-8")
    else:
        spec = figure(*chart_rows(found), title, [span_of(found), headline(found), bound_line(found)])
        charts.write_figure(spec, path)


def span_of(found: Outlook) -> str:
    """Return the time that was planned."""
    grid = found.grid
    return f"{minute(iso(grid.start_ms))} to {minute(iso(grid.end_ms))} UTC, slots of {grid.slot_ms / 60_000:g} min"


def headline(found: Outlook) -> str:
    """Return what the plan saves, in a sentence."""
    saved = found.saved
    placed = f"{grouped(saved.jobs)} of {count(len(found.lines), 'job')}"
    part = "" if saved.carbon_part is None else f" ({percent(saved.carbon_part)})"
    money = "" if saved.cost is None else f" and {amount(saved.cost)} {found.currency}"
    later = duration(saved.delay_h / saved.jobs) if saved.jobs else "–"
    return f"Saves {carbon(saved.carbon_g)} CO2e{part}{money} against run now; {placed} end {later} later in the mean."


def bound_line(found: Outlook) -> str:
    """Return how good a plan can be, in a sentence."""
    if found.made.unplaced:
        return f"No gap is stated: {count(len(found.made.unplaced), 'job')} found no place."
    if found.gap is None:
        return f"No plan can be below {carbon(found.bound_g)} weighed. A bound that is not above 0 states no gap."
    return f"No plan can be below {carbon(found.bound_g)} weighed; this one is {percent(found.gap, 2)} above."


def totals_heads(found: Outlook) -> tuple[str, ...]:
    """Return the heads of the totals."""
    return ("", "Jobs", "Energy kWh", "CO2e", f"Cost {found.currency or ''}".strip(), "Delay in sum", "Weighed")


def totals(found: Outlook) -> list[tuple[str, ...]]:
    """Return the rows of the totals (see `totals_heads`): run now, planned, and what is saved over the jobs placed in both."""
    saved, same = found.saved, found.now.jobs == found.planned.jobs == found.saved.jobs

    def row(name: str, one: Totals) -> tuple[str, ...]:
        return (
            name, grouped(one.jobs), grouped(one.energy_kwh, 1), carbon(one.carbon_g), amount(one.cost),
            duration(one.delay_h), carbon(one.weighed_g),
        )  # fmt: skip

    part = "" if saved.carbon_part is None else f" {percent(saved.carbon_part)}"
    return [
        row("run now", found.now),
        row("planned", found.planned),
        (
            f"saved{part}", grouped(saved.jobs), grouped(saved.energy_kwh, 1), carbon(saved.carbon_g), amount(saved.cost),
            duration(-saved.delay_h), carbon(found.now.weighed_g - found.planned.weighed_g) if same else "–",
        ),
    ]  # fmt: skip


def _body(found: Outlook, title: str) -> str:
    told = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(span_of(found))}</p>',
        f"<p>{escape(headline(found))} {escape(bound_line(found))}</p>",
        cards(_cards(found)),
        "<h2>What runs when</h2>",
        chart("plan", about=headline(found)),
        *(f'<p class="soft">{escape(note)}</p>' for note in notes(chart_rows(found)[1])),
        "<h2>Totals</h2>",
        plain_table(totals_heads(found), totals(found)),
        f'<p class="soft">{WEIGHED} Saved is over the {count(found.saved.jobs, "job")} that have a place in both.</p>',
        "<h2>Jobs</h2>",
        '<div class="jobs">', plain_table(JOBS, [cells(found, x) for x in placed(found)[:MOST_ROWS]], TEXT, {"Why"}), "</div>",
    ]  # fmt: skip
    if (more := len(placed(found)) - MOST_ROWS) > 0:
        told.append(f'<p class="soft">… and {grouped(more)} more; --json has all.</p>')
    if lost := not_planned(found):
        told += [f"<h2>Not planned</h2>{listed(lost[:MOST_ROWS])}"]
    if found.users:
        told += ["<h2>Users</h2>", plain_table(USERS, users(found))]
    told += ["<h2>How this was made</h2>", listed(sources(found))]
    return "".join(told)


def not_planned(found: Outlook) -> list[str]:
    """Return a sentence for each job without a place, and for each row that was refused."""
    lost = [f"{x.job}: {x.why}." for x in found.lines if x.planned is None]
    names = (f"{r.text} (row {r.row})" if r.text else f"row {r.row}" for r in found.rejects)
    return lost + [f"{name}: {r.reason}." for name, r in zip(names, found.rejects, strict=True)]


WEIGHED = (
    "Weighed is carbon and what money, water, delay and fairness add by their weights; the planner makes it small."
)


def _cards(found: Outlook) -> list[tuple[str, str, str]]:
    saved, jobs = found.saved, max(found.saved.jobs, 1)
    money = (
        ("–", "no price given") if saved.cost is None else (f"{amount(saved.cost)} {found.currency}", "against run now")
    )
    bound = f"no plan can be below {carbon(found.bound_g)}" if not found.made.unplaced else "not every job has a place"
    asked = len(found.lines) + len(found.rejects)
    return [
        ("Saved carbon", carbon(saved.carbon_g), f"{percent(saved.carbon_part)} of run now"),
        ("Saved money", *money),
        ("Above the bound", percent(found.gap, 2), bound),
        ("Delay, mean of a job", duration(saved.delay_h / jobs), "later than run now"),
        (
            "Jobs with a place",
            f"{grouped(found.planned.jobs)} of {grouped(asked)}",
            f"run now: {grouped(found.now.jobs)}",
        ),
    ]


JOBS = ("Job", "Site", "Starts UTC", "Ends UTC", "GPUs", "Power", "Saves", "Delay", "g/kWh", "Why")


TEXT = frozenset({"Site", "Starts UTC", "Ends UTC", "Why"})
"""Columns of JOBS that are words."""


def cells(found: Outlook, line: Line, form: str = "%d %b %H:%M") -> tuple[str, ...]:
    """Return a placed job as a row of words (see JOBS). A site that changes is told as "from → to". form: of instants."""
    planned = line.planned
    if planned is None:
        raise ValueError(line.job)
    grid = found.grid
    begin, end = (
        datetime.fromtimestamp(grid.at_ms(t) / 1000, UTC) for t in (planned.slots[0][0], planned.slots[-1][1])
    )
    site = planned.site if line.now is None or line.now.site == planned.site else f"{line.now.site} → {planned.site}"
    return (
        line.job, site, f"{begin:{form}}", f"{end:{form}}", grouped(gpus_of(found)[line.job]),
        f"{powers_of(found)[line.job][planned.level]:.0%}", carbon(line.saved_g), duration(line.delay_h), intensities(line),
        why(line),
    )  # fmt: skip


def why(line: Line) -> str:
    """Return why a job stands where it stands, and in how many pieces."""
    pieces = len(line.planned.slots) if line.planned else 1
    reason = line.why.replace("suspended", f"suspended ({pieces} pieces)")
    return f"{reason} (moved)" if line.was == "moved" else reason


def placed(found: Outlook) -> list[Line]:
    """Return the jobs that have a place, those that save most first."""
    return sorted((x for x in found.lines if x.planned), key=lambda x: -(x.saved_g or 0.0))


USERS = ("User", "Jobs", "GPUs", "Saves", "Saves money", "Mean delay", "Run now")


def users(found: Outlook) -> list[tuple[str, ...]]:
    """Return the users as rows of words (see USERS)."""
    return [
        (
            u.user, grouped(u.jobs), grouped(u.gpus), carbon(u.saved_g), amount(u.saved_cost), duration(u.delay_h),
            duration(u.delay_now_h),
        )
        for u in found.users
    ]  # fmt: skip


def sources(found: Outlook, *, brief: bool = False) -> list[str]:
    """Return where the signals come from (brief: intensities and forecasts only), and what was taken for want of better."""
    told = []
    for site, infos in found.signals.items():
        for kind, info in infos.items():
            if brief and kind != "intensity" and not kind.endswith("forecast"):
                continue
            more = source(info)
            told.append(f"{site}: {kind} {info.id}{f' ({more})' if more else ''}")
    return [*told, *(f"{note}." for note in found.notes)]
