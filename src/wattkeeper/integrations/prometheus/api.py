"""Prometheus and what speaks its API: raw samples with their own time stamps, chunk by chunk, from where we stopped.

Samples are read with a range selector in an instant query, `metric[1h]`, which returns them as they were scraped.
`query_range` would make them up: at each step it repeats the latest sample of the last five minutes, with the step's
time stamp, so silences vanish and energy is attributed to the wrong instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from wattkeeper.core.clock import iso
from wattkeeper.core.errors import SourceError
from wattkeeper.core.roles import Intake
from wattkeeper.integrations.prometheus import link, series
from wattkeeper.integrations.prometheus.holders import MAX_GAP_MS
from wattkeeper.integrations.prometheus.link import Access, Client, connect, get
from wattkeeper.integrations.prometheus.names import CEEMS_HOLDER, VARIABLE_MAP
from wattkeeper.integrations.prometheus.series import Options, Series, to_intake

CHUNK_MS = 6 * 3_600_000
"""Longest span read at once; chunks end at multiples of it, so that a span is cut alike however it is reached."""

MAX_SAMPLES = 1_000_000
"""Samples read at once, about: some 30 MB of JSON, a fiftieth of what a server loads for one query by default."""

MIN_CHUNK_MS = 60_000

REREAD_MS = 300_000
"""What lies this far before the cursor is read again: a scrape is stored some seconds after its time stamp."""


class PrometheusSource:
    """All metrics we know from one server, in [start_ms, end_ms).

    url: the server's address with its path prefix, such as http://prometheus:9090 or https://thanos/prometheus.
    cursor_ms: up to where it was read before; None reads from start_ms on.
    advance: called with the instant up to which all is kept.
    matchers: further label matchers in PromQL, such as 'cluster="a",job="dcgm"'.
    chunk_ms, max_samples: bounds on what is read at once.

    `advance` is called only when the reader comes back for the next batch, that is when the last one is kept: neither a
    query that fails nor a batch that cannot be stored moves the cursor.
    """

    def __init__(
        self,
        url: str,
        start_ms: int,
        end_ms: int,
        *,
        cursor_ms: int | None = None,
        advance: Callable[[int], None] = lambda _ms: None,
        options: Options = series.DEFAULT,
        access: Access = link.DEFAULT,
        matchers: str = "",
        chunk_ms: int = CHUNK_MS,
        max_samples: int = MAX_SAMPLES,
    ) -> None:
        self.url, self.end_ms = url.rstrip("/"), end_ms
        self._fresh_ms = start_ms if cursor_ms is None else max(start_ms, cursor_ms)
        self.position_ms = start_ms if cursor_ms is None else max(start_ms, cursor_ms - REREAD_MS)
        self._advance, self._options, self._access = advance, options, access
        self._matchers, self._chunk_ms, self._max_samples = matchers, chunk_ms, max_samples

    @property
    def name(self) -> str:
        """The name under which the cursor is kept: another choice of series is another cursor."""
        return f"prometheus {self.url} {self._matchers}".rstrip()

    def read(self) -> Iterator[Intake]:
        """Yield a batch per chunk. Raises SourceError; what was yielded before stays good, and a later run goes on."""
        with connect(self._access) as client:
            while self.position_ms < self.end_ms:
                until_ms, names = self._next_chunk(client)
                if found := self._series(client, names, until_ms):
                    yield self._intake(found, until_ms)
                self.position_ms = until_ms
                self._advance(until_ms)

    def _intake(self, found: list[Series], until_ms: int) -> Intake:
        """Return the batch. Readings that come again are one; allocations that overlap would count twice."""
        start_ms, held_from_ms = self.position_ms, max(self.position_ms, self._fresh_ms)
        return to_intake(
            found, self._options, source=self.name, start_ms=start_ms, end_ms=until_ms, held_from_ms=held_from_ms
        )

    def _next_chunk(self, client: Client) -> tuple[int, list[str]]:
        """Return until when to read, so that it is not too much at once, and the metrics that are there."""
        start_ms = self.position_ms
        until_ms = min((start_ms // self._chunk_ms + 1) * self._chunk_ms, self.end_ms)
        while True:
            counts = self._counts(client, start_ms, until_ms)
            total, span_ms = sum(counts.values()), until_ms - start_ms
            if total <= self._max_samples or span_ms <= MIN_CHUNK_MS:
                return until_ms, [name for name, count in counts.items() if count]
            until_ms = start_ms + max(MIN_CHUNK_MS, span_ms * self._max_samples // total - 1)

    def _counts(self, client: Client, start_ms: int, until_ms: int) -> dict[str, int]:
        """Return how many samples each metric has in a span."""
        counts = {}
        for name in self._names(client, start_ms, until_ms):
            query = f"sum(count_over_time({self._selector(name, start_ms, until_ms)}))"
            rows = self._query(client, query, until_ms)
            counts[name] = int(float(rows[0]["value"][1])) if rows else 0
        return counts

    def _names(self, client: Client, start_ms: int, until_ms: int) -> list[str]:
        """Return which of our metrics the server has around a span."""
        known = "|".join([*VARIABLE_MAP, CEEMS_HOLDER])
        match = f'{{__name__=~"{known}"{"," if self._matchers else ""}{self._matchers}}}'
        params = {"match[]": match, "start": seconds(start_ms), "end": seconds(until_ms)}
        found = set(self._data(client, "label/__name__/values", params))
        return [name for name in (*VARIABLE_MAP, CEEMS_HOLDER) if name in found]

    def _series(self, client: Client, names: list[str], until_ms: int) -> list[Series]:
        """Return the chunk's series, with the samples before it that tell who held what as it began."""
        start_ms = self.position_ms - (MAX_GAP_MS if self._options.jobs_from else 0)
        found = []
        for name in names:
            for row in self._query(client, self._selector(name, start_ms, until_ms), until_ms):
                labels = {k: v for k, v in row["metric"].items() if k != "__name__"}
                time_s, value = zip(*row["values"], strict=True)
                time_ms = np.rint(np.array(time_s, np.float64) * 1000).astype(np.int64)
                found.append(Series(name, labels, time_ms, np.array([float(v) for v in value])))
        return found

    def _selector(self, name: str, start_ms: int, until_ms: int) -> str:
        return f"{name}{{{self._matchers}}}[{until_ms - start_ms}ms]"

    def _query(self, client: Client, query: str, until_ms: int) -> list[dict[str, Any]]:
        """Return the result of an instant query, asked one millisecond before `until_ms`.

        Servers differ in whether a range includes its left end, one millisecond before the span; to_intake cuts it off.
        """
        data = self._data(client, "query", {"query": query, "time": seconds(until_ms - 1)})
        return list(data["result"])

    def _data(self, client: Client, path: str, params: dict[str, str]) -> Any:
        return data_of(client, self.url, path, params, self.position_ms)


def data_of(client: Client, url: str, path: str, params: dict[str, str], since_ms: int) -> Any:
    """Return the data of an answer. Raises SourceError where the server says that something is missing in it.

    since_ms: from when on data are asked for, for the sentence.
    """
    answer = get(client, f"{url}/api/v1/{path}", params)
    try:
        body = answer.json()
        data, partial = body["data"], body.get("isPartial", False)
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{url} does not speak the Prometheus API: {answer.text[:80]!r}.") from error
    if partial or body.get("warnings"):
        told = "; ".join(body.get("warnings") or ["partial"])
        raise SourceError(f"{url} has only part of the data from {iso(since_ms)} on: {told}. Try later.")
    return data


def seconds(time_ms: int) -> str:
    """Return milliseconds as the API wants time: seconds with three decimals."""
    return f"{time_ms // 1000}.{time_ms % 1000:03d}"
