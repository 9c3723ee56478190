"""Routing, against all corners of small programmes and hand counts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattkeeper.plan.problem import Grid, PlanInputError, Site, Weights
from wattkeeper.plan.route import (
    NO_FORECAST,
    NO_GPUS,
    NO_QUALITY,
    Origin,
    Service,
    Variant,
    lay_out,
    nearest,
    quality_of,
    route,
    shares,
)

pytest.importorskip("highspy")

HOUR = 3_600_000
START = 1_760_000_400_000
GRID = Grid(START, HOUR, 1)
BIG, SMALL = Variant("big", 2.0, 2.0, 0.9, 500), Variant("small", 1.0, 1.0, 0.7, 200)


def service(sites, origins, variants=(BIG, SMALL), quality=0.0, grid=GRID, weights=None) -> Service:
    return lay_out(grid, sites, variants, origins, weights or Weights(), quality)


def corners(case: Service) -> float:
    """Return the least cost of serving all requests of one slot: every corner of the programme is tried."""
    k = len(case.kwh)
    each_g = case.kwh * case.rate_g[case.site, 0]
    quality = np.array([v.quality for v in case.variants])[case.variant] - case.quality
    gpu_s = np.array([v.gpu_s for v in case.variants])[case.variant]
    origins, sites = len(case.requests), len(case.gpu_s)
    # rows a·x ≤ b
    a = [*(-np.eye(k)), *(gpu_s * (case.site == s) for s in range(sites)), -quality]
    b = np.array([*np.zeros(k), *case.gpu_s[:, 0], 0.0])
    same = [(case.origin == o).astype(float) for o in range(origins)]
    best = np.inf
    for active in itertools.combinations(range(len(a)), k - origins):
        matrix = np.array(same + [a[i] for i in active])
        if abs(np.linalg.det(matrix)) < 1e-9:
            continue
        x = np.linalg.solve(matrix, np.concatenate((case.requests[:, 0], b[list(active)])))
        if (np.array(a) @ x <= b + 1e-6).all():
            best = min(best, float(each_g @ x))
    return best


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_corner_is_cheaper(seed: int):
    """The split costs what the best corner of the programme costs, the bound is not above it, and all limits hold."""
    rng = np.random.default_rng(seed)
    sites = [Site(f"s{i}", float(rng.integers(1, 6)), float(rng.integers(20, 500)), pue=1.2) for i in range(2)]
    variants = [Variant(f"v{i}", float(rng.uniform(0.2, 3)), float(rng.uniform(0.2, 3)), float(rng.uniform(0, 1)),
                        float(rng.integers(0, 300))) for i in range(2)]  # fmt: skip
    origins = [Origin(f"o{i}", float(rng.integers(0, 4000)), {"s0": 20.0, "s1": float(rng.integers(20, 400))}, 350.0)
               for i in range(int(rng.integers(1, 3)))]  # fmt: skip
    origins = [o for o in origins if o.requests] or [Origin("o", 100.0, {"s0": 0.0}, 350.0)]
    case = service(sites, origins, variants, float(rng.uniform(0, max(v.quality for v in variants))))
    best, found = corners(case), route(case)

    if np.isinf(best):
        assert found.unserved.sum() > 0
        assert found.bound_g is None
        return
    assert found.unserved.sum() == 0
    assert found.cost_g == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert found.bound_g <= best * (1 + 1e-9) + 1e-6
    assert found.bound_g == pytest.approx(best, rel=1e-6, abs=1e-4)
    assert quality_of(case, found) >= case.quality - 1e-9
    gpu_s = np.array([v.gpu_s for v in variants])
    for s in range(2):
        at = found.site == s
        assert (found.requests[at] * gpu_s[found.variant[at]]).sum() <= case.gpu_s[s, 0] * (1 + 1e-9)


def test_the_cleaner_site_fills_up_first():
    """6000 requests of 2 s: a clean GPU takes 1800 of them an hour, the rest goes to the dirty site."""
    sites = [Site("dirty", 10.0, 400.0), Site("clean", 1.0, 50.0)]
    case = service(sites, [Origin("eu", 6000.0, {"dirty": 10, "clean": 40}, 1000)], [BIG])
    found = route(case)

    assert shares(found, "site", 2).tolist() == pytest.approx([0.7, 0.3])
    assert found.carbon_g.sum() == pytest.approx(4200 * 0.002 * 400 + 1800 * 0.002 * 50)
    assert found.gap == pytest.approx(0.0, abs=1e-8)


def test_quality_mixes_two_variants():
    """A floor of 0.8 between 0.9 and 0.7: half of each; above the best variant it is refused."""
    case = service([Site("a", 100.0, 100.0)], [Origin("eu", 1000.0, {"a": 0}, 1000)], quality=0.8)
    found = route(case)

    assert shares(found, "variant", 2).tolist() == pytest.approx([0.5, 0.5])
    assert found.carbon_g.sum() == pytest.approx((500 * 2 + 500 * 1) / 1000 * 100)
    with pytest.raises(PlanInputError, match=r"quality floor 0.95 is above the best variant, big with 0.9"):
        service([Site("a", 1.0, 1.0)], [Origin("eu", 1.0, {"a": 0}, 1000)], quality=0.95)


def test_latency_rules_out_the_far_and_the_slow():
    """With 600 ms, the big variant (500) may run at 90 ms and not at 150; small may; nothing at 450 ms is refused."""
    sites = [Site("near", 100.0, 500.0), Site("far", 100.0, 10.0)]
    case = service(sites, [Origin("eu", 100.0, {"near": 90, "far": 150}, 600)])

    assert {(s, v) for s, v in zip(case.site.tolist(), case.variant.tolist(), strict=True)} == {(0, 0), (0, 1), (1, 1)}
    with pytest.raises(PlanInputError, match="take 290 ms"):
        service(sites, [Origin("eu", 100.0, {"near": 90, "far": 150}, 280)])


def test_what_finds_no_room_is_told_and_no_saving():
    """One GPU, 4000 requests of 1 s: 400 are not served, and no bound is stated."""
    case = service([Site("a", 1.0, 100.0)], [Origin("eu", 4000.0, {"a": 0}, 1000)], [SMALL])
    found = route(case)

    assert found.unserved.tolist() == [[pytest.approx(400.0)]]
    assert found.bound_g is found.gap is None
    assert found.why == {(0, 0): NO_GPUS}


def test_why_requests_are_not_served():
    """One origin reaches a blind site only. In the second hour 900 of 2700 find no GPU; in the third all 2700 could be
    served by the small variant, but the floor asks for the big one alone, and one GPU serves 1800 of these."""
    grid = Grid(START, HOUR, 3)
    sites = [Site("a", np.array([1.0, 0.5, 1.0]), 100.0), Site("blind", 9.0, np.array([np.nan, 100.0, 100.0]))]
    origins = [
        Origin("eu", np.array([0.0, 2700.0, 2700.0]), {"a": 0}, 1000),
        Origin("us", np.array([100.0, 0.0, 0.0]), {"blind": 0}, 1000),
    ]
    found = route(service(sites, origins, grid=grid, variants=[SMALL]))
    assert found.unserved[:, :2].tolist() == [[0.0, pytest.approx(900.0)], [100.0, 0.0]]
    assert found.why == {(0, 1): NO_GPUS, (1, 0): NO_FORECAST}
    floor = route(service(sites, origins, grid=grid, quality=0.9))
    assert floor.unserved[0].tolist() == [0.0, pytest.approx(1800.0), pytest.approx(900.0)]
    assert floor.why == {(0, 1): NO_GPUS, (0, 2): NO_QUALITY, (1, 0): NO_FORECAST}


def test_serving_one_more_is_worth_moving_thousands():
    """A model of 1 s and one of 0.1 ms share the clean GPU of 3600 s. The slow one may run nowhere else: its 3600 take
    all of it, and 10 000 fast requests go to where they emit more."""
    slow, fast = Variant("slow", 0.1, 1.0, 1.0, 10), Variant("fast", 0.1, 0.0001, 0.0, 900)
    sites = [Site("clean", 1.0, 1.0), Site("dirty", 1.0, 1000.0)]
    origins = [Origin("a", 3600.0, {"clean": 0}, 100), Origin("b", 10_000.0, {"clean": 0, "dirty": 500}, 1000)]
    case = service(sites, origins, variants=[slow, replace(fast, latency_ms=400)])

    assert route(case).unserved.sum() == 0


def test_a_year_of_one_minute_slots_is_as_many_programmes():
    """Each slot stands alone: two slots cost what each costs by itself, and the bounds add up."""
    rng = np.random.default_rng(3)
    sites = [Site(f"s{i}", 2.0, rng.uniform(20, 500, 4), pue=1.1) for i in range(3)]
    asked = rng.uniform(1000, 3000, 4)
    ways = {f"s{i}": 20.0 for i in range(3)}
    whole = route(service(sites, [Origin("o", asked, ways, 900)], grid=Grid(START, HOUR, 4), quality=0.8))
    each = [
        route(service([replace(s, intensity_g_per_kwh=s.intensity_g_per_kwh[t : t + 1]) for s in sites],
                      [Origin("o", asked[t], ways, 900)], quality=0.8))
        for t in range(4)
    ]  # fmt: skip

    assert whole.cost_g == pytest.approx(sum(one.cost_g for one in each))
    assert whole.bound_g == pytest.approx(sum(one.bound_g for one in each))


def test_what_cannot_be_is_refused():
    """GPUs below 0, no number anywhere, two of one name: a sentence, never an empty split."""
    eu = Origin("eu", 100.0, {"a": 0}, 1000)
    faults = [
        ("Site 'a': gpus is -5", {"sites": [Site("a", -5.0, 100.0)]}),
        ("Site 'a': gpus is nan", {"sites": [Site("a", np.nan, 100.0)]}),
        ("Site 'a': intensity_g_per_kwh is -1", {"sites": [Site("a", 1.0, -1.0)]}),
        ("Weight money_g is inf", {"weights": Weights(money_g=np.inf)}),
        ("two variants 'big'", {"variants": [BIG, BIG]}),
        ("two origins 'eu'", {"origins": [eu, eu]}),
        ("quality floor nan is not a number", {"quality": np.nan}),
        ("Origin 'eu' needs a latency limit", {"origins": [replace(eu, network_ms={"a": np.nan})]}),
        ("Origin 'eu' needs a latency limit", {"origins": [replace(eu, network_ms={"a": -20.0})]}),
        ("Variant 'big' needs a finite energy", {"variants": [replace(BIG, gpu_s=np.inf)]}),
        ("Requests must be numbers", {"origins": [replace(eu, requests=np.nan)]}),
    ]
    for words, change in faults:
        with pytest.raises(PlanInputError, match=words):
            service(**{"sites": [Site("a", 1.0, 100.0)], "origins": [eu], **change})


def test_money_and_missing_forecasts():
    """At 10 000 g a unit of money the cheap site wins; an hour that one site does not know goes to the other."""
    grid = Grid(START, HOUR, 2)
    sites = [Site("a", 9.0, np.array([50.0, np.nan]), 0.5), Site("b", 9.0, 100.0, 0.1)]
    origin = Origin("eu", np.array([100.0, 200.0]), {"a": 0, "b": 0}, 1000)
    plain = route(service(sites, [origin], grid=grid, variants=[SMALL]))
    money = route(service(sites, [origin], grid=grid, variants=[SMALL], weights=Weights(money_g=10_000)))

    assert list(zip(plain.slot.tolist(), plain.site.tolist(), plain.requests.tolist(), strict=True)) == [
        (0, 0, 100.0), (1, 1, 200.0)
    ]  # fmt: skip
    assert set(money.site.tolist()) == {1}
    with pytest.raises(PlanInputError, match="No site has a forecast at 2025-10-09T10:00:00Z"):
        service(sites[:1], [Origin("eu", 1.0, {"a": 0}, 1000)], grid=grid)


def test_the_usual_split_is_the_nearest_with_room():
    """2000 requests of 2 s: 1800 at the nearest GPU, 200 at the next; never less than the best variant."""
    sites = [Site("near", 1.0, 400.0), Site("far", 9.0, 50.0)]
    origins = [Origin("eu", 2000.0, {"near": 5, "far": 60}, 1000)]
    case = service(sites, origins)
    found = nearest(case, origins, sites)

    assert list(zip(found.site.tolist(), found.variant.tolist(), found.requests.tolist(), strict=True)) == [
        (0, 0, 1800.0), (1, 0, 200.0)
    ]  # fmt: skip
    assert route(case).cost_g < found.cost_g
