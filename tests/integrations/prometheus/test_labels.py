"""Whom a series speaks of, through all the ways exporters and relabelling have of saying it."""

from __future__ import annotations

import pytest

from wattkeeper.integrations.prometheus.labels import job_of, mig_slice, place_of


@pytest.mark.parametrize(
    ("labels", "host"),
    [
        ({"Hostname": "n1", "instance": "10.0.0.1:9400"}, "n1"),
        ({"hostname": "n1", "instance": "10.0.0.1:9400"}, "n1"),
        ({"exported_hostname": "n1", "hostname": "collector"}, "n1"),
        ({"hostname": "", "instance": "n1:9010"}, "n1"),
        ({"node_name": "n1", "instance": "10.0.0.1:28282"}, "n1"),
        ({"instance": "n1"}, "n1"),
        ({"instance": "[fd00::1]:9100"}, "fd00::1"),
        ({"instance": "fd00::1"}, "fd00::1"),
        ({"exported_instance": "n1:9100", "instance": "federate:9090"}, "n1"),
    ],
)
def test_the_host_is_found_under_any_label(labels, host):
    """Old and new spellings, empty labels, ports, IPv6, federation: the exporter's own word wins."""
    assert host == place_of(labels, ()).host


@pytest.mark.parametrize(
    ("label", "host"), [("n01-bmc.mgmt.example.org:9290", "n01"), ("n01.example.org", "n01"), ("n01", "n01")]
)
def test_a_pattern_brings_bmc_and_full_names_to_the_nodes_name(label, host):
    """Slurm says n01, the BMC n01-bmc.mgmt…: one pattern joins them."""
    assert host == place_of({"instance": label}, (), r"^([^.]+?)(?:-bmc)?(?:\.|$)").host


def test_a_host_is_given_only_where_none_is_said():
    """The default host does not replace what a label says."""
    assert ["n9", "n1"] == [place_of(x, (), host="n9").host for x in ({}, {"Hostname": "n1"})]


@pytest.mark.parametrize(
    ("labels", "index"),
    [
        ({"index": "1", "path": "/x"}, "1"),
        ({"path": "/sys/class/powercap/intel-rapl:1:0"}, "1"),
        ({"index": "", "path": "x:3"}, "3"),
        ({}, ""),
    ],
)
def test_the_number_of_a_device_is_in_its_label_or_path(labels, index):
    """The DRAM of package 1 is intel-rapl:1:0: the first number is the package."""
    assert index == place_of(labels, ("index", "path")).index


@pytest.mark.parametrize(
    ("profile", "model", "part"),
    [
        ("1g.6gb", "NVIDIA A30", 1 / 4),
        ("1g.10gb", "NVIDIA H100 80GB HBM3", 1 / 7),
        ("3g.40gb", "NVIDIA H100 80GB HBM3", 3 / 7),
        ("7g.80gb", "NVIDIA A100-SXM4-80GB", 1.0),
        ("1g.12gb+me", "NVIDIA H100 NVL", 1 / 7),
        ("1c.3g.40gb", "NVIDIA H100 80GB HBM3", 3 / 7),
        ("", "NVIDIA H100", None),
    ],
)
def test_a_mig_slice_is_compute_slices_over_those_of_the_model(profile, model, part):
    """An A30 has four slices, H100 and A100 seven; the memory in the name says nothing."""
    assert part == mig_slice(profile, model)


@pytest.mark.parametrize(
    ("labels", "job"),
    [
        ({"pod": "train-0", "namespace": "ml"}, "ml/train-0"),
        ({"pod_name": "train-0", "pod_namespace": "ml"}, "ml/train-0"),
        (
            {"exported_pod": "train-0", "exported_namespace": "ml", "pod": "exp-x", "namespace": "gpu-operator"},
            "ml/train-0",
        ),
        ({"pod": "nvidia-dcgm-exporter-x7k", "namespace": "gpu-operator"}, ""),
        ({"pod": ""}, ""),
    ],
)
def test_the_pod_is_the_workload_and_never_the_exporter(labels, job):
    """Without honor_labels `pod` is the exporter itself: a GPU that nobody holds would seem held by it."""
    assert job == job_of(labels, "pod")
