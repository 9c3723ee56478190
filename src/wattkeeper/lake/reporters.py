"""Meters that two agents report at the same time: the books count each joule once, and the user should know."""

from __future__ import annotations

import json
from itertools import combinations
from typing import NamedTuple

from wattkeeper.core.units import MS_PER_DAY
from wattkeeper.lake.batches import Received
from wattkeeper.lake.state import State

FACT = "doubled"
"""The fact in a book's state: by pair of agents, what was found last, and when."""


class _Span(NamedTuple):
    first_ms: int
    last_ms: int

    def with_(self, other: _Span) -> _Span:
        return _Span(min(self.first_ms, other.first_ms), max(self.last_ms, other.last_ms))

    def overlaps(self, other: _Span) -> bool:
        return self.first_ms <= other.last_ms and other.first_ms <= self.last_ms


class Reporters:
    """Which agents reported which meters, and over what time: filled batch by batch. An agent is how its ids begin."""

    def __init__(self) -> None:
        self._spans: dict[tuple[str, tuple[str, ...]], _Span] = {}

    def add(self, batch: Received) -> None:
        """Note who sent a batch; one without an id may be anybody's."""
        if not batch.id or not batch.rows:
            return
        key = (batch.id.partition("/")[0], tuple(batch.meters))
        span = _Span(int(batch.time_ms.min()), int(batch.time_ms.max()))
        self._spans[key] = self._spans[key].with_(span) if key in self._spans else span

    def pairs(self) -> dict[tuple[str, str], list[str]]:
        """Return by pair of agents the meters that both reported at the same time, in order."""
        by_meter: dict[str, dict[str, _Span]] = {}
        for (agent, meters), span in self._spans.items():
            for meter in meters:
                known = by_meter.setdefault(meter, {})
                known[agent] = known[agent].with_(span) if agent in known else span
        found: dict[tuple[str, str], list[str]] = {}
        for meter, spans in sorted(by_meter.items()):
            for one, other in combinations(sorted(spans), 2):
                if spans[one].overlaps(spans[other]):
                    found.setdefault((one, other), []).append(meter)
        return found

    def tell(self, state: State, now_ms: int) -> list[str]:
        """Keep what was found, and return a sentence for each pair that had not been found for a day."""
        pairs = self.pairs()
        if not pairs:
            return []
        known = _known(state)
        new = {f"{one} {other}": (_sentence(one, other, meters), now_ms) for (one, other), meters in pairs.items()}
        state.remember(**{FACT: json.dumps(known | new)})
        return [words for key, (words, _) in new.items() if key not in known or known[key][1] < now_ms - MS_PER_DAY]


def reported_twice(state: State, now_ms: int) -> list[str]:
    """Return a sentence for each pair of agents that reported the same meters within the last day."""
    return [words for words, last_ms in _known(state).values() if last_ms >= now_ms - MS_PER_DAY]


def _known(state: State) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = json.loads(state.fact(FACT) or "{}")
    return found


def _sentence(one: str, other: str, meters: list[str]) -> str:
    what = f"meter '{meters[0]}'" if len(meters) == 1 else f"{len(meters)} meters, '{meters[0]}' among them,"
    return (
        f"Agents '{one}' and '{other}' both report {what} at the same time. Each joule is counted once; "
        "if their devices are two, give them names of their own, else one of the agents is enough."
    )
