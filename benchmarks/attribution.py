"""Attribution: a month of 1 000 GPUs to the full ledger, beside a bare decode, DuckDB and Polars on the same files.

`python benchmarks/attribution.py [--quick]` prints one line per bar, `name value limit holds|falls short`, and exits
with 1 where one falls short. Each timed run is a process of its own, in turns; medians are compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from cluster import STEP_MS, Size, make
from wattkeeper import loop
from wattkeeper.core.clock import hour_edges_ms
from wattkeeper.lake.book import Book
from wattkeeper.lake.readings import tail_start_ms

HERE = Path(__file__).parent
DATA = HERE / "data"

LARGE_MJ = 2 * 10**6
NEW_DAYS = 3

ATTRIBUTE = """
import sys
for name in ("cffi", "coverage", "scipy"):  # numba loads them where it finds them; other extras and tests bring them
    sys.modules[name] = None
from wattkeeper.__main__ import swift
swift()  # as the command line does
from pathlib import Path
from wattkeeper import loop
from wattkeeper.lake.book import Book
loop.attribute(Book(Path(BOOK)), everything=True)
"""

DECODE = """
import polars as pl
for path in FILES:
    pl.read_parquet(path, columns=["meter", "time_ms", "value"])
"""

DUCKDB = """
import duckdb
con = duckdb.connect()
con.execute(f"create view r as select meter, time_ms, value from read_parquet({FILES!r})")
con.execute(f"create table a as select job_id, asset || ':dcgm:energy_counter' as meter, start_ms, end_ms "
            f"from read_parquet({ALLOCATIONS!r})")
con.execute('''select job_id, sum(e1.value - e0.value) from a
  asof join r e0 on a.meter = e0.meter and a.start_ms >= e0.time_ms
  asof join r e1 on a.meter = e1.meter and a.end_ms >= e1.time_ms group by job_id''').fetchall()
"""

POLARS = """
import polars as pl
r = pl.scan_parquet(FILES).select("meter", "time_ms", "value")
a = pl.scan_parquet(ALLOCATIONS).with_columns((pl.col("asset") + ":dcgm:energy_counter").alias("meter"))
def at(edge, name):
    return (a.sort("meter", edge).join_asof(r.rename({"value": name}), left_on=edge, right_on="time_ms", by="meter",
            check_sortedness=False).select("job_id", "asset", "start_ms", "end_ms", name))
keys = ["job_id", "asset", "start_ms", "end_ms"]
(at("start_ms", "e0").join(at("end_ms", "e1"), on=keys).group_by("job_id")
 .agg((pl.col("e1") - pl.col("e0")).sum()).collect(engine="streaming"))
