"""Who started this process, and how many peers it has: torchrun, MPI, Slurm, LSF, or nobody.

What sets PyTorch's own variables alone (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), as Kubeflow's
PyTorchJob does, is a launcher too.

Fabric's own detection is not asked: it loads MPI in every run and warns wherever Slurm is
installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
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
_PYTORCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
RESTART_COUNT, MAX_RESTARTS = "THRESHER_RESTART_COUNT", "THRESHER_MAX_RESTARTS"
"""What ``--devices`` tells its processes, as torchrun does by variables of its own."""
_NAMES = {
    "torchrun": "torchrun", "mpi": "MPI", "slurm": "srun", "lsf": "jsrun",
    "pytorch": "the launcher that set WORLD_SIZE",
}  # fmt: skip


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


def was_launched() -> bool:
    """Whether a launcher started this process, perhaps as the only one."""
    return _launcher(os.environ) is not None


def has_launcher(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a program started this process that stays for as long as its processes do.

    Where PyTorch's variables were set by hand it was a shell, which may end before them.
    """
    return _launcher(environment) not in (None, "pytorch")


def check_devices(devices: int, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse ``--devices N`` where a launcher started another number of processes.

    Args:
        devices: as the user typed it; 1 says nothing.
        environment: variables of this process.

    Raises:
        UserError: naming both numbers.
    """
    launcher = _launcher(environment)
    if launcher is None or devices == 1:
        return
    started = local_size(environment, 1)
    if devices != started:
        processes = "process" if started == 1 else "processes"
        unset = " If there is none, unset WORLD_SIZE." if launcher == "pytorch" else ""
        raise UserError(
            f"--devices {devices}, but {_NAMES[launcher]} started {started} {processes} on this"
            f" machine. Leave --devices out, and let the launcher start {devices} if you want"
            f" so many.{unset}"
        )


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


def restarts(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(how often ``--devices`` or torchrun has restarted this process, how often it may)."""
    ours = MAX_RESTARTS in environment
    count, most = (
        (RESTART_COUNT, MAX_RESTARTS)
        if ours
        else ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS")
    )
    return int(environment.get(count, "0")), int(environment.get(most, "0"))


def launched_at() -> float:
    """When torchrun, or ``thresher`` with ``--devices``, began: seconds since 1970.

    A script between it and this process is started again with this process.
    """
    for ancestor in psutil.Process().parents():
        try:
            started_by_it = "TORCHELASTIC_RUN_ID" in ancestor.environ()
        except psutil.Error:  # of another user's, such as a container's first process
            started_by_it = False
        if not started_by_it:
            return ancestor.create_time()
    return 0.0


def _launcher(environment: Mapping[str, str]) -> str | None:
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    # Before Slurm: inside an allocation mpirun's processes have Slurm's variables too.
    if any(name in environment for name in _MPI_VARIABLES):
        return "mpi"
    # A batch script's own shell has Slurm's variables too; only srun starts a step with tasks.
    # The job's name, by which Fabric goes, is "interactive" for all that runs inside salloc.
    is_task = "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment
    if is_task and not ("SLURM_PTY_PORT" in environment and _is_typed()):
        return "slurm"
    if "LSB_JOBID" in environment and "JSM_NAMESPACE_RANK" in environment:
        return "lsf"
    return "pytorch" if all(environment.get(name) for name in _PYTORCH_VARIABLES) else None


def _is_typed() -> bool:
    """Whether a person typed this command into a shell that is a task of Slurm's: ``srun --pty``.

    What such a shell starts with srun keeps its variables, but has no terminal; what
    ``srun --pty thresher`` starts has one, but no shell.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        return not psutil.Process(os.getppid()).name().startswith("slurmstepd")
    except (OSError, psutil.Error):
        return False


def _cluster(environment: Mapping[str, str]) -> ClusterEnvironment | None:
    launcher = _launcher(environment)
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
        missing = ", ".join(name for name in _PYTORCH_VARIABLES if not environment.get(name))
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
