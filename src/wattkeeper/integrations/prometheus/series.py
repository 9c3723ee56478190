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
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.core.schema import READINGS
from wattkeeper.integrations.prometheus import holders
from wattkeeper.integrations.prometheus.labels import Place, job_of, place_of
from wattkeeper.integrations.prometheus.names import CEEMS_HOLDER, Variable, variable_of
from wattkeeper.integrations.prometheus.values import to_integers

FOREVER_MS = 2**62

JOBS_FROM = ("hpc_job", "pod", "ceems")

DEVICE_KINDS = frozenset({"gpu", "cpu", "dram"})

DECLARED_BY_HAND = frozenset({"rack"})
"""What a PDU feeds no label tells: its meter needs an asset in the site file."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series. time_ms: (n,) int64 [ms UTC]; value: (n,) float64 as exported."""

    name: str
    labels: Mapping[str, str]
    time_ms: NDArray[np.int64]
    value: NDArray[np.float64]

    def __str__(self) -> str:
        labels = ",".join(f'{k}="{v}"' for k, v in sorted(self.labels.items()))
        return f"{self.name}{{{labels}}}"


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

    def __post_init__(self) -> None:
        if self.jobs_from not in (None, *JOBS_FROM):
            raise ConfigError(f"'{self.jobs_from}' tells no jobs. Choose one of {', '.join(JOBS_FROM)}.")


DEFAULT = Options()


@dataclass(frozen=True, slots=True)
class Found:
    """A series that we know, with what it measures and where; variable is None for CEEMS's holders."""

    series: Series
    variable: Variable | None
    place: Place

    @property
    def kind(self) -> str:
        """Kind of the asset."""
        return self.variable.kind if self.variable else "gpu"

    @property
    def device(self) -> str:
        """Id of the asset; for a MIG instance, of the GPU it is a part of."""
        return f"{self.place.host}/{self.kind}{self.place.index}" if self.kind in DEVICE_KINDS else self.place.host

    @property
    def held(self) -> str:
        """Id of what a holder of the series holds: the MIG instance where there is one, else the GPU."""
        return f"{self.device}/{self.place.instance}" if self.place.instance else self.device

    @property
    def asset(self) -> str:
        """Id of what the values speak of."""
        return self.held if self.variable and self.variable.per_instance else self.device


def to_intake(
    series: Iterable[Series],
    options: Options = DEFAULT,
    *,
    source: str = "prometheus",
    start_ms: int = -FOREVER_MS,
    end_ms: int = FOREVER_MS,
    held_from_ms: int | None = None,
) -> Intake:
    """Return what the series say of [start_ms, end_ms).

    Samples before start_ms only tell who held a GPU when the span began; held_from_ms (start_ms where None) is where
    allocations begin. Series that we do not know are left out;
    samples that cannot be true become rejects, one for each meter and reason.
    """
    found, refused = _placed(series, options)
    assets = _assets(found)
    readings, meters, faults = _readings([f for f in found if f.variable], start_ms, end_ms)
    intake = Intake(source, list(assets.values()), meters, readings)
    intake.rejects = [Reject(source, 0, reason, text) for reason, text in (refused | faults).items()]
    if options.jobs_from:
        evidence = [e for f in found if (e := _evidence(f, options.jobs_from, assets))]
        intake.allocations, intake.jobs = holders.held(
            evidence, options.interval_ms, start_ms if held_from_ms is None else held_from_ms, end_ms
        )
    return intake


def _placed(series: Iterable[Series], options: Options) -> tuple[list[Found], dict[str, str]]:
    """Return the series we know, and the reason for each that no label places."""
    known = []
    for s in series:
        variable = variable_of(s.name, s.labels)
        if variable or s.name == CEEMS_HOLDER:
            index = variable.index if variable else ("index",)
            known.append(Found(s, variable, place_of(s.labels, index, options.host_pattern, options.host)))
    numbers = _gpu_numbers(known)
    placed, refused = [], {}
    for found in known:
        number = _number(found, numbers)
        if not found.place.host:
            refused[f"{found.series}: no label tells the host; say which it is"] = ""
        elif not number:
            refused[f"{found.series}: no label tells which GPU of the node it is"] = ""
        else:
            placed.append(replace(found, place=replace(found.place, index=number)))
    return placed, refused


