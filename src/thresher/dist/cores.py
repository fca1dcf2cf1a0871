"""Threads for computing: the ranks of one machine share its cores."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

Binding = tuple[str, tuple[int, ...]]
"""(host, cores that the process may run on)."""


def binding() -> Binding:
    """Where this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return socket.gethostname(), tuple(sorted(os.sched_getaffinity(0)))
    return socket.gethostname(), tuple(range(os.cpu_count() or 1))


def share_of_cores(mine: Binding, everyone: Sequence[Binding]) -> int:
    """Cores for this process: those it may run on, divided by the ranks that share them.

    MPI and Slurm may have bound each rank to cores of its own; then nothing is divided.
    """
    sharers = sum(1 for other in everyone if other[0] == mine[0] and set(other[1]) & set(mine[1]))
    return max(1, len(mine[1]) // max(1, sharers))
