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


def variables(processes: int) -> dict[str, str]:
    """This process's environment with what mpirun needs in it for so many processes.

    Open MPI refuses to run as root, as containers do, and to start more processes than cores.
    """
    env = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if processes > (os.cpu_count() or 1):
        env["OMPI_MCA_rmaps_base_oversubscribe"] = "1"
    return {**os.environ, **env}
