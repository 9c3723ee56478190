"""The link to the EIA's open data: its table in the site file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wattkeeper.core.errors import MissingExtraError

try:
    from wattkeeper.core.web import Web, WebConfig, secret
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.eia", "httpx", "eia") from error

WHERE = "grid.eia"
VARIABLES = ("EIA_API_KEY",)


class Config(WebConfig):
    """`[grid.eia]`."""

    url: str = Field("https://api.eia.gov", pattern=r"^https?://", description="Address of the service.")
    boundary: Literal["lifecycle", "direct"] = Field("lifecycle", description="Emission factors of the intensity.")
    pace_s: float = Field(0.5, ge=0, description="Least time between two requests [s].")


def connect(config: Config) -> Web:
    """Return the service with its key. Raises ConfigError where there is none."""
    (key,) = secret(config, VARIABLES, WHERE)
    return Web("EIA", config, params={"api_key": key}, secrets=[key])
