"""Who held which GPU, and when, as samples tell it."""

from __future__ import annotations

from tests.integrations.prometheus.conftest import ENERGY, ENGINE, GPU, NOW, POWER, holdings, of
from wattkeeper.integrations.prometheus.series import FOREVER_MS, Options, to_intake

BY_JOB = Options(jobs_from="hpc_job")


def seen(job: str, at_s: list[int], **labels: str):
    """Return a power series that names a job at some seconds."""
    return of(POWER, [300] * len(at_s), {**GPU, **({"hpc_job": job} if job else {}), **labels}, at_s=at_s)


def test_a_job_holds_from_its_first_sample_to_one_scrape_after_the_last():
    """Seen at 0, 30 and 60 s: it held the GPU for 90 s."""
    assert [("7", "n1/gpu0", 0, 90, 1.0)] == holdings(to_intake([seen("7", [0, 30, 60])], BY_JOB))


def test_nobody_holds_what_no_label_names():
    """Without the label, and without being asked, there are no allocations."""
    assert [] == holdings(to_intake([seen("", [0, 30])], BY_JOB))
    assert [] == holdings(to_intake([seen("7", [0, 30])]))


def test_a_missed_scrape_does_not_part_a_job_but_a_silence_does():
    """A hole of 60 s is bridged; one of ten minutes is two stretches, the first with one scrape at its end."""
    found = holdings(to_intake([seen("7", [0, 30, 90, 120, 720, 750])], BY_JOB))

    assert [("7", "n1/gpu0", 0, 150, 1.0), ("7", "n1/gpu0", 720, 780, 1.0)] == found


def test_jobs_on_one_gpu_share_it_while_both_are_there():
    """Job 1 is alone until 60 s, shares until 120 s, and is alone again: 1, 1/2, 1."""
    one, two = seen("1", [0, 30, 60, 90, 120, 150]), seen("2", [60, 90])

    assert [
        ("1", "n1/gpu0", 0, 60, 1.0),
        ("1", "n1/gpu0", 60, 120, 0.5),
        ("1", "n1/gpu0", 120, 180, 1.0),
        ("2", "n1/gpu0", 60, 120, 0.5),
    ] == holdings(to_intake([one, two], BY_JOB))


def test_a_job_lets_go_when_the_next_one_is_seen():
    """Samples each 30 s, the next job's 5 s early: the two never overlap."""
    found = holdings(to_intake([seen("1", [0, 30, 60]), seen("2", [85, 115])], BY_JOB))

    assert [("1", "n1/gpu0", 0, 85, 1.0), ("2", "n1/gpu0", 85, 115 + 30, 1.0)] == found


def test_a_job_lets_go_when_the_gpu_is_seen_without_it():
    """A series that names nobody at 60 s ends the job there, though the next scrape would be later."""
    found = holdings(to_intake([seen("1", [0, 30]), seen("", [55, 85])], BY_JOB))

    assert [("1", "n1/gpu0", 0, 55, 1.0)] == found


def test_all_metrics_of_a_gpu_are_one_witness():
    """Power and energy at the same instants do not make a job hold twice as much."""
    both = [seen("7", [0, 30]), of(ENERGY, [1, 2], {**GPU, "hpc_job": "7"})]

    assert [("7", "n1/gpu0", 0, 60, 1.0)] == holdings(to_intake(both, BY_JOB))


def test_a_job_on_a_mig_instance_holds_its_slice():
    """A share is a share of the device: 3/7 for a 3g instance, half of that where two jobs share it."""
    slices = {"GPU_I_ID": "2", "GPU_I_PROFILE": "3g.40gb"}
    alone = to_intake([seen("7", [0, 30], **slices)], BY_JOB)
    shared = to_intake([seen(j, [0, 30], **slices) for j in ("7", "8")], BY_JOB)

    assert [("7", "n1/gpu0/2", 0, 60, 3 / 7)] == holdings(alone)
    assert [3 / 14, 3 / 14] == [share for *_, share in holdings(shared)]


