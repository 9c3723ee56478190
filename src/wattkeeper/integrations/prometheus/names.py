"""What the metrics are called: one table from a metric's name to the quantity, unit and asset it speaks of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial


@dataclass(frozen=True, slots=True)
class Variable:
    """What a metric measures.

    quantity, kind: as in core.assets. unit: one of the quantity's units, or PERCENT_OR_RATIO; scale multiplies first.
    source: meters of one source and quantity on one asset add up, so names of one and the same reading share a source.
    rank: lower wins where several sources measure one asset. accuracy_pct: half-width of the error band [% of reading].
    only: label → pattern that its whole value must match, else the series is not taken.
    index: labels that hold the number of the device in its node, best first.
    parts: labels that tell apart the inputs of one asset. Where `parts_add` they are metered side by side and add up
    (cords of a PDU); where not, one may contain another (chassis of a server), and each is a source of its own.
    per_instance: a MIG instance's series speaks of the instance; all other series repeat the whole GPU on each of them.
    """

    quantity: str
    unit: str
    kind: str
    source: str
    rank: int
    accuracy_pct: float = 5.0
    scale: float = 1.0
    only: Mapping[str, str] = field(default_factory=dict)
    index: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    parts_add: bool = False
    per_instance: bool = False

    def takes(self, labels: Mapping[str, str]) -> bool:
        """Return whether a series with these labels is one to take."""
        return all(re.fullmatch(pattern, labels.get(label, "")) for label, pattern in self.only.items())


PERCENT_OR_RATIO = "percent or ratio"
"""DCGM 4.6 uses DCGM_FI_DEV_GPU_UTIL_RATIO for field 203 in percent, DCGM 4.7 for field 1613, a ratio of 0 to 1."""

_GPU_INDEX = ("gpu", "device")
_RAPL_PATH = r"(?!.*rapl-mmio).*"
"""The same package shows twice, by MSR and by MMIO: only the MSR counter is taken."""

_dcgm_w = partial(Variable, "power", "W", "gpu", index=_GPU_INDEX)
_dcgm_busy = partial(Variable, "utilisation", kind="gpu", index=_GPU_INDEX)
_joules = partial(Variable, "energy_counter", "J")
_node_w = partial(Variable, "power", "W", "node")
_rapl = partial(_joules, rank=20, index=("index", "path"), only={"path": _RAPL_PATH})
_kepler = partial(_joules, source="kepler", rank=30, index=("path",))
_pdu_w = partial(Variable, "power", "W", "rack", "snmp", 10, 2.0, parts_add=True)


def _cray(quantity: str, unit: str) -> tuple[Variable, ...]:
    make = partial(Variable, quantity, unit, source="cray", rank=25)
    return (
        make("node", only={"domain": "node"}),
        make("gpu", only={"domain": r"accel\d+"}, index=("domain",)),
        make("cpu", only={"domain": r"cpu\d*"}, index=("domain",)),
        make("dram", only={"domain": r"memory\d*"}, index=("domain",)),
    )


VARIABLE_MAP: dict[str, tuple[Variable, ...]] = {
    # dcgm-exporter; DCGM 4.6 renamed the fields and keeps the old names as aliases
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": (Variable("energy_counter", "mJ", "gpu", "dcgm", 10, index=_GPU_INDEX),),
    "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL": (_joules("gpu", "dcgm-joules", 10, index=_GPU_INDEX),),
    "DCGM_FI_DEV_POWER_USAGE": (_dcgm_w("dcgm", 10),),
    "DCGM_FI_DEV_BOARD_POWER_WATTS": (_dcgm_w("dcgm", 10),),
    "DCGM_FI_DEV_POWER_USAGE_INSTANT": (_dcgm_w("dcgm-instant", 12),),
    "DCGM_FI_DEV_BOARD_POWER_RAW_WATTS": (_dcgm_w("dcgm-instant", 12),),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": (_dcgm_busy("ratio", source="dcgm-engine", rank=10, per_instance=True),),
    "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO": (_dcgm_busy("ratio", source="dcgm-engine", rank=10, per_instance=True),),
    "DCGM_FI_PROF_SM_ACTIVE": (_dcgm_busy("ratio", source="dcgm-sm", rank=20, per_instance=True),),
    "DCGM_FI_PROF_SM_UTIL_RATIO": (_dcgm_busy("ratio", source="dcgm-sm", rank=20, per_instance=True),),
    "DCGM_FI_DEV_GPU_UTIL": (_dcgm_busy("percent", source="dcgm-util", rank=30),),
    "DCGM_FI_DEV_GPU_UTIL_RATIO": (_dcgm_busy(PERCENT_OR_RATIO, source="dcgm-util", rank=30),),
    # RAPL by node-exporter, CEEMS and Kepler; of Kepler's zones psys contains package and package contains core
    "node_rapl_package_joules_total": (_rapl("cpu", "node-exporter"),),
    "node_rapl_dram_joules_total": (_rapl("dram", "node-exporter"),),
    "ceems_rapl_package_joules_total": (_rapl("cpu", "ceems"),),
    "ceems_rapl_dram_joules_total": (_rapl("dram", "ceems"),),
    "kepler_node_cpu_joules_total": (
        _kepler("cpu", only={"zone": r"package(-\d+)?"}),
        _kepler("dram", only={"zone": r"dram(-\d+)?"}),
    ),
    "kepler_node_gpu_joules_total": (_joules("gpu", "kepler", 30, index=("gpu",)),),
    # the whole node by its BMC
    "ipmi_dcmi_power_consumption_watts": (_node_w("ipmi", 50),),
    "ipmi_power_watts": (
        _node_w("ipmi-sensor", 60, only={"name": r"(?i)(pwr consumption|(sys(tem)?|total)[ _]p(o?)we?r|power meter)"}),
    ),
    "idrac_power_control_consumed_watts": (_node_w("redfish", 40, only={"id": "0?"}),),
    "redfish_chassis_power_average_consumed_watts": (
        _node_w("redfish-average", 42, parts=("chassis_id", "chassis", "member_id")),
    ),
    "kepler_platform_watts": (_node_w("kepler-platform", 45, parts=("chassis_id", "power_control_id")),),
    "ceems_ipmi_dcmi_current_watts": (_node_w("ceems-ipmi", 50),),
    "ceems_redfish_current_watts": (_node_w("ceems-redfish", 40, parts=("chassis",)),),
    "ceems_cray_pm_counters_energy_joules": _cray("energy_counter", "J"),
    "ceems_cray_pm_counters_power_watts": _cray("power", "W"),
    # PDUs by snmp-exporter: APC counts in hundredths of a kilowatt, Server Technology in watts
    "rPDU2DeviceStatusPower": (_pdu_w(scale=10.0, parts=("rPDU2DeviceStatusIndex",)),),
    "st4InputCordActivePower": (_pdu_w(parts=("st4UnitIndex", "st4InputCordIndex")),),
    "infeedPower": (_pdu_w(parts=("towerIndex", "infeedIndex")),),
}
"""Metric name → what it measures; of several, the first that takes the labels."""

CEEMS_HOLDER = "ceems_compute_unit_gpu_index_flag"
"""Which job holds which GPU or MIG instance, and what part of it; no reading of its own."""


def variable_of(name: str, labels: Mapping[str, str]) -> Variable | None:
    """Return what a series measures; None where it is not one to take."""
    return next((v for v in VARIABLE_MAP.get(name, ()) if v.takes(labels)), None)
