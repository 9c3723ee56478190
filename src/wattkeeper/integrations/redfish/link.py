"""The link to a Redfish service: its table in the site file, and one HTTP client with session, time-outs and retries."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from wattkeeper.core.errors import ConfigError, MissingExtraError, SourceError

try:
    import httpx
    import httpx_retries
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.redfish", error.name or "httpx", "redfish") from error

ROOT = "/redfish/v1"
SESSIONS = f"{ROOT}/SessionService/Sessions"
REFUSED = (401, 403)

Page = dict[str, Any]


class SensorConfig(BaseModel):
    """One value that no schema places: a rail, a vendor's own field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str = Field(
        pattern=r"^/redfish/v1/",
        description="Sensor, or page and JSON pointer: /redfish/v1/Chassis/1/Power#/Oem/Hpe/PowerMetric/GpuWatts.",
    )
    asset: str = Field(description="The asset it measures.")
    quantity: Literal["energy_counter", "power"] = Field("power", description="What it reports.")
    unit: Literal["", "W", "kW", "mW", "J", "kJ", "Wh", "kWh"] = Field(
        "", description="Its unit, where the sensor does not say. Default: W or J."
    )
    source: str = Field("redfish-sensor", description="Sensors of one source and asset add up, others only confirm.")


class Config(BaseModel):
    """A Redfish service, or one for each of many nodes: `[[agent.redfish]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        pattern=r"^https?://", description='Address, such as "https://10.0.0.7"; {node} stands for each of `nodes`.'
    )
    asset: str = Field("", description="The asset the service measures: a node, or the rack that a PDU or shelf feeds.")
    nodes: str = Field("", description="Instead of asset: host list such as n[01-16], with {node} in the address.")
    kind: Literal["node", "rack", "hall", "cooling", "device"] = Field("node", description="Kind of that asset.")
    parent: str = Field(
        "", description="What it stands in, if the site file does not say. Default: its default_parent."
    )
    user: str = Field("", description="Account with the role ReadOnly. Left out: no log-in.")
    password: SecretStr = Field(SecretStr(""), description="Its password.")
    password_file: Path | None = Field(None, description="File that holds the password, instead of password.")
    auth: Literal["session", "basic"] = Field("session", description="How to log in.")
    verify: bool = Field(True, description="Check the certificate of an https address.")
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed it.")
    timeout_s: float = Field(15.0, gt=0, description="Longest time one sample may take [s].")
    discover_timeout_s: float = Field(180.0, gt=0, description="Longest time discovery may take [s].")
    parallel: int = Field(4, ge=1, le=16, description="Requests at once. Controllers are slow; few are fastest.")
    reports: bool = Field(True, description="Read MetricReports where they hold what is wanted: one request for many.")
    outlets: dict[str, str] = Field(
        default_factory=dict, description="For a PDU: outlet id → the asset it feeds. Others are not read."
    )
    sensor: list[SensorConfig] = Field(default_factory=list, description="Further values to read.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if bool(self.asset) == bool(self.nodes):
            raise ValueError("give either asset, or nodes with {node} in the url")
        if self.nodes and "{node}" not in self.url:
            raise ValueError("url has no {node}, so all nodes would be one service")
        if self.password.get_secret_value() and self.password_file:
            raise ValueError("give password or password_file, not both")
        return self

    def secret(self) -> str:
        """Return the password. Raises ConfigError where its file cannot be read."""
        if self.password_file is None:
            return self.password.get_secret_value()
        try:
            return self.password_file.read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"Cannot read password_file {self.password_file}: {error.strerror}.") from error


class PageError(SourceError):
    """One page could not be had; the service as a whole may still be well."""


class Link:
    """One service: pages by their URI, logged in when it is first asked, logged out when closed.

    Time-outs, broken connections and statuses 429, 502, 503 and 504 are tried again twice, within the caller's time.
    """

    def __init__(self, url: str, config: Config) -> None:
        self.url, self._config = url.rstrip("/"), config
        self.name = f"redfish {self.url}"
        self._client: httpx.AsyncClient | None = None
        self._session = ""
        self._entry = asyncio.Lock()

    async def get(self, uri: str) -> Page:
        """Return a page. Raises PageError for one page that fails, SourceError where the service does not answer."""
        answer = await self._request(uri)
        if answer.status_code == 401 and self._session:
            self._session = ""  # it has run out: log in once more
            answer = await self._request(uri)
        if answer.status_code in REFUSED:
            raise PageError(
                f"{self.name}{uri} refuses us (status {answer.status_code}). Check user, password and role."
            )
        if not answer.is_success:
            raise PageError(f"{self.name}{uri} answers with status {answer.status_code}.")
        try:
            page = answer.json()
        except ValueError as error:
            raise PageError(f"{self.name}{uri} is not JSON: {answer.text[:60]!r}.") from error
        if not isinstance(page, dict):
            raise PageError(f"{self.name}{uri} is no Redfish resource: {answer.text[:60]!r}.")
        return page

    async def close(self) -> None:
        """Log out and let go of the connections."""
        client, self._client = self._client, None
        session, self._session = self._session, ""
        if client is None:
            return
        try:
            if session:
                await client.delete(session, timeout=2.0)
        except httpx.HTTPError:
            pass  # the service ends idle sessions itself
        finally:
            await client.aclose()

    async def _request(self, uri: str) -> httpx.Response:
        client = self._client = self._client or self._connect()
        if self._config.user and self._config.auth == "session":
            await self._log_in(client)
        return await self._send(client.build_request("GET", self.url + uri))

    async def _log_in(self, client: httpx.AsyncClient) -> None:
        async with self._entry:
            if self._session:
                return
            client.headers.pop("X-Auth-Token", None)
            entry = {"UserName": self._config.user, "Password": self._config.secret()}
            answer = await self._send(client.build_request("POST", self.url + SESSIONS, json=entry))
            token = answer.headers.get("X-Auth-Token")
            if answer.status_code in REFUSED:
                raise SourceError(f"{self.name} refuses user '{self._config.user}'. Check user and password.")
            if not answer.is_success or not token:
                raise SourceError(
                    f"{self.name} opens no session (status {answer.status_code}). "
                    'Set auth = "basic", or end sessions that others left open.'
                )
            client.headers["X-Auth-Token"] = token
            self._session = str(client.base_url.join(self.url + SESSIONS).join(answer.headers.get("Location", "")))

    async def _send(self, request: httpx.Request) -> httpx.Response:
        client = self._client
        if client is None:
            raise SourceError(f"{self.name} was closed while it was read.")
        try:
            answer = await client.send(request)
            to = answer.next_request  # to https, or to the same page with a slash at its end; never to another host
            return await client.send(to) if to is not None and to.url.host == request.url.host else answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = f"{error}" or type(error).__name__
            cure = "Check address, network and certificate." if "CERTIFICATE" in what else "Check address and network."
            raise SourceError(f"{self.name} does not answer: {what}. {cure}") from error

    def _connect(self) -> httpx.AsyncClient:
        config = self._config
        limits = httpx.Limits(max_connections=config.parallel, keepalive_expiry=60.0)
        retry = httpx_retries.Retry(total=2, backoff_factor=0.2, max_backoff_wait=2.0, allowed_methods=["GET"])
        wire = httpx_retries.RetryTransport(httpx.AsyncHTTPTransport(verify=self._trust(), limits=limits), retry)
        auth = None
        if config.user and config.auth == "basic":
            auth = httpx.BasicAuth(config.user, config.secret())
        timeout = httpx.Timeout(config.timeout_s, pool=None)
        headers = {"Accept": "application/json", "OData-Version": "4.0"}
        return httpx.AsyncClient(transport=wire, auth=auth, timeout=timeout, headers=headers)

    def _trust(self) -> ssl.SSLContext | bool:
        if not self._config.verify or not self.url.startswith("https"):
            return False
        try:
            return ssl.create_default_context(cafile=self._config.ca_file)
        except OSError as error:
            raise ConfigError(
                f"Cannot read the certificates in {self._config.ca_file}: {error}. Name a PEM file."
            ) from error