def test_flags_of_ceems_are_scaled_to_the_device():
    """Two jobs with flag 1 hold half each (the flags add to 2); 0.75 and 0.25 stay; 0 is no holder."""

    def flags(index, *parts):
        base = {"hostname": "n1", "index": index, "gpuuuid": f"GPU-{index}", "gpuiid": ""}
        return [of("ceems_compute_unit_gpu_index_flag", p, {**base, "uuid": str(j)}) for j, p in enumerate(parts)]

    found = to_intake([*flags("0", 1, 1), *flags("1", 0.75, 0.25), *flags("2", 1, 0)], Options(jobs_from="ceems"))

    assert [("n1/gpu0", 0.5), ("n1/gpu1", 0.75), ("n1/gpu2", 1.0), ("n1/gpu0", 0.5), ("n1/gpu1", 0.25)] == [
        (asset, share) for _, asset, _, _, share in holdings(found)
    ]


def test_a_job_from_before_the_span_holds_from_its_start():
    """The look-back sees the job at −10 s and 20 s: in [0, 60 s) it holds from 0, not from 20 s."""
    found = to_intake([seen("7", [-40, -10, 20])], BY_JOB, start_ms=NOW, end_ms=NOW + 60_000)

    assert [("7", "n1/gpu0", 0, 50, 1.0)] == holdings(found)


def test_spans_side_by_side_tell_the_same_as_one():
    """Cut at 45 s, each half with the samples before it: [0, 45) and [45, 90) are [0, 90)."""
    series = [seen("7", [0, 30, 60])]
    parts = [to_intake(series, BY_JOB, start_ms=a * 1000 + NOW, end_ms=b * 1000 + NOW) for a, b in ((0, 45), (45, 120))]

    assert [("7", "n1/gpu0", 0, 45, 1.0), ("7", "n1/gpu0", 45, 90, 1.0)] == [h for p in parts for h in holdings(p)]


def test_readings_again_are_no_allocations_again():
    """Readings are taken from −60 s on again, but what was held then is known already: it begins at 0."""
    found = to_intake([seen("7", [-60, -30, 0, 30])], BY_JOB, start_ms=NOW - 60_000, held_from_ms=NOW)

    assert 4 == found.readings.height
    assert [("7", "n1/gpu0", 0, 60, 1.0)] == holdings(found)


def test_jobs_are_told_with_their_nodes_and_gpus():
    """Two GPUs on two nodes; running at the end of the span, so it has no end yet."""
    found = [seen("7", [0, 30]), seen("7", [0, 30], Hostname="n2")]
    ended = to_intake(found, BY_JOB).jobs.select("job_id", "start_ms", "end_ms", "nodes", "gpus").rows()
    running = to_intake(found, BY_JOB, start_ms=NOW, end_ms=NOW + 60_000).jobs["end_ms"].to_list()

    assert [("7", NOW, NOW + 60_000, 2, 2)] == ended
    assert [None] == running


def test_a_pod_is_a_job_of_its_namespace():
    """ml/train-0 is named train-0 and charged to ml."""
    labels = {**GPU, "exported_pod": "train-0", "exported_namespace": "ml"}
    found = to_intake([of(ENGINE, [0.5, 0.5], labels)], Options(jobs_from="pod"))

    assert [("ml/train-0", "train-0", "ml")] == found.jobs.select("job_id", "name", "project").rows()
    assert [("ml/train-0", "n1/gpu0", 0, 60, 1.0)] == holdings(found)


def test_a_lone_sample_speaks_for_one_interval():
    """One page read by hand: the job held for the 15 s that were said to be the interval."""
    found = to_intake([seen("7", [0])], Options(jobs_from="hpc_job", interval_ms=15_000), end_ms=FOREVER_MS)

    assert [("7", "n1/gpu0", 0, 15, 1.0)] == holdings(found)
