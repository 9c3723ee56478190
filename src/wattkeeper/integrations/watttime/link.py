"""The link to WattTime: its table in the site file, and a log-in that lasts half an hour."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from wattkeeper.core.errors import MissingExtraError, SourceError

try:
    from wattkeeper.core.web import Web, WebConfig, secret
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.watttime", "httpx", "watttime") from error

WHERE = "grid.watttime"
VARIABLES = ("WATTTIME_USER", "WATTTIME_PASSWORD")
LASTS_S = 1200.0
"""How long a log-in is used [s]; it is good for half an hour."""


class Config(WebConfig):
    """`[grid.watttime]`."""

    url: str = Field("https://api.watttime.org", pattern=r"^https?://", description="Address of the service.")
    signal_type: Literal["co2_moer", "co2_aoer"] = Field(
        "co2_moer", description="Marginal (co2_moer) or average (co2_aoer) operating emissions rate."
    )
    model_date: str = Field(
        "", pattern=r"^(\d{4}-\d\d-\d\d)?$", description="Date of WattTime's model (YYYY-MM-DD). Default: the newest."
    )
    pace_s: float = Field(0.1, ge=0, description="Least time between two requests [s]; 3000 in 5 min are allowed.")


class Link:
    """The service, logged in when it is first asked."""

    def __init__(self, config: Config) -> None:
        user, password = secret(config, VARIABLES, WHERE)
        self.web = Web("WattTime", config, secrets=[password])
        self._auth = (user, password)
        self._until_s = -math.inf

    def json(self, path: str, params: Mapping[str, str]) -> Any:
        """Return the value of an answer. Raises SourceError."""
        if time.monotonic() >= self._until_s:
            asked_s = time.monotonic()
            answer = self.web.json("login", auth=self._auth)
            token = answer.get("token") if isinstance(answer, dict) else None
            if not isinstance(token, str):
                raise SourceError("WattTime gives no token. Check user and password.")
            self.web.let_in({"Authorization": f"Bearer {token}"}, [token])
            self._until_s = asked_s + LASTS_S
        return self.web.json(path, params)
