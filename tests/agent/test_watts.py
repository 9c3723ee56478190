"""Watts now: the best meter of each asset, sums where there is none, nothing that is old."""

from __future__ import annotations

import pytest

from wattkeeper.agent.watts import Holding, Now, to_json
from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.live import Sample

NOW_MS = 1_795_000_000_000


def now_of(*samples, assets=(), meters=()):
    now = Now()
    now.know(assets, meters)
    now.take(samples)
    return {r.asset: r for r in now.rows(NOW_MS)}, now


def test_the_best_meter_tells_and_two_feeds_add_up():
    """Two Redfish supplies of 500 W and 700 W before one IPMI of 900 W; a GPU's counter before its power: 600 W."""
    meters = [
        Meter("a", "n01", "power", "redfish", 40), Meter("b", "n01", "power", "redfish", 40),
        Meter("i", "n01", "power", "ipmi", 50), Meter("c", "n01/gpu0", "energy_counter", "nvml", 10),
        Meter("p", "n01/gpu0", "power", "nvml", 10), Meter("u", "n01/gpu0", "utilisation", "nvml", 10),
    ]  # fmt: skip
    values = [("a", 0, 500_000), ("b", 0, 700_000), ("i", 0, 900_000), ("p", 0, 650_000), ("u", 0, 980_000)]
    samples = [Sample("c", NOW_MS - 2000, 100), Sample("c", NOW_MS, 1_200_100)]
    samples += [Sample(m, NOW_MS - back, v) for m, back, v in values]
    rows, _ = now_of(*samples, assets=[Asset("n01/gpu0", "gpu", "n01"), Asset("n01", "node", "")], meters=meters)

    assert (rows["n01"].power_w, rows["n01"].source, rows["n01"].summed) == (1200, "redfish", False)
    assert (rows["n01/gpu0"].power_w, rows["n01/gpu0"].utilisation, rows["n01/gpu0"].depth) == (600, 0.98, 1)


def test_what_has_no_meter_is_the_sum_of_its_parts():
    """A site of two racks: 600 W measured, and one whose node has two GPUs of 100 W and 200 W."""
    assets = [
        Asset("a", "site"), Asset("r1", "rack", "a"), Asset("r2", "rack", "a"), Asset("n", "node", "r2"),
        Asset("n/gpu0", "gpu", "n"), Asset("n/gpu1", "gpu", "n"), Asset("n/cpu0", "cpu", "n"),
    ]  # fmt: skip
    meters = [Meter(a, a, "power", "x") for a in ("r1", "n/gpu0", "n/gpu1")]
    samples = [Sample("r1", NOW_MS, 600_000), Sample("n/gpu0", NOW_MS, 100_000), Sample("n/gpu1", NOW_MS, 200_000)]
    rows, _ = now_of(*samples, assets=assets, meters=meters)

    assert [(r.asset, r.depth, r.power_w, r.summed) for r in rows.values()] == [
        ("a", 0, 900, True), ("r1", 1, 600, False), ("r2", 1, 300, True), ("n", 2, 300, True),
        ("n/cpu0", 3, None, False), ("n/gpu0", 3, 100, False), ("n/gpu1", 3, 200, False),
    ]  # fmt: skip


def test_old_values_resets_and_first_readings_tell_nothing():
    """61 s old; a counter that fell; a counter seen once. Nothing is 0."""
    meters = [Meter(a, a, "energy_counter", "x") for a in ("fell", "once")] + [Meter("old", "old", "power", "x")]
    samples = [
        Sample("old", NOW_MS - 61_000, 5), Sample("fell", NOW_MS - 1000, 9), Sample("fell", NOW_MS, 1),
        Sample("once", NOW_MS, 9),
    ]  # fmt: skip
    rows, _ = now_of(*samples, meters=meters)

    assert {r.power_w for r in rows.values()} == {None}


