"""Reading batches as agents send them (core/batch.py): whole and sound, or refused with the reason."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.batch import COLUMNS, METADATA_KEY
from wattkeeper.core.errors import BatchError, ConfigError
from wattkeeper.core.live import Loss

EARLIEST_MS = 946_684_800_000
"""2000-01-01: what was read before was read by a clock that had not been set."""

AHEAD_MS = 86_400_000
"""A reading may be this far in the future: more is no clock that runs fast but one that is wrong."""

VALUE_LIMIT = 2**62
"""Beyond it differences of values no longer fit into 64 bits."""

MAX_ROWS = 4_000_000
MAX_NAME = 512
"""Readings in a batch; characters of a name."""

T = TypeVar("T", Asset, Meter)

_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in zip(COLUMNS, (pa.int32(), pa.int64(), pa.int64()), strict=True)
    ]
)
_U16, _U32, _I32 = (struct.Struct(form) for form in ("<H", "<I", "<i"))
_HEAD_KEYS = {"id", "meters", "assets", "declared"}


@dataclass(frozen=True, slots=True)
class Received:
    """A sound batch. index: (n,) int32 place in `meters`; time_ms, value: (n,) int64.

    id: "" for one whose sender never sends twice.
    """

    id: str
    meters: list[str]
    index: NDArray[np.int32]
    time_ms: NDArray[np.int64]
    value: NDArray[np.int64]
    assets: list[Asset] = field(default_factory=list)
    declared: list[Meter] = field(default_factory=list)
    lost: list[Loss] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many readings it has."""
        return len(self.index)

    def newest_ms(self) -> int | None:
        """Return the time of its newest reading; None where it has none."""
        return int(self.time_ms.max()) if self.rows else None


def decode(data: bytes, now_ms: int) -> Received:
    """Return a batch. Raises BatchError with the reason where anything about it is not as it must be.

    now_ms: the receiver's clock, for readings from the future.
    """
    try:
        _check_messages(data)
        with pa.ipc.open_stream(data) as stream:
            schema = stream.schema
            _check_schema(schema)
            table = stream.read_all()
            table.validate(full=True)
    except BatchError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError, struct.error) as error:
        raise BatchError(f"not a whole Arrow stream: {_short(error)}") from error
    if table.num_rows > MAX_ROWS:
        raise BatchError(f"{table.num_rows} readings; a batch has at most {MAX_ROWS}")
    head = _head(schema.metadata)
    index, time_ms, value = (_values(table[name]) for name in COLUMNS)
    _check_rows(index, time_ms, value, len(head["meters"]), now_ms)
    assets = [_record(Asset, r) for r in head["assets"]]
    declared = [_record(Meter, r) for r in head["declared"]]
    lost = [_loss(one) for one in head.get("lost", ())]
    return Received(head["id"], head["meters"], index, time_ms, value, assets, declared, lost)


def readings(
    meters: list[str], index: NDArray[np.int32], time_ms: NDArray[np.int64], value: NDArray[np.int64]
) -> pl.DataFrame:
    """Return readings as a table whose meters are an Enum in the order of their names: quick to sort and to write."""
    order = sorted(set(meters))
    place = {name: i for i, name in enumerate(order)}
    codes = np.array([place[m] for m in meters], np.uint32)[index] if len(index) else np.zeros(0, np.uint32)
    meter = pl.Series("meter", codes).cat.to(pl.Enum(order))
    return pl.DataFrame([meter, pl.Series("time_ms", time_ms), pl.Series("value", value)])


def _check_messages(data: bytes) -> None:
    """Refuse compressed buffers before they are unpacked: a few of them would fill the memory."""
    for message in pa.ipc.MessageReader.open_stream(data):
        if message.type == "record batch" and _is_compressed(message.metadata.to_pybytes()):
            raise BatchError("its buffers are compressed; compress the whole with Content-Encoding instead")


def _is_compressed(meta: bytes) -> bool:
    """Return whether a record batch's flatbuffer, which Arrow has verified, has its field `compression`."""
    message = _U32.unpack_from(meta)[0]
    place = message + _slot(meta, message, 2)
    batch = place + _U32.unpack_from(meta, place)[0]
    return _slot(meta, batch, 3) != 0


def _slot(meta: bytes, table: int, number: int) -> int:
    """Return where in a flatbuffer's table a field is; 0 where it has none."""
    index = table - _I32.unpack_from(meta, table)[0]
    at = 4 + 2 * number
    return int(_U16.unpack_from(meta, index + at)[0]) if at < _U16.unpack_from(meta, index)[0] else 0


