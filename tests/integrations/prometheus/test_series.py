"""From samples to an intake: one physical device counted once, whatever repeats it."""

from __future__ import annotations

import pytest

from tests.integrations.prometheus.conftest import ENERGY, ENGINE, GPU, NOW, POWER, holdings, of, values
from wattkeeper.core.assets import QUANTITIES
from wattkeeper.core.errors import ConfigError
from wattkeeper.integrations.prometheus.series import Options, to_intake

MIG = [{**GPU, "GPU_I_ID": str(i), "GPU_I_PROFILE": p} for i, p in ((1, "4g.40gb"), (2, "3g.40gb"))]


def test_energy_and_power_of_a_gpu_are_two_meters_of_one_asset():
    """The counter comes in mJ, power in W; node and GPU are met with the model's name."""
    intake = to_intake([of(ENERGY, 126_272_101_025, GPU), of(POWER, 412.331, GPU)])

    assert {
        "n1/gpu0:GPU-1:dcgm:energy_counter": [126_272_101_025],
        "n1/gpu0:GPU-1:dcgm:power": [412_331],
    } == values(intake)
    assert [("n1", "node", "", ""), ("n1/gpu0", "gpu", "n1", "NVIDIA H100 80GB HBM3")] == [
        (a.id, a.kind, a.parent, a.model) for a in intake.assets
    ]
    assert {("n1/gpu0", "dcgm", 10, 5.0)} == {(m.asset, m.source, m.rank, m.accuracy_pct) for m in intake.meters}


def test_old_and_new_dcgm_names_are_one_meter():
    """DCGM 4.6 keeps the old names as aliases: an exporter that shows both has one reading."""
    new = {"gpu": "0", "gpu_uuid": "GPU-1", "model_name": "NVIDIA H100 80GB HBM3", "hostname": "n1"}
    intake = to_intake([of(POWER, 400, GPU), of("DCGM_FI_DEV_BOARD_POWER_WATTS", 400, new)])

    assert {"n1/gpu0:GPU-1:dcgm:power": [400_000]} == values(intake)
    assert 1 == len(intake.meters)


