"""Cases that other tools get wrong, with our right answers: mean watts over one hour, worked by hand.

The ten CEEMS cases and the gap cases are those of a head-to-head of its recording rules in promtool; see
docs/explanation/measuring-right.md for what each tool answers.
"""

from __future__ import annotations

import polars as pl
import pytest

from tests.books import small
from tests.books.small import HOUR, SITE, START, book, counter, held, mig, node, power, utilisation, watts
from wattkeeper import loop
from wattkeeper.core.assets import Meter
from wattkeeper.core.roles import Intake


def test_a_busy_gpu_belongs_to_its_job(tmp_path):
    """One job on one GPU at 500 W has 500 W."""
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500)], [held("j1", "n1/gpu0")])

    assert {"j1": 500.0} == watts(made)


def test_an_idle_gpu_held_by_a_job_is_held_idle_and_its_holders(tmp_path):
    """A held GPU that does not work draws 120 W: held idle, on its holder's name, not dropped."""
    meters = [counter("n1/gpu0", 120), utilisation("n1/gpu0", 0.0)]
    made = book(tmp_path, SITE + node("n1", 1), meters, [held("j1", "n1/gpu0")])

    assert {"held_idle": 120.0} == watts(made)
    assert ["j1"] == made.postings.scan().select("job_id").unique().collect()["job_id"].to_list()


def test_a_held_gpu_is_told_idle_by_its_power_where_no_utilisation_is_read(tmp_path):
    """At or below the declared idle power, a held GPU counts as idle."""
    site = SITE + node("n1", 1).replace("gpus = 1", "gpus = 1\ngpu_idle_power_w = 120")
    made = book(tmp_path, site, [counter("n1/gpu0", 120)], [held("j1", "n1/gpu0")])

    assert {"held_idle": 120.0} == watts(made)


def test_two_gpus_one_of_them_held_idle(tmp_path):
    """500 W busy for j1 and 90 W held idle by j2: 590 W in all."""
    meters = [counter("n1/gpu0", 500), counter("n1/gpu1", 90), utilisation("n1/gpu0", 0.9), utilisation("n1/gpu1", 0)]
    made = book(tmp_path, SITE + node("n1", 2), meters, [held("j1", "n1/gpu0"), held("j2", "n1/gpu1")])

    assert {"j1": 500.0, "held_idle": 90.0} == watts(made)


def test_an_unallocated_gpu_is_idle(tmp_path):
    """A GPU that nobody holds draws 90 W for the idle pool."""
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 90)])

    assert {"idle": 90.0} == watts(made)


def test_two_jobs_on_two_mig_instances_split_the_device(tmp_path):
    """300 W split by slice where no activity is known: 4/7 and 3/7."""
    site = SITE + node("n1", 1) + mig("n1/gpu0", 1, 4 / 7) + mig("n1/gpu0", 2, 3 / 7)
    rows = [held("j1", "n1/gpu0/1", 4 / 7), held("j2", "n1/gpu0/2", 3 / 7)]
    made = book(tmp_path, site, [counter("n1/gpu0", 300)], rows)

    assert {"j1": pytest.approx(300 * 4 / 7, rel=2e-6), "j2": pytest.approx(300 * 3 / 7, rel=2e-6)} == watts(made)


def test_mig_instances_are_weighed_by_slice_and_activity(tmp_path):
    """A busy 3/7 slice and a half-busy 4/7 slice weigh 3 × 1 to 4 × 0.5: 180 W and 120 W of 300 W."""
    site = SITE + node("n1", 1) + mig("n1/gpu0", 1, 3 / 7) + mig("n1/gpu0", 2, 4 / 7)
    meters = [counter("n1/gpu0", 300), utilisation("n1/gpu0/1", 1.0), utilisation("n1/gpu0/2", 0.5)]
    rows = [held("j1", "n1/gpu0/1", 3 / 7), held("j2", "n1/gpu0/2", 4 / 7)]
    made = book(tmp_path, site, meters, rows)

    assert {"j1": pytest.approx(180, rel=3e-6), "j2": pytest.approx(120, rel=3e-6)} == watts(made)


def test_a_job_on_one_of_two_mig_instances_has_the_whole_device_once(tmp_path):
    """300 W with one tenant are 300 W: not 600 W because two series carry it."""
    site = SITE + node("n1", 1) + mig("n1/gpu0", 1, 3 / 7) + mig("n1/gpu0", 2, 4 / 7)
    made = book(tmp_path, site, [counter("n1/gpu0", 300)], [held("j1", "n1/gpu0/1", 3 / 7)])

    assert {"j1": 300.0} == watts(made)