"""


class Bars:
    """The lines of a run."""

    def __init__(self) -> None:
        self.failed = False
        self.lines: list[str] = []

    def at_most(self, name: str, value: float, limit: float, form: str = "{:.2f}") -> None:
        """Print a bar that must not be exceeded."""
        self._line(name, form.format(value), f"<= {form.format(limit)}", value <= limit)

    def at_least(self, name: str, value: float, limit: float, form: str = "{:.1f}") -> None:
        """Print a bar that must be reached."""
        self._line(name, form.format(value), f">= {form.format(limit)}", value >= limit)

    def note(self, words: str) -> None:
        """Print something that is no bar."""
        self.lines.append(f"  {words}")
        print(self.lines[-1], flush=True)

    def _line(self, name: str, value: str, limit: str, holds: bool) -> None:
        self.failed |= not holds
        self.lines.append(f"{name:<46} {value:>12} {limit:>14} {'holds' if holds else 'falls short'}")
        print(self.lines[-1], flush=True)


def timed(code: str, **names: object) -> tuple[float, float, float]:
    """Run code in a fresh process; return wall [s], CPU [s] and peak memory [MiB]."""
    # Python compiles each module once and keeps it, as any installation does; some build machines switch that off
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(DATA / "pycache")
    head = "".join(f"{k} = {v!r}\n" for k, v in names.items())
    tail = (
        "\nimport resource\nu = resource.getrusage(resource.RUSAGE_SELF)\n"
        "peak = [l for l in open('/proc/self/status') if l.startswith('VmHWM')][0].split()[1]\n"
        "print('cost', u.ru_utime + u.ru_stime, peak)"
    )
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", head + code + tail], capture_output=True, text=True, check=False, env=env
    )
    wall = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"a run failed: {done.stderr[-800:]}")
    cpu, peak_kib = done.stdout.split("cost")[1].split()
    return wall, float(cpu), float(peak_kib) / 1024


def forget(root: Path) -> None:
    """Make a book as it was before it was ever attributed: without a ledger, not with one to be replaced."""
    import sqlalchemy as sa

    book = Book(root)
    with book.state.engine.begin() as db:
        db.execute(sa.text("delete from done"))
    for table in book.ledger.values():
        shutil.rmtree(table.root)
        table.create()


def files_of(book: Book) -> list[str]:
    """Return the readings files of the newest version."""
    return [str(book.readings.table.root / f.path) for f in book.readings.table.files()]


def speed(bars: Bars, size: Size, book: Book, rounds: int, limits: tuple[float, float]) -> tuple[float, float]:
    """Compare with a bare decode of the same columns, in turns; return our wall time and peak memory."""
    ours, decode = [], []
    for _ in range(rounds):
        forget(book.root)
        ours.append(timed(ATTRIBUTE, BOOK=str(book.root)))
        decode.append(timed(DECODE, FILES=files_of(book)))
    wall, cpu = (statistics.median(o[i] / d[i] for o, d in zip(ours, decode, strict=True)) for i in (0, 1))
    bars.at_most(f"{size.name} wall / polars decode", wall, limits[0])
    bars.at_most(f"{size.name} cpu / polars decode", cpu, limits[1])
    return statistics.median(o[0] for o in ours), max(o[2] for o in ours)


def peers(bars: Bars, size: Size, book: Book, ours_s: float, limits: tuple[float, float], rounds: int) -> None:
    """Compare with what a competent user would write; Polars, whose times spread most, by the median of some rounds."""
    allocations = [str(book.allocations_table.root / f.path) for f in book.allocations_table.files()]
    names = {"FILES": files_of(book), "ALLOCATIONS": allocations}
    bars.at_least(f"{size.name} duckdb asof / ours", timed(DUCKDB, **names)[0] / ours_s, limits[0])
    polars_s = statistics.median(timed(POLARS, **names)[0] for _ in range(rounds))
    bars.at_least(f"{size.name} polars asof / ours", polars_s / ours_s, limits[1])


def correctness(bars: Bars, size: Size, book: Book, nodes: int) -> None:
    """Balance, carbon, and jobs on some nodes against a plain numpy computation from the raw readings."""
    bars.at_most(f"{size.name} largest difference to a meter [mJ]", loop.check(book).largest_mj, 0, "{:.0f}")
    gpus = [a.id for a in book.tree().assets.values() if a.kind == "gpu"][: nodes * 8]
    expected = oracle(book, gpus)
    found = (
        book.postings.scan()
        .filter(pl.col("asset").is_in(gpus) & pl.col("job_id").is_not_null())
        .group_by("job_id")
        .agg(pl.col("energy_mj").sum())
        .collect()
    )
    # a ledger in whole millijoules holds a job of some hundred joules, cut a few times, to a millijoule or two
    apart = [(abs(e - expected[j]), expected[j]) for j, e in found.iter_rows()]
    large = [d / e for d, e in apart if e >= LARGE_MJ]
    small = [d for d, e in apart if e < LARGE_MJ]
    bars.at_most(f"{size.name} worst of {len(large)} jobs from 2 kJ, relative", max(large), 1e-6, "{:.1e}")
    bars.at_most(f"{size.name} worst of {len(small)} smaller jobs [mJ]", max(small, default=0.0), 2.0)
    carbon, exact = carbon_both_ways(book, gpus)
    bars.at_most(f"{size.name} carbon of {len(gpus)} GPUs, relative", abs(carbon / exact - 1), 1e-12, "{:.1e}")


def curve(time_ms: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return cumulative energy [mJ], plainly: falls are resets, imputed with the power of up to three steps before."""
    rise = np.diff(value).astype(float)
    for i in np.flatnonzero(rise < 0):
        first = max(i - 3, 0)
        while first < i and (np.diff(value[first : i + 1]) < 0).any():
            first += 1
        step = time_ms[i + 1] - time_ms[i]
        mean = (value[i] - value[first]) / (time_ms[i] - time_ms[first]) if first < i else 0.0
        rise[i] = min(max(mean * step, value[i + 1] if value[i + 1] <= 3000 * step else 0), 3000 * step)
    return np.concatenate(([0.0], np.cumsum(rise)))


