"""The link to a device that speaks SNMP: its table in the site file, and requests that end by themselves.

A socket lives for one call only, so that thousands of devices need no more of them than are asked at the same moment.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from wattkeeper.core.errors import ConfigError, MissingExtraError, SourceError
from wattkeeper.integrations.snmp.readings import Raw

try:
    from gufo.snmp import (
        Aes128Key,
        Aes192Key,
        Aes256Key,
        BaseAuthKey,
        BasePrivKey,
        DesKey,
        KeyExpansion,
        Md5Key,
        Sha1Key,
        Sha224Key,
        Sha256Key,
        Sha384Key,
        Sha512Key,
        SnmpAuthError,
        SnmpError,
        SnmpVersion,
        User,
    )
    from gufo.snmp.aio import SnmpSession
    from gufo.snmp.user import KeyType
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.snmp", error.name or "gufo-snmp", "snmp") from error

AUTH: dict[str, type[BaseAuthKey]] = {
    "MD5": Md5Key, "SHA": Sha1Key, "SHA-224": Sha224Key, "SHA-256": Sha256Key, "SHA-384": Sha384Key,
    "SHA-512": Sha512Key,
}  # fmt: skip
PRIV: dict[str, type[BasePrivKey]] = {
    "DES": DesKey, "AES": Aes128Key, "AES-192": Aes192Key, "AES-256": Aes256Key, "AES-192-C": Aes192Key,
    "AES-256-C": Aes256Key,
}  # fmt: skip

AT_ONCE = 512
"""Devices asked at the same moment by one event loop: bounds sockets, whatever number of devices there is."""

MOST_ROWS = 20_000
"""A subtree with more is a device that counts in circles."""

_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

T = TypeVar("T")


class Config(BaseModel):
    """A PDU, UPS or meter that speaks SNMP, or one for each of many racks: `[[agent.snmp]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1, description="Address; {asset} stands for each of `assets`.")
    port: int = Field(161, ge=1, le=65_535, description="UDP port.")
    asset: str = Field("", description="What the device feeds as a whole: a rack, a hall, a node.")
    assets: str = Field("", description="Instead of asset: list such as rack-[01-40], with {asset} in the host.")
    kind: Literal["node", "rack", "hall", "cooling", "device", "distribution", "facility"] = Field(
        "rack", description="Kind of that asset."
    )
    parent: str = Field(
        "", description="What it stands in, if the site file does not say. Default: its default_parent."
    )
    version: Literal["1", "2c", "3"] = Field("2c", description="Version of SNMP.")
    community: SecretStr = Field(SecretStr("public"), description="Community to read with, versions 1 and 2c.")
    community_file: Path | None = Field(None, description="File that holds the community, instead of community.")
    user: str = Field("", description="User, version 3.")
    auth: Literal["none", "MD5", "SHA", "SHA-224", "SHA-256", "SHA-384", "SHA-512"] = Field(
        "none", description="How the user proves who it is, version 3."
    )
    auth_password: SecretStr = Field(SecretStr(""), description="Password for that, at least 8 characters.")
    auth_password_file: Path | None = Field(None, description="File that holds it, instead of auth_password.")
    priv: Literal["none", "DES", "AES", "AES-192", "AES-256", "AES-192-C", "AES-256-C"] = Field(
        "none", description="How messages are encrypted, version 3. -C: keys made Cisco's way."
    )
    priv_password: SecretStr = Field(SecretStr(""), description="Password for that. Default: the same as for auth.")
    priv_password_file: Path | None = Field(None, description="File that holds it, instead of priv_password.")
    profile: str = Field("", description="Name of the profile to use. Default: the one that fits its sysObjectID.")
    profiles: Path | None = Field(None, description="Folder with profiles of your own; they go before ours.")
    inlets: dict[str, str] = Field(
        default_factory=dict, description="Where inlets feed different things: inlet → asset. Others are not read."
    )
    outlets: dict[str, str] = Field(
        default_factory=dict, description="Outlet → the asset it feeds; {asset} may be part of it. Others are not read."
    )
    timeout_s: float = Field(6.0, gt=0, description="Longest time one sample may take [s].")
    discover_timeout_s: float = Field(60.0, gt=0, description="Longest time discovery may take [s].")
    tries: int = Field(3, ge=1, le=10, description="How often a request is sent; they share timeout_s.")
    oids_per_request: int = Field(24, ge=1, le=100, description="Values asked at once; halved where that is too many.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if bool(self.asset) == bool(self.assets):
            raise ValueError("give either asset, or assets with {asset} in the host")
        if self.assets and "{asset}" not in self.host:
            raise ValueError("host has no {asset}, so all assets would have one device")
        if self.assets and any("{asset}" not in fed for fed in (*self.inlets.values(), *self.outlets.values())):
            raise ValueError("assets names several devices, so what inlets and outlets feed needs {asset} in its name")
        if self.version == "3" and not self.user:
            raise ValueError('user is missing: version = "3" needs one')
        if self.version != "3" and self.user:
            raise ValueError('user is for version 3: set version = "3", or leave user out')
        if self.priv != "none" and self.auth == "none":
            raise ValueError("priv needs auth")
        for one in ("community", "auth_password", "priv_password"):
            given = one in self.model_fields_set and getattr(self, one).get_secret_value()
            if given and getattr(self, f"{one}_file"):
                raise ValueError(f"give {one} or {one}_file, not both")
        if self.auth != "none" and not (self.auth_password.get_secret_value() or self.auth_password_file):
            raise ValueError("auth_password or auth_password_file is missing")
        return self

    def secret(self, name: str) -> str:
        """Return a secret by its key. Raises ConfigError where its file cannot be read."""
        file: Path | None = getattr(self, f"{name}_file")
        if file is None:
            return str(getattr(self, name).get_secret_value())
        try:
            return file.read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"Cannot read {name}_file {file}: {error.strerror}.") from error


class Link:
    """One device: values by OID, and subtrees. Raises SourceError where it does not answer.

    chunk: values asked at once; it shrinks where the device says that it is too much.
    """

    def __init__(self, host: str, config: Config) -> None:
        self.place = host if config.port == 161 else f"{host}:{config.port}"
        self.name = f"snmp {self.place}"
        self.chunk = config.oids_per_request
        self._host, self._config = host, config
        self._addresses: list[str] = []
        self._engine = b""
        self._silent = False

    async def get(self, oids: Iterable[str]) -> dict[str, Raw]:
        """Return the values of those that are there."""
        got: dict[str, Raw] = {}
        async for part in self.parts(oids):
            got |= part
        return got

    async def parts(self, oids: Iterable[str]) -> AsyncIterator[dict[str, Raw]]:
        """Yield the values of those that are there, as they come, some at a time."""
        wanted = list(dict.fromkeys(oids))
        while wanted:
            part, wanted = wanted[: self.chunk], wanted[self.chunk :]
            yield await self._get(part)

    async def walk(self, root: str) -> dict[str, Raw]:
        """Return all values below an OID, but not its own."""

        async def rows(session: SnmpSession, bulk: bool) -> dict[str, Raw]:
            found: dict[str, Raw] = {}
            async for oid, raw in session.getbulk(root) if bulk else session.getnext(root):
                if oid in found or len(found) >= MOST_ROWS:
                    break  # it counts in circles
                found[oid] = raw
            return found

        if self._config.version != "1" and (found := await self._ask(lambda session: rows(session, True))):
            return found
        return await self._ask(lambda session: rows(session, False))  # bulk is too big for some, and then says nothing

    async def has(self, root: str) -> bool:
        """Return whether anything stands below an OID."""

        async def first(session: SnmpSession) -> bool:
            async for _row in session.getnext(root):
                return True
            return False

        return await self._ask(first)

    async def _get(self, oids: list[str]) -> dict[str, Raw]:
        """Ask for some values. An answer without any is an error (too big, or in version 1 one that is not there)."""
        got = await self._ask(lambda session: session.get_many(oids))
        if got or len(oids) == 1:
            return {oid: got[oid] for oid in oids if oid in got}
        half = len(oids) // 2
        first, second = await self._get(oids[:half]), await self._get(oids[half:])
        if len(first) == half and len(second) == len(oids) - half:
            self.chunk = min(self.chunk, max(half, 1))  # all are there: it was too big
        return first | second

    async def _ask(self, call: Callable[[SnmpSession], Coroutine[Any, Any, T]]) -> T:
        """Make a request, again where nothing comes back; each time from a new socket, so that no late answer mixes in."""
        async with _gate():
            for _try in range(1 if self._silent else self._config.tries):
                try:
                    found = await call(await self._session())
                except TimeoutError:
                    self._addresses, self._engine = self._addresses[1:], b""  # it may have moved, or be another one now
                except SnmpAuthError as error:
                    raise SourceError(
                        f"{self.name} refuses user '{self._config.user}'. "
                        "Check user, auth, auth_password, and that the user may read with this auth and priv."
                    ) from error
                except (SnmpError, OSError, ValueError) as error:
                    raise SourceError(f"{self.name} cannot be read: {error}. Check address and network.") from error
                else:
                    self._silent = False
                    return found
        self._silent = True  # until it answers again, one try is enough
        raise SourceError(f"{self.name} does not answer. Check address, network and {self._credentials()}.")

    def _credentials(self) -> str:
        """Name what else makes an agent keep silent."""
        if self._config.version != "3":
            return "community; agents do not answer a wrong one"
        return "priv and priv_password; agents do not answer what they cannot decrypt"

    async def _session(self) -> SnmpSession:
        """Open a socket. Version 3 asks the device for its clock each time, so that none can run away."""
        config, address = self._config, (self._addresses or await self._resolve())[0]
        wait_s = 0.9 * config.timeout_s / config.tries  # so that a request that got lost is said before time is up
        if config.version != "3":
            version = SnmpVersion.v1 if config.version == "1" else SnmpVersion.v2c
            return SnmpSession(
                address, config.port, community=config.secret("community"), version=version, timeout=wait_s
            )
        session = SnmpSession(
            address, config.port, user=self._user(), engine_id=self._engine or None, version=SnmpVersion.v3,
            timeout=wait_s,
        )  # fmt: skip
        await session.refresh()
        self._engine = session.get_engine_id()
        return session

    async def _resolve(self) -> list[str]:
        """Return the device's IP addresses; one that stays silent is left for the next. Raises SourceError for none."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host.strip("[]"), self._config.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise SourceError(f"{self.name}: no such host. Correct host in [[agent.snmp]].") from error
        self._addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        return self._addresses

    def _user(self) -> User:
        config = self._config
        auth = priv = None
        if config.auth != "none":
            password = config.secret("auth_password")
            auth = AUTH[config.auth](_master(config.auth, password), KeyType.Master)
            if config.priv != "none":
                priv = PRIV[config.priv](
                    _master(config.auth, config.secret("priv_password") or password), KeyType.Master
                )
        expansion = KeyExpansion.Cisco if config.priv.endswith("-C") else KeyExpansion.Blumenthal
        return User(config.user, auth_key=auth, priv_key=priv, key_expansion=expansion)


@lru_cache(maxsize=1024)
def _master(auth: str, password: str) -> bytes:
    """Return a password's key (RFC 3414 2.6): a million bytes are hashed, so once for all devices that share it."""
    return AUTH[auth].get_master_key(password.encode())


def _gate() -> asyncio.Semaphore:
    return _gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
