"""Threads for computing: the ranks of one machine share its cores."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thresher.dist.quota import Quota, cpu_quota

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Binding:
    """Where a process may run.

    Attributes:
        machine: a name that no two machines share.
        cores: of the machine, by number.
        quota: of its container, if it has one.
    """

    machine: str
    cores: tuple[int, ...]
    quota: Quota | None = None


def binding() -> Binding:
    """Where this process may run."""
    if hasattr(os, "sched_getaffinity"):
        cores = tuple(sorted(os.sched_getaffinity(0)))
    else:
        cores = tuple(range(os.cpu_count() or 1))
    return Binding(_machine(), cores, cpu_quota())


def share_of_cores(mine: Binding, everyone: Sequence[Binding]) -> int:
    """Cores for this process: those it may run on, divided by the ranks that share them.

    MPI and Slurm may have bound each rank to cores of its own; then nothing is divided.
    """
    return max(1, int(_share(mine, everyone)))


def is_crowded(mine: Binding, everyone: Sequence[Binding]) -> bool:
    """Whether this process takes turns with other ranks on less than a core for each."""
    return _share(mine, everyone) < 1


def _share(mine: Binding, everyone: Sequence[Binding]) -> float:
    here = [other for other in everyone if other.machine == mine.machine]
    sharers = sum(1 for other in here if set(other.cores) & set(mine.cores))
    share = len(mine.cores) / max(1, sharers)
    if mine.quota is not None:
        inmates = sum(1 for other in here if other.quota and other.quota.group == mine.quota.group)
        share = min(share, mine.quota.cores / max(1, inmates))
    return share


def ranks_here(mine: Binding, everyone: Sequence[Binding]) -> int:
    """How many of the ranks run on this machine, in its containers or outside."""
    return sum(1 for other in everyone if other.machine == mine.machine)


def first_here_but_0(mine: Binding, everyone: Sequence[Binding]) -> int | None:
    """The lowest of the ranks on this machine, the first of all left out; None if it is alone."""
    here = [rank for rank, other in enumerate(everyone) if other.machine == mine.machine]
    return next((rank for rank in here if rank > 0), None)


def _machine() -> str:
    """The number that Linux draws when it starts, else the machine's name.

    Containers on many machines may have one and the same host name, and containers on one machine
    have different ones though they share its cores and its memory.
    """
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return socket.gethostname()