def oracle(book: Book, gpus: list[str]) -> dict[str, float]:
    """Return mJ by job on some GPUs, allocation by allocation, share by share, from the raw readings."""
    rows = pl.read_parquet(files_of(book)).filter(pl.col("meter").is_in([f"{g}:dcgm:energy_counter" for g in gpus]))
    held = book.allocations().filter(pl.col("asset").is_in(gpus)).partition_by("asset", as_dict=True)
    total: dict[str, float] = {}
    for (meter,), part in rows.sort("meter", "time_ms").partition_by("meter", as_dict=True).items():
        time_ms, value = part["time_ms"].to_numpy(), part["value"].to_numpy()
        energy = curve(time_ms, value)
        mine = held.get((str(meter).removesuffix(":dcgm:energy_counter"),))
        if mine is None:
            continue
        start, end, share = (mine[c].to_numpy() for c in ("start_ms", "end_ms", "share"))
        cuts = np.unique(np.concatenate((start, end)))
        drawn = np.diff(np.interp(cuts, time_ms, energy))
        weight = np.zeros(len(drawn))
        first, last = np.searchsorted(cuts, start), np.searchsorted(cuts, end)
        for a, b, w in zip(first, last, share, strict=True):
            weight[a:b] += w
        for job, a, b, w in zip(mine["job_id"], first, last, share, strict=True):
            total[job] = total.get(job, 0.0) + float((drawn[a:b] * (w / weight[a:b])).sum())
    return total


def carbon_both_ways(book: Book, gpus: list[str]) -> tuple[float, float]:
    """Return the grams on the books of some GPUs, and ∫ intensity dE of their meters' curves read at each step."""
    signal = loop.signal_of(book, book.site_file.site[0], "intensity")
    booked = book.postings.scan().filter(pl.col("asset").is_in(gpus)).select(pl.col("carbon_g").sum()).collect().item()
    rows = pl.read_parquet(files_of(book)).filter(pl.col("meter").is_in([f"{g}:dcgm:energy_counter" for g in gpus]))
    exact = 0.0
    from wattkeeper.core.curve import EnergyCurve

    for part in rows.sort("meter", "time_ms").partition_by("meter"):
        exact += signal.integrate(
            EnergyCurve.from_counter(part["time_ms"].to_numpy(), part["value"].to_numpy(), ceiling_w=2500)
        )
    return booked, exact


