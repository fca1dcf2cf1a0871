"""This process's place among its peers, as far as the environment tells before torch is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

# Slurm after MPI: inside an allocation the processes of mpirun have its variables too.
_RANK = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "JSM_NAMESPACE_RANK", "SLURM_PROCID")
_LOCAL_RANK = (
    "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "JSM_NAMESPACE_LOCAL_RANK", "SLURM_LOCALID",
)  # fmt: skip


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """0 for a process on its own."""
    return _first(_candidates("RANK", _RANK, environment), environment)


def speaks_before_launch(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process reports what went wrong before the ranks can talk to one another.

    One per machine does: all have the same command line, but another machine may lack a file.
    """
    return _first(_candidates("LOCAL_RANK", _LOCAL_RANK, environment), environment) == 0


def _candidates(
    pytorch: str, launchers: tuple[str, ...], environment: Mapping[str, str]
) -> tuple[str, ...]:
    """PyTorch's variable first, unless another launcher started the processes.

    A batch script may have set it for all of them alike.
    """
    is_task = "SLURM_STEP_ID" in environment
    others = launchers if is_task else launchers[:-1]
    if "TORCHELASTIC_RUN_ID" in environment or not any(name in environment for name in others):
        return (pytorch, *launchers)
    return (*launchers, pytorch)


def _first(names: Iterable[str], environment: Mapping[str, str]) -> int:
    for name in names:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return 0
