"""From what started this process to a group of ranks: device, Fabric, the first connection."""

from __future__ import annotations

import datetime
import os
from typing import Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from thresher.config import Precision
from thresher.dist.environment import Surroundings
from thresher.dist.meeting import meet
from thresher.errors import UserError

_FABRIC_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
}


def check_accelerator(accelerator: str, around: Surroundings) -> str:
    """The kind of device that is meant: cpu, cuda or mps.

    Raises:
        UserError: it is not there, or not once for each process.
    """
    if accelerator not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"--accelerator {accelerator}: choose cpu, cuda, mps or auto.")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("--accelerator cuda: PyTorch finds no CUDA device on this machine.")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise UserError("--accelerator mps: PyTorch finds no such device on this machine.")
    kind = accelerator
    if kind == "auto":
        mps = torch.backends.mps.is_available() and around.world_size == 1
        kind = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if kind == "mps" and around.world_size > 1:
        raise UserError("--accelerator mps trains with one process only; choose cpu for several.")
    if kind == "cuda" and 1 < torch.cuda.device_count() < around.local_size:
        raise UserError(
            f"{around.local_size} processes run on this machine, but PyTorch finds"
            f" {torch.cuda.device_count()} CUDA devices. Start one process for each."
        )
    return kind


def make_fabric(kind: str, precision: Precision, around: Surroundings) -> Fabric:
    """Fabric for this process, with the device that is its own."""
    if around.world_size == 1:
        return Fabric(
            accelerator=kind,
            devices=1,
            precision=_FABRIC_PRECISION[precision],
            plugins=[around.cluster],
        )
    if kind == "cuda":
        # With one visible device per process the launcher has chosen; else each takes its own.
        visible = torch.cuda.device_count()
        devices = [
            torch.device("cuda", local if visible > 1 else 0) for local in range(around.local_size)
        ]
    else:
        devices = [torch.device("cpu")] * around.local_size
    strategy = DDPStrategy(
        parallel_devices=devices,
        cluster_environment=around.cluster,
        process_group_backend=_backend(kind),
    )
    nodes = -(-around.world_size // around.local_size)
    return Fabric(strategy=strategy, num_nodes=nodes, precision=_FABRIC_PRECISION[precision])


def join(around: Surroundings, kind: str, timeout: float) -> None:
    """Meet the other ranks and make the group of all.

    Raises:
        UserError: they do not meet, or cannot connect to one another.
    """
    host, port = around.cluster.main_address, around.cluster.main_port
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = host, str(port)
    rank = around.cluster.global_rank()
    store = meet(host, port, rank, around.world_size, timeout)
    try:
        dist.init_process_group(
            _backend(kind),
            store=store,
            rank=rank,
            world_size=around.world_size,
            timeout=datetime.timedelta(seconds=timeout),
        )
    except (RuntimeError, ValueError) as error:  # ValueError: Gloo on a name it cannot resolve
        raise UserError(
            f"The processes met at {host}:{port}, but this one cannot connect to the others"
            f" ({str(error).splitlines()[0][-160:]}). Set GLOO_SOCKET_IFNAME to the network"
            " interface between the machines, and see that no firewall stands between them."
        ) from None


def _backend(kind: str) -> str:
    """Flags and objects travel between hosts' memories, whatever trains."""
    return "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"


def set_timeout(timeout: datetime.timedelta) -> None:
    """Of all later collectives; PyTorch renamed the function after 2.11."""
    change = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    change(timeout, dist.group.WORLD)
