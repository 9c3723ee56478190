"""Files as a whole: what they may be, how rows are counted, and what is said when one cannot be used."""

from __future__ import annotations

import gzip

import polars as pl
import pytest

from wattkeeper.config import CsvConfig, parse
from wattkeeper.core.errors import ConfigError, ImportFileError
from wattkeeper.integrations.csvfile import BUILTIN, CsvSource, find_layout, link

RAW = {"kind": "readings"}
TEXT = "meter,time_ms,value\na,1767225600000,1\nb,1767225600000,2\n"
BOTH = [("a", 1767225600000, 1), ("b", 1767225600000, 2)]


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.rstrip("\n"),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        "\ufeff" + TEXT,
        TEXT.replace("meter,", ' "meter" , ').replace('" ,', '",').replace(' "', '"'),
        "\n\n" + TEXT.replace("\nb", "\n\n  \nb"),
        "\ufeffsep=;\r\n" + TEXT.replace(",", ";").replace("\n", "\r\n"),
        TEXT.replace("\na", '\n"a"').replace(",2\n", ',"2"\n'),
        gzip.compress(TEXT.encode()),
    ],
    ids=["plain", "no end", "crlf", "semicolon", "tab", "bom", "quoted header", "blank lines", "sep", "quoted", "gzip"],
)
def test_the_usual_kinds_of_csv_are_one(load, content):
    """Line ends, separators, byte order marks, quotes, blank lines and gzip change nothing."""
    got = load(content, **RAW)

    assert got.readings == BOTH
    assert got.refused == []


def test_blank_lines_count_in_row_numbers(load):
    """Row numbers are the line numbers an editor shows."""
    got = load("\nmeter,time_ms,value\n\n\nm,1767225600000,x\n", **RAW)

    assert got.refused == [(5, "value is not a number")]


def test_row_numbers_go_on_through_blocks(load, monkeypatch):
    """Read in blocks of 50 bytes, the bad rows 3 and 203 still have their numbers."""
    monkeypatch.setattr(link, "BLOCK_BYTES", 50)
    lines = [f"m{i},1767225600000,{i}" for i in range(2, 301)]
    lines[1], lines[201] = "bad,1767225600000,-1", "ragged"
    got = load("meter,time_ms,value\n" + "\n".join(lines), **RAW)

    assert got.refused == [(3, "value is negative"), (203, "1 cells where the header has 3")]
    assert [value for *_, value in got.readings] == [i for i in range(2, 301) if i not in (3, 203)]
    assert len(got.batches) > 50


def test_row_numbers_go_on_through_row_groups(load_frame, monkeypatch):
    """The null in row 250 of a Parquet file of row groups of 100 is row 250."""
    monkeypatch.setattr(link, "PARQUET_ROWS", 64)
    frame = pl.DataFrame(
        {"meter": "m", "time_ms": 1767225600000, "value": [None if i == 250 else i for i in range(1, 301)]}
    )
    got = load_frame(frame, row_group_size=100, **RAW)

    assert got.refused == [(250, "value is missing")]
    assert len(got.readings) == 299
    assert len(got.batches) > 3


def test_an_open_quote_costs_its_line_only(load):
    """The rest of the file is not swallowed by it."""
    got = load('meter,time_ms,value\n"a,1767225600000,1\nb,1767225600000,2\n', **RAW)

    assert got.readings == BOTH[1:]
    assert got.refused == [(2, "a quote is not closed on its line")]


def test_a_row_that_is_not_utf8_costs_itself_only(load):
    """A Latin-1 name in one row is listed; the others come in."""
    got = load(TEXT.encode().replace(b"\na", b"\n\xe9"), **RAW)

    assert got.readings == BOTH[1:]
    assert got.refused == [(2, "not UTF-8 text")]


