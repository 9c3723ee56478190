"""Thinning: fewer readings that say the same energy, and how many were given for it.

Of an energy counter every second reading goes: what it counted between two that stay is exact. Its first and last
reading stay, and all around a fall (a wrap, a reset, a failed read), by which the book tells what happened. Of power and
utilisation each four readings become two that hold their time-weighted mean, so that the trapezoid rule finds the same
area. All other quantities are left as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.batch import Batch
from wattkeeper.core.live import Loss, Sample

BATCH_ROWS = 4_000
"""Readings in a thinned batch, about: some 80 kB, which a nearly full disk takes too."""

AROUND_FALL = 4
"""Readings that stay before and after a fall: as many as the book looks at to judge it (core/counter.py, LOOK_BACK)."""

GROUP = 4
"""Readings of power that become two."""

Quantity = Callable[[str], str]
"""From a meter's id to its quantity, "" where it is not known."""


def thin(batches: Iterable[Batch], quantity: Quantity) -> Iterator[Batch]:
    """Yield about half the readings of some batches, in fewer of them; memory grows with the number of meters alone.

    Each has the id of the last batch that went into it: no two have one, and none is made up. Assets and meters are
    declared before their readings, as they were. The last says what was lost, now and before.
    """
    series: dict[str, _Whole] = {}
    lost: dict[str, Loss] = {}
    parcel = _Parcel()
    for batch in batches:
        if len(parcel.samples) >= BATCH_ROWS:
            yield parcel.batch()
            parcel = _Parcel()
        parcel.head(batch)
        for loss in batch.lost:
            lost[loss.meter] = loss.joined(lost[loss.meter]) if loss.meter in lost else loss
        for meter, time_ms, value in batch.samples:
            one = series.get(meter)
            if one is None:
                one = series[meter] = _KINDS.get(quantity(meter), _Whole)(meter)
            one.take(time_ms, value, parcel.samples)
    for one in series.values():
        one.end(parcel.samples)
        if gone := one.loss():
            lost[one.meter] = gone.joined(lost[one.meter]) if one.meter in lost else gone
    if parcel.id:
        yield parcel.batch(list(lost.values()))


class _Parcel:
    """A batch that is being filled."""

    def __init__(self) -> None:
        self.id = ""
        self.samples: list[Sample] = []
        self._assets: dict[str, Asset] = {}
        self._meters: dict[str, Meter] = {}

    def head(self, batch: Batch) -> None:
        self.id = batch.id
        self._assets |= {a.id: a for a in batch.assets}
        self._meters |= {m.id: m for m in batch.meters}

    def batch(self, lost: list[Loss] | None = None) -> Batch:
        return Batch(self.id, self.samples, list(self._assets.values()), list(self._meters.values()), lost or [])


class _Whole:
    """One meter's readings on their way through: each stays."""

    def __init__(self, meter: str) -> None:
        self.meter = meter
        self._first_ms = self._last_ms = self._gone = 0

    def take(self, time_ms: int, value: int, out: list[Sample]) -> None:
        """Take a reading; put out what is sure to stay."""
        self._first_ms = self._first_ms or time_ms
        self._add(Sample(self.meter, time_ms, value), out)
        self._last_ms = max(time_ms, self._last_ms)

    def end(self, out: list[Sample]) -> None:
        """Put out what is still held; the last reading stays."""

    def loss(self) -> Loss | None:
        """Return what did not stay."""
        return Loss(self.meter, self._first_ms, self._last_ms, self._gone) if self._gone else None

    def _add(self, sample: Sample, out: list[Sample]) -> None:
        out.append(sample)


class _Counter(_Whole):
    """An energy counter: every second reading."""

    def __init__(self, meter: str) -> None:
        super().__init__(meter)
        self._held: deque[tuple[Sample, bool]] = deque()
        self._sure = 0

    def _add(self, sample: Sample, out: list[Sample]) -> None:
        before, before_stays = self._held[-1] if self._held else (sample, False)
        stays = self._sure > 0 or not before_stays
        self._sure = max(self._sure - 1, 0)
        if sample.value < before.value or sample.time_ms < before.time_ms:
            self._held = deque((s, True) for s, _ in self._held)
            stays, self._sure = True, AROUND_FALL - 1
        self._held.append((sample, stays))
        if len(self._held) > AROUND_FALL:
            self._give(out)

    def end(self, out: list[Sample]) -> None:
        if self._held:
            self._held[-1] = (self._held[-1][0], True)
        while self._held:
            self._give(out)

    def _give(self, out: list[Sample]) -> None:
        sample, stays = self._held.popleft()
        self._gone += not stays
        if stays:
            out.append(sample)


class _Level(_Whole):
    """Power or utilisation: the mean of each four, told at the first and the last of them.

    By the trapezoid rule a reading weighs half the time between its neighbours. Two readings of one value weigh together
    as much as the four they stand for, so the area is the same; what rounding leaves goes into the next four.
    """

    def __init__(self, meter: str) -> None:
        super().__init__(meter)
        self._before_ms = self._rest = 0
        self._group: list[Sample] = []

    def _add(self, sample: Sample, out: list[Sample]) -> None:
        if sample.time_ms <= self._last_ms:  # the clock was set back: there is no area to keep
            self.end(out)
        if not self._before_ms:
            self._before_ms = sample.time_ms
            out.append(sample)
            return
        if len(self._group) == GROUP:
            self._give(sample.time_ms, out)
        self._group.append(sample)

    def end(self, out: list[Sample]) -> None:
        if self._group:
            last = self._group.pop()
            if len(self._group) > 2:
                self._give(last.time_ms, out)
            out += (*self._group, last)
        self._before_ms, self._rest, self._group = 0, 0, []

    def _give(self, after_ms: int, out: list[Sample]) -> None:
        times_ms = [self._before_ms, *(s.time_ms for s in self._group), after_ms]
        weights_ms = [after - before for before, after in zip(times_ms, times_ms[2:], strict=False)]
        area = self._rest + sum(w * s.value for w, s in zip(weights_ms, self._group, strict=True))
        mean = max(round(area / sum(weights_ms)), 0)
        self._rest = area - mean * sum(weights_ms)
        out += (Sample(self.meter, t, mean) for t in (times_ms[1], times_ms[-2]))
        self._gone += len(self._group) - 2
        self._before_ms, self._group = times_ms[-2], []


_KINDS: dict[str, type[_Whole]] = {"energy_counter": _Counter, "power": _Level, "utilisation": _Level}
