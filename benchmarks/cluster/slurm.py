"""Slurm on this machine alone, in a folder of its own: Debian's slurm-wlm and munge, as root."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "squeue", "scontrol")

_CONFIG = """
ClusterName=rig
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
# The processes of a job meet at a port that follows from its number: two such clusters must differ.
FirstJobId={first_job}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
# What needs neither control groups nor a database.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# More cores than there may be, so that the tests' jobs always fit.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4
# A preempted job gets this long to save itself.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF
KillWait=20
# Scheduling at once instead of after seconds or minutes.
SchedulerParameters=sched_min_interval=0,sched_interval=2,bf_interval=2
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster of one node.

    Attributes:
        folder: logs and state.
        env: variables with which srun and the others find it.
    """

    folder: Path
    env: dict[str, str]

    def run(self, *words: str | Path, cwd: Path | None = None) -> str:
        """A command of Slurm's, such as ``sbatch``; returns what it printed.

        Raises:
            RuntimeError: it failed, with its message.
        """
        done = subprocess.run(
            list(map(str, words)), env=self.env, cwd=cwd, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"{words[0]}: {done.stderr.strip()}")
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol show job`` says: JobState, ExitCode, Restarts and so on."""
        fields = self.run("scontrol", "-o", "show", "job", number).split()
        return dict(field.split("=", 1) for field in fields if "=" in field)

    def wait_for(self, number: str, states: Sequence[str], seconds: float = 60) -> dict[str, str]:
        """Until the job is in one of the states.

        Raises:
            TimeoutError: it is still in another one.
        """
        ends = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            if time.monotonic() > ends:
                raise TimeoutError(f"job {number} is still {job['JobState']} ({job['Reason']})")
            time.sleep(0.2)
        return job

    def start_soon(self, number: str) -> None:
        """Slurm lets two minutes pass before a requeued job; make it seconds.

        The node must have done with its first turn, whose credentials are revoked by the second:
        a turn that starts within the same one is killed.
        """
        _until(lambda: _is_idle(self), self.folder, "The requeued job")
        self.run("scontrol", "update", f"JobId={number}", "StartTime=now+2seconds")


def why_not() -> str | None:
    """A sentence if Slurm cannot be started here."""
    missing = [name for name in _PROGRAMS if _program(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: slurm-wlm munge)"
    if os.geteuid() != 0:
        return "needs root, to start Slurm's daemons"
    return None


@contextmanager
def slurm() -> Iterator[Slurm]:
    """Start the daemons; afterwards they, their jobs and their files are gone."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        config = folder / "slurm.conf"
        for name in ("state", "spool"):
            (folder / name).mkdir()
        controller_port, node_port = _free_ports()
        config.write_text(
            _CONFIG.format(
                host=socket.gethostname().split(".")[0], folder=folder,
                controller_port=controller_port, node_port=node_port,
                first_job=secrets.randbelow(9000) + 1,
            )
        )  # fmt: skip
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        # Whoever runs the tests inside a Slurm job must not be seen as that job.
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        env["SLURM_CONF"] = str(config)
        _start(stack, folder, env, "munged", "--foreground", "--force", "--num-threads=2",
               f"--key-file={key}", f"--socket={folder}/munge.sock",
               f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
               f"--seed-file={folder}/munge.seed")  # fmt: skip
        _until((folder / "munge.sock").exists, folder, "munged")
        _start(stack, folder, env, "slurmctld", "-D", "-f", str(config))
        _start(stack, folder, env, "slurmd", "-D", "-f", str(config))
        cluster = Slurm(folder, env)
        stack.callback(_end_jobs, cluster)
        _until(lambda: _is_idle(cluster), folder, "Slurm")
        yield cluster


def _start(stack: ExitStack, folder: Path, env: dict[str, str], name: str, *words: str) -> None:
    program = _program(name)
    assert program is not None
    with (folder / f"{name}.out").open("w") as out:
        process = subprocess.Popen([program, *words], env=env, stdout=out, stderr=out)
    stack.callback(_stop, process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_jobs(cluster: Slurm) -> None:
    """Kill what still runs: the daemons would leave it to itself."""
    for number in cluster.run("squeue", "-h", "-o", "%A").split():
        subprocess.run(["scancel", "--signal=KILL", "--full", number], env=cluster.env)
        subprocess.run(["scancel", number], env=cluster.env)  # may have ended by itself meanwhile
    ends = time.monotonic() + 30
    while cluster.run("squeue", "-h", "-o", "%A").split() and time.monotonic() < ends:
        time.sleep(0.2)


def _is_idle(cluster: Slurm) -> bool:
    done = subprocess.run(
        ["sinfo", "-h", "-o", "%T"], env=cluster.env, capture_output=True, text=True
    )
    return "idle" in done.stdout.split()


def _until(ready: Callable[[], bool], folder: Path, what: str, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > ends:
            logs = "\n".join(path.read_text()[-1500:] for path in sorted(folder.glob("*.log")))
            raise TimeoutError(f"{what} did not start:\n{logs}")
        time.sleep(0.1)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
