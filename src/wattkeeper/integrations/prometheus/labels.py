"""Who a series speaks of: host, device, MIG instance and holder, by the labels that exporters give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

HOST = ("Hostname", "hostname", "node_name", "nodename", "node", "instance")
UUID = ("UUID", "gpu_uuid", "gpuuuid")
MODEL = ("modelName", "model_name", "gpu_name")
INSTANCE = ("GPU_I_ID", "gpuiid")
PROFILE = ("GPU_I_PROFILE",)
POD = ("pod", "pod_name")
NAMESPACE = ("namespace", "pod_namespace")

MIG_SLICES = {"A30": 4, "RTX PRO 6000": 4}
"""Compute slices of GPUs that have not seven of them, by a part of the model's name."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a series was measured; "" for what its labels do not tell.

    index: number of the device in its node. instance: GPU instance id under MIG. slice: the part of the GPU that the
    instance is, None where no profile tells.
    """

    host: str
    index: str
    uuid: str
    model: str
    instance: str
    slice: float | None


def said(labels: Mapping[str, str], names: tuple[str, ...]) -> str:
    """Return the first label that is not empty.

    Where Prometheus has put the target's own label over the exporter's, the exporter's stands under `exported_…`, and
    is what we want.
    """
    for name in names:
        if value := labels.get(f"exported_{name}") or labels.get(name):
            return value
    return ""


def place_of(labels: Mapping[str, str], index: tuple[str, ...], host_pattern: str = "", host: str = "") -> Place:
    """Return where a series was measured.

    host_pattern: regular expression whose first group is the node's name in a host label ("" takes the label as it is).
    host: name for series that carry no host label.
    """
    model, profile = said(labels, MODEL), said(labels, PROFILE)
    return Place(
        host=_host(said(labels, HOST), host_pattern) or host,
        index=next((n for n in (_number(said(labels, (i,))) for i in index) if n), ""),
        uuid=said(labels, UUID),
        model=model,
        instance=said(labels, INSTANCE),
        slice=mig_slice(profile, model),
    )


def mig_slice(profile: str, model: str) -> float | None:
    """Return the part of a GPU that a MIG profile is: 3g.40gb is 3/7, on an A30 1g.6gb is 1/4; None where unknown."""
    count = re.search(r"(\d+)g\.", profile)
    if not count:
        return None
    slices = next((n for name, n in MIG_SLICES.items() if name in model), 7)
    return min(int(count[1]) / slices, 1.0)


def job_of(labels: Mapping[str, str], jobs_from: str) -> str:
    """Return the id of the job that a series says holds its GPU, "" for none.

    jobs_from: "hpc_job" or "pod" (the id is then namespace/pod). The exporter's own pod, which stands on the series of
    GPUs that no pod holds, is none.
    """
    if jobs_from == "hpc_job":
        return said(labels, ("hpc_job",))
    pod = said(labels, POD) if jobs_from == "pod" else ""
    return "" if not pod or "dcgm-exporter" in pod else f"{said(labels, NAMESPACE)}/{pod}"


def _host(label: str, pattern: str) -> str:
    """Return a host label without its port, as the pattern has it."""
    host = re.sub(r":\d+$", "", label) if label.count(":") == 1 or "]" in label else label
    host = host.strip("[]")
    match = re.search(pattern, host) if pattern else None
    return match[1] if match else host


def _number(text: str) -> str:
    """Return the first number in a label: 3 of "3", of "nvidia3", and of "/sys/class/powercap/intel-rapl:3:0"."""
    match = re.search(r"\d+", text)
    return match[0] if match else ""
