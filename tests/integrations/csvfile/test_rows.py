"""Small input tables: cells by kind, and one sentence for what cannot be read."""

from __future__ import annotations

import pytest

from wattkeeper.core.errors import ImportFileError
from wattkeeper.integrations.csvfile.rows import read_rows


def read(tmp_path, text):
    path = tmp_path / "limits.csv"
    path.write_text(text)
    return read_rows(path, ["site", "start"], ["gpus", "note"], reals=["gpus"], times=["start"])


def test_cells_come_by_kind_and_blank_ones_as_none(tmp_path):
    """2026-01-01 is 1 767 225 600 000 ms, 20 454 days; a column that is not there is absent, one that is not ours is left."""
    rows = read(tmp_path, "gpus,start,site,row\n8,2026-01-01T01:00,a,x\n,2026-01-01T02:00,b,y\n")

    assert [cells for _, cells in rows] == [
        {"site": "a", "start": 1_767_229_200_000, "gpus": 8.0},
        {"site": "b", "start": 1_767_232_800_000, "gpus": None},
    ]
    assert rows[1][0] == rows[0][0] + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("site\na\n", r"has no column 'start'\. It needs site, start; it may have gpus, note\.$"),
        ("site,start,start\na,2026-01-01,2026-01-02\n", r"has two columns 'start'\. Leave out one of them\.$"),
        ("site,start\na,noon\n", r"row 2: start cannot be read as ISO 8601\.$"),
        ("site,start\n,2026-01-01\n", r"row 2: site is missing\.$"),
        ("site,start,gpus\na,2026-01-01,many\n", r"row 2: gpus is not a number\.$"),
    ],
)
def test_the_first_thing_that_cannot_be_read_is_told(tmp_path, text, words):
    with pytest.raises(ImportFileError, match=words):
        read(tmp_path, text)
