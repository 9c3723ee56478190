"""Looking at devices once: what is there, what it says, and what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from wattkeeper.agent.build import LOCAL, Planned, build, build_one
from wattkeeper.config import AgentFile
from wattkeeper.core.errors import WattkeeperError
from wattkeeper.core.live import Discovery, Sample


@dataclass(slots=True)
class Seen:
    """A device as it was found. fault: why nothing could be had, "" where something was; rounds: what it said, each time."""

    kind: str
    name: str
    found: Discovery = field(default_factory=Discovery)
    rounds: list[list[Sample]] = field(default_factory=list)
    fault: str = ""

    def values(self, at: int = -1) -> dict[str, Sample]:
        """Return the samples of one round by meter."""
        return {s.meter: s for s in self.rounds[at]} if self.rounds else {}


def planned(file: AgentFile | None) -> tuple[list[Planned], list[Seen]]:
    """Return the devices of a site file, or without one what this machine may have, and what is not even installed."""
    if file is not None:
        return build(file.agent), []
    devices, missing = [], []
    for kind in LOCAL:
        try:
            devices += build_one(kind, {}, kind)
        except WattkeeperError as error:
            missing.append(Seen(kind, kind, fault=str(error)))
    return devices, missing


async def look(devices: Sequence[Planned], *, rounds: int = 1, pause_s: float = 0.0) -> list[Seen]:
    """Discover each device and read it so many times; none waits for another. Closes them."""
    return list(await asyncio.gather(*(_look(one, rounds, pause_s) for one in devices)))


async def _look(one: Planned, rounds: int, pause_s: float) -> Seen:
    seen = Seen(one.kind, one.device.name)
    try:
        async with asyncio.timeout(one.give_up_s):
            seen.found = await one.device.discover()
            for i in range(rounds):
                if i:
                    await asyncio.sleep(pause_s)
                seen.rounds.append(await one.device.sample())
    except WattkeeperError as error:
        seen.fault = str(error)
    except TimeoutError:
        seen.fault = f"{seen.name} did not come back within {one.give_up_s:g} s."
    except Exception as error:
        seen.fault = (
            f"{seen.name}: {type(error).__name__}: {error}. This is a fault in its integration; please report it."
        )
    finally:
        await one.device.close()
    return seen


def snippet(seen: Sequence[Seen], node: str) -> str:
    """Return the tables of a site file that read what was found here."""
    lines = [
        "[agent]", f'name = "{node}"', '# book = "/var/lib/wattkeeper/book"        # keep readings here, or',
        '# url = "https://watts.example:8443"       # send them there, with token_file', "",
    ]  # fmt: skip
    for kind in dict.fromkeys(s.kind for s in seen if s.found.meters):
        key = "asset" if kind == "ipmi" else "node"
        lines += [f"[[agent.{kind}]]", f'{key} = "{node}"', ""]
    return "\n".join(lines)
