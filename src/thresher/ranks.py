"""This process's place among its peers, as far as the environment tells before torch is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

# Slurm last: inside an allocation the processes of mpirun have its variables too.
_RANK = (
    "RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "JSM_NAMESPACE_RANK", "SLURM_PROCID",
)  # fmt: skip
_LOCAL_RANK = (
    "LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "JSM_NAMESPACE_LOCAL_RANK",
    "SLURM_LOCALID",
)  # fmt: skip


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """0 for a process on its own."""
    return _first(_RANK, environment)


def speaks_before_launch(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process reports what went wrong before the ranks can talk to one another.

    One per machine does: all have the same command line, but another machine may lack a file.
    """
    return _first(_LOCAL_RANK, environment) == 0


def _first(names: Iterable[str], environment: Mapping[str, str]) -> int:
    for name in names:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return 0
