"""From labelled samples to an intake, in which one physical device is counted once.

A GPU is told by its host and UUID. An exporter repeats a whole GPU's watts and joules on the series of each MIG
instance, each `hpc_job` and each pod; all these are one meter, and of values at one instant the largest stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.clock import iso
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.core.schema import READINGS
from wattkeeper.integrations.prometheus import holders
from wattkeeper.integrations.prometheus.labels import Place, job_of, place_of
from wattkeeper.integrations.prometheus.names import CEEMS_HOLDER, Variable, variable_of
from wattkeeper.integrations.prometheus.values import to_integers

FOREVER_MS = 2**62

DEVICE_KINDS = frozenset({"gpu", "cpu", "dram"})

DECLARED_BY_HAND = frozenset({"rack"})
"""What a PDU feeds no label tells: it is metered here and has to stand in the site file."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series. time_ms: (n,) int64 [ms UTC]; value: (n,) float64 as exported."""

    name: str
    labels: Mapping[str, str]
    time_ms: NDArray[np.int64]
    value: NDArray[np.float64]

    def __str__(self) -> str:
        return f"{self.name}{{{','.join(f'{k}="{v}"' for k, v in sorted(self.labels.items()))}}}"


@dataclass(frozen=True, slots=True)
class Options:
    """How series are read.

    jobs_from: who holds which GPU is read from the label "hpc_job", from the labels of a "pod", from the series of
    "ceems", or not at all (None). interval_ms: time for which a lone sample speaks of a holder.
    host_pattern: regular expression whose first group is the node's name in a host label.
    host: name for series that carry no host label.
    """

    jobs_from: str | None = None
    interval_ms: int = 30_000
    host_pattern: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """A series that we know, with what it measures and where; variable is None for CEEMS's holders."""

    series: Series
    variable: Variable | None
    place: Place


def to_intake(
    series: Iterable[Series],
    options: Options = Options(),  # noqa: B008 - immutable
    *,
    source: str = "prometheus",
    start_ms: int = -FOREVER_MS,
    end_ms: int = FOREVER_MS,
) -> Intake:
    """Return what the series say of [start_ms, end_ms).

    Samples before start_ms only tell who held a GPU when the span began. Series that we do not know are left out;
    samples that cannot be true become rejects, one for each series and reason.
    """
    intake = Intake(source)
    found = _placed(series, options, intake)
    _declare(found, intake)
    readings = [_readings(f, intake, start_ms, end_ms) for f in _best_activity(found) if f.variable]
    if readings:
        intake.readings = (
            pl.concat(readings).group_by("meter", "time_ms").agg(pl.col("value").max()).sort("meter", "time_ms")
        ).select(READINGS.schema.names())
    if options.jobs_from:
        evidence = [e for f in found if (e := _evidence(f, options.jobs_from))]
        intake.allocations, intake.jobs = holders.held(evidence, options.interval_ms, start_ms, end_ms)
    return intake


def _placed(series: Iterable[Series], options: Options, intake: Intake) -> list[_Found]:
    """Return the series we know with their places; those that cannot be placed become rejects."""
    known = []
    for s in series:
        variable = variable_of(s.name, s.labels)
        if variable or s.name == CEEMS_HOLDER:
            index = variable.index if variable else ("index",)
            known.append(_Found(s, variable, place_of(s.labels, index, options.host_pattern, options.host)))
    numbers = _device_numbers(known)
    placed = []
    for found in known:
        where = found.place
        if not where.host:
            intake.rejects.append(Reject(intake.source, 0, f"{found.series}: no label names the host; name one", ""))
        elif _kind(found) == "gpu" and not (number := numbers.get((where.host, where.uuid), where.index)):
            intake.rejects.append(Reject(intake.source, 0, f"{found.series}: no label tells which GPU of the node", ""))
        else:
            index = number if _kind(found) == "gpu" else where.index or "0"
            placed.append(_Found(found.series, found.variable, replace(where, index=index)))
    return placed


def _device_numbers(known: Sequence[_Found]) -> dict[tuple[str, str], str]:
    """Return (host, UUID) → number of the GPU in its node.

    A metric of the GPU itself decides. CEEMS numbers MIG instances on through the node, so of its numbers for one UUID
    the lowest is taken where nothing else tells.
    """
    numbers: dict[tuple[str, str], tuple[bool, int]] = {}
    for found in known:
        where = found.place
        if where.uuid and where.index and _kind(found) == "gpu":
            key, number = (where.host, where.uuid), (found.variable is None, int(where.index))
            numbers[key] = min(numbers.get(key, number), number)
    return {key: str(number) for key, (_, number) in numbers.items()}


