"""A batch as it leaves an agent, read with pyarrow."""

import json
import subprocess
import sys

import pyarrow as pa

from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.batch import METADATA_KEY, Batch, encode
from wattkeeper.core.live import Sample


def opened(data):
    table = pa.ipc.open_stream(data).read_all()
    table.validate(full=True)
    return table, json.loads(table.schema.metadata[METADATA_KEY])


def test_a_batch_is_an_arrow_stream_that_names_its_meters_once():
    samples = [Sample("n1/gpu0", 1_000, 7), Sample("n1", 1_001, -3), Sample("n1/gpu0", 2_000, 2**62)]
    node, meter = Asset("n1", "node", "site"), Meter("n1", "n1", "power", "ipmi")

    table, head = opened(encode(Batch("n1/a/1", samples, [node], [meter])))

    assert table.to_pydict() == {"meter": [0, 1, 0], "time_ms": [1_000, 1_001, 2_000], "value": [7, -3, 2**62]}
    assert not any(field.nullable for field in table.schema)
    assert head["id"] == "n1/a/1"
    assert head["meters"] == ["n1/gpu0", "n1"]
    assert [Asset(**a) for a in head["assets"]] == [node]
    assert [Meter(**m) for m in head["declared"]] == [meter]


def test_a_batch_may_hold_no_reading_at_all():
    table, head = opened(encode(Batch("n1/a/2", [], [Asset("n1", "node", "site")])))

    assert table.num_rows == 0
    assert head["meters"] == []


def test_an_agent_needs_neither_polars_nor_pyarrow_to_write_one():
    code = "import sys, wattkeeper.core.batch; sys.exit(bool({'polars', 'pyarrow', 'numpy'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
