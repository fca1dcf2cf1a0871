"""This process's place among those that a launcher started with it, as Fabric sees it.

Fabric's own detection is not asked: it loads MPI in every run and warns wherever Slurm is
installed.
"""

from __future__ import annotations

import os
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

from thresher.dist.launchers import PYTORCH_VARIABLES, launcher_of, local_size
from thresher.errors import UserError


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
        UserError: MPI started this process, and ``mpi4py`` is missing or finds no MPI; or some of
            PyTorch's variables are set, which do not tell who is who.
    """
    cluster = _cluster(os.environ)
    size = 1 if cluster is None else cluster.world_size()
    if cluster is None or size == 1:
        return Surroundings(LightningEnvironment(), 1, 1)
    return Surroundings(cluster, size, min(size, local_size(os.environ, size)))


def _cluster(environment: Mapping[str, str]) -> ClusterEnvironment | None:
    launcher = launcher_of(environment)
    if launcher == "torchrun":
        return TorchElasticEnvironment()
    if launcher == "mpi":
        return _mpi()
    if launcher == "slurm":
        return _slurm(environment)
    if launcher == "lsf":
        return LSFEnvironment()
    _check_pytorch(environment, whole=launcher == "pytorch")
    if launcher is None:
        return None
    if "LOCAL_RANK" not in environment:  # one process in each container
        os.environ["LOCAL_RANK"], os.environ["LOCAL_WORLD_SIZE"] = "0", "1"
    return TorchElasticEnvironment()


def _check_pytorch(environment: Mapping[str, str], *, whole: bool) -> None:
    """Refuse what is left over in a shell: each process would train alone, or wait for ever."""
    numbers = {"RANK": 0, "WORLD_SIZE": 1}
    for name, least in numbers.items():
        text = environment.get(name, str(least))
        if not text.isdigit() or int(text) < least:
            raise UserError(
                f"The environment variable {name} is '{text}', which is no number of"
                f" {'a process' if name == 'RANK' else 'processes'}. Unset it to train with one"
                " process."
            )
        numbers[name] = int(text)
    rank, size = numbers.values()
    port = environment.get("MASTER_PORT", "0")
    if whole and not (port.isdigit() and 0 < int(port) < 65536):
        raise UserError(
            f"The environment variable MASTER_PORT is '{port}', which is no port. Choose a number"
            " from 1 to 65535."
        )
    if whole and rank >= size:
        raise UserError(
            f"The environment variable RANK is {rank}, but WORLD_SIZE is {size}: ranks count from"
            f" 0 to {size - 1}. Set both, or unset both to train with one process."
        )
    if not whole and (rank or size > 1):
        missing = ", ".join(name for name in PYTORCH_VARIABLES if not environment.get(name))
        found = f"WORLD_SIZE is {size}" if size > 1 else f"RANK is {rank}"
        raise UserError(
            f"The environment variable {found}, as a launcher of PyTorch sets it, but {missing} are"
            " not set. Start with torchrun, set them too, or unset RANK and WORLD_SIZE to train"
            " with one process."
        )


def _mpi() -> ClusterEnvironment:
    try:
        return MPIEnvironment()
    except (ModuleNotFoundError, RuntimeError, ImportError):
        raise UserError(
            "MPI started this process, but mpi4py is missing or finds no MPI library. Install it"
            " with: pip install 'thresher[mpi]'"
        ) from None


def _slurm(environment: Mapping[str, str]) -> ClusterEnvironment:
    # Of this step, which may be smaller than the allocation.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS") or environment["SLURM_NTASKS"])
    os.environ["SLURM_NTASKS"] = str(tasks)
    # srun -n sets the one and not the other, without which Fabric gives up.
    os.environ["SLURM_NTASKS_PER_NODE"] = str(local_size(environment, tasks))
    if environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES")) == "1":
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")  # its own name may not resolve
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        os.environ["SLURM_JOB_NAME"] = "thresher"  # else Fabric doubts that srun was used
    return SLURMEnvironment(auto_requeue=False)
