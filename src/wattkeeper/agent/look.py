"""Looking at devices once: what is there, what it says, and what is wrong."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from wattkeeper.agent.build import LOCAL, Planned, build, build_one, model_of
from wattkeeper.config import AgentFile
from wattkeeper.core.errors import ConfigError, WattkeeperError
from wattkeeper.core.live import Discovery, Sample

BOOK = "/var/lib/wattkeeper/book"
"""Where a site file keeps readings if nobody says."""


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


def snippet(seen: Sequence[Seen], node: str, *, keep: Mapping[str, str], table: Mapping[str, Any] | None = None) -> str:
    """Return a site file that reads what was found.

    keep: where readings go, `book` or `url`. table: what was asked for; without one, sources of this machine, the node.
    """
    agent = {"name": node, **(keep or {"book": BOOK})}
    lines = [] if keep else [f"# make it: wattkeeper init {BOOK}; or send readings: url and token_file instead of book"]
    lines += [*_toml("[agent]", agent)]
    for kind in dict.fromkeys(s.kind for s in seen if s.found.meters):
        lines += ["", *_toml(f"[[agent.{kind}]]", table or {"asset" if kind == "ipmi" else "node": node})]
    return "\n".join(lines)


def _toml(head: str, table: Mapping[str, Any]) -> list[str]:
    return [head, *(f"{key} = {as_toml(value)}" for key, value in table.items())]


def as_toml(value: Any) -> str:
    """Return a value as TOML on one line; JSON's texts and numbers are TOML's, but for one control character."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{as_toml(str(k))} = {as_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def asked(kind: str, address: str, settings: Sequence[str]) -> tuple[list[Planned], dict[str, Any]]:
    """Return the devices of one integration at an address, and the table that makes them.

    settings: further keys, `key=value`, the value as in a site file; a text needs no quotes. The asset is named after
    the host where that is left out. Raises ConfigError where the table cannot be.
    """
    model, table = model_of(kind, kind), dict[str, Any]()
    if address:
        key = next((name for name in ("url", "host") if name in model.model_fields), "")
        if not key:
            raise ConfigError(f"{kind} has no address of its own. Give its table with --set, as on its page.")
        table[key] = address
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write key=value, such as --set port=1161.")
        try:
            table[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            table[key] = value
    if address and "asset" in model.model_fields and not {"asset", "assets", "nodes"} & table.keys():
        host = urlsplit(address if "//" in address else f"//{address}").hostname or address
        table["asset"] = host if host.replace(".", "").isdigit() else host.partition(".")[0]
    if lacking := [name for name, one in model.model_fields.items() if one.is_required() and name not in table]:
        about = model.model_fields[lacking[0]].description or lacking[0]
        raise ConfigError(
            f"{kind} also needs {' and '.join(lacking)}: {about.rstrip('.')}. Say it with --set {lacking[0]}=…"
        )
    return build_one(kind, table, f"[[agent.{kind}]]"), table