def test_a_quoted_separator_belongs_to_its_cell(load):
    """ "rack 1, left" is one name."""
    assert load('meter,time_ms,value\n"rack 1, left",1767225600000,1\n', **RAW).readings == [
        ("rack 1, left", 1767225600000, 1)
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty."),
        (b"\n\n", "is empty."),
        (b"meter,time_ms,value\n", "has a header and no rows."),
        (TEXT.encode("utf-16"), "is not UTF-8 text. Save it as CSV in UTF-8."),
        (gzip.compress(TEXT.encode() * 9999)[:-20], "cannot be read after row"),
        (b"PAR1 no", "is not a whole Parquet file"),
        (
            b"meter,when,value\nm,1,1\n",
            r"has no column 'time'. It has: meter, when, value. "
            r'Write columns = \{ time = "<one of them>" \} under \[csv.test\] in the site file.',
        ),
        (b"meter,time_ms,value,value\nm,1,1,1\n", "has the column 'value' twice. Rename one of them in the file."),
    ],
)
def test_a_file_that_cannot_be_used_says_why(load, content, words):
    """Whole-file faults name the file, what it has, and the cure."""
    with pytest.raises(ImportFileError, match=words) as caught:
        load(content, **RAW)
    assert "file.csv" in str(caught.value)


def test_a_missing_file_and_an_empty_parquet(tmp_path, load_frame):
    """Both are said in one line."""
    with pytest.raises(ImportFileError, match=r"Cannot read .*nowhere.csv: No such file or directory."):
        list(CsvSource(tmp_path / "nowhere.csv", BUILTIN["readings"], "test").read())
    with pytest.raises(ImportFileError, match=r"file.parquet has no rows."):
        load_frame(pl.DataFrame(schema={"meter": pl.String, "time_ms": pl.Int64, "value": pl.Int64}), **RAW)


def test_a_line_without_end_is_not_loaded_whole(load, monkeypatch):
    """A file that is one endless line is refused before it fills the memory."""
    monkeypatch.setattr(link, "BLOCK_BYTES", 100)
    monkeypatch.setattr(link, "LONGEST_LINE_BYTES", 1000)
    with pytest.raises(ImportFileError, match=r"has a line of over 64 MiB at row 2: not a CSV file."):
        load("meter,time_ms,value\n" + "x" * 2000, **RAW)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"value": "watts"}, r"has no column 'watts'. It has: meter, time_ms, value."),
        ({"value": "valeu"}, r'Write "value" in its place under \[csv.test\]'),
        ({"power": "value"}, r"Layout 'test' maps 'power', but readings have only time, value, meter."),
    ],
)
def test_a_layout_that_does_not_fit_says_what_to_write(load, columns, words):
    """A column the file lacks, with the nearest name, and a name of ours that does not exist."""
    with pytest.raises(ImportFileError, match=words):
        load(TEXT, columns=columns, **RAW)


def test_a_wide_pattern_without_a_column(load):
    """No header matches: the sentence lists what there is."""
    with pytest.raises(ImportFileError, match=r"has no column 'node\*'. It has: meter, time_ms, value."):
        load(TEXT, wide=True, wide_columns="node*", **RAW)


def test_layouts_are_found_in_the_site_file_first():
    """The user's own layout of a name comes before ours."""
    mine = CsvConfig(kind="jobs", timezone="Europe/Berlin")

    assert find_layout("jobs", {"jobs": mine}) is mine
    assert find_layout("jobs", {}) is BUILTIN["jobs"]


def test_an_unknown_layout_names_the_known_ones():
    """The sentence lists the user's layouts and ours, and where to describe a new one."""
    with pytest.raises(ConfigError) as caught:
        find_layout("pdu", {"rack": BUILTIN["readings"]})
    assert str(caught.value) == (
        "No CSV layout named 'pdu'. The site file has rack; ready-made are readings, jobs, allocations, signals, "
        "assets, electricitymaps, electricitymaps-2025. Describe it under [csv.pdu] in the site file."
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('kind = "readings"\nunit = "W"', "unit is 'W' but quantity is not set"),
        ('kind = "readings"\nquantity = "power"', "quantity power needs a unit: one of uW, mW, W, kW, MW"),
        ('kind = "readings"\nquantity = "power"\nunit = "J"', "unit 'J' is not one of power: uW, mW, W, kW, MW"),
        ('kind = "readings"\nquantity = "energy_interval"\nunit = "Wh"', "energy_interval needs interval_ms"),
        ('kind = "jobs"\nwide = true', "wide is for readings, and this layout is for jobs"),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused_with_the_site_file(lines, words):
    """The site file is not accepted, long before any import."""
    with pytest.raises(ConfigError, match=words):
        parse(f'[[site]]\nid = "s"\n[csv.x]\n{lines}\n')


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a\0,1767225600000,1", "not UTF-8 text"),
        ('"a,1767225600000,1', "a quote is not closed on its line"),
        (f'"{"a" * 200_000}",1767225600000,1', "a cell is longer than 131,072 characters"),
    ],
)
def test_a_row_that_cannot_be_told_apart_costs_itself_only(load, row, reason):
    got = load(TEXT + row + "\nc,1767225600000,3\n", **RAW)

    assert got.readings == [*BOTH, ("c", 1767225600000, 3)]
    assert got.refused == [(4, reason)]


