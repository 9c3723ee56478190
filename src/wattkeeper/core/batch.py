"""A batch: readings on their way from an agent to a book, with the assets and meters they belong to.

A batch is one Arrow IPC stream with the columns of `COLUMNS` and one entry `wattkeeper` of schema metadata, which is
JSON: `{"id", "meters", "assets", "declared"}`, and `"lost"` where readings were. It is written with nanoarrow, so that an
agent needs neither pyarrow nor Polars; whatever reads Arrow can read it.
"""

from __future__ import annotations

import dataclasses
import io
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import nanoarrow as na
from nanoarrow import ipc

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.errors import BatchError
from wattkeeper.core.live import Loss, Sample

METADATA_KEY = b"wattkeeper"

COLUMNS = {"meter": na.int32(nullable=False), "time_ms": na.int64(nullable=False), "value": na.int64(nullable=False)}
"""meter: place in `meters` of the metadata; time_ms [ms UTC]; value in the unit of the meter's quantity."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Readings with the assets and meters that the receiver may not know yet.

    id: unique for all time, such as "n01/5f0c…/000042": receiving a batch twice is receiving it once.
    lost: what was read and is in no batch.
    """

    id: str
    samples: Sequence[Sample]
    assets: Sequence[Asset] = ()
    meters: Sequence[Meter] = ()
    lost: Sequence[Loss] = ()


def encode(batch: Batch) -> bytes:
    """Return the batch as one Arrow IPC stream."""
    names: dict[str, int] = {}
    index = array("i", [names.setdefault(s.meter, len(names)) for s in batch.samples])
    columns = (index, array("q", [s.time_ms for s in batch.samples]), array("q", [s.value for s in batch.samples]))
    head: dict[str, object] = {
        "id": batch.id,
        "meters": list(names),
        "assets": [dataclasses.asdict(a) for a in batch.assets],
        "declared": [dataclasses.asdict(m) for m in batch.meters],
    }
    if batch.lost:
        head["lost"] = batch.lost
    schema = na.c_schema(na.struct(COLUMNS, nullable=False)).modify(metadata={METADATA_KEY: json.dumps(head).encode()})
    children = [na.c_array(c, t) for c, t in zip(columns, COLUMNS.values(), strict=True)]
    rows = na.c_array_from_buffers(schema, len(index), [None], children=children, null_count=0)
    out = io.BytesIO()
    with ipc.StreamWriter.from_writable(out) as writer:
        writer.write_stream(rows)
    return out.getvalue()


def decode(data: bytes) -> Batch:
    """Return what `encode` made a stream of. Raises BatchError where the bytes are none of its own."""
    try:
        stream = na.c_array_stream(ipc.InputStream.from_readable(io.BytesIO(data)))
        head = json.loads(dict(stream.get_schema().metadata.items())[METADATA_KEY])
        columns = [memoryview(c.view().buffer(1)).tolist() for c in stream.get_next().children]
        names = head["meters"]
        samples = [Sample(names[i], time_ms, value) for i, time_ms, value in zip(*columns, strict=True)]
        assets, meters = [Asset(**a) for a in head["assets"]], [Meter(**m) for m in head["declared"]]
        return Batch(head["id"], samples, assets, meters, [Loss(*one) for one in head.get("lost", ())])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BatchError(f"not a batch of an agent: {error}") from error
