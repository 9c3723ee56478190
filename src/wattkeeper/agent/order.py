"""Times of a meter only rise: what is left of that after a clock was set back."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from wattkeeper.core.live import Loss, Sample

log = logging.getLogger("wattkeeper.agent")

AHEAD_MS = 86_400_000
"""No book takes a reading that is further ahead (lake/batches.py): its time holds up none that comes after."""


class Order:
    """Lets readings through whose times rise.

    Two courses of one counter over the same hour would be no curve. So after a clock was set back a meter's readings are
    left out until the clock has passed its last one; an energy counter bridges that. lost: readings left out so. What a
    report tells again is no loss.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._last_ms: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._losses: list[Loss] = []

    def through(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return those that come after what their meters told before; among each other in any order."""
        newest_ms: dict[str, int] = {}
        for meter, time_ms, _ in samples:
            newest_ms[meter] = max(time_ms, newest_ms.get(meter, 0))
        last_ms = {}
        for meter, time_ms in newest_ms.items():
            told_ms = self._last_ms.get(meter, 0)
            last_ms[meter] = told_ms if told_ms <= time_ms + AHEAD_MS else 0
        for meter, time_ms in newest_ms.items():
            if time_ms < last_ms[meter]:
                self._leave_out(meter, last_ms[meter] - time_ms, sum(s.meter == meter for s in samples))
            elif time_ms > last_ms[meter]:
                self._go_on(meter, time_ms)
        return [s for s in samples if s.time_ms > last_ms[s.meter]]

    def losses(self) -> list[Loss]:
        """Return what was left out and is over, each once."""
        losses, self._losses = self._losses, []
        return losses

    def _leave_out(self, meter: str, behind_ms: int, count: int) -> None:
        if not self._waiting:
            log.warning(
                "%s is stamped %.1f s before its last reading: a clock was set back. Readings are left out until it has "
                "passed that; energy counters bridge it.", meter, behind_ms / 1000,
            )  # fmt: skip
        self._waiting[meter] = self._waiting.get(meter, 0) + count
        self.lost += count

    def _go_on(self, meter: str, time_ms: int) -> None:
        if meter in self._waiting:
            self._losses.append(Loss(meter, self._last_ms[meter], time_ms, self._waiting.pop(meter)))
        self._last_ms[meter] = time_ms
