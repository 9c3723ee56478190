"""Small random planning problems, and all their plans by brute force."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from wattkeeper.plan.problem import Grid, Job, Level, Problem, Site, Weights, pose

HOUR = 3_600_000
START = 1_760_000_400_000


@st.composite
def problems(draw: st.DrawFn, most_jobs: int = 4, slots: int = 8, suspendable: bool = True) -> Problem:
    """Draw a problem: every kind of job, some sites with a power budget, some hours without a forecast."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_sites, n = draw(st.integers(1, 2)), draw(st.integers(1, most_jobs))
    limited, blind = draw(st.booleans()), draw(st.booleans())
    sites = []
    for i in range(n_sites):
        intensity = rng.uniform(20, 500, slots).round()
        if blind:
            intensity[rng.integers(0, slots)] = np.nan
        price = rng.uniform(-0.05, 0.4, slots).round(2)
        power_kw = rng.uniform(1.5, 4.0, slots).round(1) if limited else np.inf
        gpus = rng.integers(2, 5, slots).astype(float)
        sites.append(Site(f"s{i}", gpus, intensity, price, 0.5, rng.uniform(1, 1.5, slots).round(2), power_kw))
    jobs = [_job(rng, i, n_sites, slots, suspendable) for i in range(n)]
    weights = Weights(
        money_g=draw(st.sampled_from([0.0, 100.0])),
        water_g_per_l=draw(st.sampled_from([0.0, 5.0])),
        delay_g_per_gpu_h=draw(st.sampled_from([0.0, 3.0])),
        fairness_g=draw(st.sampled_from([0.0, 2.0, 30.0])),
    )
    return pose(Grid(START, HOUR, slots), sites, jobs, weights)


