"""A batch: readings on their way from an agent to a book, with the assets and meters they belong to.

A batch is one Arrow IPC stream with the columns of `COLUMNS` and one entry `wattkeeper` of schema metadata, which is
JSON: `{"id", "meters", "assets", "declared"}`. It is written with nanoarrow, so that an agent needs neither pyarrow nor
Polars; whatever reads Arrow can read it.
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
from wattkeeper.core.live import Sample

METADATA_KEY = b"wattkeeper"

COLUMNS = {"meter": na.int32(nullable=False), "time_ms": na.int64(nullable=False), "value": na.int64(nullable=False)}
"""meter: place in `meters` of the metadata; time_ms [ms UTC]; value in the unit of the meter's quantity."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Readings with the assets and meters that the receiver may not know yet.

    id: unique for all time, such as "n01/5f0c…/000042": receiving a batch twice is receiving it once.
    """

    id: str
    samples: Sequence[Sample]
    assets: Sequence[Asset] = ()
    meters: Sequence[Meter] = ()


def encode(batch: Batch) -> bytes:
    """Return the batch as one Arrow IPC stream."""
    names: dict[str, int] = {}
    index = array("i", [names.setdefault(s.meter, len(names)) for s in batch.samples])
    columns = (index, array("q", [s.time_ms for s in batch.samples]), array("q", [s.value for s in batch.samples]))
    head = {
        "id": batch.id,
        "meters": list(names),
        "assets": [dataclasses.asdict(a) for a in batch.assets],
        "declared": [dataclasses.asdict(m) for m in batch.meters],
    }
    schema = na.c_schema(na.struct(COLUMNS, nullable=False)).modify(metadata={METADATA_KEY: json.dumps(head).encode()})
    children = [na.c_array(c, t) for c, t in zip(columns, COLUMNS.values(), strict=True)]
    rows = na.c_array_from_buffers(schema, len(index), [None], children=children, null_count=0)
    out = io.BytesIO()
    with ipc.StreamWriter.from_writable(out) as writer:
        writer.write_stream(rows)
    return out.getvalue()