def test_two_jobs_that_share_a_gpu_in_time_split_it(tmp_path):
    """Half each of 300 W."""
    rows = [held("j1", "n1/gpu0", 0.5), held("j2", "n1/gpu0", 0.5)]
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 300)], rows)

    assert {"j1": 150.0, "j2": 150.0} == watts(made)


def test_a_nodes_parts_are_never_more_or_less_than_the_node(tmp_path):
    """1000 W with jobs on 8 and 6 of 16 cores: 500, 375, and 125 W of a part nobody holds."""
    rows = [held("j1", "n1", 8 / 16), held("j2", "n1", 6 / 16)]
    made = book(tmp_path, SITE + node("n1", 0), [power("n1", 1000)], rows)

    assert {"j1": 500.0, "j2": 375.0, "idle": 125.0} == watts(made)


def test_shares_above_one_are_scaled_to_the_node(tmp_path):
    """Shares 0.9 and 0.9 (page cache counted twice, say) divide 1000 W by two; they do not make 1800 W."""
    made = book(tmp_path, SITE + node("n1", 0), [power("n1", 1000)], [held("j1", "n1", 0.9), held("j2", "n1", 0.9)])

    assert {"j1": 500.0, "j2": 500.0} == watts(made)


def test_a_lone_gpu_job_has_its_gpus_and_what_the_node_adds(tmp_path):
    """An exclusive job has all of the node's 1000 W, however idle its CPUs are: 600 W GPU and 400 W rest."""
    meters = [power("n1", 1000), counter("n1/gpu0", 600)]
    made = book(tmp_path, SITE + node("n1", 1), meters, [held("j1", "n1"), held("j1", "n1/gpu0")])

    assert {"j1": 1000.0} == watts(made)
    assert {"n1": 400.0, "n1/gpu0": 600.0} == watts(made, by="asset")


def test_a_job_with_gpus_only_has_its_part_of_the_nodes_rest(tmp_path):
    """One of two GPUs held, rest 400 W: half of the rest follows the GPU, half stays idle with the other."""
    meters = [power("n1", 1000), counter("n1/gpu0", 500), counter("n1/gpu1", 100)]
    made = book(tmp_path, SITE + node("n1", 2), meters, [held("j1", "n1/gpu0")])

    # j1: 500 + 400 / 2; idle: 100 + 400 / 2
    assert {"j1": 700.0, "idle": 300.0} == watts(made)


def test_a_bad_device_does_not_void_the_others(tmp_path):
    """A GPU without a meter leaves the books of its neighbour as they are, and its time shows as not covered."""
    rows = [held("j1", "n1/gpu0"), held("j1", "n1/gpu1")]
    made = book(tmp_path, SITE + node("n1", 2), [counter("n1/gpu0", 500)], rows)
    coverage = made.postings.scan().select(pl.col("covered_ms").sum() / pl.col("held_ms").sum()).collect().item()

    assert {"j1": 500.0} == watts(made)
    assert coverage == 0.5


def test_a_device_read_by_two_sources_is_counted_once(tmp_path):
    """A counter and power samples of one GPU: the counter is booked, the samples confirm."""
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 500), power("n1/gpu0", 510)])
    hours = made.meter_hours.scan().select("meter", "primary").unique().sort("meter").collect()

    assert {"idle": 500.0} == watts(made)
    assert [("n1/gpu0:dcgm:energy_counter", True), ("n1/gpu0:ipmi:power", False)] == hours.rows()


def test_two_feeds_of_one_server_add_up(tmp_path):
    """A server on two PDU outlets of one source draws the sum of both."""
    one, two = power("n1", 600, "pdu"), power("n1", 400, "pdu")
    second = Meter("n1:feed-b", "n1", "power", "pdu")
    two = (second, two[1].with_columns(pl.lit("n1:feed-b").alias("meter")))

    assert {"idle": 1000.0} == watts(book(tmp_path, SITE + node("n1", 0), [one, two]))


def test_children_above_their_parent_show_as_unaccounted(tmp_path):
    """GPUs at 600 W in a node whose meter says 500 W: −100 W unaccounted, not hidden."""
    meters = [power("n1", 500), counter("n1/gpu0", 600)]
    made = book(tmp_path, SITE + node("n1", 1), meters, [held("j1", "n1"), held("j1", "n1/gpu0")])

    assert {"j1": 600.0, "unaccounted": -100.0} == watts(made)


