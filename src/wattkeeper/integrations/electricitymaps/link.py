"""The link to Electricity Maps: its table in the site file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wattkeeper.core.errors import MissingExtraError

try:
    from wattkeeper.core.web import Web, WebConfig, secret
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.electricitymaps", "httpx", "electricitymaps") from error

WHERE = "grid.electricitymaps"
VARIABLES = ("ELECTRICITYMAPS_TOKEN",)


class Config(WebConfig):
    """`[grid.electricitymaps]`."""

    url: str = Field("https://api.electricitymaps.com", pattern=r"^https?://", description="Address of the service.")
    version: Literal["v4", "v3"] = Field("v4", description="Version of the service's interface.")
    boundary: Literal["lifecycle", "direct"] = Field("lifecycle", description="Emission factors of the intensity.")
    estimated: bool = Field(True, description="Take values that Electricity Maps estimated; else they are gaps.")
    pace_s: float = Field(0.2, ge=0, description="Least time between two requests [s].")


def connect(config: Config) -> Web:
    """Return the service with its key. Raises ConfigError where there is none."""
    (token,) = secret(config, VARIABLES, WHERE)
    return Web("Electricity Maps", config, headers={"auth-token": token}, secrets=[token])
