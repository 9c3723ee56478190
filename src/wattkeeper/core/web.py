"""A web service that publishes data: one HTTP client with its key, pace, retries, and faults as sentences.

No sentence holds the key, wherever a service echoes it. A caller imports this room only where httpx is installed.
"""

from __future__ import annotations

import html
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import httpx_retries
from pydantic import BaseModel, ConfigDict, Field

from wattkeeper.core.errors import ConfigError, SourceError, StatusError

REFUSED = (401, 403)
TRIED_AGAIN = (429, 500, 502, 503, 504)

LONGEST_WAIT_S = 300.0
"""A service that asks for a longer pause is left alone: the next run goes on."""


class WebConfig(BaseModel):
    """What every web service has: where it is and how long to try."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https?://", description="Address of the service.")
    key_file: Path | None = Field(None, description="File that holds the key. Default: the environment variable.")
    timeout_s: float = Field(60.0, gt=0, description="Longest time one request may take [s].")
    retries: int = Field(5, ge=0, description="How often a request that failed is tried again.")
    backoff_s: float = Field(1.0, ge=0, description="Pause before trying again, about doubled each time [s].")
    pace_s: float = Field(0.0, ge=0, description="Least time between two requests [s].")


def secret(config: WebConfig, variables: Sequence[str], where: str) -> list[str]:
    """Return the lines of key_file, else the environment variables, one for each name in `variables`.

    where: the table of the site file, for the sentence. Raises ConfigError where one is missing.
    """
    if config.key_file is None:
        found = [os.environ.get(name, "").strip() for name in variables]
    else:
        try:
            found = config.key_file.read_text("utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Cannot read key_file {config.key_file} of [{where}]: {error}.") from error
    if len(found) != len(variables) or not all(found):
        words = " and ".join(variables)
        raise ConfigError(f"[{where}] needs a key. Set {words}, or key_file in the site file with one line for each.")
    return found


class _Patience(httpx_retries.Retry):
    """Tries again as the service asks; gives up where it asks for more than LONGEST_WAIT_S."""

    def sleep(self, response: httpx.Response | Exception) -> None:
        asked = response.headers.get("Retry-After", "") if isinstance(response, httpx.Response) else ""
        try:
            wait_s = self.parse_retry_after(asked) if asked else 0.0
        except ValueError:
            wait_s = 0.0
        if wait_s > LONGEST_WAIT_S:
            raise _TooLongError(wait_s)
        super().sleep(response)


class _TooLongError(Exception):
    """The service wants to be left alone for a while."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s


class Web:
    """One web service. `secrets` are struck out of every sentence."""

    def __init__(
        self,
        name: str,
        config: WebConfig,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self.name, self._config = name, config
        self._secrets = [s for s in (*secrets, httpx.URL(config.url).password) if s]
        retry = _Patience(
            total=config.retries,
            backoff_factor=config.backoff_s,
            max_backoff_wait=LONGEST_WAIT_S,
            status_forcelist=TRIED_AGAIN,
        )
        self._client = httpx.Client(
            base_url=config.url.rstrip("/") + "/",
            transport=httpx_retries.RetryTransport(httpx.HTTPTransport(verify=config.url.startswith("https")), retry),
            headers={"Accept-Encoding": "gzip", **(headers or {})},
            params=dict(params or {}),
            timeout=config.timeout_s,
        )
        self._free_s = 0.0

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_fault: object) -> None:
        self._client.close()

    def get(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        auth: tuple[str, str] | None = None,
        good: Sequence[int] = (),
    ) -> httpx.Response:
        """Return an answer whose status is a success or one of `good`. Raises SourceError that says what went wrong."""
        self._wait()
        extra: dict[str, Any] = {} if auth is None else {"auth": auth}
        try:
            answer = self._client.get(path, params=dict(params or {}), **extra)
        except _TooLongError as error:
            raise SourceError(
                f"{self.name} asks for a pause of {error.wait_s:.0f} s. What was read is kept; run it again then."
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = f"{self._config.url} does not answer: {f'{error}' or type(error).__name__}"
            raise SourceError(
                f"{self.name} at {self.clean(what)}. Check address and network, then run it again."
            ) from error
        if answer.is_success or answer.status_code in good:
            return answer
        if answer.has_redirect_location:
            where = self.clean(answer.headers["Location"])
            raise StatusError(answer.status_code, f"{self.name} has moved from {self._config.url} to {where}. Set url.")
        told = self.clean(_shown(answer.text))
        if answer.status_code in REFUSED:
            raise StatusError(
                answer.status_code,
                f"{self.name} refuses us (status {answer.status_code}). Check the key and what its plan covers. "
                f"It says: {told}",
            )
        raise StatusError(answer.status_code, f"{self.name} answers with status {answer.status_code}: {told}")

    def json(self, path: str, params: Mapping[str, str] | None = None, *, auth: tuple[str, str] | None = None) -> Any:
        """Return the value of a JSON answer. Raises SourceError."""
        answer = self.get(path, params, auth=auth)
        try:
            return answer.json()
        except ValueError as error:
            self.must_be_data(answer)
            raise SourceError(
                f"{self.name} sent no whole JSON: …{self.clean(answer.text[-60:])!r}. Run it again."
            ) from error

    def must_be_data(self, answer: httpx.Response) -> None:
        """Raise SourceError where an answer is a web page, such as a proxy's or a guest network's."""
        if _is_page(answer.text):
            page = self.clean(_shown(answer.text))
            raise SourceError(f"{self.name} sent a web page, not data: {page}. Check url, proxy and network.")

    def strange(self, what: object) -> SourceError:
        """Return the fault of an answer that is not in the published format."""
        return SourceError(f"{self.name} answers in a format we do not know: {self.clean(str(what))[:200]}.")

    def let_in(self, headers: Mapping[str, str], secrets: Sequence[str]) -> None:
        """Send these headers from now on."""
        self._secrets += secrets
        self._client.headers.update(headers)

    def clean(self, text: str) -> str:
        """Return a text without the secrets."""
        for one in self._secrets:
            text = text.replace(one, "…")
        return text

    def _wait(self) -> None:
        """Keep the pace."""
        now_s = time.monotonic()
        if now_s < self._free_s:
            time.sleep(self._free_s - now_s)
        self._free_s = max(now_s, self._free_s) + self._config.pace_s


def _is_page(text: str) -> bool:
    return text.lstrip()[:15].lower().startswith(("<!doctype html", "<html"))


def _shown(text: str) -> str:
    """Return what an answer that is no data says in one line: the title of a page, else its first 300 characters."""
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    words = html.unescape(title[1]) if title and _is_page(text) else text[:300]
    return " ".join(words.split())
