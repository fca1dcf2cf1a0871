"""Every way to start two processes, behind one signature."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cluster import hosts, launch, mpi, slurm

BIN = Path(sys.executable).parent
SECONDS = 120
# What docs/cluster.md tells users to type; test_launch.py compares.
TORCHRUN = "torchrun --nproc-per-node 2 -m thresher"
MPIRUN = "mpirun -n 2 thresher"
SRUN = "srun -n 2 thresher"


@dataclass(frozen=True)
class Done:
    """What came of it.

    Attributes:
        code: exit code of the launcher.
        out: what was printed, of all processes.
        err: errors, of all processes and the launcher.
    """

    code: int
    out: str
    err: str


Start = Callable[..., Done]
"""``start("train", …)`` runs ``thresher train …`` in two processes."""


def _run(
    typed: str, words: tuple[str | Path, ...], env: Mapping[str, str] = os.environ, end: str = ""
) -> Done:
    command = [*shlex.split(typed), *map(str, words), *shlex.split(end)]
    # As in a shell in which Thresher's environment is active.
    env = {**env, "PATH": f"{BIN}{os.pathsep}{env['PATH']}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS)
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def by_devices() -> Iterator[Start]:
    yield lambda *words: _run("thresher", words, end="--devices 2")


@contextmanager
def by_torchrun() -> Iterator[Start]:
    yield lambda *words: _run(TORCHRUN, words)


@contextmanager
def by_mpirun() -> Iterator[Start]:
    yield lambda *words: _run(MPIRUN, words, mpi.variables(processes=2))


@contextmanager
def by_srun() -> Iterator[Start]:
    with slurm.slurm() as cluster:
        yield lambda *words: _run(SRUN, words, cluster.env)


@contextmanager
def by_hosts() -> Iterator[Start]:
    """torchrun in two hosts, joined by 1 Gbit/s with 1 ms round trip."""
    with hosts.network(2) as net:

        def start(*words: str | Path) -> Done:
            all_done = launch.torchrun(net, ["-m", "thresher", *words], seconds=SECONDS)
            return Done(
                max(done.code for done in all_done),
                "".join(done.stdout for done in all_done),
                "".join(done.stderr for done in all_done),
            )

        yield start


@dataclass(frozen=True)
class Launcher:
    """One way to start processes.

    Attributes:
        open: makes what it needs and gives a function that starts.
        why_not: a sentence where it is not there.
        user_error: its exit code where every process ends with 2.
        machines: that it starts processes on.
    """

    open: Callable[[], AbstractContextManager[Start]]
    why_not: str | None
    user_error: int
    machines: int = 1


# torchrun gives 1 for every failure; the others pass on what the processes ended with.
LAUNCHERS = {
    "devices": Launcher(by_devices, None, 2),
    "torchrun": Launcher(by_torchrun, None, 1),
    "mpirun": Launcher(by_mpirun, mpi.why_not(), 2),
    "srun": Launcher(by_srun, slurm.why_not(), 2),
    "hosts": Launcher(by_hosts, hosts.why_not(), 1, machines=2),
}
