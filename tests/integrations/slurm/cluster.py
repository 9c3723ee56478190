"""A real Slurm on this machine: munge, MariaDB, slurmdbd, slurmctld and two slurmd, in a folder of their own.

GPUs are character devices that do nothing: Slurm hands them out and counts them all the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.daemons import Daemon

NEEDED = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sacct", "sbatch")


def missing() -> list[str]:
    """Return what is not installed here."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return [n for n in NEEDED if not shutil.which(n, path=path)]


class SlurmCluster:
    """Two nodes of 64 CPUs and 8 GPUs; use as a context."""

    def __init__(self) -> None:
        # sockets want a short path, munge a readable one: pytest's folders are neither
        self.root = Path(tempfile.mkdtemp(prefix="wk-slurm-"))
        self.root.chmod(0o755)
        self.base = _free_base()
        self.daemons: list[Daemon] = []
        self.env = {
            **os.environ,
            "SLURM_CONF": str(self.root / "etc/slurm.conf"),
            "PATH": os.environ["PATH"] + ":/usr/sbin",
        }

    def __enter__(self) -> SlurmCluster:
        try:
            self._files()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self.run("scancel", "-u", "root")
            until(lambda: not self.run("squeue", "-h"), 10)
        for daemon in reversed(self.daemons):
            daemon.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, *command: str) -> str:
        """Run a Slurm command; return what it printed."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            raise subprocess.SubprocessError(f"{command}: {done.stderr}")
        return done.stdout.strip()

    def submit(self, *options: str, script: str = "sleep 1") -> str:
        """Submit a job; return its id."""
        return self.run(
            "sbatch", "--parsable", "--account=ml", f"--output={self.root}/out-%j", *options, "--wrap", script
        )

    def wait(self, job: str, *states: str) -> None:
        """Wait until accounting knows a job in one of some states."""

        def reached() -> bool:
            rows = self.run("sacct", "-X", "-n", "-P", "-j", job, "--format=State").split()
            return bool(rows) and all(r in states for r in rows)

        until(reached, 240)

    def wait_running(self, job: str) -> None:
        """Wait until the scheduler, which is ahead of accounting, runs a job."""
        until(lambda: self.run("squeue", "-h", "-j", job, "-o", "%T") == "RUNNING", 120)

    def _files(self) -> None:
        r, base = self.root, self.base
        for folder in (
            "etc",
            "munge",
            "run",
            "log",
            "state",
            "spool/node1",
            "spool/node2",
            "dev/node1",
            "dev/node2",
            "mysql",
        ):
            (r / folder).mkdir(parents=True)
        (r / "etc/munge.key").write_bytes(os.urandom(128))
        (r / "etc/munge.key").chmod(0o600)
        for node in ("node1", "node2"):
            for i in range(8):
                os.mknod(r / f"dev/{node}/gpu{i}", 0o20666, os.makedev(1, 3))
        (r / "etc/init.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS slurm_acct_db;\n"
            "CREATE USER IF NOT EXISTS 'slurm'@'%' IDENTIFIED BY 'slurm';\n"
            "GRANT ALL ON slurm_acct_db.* TO 'slurm'@'%';\n"
        )
        _config(r / "etc/slurmdbd.conf", [
            "AuthType=auth/munge", f"AuthInfo=socket={r}/munge/munge.sock", "DbdHost=localhost", "DbdAddr=127.0.0.1",
            f"DbdPort={base + 2}", "SlurmUser=root", f"LogFile={r}/log/slurmdbd.txt", f"PidFile={r}/run/slurmdbd.pid",
            "StorageType=accounting_storage/mysql", "StorageHost=127.0.0.1", f"StoragePort={base + 1}",
            "StorageUser=slurm", "StoragePass=slurm", "StorageLoc=slurm_acct_db",
        ])  # fmt: skip
        (r / "etc/slurmdbd.conf").chmod(0o600)
        _config(r / "etc/gres.conf", ["AutoDetect=off"] + [
            f"NodeName={n} Name=gpu Type=h100 File={r}/dev/{n}/gpu[0-7]" for n in ("node1", "node2")
        ])  # fmt: skip
        _config(r / "etc/cgroup.conf", [])
        nodes = [
            f"NodeName=node{i} NodeHostname=localhost NodeAddr=127.0.0.1 Port={base + 20 + i} Sockets=2 CoresPerSocket=32 "
            "ThreadsPerCore=1 RealMemory=512000 Gres=gpu:h100:8 State=UNKNOWN"
            for i in (1, 2)
        ]
        _config(r / "etc/slurm.conf", [
            "ClusterName=testcl", "SlurmctldHost=localhost(127.0.0.1)", f"SlurmctldPort={base + 3}",
            f"SlurmdPort={base + 4}", "SlurmUser=root", "SlurmdUser=root", "AuthType=auth/munge",
            f"AuthInfo=socket={r}/munge/munge.sock", "CredType=cred/munge", f"StateSaveLocation={r}/state",
            f"SlurmdSpoolDir={r}/spool/%n", f"SlurmctldPidFile={r}/run/slurmctld.pid",
            f"SlurmdPidFile={r}/run/slurmd-%n.pid", f"SlurmctldLogFile={r}/log/ctld.txt",
            f"SlurmdLogFile={r}/log/slurmd-%n.txt", "SlurmdParameters=config_overrides",
            "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "SwitchType=switch/none", "MpiDefault=none",
            "ReturnToService=2", "SchedulerType=sched/backfill", "SelectType=select/cons_tres",
            "SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0",
            "SelectTypeParameters=CR_Core_Memory", "GresTypes=gpu", "JobRequeue=1",
            "AccountingStorageType=accounting_storage/slurmdbd", "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={base + 2}", f"AccountingStoragePass={r}/munge/munge.sock",
            "AccountingStorageTRES=gres/gpu,gres/gpu:h100", "JobAcctGatherType=jobacct_gather/linux",
            "MinJobAge=300", "KillWait=2", *nodes,
            "PartitionName=gpu Nodes=node[1-2] Default=YES MaxTime=7-0 State=UP DefMemPerCPU=1000",
        ])  # fmt: skip

    def _start(self) -> None:
        r = self.root
        self._daemon("munged", ["munged", "--foreground", f"--key-file={r}/etc/munge.key", f"--socket={r}/munge/munge.sock",
                                f"--pid-file={r}/run/munged.pid", f"--seed-file={r}/run/seed",
                                f"--log-file={r}/log/munged.txt"], (r / "munge/munge.sock").exists)  # fmt: skip
        subprocess.run(["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={r}/mysql", "--skip-test-db",
                        "--auth-root-authentication-method=normal"], check=True, capture_output=True)  # fmt: skip
        self._daemon("mariadbd", ["mariadbd", "--no-defaults", "--user=root", f"--datadir={r}/mysql",
                                  f"--socket={r}/run/mysql.sock", f"--pid-file={r}/run/mysql.pid",
                                  "--bind-address=127.0.0.1", f"--port={self.base + 1}", f"--init-file={r}/etc/init.sql",
                                  "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M",
                                  "--innodb-flush-log-at-trx-commit=2", "--skip-name-resolve"],
                     lambda: _open(self.base + 1))  # fmt: skip
        self._daemon("slurmdbd", ["slurmdbd", "-D"], lambda: _open(self.base + 2))
        until(lambda: _works(lambda: self.run("sacctmgr", "-i", "add", "cluster", "testcl")), 30)
        self.run("sacctmgr", "-i", "add", "account", "ml")
        self.run("sacctmgr", "-i", "add", "user", "root", "Account=ml", "AdminLevel=Admin")
        self._daemon("slurmctld", ["slurmctld", "-D"], lambda: _open(self.base + 3))
        for node in ("node1", "node2"):
            self._daemon(f"slurmd-{node}", ["slurmd", "-D", "-N", node], lambda: True)
        until(lambda: _works(self._idle), 60)

    def _idle(self) -> None:
        states = self.run("sinfo", "-h", "-N", "-o", "%T").split()
        if states != ["idle", "idle"]:
            raise OSError(str(states))

    def _daemon(self, name: str, command: list[str], probe: object) -> None:
        daemon = Daemon(name, command, self.root / "log", env=self.env)
        self.daemons.append(daemon)
        daemon.wait_ready(probe)  # type: ignore[arg-type]


def _config(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


def _free_base() -> int:
    """Return the first of thirty ports that were free together."""
    for base in range(21_000 + os.getpid() % 500 * 40, 60_000, 40):
        if not any(_open(base + i) for i in (1, 2, 3, 4, 21, 22)):
            return base
    raise OSError("no free ports")


def _open(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def _works(call: object) -> bool:
    try:
        call()  # type: ignore[operator]
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def until(reached: object, seconds: float) -> None:
    """Wait until something is so. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not reached():  # type: ignore[operator]
        if time.monotonic() > end:
            raise TimeoutError("Slurm did not get there")
        time.sleep(0.1)
