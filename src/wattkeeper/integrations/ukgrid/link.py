"""The link to the Carbon Intensity API of Great Britain: its table in the site file."""

from __future__ import annotations

from pydantic import Field

from wattkeeper.core.errors import MissingExtraError

try:
    from wattkeeper.core.web import Web, WebConfig
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.ukgrid", "httpx", "ukgrid") from error

WHERE = "grid.ukgrid"


class Config(WebConfig):
    """`[grid.ukgrid]`. It needs no key."""

    url: str = Field("https://api.carbonintensity.org.uk", pattern=r"^https?://", description="Address of the service.")
    pace_s: float = Field(0.5, ge=0, description="Least time between two requests [s].")


def connect(config: Config) -> Web:
    """Return the service."""
    return Web("Carbon Intensity API", config, headers={"Accept": "application/json"})
