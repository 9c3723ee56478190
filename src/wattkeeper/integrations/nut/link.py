"""The way to upsd: its table in the site file, and the variables of one UPS."""

from __future__ import annotations

import asyncio
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wattkeeper.core.errors import MissingExtraError, SourceError

try:
    import aionut
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.nut", error.name or "aionut", "nut") from error

CURES = {
    "UNKNOWN-UPS": "It has no UPS of this name: `upsc -l HOST` lists those it has.",
    "DATA-STALE": "Its driver gets no answer from the device: check cable, address and the driver's log.",
    "DRIVER-NOT-CONNECTED": "Its driver does not run: check ups.conf and `upsdrvctl start`.",
    "ACCESS-DENIED": "It does not let this machine in: check its allowed hosts.",
}
"""upsd's error codes (RFC 9271, 4.1.2) and what to do about them."""


class UpsConfig(BaseModel):
    """One UPS, PDU or transfer switch that upsd serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Its name in upsd, as `upsc -l` shows it.")
    asset: str = Field("", description="The asset it feeds: what its output power is booked for.")
    input_asset: str = Field(
        "", description="The asset its input is measured for: the UPS with all that it feeds. `asset` stands in it."
    )
    kind: Literal["node", "rack", "hall", "cooling", "distribution", "facility", "device"] = Field(
        "rack", description="Kind of `asset`."
    )
    parent: str = Field(
        "", description="What it stands in, if the site file does not say. Default: its default_parent."
    )
    outlets: dict[str, str] = Field(
        default_factory=dict, description='Outlet → the asset it feeds: "1" or "group.1". Others are not read.'
    )
    estimate: bool = Field(
        False, description="Where no real power is told, estimate it: VA × power factor, or load × nominal watts."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if not (self.asset or self.input_asset or self.outlets):
            raise ValueError("give asset, input_asset or outlets: what does this UPS feed")
        if self.estimate and not self.asset:
            raise ValueError("estimate is about asset, which is missing")
        return self


class Config(BaseModel):
    """A host on which upsd runs: `[[agent.nut]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Where upsd runs.")
    port: int = Field(3493, ge=1, le=65_535, description="Its TCP port.")
    timeout_s: float = Field(5.0, gt=0, description="Longest time one sample may take [s].")
    ups: list[UpsConfig] = Field(min_length=1, description="What to read there.")


class Link:
    """One UPS of one upsd. Reading needs no account."""

    def __init__(self, config: Config, ups: str) -> None:
        self._config, self._ups = config, ups
        self.name = f"nut {ups}@{config.host}:{config.port}"
        self._client: aionut.AIONUTClient | None = None
        self._turn = asyncio.Lock()

    async def variables(self) -> dict[str, str]:
        """Return all variables by name. Raises SourceError where upsd or its driver does not answer."""
        limit_s = self._config.timeout_s
        async with self._turn:
            client = self._client = self._client or aionut.AIONUTClient(
                self._config.host, self._config.port, timeout=limit_s
            )
            try:
                async with asyncio.timeout(limit_s):
                    variables: dict[str, str] = await client.list_vars(self._ups)
            except (TimeoutError, aionut.NUTTimeoutError) as error:
                raise SourceError(
                    f"{self.name} did not answer within {limit_s:g} s. Check host and network, or raise timeout_s."
                ) from error
            except aionut.NUTCommandError as error:
                code = next((code for code in CURES if code in str(error)), "")
                raise SourceError(
                    f"{self.name} is not read: {code or error}. {CURES.get(code, 'See its log.')}"
                ) from error
            except aionut.NUTError as error:
                raise SourceError(
                    f"{self.name} cannot be reached: {error}. Check host, port, LISTEN in upsd.conf, and that upsd runs."
                ) from error
            except BaseException:
                await self.close()
                raise
        if variables.get("ups.status") == "WAIT":
            raise SourceError(f"{self.name} is not read: its driver is still starting. Try again in a minute.")
        return variables

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.shutdown()
