"""One code path for 1 and N processes: devices, precision, sums over ranks.

This room alone knows Fabric and torch.distributed. Fabric finds torchrun, Slurm and MPI by itself.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Literal, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from thresher.config import Precision
from thresher.errors import UserError

# Fabric announces its precision and ranks; Thresher prints its own configuration.
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

T = TypeVar("T")
_FABRIC_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
}


class Runtime:
    """This process's place among its peers.

    Args:
        accelerator: cpu, cuda, mps or auto.
        precision: of autocast.

    Raises:
        UserError: the accelerator is not there, or several processes were started.
    """

    def __init__(self, accelerator: str, precision: Precision) -> None:
        if accelerator == "cuda" and not torch.cuda.is_available():
            raise UserError("--accelerator cuda: PyTorch finds no CUDA device on this machine.")
        if accelerator not in ("auto", "cpu", "cuda", "mps"):
            raise UserError(f"--accelerator {accelerator}: choose cpu, cuda, mps or auto.")
        if accelerator == "mps" and not torch.backends.mps.is_available():
            raise UserError("--accelerator mps: PyTorch finds no such device on this machine.")
        self._fabric = Fabric(
            accelerator=accelerator, devices=1, precision=_FABRIC_PRECISION[precision]
        )
        if self._fabric.world_size > 1:
            raise UserError(
                f"{self._fabric.world_size} processes were started. This version of Thresher trains"
                " with one process; start it without torchrun, mpirun or srun."
            )
        self._fabric.launch()

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return self._fabric.device

    @property
    def rank(self) -> int:
        """0 to world_size - 1."""
        return self._fabric.global_rank

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self._fabric.world_size

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and talks to the user."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in the chosen precision inside this context."""
        context: AbstractContextManager[None] = self._fabric.autocast()
        return context

    def wrap(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Move to the device and let gradients be averaged over the ranks."""
        wrapped, wrapped_optimizer = self._fabric.setup(module, optimizer)
        return wrapped, wrapped_optimizer

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar, exchanged between the ranks."""
        self._fabric.backward(loss)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks, the same result on each."""
        if self.world_size == 1:
            return values
        reduced = self._fabric.all_reduce(values, reduce_op="sum")
        assert isinstance(reduced, Tensor)
        return reduced

    def barrier(self) -> None:
        """Wait for all ranks."""
        self._fabric.barrier()

    def broadcast(self, value: T) -> T:
        """The first rank's value, on every rank."""
        return self._fabric.broadcast(value)
