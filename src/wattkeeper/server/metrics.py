"""What the server tells about itself, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from wattkeeper.core.errors import MissingExtraError

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
except ImportError as error:
    raise MissingExtraError("wattkeeper.server", "prometheus-client", "server") from error

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, journal_bytes: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        make = {"registry": self.registry}
        self.requests = Counter("wattkeeper_ingest_requests", "Requests with readings.", ["format", "status"], **make)
        self.readings = Counter("wattkeeper_ingest_readings", "Readings acknowledged.", ["format"], **make)
        self.refused_samples = Counter(
            "wattkeeper_remote_write_refused_samples", "Samples of known metrics that cannot be true.", **make
        )
        self.acknowledged = Histogram(
            "wattkeeper_ingest_acknowledge_seconds",
            "From the last byte of a request to its acknowledgement.",
            buckets=_BUCKETS_S,
            **make,
        )
        self.skewed = Counter("wattkeeper_ingest_skewed_batches", "Batches of senders whose clock is off.", **make)
        journal = Gauge("wattkeeper_journal_bytes", "Journaled and not yet given back.", **make)
        journal.set_function(journal_bytes)
        self.folded = Counter("wattkeeper_folded_readings", "Readings taken into the book.", **make)
        self.again = Counter("wattkeeper_folded_again_batches", "Batches that had come before.", **make)
        self.refused = Counter("wattkeeper_fold_refusals", "Sentences about readings refused while folding.", **make)
        self.fold_faults = Counter("wattkeeper_fold_faults", "Folds that failed and are tried again.", **make)
        self.fold_s = Gauge("wattkeeper_fold_seconds", "Duration of the last fold.", **make)
        self.fold_time = Gauge("wattkeeper_fold_timestamp_seconds", "When the last fold ended.", **make)

    def page(self) -> bytes:
        """Return them in the text format."""
        return generate_latest(self.registry)
