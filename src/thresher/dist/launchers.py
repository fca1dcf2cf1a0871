"""Which launcher started this process: torchrun, MPI, Slurm, LSF, or nobody.

What sets PyTorch's own variables alone (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), as Kubeflow's
PyTorchJob does, is a launcher too. All of it is in variables, so that no library need be imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import psutil

from thresher.errors import UserError

_LOCAL_SIZE_VARIABLES = (
    "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "JSM_NAMESPACE_LOCAL_SIZE",
)  # fmt: skip
_MPI_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")
PYTORCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
RESTART_COUNT, MAX_RESTARTS = "THRESHER_RESTART_COUNT", "THRESHER_MAX_RESTARTS"
"""What ``--devices`` tells its processes, as torchrun does by variables of its own."""
_NAMES = {
    "torchrun": "torchrun", "mpi": "MPI", "slurm": "srun", "lsf": "jsrun",
    "pytorch": "the launcher that set WORLD_SIZE",
}  # fmt: skip


def was_launched() -> bool:
    """Whether a launcher started this process, perhaps as the only one."""
    return launcher_of(os.environ) is not None


def has_launcher(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a program started this process that stays for as long as its processes do.

    Where PyTorch's variables were set by hand it was a shell, which may end before them.
    """
    return launcher_of(environment) not in (None, "pytorch")


def check_devices(devices: int, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse ``--devices N`` where a launcher started another number of processes.

    Args:
        devices: as the user typed it; 1 says nothing.
        environment: variables of this process.

    Raises:
        UserError: naming both numbers.
    """
    launcher = launcher_of(environment)
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


def launcher_of(environment: Mapping[str, str]) -> str | None:
    """torchrun, mpi, slurm, lsf, pytorch for its variables alone, or None."""
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
    return "pytorch" if all(environment.get(name) for name in PYTORCH_VARIABLES) else None


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
