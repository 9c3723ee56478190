"""The planner's records: all ways to run all jobs, and where the jobs are, as columns for the kernels.

A *mode* is one way of running a job: a site, a cap level, a length in slots, a first start and an end. Energy that a
job draws from slot t on costs a difference of prefix sums, so that all starts of a mode are weighed in one sweep.
An interruptible mode takes any slots between its first and its end; which ones, an exact dynamic programme says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Marks = NDArray[np.uint8]

RIGID = -1
"""Resume slots of a mode that runs in one piece."""

OFF, RUN, RESUME = 0, 1, 2
"""What an interruptible job does in a slot: nothing, work, or hold its GPUs while it is restored."""

NOWHERE = -1
"""Mode of a job that is not placed."""

FAR = 1e300
"""Cost of what cannot be."""


class Modes(NamedTuple):
    """All ways to run all jobs, job after job.

    mode0: (n + 1,) where each job's modes begin. site, first, end, length, resume: (m,) slots; end is exclusive.
    gpus: (m,) held. kw: (m,) highest IT power, counted against a power budget. fixed: (m,) cost of transfer and of
    the delay of a start at `first`. delay: (m,) cost of each slot later. resume_kwh: (m,) IT energy of one resume.
    phase0: (m + 1,) where each mode's phases begin. phase_end: (f,) slots from the start; phase_kw: (f,) IT power.
    mark0: (n + 1,) where each job's slots stand in the marks of a plan; room only for interruptible jobs.
    window0: (n,) the slot of a job's first mark.
    """

    mode0: Int64s
    site: Int64s
    first: Int64s
    end: Int64s
    length: Int64s
    gpus: Floats
    kw: Floats
    fixed: Floats
    delay: Floats
    resume: Int64s
    resume_kwh: Floats
    phase0: Int64s
    phase_end: Int64s
    phase_kw: Floats
    mark0: Int64s
    window0: Int64s


class Lines(NamedTuple):
    """Costs and prices along time, as sums from slot 0: (sites, slots + 1) each.

    energy: cost of 1 kW of IT power held from slot 0 on. gpu: price of 1 GPU. power: price of 1 kW of the budget.
    limited: 1 where a power budget is set anywhere.
    """

    energy: Floats
    gpu: Floats
    power: Floats
    limited: int


class Places(NamedTuple):
    """Where jobs are: mode (NOWHERE: not placed) and start slot, (n,) each; marks of interruptible jobs, one a slot."""

    mode: Int64s
    start: Int64s
    marks: Marks


class Delays(NamedTuple):
    """Who waits how long: each hour by which a user's GPUs already wait makes the next one dearer.

    user: (n,) who asked for each job, -1 for nobody. late, each: (m,) delay of a start at `first` and of each slot
    later [GPU-h]. steep: (u,) what a GPU-hour of delay adds to the cost of the user's next one [g].
    total: (u,) delay of the user's jobs where they stand [GPU-h].
    """

    user: Int64s
    late: Floats
    each: Floats
    steep: Floats
    total: Floats


class Room(NamedTuple):
    """What is left on the grid: (sites, slots) GPUs and kW; negative where too much was placed."""

    gpus: Floats
    kw: Floats


class Scratch(NamedTuple):
    """Working room of one thread."""

    cost: Floats
    over: Floats
    values: Floats
    came: Marks
