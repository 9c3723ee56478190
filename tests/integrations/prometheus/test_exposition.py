"""Pages as exporters serve them: text format and OpenMetrics, recorded nodes, broken lines."""

from __future__ import annotations

import pytest

from tests.integrations.prometheus.conftest import NOW, SHARED, holdings, values
from wattkeeper.core.errors import ImportFileError, SourceError
from wattkeeper.integrations.prometheus.exposition import ExpositionSource
from wattkeeper.integrations.prometheus.link import Access
from wattkeeper.integrations.prometheus.series import Options

recorded = pytest.mark.skipif(not SHARED.exists(), reason="the recorded expositions are not here")
CPU = "node_rapl_package_joules_total"


def read(tmp_path, text, **options):
    """Return what a page says, read at NOW."""
    (tmp_path / "page.txt").write_text(text, "utf-8")
    (intake,) = ExpositionSource(str(tmp_path / "page.txt"), NOW, options=Options(**options)).read()
    return intake


def test_a_page_is_read_at_one_instant(tmp_path):
    """Samples without a time stamp were true when the page was read; comments and other metrics are passed over."""
    intake = read(tmp_path, f'# TYPE {CPU} counter\n{CPU}{{index="0"}} 1.5\ngo_goroutines 9\n', host="n1")

    assert [("n1/cpu0::node-exporter:energy_counter", NOW, 1500)] == intake.readings.rows()


@pytest.mark.parametrize(("stamp", "end"), [("1760000000123", ""), ("1760000000.123", "# EOF\n")])
def test_a_samples_own_time_stamp_wins(tmp_path, stamp, end):
    """Milliseconds in the text format, seconds in OpenMetrics."""
    intake = read(tmp_path, f'{CPU}{{index="0"}} 1.5 {stamp}\n{end}', host="n1")

    assert [1_760_000_000_123] == intake.readings["time_ms"].to_list()


def test_samples_of_one_series_are_one_series(tmp_path):
    """A page of backfill: three instants of one counter, in any order."""
    lines = "".join(f'{CPU}{{index="0"}} {v} {NOW + v}\n' for v in (3, 1, 2))

    assert {"n1/cpu0::node-exporter:energy_counter": [1000, 2000, 3000]} == values(read(tmp_path, lines, host="n1"))


def test_a_broken_line_costs_only_itself(tmp_path):
    """Line 2 lacks a brace, line 3 has no number: both are told, the others are kept."""
    text = f'{CPU}{{index="0"}} 1\n{CPU}{{index="1" 2\n{CPU}{{index="2"}} x\n{CPU}{{index="3"}} 4\n'
    intake = read(tmp_path, text, host="n1")

    assert ["n1/cpu0::node-exporter:energy_counter", "n1/cpu3::node-exporter:energy_counter"] == list(values(intake))
    assert [(2, f'{CPU}{{index="1" 2'), (3, f'{CPU}{{index="2"}} x')] == [(r.row, r.text) for r in intake.rejects]
    assert all(r.reason.startswith("line cannot be read: ") for r in intake.rejects)


def test_text_that_is_no_exposition_is_told(tmp_path):
    """A login page in place of metrics is told as such."""
    with pytest.raises(ImportFileError, match=r"page\.txt is not in the Prometheus text format: '<html>login"):
        read(tmp_path, "<html>login</html>")


def test_a_file_that_is_not_there_is_told(tmp_path):
    """The path and the reason are in one line."""
    with pytest.raises(ImportFileError, match=r"Cannot read .*/none as an exposition: .*No such file"):
        next(ExpositionSource(str(tmp_path / "none"), NOW).read())


def test_an_address_that_does_not_answer_is_told():
    """A refused connection is one line."""
    source = ExpositionSource("http://127.0.0.1:9/metrics", NOW, access=Access(retries=0))
    with pytest.raises(SourceError, match=r"http://127.0.0.1:9/metrics does not answer: .*refused"):
        next(source.read())


@recorded
def test_a_recorded_node_with_shared_gpus():
    """RAPL of two packages, DCMI, two chassis; GPUs held alone, by two jobs, by shards, and as MIG instances."""
    page = SHARED / "e2e-test-cgroupsv2-nvidia-ipmiutil-output.txt"
    (intake,) = ExpositionSource(str(page), NOW, options=Options(jobs_from="ceems", host="n1")).read()

    assert {
        "n1/cpu0::ceems:energy_counter": [258_218_293],  # 258218.293244 J
        "n1/cpu1::ceems:energy_counter": [130_570_506],  # 130570.505826 J
        "n1/dram0::ceems:energy_counter": [24_468_410],  # 24468.409791 J
        "n1/dram1::ceems:energy_counter": [64_930_395],  # 64930.394974 J
        "n1::ceems-ipmi:power": [49_000],
        "n1::ceems-redfish/Chassis_1:power": [397_000],
        "n1::ceems-redfish/Chassis_2:power": [1_696_000],
    } == values(intake)
    assert [
        ("1009248", "n1/gpu2/1", 0, 30, 1.0),
        ("1009249", "n1/gpu0", 0, 30, 1.0),
        ("1009249", "n1/gpu1", 0, 30, 0.5),  # flags 1 and 1
        ("1009250", "n1/gpu1", 0, 30, 0.5),
        ("2009248", "n1/gpu7/6", 0, 30, 1.0),
        ("2009249", "n1/gpu8", 0, 30, 1.0),
        ("2009249", "n1/gpu9", 0, 30, 0.75),  # shards
        ("2009250", "n1/gpu9", 0, 30, 0.25),
    ] == holdings(intake)
    assert [] == intake.rejects


@recorded
def test_a_recorded_node_with_three_instances_of_one_gpu():
    """CEEMS numbers them 7, 8 and 9; one UUID makes them instances of one GPU. Cray's counters stand beside RAPL."""
    page = SHARED / "e2e-test-cgroupsv2-nvidia-gpu-reordering.txt"
    (intake,) = ExpositionSource(str(page), NOW, options=Options(jobs_from="ceems", host="n1")).read()
    found = values(intake)

    assert [("n1/gpu7/1", 1.0), ("n1/gpu7/5", 1.0), ("n1/gpu7/6", 0.5), ("n1/gpu7/6", 0.5)] == [
        (asset, share) for _, asset, _, _, share in holdings(intake) if asset.startswith("n1/gpu7")
    ]
    assert [1_360_621_494_000] == found["n1::cray:energy_counter"]  # 1.360621494e+09 J
    assert [251_713_932_000] == found["n1/gpu3::cray:energy_counter"]  # 2.51713932e+08 J
    assert [873_000] == found["n1::cray:power"]
    assert {"n1/cpu0", "n1/cpu1"} == {m.asset for m in intake.meters if "cpu" in m.asset}
