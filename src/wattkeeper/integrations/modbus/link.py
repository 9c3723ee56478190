"""The line to Modbus units: its table in the site file, and one connection that many units behind a gateway share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from wattkeeper.core.errors import MissingExtraError, SourceError

try:
    from pymodbus import FramerType, ModbusException
    from pymodbus.client import AsyncModbusTcpClient
    from pymodbus.pdu import ModbusPDU
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.modbus", error.name or "pymodbus", "modbus") from error

logging.getLogger("pymodbus.logging").addHandler(logging.NullHandler())  # what it has to say, our errors say

FRAMERS = {"tcp": FramerType.SOCKET, "rtu": FramerType.RTU}

ABSENT_REGISTERS = (1, 2, 3)
"""Exception codes of a unit that does not have these registers: function, address or count."""

SILENT_UNIT = (10, 11)
"""Exception codes of a gateway whose unit does not answer."""

Table = Literal["holding", "input"]


class MeterConfig(BaseModel):
    """One unit on the line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: int = Field(1, ge=0, le=255, description="Unit id: 1 to 247 behind a gateway, else often 1 or 255.")
    profile: str = Field(description='Its register map: one of those that come along, one of `profiles`, or "sunspec".')
    asset: str = Field(description="The asset it measures.")
    kind: Literal["node", "rack", "hall", "cooling", "distribution", "facility", "device"] = Field(
        "rack", description="Kind of that asset."
    )
    parent: str = Field(
        "", description="What it stands in, if the site file does not say. Default: its default_parent."
    )
    factor: float = Field(
        1.0,
        gt=0,
        description="Multiplies power and energy, where the meter does not apply its CT and PT ratios itself.",
    )


class Config(BaseModel):
    """A meter, or a gateway with many: `[[agent.modbus]]`. One table for each gateway, as it takes one connection."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(description="Address of the meter or the gateway.")
    port: int = Field(502, ge=1, le=65_535, description="Its TCP port.")
    framing: Literal["tcp", "rtu"] = Field(
        "tcp", description="Modbus TCP, or RTU frames in TCP as a plain serial server carries them."
    )
    timeout_s: float = Field(5.0, gt=0, description="Longest time one unit may hold the line for a sample [s].")
    discover_timeout_s: float = Field(30.0, gt=0, description="Longest time discovery of one unit may take [s].")
    profiles: Path | None = Field(None, description="Folder with profiles of your own, *.toml.")
    meter: list[MeterConfig] = Field(min_length=1, description="The units to read.")


class AnsweredError(SourceError):
    """What was asked for is not told, but the line is well: there was an answer."""


class RefusedError(AnsweredError):
    """A unit answers that it does not have these registers; it is well otherwise."""


class Line:
    """One connection; units take turns on it, and who is last to close it hangs up.

    A request that is late or cut off ends the connection, so that no answer of it is taken for one of the next. A
    connection that the other side has ended (many do when it is idle) is made again, once for each request.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client: AsyncModbusTcpClient | None = None
        self._lost = asyncio.Event()
        self._turn = asyncio.Lock()
        self._users: set[str] = set()

    @asynccontextmanager
    async def turn(self, name: str, limit_s: float, option: str) -> AsyncIterator[None]:
        """Hold the line for at most limit_s. Raises SourceError where that is too short."""
        async with self._turn:
            self._users.add(name)
            try:
                async with asyncio.timeout(limit_s):
                    yield
            except TimeoutError as error:
                self._hang_up()
                raise SourceError(
                    f"{name} did not answer within {limit_s:g} s. Check address, unit id and wiring, or raise {option}."
                ) from error
            except AnsweredError:
                raise
            except BaseException:
                self._hang_up()
                raise

    async def ask(self, name: str, unit: int, table: Table, address: int, count: int) -> ModbusPDU:
        """Return the answer to one request, within a turn. Raises SourceError where the connection breaks twice."""
        for _attempt in range(2):
            client = await self._connected(name)
            read = client.read_holding_registers if table == "holding" else client.read_input_registers
            answer = asyncio.ensure_future(read(address, count=count, device_id=unit))
            lost = asyncio.ensure_future(self._lost.wait())
            try:
                await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    return answer.result()
            except (ModbusException, OSError):
                pass
            finally:
                answer.cancel()
                lost.cancel()
            self._hang_up()
        raise SourceError(f"{name} breaks the connection off. Check the network; some gateways take only one client.")

    def leave(self, name: str) -> None:
        """Hang up, unless others use the line."""
        self._users.discard(name)
        if not self._users:
            self._hang_up()

    async def _connected(self, name: str) -> AsyncModbusTcpClient:
        if self._client is None or not self._client.connected:
            self._hang_up()
            config = self._config
            limit_s = max(config.timeout_s, config.discover_timeout_s)  # ours is shorter and says what to do
            self._lost.clear()
            client = AsyncModbusTcpClient(
                config.host,
                port=config.port,
                framer=FRAMERS[config.framing],
                timeout=limit_s,
                retries=0,
                reconnect_delay=0,
                trace_connect=lambda connected: None if connected else self._lost.set(),
            )
            if not await client.connect():
                raise SourceError(
                    f"{name} cannot be reached. Check host, port, network, and that Modbus is switched on."
                )
            self._client = client
        return self._client

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


class Link:
    """One unit on a line."""

    def __init__(self, line: Line, config: Config, unit: int) -> None:
        self._line, self._config, self._unit = line, config, unit
        self.name = f"modbus {config.host}:{config.port} unit {unit}"

    def turn(self, *, discover: bool = False) -> AbstractAsyncContextManager[None]:
        """Hold the line for what is read inside, so that it belongs together."""
        option = "discover_timeout_s" if discover else "timeout_s"
        return self._line.turn(self.name, getattr(self._config, option), option)

    async def read(self, table: Table, address: int, count: int) -> list[int]:
        """Return registers, within a turn. Raises RefusedError where the unit has none there, else SourceError."""
        answer = await self._line.ask(self.name, self._unit, table, address, count)
        where = f"{count} {table} register{'s' * (count != 1)} at {address}"
        if answer.isError():
            code = answer.exception_code
            if code in ABSENT_REGISTERS:
                raise RefusedError(f"{self.name} has no {where} (exception {code}). Is its profile the right one?")
            if code in SILENT_UNIT:
                raise AnsweredError(
                    f"{self.name} does not answer its gateway (exception {code}). Check unit id and wiring."
                )
            raise AnsweredError(f"{self.name} cannot tell {where} now (exception {code}). Is it starting or faulty?")
        if len(answer.registers) != count:
            raise SourceError(f"{self.name} told {len(answer.registers)} of {where}. Is it faulty?")
        return list(answer.registers)

    def close(self) -> None:
        """Leave the line."""
        self._line.leave(self.name)
