"""What jobs on the book's ledger usually drew and how long they lasted, for jobs that do not say."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import polars as pl

from wattkeeper.core.units import MS_PER_HOUR
from wattkeeper.lake.book import Book

CHANCES = (0.5, 0.75, 0.9, 0.95)
"""Quantiles of duration that are taken from the past."""

LEAST, MOST = 10, 200
"""Past jobs that quantiles need, and the newest that count."""

_DONE = ("COMPLETED", "TIMEOUT")


class Usual:
    """What is known of users' past jobs; read when it is first asked for.

    asked: how many jobs were given the mean power of their user, and of all users. timed: how many were given quantiles
    of duration, from jobs of the same name, and from all of the user's.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._means_w: dict[str | None, float] | None = None
        self._lasted_h: dict[tuple[str, str | None], list[float]] | None = None
        self.asked, self.timed = [0, 0], [0, 0]

    def power_w(self, user: str) -> float | None:
        """Return the mean IT power of one GPU, with its share of the node, over a user's jobs, else over all jobs [W].

        None where no job on the ledger held a GPU.
        """
        if self._means_w is None:
            self._means_w = self._means()
        power_w = self._means_w.get(user, self._means_w.get(None))
        if power_w is not None:
            self.asked[user not in self._means_w] += 1
        return power_w

    def within_h(self, user: str, name: str) -> list[tuple[float, float]]:
        """Return quantiles of how long a user's jobs of a name lasted, else all of the user's: (chance, hours).

        Of the newest MOST that ran to their end or limit; none where there are fewer than LEAST.
        """
        if self._lasted_h is None:
            self._lasted_h = self._lasted()
        for i, key in enumerate(((user, name), (user, None))):
            if len(past := self._lasted_h.get(key, [])) >= LEAST and (i or name):
                self.timed[i] += 1
                return quantiles(past)
        return []

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken, in words."""
        whose = ("their users' past jobs", "all past jobs")
        drew = [
            f"power_w of {n} jobs is the mean of {of} on the ledger"
            for n, of in zip(self.asked, whose, strict=True)
            if n
        ]
        whose = ("their users' past jobs of the same name", "their users' past jobs")
        lasted = [
            f"durations of {n} jobs are quantiles of {of}, at most their time limit"
            for n, of in zip(self.timed, whose, strict=True)
            if n
        ]
        return (*drew, *lasted)

    def _lasted(self) -> dict[tuple[str, str | None], list[float]]:
        """Return hours from start to end of ended jobs, newest first, by user and name, and by user."""
        jobs = self._book.jobs().filter(
            pl.col("user").is_not_null() & pl.col("end_ms").is_not_null() & pl.col("state").is_in(_DONE)
        )
        found: dict[tuple[str, str | None], list[float]] = {}
        for user, name, start_ms, end_ms in (
            jobs.sort("end_ms", descending=True).select("user", "name", "start_ms", "end_ms").iter_rows()
        ):
            for key in {(user, name), (user, None)}:
                past = found.setdefault(key, [])
                if len(past) < MOST:
                    past.append((end_ms - start_ms) / MS_PER_HOUR)
        return found

    def _means(self) -> dict[str | None, float]:
        gpus = [a.id for a in self._book.tree().assets.values() if a.kind == "gpu"]
        held = pl.when(pl.col("asset").is_in(gpus)).then(pl.col("held_ms")).otherwise(0).sum().alias("held_ms")
        lines = self._book.postings.scan().filter(pl.col("job_id").is_not_null())
        by_job = lines.group_by("job_id").agg(pl.col("energy_mj").sum(), held).filter(pl.col("held_ms") > 0).collect()
        sums = by_job.join(self._book.jobs().select("job_id", "user"), on="job_id", how="left").group_by("user")
        found = sums.agg(pl.col("energy_mj", "held_ms").sum())
        means: dict[str | None, float] = {u: e / ms for u, e, ms in found.iter_rows() if u}
        if found.height:
            means[None] = int(found["energy_mj"].sum()) / int(found["held_ms"].sum())
        return means


def quantiles(past: Sequence[float]) -> list[tuple[float, float]]:
    """Return (chance, value) such that a further one of the same kind is within value with at least that chance.

    Of n values in order the one at rank ceil(p (n + 1)); chances too high for n are left out (split conformal: V. Vovk,
    A. Gammerman, G. Shafer, Algorithmic Learning in a Random World, 2005).
    """
    ordered, n = sorted(past), len(past)
    ranks = [(p, ceil(round(p * (n + 1), 9))) for p in CHANCES]
    return [(p, ordered[k - 1]) for p, k in ranks if k <= n]
