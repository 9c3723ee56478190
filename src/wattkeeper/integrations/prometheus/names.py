"""Which series we know: from an exporter's metric name to what it measures, in which unit, on which asset.

Sources: dcgm-exporter etc/default-counters.csv and DCGM 4.6 dcgm_fields.h (units and renames), node_exporter rapl
collector, prometheus-ipmi-exporter, Kepler and CEEMS metric pages, PowerNet-MIB (rPDU2 power in hundredths of kW).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """What one metric name stands for.

    quantity, unit: as in core/units.py. kind: of the asset it measures. source, rank, accuracy_pct: as in core.Meter.
    index: labels that number the device, first found wins. part: label that tells several sensors of one asset apart.
    only: label values it is taken for, where others would count the same energy again.
    """

    quantity: str
    unit: str
    kind: str
    source: str
    rank: int
    accuracy_pct: float = 5.0
    index: tuple[str, ...] = ()
    part: str = ""
    only: tuple[str, tuple[str, ...]] = ("", ())
    scale: float = 1.0


_GPU = ("gpu", "index", "gpu_index", "minor_number")


def _dcgm(*names: str, metric: Metric) -> dict[str, Metric]:
    return {f"DCGM_FI_{n}": metric for n in names}


def _gpu(quantity: str, unit: str, source: str, rank: int) -> Metric:
    return Metric(quantity, unit, "gpu", source, rank, index=_GPU)


_PACKAGE = Metric("energy_counter", "J", "cpu", "rapl", 20, index=("index", "path"))
_DRAM = Metric("energy_counter", "J", "dram", "rapl", 20, index=("index", "path"))

METRICS: dict[str, Metric] = {
    **_dcgm("DEV_TOTAL_ENERGY_CONSUMPTION", metric=_gpu("energy_counter", "mJ", "dcgm", 10)),
    **_dcgm("DEV_POWER_USAGE", "DEV_BOARD_POWER_WATTS", metric=_gpu("power", "W", "dcgm-average", 50)),
    **_dcgm("DEV_POWER_USAGE_INSTANT", "DEV_BOARD_POWER_RAW_WATTS", metric=_gpu("power", "W", "dcgm-instant", 60)),
    **_dcgm("PROF_GR_ENGINE_ACTIVE", "PROF_GR_ENGINE_UTIL_RATIO", metric=_gpu("utilisation", "ratio", "dcgm-gr", 10)),
    **_dcgm("PROF_SM_ACTIVE", "PROF_SM_UTIL_RATIO", metric=_gpu("utilisation", "ratio", "dcgm-sm", 20)),
    **_dcgm("DEV_GPU_UTIL", metric=_gpu("utilisation", "percent", "dcgm-util", 30)),
    **_dcgm("DEV_GPU_UTIL_RATIO", metric=_gpu("utilisation", "percent", "dcgm-util", 30)),
    "node_rapl_package_joules_total": _PACKAGE,
    "node_rapl_dram_joules_total": _DRAM,
    "ceems_rapl_package_joules_total": _PACKAGE,
    "ceems_rapl_dram_joules_total": _DRAM,
    "ceems_ipmi_dcmi_current_watts": Metric("power", "W", "node", "ipmi", 60),
    "ipmi_dcmi_power_consumption_watts": Metric("power", "W", "node", "ipmi", 60),
    "ceems_redfish_current_watts": Metric("power", "W", "node", "redfish", 50, part="chassis"),
    "redfish_chassis_power_average_consumed_watts": Metric("power", "W", "node", "redfish", 50, part="chassis_id"),
    "ceems_cray_pm_counters_energy_joules": Metric(
        "energy_counter", "J", "node", "cray", 10, 3.0, only=("domain", ("energy", "node", ""))
    ),
    "kepler_node_cpu_joules_total": Metric(
        "energy_counter", "J", "cpu", "kepler", 30, index=("path",), only=("zone", ("package",))
    ),
    "kepler_node_gpu_joules_total": _gpu("energy_counter", "J", "kepler", 30),
    "kepler_platform_watts": Metric("power", "W", "node", "kepler-platform", 70, part="chassis_id"),
    "rPDU2DeviceStatusPower": Metric("power", "W", "rack", "snmp", 50, 1.0, scale=10.0),
    "rPDU2DeviceStatusEnergy": Metric("energy_counter", "kWh", "rack", "snmp", 40, 1.0, scale=0.1),
}
"""Metric name → what it stands for. Kepler's zones overlap (psys ⊃ package ⊃ core): only packages are taken."""

HOST_LABELS = ("Hostname", "hostname", "exported_hostname", "node_name", "exported_node", "nodename", "exported_instance",
               "instance")  # fmt: skip
"""Where a series says which host it is of, best first; an instance loses its port."""

UUID_LABELS = ("UUID", "uuid", "gpu_uuid")
POD_LABELS = (("namespace", "pod"), ("exported_namespace", "exported_pod"), ("pod_namespace", "pod_name"))

HOLDERS = "ceems_compute_unit_gpu_index_flag"
"""CEEMS tells which job holds which GPU: uuid is the job, index the GPU, the value its share."""