def test_a_wrap_counts_on():
    """From 262 000 mJ over 262 144 mJ to 856 mJ in 1 s: 1 W."""
    meter = Meter("c", "cpu0", "energy_counter", "rapl", wrap_mj=262_144)
    rows, _ = now_of(Sample("c", NOW_MS - 1000, 262_000), Sample("c", NOW_MS, 856), meters=[meter])

    assert rows["cpu0"].power_w == 1.0


def test_a_value_from_before_the_one_at_hand_is_left():
    """Late data do not turn the clock back."""
    rows, now = now_of(Sample("p", NOW_MS, 7_000), meters=[Meter("p", "n", "power", "x")])
    now.take([Sample("p", NOW_MS - 5, 9_000)])

    assert rows["n"].power_w == next(iter(now.rows(NOW_MS))).power_w == 7.0


def test_jobs_draw_what_they_hold():
    """A node at 1000 W with GPUs of 400 W and 300 W. j1 has gpu0 and half the node's other 300 W: 550 W; j2 and j3 share
    gpu1 three to one: 225 and 75 W. The other half of the rest is nobody's."""
    assets = [Asset("s", "site"), Asset("n", "node", "s"), Asset("n/gpu0", "gpu", "n"), Asset("n/gpu1", "gpu", "n")]
    meters = [Meter(a.id, a.id, "power", "x") for a in assets[1:]]
    samples = [Sample("n", NOW_MS, 10**6), Sample("n/gpu0", NOW_MS, 400_000), Sample("n/gpu1", NOW_MS, 300_000)]
    rows, now = now_of(*samples, assets=assets, meters=meters)
    now.holdings = [
        Holding("j1", "n", 0.5), Holding("j1", "n/gpu0", 1.0), Holding("j2", "n/gpu1", 0.6), Holding("j3", "n/gpu1", 0.2),
        Holding("j4", "elsewhere", 1.0),
    ]  # fmt: skip

    assert [(r.asset, round(r.power_w, 9)) for r in now.jobs(list(rows.values()))] == [
        ("j1", 550.0), ("j2", 225.0), ("j3", 75.0),
    ]  # fmt: skip


@pytest.mark.parametrize("measured", [True, False])
def test_a_node_s_holder_has_its_cpus_and_not_its_gpus(measured):
    """200 W of the CPU, 700 W of the GPU; the node's own meter, where there is one, says 1 000 W."""
    assets = [
        Asset("a", "site"),
        Asset("n1", "node", "a"),
        Asset("n1/cpu0", "cpu", "n1"),
        Asset("n1/gpu0", "gpu", "n1"),
    ]
    watts = {"n1/cpu0": 200, "n1/gpu0": 700, **({"n1": 1000} if measured else {})}
    meters = [Meter(name, name, "power", "x") for name in watts]
    samples = [Sample(name, NOW_MS, w * 1000) for name, w in watts.items()]
    rows, now = now_of(*samples, assets=assets, meters=meters)
    now.holdings = [Holding("node", "n1", 1.0), Holding("gpu", "n1/gpu0", 1.0)]
    drawn = {row.asset: row.power_w for row in now.jobs(list(rows.values()))}

    assert drawn == {"gpu": 700.0, "node": 300.0 if measured else 200.0}


def test_a_site_emits_its_power_times_its_intensity():
    """1000 W at 300 g/kWh are 300 g an hour; a site whose intensity is not known has none."""
    rows, now = now_of(
        Sample("p", NOW_MS, 10**6), Sample("q", NOW_MS, 10**6), assets=[Asset("s", "site"), Asset("t", "site")],
        meters=[Meter("p", "s", "power", "x"), Meter("q", "t", "power", "x")],
    )  # fmt: skip
    now.intensity_g_per_kwh = {"s": 300.0}
    told = {r["asset"]: r for r in to_json(list(rows.values()), now)}

    assert now.carbon_g_per_h(list(rows.values())) == {"s": 300.0}
    assert told["s"]["carbon_g_per_h"] == 300.0
    assert "carbon_g_per_h" not in told["t"]
