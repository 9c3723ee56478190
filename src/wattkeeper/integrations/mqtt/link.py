"""The link to a broker: its table in the site file, and one client that listens as long as the device is used."""

from __future__ import annotations

import asyncio
import logging
import ssl
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from wattkeeper.core.errors import ConfigError, MissingExtraError, SourceError
from wattkeeper.core.units import UNITS_OF_QUANTITY

try:
    import aiomqtt
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.mqtt", error.name or "aiomqtt", "mqtt") from error

PRESETS = Path(__file__).parent / "presets"

REFUSED_FROM = 128
"""A broker's answer to a subscription, from which on it is a refusal (MQTT 3.1.1, 3.9.3)."""

NOBODYS = "wattkeeper/nobody"
"""A topic that is not subscribed; a broker that is asked to leave it out answers, so it lives."""

LOGGER = logging.getLogger("wattkeeper.mqtt")
LOGGER.addHandler(logging.NullHandler())  # what the library has to say, our errors say

Take = Callable[[str, bytes, bool], None]
"""Takes a message: topic, payload, and whether the broker had kept it from before."""


class ReadingConfig(BaseModel):
    """One value in a message."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str = Field(
        "{topic}", description="Where it is published; {topic} and {channel} are those of the table above."
    )
    value: str = Field(
        "", pattern=r"^(/.*)?$", description="JSON pointer to the value, such as /ENERGY/Power. Default: all of it."
    )
    time: str = Field(
        "", pattern=r"^(/.*)?$", description="JSON pointer to the time at which it was true. Default: none."
    )
    quantity: Literal["energy_counter", "power"] = Field("power", description="What it is.")
    unit: str = Field("W", description="Its unit: W, kW, mW, J, kJ, Wh, kWh and so on.")
    step: float = Field(0.0, ge=0, description="Smallest step of a counter, in its unit: 0.001 for three decimals.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.unit not in (units := UNITS_OF_QUANTITY[self.quantity]):
            raise ValueError(f"unit '{self.unit}' is none of {self.quantity}; choose one of {', '.join(units)}")
        if self.step and self.quantity == "power":
            raise ValueError("step is that of a counter; power has none")
        return self


class TopicConfig(BaseModel):
    """One publisher, or many alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str = Field(
        description="Its topic, or what a preset builds topics from; {asset} stands for many publishers."
    )
    preset: str = Field("", description="What publishes: tasmota, shelly-switch, shelly-em, zigbee2mqtt and so on.")
    channel: int = Field(0, ge=0, description="Its channel, where the preset has several.")
    reading: list[ReadingConfig] = Field(default_factory=list, description="Instead of preset: the values to read.")
    asset: str = Field("", description="The asset it measures, where there is no {asset} in the topic.")
    nodes: str = Field("", description="Host list such as n[01-16] for {asset}. Default: whoever publishes.")
    assets: dict[str, str] = Field(
        default_factory=dict, description="Name in the place of {asset} → the asset. Others are not read."
    )
    kind: Literal["node", "rack", "hall", "cooling", "distribution", "facility", "device"] = Field(
        "node", description="Kind of the assets."
    )
    parent: str = Field(
        "", description="What they stand in, if the site file does not say. Default: its default_parent."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if bool(self.preset) == bool(self.reading):
            raise ValueError("give either preset or reading")
        if self.preset and self.preset not in presets():
            raise ValueError(f"there is no preset '{self.preset}'; choose one of {', '.join(sorted(presets()))}")
        if ("{asset}" in self.topic) == bool(self.asset):
            raise ValueError("give either asset, or a topic with {asset} in it")
        if sum(map(bool, (self.asset, self.nodes, self.assets))) > 1:
            raise ValueError("give one of asset, nodes, assets")
        if any(sign in self.topic for sign in "+#"):
            raise ValueError("write {asset} where the topic differs; + and # would not say which asset it is")
        alone = all("{asset}" not in level or level == "{asset}" for level in self.topic.split("/"))
        if not (self.asset or self.nodes or self.assets or alone):
            raise ValueError("{asset} must be a level of the topic of its own, or give nodes or assets")
        return self

    def readings(self) -> list[ReadingConfig]:
        """Return the values to read, with topic and channel in place."""
        several = self.reading or presets()[self.preset]
        return [
            one.model_copy(
                update={"topic": one.topic.replace("{topic}", self.topic).replace("{channel}", str(self.channel))}
            )
            for one in several
        ]


class Config(BaseModel):
    """A broker: `[[agent.mqtt]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(description="Address of the broker.")
    port: int = Field(0, ge=0, le=65_535, description="Its TCP port. Default: 1883, or 8883 with tls.")
    user: str = Field("", description="Account that may read the topics. Left out: none.")
    password: SecretStr = Field(SecretStr(""), description="Its password.")
    password_file: Path | None = Field(None, description="File that holds the password, instead of password.")
    tls: bool = Field(False, description="Encrypt the connection.")
    verify: bool = Field(True, description="Check the broker's certificate.")
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed it.")
    cert_file: Path | None = Field(None, description="PEM file of our own certificate, with its key.")
    qos: Literal[0, 1] = Field(0, description="Quality of service: 1 where the broker shall repeat lost messages.")
    timeout_s: float = Field(10.0, gt=0, description="Longest time a connection may take [s].")
    listen_s: float = Field(10.0, gt=0, description="How long discovery listens to learn who publishes [s].")
    max_age_s: float = Field(900.0, gt=0, description="A value that is older is no reading [s].")
    zone: str = Field("", description="Time zone of stamps that name none, such as UTC. Default: they are not used.")
    topic: list[TopicConfig] = Field(min_length=1, description="What to read there.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.password.get_secret_value() and self.password_file:
            raise ValueError("give password or password_file, not both")
        if (self.ca_file or self.cert_file) and not self.tls:
            raise ValueError("ca_file and cert_file need tls = true")
        return self

    @property
    def real_port(self) -> int:
        """The port, by default that of the protocol."""
        return self.port or (8883 if self.tls else 1883)

    def secret(self) -> str:
        """Return the password. Raises ConfigError where its file cannot be read."""
        if self.password_file is None:
            return self.password.get_secret_value()
        try:
            return self.password_file.read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"Cannot read password_file {self.password_file}: {error.strerror}.") from error


@cache
def presets() -> dict[str, list[ReadingConfig]]:
    """Return the presets that come along, by name."""
    found = {}
    for file in sorted(PRESETS.glob("*.toml")):
        found[file.stem] = [ReadingConfig.model_validate(one) for one in tomllib.loads(file.read_text())["reading"]]
    return found


class Link:
    """One connection to a broker, on which messages arrive in the background.

    Where it breaks, or the broker no longer answers, it is made again when it is next needed, and the broker tells kept
    messages again.
    """

    def __init__(self, config: Config, subscriptions: list[str], take: Take) -> None:
        self._config, self._subscriptions, self._take = config, subscriptions, take
        self.name = f"mqtt {config.host}:{config.real_port}"
        self._task: asyncio.Task[None] | None = None
        self._client: aiomqtt.Client | None = None
        self._turn = asyncio.Lock()

    async def listen(self) -> None:
        """Connect and subscribe, unless that is so already. Raises SourceError where it cannot be done in time."""
        async with self._turn:
            if await self._alive():
                return
            await self._end()
            ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._listen(ready))
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
                    if self._task.done():
                        self._task.result()
            except TimeoutError as error:
                await self._end()
                raise SourceError(
                    f"{self.name} did not answer within {self._config.timeout_s:g} s. "
                    "Check host, port and tls, or raise timeout_s."
                ) from error
            except aiomqtt.MqttError as error:
                await self._end()
                raise SourceError(f"{self.name} cannot be used: {_said(error)}. {_cure(error)}") from error
            except BaseException:
                await self._end()
                raise

    async def close(self) -> None:
        """Disconnect; the next call connects again."""
        async with self._turn:
            await self._end()

    async def _alive(self) -> bool:
        """Return whether the broker still answers: what it keeps silent about would look like a load that is steady."""
        if self._task is None or self._task.done() or self._client is None:
            return False
        answer = asyncio.ensure_future(self._client.unsubscribe(NOBODYS))
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED, timeout=self._config.timeout_s)
        alive = answer.done() and not answer.exception() and not self._task.done()
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
        return alive

    async def _end(self) -> None:
        task, self._task, self._client = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _listen(self, ready: asyncio.Future[None]) -> None:
        config = self._config
        client = aiomqtt.Client(
            config.host,
            config.real_port,
            username=config.user or None,
            password=config.secret() or None,
            timeout=2 * config.timeout_s,  # ours is shorter and says what to do
            keepalive=30,
            logger=LOGGER,
            tls_context=self._trust(),
        )
        async with client:
            for topic in self._subscriptions:
                granted = await client.subscribe(topic, qos=config.qos)
                if any((code if isinstance(code, int) else code.value) >= REFUSED_FROM for code in granted):
                    raise SourceError(f"{self.name} does not let us read '{topic}'. Check the rights of the account.")
            self._client = client
            ready.set_result(None)
            async for message in client.messages:
                if isinstance(message.payload, bytes):
                    self._take(str(message.topic), message.payload, bool(message.retain))

    def _trust(self) -> ssl.SSLContext | None:
        config = self._config
        if not config.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=config.ca_file)
            if not config.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if config.cert_file:
                context.load_cert_chain(config.cert_file)
        except OSError as error:
            raise ConfigError(
                f"Cannot read the certificates in {config.ca_file or config.cert_file}: {error}. Name PEM files."
            ) from error
        return context


def _said(error: Exception) -> str:
    return f"{error}".strip(" .") or type(error).__name__


def _cure(error: Exception) -> str:
    """Return what to do about a refusal or a broken connection."""
    told = _said(error).lower()
    if isinstance(error, aiomqtt.exceptions.MqttConnectError) or "authori" in told or "password" in told:
        return "Check user and password."
    if "certificate" in told or "ssl" in told:
        return "Check ca_file, the name in the certificate, and that tls is on at both sides."
    return "Check host, port, tls and network."