def _job(rng: np.random.Generator, i: int, n_sites: int, slots: int, suspendable: bool) -> Job:
    release = START + int(rng.integers(-1, slots // 2) * HOUR + rng.integers(0, 2) * HOUR // 3)
    deadline = None if rng.random() < 0.3 else release + int(rng.integers(2, slots + 2)) * HOUR
    resting = suspendable and rng.random() < 0.4
    profile = [] if resting or rng.random() < 0.7 else [(HOUR // 2, 300.0), (HOUR, 900.0), (HOUR // 4, 100.0)]
    within = [] if profile or rng.random() < 0.6 else [(0.5, HOUR // 2), (0.9, HOUR)][: int(rng.integers(1, 3))]
    duration_ms = int(rng.integers(2 if within else 1, 7)) * HOUR // 2
    return Job(
        f"j{i}",
        gpus=int(rng.integers(1, 4)),
        duration_ms=duration_ms,
        power_w=float(rng.integers(2, 9)) * 100,
        release_ms=release,
        deadline_ms=deadline,
        tier=["critical", "deadline", "elastic"][int(rng.choice([0, 1, 1, 1, 2]))],
        sites={} if rng.random() < 0.5 else {f"s{s}": (0.1 * s, int(s) * HOUR) for s in range(n_sites)},
        levels=[Level(1.25, 0.7)] if rng.random() < 0.4 else [],
        suspendable=resting,
        resume_ms=int(rng.choice([0, HOUR // 10])),
        resume_kwh=float(rng.choice([0.0, 0.05])),
        profile=profile,
        within=within,
        confidence=float(rng.choice([0.8, 0.95, 1.0])),
        user=["", "ada", "bo"][int(rng.integers(0, 3))],
        delay_weight=float(rng.choice([0.5, 1.0, 2.0])),
    )


def uneven(problem: Problem, ends: list[int]) -> float:
    """Return what the users' delay counts beyond each job's own, from the slots before which the jobs end [g]."""
    jobs, grid = problem.jobs, problem.grid
    delay: dict[str, list[float]] = {}
    for j, end in enumerate(ends):
        i = int(problem.planned[j])
        release = -(-max(int(jobs.release_ms[i]) - grid.start_ms, 0) // grid.slot_ms)
        waited = max(grid.start_ms - int(jobs.release_ms[i]), 0) / HOUR
        shortest = max(-(-round(jobs.held_ms()[i]) // grid.slot_ms), 1)
        gpus = float(jobs.gpus[i] * jobs.delay_weight[i])
        delay.setdefault(str(jobs.user[i]), []).append((end - release - shortest + waited) * gpus)
        delay.setdefault(f"{jobs.user[i]} gpus", []).append(gpus)
    of = {user: (sum(late), sum(delay[f"{user} gpus"])) for user, late in delay.items() if f"{user} gpus" in delay}
    return sum(problem.weights.fairness_g / 2 * d * d / g for user, (d, g) in of.items() if user)


def every_choice(problem: Problem, j: int) -> list[tuple[int, tuple[int, ...], float]]:
    """Return all (mode, slots held, cost) of one planned job, written down without the kernels."""
    modes, found = problem.modes, []
    for m in range(modes.mode0[j], modes.mode0[j + 1]):
        s, first, end, length = (int(c[m]) for c in (modes.site, modes.first, modes.end, modes.length))
        phases = range(modes.phase0[m], modes.phase0[m + 1])
        draws = [float(modes.phase_kw[next(p for p in phases if modes.phase_end[p] > k)]) for k in range(length)]
        rate = problem.rate[s] * problem.grid.slot_h
        if modes.resume[m] < 0:
            for start in range(first, end - length + 1):
                held = tuple(range(start, start + length))
                cost = modes.fixed[m] + modes.delay[m] * (start - first)
                found.append((m, held, float(cost + sum(d * rate[u] for d, u in zip(draws, held, strict=True)))))
            continue
        q = int(modes.resume[m])
        for held in _held_sets(first, end, length, q):
            cost = modes.fixed[m] + modes.delay[m] * (held[-1] + 1 - first - length)
            for k, u in enumerate(held):
                if k and held[k - 1] != u - 1:
                    cost += modes.resume_kwh[m] * rate[u]
            resting = {u + i for k, u in enumerate(held) if k and held[k - 1] != u - 1 for i in range(q)}
            cost += sum(draws[0] * rate[u] for u in held if u not in resting)
            found.append((m, held, float(cost)))
    return found


def _held_sets(first: int, end: int, length: int, q: int) -> list[tuple[int, ...]]:
    """Return all sets of slots with `length` of work, where each stretch after the first begins with q of restoring."""
    found = []
    for size in range(length, end - first + 1):
        for held in itertools.combinations(range(first, end), size):
            breaks = [k for k in range(1, size) if held[k - 1] != held[k] - 1]
            stretches = [b - a for a, b in zip([0, *breaks], [*breaks, size], strict=True)]
            if size - q * len(breaks) == length and all(one > q for one in stretches[1:]):
                found.append(held)
    return found


def cheapest(problem: Problem) -> float | None:
    """Return the cost of the best feasible plan, by trying all; None where no plan places every job."""
    modes = problem.modes
    best = [np.inf]
    choices = [sorted(every_choice(problem, j), key=lambda c: c[2]) for j in range(len(problem.planned))]
    rest = np.array([0.0, *itertools.accumulate(c[0][2] for c in reversed(choices))])[::-1]

    ends = [0] * len(choices)

    def go(j: int, cost: float, gpus: np.ndarray, kw: np.ndarray) -> None:
        if cost + rest[j] >= best[0]:
            return
        if j == len(choices):
            best[0] = min(best[0], cost + uneven(problem, ends))
            return
        for m, held, own in choices[j]:
            s, at = modes.site[m], list(held)
            if (gpus[s, at] >= modes.gpus[m]).all() and (kw[s, at] >= modes.kw[m] - 1e-9).all():
                gpus[s, at] -= modes.gpus[m]
                kw[s, at] -= modes.kw[m]
                ends[j] = at[-1] + 1
                go(j + 1, cost + own, gpus, kw)
                gpus[s, at] += modes.gpus[m]
                kw[s, at] += modes.kw[m]

    go(0, 0.0, problem.gpus.copy(), problem.power_kw.copy())
    return float(best[0]) if np.isfinite(best[0]) else None