def new_day(bars: Bars, size: Size, month_s: float, limit: float) -> None:
    """Attribute a book without its last days, add them one by one, and compare cost and result with all at once.

    Days are attributed by a process that runs already, as a service does; the month is a whole process.
    """
    whole = make(size, DATA)
    short = make(size, DATA, without_last=NEW_DAYS)
    loop.attribute(short, everything=True)
    files = sorted(whole.readings.table.files(), key=lambda f: f.day)[-NEW_DAYS:]
    gpus = [a.id for a in whole.tree().assets.values() if a.kind == "gpu"]
    unit = {f"{g}:dcgm:energy_counter": i // 8 for i, g in enumerate(gpus)}
    spent = []
    for file in files:
        rows = pl.read_parquet(whole.readings.table.root / file.path)
        units = rows["meter"].replace_strict(unit, return_dtype=pl.Int64).to_numpy()
        short.readings.write_day(rows, ("a", file.day), units, tail_start_ms(hour_edges_ms(file.day, "UTC")))
        short.readings.table.commit()
        short.state.mark_stale([("a", *short._span("a", file.day))])
        begin = time.perf_counter()
        loop.attribute(short)
        spent.append(time.perf_counter() - begin)
    bars.at_most(f"{size.name} a new day / the month", statistics.median(spent) / month_s, limit, "{:.3f}")
    same = all(
        getattr(short, t).scan().collect().sort(pl.all()).equals(getattr(whole, t).scan().collect().sort(pl.all()))
        for t in ("postings", "meter_hours", "job_days")
    )
    bars.at_most(f"{size.name} new days differ from all at once", 0 if same else 1, 0, "{:.0f}")


def query(bars: Bars, size: Size, book: Book, run_s: float) -> None:
    """Time a month's account totals and jobs."""
    spent = []
    for _ in range(5):
        begin = time.perf_counter()
        lines = book.job_days.scan()
        pl.collect_all(
            [
                lines.group_by("account").agg(pl.col("energy_mj", "carbon_g", "cost").sum()),
                lines.group_by("job_id").agg(pl.col("energy_mj", "carbon_g", "cost").sum()),
            ]
        )
        spent.append(time.perf_counter() - begin)
    bars.at_most(f"{size.name} statement query [s]", statistics.median(spent), max(0.05, run_s / 50), "{:.3f}")
    begin = time.perf_counter()
    rows = loop.statement(book).rows.height
    bars.note(f"the whole statement with {rows} jobs and the uncertainty of each: {time.perf_counter() - begin:.2f} s")


def main() -> int:
    """Run the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller cluster, under 50 s")
    quick = parser.parse_args().quick
    bars = Bars()
    size = Size(400, 6) if quick else Size(1000, 30)
    six = size if quick else Size(1000, 6)
    book = make(size, DATA)
    timed(ATTRIBUTE, BOOK=str(book.root))  # compiles what was not compiled before
    # at the small size the fixed cost of starting a process rules, so its limits are wider
    ours_s, peak = speed(bars, size, book, 2 if quick else 5, (6.0, 6.0) if quick else (2.5, 2.0))
    book = Book(book.root)
    correctness(bars, size, book, 2 if quick else 3)
    query(bars, size, book, ours_s)
    readings = pl.scan_parquet(files_of(book)).select(pl.len()).collect().item()
    on_disk = sum(Path(f).stat().st_size for f in files_of(book))
    bars.at_most(f"{size.name} bytes per reading", on_disk / readings, 4.5)
    bars.at_most(f"{size.name} peak memory [MiB]", peak, 600, "{:.0f}")
    if not quick:
        six_book = make(six, DATA)
        timed(ATTRIBUTE, BOOK=str(six_book.root))
        forget(six_book.root)
        bars.at_most("peak memory, 30 days / 6 days", peak / timed(ATTRIBUTE, BOOK=str(six_book.root))[2], 1.2)
    peers(bars, size, book, ours_s, (2.0, 0.3) if quick else (15.0, 6.0), 1 if quick else 3)
    new_day(bars, size, ours_s, 0.25 if quick else 1 / 20)
    if not quick:
        note = f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {os.cpu_count()} cores {platform.python_version()}"
        result = HERE / "results" / f"attribution-{datetime.now(UTC):%Y-%m-%d}.txt"
        result.write_text(
            "\n".join([note, f"readings {readings}, one each {STEP_MS / 1000:.0f} s", *bars.lines]) + "\n"
        )
    return 1 if bars.failed else 0


if __name__ == "__main__":
    if "--fresh" in sys.argv:
        sys.argv.remove("--fresh")
        shutil.rmtree(DATA, ignore_errors=True)
    sys.exit(main())