def test_the_counter_under_its_new_name_comes_before_power():
    """The books use the meter of the lowest rank, and of equal ranks the counter: 450 J, not 450 W."""
    joules = of("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 450, GPU)
    intake = to_intake([of("DCGM_FI_DEV_BOARD_POWER_WATTS", 450, GPU), joules])

    first = min(intake.meters, key=lambda m: (m.rank, QUANTITIES.index(m.quantity)))
    assert values(intake)[first.id] == [450_000]
    assert first.quantity == "energy_counter"


def test_a_gpu_repeated_on_mig_instances_is_read_once():
    """An A30 with four instances says 126272101025 mJ on each of four series: it drew that once."""
    labels = [{**GPU, "GPU_I_ID": str(i), "GPU_I_PROFILE": "1g.6gb"} for i in (3, 4, 5, 6)]
    intake = to_intake([of(ENERGY, 126_272_101_025, x) for x in labels])

    assert {"n1/gpu0:GPU-1:dcgm:energy_counter": [126_272_101_025]} == values(intake)


@pytest.mark.parametrize("label", ["hpc_job", "pod", "exported_pod"])
def test_a_gpu_repeated_for_its_holders_is_read_once(label):
    """Two jobs or pods on one GPU: the exporter copies its 300 W to both."""
    intake = to_intake([of(POWER, 300, {**GPU, label: name}) for name in ("a", "b")])

    assert {"n1/gpu0:GPU-1:dcgm:power": [300_000]} == values(intake)


def test_of_copies_that_differ_the_largest_stands():
    """A copy that lags behind a counter at one instant does not pull it back: max(5000, 5100)."""
    intake = to_intake([of(ENERGY, v, {**GPU, "hpc_job": str(v)}) for v in (5100, 5000)])

    assert {"n1/gpu0:GPU-1:dcgm:energy_counter": [5100]} == values(intake)


def test_activity_of_mig_instances_stands_on_the_instances():
    """4g and 3g of an H100 are 4/7 and 3/7 of the GPU, each with an activity of its own."""
    intake = to_intake([of(ENGINE, v, x) for v, x in zip((0.9, 0.25), MIG, strict=True)])

    assert {
        "n1/gpu0/1:GPU-1:dcgm-engine:utilisation": [900_000],
        "n1/gpu0/2:GPU-1:dcgm-engine:utilisation": [250_000],
    } == values(intake)
    assert [("n1/gpu0/1", "n1/gpu0", 4 / 7), ("n1/gpu0/2", "n1/gpu0", 3 / 7)] == [
        (a.id, a.parent, a.slice) for a in intake.assets if a.kind == "mig"
    ]


def test_a_swapped_gpu_is_another_meter_of_the_same_slot():
    """Two UUIDs, one slot: two counters that never mix, on one asset."""
    intake = to_intake([of(ENERGY, 9, GPU), of(ENERGY, 5, {**GPU, "UUID": "GPU-2"}, at_s=[60])])

    assert {"n1/gpu0:GPU-1:dcgm:energy_counter": [9], "n1/gpu0:GPU-2:dcgm:energy_counter": [5]} == values(intake)
    assert {"n1/gpu0"} == {m.asset for m in intake.meters}


def test_a_swap_of_two_numbers_leaves_each_card_in_its_slot():
    """After a reboot the cards change numbers: each reading stays with the number it came with."""
    first, second = {**GPU, "UUID": "GPU-2", "gpu": "1"}, {**GPU, "gpu": "1"}
    intake = to_intake([of(POWER, 100, GPU), of(POWER, 200, first), of(POWER, 300, second, at_s=[60])])

    assert {
        "n1/gpu0:GPU-1:dcgm:power": [100_000],
        "n1/gpu1:GPU-1:dcgm:power": [300_000],
        "n1/gpu1:GPU-2:dcgm:power": [200_000],
    } == values(intake)


def test_rapl_packages_and_their_dram_are_assets_of_the_node():
    """Package 1 and its DRAM, intel-rapl:1 and intel-rapl:1:0, are cpu1 and dram1."""
    path = "/sys/class/powercap/intel-rapl:1"
    cpu = of("node_rapl_package_joules_total", 7, {"instance": "n1:9100", "index": "1", "path": path})
    dram = of("node_rapl_dram_joules_total", 3, {"instance": "n1:9100", "index": "1", "path": f"{path}:0"})
    found = values(to_intake([cpu, dram]))

    assert {"n1/cpu1::node-exporter:energy_counter": [7000], "n1/dram1::node-exporter:energy_counter": [3000]} == found


def test_chassis_of_one_server_never_add_up():
    """One may contain the other: each is a source of its own, of which the books use one."""
    chassis = [
        of("ceems_redfish_current_watts", w, {"hostname": "n1", "chassis": c}) for c, w in (("A", 397), ("B", 1696))
    ]
    intake = to_intake(chassis)

    assert [("n1", "ceems-redfish/A"), ("n1", "ceems-redfish/B")] == [(m.asset, m.source) for m in intake.meters]


def test_cords_of_one_pdu_add_up_and_need_a_rack():
    """Two cords are two meters of one source; what the PDU feeds has to stand in the site file."""
    cords = [
        of("st4InputCordActivePower", w, {"instance": "pdu1", "st4UnitIndex": "1", "st4InputCordIndex": c})
        for c, w in (("1", 888), ("2", 919))
    ]
    intake = to_intake(cords)

    assert {"pdu1:1/1:snmp:power": [888_000], "pdu1:1/2:snmp:power": [919_000]} == values(intake)
    assert {("pdu1", "snmp")} == {(m.asset, m.source) for m in intake.meters}
    assert [] == intake.assets


def test_cray_domains_are_node_gpus_cpu_and_memory():
    """accel2 is gpu2; cpu and memory are the node's only ones."""
    name = "ceems_cray_pm_counters_energy_joules"
    intake = to_intake([of(name, 5, {"hostname": "n1", "domain": d}) for d in ("node", "accel2", "cpu", "memory")])

    assert {"n1", "n1/gpu2", "n1/cpu0", "n1/dram0"} == {m.asset for m in intake.meters}


def test_refused_samples_are_told_once_for_each_meter_and_reason():
    """Two marks and a negative on one series: two rejects; the good sample between them is kept."""
    intake = to_intake([of(POWER, [2.0**47, 300, 2.0**47, -1], GPU)])

    assert {"n1/gpu0:GPU-1:dcgm:power": [300_000]} == values(intake)
    assert [
        "n1/gpu0:GPU-1:dcgm:power: 2 samples from 2025-10-09T09:00:00Z on are a mark for 'no value' of DCGM",
        "n1/gpu0:GPU-1:dcgm:power: the sample at 2025-10-09T09:01:30Z is negative",
    ] == [r.reason for r in intake.rejects]


def test_a_meter_without_a_good_sample_is_not_met():
    """A GPU whose counter is not supported has no counter: power takes its place in the books."""
    intake = to_intake([of(ENERGY, 2.0**63 - 16, GPU), of(POWER, 300, GPU)])

    assert ["power"] == [m.quantity for m in intake.meters]


def test_a_series_that_cannot_be_placed_is_refused():
    """No host, or no GPU number: the series is told and nothing is guessed."""
    nowhere = of("ipmi_dcmi_power_consumption_watts", 500, {})
    unnumbered = of(POWER, 300, {"UUID": "GPU-9", "Hostname": "n1"})
    intake = to_intake([nowhere, unnumbered])

    assert 0 == intake.readings.height
    assert [
        "ipmi_dcmi_power_consumption_watts{}: no label tells the host; say which it is",
        'DCGM_FI_DEV_POWER_USAGE{Hostname="n1",UUID="GPU-9"}: no label tells which GPU of the node it is',
    ] == [r.reason for r in intake.rejects]


def test_a_uuid_tells_the_number_that_a_label_does_not():
    """A series relabelled down to its UUID joins the GPU that another series numbers."""
    intake = to_intake([of(POWER, 300, {"UUID": "GPU-1", "Hostname": "n1"}), of(ENERGY, 5, {**GPU, "gpu": "3"})])

    assert {"n1/gpu3"} == {m.asset for m in intake.meters}


def test_unknown_metrics_are_left_out():
    """A temperature is no reading and no fault."""
    intake = to_intake([of("DCGM_FI_DEV_GPU_TEMP", 61, GPU)])

    assert (0, []) == (intake.readings.height, intake.rejects)


def test_only_the_span_is_read():
    """Samples at 0, 30, 60 and 90 s; [30 s, 90 s) holds two."""
    intake = to_intake([of(POWER, [1, 2, 3, 4], GPU)], start_ms=NOW + 30_000, end_ms=NOW + 90_000)

    assert {"n1/gpu0:GPU-1:dcgm:power": [2000, 3000]} == values(intake)


def test_ceems_tells_who_holds_what_by_the_gpus_own_numbers():
    """CEEMS numbers MIG instances on through the node; DCGM says that the GPU is number 2 and the slice 3/7."""
    flag = {"hostname": "n1", "index": "7", "gpuuuid": "GPU-1", "gpuiid": "2", "uuid": "11"}
    found = [of("ceems_compute_unit_gpu_index_flag", 1, flag), of(ENGINE, 0.5, {**MIG[1], "gpu": "2"})]

    assert [("11", "n1/gpu2/2", 0, 30, 3 / 7)] == holdings(to_intake(found, Options(jobs_from="ceems")))


def test_jobs_come_only_from_what_is_known():
    """A misspelt choice is told with the ones there are."""
    with pytest.raises(ConfigError, match=r"'slurm' tells no jobs\. Choose one of hpc_job, pod, ceems\."):
        Options(jobs_from="slurm")
