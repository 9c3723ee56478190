"""What is shipped for running the agent parses, and agrees with the code."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from collections import defaultdict
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer
import yaml

from wattkeeper import cli, config
from wattkeeper.agent.build import build

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
UNIT = PACKAGING / "wattkeeper-agent.service"


class _Lists(dict):
    """Keeps each value of a key that stands several times."""

    def __setitem__(self, key, value):
        if isinstance(value, list) and key in self:
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def unit():
    parser = configparser.RawConfigParser(
        dict_type=_Lists, strict=False, comment_prefixes=("#",), empty_lines_in_values=False
    )
    parser.optionxform = str
    parser.read(UNIT)
    return parser


def accepts(words):
    """Say whether the command line takes these words."""
    command = typer.main.get_command(cli.app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    names = {option for parameter in command.params for option in parameter.opts}
    return not hasattr(command, "commands") and all(w in names for w in words if w.startswith("--"))


def test_the_unit_runs_a_command_that_exists_and_tells_systemd_it_is_ready():
    service = unit()["Service"]
    words = shlex.split(service["ExecStart"])

    assert Path(words[0]).name == "wattkeeper"
    assert accepts(words[1:])
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 60  # longer than one wait for the disk


def test_the_unit_may_write_where_the_spool_is_by_default():
    """StateDirectory=wattkeeper is /var/lib/wattkeeper."""
    service = unit()["Service"]

    assert Path("/var/lib") / service["StateDirectory"] in config.AgentConfig().spool.parents
    assert service["DynamicUser"] == "yes"
    assert service["ProtectSystem"] == "strict"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_to_complain_about(tmp_path):
    """The command itself need not be installed here."""
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace("/usr/bin/wattkeeper", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(here)], capture_output=True, text=True, check=False
    )
    about_us = [line for line in (done.stdout + done.stderr).splitlines() if "wattkeeper" in line]

    assert about_us == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_calls_the_unit_well_confined():
    """Exposure of at most 3.0 of 10; an unconfined service has 9.6."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=30", str(UNIT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def manifests():
    found = defaultdict(list)
    for one in yaml.safe_load_all((PACKAGING / "kubernetes.yaml").read_text()):
        found[one["kind"]].append(one)
    return found


def test_the_daemon_set_hangs_together():
    """Selector and labels, volumes and mounts, secret and config map: each name leads somewhere."""
    found = manifests()
    (daemons,), (settings,), (secret,) = found["DaemonSet"], found["ConfigMap"], found["Secret"]
    pod = daemons["spec"]["template"]
    (agent,) = pod["spec"]["containers"]
    volumes = {v["name"]: v for v in pod["spec"]["volumes"]}

    assert daemons["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert {m["name"] for m in agent["volumeMounts"]} == set(volumes)
    assert volumes["config"]["configMap"]["name"] == settings["metadata"]["name"]
    assert volumes["token"]["secret"]["secretName"] == secret["metadata"]["name"]
    assert accepts(agent["args"])
    assert agent["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["DAC_READ_SEARCH"]}


def test_the_daemon_set_s_site_file_makes_devices_and_its_paths_are_mounted(tmp_path):
    """Validated by the code that reads it; token, spool and sysfs stand where the pod has them."""
    found = manifests()
    (settings,) = found["ConfigMap"]
    path = tmp_path / "agent.toml"
    path.write_text(settings["data"]["agent.toml"])
    agent = config.load_agent(path).agent
    mounts = [
        Path(m["mountPath"]) for m in found["DaemonSet"][0]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    ]
    needed = [agent.token_file, agent.spool, Path(agent.tables["rapl"][0]["path"])]

    assert [one.kind for one in build(agent)] == ["nvml", "rapl"]
    assert all(any(mount in path.parents for mount in mounts) for path in needed)


def test_the_container_installs_extras_that_exist_and_runs_a_command_that_does():
    text = (PACKAGING / "Containerfile").read_text()
    extras = re.search(r"/src\[([a-z,]+)\]", text)[1].split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    sources = {point.name for point in entry_points(group="wattkeeper.devices")}
    assert set(extras) <= set(known)
    assert set(extras) == sources - {"amdsmi"}
    assert all((ROOT / name).exists() for name in ("pyproject.toml", "README.md", "LICENSE", "src"))
    assert accepts([w.strip(' "') for w in re.search(r"^CMD \[(.*)\]", text, re.MULTILINE)[1].split(",")])