def _check_schema(schema: pa.Schema) -> None:
    if not schema.equals(_SCHEMA):
        told = ", ".join(f"{f.name} {f.type}{'' if f.nullable else ' not null'}" for f in list(schema)[:8])
        raise BatchError(f"columns are ({told}), not (meter int32, time_ms int64, value int64), none of them nullable")


def _head(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Return the batch's metadata, of the right shape."""
    try:
        head = json.loads((metadata or {})[METADATA_KEY])
    except KeyError:
        raise BatchError(f"the schema has no metadata '{METADATA_KEY.decode()}'") from None
    except (ValueError, RecursionError) as error:
        raise BatchError(f"the metadata '{METADATA_KEY.decode()}' is not JSON: {_short(error)}") from error
    if not isinstance(head, dict) or set(head) - {"lost"} != _HEAD_KEYS:
        raise BatchError(f"the metadata has not exactly the keys {', '.join(sorted(_HEAD_KEYS))}")
    names = head["meters"]
    if not (head["id"] == "" or _is_name(head["id"])) or not (isinstance(names, list) and all(map(_is_name, names))):
        raise BatchError(f"id and meters must be text of at most {MAX_NAME} printable characters")
    if len(set(names)) != len(names):
        raise BatchError("a meter is named twice")
    for key in ("assets", "declared", "lost"):
        if not isinstance(head.get(key, []), list):
            raise BatchError(f"'{key}' is not a list")
    return head


def _is_name(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME and text.isprintable()


def _check_rows(
    index: NDArray[np.int32], time_ms: NDArray[np.int64], value: NDArray[np.int64], meters: int, now_ms: int
) -> None:
    if not len(index):
        return
    if index.min() < 0 or index.max() >= meters:
        at = int(np.flatnonzero((index < 0) | (index >= meters))[0])
        raise BatchError(f"reading {at} speaks of meter {index[at]}, and {meters} are named")
    first, last = int(time_ms.min()), int(time_ms.max())
    if first < EARLIEST_MS:
        raise BatchError(f"a reading is of {first} ms, before the year 2000; set the sender's clock")
    if last > now_ms + AHEAD_MS:
        raise BatchError(f"a reading is {(last - now_ms) // 1000} s ahead of this clock; set the sender's clock")
    if value.max() >= VALUE_LIMIT or value.min() <= -VALUE_LIMIT:
        raise BatchError("a value is too large for a meter")


_FIELDS = {kind: {f.name: str(f.type) for f in fields(kind)} for kind in (Asset, Meter)}
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "str | None": (str, type(None)), "int": (int,),
    "float": (int, float), "float | None": (int, float, type(None)),
}  # fmt: skip


def _record(kind: type[T], record: object) -> T:
    """Return an asset or a meter from its JSON. Raises BatchError."""
    if not isinstance(record, dict) or not _is_name(record.get("id")):
        raise BatchError(f"an {kind.__name__.lower()} without an id")
    name = f"{kind.__name__.lower()} '{record['id']}'"
    types = _FIELDS[kind]
    for key, value in record.items():
        if key not in types:
            raise BatchError(f"{name} has '{key}', which this version does not know")
        if not isinstance(value, _TYPES[types[key]]) or isinstance(value, bool):
            raise BatchError(f"{name} has {key} {value!r}, not {types[key]}")
        if isinstance(value, float | int) and not 0 <= value < VALUE_LIMIT:
            raise BatchError(f"{name} has {key} {value!r}, which is no amount")
    try:
        return kind(**record)
    except (ConfigError, TypeError) as error:
        raise BatchError(f"{name}: {_short(error)}") from error


def _loss(record: object) -> Loss:
    """Return a loss from its JSON. Raises BatchError."""
    if isinstance(record, list) and len(record) == len(Loss._fields) and _is_name(record[0]):
        loss = Loss(*record)
        whole = all(type(n) is int and n < VALUE_LIMIT for n in record[1:])
        if whole and EARLIEST_MS <= loss.start_ms <= loss.end_ms and loss.readings > 0:
            return loss
    raise BatchError(f"a loss is {_short(ValueError(record))}, not [meter, start_ms, end_ms, readings]")


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    values: NDArray[Any] = whole.to_numpy(zero_copy_only=False)
    return values


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
