"""From samples to readings: units, one device once, sentinels, who held what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wattkeeper.core.errors import ImportFileError, SourceError
from wattkeeper.integrations.prometheus.exposition import ExpositionSource
from wattkeeper.integrations.prometheus.series import Series, mig_slice, to_intake

TELEMETRY = Path(__file__).resolve().parents[4] / "shared" / "data" / "telemetry" / "ceems"
GPU = {"gpu": "0", "UUID": "GPU-1", "modelName": "NVIDIA H100 80GB HBM3", "Hostname": "n1"}
NOW = 1_760_000_000_000


def series(name, value, time_ms=(NOW,), **labels):
    """Return one series."""
    values = np.atleast_1d(np.array(value, float))
    return Series(name, labels, np.array(time_ms[: len(values)], np.int64), values)


def readings(*found, **options):
    """Return {meter: value} of an intake's readings."""
    rows = to_intake(found, "test", **options).readings
    return dict(rows.select("meter", "value").rows())


def test_dcgm_energy_is_millijoules_and_power_watts():
    """A counter in mJ stays as it is; 412.331 W are 412 331 mW."""
    energy = series("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 126_272_101_025, **GPU)
    power = series("DCGM_FI_DEV_POWER_USAGE", 412.331, **GPU)

    assert {
        "n1/gpu0:GPU-1:dcgm:energy_counter": 126_272_101_025,
        "n1/gpu0:GPU-1:dcgm-average:power": 412_331,
    } == readings(energy, power)


def test_new_dcgm_names_and_labels_are_the_same_meter():
    """The names of DCGM 4.6 and the lower-case hostname change nothing."""
    old = series("DCGM_FI_DEV_POWER_USAGE", 400, **GPU)
    lower = {("hostname" if k == "Hostname" else k): v for k, v in GPU.items()}
    new = series("DCGM_FI_DEV_BOARD_POWER_WATTS", 400, **lower)

    assert readings(old) == readings(new)


def test_a_device_repeated_for_instances_jobs_and_pods_is_read_once():
    """Four copies of one GPU's counter, for MIG instances, a job and a pod, are one reading."""
    copies = [
        series("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 5000, **GPU, **extra)
        for extra in ({"GPU_I_ID": "1"}, {"GPU_I_ID": "2"}, {"hpc_job": "7"}, {"exported_pod": "p"})
    ]

    assert {"n1/gpu0:GPU-1:dcgm:energy_counter": 5000} == readings(*copies)


def test_a_swapped_gpu_is_another_meter():
    """The UUID is part of the meter, so two cards in one slot never share a counter."""
    other = {**GPU, "UUID": "GPU-2"}
    found = readings(*(series("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1, **g) for g in (GPU, other)))

    assert 2 == len(found)


def test_activity_of_mig_instances_stands_on_the_instances():
    """GR_ENGINE_ACTIVE with an instance id is the activity of a 3/7 slice; 1g on an A30 is a quarter."""
    labels = {**GPU, "GPU_I_ID": "2", "GPU_I_PROFILE": "3g.40gb"}
    intake = to_intake([series("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.25, **labels)], "test")

    assert {"n1/gpu0/2:GPU-1:dcgm-gr:utilisation": 250_000} == dict(intake.readings.select("meter", "value").rows())
    assert {("n1", "node"), ("n1/gpu0", "gpu"), ("n1/gpu0/2", "mig")} == {(a.id, a.kind) for a in intake.assets}
    assert 3 / 7 == next(a.slice for a in intake.assets if a.kind == "mig")
    assert 0.25 == mig_slice("1g.6gb", "NVIDIA A30")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("DCGM_FI_DEV_POWER_USAGE", 140_737_488_355_328.0, "a sentinel"),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 9_223_372_036_854_775_794.0, "a sentinel"),
        ("DCGM_FI_DEV_POWER_USAGE", float("nan"), "not a number"),
        ("DCGM_FI_DEV_POWER_USAGE", -1.0, "negative"),
        ("DCGM_FI_DEV_POWER_USAGE", 160_000.0, "more than a gpu can draw"),
        ("DCGM_FI_DEV_GPU_UTIL", 101.0, "above 100 %"),
    ],
)
def test_what_is_no_measurement_is_refused(name, value, reason):
    """Sentinels, NaN, negatives and impossible values are told; the good sample beside them is kept."""
    intake = to_intake([series(name, [value, 100.0 if "UTIL" in name else 300.0], (NOW, NOW + 15_000), **GPU)], "test")

    assert [1] == [int(r.reason.split()[0]) for r in intake.rejects]
    assert reason in intake.rejects[0].reason
    assert [NOW + 15_000] == intake.readings["time_ms"].to_list()


def test_the_instance_label_is_the_host_where_nothing_better_is():
    """n1:9100 is n1; a series without any host takes the given one or is refused."""
    rapl = "node_rapl_package_joules_total"
    assert {"n1/cpu1:rapl:energy_counter": 7000} == readings(series(rapl, 7, instance="n1:9100", index="1"))
    assert {"x/cpu0:rapl:energy_counter": 7000} == readings(series(rapl, 7, index="0"), host="x")
    assert "names no host" in to_intake([series(rapl, 7, index="0")], "test").rejects[0].reason


def test_overlapping_zones_are_counted_once():
    """Kepler's package zone is taken; psys and core, which contain or are contained in it, are not."""
    zones = [
        series("kepler_node_cpu_joules_total", 10, node_name="n1", zone=z, path=f"/sys/intel-rapl:{i}")
        for i, z in enumerate(("package", "core", "psys"))
    ]

    assert {"n1/cpu0:kepler:energy_counter": 10_000} == readings(*zones)


def test_a_job_holds_a_gpu_while_it_is_seen_there():
    """hpc_job on samples from 0 to 60 s and again after ten minutes: two stretches, each one step longer."""
    at = [NOW, NOW + 30_000, NOW + 60_000, NOW + 660_000]
    one = series("DCGM_FI_DEV_POWER_USAGE", [300] * 4, at, **GPU, hpc_job="7")
    intake = to_intake([one], "test", jobs_from="hpc_job", step_ms=30_000)

    expected = [("7", "n1/gpu0", NOW, NOW + 90_000, 1.0, False), ("7", "n1/gpu0", NOW + 660_000, NOW + 690_000, 1.0, False)]
    assert expected == intake.allocations.rows()
    assert [("7", NOW, NOW + 690_000)] == intake.jobs.select("job_id", "start_ms", "end_ms").rows()


def test_a_pod_on_a_mig_instance_holds_the_instance():
    """With an instance id the pod holds that slice of the GPU, under old and new label names."""
    labels = {**GPU, "GPU_I_ID": "2", "GPU_I_PROFILE": "3g.40gb", "exported_pod": "p", "exported_namespace": "ns"}
    found = [series("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.5, **labels), series("DCGM_FI_DEV_POWER_USAGE", 300, **labels)]

    assert [("ns/p", "n1/gpu0/2")] == to_intake(found, "t", jobs_from="pod").allocations.select("job_id", "asset").rows()


@pytest.mark.skipif(not TELEMETRY.exists(), reason="the recorded expositions are not here")
def test_a_recorded_node():
    """A whole node of CEEMS: RAPL, IPMI, two chassis, and GPUs held by one, two and shared jobs."""
    file = TELEMETRY / "e2e-test-cgroupsv2-nvidia-ipmiutil-output.txt"
    intake = next(ExpositionSource(str(file), NOW, host="n1").read())

    assert {
        "n1/cpu0:rapl:energy_counter": 258_218_293,  # 258218.293244 J
        "n1/cpu1:rapl:energy_counter": 130_570_506,  # 130570.505826 J
        "n1/dram0:rapl:energy_counter": 24_468_410,  # 24468.409791 J
        "n1/dram1:rapl:energy_counter": 64_930_395,  # 64930.394974 J
        "n1:ipmi:power": 49_000,
        "n1:redfish:Chassis_1:power": 397_000,
        "n1:redfish:Chassis_2:power": 1_696_000,
    } == dict(intake.readings.select("meter", "value").rows())
    shared = [r for r in intake.allocations.select("job_id", "asset", "share").rows() if r[1] == "n1/gpu9"]
    assert [("2009249", "n1/gpu9", 0.75), ("2009250", "n1/gpu9", 0.25)] == shared
    assert [] == intake.rejects


def test_text_that_is_no_exposition_is_refused(tmp_path):
    """A page of HTML is told as such."""
    (tmp_path / "x").write_text("<html>404</html>")
    with pytest.raises(ImportFileError, match="not in the Prometheus text format"):
        next(ExpositionSource(str(tmp_path / "x"), NOW).read())


def test_a_url_that_does_not_answer_is_told():
    """A refused connection is one line."""
    with pytest.raises(SourceError, match="did not answer"):
        next(ExpositionSource("http://127.0.0.1:9/metrics", NOW).read())
