"""Figures: one chart grammar (Vega-Lite specs through Altair) for page, PDF and notebook."""

from __future__ import annotations

from typing import Any

import polars as pl

from wattkeeper.core.units import MJ_PER_KWH
from wattkeeper.report.charts import GREEN, ORANGE, PURPLE, RED, SKY, altair
from wattkeeper.report.statement import ACCOUNTS, NAMES, Statement

COLOURS = {"jobs": GREEN, "held idle": ORANGE, "idle": SKY, "overhead": PURPLE, "unaccounted": RED}


def figures(statement: Statement) -> dict[str, dict[str, Any]]:
    """Return name → Vega-Lite spec: energy over time by account, carbon over time, and the largest users.

    Raises MissingExtraError without the extra `report`.
    """
    hours, clock = _hours(statement)
    specs = {"energy": _over_time(hours, "energy_kwh", "kWh", clock)}
    if hours["carbon_kg"].drop_nulls().len():
        specs["carbon"] = _over_time(hours, "carbon_kg", "kg CO2e", clock)
    if statement.consumers.height > 1:
        specs["users"] = _users(statement)
    return specs


def _hours(statement: Statement) -> tuple[pl.DataFrame, str]:
    """Return energy and carbon by account and hour, or by day where there are more than 14 days; and whose clock."""
    zone = statement.sites[0].timezone
    instant = pl.from_epoch("hour_ms", time_unit="ms").dt.replace_time_zone("UTC")
    local = instant.dt.convert_time_zone(zone)
    days = statement.hours["hour_ms"].n_unique() > 14 * 24
    offsets = statement.hours.select(local.dt.base_utc_offset() + local.dt.dst_offset()).to_series().n_unique()
    # where the clock is changed hours stand in UTC: there an hour that the local clock shows twice is two bars
    in_zone = days or offsets <= 1
    when = local.dt.truncate("1d") if days else local if in_zone else instant
    hours = (
        statement.hours.with_columns(when.dt.strftime("%Y-%m-%dT%H:%M:%SZ").alias("time"))
        .group_by("time", "account")
        .agg(
            (pl.col("energy_mj").sum() / MJ_PER_KWH).alias("energy_kwh"),
            (pl.col("carbon_g").sum() / 1000).alias("carbon_kg"),
        )
        .with_columns(pl.col("account").replace_strict(NAMES))
        .sort("time", "account")
    )
    return hours, zone if in_zone else "UTC"


def _scale(alt: Any) -> Any:
    return alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))


def _over_time(hours: pl.DataFrame, column: str, title: str, clock: str) -> dict[str, Any]:
    """Return bars by account over time; hours stand on a UTC axis, whatever the clock that `time` is of."""
    alt = altair()
    short = hours["time"].n_unique() <= 48
    order = {NAMES[a]: i for i, a in enumerate(ACCOUNTS)}
    rows = hours.with_columns(pl.col("account").replace_strict(order).alias("order")).to_dicts()
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(binSpacing=0)
        .encode(
            x=alt.X(
                "time:T",
                title=clock,
                timeUnit="utcyearmonthdatehours",
                axis=alt.Axis(
                    format="%a %H:%M" if short else "%a %b %d",
                    tickCount=8 if short else "day",
                    labelOverlap="parity",
                    labelSeparation=8,
                ),
            ),
            y=alt.Y(f"{column}:Q", title=title, stack="zero"),
            color=alt.Color("account:N", title=None, scale=_scale(alt), legend=alt.Legend(orient="top", columns=3)),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("time:T", timeUnit="utcyearmonthdatehoursminutes", format="%Y-%m-%d %H:%M", title=clock),
                "account:N",
                alt.Tooltip(f"{column}:Q", format=",.2f"),
            ],
        )
        .properties(width="container", height=220)
    )
    spec: dict[str, Any] = chart.to_dict()
    return spec


def _users(statement: Statement) -> dict[str, Any]:
    alt = altair()
    rows = statement.consumers.select("user", (pl.col("energy_mj") / MJ_PER_KWH).alias("energy_kwh"), "jobs").to_dicts()
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(color=COLOURS["jobs"])
        .encode(
            x=alt.X("energy_kwh:Q", title="kWh", axis=alt.Axis(tickCount=5, labelOverlap="parity", labelSeparation=12)),
            y=alt.Y("user:N", sort="-x", title=None),
            tooltip=["user:N", "jobs:Q", alt.Tooltip("energy_kwh:Q", format=",.1f")],
        )
        .properties(width="container", height=alt.Step(22))
    )
    spec: dict[str, Any] = chart.to_dict()
    return spec
