"""The way to a controller: its table in the site file, and the tool that is run for each reading."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from wattkeeper.core.errors import ConfigError, SourceError


class Config(BaseModel):
    """A server's controller, or one for each of many nodes: `[[agent.ipmi]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(
        "",
        description="Controller's address; {node} stands for each of `nodes`. Left out: this machine's own, in-band.",
    )
    port: int = Field(623, ge=1, le=65_535, description="UDP port of the controller.")
    asset: str = Field("", description="The node it stands in. Default in-band: the machine's name without its domain.")
    nodes: str = Field("", description="Instead of asset: host list such as n[01-16], with {node} in the host.")
    parent: str = Field(
        "", description="What the node stands in, if the site file does not say. Default: its default_parent."
    )
    user: str = Field("", description="Account of the controller with the privilege USER.")
    password: SecretStr = Field(SecretStr(""), description="Its password.")
    password_file: Path | None = Field(None, description="File that holds the password, instead of password.")
    tool: Literal["auto", "ipmi-dcmi", "ipmitool"] = Field(
        "auto", description="Program to run: FreeIPMI's ipmi-dcmi where it is installed, else ipmitool."
    )
    cipher_suite: int = Field(17, ge=0, le=17, description="IPMI 2.0 cipher suite: 17, or 3 for old controllers.")
    timeout_s: float = Field(15.0, gt=0, description="Longest time one reading may take [s].")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.nodes and (self.asset or "{node}" not in self.host):
            raise ValueError("nodes needs a host with {node} in it, and no asset")
        if self.host and not self.nodes and not self.asset:
            raise ValueError("asset is missing: which node does this controller stand in")
        if self.host and not self.user:
            raise ValueError("user is missing: over the network a controller wants an account")
        if self.password.get_secret_value() and self.password_file:
            raise ValueError("give password or password_file, not both")
        return self

    def secret(self) -> str:
        """Return the password. Raises ConfigError where its file cannot be read."""
        if self.password_file is None:
            return self.password.get_secret_value()
        try:
            return self.password_file.read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"Cannot read password_file {self.password_file}: {error.strerror}.") from error


class Link:
    """Runs the tool against one controller. The password never stands on a command line, where `ps` shows it."""

    def __init__(self, host: str, config: Config, asset: str) -> None:
        self._host, self._config = host, config
        self.name = f"ipmi {host}:{config.port}" if host else f"ipmi {asset}"

    async def power(self) -> str:
        """Return what the tool prints for a power reading. Raises SourceError when it fails or is late."""
        tool, program = self._tool()
        env = {**os.environ, "LC_ALL": "C"}
        with tempfile.TemporaryDirectory(prefix="wattkeeper-ipmi-") as folder:
            command = [program]
            if tool == "ipmi-dcmi":
                command += [f"--config-file={self._freeipmi(Path(folder))}"]
                command += [f"--hostname={self._freeipmi_host()}"] if self._host else []
                command += ["--get-system-power-statistics"]
            else:
                if self._host:
                    env["IPMI_PASSWORD"] = self._config.secret()
                    command += [
                        "-I",
                        "lanplus",
                        "-H",
                        self._host,
                        "-p",
                        str(self._config.port),
                        "-U",
                        self._config.user,
                    ]
                    command += ["-E", "-L", "USER", "-C", str(self._config.cipher_suite), "-N", "2", "-R", "2"]
                command += ["dcmi", "power", "reading"]
            return await self._run(tool, command, env)

    def _tool(self) -> tuple[str, str]:
        wanted = ("ipmi-dcmi", "ipmitool") if self._config.tool == "auto" else (self._config.tool,)
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
        for name in wanted:
            if program := shutil.which(name, path=path):
                return name, program
        raise SourceError(
            f"{' or '.join(wanted)} is not installed. Install the package freeipmi-tools (freeipmi) or ipmitool."
        )

    def _freeipmi_host(self) -> str:
        host = f"[{self._host}]" if ":" in self._host and not self._host.startswith("[") else self._host
        return host if self._config.port == 623 else f"{host}:{self._config.port}"

    def _freeipmi(self, folder: Path) -> Path:
        """Write FreeIPMI's configuration, which nobody else may read (freeipmi.conf(5))."""
        file = folder / "freeipmi.conf"
        lines = ["session-timeout 5000", "retransmission-timeout 1000"]
        if self._host:
            lines += ["driver-type LAN_2_0", f"username {self._config.user}", f"password {self._config.secret()}"]
            lines += ["privilege-level USER", f"cipher-suite-id {self._config.cipher_suite}"]
        file.touch(mode=0o600)
        file.write_text("\n".join([*lines, ""]))
        return file

    async def _run(self, tool: str, command: list[str], env: dict[str, str]) -> str:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
        )
        try:
            async with asyncio.timeout(self._config.timeout_s):
                out, err = await process.communicate()
        except TimeoutError as error:
            raise SourceError(
                f"{self.name} did not answer {tool} within {self._config.timeout_s:g} s. "
                "Check address and network, or raise timeout_s."
            ) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        printed = out.decode(errors="replace")
        if process.returncode:
            said = (err.decode(errors="replace").strip() or printed.strip() or "no reason").splitlines()[-1]
            raise SourceError(f"{self.name} gives {tool} no power reading: {said.strip()[:200]}. {_cure(said)}")
        return printed


def _cure(said: str) -> str:
    """Return what to do about a tool's complaint."""
    told = said.lower()
    if any(
        word in told
        for word in ("password", "username", "unauthorized", "rakp", "hmac", "privilege", "unable to establish")
    ):
        return "Check user, password, privilege and cipher_suite (3 for old controllers)."
    if any(word in told for word in ("device", "driver", "permission", "/dev/ipmi")):
        return "In-band needs the modules ipmi_si and ipmi_devintf, and the right to open /dev/ipmi0."
    if any(
        word in told for word in ("invalid command", "not supported", "unsupported", "group extension", "not available")
    ):
        return "This controller has no DCMI power reading: read it over Redfish."
    return "Check address, network, and that IPMI over LAN is switched on."