@pytest.mark.parametrize("name", ["row", "line", "value_known", "^.*$", "*", "{meter}", "=m", "cell", "why", "literal"])
@pytest.mark.parametrize("write", ["csv", "parquet"])
def test_a_column_may_have_any_name(load, load_frame, name, write):
    """What a file calls its columns is never taken for a name of ours, nor for a pattern."""
    frame = pl.DataFrame({name: ["a", "b"], "t": [1767225600000] * 2, "v": [1, 2]})
    layout = {**RAW, "columns": {"meter": name, "time": "t", "value": "v"}, "time_format": "ms"}
    got = load(frame.write_csv(), **layout) if write == "csv" else load_frame(frame, **layout)

    assert got.readings == BOTH
    with pytest.raises(ImportFileError, match=r"maps 'row', but readings have only time, value, meter\. Correct"):
        load(frame.write_csv(), **(layout | {"columns": {"row": name, "time": "t", "value": "v"}}))


@pytest.mark.parametrize("values", [[[1], [2]], [{"a": 1}, {"a": 2}]])
def test_a_parquet_column_of_lists_or_records_is_told(load_frame, values):
    frame = pl.DataFrame({"meter": ["a", "b"], "time_ms": [1767225600000] * 2, "value": values})
    with pytest.raises(ImportFileError, match=r"column 'value' holds .*, not single values\."):
        load_frame(frame, **RAW)


def test_what_is_no_number_nor_time_in_parquet_is_refused_row_by_row(load_frame):
    frame = pl.DataFrame({"meter": ["a", "b"], "time_ms": [1767225600000] * 2, "value": [True, None]})
    assert load_frame(frame, **RAW).refused == [(1, "value is not a number"), (2, "value is missing")]


EXPORT = (
    "Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO₂eq/kWh (direct),"
    "Carbon intensity gCO₂eq/kWh (Life cycle),Data estimated\n"
    "2026-01-01 00:00:00,Germany,Germany,DE,210.11,256.33,false\n"
    "2026-01-01 01:00:00,Germany,Germany,DE,212.00,258.10,true\n"
)


def test_an_export_of_the_other_year_names_its_layout(tmp_path):
    """The file of 2025 read as the older one: the column of direct emissions is never proposed for the life cycle's."""
    path = tmp_path / "DE.csv"
    path.write_text(EXPORT, "utf-8")

    with pytest.raises(ImportFileError, match=r"Its columns are those of --as electricitymaps-2025\.$") as fault:
        list(CsvSource(path, BUILTIN["electricitymaps"], "electricitymaps").read())
    assert "direct" not in str(fault.value)
    (intake,) = [i for i in CsvSource(path, BUILTIN["electricitymaps-2025"], "").read() if i.signals.height]
    assert intake.signals["value"].to_list() == [256.33, 258.1]


def test_what_stands_in_brackets_is_another_quantity(load):
    """A layout that wants (LCA) is not sent to the column (direct)."""
    with pytest.raises(ImportFileError, match=r'Write "<one of them>" in its place'):
        load(
            EXPORT,
            kind="signals",
            signal="intensity:{Zone}",
            columns={"start": "Datetime (UTC)", "value": "Carbon intensity gCO₂eq/kWh (LCA)"},
        )
