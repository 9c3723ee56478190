"""Bearer tokens: who may send. A book keeps only their digests."""

from __future__ import annotations

import hashlib
import secrets
import time
from pathlib import Path

from wattkeeper.core.errors import ConfigError
from wattkeeper.lake.state import State

FRESH_S = 2.0
"""A token that is added or revoked counts after this time at the latest."""

PREFIX = "wk_"


def make() -> str:
    """Return a new token: 256 random bits, so that one round of SHA-256 hides it."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Return what a book keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_file(path: Path) -> list[str]:
    """Return the tokens in a file, one a line. Raises ConfigError."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the tokens in {path}: {error}.") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"{path} holds no token. Write one a line.")
    return found


class Gate:
    """Says whether a request may pass. Where there is no token at all, everyone may: `serve` then stays on loopback."""

    def __init__(self, state: State, given: list[str]) -> None:
        self._state = state
        self._given = {digest(t) for t in given}
        self._digests: set[str] = set()
        self._read_s = -FRESH_S

    def passes(self, authorization: str) -> bool:
        """Return whether the value of the header `Authorization` is good."""
        known = self.digests()
        scheme, _, token = authorization.partition(" ")
        return not known or (scheme.lower() == "bearer" and digest(token.strip()) in known)

    def digests(self) -> set[str]:
        """Return the digests that are good now."""
        if time.monotonic() - self._read_s >= FRESH_S:
            self._digests = self._given | {d for _, d, _ in self._state.tokens()}
            self._read_s = time.monotonic()
        return self._digests
