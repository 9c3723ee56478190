"""The link to BACnet devices: its table in the site file, and one UDP port of ours that they all share."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wattkeeper.core.errors import ConfigError, MissingExtraError, SourceError
from wattkeeper.core.units import ENERGY_UNITS_MJ, POWER_UNITS_MW

try:
    from bacpypes3.apdu import AbortPDU, AbortReason, ErrorPDU, ErrorRejectAbortNack, RejectPDU, RejectReason
    from bacpypes3.basetypes import ErrorType
    from bacpypes3.ipv4.app import NormalApplication
    from bacpypes3.local.device import DeviceObject
    from bacpypes3.pdu import Address, IPv4Address
    from bacpypes3.primitivedata import ObjectIdentifier
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.bacnet", error.name or "bacpypes3", "bacnet") from error

logging.getLogger("bacpypes3").addHandler(logging.NullHandler())  # what it has to say, our errors say

RETRIES = 2
"""UDP loses datagrams: each request is sent up to three times within the time-out."""

TOGETHER = 20
"""Objects in one ReadPropertyMultiple; an answer of a device that does not split answers is 480 bytes or more."""

TOO_LONG = (AbortReason.bufferOverflow, AbortReason.segmentationNotSupported, AbortReason.apduTooLong)

UNITS = {**POWER_UNITS_MW, **ENERGY_UNITS_MJ}

Wanted = tuple[str, tuple[str, ...]]
"""An object, and the properties to read of it."""

Values = dict[tuple[str, str], Any]
"""(object, property) → value; what the device does not have is not in it."""


class ObjectConfig(BaseModel):
    """One object to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    object: str = Field(
        pattern=r"^(analog-(input|value|output)|large-analog-value|integer-value|positive-integer-value|accumulator),\d+$",
        description="Type and number, such as analog-input,1 or accumulator,3.",
    )
    asset: str = Field(description="The asset it measures.")
    unit: str = Field(
        "", description="Its unit, where the object tells none or a wrong one: W, kW, J, Wh, kWh and so on."
    )
    kind: Literal["node", "rack", "hall", "cooling", "distribution", "facility", "device"] = Field(
        "rack", description="Kind of that asset."
    )
    parent: str = Field(
        "", description="What it stands in, if the site file does not say. Default: its default_parent."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.unit and self.unit not in UNITS:
            raise ValueError(f"unit '{self.unit}' is neither power nor energy; choose one of {', '.join(UNITS)}")
        return self


class DeviceConfig(BaseModel):
    """One BACnet device."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field(
        "", description='"10.0.4.30", "10.0.4.30:47809", or "2001:5" for station 5 of network 2001 behind a router.'
    )
    instance: int | None = Field(
        None, ge=0, le=4_194_302, description="Its device number: asked for with Who-Is, at address or by broadcast."
    )
    object: list[ObjectConfig] = Field(
        default_factory=list, description="What to read. Left out: discovery lists what tells power or energy."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if not self.address and self.instance is None:
            raise ValueError("give address or instance")
        return self


class Config(BaseModel):
    """BACnet/IP devices that are reached through one port of ours: `[[agent.bacnet]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    local: str = Field(
        "",
        description='Our address with mask and port, "10.0.4.5/24:47808", as Who-Is by broadcast needs it. Default: any.',
    )
    timeout_s: float = Field(6.0, gt=0, description="Longest time one sample of a device may take [s].")
    discover_timeout_s: float = Field(60.0, gt=0, description="Longest time discovery of a device may take [s].")
    device: list[DeviceConfig] = Field(min_length=1, description="The devices to read.")


class Net:
    """Our port on the network; who is last to leave it closes it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._app: NormalApplication | None = None
        self._users: set[str] = set()

    def app(self, name: str) -> NormalApplication:
        """Return the application, with a port of its own. Raises ConfigError or SourceError where `local` is none."""
        self._users.add(name)
        if self._app is None:
            ours = DeviceObject(
                objectIdentifier=("device", 4_194_302),
                objectName="wattkeeper",
                vendorIdentifier=0,
                apduTimeout=round(self._config.timeout_s * 1000 / (RETRIES + 1.5)),
                numberOfApduRetries=RETRIES,
            )
            local = self._config.local or "0.0.0.0:0"
            try:
                address = IPv4Address(local)
            except (ValueError, RuntimeError) as error:
                raise ConfigError(
                    f'local = "{local}" is no address of ours: {error}. Write "10.0.4.5/24:47808".'
                ) from error
            try:  # the library would try for ever
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(address.addrTuple)
            except OSError as error:
                raise SourceError(
                    f"{name} cannot be asked: our port {local} is not to be had: {error.strerror}. "
                    "Give an address of this machine, and a port that no other BACnet program has."
                ) from error
            self._app = NormalApplication(ours, address)
        return self._app

    def leave(self, name: str) -> None:
        """Close the port, unless others use it."""
        self._users.discard(name)
        if not self._users and self._app is not None:
            self._app.close()
            self._app = None


class Link:
    """One device: properties of its objects, as few requests as will do."""

    def __init__(self, net: Net, config: Config, device: DeviceConfig) -> None:
        self._net, self._config, self._device = net, config, device
        self.key = device.address or str(device.instance)
        self.name = f"bacnet {self.key}"
        self._address: Any = None
        self._single = False

    async def read(self, wanted: Iterable[Wanted], *, discover: bool = False) -> Values:
        """Return what there is of these properties. Raises SourceError where the device does not answer in time."""
        option = "discover_timeout_s" if discover else "timeout_s"
        limit_s = getattr(self._config, option)
        try:
            async with asyncio.timeout(limit_s):
                return await self._read(list(wanted))
        except TimeoutError as error:
            raise self._silent(f"within {limit_s:g} s", option) from error

    async def objects(self) -> list[str]:
        """Return the names of all its objects, such as analog-input,1. Raises SourceError."""
        device = f"device,{4_194_303 if self._device.instance is None else self._device.instance}"
        values = await self.read([(device, ("object-list",))], discover=True)
        return [str(one) for told in values.values() for one in told]

    def forget(self) -> None:
        """Ask anew where it is, and whether it takes several properties at once."""
        self._address, self._single = None, False

    def close(self) -> None:
        """Leave the port."""
        self._address = None
        self._net.leave(self.name)

    async def _read(self, wanted: list[Wanted]) -> Values:
        values: Values = {}
        address = self._address = self._address or await self._find()
        for at in range(0, len(wanted), TOGETHER):
            values |= await self._several(address, wanted[at : at + TOGETHER])
        return values

    async def _several(self, address: Any, wanted: list[Wanted]) -> Values:
        """Read some objects by ReadPropertyMultiple, in halves where the answer is too long, or one by one."""
        if self._single:
            return await self._one_by_one(address, wanted)
        parameters = [part for name, properties in wanted for part in (ObjectIdentifier(name), list(properties))]
        try:
            told = await self._net.app(self.name).read_property_multiple(address, parameters)
        except ErrorRejectAbortNack as error:
            if isinstance(error, RejectPDU) and error.reason == RejectReason.unrecognizedService:
                self._single = True
                return await self._one_by_one(address, wanted)
            if isinstance(error, AbortPDU) and error.reason in TOO_LONG:
                half = len(wanted) // 2
                if not half:
                    return await self._one_by_one(address, wanted)
                return await self._several(address, wanted[:half]) | await self._several(address, wanted[half:])
            if isinstance(error, ErrorPDU):  # none of them is there
                return {}
            raise self._refused(error) from None
        return {
            (str(name), str(what)): value
            for name, what, _index, value in told or []
            if not isinstance(value, ErrorType)
        }

    async def _one_by_one(self, address: Any, wanted: list[Wanted]) -> Values:
        values: Values = {}
        for name, properties in wanted:
            for what in properties:
                try:
                    value = await self._net.app(self.name).read_property(address, ObjectIdentifier(name), what)
                except ErrorRejectAbortNack as error:
                    if isinstance(error, ErrorPDU):
                        continue
                    raise self._refused(error) from None
                values[name, what] = value
        return values

    async def _find(self) -> Any:
        """Return the address, asked for by the device's number where there is one."""
        try:
            address = Address(self._device.address) if self._device.address else None
        except (ValueError, RuntimeError) as error:
            raise SourceError(f"{self.name} is no BACnet address: {error}. Write 10.0.4.30 or 2001:5.") from error
        instance = self._device.instance
        if instance is None:
            return address
        if address is None and not self._config.local:
            raise SourceError(
                f'{self.name} is asked for by broadcast, which needs local = "ADDRESS/MASK:47808". Or give its address.'
            )
        timeout_s = self._config.timeout_s / 2
        found = await self._net.app(self.name).who_is(instance, instance, address, timeout=timeout_s)
        if not found:
            raise SourceError(
                f"{self.name}: nobody says it is device {instance}. Check the number, the address, "
                "and that broadcasts reach it (BBMD)."
            )
        return found[0].pduSource

    def _refused(self, error: ErrorRejectAbortNack) -> SourceError:
        if isinstance(error, AbortPDU) and error.reason in (AbortReason.noResponse, AbortReason.tsmTimeout):
            return self._silent(f"within {self._config.timeout_s:g} s", "timeout_s")
        return SourceError(f"{self.name} refuses to be read: {error.reason}. Does it let this machine in?")

    def _silent(self, how_long: str, option: str) -> SourceError:
        ours = f", that {self._config.local} is ours and free" if self._config.local else ""
        return SourceError(
            f"{self.name} did not answer {how_long}. Check address and network{ours}, or raise {option}."
        )