def _gpu_numbers(known: Sequence[Found]) -> dict[tuple[str, str], str]:
    """Return (host, UUID) → number of the GPU in its node.

    A metric of the GPU itself decides. CEEMS numbers MIG instances on through the node, so of its numbers for one UUID
    the lowest is taken where nothing else tells.
    """
    numbers: dict[tuple[str, str], tuple[bool, int]] = {}
    for found in known:
        where = found.place
        if found.kind == "gpu" and where.uuid and where.index:
            key, number = (where.host, where.uuid), (found.variable is None, int(where.index))
            numbers[key] = min(numbers.get(key, number), number)
    return {key: str(number) for key, (_, number) in numbers.items()}


def _number(found: Found, numbers: Mapping[tuple[str, str], str]) -> str:
    """Return the number of a device in its node: its own label's, else its UUID's; "" for a GPU that has neither."""
    place = found.place
    if found.kind != "gpu":
        return place.index or "0"
    return place.index if place.index and found.variable else numbers.get((place.host, place.uuid), place.index)


def _assets(found: Sequence[Found]) -> dict[str, Asset]:
    """Return the assets that the series speak of, by id: nodes, their devices, and MIG instances with their slices."""
    assets: dict[str, Asset] = {}
    for f in found:
        if f.kind in DECLARED_BY_HAND:
            continue
        place, device = f.place, f.device
        assets.setdefault(place.host, Asset(place.host, "node", ""))
        if f.kind in DEVICE_KINDS and (device not in assets or (place.model and not assets[device].model)):
            assets[device] = Asset(device, f.kind, place.host, place.model)
        if f.kind == "gpu" and place.instance and (place.slice is not None or f.held not in assets):
            assets[f.held] = Asset(f.held, "mig", device, place.model, slice=place.slice or 1.0)
    return assets


def _readings(found: Sequence[Found], start_ms: int, end_ms: int) -> tuple[pl.DataFrame, list[Meter], dict[str, str]]:
    """Return the readings in the span, their meters, and the reason for those refused → an example."""
    frames, meters, faults = [READINGS.empty()], {}, {}
    for f in found:
        meter = _meter(f)
        inside = (f.series.time_ms >= start_ms) & (f.series.time_ms < end_ms)
        time_ms, value = f.series.time_ms[inside], f.series.value[inside]
        integers, refused = to_integers(value, _variable(f))
        sound = np.ones(len(value), np.bool_)
        for reason, mask in refused:
            sound &= ~mask
            at = int(mask.argmax())
            faults[_told(meter, reason, int(mask.sum()), int(time_ms[at]))] = f"{f.series} {value[at]}"
        if sound.any():
            meters[meter.id] = meter
            columns = {"meter": meter.id, "time_ms": time_ms[sound], "value": integers[sound]}
            frames.append(pl.DataFrame(columns, READINGS.schema))
    merged = pl.concat(frames).group_by("meter", "time_ms").agg(pl.col("value").max()).sort("meter", "time_ms")
    return merged, list(meters.values()), faults


def _variable(found: Found) -> Variable:
    assert found.variable is not None
    return found.variable


def _told(meter: Meter, reason: str, count: int, first_ms: int) -> str:
    which = f"the sample at {iso(first_ms)} is" if count == 1 else f"{count} samples from {iso(first_ms)} on are"
    return f"{meter.id}: {which} {reason}"


def _meter(found: Found) -> Meter:
    """Return the meter of a series. Its id holds the UUID, so that a swapped GPU is another meter."""
    variable = _variable(found)
    parts = "/".join(v for p in variable.parts if (v := found.series.labels.get(p)))
    source = variable.source if variable.parts_add or not parts else f"{variable.source}/{parts}"
    which = parts if variable.parts_add else found.place.uuid
    return Meter(
        f"{found.asset}:{which}:{source}:{variable.quantity}",
        found.asset,
        variable.quantity,
        source,
        variable.rank,
        variable.accuracy_pct,
    )


def _evidence(found: Found, jobs_from: str, assets: Mapping[str, Asset]) -> holders.Evidence | None:
    """Return what a series tells of who holds its GPU; None where it tells nothing of that.

    A series of the right exporter that names no job is evidence of nobody: it ends the time of the job before.
    """
    if jobs_from == "ceems":
        job = found.series.labels.get("uuid", "") if found.variable is None else None
    else:
        by_dcgm = found.variable is not None and found.variable.source.startswith("dcgm")
        job = job_of(found.series.labels, jobs_from) if by_dcgm else None
    if job is None:
        return None
    return holders.Evidence(
        asset=found.held,
        device=found.device,
        host=found.place.host,
        slice=assets[found.held].slice,
        job=job,
        time_ms=found.series.time_ms,
        weight=found.series.value if jobs_from == "ceems" else np.ones(len(found.series.time_ms)),
    )
