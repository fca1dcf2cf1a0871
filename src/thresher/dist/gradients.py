"""Gradients averaged over the ranks while backward still runs.

All networks of a rank are members of one ``DistributedDataParallel``, so that their gradients
travel as one stream of buckets.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from thresher.config import Compression
from thresher.dist.group import Group

# Running statistics are averaged with the weights' sums, see train/team.py. PyTorch renamed the
# option after 2.11.
_NO_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


class _Members(nn.Module):
    """Several networks as one module."""

    def __init__(self, networks: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleDict({str(index): net for index, net in networks.items()})

    def forward(self, index: int, images: Tensor) -> Tensor:
        out: Tensor = self.members[str(index)](images)
        return out


class Exchange:
    """The way from a network's loss to gradients that are the mean over the group's ranks.

    Args:
        networks: that this rank holds, by index.
        group: ranks that hold the same ones.
        compression: ``bf16`` halves what travels, at the cost of rounding each rank's gradients.
    """

    def __init__(
        self, networks: Mapping[int, nn.Module], group: Group, compression: Compression
    ) -> None:
        self._networks = networks
        self._ddp: DistributedDataParallel | None = None
        if group.size == 1:
            return
        first = next(next(iter(networks.values())).parameters())
        self._ddp = DistributedDataParallel(
            _Members(networks),
            device_ids=[first.device] if first.is_cuda else None,
            process_group=group.handle,
            gradient_as_bucket_view=True,
            **_NO_BUFFERS,
        )
        if compression == "bf16":
            self._ddp.register_comm_hook(group.handle, bf16_compress_hook)

    def forward(self, index: int, images: Tensor) -> Tensor:
        """What a network says of images, with gradients."""
        out: Tensor = (
            self._networks[index](images) if self._ddp is None else self._ddp(index, images)
        )
        return out

    def keep_to_myself(self) -> AbstractContextManager[None]:
        """Inside, forward and backward add to the gradients without an exchange."""
        return contextlib.nullcontext() if self._ddp is None else self._ddp.no_sync()

    @property
    def exposed_seconds(self) -> float:
        """Of a mean step, how long gradients still travelled when backward had computed them all.

        PyTorch measures it in the first ten steps and in every hundredth from there on.
        """
        if self._ddp is None:
            return 0.0
        measured = self._ddp._get_ddp_logging_data()  # type: ignore[no-untyped-call]
        whole = float(measured.get("avg_backward_comm_time", 0))
        hidden = float(measured.get("avg_backward_compute_comm_overlap_time", 0))
        return max(0.0, whole - hidden) / 1e9

    @property
    def is_joint(self) -> bool:
        """Whether all losses must go backward together, since their gradients travel together."""
        return self._ddp is not None


def running_statistics(networks: Sequence[nn.Module]) -> list[Tensor]:
    """Float buffers that forward passes change, such as those of batch normalisation."""
    return [
        buffer for network in networks for buffer in network.buffers() if buffer.is_floating_point()
    ]


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One float32 vector of all values."""
    return torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])


def unflatten_into(vector: Tensor, tensors: Sequence[Tensor]) -> None:
    """The way back."""
    parts = torch.split(vector, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
