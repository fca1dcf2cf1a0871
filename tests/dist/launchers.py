"""Every way to start two processes, behind one signature."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cluster import hosts, launch, mpi, slurm

THRESHER = Path(sys.executable).with_name("thresher")
_TORCHRUN = Path(sys.executable).with_name("torchrun")
SECONDS = 120


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


def _run(words: list[str | Path], env: Mapping[str, str] | None = None) -> Done:
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=SECONDS)
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def by_devices() -> Iterator[Start]:
    yield lambda *words: _run([THRESHER, *words, "--devices", "2"])


@contextmanager
def by_torchrun() -> Iterator[Start]:
    yield lambda *words: _run([_TORCHRUN, "--nproc-per-node", "2", "-m", "thresher", *words])


@contextmanager
def by_mpirun() -> Iterator[Start]:
    command, env = mpi.mpirun(2)
    yield lambda *words: _run([*command, THRESHER, *words], env)


@contextmanager
def by_srun() -> Iterator[Start]:
    with slurm.slurm() as cluster:
        yield lambda *words: _run(["srun", "-n", "2", THRESHER, *words], cluster.env)


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
