"""Who started this process, and how many peers it has: torchrun, MPI, Slurm, LSF, or nobody.

Fabric's own detection is not asked: it loads MPI in every run and warns wherever Slurm is
installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from thresher.errors import UserError

_LOCAL_SIZE_VARIABLES = (
    "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "JSM_NAMESPACE_LOCAL_SIZE",
)  # fmt: skip
_MPI_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")


@dataclass(frozen=True)
class Surroundings:
    """This process among those that were started with it.

    Attributes:
        cluster: Fabric's view of them.
        world_size: how many there are.
        local_size: how many of them on this machine.
    """

    cluster: ClusterEnvironment
    world_size: int
    local_size: int


def surroundings() -> Surroundings:
    """Ask the environment.

    Raises:
        UserError: MPI started this process, and ``mpi4py`` is missing or finds no MPI.
    """
    cluster = _cluster(os.environ)
    size = 1 if cluster is None else cluster.world_size()
    if cluster is None or size == 1:
        return Surroundings(LightningEnvironment(), 1, 1)
    return Surroundings(cluster, size, min(size, local_size(os.environ, size)))


def was_launched() -> bool:
    """Whether a launcher started this process, perhaps as the only one."""
    return _launcher(os.environ) is not None


def local_size(environment: Mapping[str, str], world_size: int) -> int:
    """Processes on this machine, as the launcher tells; all of them if it does not.

    Slurm writes ``4`` or, over several nodes, ``4(x2),3``: this node's count stands at its place.
    """
    for name in _LOCAL_SIZE_VARIABLES:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE")
    if not tasks:
        return world_size
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks):
        counts += [int(count)] * int(times or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return counts[min(node, len(counts) - 1)]


def restarts() -> tuple[int, int]:
    """(how often the launcher has restarted this process, how often it may)."""
    return (
        int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
        int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")),
    )


def _launcher(environment: Mapping[str, str]) -> str | None:
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    # Before Slurm: inside an allocation mpirun's processes have Slurm's variables too.
    if any(name in environment for name in _MPI_VARIABLES):
        return "mpi"
    # A batch script's own shell has Slurm's variables too; only srun starts a step with tasks.
    is_task = "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment
    if is_task and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return "slurm"
    return "lsf" if "LSB_JOBID" in environment and "JSM_NAMESPACE_RANK" in environment else None


def _cluster(environment: Mapping[str, str]) -> ClusterEnvironment | None:
    launcher = _launcher(environment)
    if launcher == "torchrun":
        return TorchElasticEnvironment()
    if launcher == "mpi":
        return _mpi()
    if launcher == "slurm":
        return _slurm(environment)
    return LSFEnvironment() if launcher == "lsf" else None


def _mpi() -> ClusterEnvironment:
    try:
        return MPIEnvironment()
    except (ModuleNotFoundError, RuntimeError, ImportError):
        raise UserError(
            "MPI started this process, but mpi4py is missing or finds no MPI library. Install it"
            " with: pip install 'thresher[mpi]'"
        ) from None


def _slurm(environment: Mapping[str, str]) -> ClusterEnvironment:
    tasks = int(environment["SLURM_NTASKS"])
    # srun -n sets the one and not the other, without which Fabric gives up.
    os.environ["SLURM_NTASKS_PER_NODE"] = str(local_size(environment, tasks))
    if environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES")) == "1":
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")  # its own name may not resolve
    return SLURMEnvironment(auto_requeue=False)
