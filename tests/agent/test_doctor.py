"""What the doctor says about devices that were read twice, and about where readings go."""

from __future__ import annotations

import pytest

from tests.agent.receiver import Receiver
from tests.daemons import free_port
from wattkeeper import config
from wattkeeper.agent.doctor import Line, examine, examine_target
from wattkeeper.agent.look import Seen, asked
from wattkeeper.config import AgentConfig
from wattkeeper.core.assets import Asset, Meter
from wattkeeper.core.errors import ConfigError
from wattkeeper.core.live import Discovery, Sample

NOW_MS = 1_795_000_000_000


def seen(name, *meters, assets=(), before=None, after=None, age_ms=0, doubts=()):
    """Return a device whose meters said `before` and, 2 s later, `after`."""
    found = Discovery(list(assets), list(meters), list(doubts))
    rounds = [
        [Sample(m.id, at_ms - age_ms, values[m.id]) for m in meters if m.id in values]
        for at_ms, values in ((NOW_MS - 2000, before or {}), (NOW_MS, after or {}))
    ]
    return Seen("fake", name, found, rounds)


def said(*devices, optional=False):
    return examine(devices, optional=optional, now_s=NOW_MS / 1000)


def counter(asset, source="nvml"):
    return Meter(f"{asset}:c", asset, "energy_counter", source, 10)


def power(asset, source="nvml", rank=10):
    return Meter(f"{asset}:{source}:p", asset, "power", source, rank)


GPU = Asset("n01/gpu0", "gpu", "n01", "H200", 700.0)


def test_a_healthy_device_is_one_line():
    """1 200 J in 2 s are 600 W, and the power says 600 W."""
    one = seen(
        "nvml n01", counter(GPU.id), power(GPU.id), assets=[GPU], before={"n01/gpu0:c": 5_000_000},
        after={"n01/gpu0:c": 6_200_000, "n01/gpu0:nvml:p": 600_000},
    )  # fmt: skip

    assert said(one) == [Line("ok", "nvml n01", "2 meters, 2 of them tell a value.")]


def test_what_was_only_tried_is_no_fault():
    """Without a site file, what a machine does not have is not missing."""
    gone = Seen("rapl", "rapl n01", fault="rapl n01: /sys/class/powercap has no RAPL package.")

    assert [line.grade for line in said(gone)] == ["fault"]
    assert [line.grade for line in said(gone, optional=True)] == ["absent"]


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (5_000_000, 5_000_000, "The counter does not move"),
        (5_000_000, 4_000_000, "The counter went back"),
        (5_000_000, 1_205_000_000, "600,000 W is more than 700 W, which nothing of its kind draws: is its unit right?"),
    ],
)
def test_a_counter_that_cannot_be(start, end, words):
    """Standing still, going back, and joules taken for millijoules."""
    one = seen("nvml n01", counter(GPU.id), assets=[GPU], before={"n01/gpu0:c": start}, after={"n01/gpu0:c": end})
    (line,) = said(one)[1:]

    assert (line.grade, line.subject) == ("doubt", "n01/gpu0:c")
    assert words in line.text


def test_a_wrap_is_no_fall():
    """262 143 329 mJ is where it returns to 0: 200 J in 2 s."""
    meter = Meter("n01/cpu0:c", "n01/cpu0", "energy_counter", "rapl", 20, wrap_mj=262_143_329)
    one = seen("rapl n01", meter, before={meter.id: 262_043_329}, after={meter.id: 100_000})

    assert [line.grade for line in said(one)] == ["ok"]


def test_counter_and_power_that_contradict_each_other():
    """600 W counted, 60 W told."""
    one = seen(
        "nvml n01", counter(GPU.id), power(GPU.id), assets=[GPU], before={"n01/gpu0:c": 5_000_000},
        after={"n01/gpu0:c": 6_200_000, "n01/gpu0:nvml:p": 60_000},
    )  # fmt: skip

    assert said(one)[1].text.startswith("The counter says 600 W and the power 60 W.")


