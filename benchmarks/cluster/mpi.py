"""Open MPI's mpirun on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil


def why_not() -> str | None:
    """A sentence if mpirun cannot start Thresher here."""
    if shutil.which("mpirun") is None:
        return "needs mpirun (Debian: openmpi-bin)"
    if importlib.util.find_spec("mpi4py") is None:
        return "needs mpi4py (pip install thresher[mpi])"
    return None


def mpirun(processes: int) -> tuple[list[str], dict[str, str]]:
    """The beginning of a command that starts so many processes, and variables for it.

    Open MPI refuses to run as root, as containers do, and to start more processes than cores.
    """
    more = ["--oversubscribe"] if processes > (os.cpu_count() or 1) else []
    env = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return ["mpirun", "-n", str(processes), *more], {**os.environ, **env}