def _kind(found: _Found) -> str:
    return found.variable.kind if found.variable else "gpu"


def _device(found: _Found) -> str:
    """Return the id of the asset, for a MIG instance of the GPU it is a part of."""
    kind = _kind(found)
    return f"{found.place.host}/{kind}{found.place.index}" if kind in DEVICE_KINDS else found.place.host


def _held_asset(found: _Found) -> str:
    """Return the id of what a holder of this series holds: the MIG instance, else the GPU."""
    return f"{_device(found)}/{found.place.instance}" if found.place.instance else _device(found)


def _asset(found: _Found) -> str:
    """Return the id of what the values speak of."""
    return _held_asset(found) if found.variable and found.variable.per_instance else _device(found)


def _declare(found: Sequence[_Found], intake: Intake) -> None:
    """Add the assets that the series speak of: nodes, their devices, MIG instances with the profile that one tells."""
    assets: dict[str, Asset] = {}
    for f in found:
        kind, host, device, place = _kind(f), f.place.host, _device(f), f.place
        if kind in DECLARED_BY_HAND:
            continue
        assets.setdefault(host, Asset(host, "node", ""))
        if kind in DEVICE_KINDS and (device not in assets or (place.model and not assets[device].model)):
            assets[device] = Asset(device, kind, host, place.model)
        if kind == "gpu" and place.instance and (place.slice is not None or _held_asset(f) not in assets):
            instance = _held_asset(f)
            assets[instance] = Asset(instance, "mig", device, place.model, slice=place.slice or 1.0)
    intake.assets = list(assets.values())


def _best_activity(found: Sequence[_Found]) -> list[_Found]:
    """Return the series without the lesser ones of an asset's utilisation metrics: they would count its time twice."""
    best: dict[str, int] = {}
    for f in found:
        if f.variable and f.variable.quantity == "utilisation":
            best[_asset(f)] = min(best.get(_asset(f), f.variable.rank), f.variable.rank)
    return [
        f for f in found if not f.variable or f.variable.quantity != "utilisation" or f.variable.rank == best[_asset(f)]
    ]


def _meter(found: _Found, variable: Variable) -> Meter:
    """Return the meter of a series. Its id holds the UUID, so that a swapped GPU is another meter."""
    parts = "/".join(v for p in variable.parts if (v := found.series.labels.get(p)))
    source = variable.source if variable.parts_add or not parts else f"{variable.source}/{parts}"
    which = parts if variable.parts_add else found.place.uuid
    asset = _asset(found)
    return Meter(
        f"{asset}:{which}:{source}:{variable.quantity}",
        asset,
        variable.quantity,
        source,
        variable.rank,
        variable.accuracy_pct,
    )


def _readings(found: _Found, intake: Intake, start_ms: int, end_ms: int) -> pl.DataFrame:
    """Return a series's readings in the span; add its meter, and a reject for each reason that refused some."""
    series, variable = found.series, found.variable
    assert variable is not None
    meter = _meter(found, variable)
    inside = (series.time_ms >= start_ms) & (series.time_ms < end_ms)
    time_ms, value = series.time_ms[inside], series.value[inside]
    integers, refused = to_integers(value, variable)
    sound = np.ones(len(value), np.bool_)
    for reason, mask in refused:
        sound &= ~mask
        first = int(np.flatnonzero(mask)[0])
        many = f"{mask.sum()} samples from {iso(int(time_ms[first]))} on are" if mask.sum() > 1 else ""
        told = f"{meter.id}: {many or f'the sample at {iso(int(time_ms[first]))} is'} {reason}"
        intake.rejects.append(Reject(intake.source, 0, told, f"{series} {value[first]}"))
    if sound.any() and all(m.id != meter.id for m in intake.meters):
        intake.meters.append(meter)
    return pl.DataFrame({"meter": meter.id, "time_ms": time_ms[sound], "value": integers[sound]}, READINGS.schema)


def _evidence(found: _Found, jobs_from: str) -> holders.Evidence | None:
    """Return what a series tells of the holder of its GPU; a GPU that nobody holds has evidence of no job."""
    place, labels = found.place, found.series.labels
    if _kind(found) != "gpu" or (found.variable is None) != (jobs_from == "ceems"):
        return None
    ceems = found.variable is None
    job = labels.get("uuid", "") if ceems else job_of(labels, jobs_from)
    return holders.Evidence(
        asset=_held_asset(found),
        device=_device(found),
        host=place.host,
        slice=place.slice or 1.0 if place.instance else 1.0,
        job=job,
        time_ms=found.series.time_ms,
        weight=found.series.value if ceems else np.ones(len(found.series.time_ms)),
    )