@pytest.mark.parametrize(
    ("bmc_w", "grade", "words"),
    [
        (900, "doubt", "900 W, its 2 GPUs draw 1,200 W: it does not include the GPUs."),
        (2000, "ok", "2,000 W, its 2 GPUs draw 1,200 W: it includes them."),
        (5000, "ok", "that does not show whether it includes them. Run the doctor again while they are busy."),
    ],
)
def test_whether_a_controller_includes_the_gpus(bmc_w, grade, words):
    """Two GPUs at 600 W beside 900 W, 2 000 W and 5 000 W of the node's controller."""
    gpus = [Asset(f"n01/gpu{i}", "gpu", "n01") for i in range(2)]
    cards = seen(
        "nvml n01", *(power(g.id) for g in gpus), *(power(g.id, "nvml-instant", 12) for g in gpus), assets=gpus,
        after={f"{g.id}:{s}:p": w for g in gpus for s, w in (("nvml", 600_000), ("nvml-instant", 650_000))},
    )  # fmt: skip
    bmc = seen("ipmi n01", power("n01", "ipmi", 50), after={"n01:ipmi:p": bmc_w * 1000})
    line = said(cards, bmc)[-1]

    assert (line.grade, line.subject) == (grade, "n01:ipmi:p")
    assert words in line.text


def test_the_cure_for_a_controller_without_gpus_is_a_table_that_works():
    """The asset it names can stand in a site file."""
    gpu = Asset("n01/gpu0", "gpu", "n01")
    cards = seen("nvml n01", power(gpu.id), assets=[gpu], after={"n01/gpu0:nvml:p": 600_000})
    bmc = seen("ipmi n01", power("n01", "ipmi", 50), after={"n01:ipmi:p": 300_000})
    words = said(cards, bmc)[-1].text.partition("such as [[asset]] ")[2].partition(", and name")[0]
    table = words.replace(", ", "\n")
    text = f"[[site]]\nid = 'a'\n[[asset]]\nid = 'n01'\nkind = 'node'\nparent = 'a'\n[[asset]]\n{table}\n"

    assert config.parse(text).assets()["n01/host"].parent == "n01"


def test_meters_without_a_value_and_doubts_of_discovery_are_told():
    one = seen(
        "nvml n01", counter(GPU.id), power(GPU.id), assets=[GPU], after={"n01/gpu0:nvml:p": 600_000}, doubts=["Hot."]
    )

    assert [(line.grade, line.text) for line in said(one)[:3]] == [
        ("ok", "2 meters, 1 of them tell a value."), ("doubt", "Hot."),
        ("doubt", "No value now from n01/gpu0:c. If that lasts, see its page."),
    ]  # fmt: skip


@pytest.mark.parametrize(("age_ms", "words"), [(7_200_000, "7,200 s behind"), (-30_000, "30 s ahead of"), (40_000, "")])
def test_stamps_that_are_off(age_ms, words):
    """Two hours old, half a minute in the future; 40 s old may be a report of each minute."""
    one = seen("redfish n01", power("n01", "redfish"), after={"n01:redfish:p": 900_000}, age_ms=age_ms)

    assert [words in line.text for line in said(one)[1:]] == [True] * bool(words)


def target(tmp_path, **more):
    return list(examine_target(AgentConfig(spool=tmp_path / "spool", **more), "n01"))


def test_a_server_is_asked_to_take_a_batch_without_readings(tmp_path):
    receiver = Receiver(token="s3cret")
    try:
        good = target(tmp_path, url=receiver.url, token="s3cret")
        bad = target(tmp_path, url=receiver.url, token="wrong")
        receiver.ahead_s = -90
        skewed = target(tmp_path, url=receiver.url, token="s3cret")
    finally:
        receiver.stop()

    assert [line.grade for line in good] == ["ok", "ok"]
    assert bad[1] == Line("fault", f"server {receiver.url}", "answers 401 Unauthorized: {}. Check token or token_file.")
    assert skewed[2].text.startswith("Its clock is 90 s behind this machine's. Set NTP")
    assert receiver.values == []


def test_a_server_that_is_not_there_and_a_book_that_is_none(tmp_path):
    away = target(tmp_path, url=f"http://127.0.0.1:{free_port()}")
    none = target(tmp_path, book=tmp_path / "book")

    assert [line.grade for line in away] == ["ok", "fault"]
    assert "cannot be reached: Connection refused" in away[1].text
    assert none == [
        Line(
            "fault",
            f"book {tmp_path / 'book'}",
            f"It is not a book. Make one with: wattkeeper init {tmp_path / 'book'}",
        )
    ]
    assert [line.grade for line in target(tmp_path)] == ["fault"]


def test_a_source_that_needs_more_says_what_to_set():
    """An address alone names no UPS: the sentence names the key and how to give it."""
    with pytest.raises(ConfigError, match=r"^nut also needs ups: .*Say it with --set ups=…$"):
        asked("nut", "127.0.0.1:1", [])
