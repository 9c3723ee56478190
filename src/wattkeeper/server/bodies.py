"""From the body of a request to a batch: unpacked within a limit, then Arrow as it is, or JSON rows made Arrow."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.batch import Batch, encode
from wattkeeper.core.errors import BatchError, ConfigError, MissingExtraError
from wattkeeper.core.live import Sample
from wattkeeper.lake.batches import Received, decode

try:
    import msgspec
except ImportError as error:
    raise MissingExtraError("wattkeeper.server", "msgspec", "server") from error

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"

CODINGS = ("", "identity", "gzip", "zstd")


class TooLargeError(BatchError):
    """A body is larger than the server takes."""


class _Row(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    meter: str
    time_ms: int
    value: int


class _Rows(msgspec.Struct, forbid_unknown_fields=True):
    """What a JSON body holds; id: as in core.batch.Batch, left out where the sender never sends twice."""

    readings: list[_Row]
    id: str = ""
    assets: list[Asset] = []
    meters: list[Meter] = []


_ROWS = msgspec.json.Decoder(_Rows)


@dataclass(frozen=True, slots=True)
class Body:
    """A sound batch, and the bytes to keep of it."""

    batch: Received
    data: bytes


def unpack(data: bytes, coding: str, limit_bytes: int) -> bytes:
    """Return a body without its content coding, one of CODINGS. Raises TooLargeError, BatchError."""
    if coding in ("", "identity"):
        return data
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), coding) as stream:
            plain: bytes = stream.read(limit_bytes + 1)
    except (pa.ArrowException, OSError) as error:
        raise BatchError(f"the body is not {coding}: {' '.join(str(error).split())[:200]}") from error
    if len(plain) > limit_bytes:
        raise TooLargeError(f"unpacked, the body is larger than {limit_bytes} bytes")
    return plain


def of_arrow(data: bytes, now_ms: int) -> Body:
    """Return the batch in an Arrow stream. Raises BatchError."""
    return Body(decode(data, now_ms), data)


def of_json(data: bytes, now_ms: int) -> Body:
    """Return the batch in JSON rows. Raises BatchError."""
    try:
        rows = _ROWS.decode(data)
    except (msgspec.MsgspecError, ConfigError, RecursionError) as error:
        raise BatchError(f"not the JSON that is wanted: {error}") from error
    return of_samples(rows.id, rows.readings, rows.assets, rows.meters, now_ms)  # type: ignore[arg-type]


def of_samples(batch_id: str, samples: list[Sample], assets: list[Asset], meters: list[Meter], now_ms: int) -> Body:
    """Return the batch of some readings. Raises BatchError."""
    try:
        data = encode(Batch(batch_id, samples, assets, meters))
    except OverflowError as error:
        raise BatchError(f"a number does not fit into 64 bits: {error}") from error
    return of_arrow(data, now_ms)
