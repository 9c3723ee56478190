"""An exporter's page read live, against a real file server that shows recorded and made-up pages."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.peers import PEERS
from tests.daemons import free_port
from wattkeeper.core.errors import SourceError
from wattkeeper.integrations.prometheus.link import Config
from wattkeeper.integrations.prometheus.meter import ExporterDevice, devices

NOW_S = 1_795_000_000.5


def test_counters_watts_and_utilisation_of_a_gpu(tmp_path):
    """5 000 000 mJ, 312.5 W and 87 %, stamped when they were read."""
    peer = PEERS["prometheus"](tmp_path)

    async def ask():
        device = ExporterDevice(Config(**peer.table, parent="rack-1"), peer.table["url"], "", clock=lambda: NOW_S)
        with peer.up():
            found, samples = await device.discover(), await device.sample()
        await device.close()
        return found, samples

    found, samples = asyncio.run(ask())
    assert [(a.id, a.kind, a.parent) for a in found.assets] == [("n01", "node", "rack-1"), ("n01/gpu0", "gpu", "n01")]
    assert {(s.meter.rpartition(":")[2], s.value) for s in samples} == {
        ("energy_counter", 5_000_000), ("power", 312_500), ("utilisation", 870_000),
    }  # fmt: skip
    assert {s.time_ms for s in samples} == {1_795_000_000_500}


def test_a_page_without_power_says_so(tmp_path):
    peer = PEERS["prometheus"](tmp_path)
    (tmp_path / "metrics").write_text("go_goroutines 7\n")
    (device,) = devices(Config(**peer.table))

    with peer.up(), pytest.raises(SourceError, match="shows no power, energy or utilisation that we know"):
        asyncio.run(device.discover())


def test_one_table_names_many_nodes():
    made = devices(Config(url="http://{node}:9400/metrics", nodes="n[1-3]"))

    assert [d.name for d in made] == [f"prometheus http://n{i}:9400/metrics" for i in (1, 2, 3)]


@pytest.mark.parametrize(
    "table", [{"url": "http://x/m", "nodes": "n[1-2]"}, {"url": "http://{node}/m"},
              {"url": "http://{node}/m", "nodes": "n1", "host": "n2"}],
)  # fmt: skip
def test_a_table_that_cannot_work_is_refused(table):
    with pytest.raises(ValueError, match="give "):
        Config(**table)


def test_a_token_is_read_from_its_file_and_not_shown(tmp_path):
    (tmp_path / "token").write_text("geheim\n")
    config = Config(url=f"http://127.0.0.1:{free_port()}/m", token_file=tmp_path / "token")

    assert config.secret("token") == "geheim"
    assert "geheim" not in repr(config)
