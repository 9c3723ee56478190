"""A device that is looked at again and again; a slow one is looked at when it is done."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from wattkeeper.agent.build import Planned
from wattkeeper.agent.watts import Now
from wattkeeper.core.errors import WattkeeperError


class Watched:
    """One device. fault: why it tells nothing, "" where it does."""

    def __init__(self, planned: Planned, now: Now) -> None:
        self._device, self._give_up_s, self._now = planned.device, planned.give_up_s, now
        self._known = False
        self._task: asyncio.Task[None] | None = None
        self.fault = ""

    async def look(self, patience_s: float) -> None:
        """Read it, unless it is still busy with the last time; what it says after this long is shown later."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._read())
        await asyncio.wait([self._task], timeout=patience_s)

    async def close(self) -> None:
        """Let go of it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._device.close()

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._give_up_s):
                if not self._known:
                    found = await self._device.discover()
                    self._now.know(found.assets, found.meters)
                    self._known = True
                self._now.take(await self._device.sample())
            self.fault = ""
        except (WattkeeperError, TimeoutError) as error:
            self.fault, self._known = str(error) or f"{self._device.name} does not come back.", False
