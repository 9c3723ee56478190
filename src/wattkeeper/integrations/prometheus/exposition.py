"""One page in the text exposition format or OpenMetrics, as exporters serve it, from a file or an address."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from wattkeeper.core.errors import ImportFileError, MissingExtraError
from wattkeeper.core.roles import Intake, Reject
from wattkeeper.integrations.prometheus import link, series
from wattkeeper.integrations.prometheus.link import Access, connect, get
from wattkeeper.integrations.prometheus.names import CEEMS_HOLDER, VARIABLE_MAP
from wattkeeper.integrations.prometheus.series import Options, Series, to_intake

try:
    from prometheus_client import parser as text_parser
    from prometheus_client.metrics_core import Metric
    from prometheus_client.openmetrics import parser as openmetrics_parser
    from prometheus_client.samples import Sample
except ImportError as error:
    raise MissingExtraError("wattkeeper.integrations.prometheus", "prometheus-client", "prometheus") from error

_NAME = re.compile(r"\s*([A-Za-z_:][\w:]*)")
_PAGE = re.compile(r"\s*(#|[A-Za-z_:][\w:]*[\s{])")
_Key = tuple[str, tuple[tuple[str, str], ...]]


class ExpositionSource:
    """What one page says at one instant.

    where: a file's path or an http(s) address. time_ms: when it was read; samples with a time stamp of their own keep
    it. Series without a host label are given options.host, else the host of the address.
    """

    def __init__(
        self, where: str, time_ms: int, *, options: Options = series.DEFAULT, access: Access = link.DEFAULT
    ) -> None:
        self._where, self._time_ms, self._options, self._access = where, time_ms, options, access

    def read(self) -> Iterator[Intake]:
        """Yield one batch. Raises ImportFileError for a file, SourceError for an address that cannot be read."""
        text, host = self._text()
        if not _PAGE.match(text):
            raise ImportFileError(f"{self._where} is not in the Prometheus text format: {text[:60]!r}.")
        found, rejects = parse(text, self._time_ms, self._where)
        intake = to_intake(found, replace(self._options, host=self._options.host or host), source=self._where)
        intake.rejects = [*rejects, *intake.rejects]
        yield intake

    def _text(self) -> tuple[str, str]:
        """Return the page and the host of its address."""
        if self._where.startswith(("http://", "https://")):
            with connect(self._access) as client:
                return get(client, self._where).text, urlsplit(self._where).hostname or ""
        try:
            return Path(self._where).read_text("utf-8"), ""
        except (OSError, UnicodeDecodeError) as error:
            raise ImportFileError(f"Cannot read {self._where} as an exposition: {error}.") from error


def parse(text: str, time_ms: int, source: str) -> tuple[list[Series], list[Reject]]:
    """Return the series that we know, and the lines of them that cannot be read.

    Line by line, so that one broken line costs no other. A page that ends in "# EOF" is OpenMetrics.
    """
    lines = text.split("\n")
    read = _read_openmetrics if text.rstrip().endswith("# EOF") else _read_plain
    samples: dict[_Key, list[tuple[int, float]]] = {}
    rejects = []
    for row, line in enumerate(lines, 1):
        match = _NAME.match(line)
        if not match or (match[1] not in VARIABLE_MAP and match[1] != CEEMS_HOLDER):
            continue
        try:
            sample = read(line)
        except ValueError as error:
            rejects.append(Reject(source, row, f"line cannot be read: {error}", line))
        else:
            key = match[1], tuple(sorted(sample.labels.items()))
            stamp_ms = time_ms if sample.timestamp is None else round(float(sample.timestamp) * 1000)
            samples.setdefault(key, []).append((stamp_ms, float(sample.value)))
    return [_series(key, pairs) for key, pairs in samples.items()], rejects


def _series(key: _Key, samples: Iterable[tuple[int, float]]) -> Series:
    time_ms, value = zip(*sorted(samples), strict=True)
    return Series(key[0], dict(key[1]), np.array(time_ms, np.int64), np.array(value, np.float64))


def _read_plain(line: str) -> Sample:
    """Return the sample of a line of the text format."""
    return _only(text_parser.text_string_to_metric_families(line))


def _read_openmetrics(line: str) -> Sample:
    """Return the sample of a line of OpenMetrics."""
    return _only(openmetrics_parser.text_string_to_metric_families(f"{line}\n# EOF\n"))  # type: ignore[no-untyped-call]


def _only(families: Iterable[Metric]) -> Sample:
    ((sample,),) = (family.samples for family in families)
    return sample
