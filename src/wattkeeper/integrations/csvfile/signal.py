"""Signals: values that hold from one instant to another, with the holes between them kept open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wattkeeper.core.roles import Intake, Reject, SignalInfo
from wattkeeper.integrations.csvfile.jobs import end_after
from wattkeeper.integrations.csvfile.link import Batch
from wattkeeper.integrations.csvfile.numbers import read_reals
from wattkeeper.integrations.csvfile.reasons import first, where_sound, why
from wattkeeper.integrations.csvfile.table import Table
from wattkeeper.integrations.csvfile.templates import column, fields, filled
from wattkeeper.integrations.csvfile.times import settle

KINDS = ("intensity", "price", "water", "pue")
KEPT_UNITS = {"intensity": "g/kWh", "water": "L/kWh", "pue": "ratio"}
AMOUNTS = {
    "intensity": {"g": 1.0, "kg": 1000.0, "t": 1_000_000.0, "lb": 453.59237},
    "water": {"L": 1.0, "m3": 1000.0},
}
"""Grams and litres in one of each: the numerators a unit may have. A price may have any currency."""
ENERGIES = {"kWh": 1.0, "MWh": 0.001}
"""What a value per this much energy is, per kWh."""

COMMON_SHARE, COMMON_TIMES = 0.05, 3
"""A step between rows is regular when it makes up this share of all steps and occurs this often."""


@dataclass(slots=True)
class Signals:
    """The signals of one file. Without an end column the starts of the whole file are kept: they give the ends."""

    table: Table
    _infos: dict[str, SignalInfo] = field(default_factory=dict)
    _held: list[pl.DataFrame] = field(default_factory=list)

    def read(self) -> Iterator[Intake]:
        """Yield all batches. Raises ImportFileError when the file as a whole cannot be used."""
        wanted = self._wanted()
        for batch in self.table.batches(wanted):
            rows, rejects = self._checked(batch, wanted)
            ready = rows["end_ms"].is_not_null() & rows["later_ms"].is_null()
            self._held.append(rows.filter(~ready))
            yield self._intake(rows.filter(ready), [*batch.rejects, *rejects])
        held = self._settled(pl.concat(self._held))
        yield self._intake(held, []) if "end" in wanted else self._ended(held.sort("signal", "time_ms", "row"))

    def _wanted(self) -> dict[str, int]:
        layout = self.table.layout
        wanted = self.table.find(["start", "value", *([] if layout.signal else ["signal"])], ["end"])
        if "signal" in wanted:
            wanted[column("signal")] = wanted.pop("signal")
        return wanted | {column(name): self.table.place(name) for name in fields(layout.signal)}

    def _checked(self, batch: Batch, wanted: dict[str, int]) -> tuple[pl.DataFrame, list[Reject]]:
        """Return row, signal, time_ms, later_ms, end_ms and value, and the rejects.

        Without an end column a row whose value is bad stays, with a null value: the one before it ends there.
        """
        cells = batch.cells
        times = self.table.times(cells["start"], "start", wanted["start"])
        named = cells.with_columns(pl.col(r"^\{.*\}$").cast(pl.String))
        signal = filled(self.table.layout.signal or column("signal"))
        rows = named.select("row", signal=signal).with_columns(times["time_ms"], times["later_ms"])
        for one in rows["signal"].drop_nulls().unique():
            self._infos.setdefault(one, self._info(one))
        values = self._values(cells["value"], rows["signal"])
        rows = rows.with_columns(values["value"], end_ms=pl.lit(None, pl.Int64))
        unplaced = first(times["why"], rows.select(why([(pl.col("signal").is_null(), "signal is missing")]))["why"])
        reason = first(unplaced, values["why"])
        if "end" in wanted:
            ends = self.table.times(cells["end"], "end", wanted["end"])
            rows = rows.with_columns(end_after(rows["time_ms"] + 1, ends["time_ms"], ends["later_ms"]))
            short = rows.select(why([(pl.col("end_ms") <= pl.col("time_ms"), "end does not lie after start")]))["why"]
            reason = unplaced = first(reason, ends["why"], short)
        return rows.filter(unplaced.is_null()), self.table.rejects(cells, reason)

    def _values(self, cells: pl.Series, signals: pl.Series) -> pl.DataFrame:
        """Return value in the unit we keep, and why: only a price may be negative, and a PUE is at least 1."""
        layout = self.table.layout
        values = read_reals(cells, what="value", factor=self._factor() * layout.scale, decimal=layout.decimal)
        kind_of = {signal: info.kind for signal, info in self._infos.items()}
        kinds = signals.replace_strict(kind_of, default=None, return_dtype=pl.String)
        return where_sound(
            values,
            (pl.lit(kinds != "price") & (pl.col("value") < 0), "value is negative"),
            (pl.lit(kinds == "pue") & (pl.col("value") < 1), "value is a PUE below 1"),
        )

    def _settled(self, held: pl.DataFrame) -> pl.DataFrame:
        """Return all rows held back, those at a doubled local time among them, with one instant each."""
        doubtful = held["later_ms"].is_not_null()
        sure = held.filter(~doubtful).drop("later_ms").sort("row")
        rising = sure.is_empty() or sure["time_ms"][0] <= sure["time_ms"][-1]
        return pl.concat([sure, settle(held.filter(doubtful), "signal", rising=rising)])

    def _info(self, signal: str) -> SignalInfo:
        layout = self.table.layout
        kind = layout.signal_kind or signal.partition(":")[0]
        if kind not in KINDS:
            raise self.table.fault(f"does not say what '{signal}' is: set signal_kind to one of {', '.join(KINDS)}")
        unit, _ = signal_unit(kind, layout.unit) or ("", 0.0)
        if not unit:
            raise self.table.fault(f"gives unit '{layout.unit}' to '{signal}': use {unit_choices(kind)}")
        shift = f"times shifted by {layout.shift_ms} ms" if layout.shift_ms else ""
        return SignalInfo(signal, kind, unit, layout.provider, self.table.path.name, layout.method, shift)

    def _factor(self) -> float:
        kinds = {info.kind for info in self._infos.values()}
        if len(kinds) > 1:
            raise self.table.fault(
                f"reads signals of several kinds at once ({', '.join(sorted(kinds))}): import them one by one"
            )
        found = signal_unit(kinds.pop(), self.table.layout.unit) if kinds else None
        return found[1] if found else 1.0

    def _intake(self, rows: pl.DataFrame, rejects: list[Reject]) -> Intake:
        signals = rows.select("signal", start_ms="time_ms", end_ms="end_ms", value="value")
        infos = [self._infos[s] for s in signals["signal"].unique(maintain_order=True)]
        return Intake(self.table.name, signals=signals, signal_infos=infos, rejects=rejects)

    def _ended(self, rows: pl.DataFrame) -> Intake:
        """Return all rows with the ends that follow from the starts, one signal after the other."""
        intake = Intake(self.table.name)
        for (signal,), part in rows.partition_by("signal", as_dict=True, maintain_order=True).items():
            one = pl.col("value").drop_nulls().first().over("time_ms")
            intake.rejects += self._refuse(
                part.filter(pl.col("value") != one), "another row gave this start another value"
            )
            starts = part.with_columns(value=one).unique("time_ms", keep="first", maintain_order=True)
            hold_ms = self.table.layout.hold_ms
            if starts.height == 1 and not hold_ms:
                words = "the only row of its signal does not say when it ends; add an end column or set hold_ms"
                intake.rejects += self._refuse(starts, words)
                continue
            starts_ms = starts["time_ms"].to_numpy()
            ends_ms = ends_of(starts_ms, hold_ms)
            done = starts.with_columns(end_ms=pl.Series(ends_ms)).drop_nulls("value")
            intake.signals.extend(done.select("signal", start_ms="time_ms", end_ms="end_ms", value="value"))
            intake.signal_infos.append(_with_holes(self._infos[signal], starts_ms, ends_ms))
        return intake

    def _refuse(self, rows: pl.DataFrame, reason: str) -> list[Reject]:
        cells = rows.select("row", "value").iter_rows()
        return [Reject(str(self.table.path), row, reason, str(value)) for row, value in cells]


def _with_holes(info: SignalInfo, starts_ms: NDArray[np.int64], ends_ms: NDArray[np.int64]) -> SignalInfo:
    """Return the words about a signal with its holes told in the note."""
    open_ms = starts_ms[1:] - ends_ms[:-1]
    holes = int((open_ms > 0).sum())
    if not holes:
        return info
    told = f"{holes} {'hole' if holes == 1 else 'holes'} of {int(open_ms.sum()) // 60_000} min in all"
    return replace(info, note="; ".join(part for part in (info.note, told) if part))


def ends_of(starts_ms: NDArray[np.int64], hold_ms: int = 0) -> NDArray[np.int64]:
    """Return when values end that are known by their starts: at the next start, unless that is a hole away.

    starts_ms: (n,) rising. hold_ms: the longest a value may hold; 0 takes the regular step (see regular_step_ms), and
    then a step up to a quarter longer is no hole, so that jitter, a long month or the 25-hour day tears none open.
    Before a hole a value holds hold_ms; the last one holds as long as the step before it, at most hold_ms.
    """
    steps_ms = np.diff(starts_ms)
    hold = hold_ms or regular_step_ms(steps_ms)
    limit = hold_ms or hold * 5 // 4
    lengths_ms = np.where(steps_ms > limit, hold, steps_ms)
    last = min(int(steps_ms[-1]), hold) if len(steps_ms) else hold
    ends_ms: NDArray[np.int64] = starts_ms + np.append(lengths_ms, last)
    return ends_ms


def regular_step_ms(steps_ms: NDArray[np.int64]) -> int:
    """Return the longest step that occurs at least three times and is at least a twentieth of all, else the median.

    So 15 and 30 minutes mixed give 30, and two 30-minute steps in a year of 15 minutes are holes.
    """
    lengths, times = np.unique(steps_ms, return_counts=True)
    regular = lengths[(times >= COMMON_TIMES) & (times >= COMMON_SHARE * len(steps_ms))]
    return int(regular.max()) if len(regular) else int(np.sort(steps_ms)[(len(steps_ms) - 1) // 2])


def signal_unit(kind: str, unit: str) -> tuple[str, float] | None:
    """Return the unit we keep for a kind of signal and the factor into it, or None for a unit we cannot read."""
    if kind == "pue":
        return {"": ("ratio", 1.0), "ratio": ("ratio", 1.0), "percent": ("ratio", 0.01)}.get(unit)
    if not unit and kind in KEPT_UNITS:
        return KEPT_UNITS[kind], 1.0
    amount, _, energy = unit.partition("/")
    if energy not in ENERGIES:
        return None
    if kind == "price":
        return (f"{amount}/kWh", ENERGIES[energy]) if len(amount) == 3 and amount.isupper() else None
    size = AMOUNTS[kind].get(amount)
    return (KEPT_UNITS[kind], size * ENERGIES[energy]) if size else None


def unit_choices(kind: str) -> str:
    """Return the units a kind of signal may come in, as words."""
    if kind == "pue":
        return "ratio or percent"
    amounts = "a currency such as EUR" if kind == "price" else ", ".join(AMOUNTS[kind])
    return f"{amounts}, per {' or '.join(ENERGIES)}, such as {KEPT_UNITS.get(kind, 'EUR/MWh')}"
