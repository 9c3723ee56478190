"""Prometheus remote write 1.0: snappy-packed protobuf with samples of metrics that integrations/prometheus knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from wattkeeper.core.errors import BatchError, MissingExtraError
from wattkeeper.core.live import Sample
from wattkeeper.integrations.prometheus.names import VARIABLE_MAP
from wattkeeper.integrations.prometheus.series import Series, to_intake
from wattkeeper.lake.batches import AHEAD_MS, EARLIEST_MS
from wattkeeper.server.bodies import Body, TooLargeError, of_samples

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
except ImportError as error:
    raise MissingExtraError("wattkeeper.server", "protobuf", "server") from error

PROTOBUF = "application/x-protobuf"
MESSAGE = "prometheus.WriteRequest"
"""The message of remote write 1.0, which a sender may name in the Content-Type, and one of 2.0 does."""

STALE = 0x7FF0_0000_0000_0002
"""Bits of the NaN that is Prometheus' mark that a series has ended: no sample, and nothing wrong."""

_MESSAGES = {
    "Label": (("name", 1, "string", ""), ("value", 2, "string", "")),
    "Sample": (("value", 1, "double", ""), ("timestamp", 2, "int64", "")),
    "TimeSeries": (("labels", 1, "message", "Label"), ("samples", 2, "message", "Sample")),
    "WriteRequest": (("timeseries", 1, "message", "TimeSeries"),),
}
"""The parts of prometheus.WriteRequest that are read: field, number, type, message; messages are repeated."""


def _write_request() -> Any:
    """Return the class of the protocol's message."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="wattkeeper/remote_write.proto", package="wattkeeper", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        declared = file.message_type.add(name=name)
        for field, number, kind, of in fields:
            label = kinds.LABEL_REPEATED if of else kinds.LABEL_OPTIONAL
            type_name = f".wattkeeper.{of}" if of else None
            declared.field.add(
                name=field, number=number, label=label, type=getattr(kinds, f"TYPE_{kind.upper()}"), type_name=type_name
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("wattkeeper.WriteRequest"))


WriteRequest = _write_request()


def wanted(content_type: str, content_encoding: str) -> str:
    """Return "" for a request of remote write 1.0; else what to answer with 415, so that a sender of 2.0 falls back."""
    kind, *parameters = (part.strip() for part in content_type.lower().split(";"))
    proto = next((p.removeprefix("proto=").strip('"') for p in parameters if p.startswith("proto=")), MESSAGE.lower())
    if kind != PROTOBUF or proto != MESSAGE.lower():
        return f"Content-Type is '{content_type}'; send {PROTOBUF};proto={MESSAGE}, remote write 1.0"
    if content_encoding not in ("", "snappy"):
        return f"Content-Encoding is '{content_encoding}'; send snappy"
    return ""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write request holds. body: None for no reading. refused: samples of known metrics that cannot be true.

    late: what is wrong with the time of some of them, "" for nothing: the sender should be told.
    """

    body: Body | None
    refused: int
    late: str


def of_remote_write(data: bytes, now_ms: int, limit_bytes: int) -> Written:
    """Return what is in a write request; a sample that cannot be taken costs only itself. Raises BatchError, TooLargeError."""
    request = WriteRequest()
    try:
        request.ParseFromString(_unsnap(data, limit_bytes))
    except message.DecodeError as error:
        raise BatchError(f"not a write request of Prometheus remote write 1.0: {error}") from error
    known, samples, late = [], 0, 0
    for one in request.timeseries:
        labels = {label.name: label.value for label in one.labels}
        if (name := labels.pop("__name__", "")) in VARIABLE_MAP:
            time_ms = np.array([s.timestamp for s in one.samples], np.int64)
            value = np.array([s.value for s in one.samples], np.float64)
            meant = value.view(np.uint64) != STALE
            timely = (time_ms >= EARLIEST_MS) & (time_ms <= now_ms + AHEAD_MS)
            samples += int(meant.sum())
            late += int((meant & ~timely).sum())
            known.append(Series(name, labels, time_ms[meant & timely], value[meant & timely]))
    intake = to_intake(known, source="remote write")
    rows = [Sample(*row) for row in intake.readings.iter_rows()]
    body = of_samples("", rows, intake.assets, intake.meters, now_ms) if rows else None
    why = f"{late} samples are from before 2000 or more than a day ahead of this clock and were left out; the rest is kept"
    return Written(body, samples - len(rows), why if late else "")


def _unsnap(data: bytes, limit_bytes: int) -> bytes:
    """Return what snappy has packed; its length stands before it, as a varint."""
    length = shift = 0
    for byte in data[:5]:
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if length > limit_bytes:
        raise TooLargeError(f"unpacked, the body is larger than {limit_bytes} bytes")
    try:
        return bytes(pa.Codec("snappy").decompress(data, length, asbytes=True))
    except (pa.ArrowException, OSError) as error:
        raise BatchError(f"the body is not snappy: {' '.join(str(error).split())[:200]}") from error
