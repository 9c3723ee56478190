"""What the server tells about itself, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
        count = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        self.requests = count("wattkeeper_ingest_requests", "Requests with readings.", ["format", "status"])
        self.readings = count("wattkeeper_ingest_readings", "Readings acknowledged.", ["format"])
        self.refused_samples = count("wattkeeper_remote_write_refused_samples", "Samples that cannot be true.")
        self.acknowledged = Histogram(
            "wattkeeper_ingest_acknowledge_seconds",
            "From the last byte of a request to its acknowledgement.",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.skewed = count("wattkeeper_ingest_skewed_batches", "Batches of senders whose clock is off.")
        gauge("wattkeeper_journal_bytes", "Journaled and not yet given back.").set_function(journal_bytes)
        self.folded = count("wattkeeper_folded_readings", "Readings taken into the book.")
        self.again = count("wattkeeper_folded_again_batches", "Batches that had come before.")
        self.aside = count("wattkeeper_folded_aside_readings", "Readings that do not fit the book and are kept aside.")
        self.refused = count(
            "wattkeeper_fold_refusals", "Sentences about what was refused or kept aside while folding."
        )
        self.fold_faults = count("wattkeeper_fold_faults", "Folds that failed and are tried again.")
        self.fold_s = gauge("wattkeeper_fold_seconds", "Duration of the last fold.")
        self.fold_time = gauge("wattkeeper_fold_timestamp_seconds", "When the last fold ended.")

    def page(self) -> bytes:
        """Return them in the text format."""
        return generate_latest(self.registry)
