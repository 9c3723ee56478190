"""A signal read span by span from who publishes it, so that a read that breaks off goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import Any, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from wattkeeper.core.clock import iso, to_ms
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.roles import Intake, Reject, SignalInfo
from wattkeeper.core.schema import SIGNALS

Model = TypeVar("Model", bound=BaseModel)


@dataclass(slots=True)
class Stretch:
    """What was published for a span: (start_ms, end_ms, value) by value, and what could not be used, as sentences.

    A value that is missing has no row: it stays a gap. Of two values for one start the later in `rows` counts.
    estimated: starts of values that their publisher calls estimates [ms].
    """

    rows: list[tuple[int, int, float]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    estimated: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, breaks_ms: NDArray[np.int64], values: NDArray[np.float64]) -> Stretch:
        """Build from a step function, NaN where it has no value."""
        ends = zip(breaks_ms[:-1].tolist(), breaks_ms[1:].tolist(), values.tolist(), strict=True)
        return cls([(a, b, v) for a, b, v in ends if v == v])  # noqa: PLR0124 - NaN


class Publisher(Protocol):
    """Who publishes a signal. One is made for each signal that is fetched."""

    @property
    def info(self) -> SignalInfo:
        """What is known of the signal; a version or currency that answers tell stands in it after the first."""
        ...

    chunk_ms: int
    """Longest span that one request may ask for [ms]."""
    revised_ms: int
    """Values younger than this may still change [ms]; they are asked for again."""
    ahead_ms: int
    """How far into the future values are published [ms]; 0 for what is measured."""

    def read(self, start_ms: int, end_ms: int) -> Stretch:
        """Return what is published for [start_ms, end_ms). Raises SourceError."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Provider(Protocol):
    """An integration that knows publishers. Found by the entry points `wattkeeper.signals`."""

    def __call__(self, zone: str, kind: str, config: Mapping[str, Any]) -> Publisher:
        """Return the publisher of a zone's intensity or price. Raises ConfigError where it has none."""
        ...


@dataclass(slots=True)
class SpanSource:
    """A Source of some spans of one signal, cut into chunks; rows of the signal that stood in a chunk are replaced.

    advance: called with the end of each chunk when the reader comes back, that is when the chunk is kept: neither a
    request that fails nor a batch that cannot be stored moves the cursor. estimated: of the values that came, how many
    are estimates. An answer without any value says nothing of the signal, not even its currency, and takes nothing away:
    services that fail answer so, too.
    """

    publisher: Publisher
    spans: list[tuple[int, int]]
    advance: Callable[[int], None] = lambda _ms: None
    name: str = ""
    estimated: int = 0

    def __post_init__(self) -> None:
        self.name = self.name or self.publisher.info.id

    def read(self) -> Iterator[Intake]:
        """Yield a batch per chunk. Raises SourceError; what was yielded before stays good."""
        try:
            for start_ms, end_ms in self.spans:
                for begin_ms in range(start_ms, end_ms, self.publisher.chunk_ms):
                    until_ms = min(begin_ms + self.publisher.chunk_ms, end_ms)
                    yield self._batch(begin_ms, until_ms)
                    self.advance(until_ms)
        finally:
            self.publisher.close()

    def _batch(self, start_ms: int, end_ms: int) -> Intake:
        found = self.publisher.read(start_ms, end_ms)
        info = self.publisher.info
        latest = {r[0]: r for r in found.rows if start_ms <= r[0] < end_ms}
        bad = [t for t, (_, _, v) in latest.items() if not isfinite(v) or (v < 0 and info.kind != "price")]
        inside = [r for t, r in latest.items() if t not in bad]
        self.estimated += len(found.estimated & {r[0] for r in inside})
        table = pl.DataFrame(inside, {k: SIGNALS.schema[k] for k in ("start_ms", "end_ms", "value")}, orient="row")
        rows = table.select(pl.lit(info.id).alias("signal"), "start_ms", "end_ms", "value")
        refused = [*found.refused, *told(bad, "the value is negative or infinite; the time stays a gap")]
        rejects = [Reject(self.name, 0, why) for why in refused]
        spans = [(info.id, start_ms, end_ms)] if inside else []
        infos = [info] if inside else []
        return Intake(self.name, signals=rows, signal_infos=infos, rejects=rejects, replaces=spans)


def instant_ms(text: str) -> int:
    """Return an instant that a publisher writes [ms UTC]. Raises ValueError where it has no offset: it could be any."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"the time {text} has no offset")
    return to_ms(moment)


def tidy(zone: str) -> str:
    """Return a zone as a part of a signal id. Raises ConfigError where it cannot be one."""
    if not zone or ":" in zone or zone != zone.strip():
        raise ConfigError(f"'{zone}' is no zone. Name the grid zone as its provider does, such as DE-LU or CISO.")
    return zone


def checked(model: type[Model], config: Mapping[str, Any], where: str) -> Model:
    """Return a table of the site file as its model. Raises ConfigError naming the key at fault."""
    try:
        return model.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ").rstrip(".")
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"[{where}] {f'{place}: ' if place else ''}{said}.") from error


def told(instants_ms: list[int], what: str) -> list[str]:
    """Return one sentence on what was refused at some instants; none where there are none."""
    if not instants_ms:
        return []
    more = f", and {len(instants_ms) - 1} more" if len(instants_ms) > 1 else ""
    return [f"{iso(instants_ms[0])}{more}: {what}"]