def test_a_pdu_that_disagrees_with_its_servers_shows_as_unaccounted(tmp_path):
    """A rack PDU at 1030 W over a server at 1000 W: 30 W unaccounted."""
    site = SITE + "[[asset]]\nid = 'r1'\nkind = 'rack'\nparent = 'a'\n" + node("n1", 0, "r1")
    made = book(tmp_path, site, [power("n1", 1000), counter("r1", 1030, "pdu")], [held("j1", "n1")])

    assert {"j1": 1000.0, "unaccounted": 30.0} == watts(made)


def test_a_facility_meter_makes_overhead_and_a_pue_makes_it_where_there_is_none(tmp_path):
    """Facility 1300 W over 1000 W of IT, measured or by a PUE of 1.3: 300 W overhead either way."""
    measured = book(tmp_path / "1", SITE + node("n1", 0), [power("n1", 1000), counter("a", 1300)], [held("j1", "n1")])
    by_pue = book(tmp_path / "2", SITE + "pue = 1.3\n" + node("n1", 0), [power("n1", 1000)], [held("j1", "n1")])

    assert {"j1": 1000.0, "overhead": 300.0} == watts(measured) == watts(by_pue)
    imputed = [b.postings.scan().select(pl.col("imputed_mj").sum()).collect().item() for b in (measured, by_pue)]
    assert [0, 300 * HOUR] == imputed  # a PUE is not a meter


def test_metered_cooling_is_overhead(tmp_path):
    """A cooling loop's meter is overhead by itself; the facility's rest comes on top."""
    site = SITE + node("n1", 0) + "[[asset]]\nid = 'crac'\nkind = 'cooling'\nparent = 'a'\n"
    made = book(tmp_path, site, [power("n1", 1000), power("crac", 200), counter("a", 1300)])

    assert {"idle": 1000.0, "overhead": 300.0} == watts(made)


@pytest.mark.parametrize("silent_s", [180, 480])
def test_a_gap_is_bridged_and_shown(tmp_path, silent_s):
    """Three or eight silent minutes in twenty at 100 W: 120 kJ, with the silence shown where it is long."""
    meter, rows = counter("n1/gpu0", 100, hours=1 / 3)
    quiet = (pl.col("time_ms") > START + 300_000) & (pl.col("time_ms") < START + 300_000 + silent_s * 1000)
    made = book(tmp_path, SITE + node("n1", 1), [(meter, rows.filter(~quiet))], [held("j1", "n1/gpu0")])
    energy, covered = made.postings.scan().select(pl.col("energy_mj", "covered_ms").sum()).collect().row(0)

    assert energy == 120_000_000
    assert covered == (1_200_000 if silent_s == 180 else 1_200_000 - 480_000)


def test_a_job_shorter_than_the_sampling_has_its_energy(tmp_path):
    """Ten seconds between two samples of a GPU at 400 W are 4 kJ."""
    row = held("j1", "n1/gpu0", start=START + 17_000, end=START + 27_000)
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 400)], [row])

    assert 4_000_000 == made.postings.scan().filter(pl.col("job_id") == "j1").select("energy_mj").collect().item()


def test_a_job_that_ran_and_ended_since_is_closed(tmp_path):
    """A job first told as running, later as ended, holds nothing after its end."""
    made = book(tmp_path, SITE + node("n1", 1), [counter("n1/gpu0", 360)], [held("j1", "n1/gpu0", end=None)])
    assert {"j1": 360.0} == watts(made)

    ended = pl.DataFrame([held("j1", "n1/gpu0", end=START + HOUR // 2)], schema=small.ALLOCATIONS.schema, orient="row")
    made.take(Intake("sacct", allocations=ended), now_ms=1)
    loop.attribute(made)

    assert {"j1": 180.0, "idle": 180.0} == watts(made)


def test_rows_split_by_count_give_way_to_exact_ones(tmp_path):
    """A job known to hold one of two GPUs by count only is split; once its GPU is known, that one is its own."""
    meters = [counter("n1/gpu0", 500), counter("n1/gpu1", 100)]
    guess = [("j1", f"n1/gpu{g}", START, START + HOUR, 0.5, True) for g in (0, 1)]
    made = book(tmp_path, SITE + node("n1", 2), meters, guess)
    assert {"j1": 300.0, "idle": 300.0} == watts(made)  # half of each, marked as estimated
    assert 300 * HOUR == made.postings.scan().select(pl.col("estimated_mj").sum()).collect().item()

    exact = pl.DataFrame([held("j1", "n1/gpu0")], schema=small.ALLOCATIONS.schema, orient="row")
    made.take(Intake("prolog", allocations=exact), now_ms=1)
    loop.attribute(made)

    assert {"j1": 500.0, "idle": 100.0} == watts(made)
