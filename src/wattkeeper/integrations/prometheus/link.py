"""The link to a server: one HTTP client with its credentials, time-outs and retries, and faults as sentences."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator
from pydantic import Field as Key

from wattkeeper.core.errors import ConfigError, MissingExtraError, SourceError

try:
    import httpx
    import httpx_retries
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.prometheus", error.name or "httpx", "prometheus") from error

Client = httpx.Client


@dataclass(frozen=True, slots=True)
class Access:
    """How to get in, and how long to try.

    token: bearer token. user, password: basic authentication. ca_file: PEM file of the authority that signed the
    server's certificate. Time-outs, broken connections and statuses 429, 502, 503 and 504 are tried again, `retries`
    times, each after about twice the time before; `Retry-After` is obeyed.
    """

    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    timeout_s: float = 120.0
    retries: int = 5
    backoff_s: float = 0.5


DEFAULT = Access()


class Config(BaseModel):
    """An exporter's page, or one for each of many nodes, read live: `[[agent.prometheus]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Key(
        pattern=r"^https?://", description='Page, such as "http://n01:9400/metrics"; {node} stands for each of `nodes`.'
    )
    nodes: str = Key("", description="Host list such as n[01-16], with {node} in the address.")
    host: str = Key("", description="Node of series that name none. Default: the host of the address.")
    host_pattern: str = Key("", description="Pattern whose first group is the node's name in a host label.")
    parent: str = Key(
        "", description="What the nodes stand in, if the site file does not say. Default: its default_parent."
    )
    token: SecretStr = Key(SecretStr(""), description="Bearer token.")
    token_file: Path | None = Key(None, description="File that holds the token, instead of token.")
    user: str = Key("", description="User for basic authentication.")
    password: SecretStr = Key(SecretStr(""), description="Password of that user.")
    password_file: Path | None = Key(None, description="File that holds the password, instead of password.")
    ca_file: Path | None = Key(None, description="PEM file of the authority that signed the certificate.")
    timeout_s: float = Key(10.0, gt=0, description="Longest time one sample may take [s].")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if bool(self.nodes) != ("{node}" in self.url):
            raise ValueError("give nodes together with {node} in the url, or neither")
        if self.nodes and self.host:
            raise ValueError("give either nodes or host")
        return self

    def secret(self, name: Literal["token", "password"]) -> str:
        """Return a secret, from its file where one is named. Raises ConfigError where that cannot be read."""
        file: Path | None = getattr(self, f"{name}_file")
        if file is None:
            return str(getattr(self, name).get_secret_value())
        try:
            return file.read_text("utf-8").strip()
        except OSError as error:
            raise ConfigError(f"Cannot read {name}_file {file}: {error.strerror}.") from error


def connect(access: Access) -> httpx.Client:
    """Return a client. Raises ConfigError when the certificate file cannot be read."""
    retry = httpx_retries.Retry(total=access.retries, backoff_factor=access.backoff_s, max_backoff_wait=30.0)
    transport = httpx_retries.RetryTransport(httpx.HTTPTransport(verify=_trust(access.ca_file)), retry)
    headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
    auth = httpx.BasicAuth(access.user, access.password) if access.user else None
    return httpx.Client(transport=transport, headers=headers, auth=auth, timeout=access.timeout_s)


def get(client: httpx.Client, url: str, params: Mapping[str, str] | None = None) -> httpx.Response:
    """Return a good answer. Raises SourceError that says what went wrong where."""
    try:
        answer = client.get(url, params=params)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        what = f"{error}" or type(error).__name__
        raise SourceError(f"{url} does not answer: {what}. Check address and network, then run it again.") from error
    if answer.status_code in (401, 403):
        raise SourceError(f"{url} refuses us (status {answer.status_code}). Check token, user and password.")
    if not answer.is_success:
        raise SourceError(f"{url} answers with status {answer.status_code}: {answer.text[:300].strip()}")
    return answer


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"Cannot read the certificates in {ca_file}: {error}. Name a PEM file.") from error
