"""From samples to batches that are safe on disk."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from wattkeeper.agent.order import Order
from wattkeeper.agent.poller import fraction
from wattkeeper.agent.thin import Quantity, thin
from wattkeeper.core.assets import Asset, AssetTree, Meter
from wattkeeper.core.batch import Batch, decode, encode
from wattkeeper.core.errors import JournalError, JournalFullError
from wattkeeper.core.live import Discovery, Loss, Sample

log = logging.getLogger("wattkeeper.agent")

HELD_BYTES = 4 * 2**20
"""What is kept in memory while the disk does not take it, before it is thinned."""

DECLARE_S = 3600.0
"""Assets and meters are told again so often, should the receiver have lost them."""

Keep = Callable[[bytes], Awaitable[None]]


class Outbox:
    """Gathers samples, and keeps a batch of them every so often.

    keep: makes one batch safe on disk; raises JournalError. tree: assets that are known without being discovered.
    """

    def __init__(self, name: str, keep: Keep, tree: AssetTree, *, batch_s: float, batch_rows: int) -> None:
        self._name, self._keep, self._tree = name, keep, tree
        self._batch_s, self._batch_rows = batch_s, batch_rows
        self._run, self._number = uuid.uuid4().hex, 0
        self._samples: list[Sample] = []
        self._assets: dict[str, Asset] = {}
        self._meters: dict[str, Meter] = {}
        self._untold: set[str] = set()
        self._told_s = 0.0
        self._held: deque[bytes] = deque()
        self._order = Order()
        self._gone: list[Loss] = []
        self._full, self._lock = asyncio.Event(), asyncio.Lock()
        self._given = 0
        self._trouble = ""

    @property
    def lost(self) -> int:
        """Readings that found no room on disk nor in memory, or came with times that had been."""
        return self._given + self._order.lost

    @property
    def waiting(self) -> int:
        """Readings in memory that no disk has."""
        return sum(len(decode(data).samples) for data in self._held) + len(self._samples)

    def declare(self, found: Discovery) -> None:
        """Remember what a device has; what is new goes out with the next batch."""
        for asset in self._closed(found):
            if self._assets.get(asset.id) != asset:
                self._assets[asset.id] = asset
                self._untold.add(asset.id)
        for meter in found.meters:
            if self._meters.get(meter.id) != meter:
                self._meters[meter.id] = meter
                self._untold.add(meter.id)

    def quantity(self, meter: str) -> str:
        """Return what a meter reports; "" where no device has declared it."""
        return self._meters[meter].quantity if meter in self._meters else ""

    def add(self, samples: Sequence[Sample]) -> None:
        """Take values; a full batch is written at once."""
        self._samples += self._order.through(samples)
        if len(self._samples) >= self._batch_rows:
            self._full.set()

    async def run(self) -> None:
        """Write batches for ever; the first comes early, at a time of each agent's own."""
        wait_s = self._batch_s * fraction(self._name)
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    await self._full.wait()
            except TimeoutError:
                pass
            wait_s = self._batch_s
            await self.flush()

    async def flush(self) -> None:
        """Write what was gathered. A disk that does not take it is told once, and tried again with the next batch."""
        async with self._lock:
            self._full.clear()
            taken = await self._hand_over()  # what waits goes first, and makes room
            self._pack()
            if taken and await self._hand_over() and self._trouble:
                log.info("Readings are written again; %d were lost since the start.", self.lost)
                self._trouble = ""
            if sum(map(len, self._held)) > HELD_BYTES:
                await self._thin()

    async def _hand_over(self) -> bool:
        """Have all that waits kept; return whether it was."""
        while self._held:
            try:
                await self._keep(self._held[0])
            except (JournalError, TimeoutError) as error:
                self._refused(error)
                return False
            self._held.popleft()
        return True

    def _pack(self) -> None:
        """Make a batch of the samples at hand."""
        samples, self._samples = self._samples, []
        gone, self._gone = self._gone + self._order.losses(), []
        now_s = asyncio.get_running_loop().time()
        if self._told_s + DECLARE_S <= now_s:
            self._untold = {*self._assets, *self._meters}
            self._told_s = now_s
        if not samples and not self._untold and not gone:
            return
        self._number += 1
        batch = Batch(
            f"{self._name}/{self._run}/{self._number:06}", samples,
            [a for a in self._assets.values() if a.id in self._untold],
            [m for m in self._meters.values() if m.id in self._untold],
            gone,
        )  # fmt: skip
        self._untold = set()
        self._held.append(encode(batch))

    async def _thin(self) -> None:
        """Thin what waits in memory, until it has room or there is nothing more to give.

        The oldest batch stays as it is: a disk that did not answer in time may yet have it.
        """
        if not self._given:
            log.error("Neither disk nor memory take more readings: detail is LOST from now on. %s", self._trouble)
        oldest, *rest = self._held
        given = 1
        while given and len(oldest) + sum(map(len, rest)) > HELD_BYTES // 2:
            fewer, given = await asyncio.to_thread(_thinned, rest, self.quantity)
            rest = fewer if given else rest
            self._given += given
        while rest and len(oldest) + sum(map(len, rest)) > HELD_BYTES:
            self._drop(decode(rest.pop()))
        self._held = deque([oldest, *rest])

    def _drop(self, batch: Batch) -> None:
        """Give up a batch of readings that cannot be thinned; what it declared is declared again."""
        self._given += len(batch.samples)
        self._gone += [*batch.lost, *(Loss(s.meter, s.time_ms, s.time_ms, 1) for s in batch.samples)]
        self._untold |= {a.id for a in batch.assets} | {m.id for m in batch.meters}

    def _refused(self, error: Exception) -> None:
        said = str(error) or "The disk does not answer."
        if not self._trouble:
            hint = " Is the server away? The limit is spool_limit_bytes." if isinstance(error, JournalFullError) else ""
            log.error("%s%s New readings wait in memory.", said, hint)
        self._trouble = said

    def _closed(self, found: Discovery) -> Iterable[Asset]:
        """Return the assets with all that they stand in and that meters measure, so that a receiver knows each name.

        What neither the site file nor a device declares is taken for a node, and stands where new nodes stand.
        """
        assets = {a.id: a for a in found.assets}
        wanted = [m.asset for m in found.meters] + [a.parent for a in found.assets if a.parent]
        for name in wanted:
            if name in self._tree.assets:
                for one in (name, *self._tree.ancestors(name)):
                    if self._tree[one].kind != "site":
                        assets.setdefault(one, self._tree[one])
            elif name not in assets and name not in self._assets:
                assets[name] = Asset(name, "node", "")
        return assets.values()


def _thinned(batches: list[bytes], quantity: Quantity) -> tuple[list[bytes], int]:
    """Return batches thinned, and how many readings were given."""
    whole = [decode(data) for data in batches]
    fewer = list(thin(whole, quantity))
    return [encode(b) for b in fewer], sum(len(b.samples) for b in whole) - sum(len(b.samples) for b in fewer)
