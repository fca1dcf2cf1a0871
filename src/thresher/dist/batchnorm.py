"""Batch normalisation over the samples of all ranks, also where PyTorch offers none: on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from thresher.dist.group import Group
from thresher.errors import UserError


class _Sum(torch.autograd.Function):
    """A sum over the ranks: every rank's part of it gets the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        values = values.clone()
        dist.all_reduce(values, group=group)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient, group=ctx.group)
        return gradient, None


class _SharedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose mean and variance are those of the whole global batch.

    The sums over a rank's pixels and their squares are added up over the ranks, in forward for the
    statistics and in backward for their gradients (Ioffe & Szegedy 2015, algorithm 1).
    """

    group: dist.ProcessGroup | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        count = wide.new_tensor([wide.numel() / wide.shape[1]])
        sums = torch.cat([wide.sum(dim=(0, 2, 3)), wide.square().sum(dim=(0, 2, 3)), count])
        sums = _Sum.apply(sums, self.group)
        total = sums[-1].detach()
        mean, square = (sums[:-1] / total).view(2, -1)
        variance = (square - mean.square()).clamp(min=0)  # rounding may go below
        with torch.no_grad():
            share = self.momentum if self.momentum is not None else 0.1
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * total / (total - 1), share)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        out: Tensor = (wide * scale[:, None, None] + shift[:, None, None]).to(x.dtype)
        return out


def share_statistics(network: nn.Module, group: Group, device: torch.device) -> nn.Module:
    """Let every batch normalisation see the samples of all ranks of the group.

    Raises:
        UserError: a kind of batch normalisation that cannot be shared on a CPU.
    """
    if group.size == 1:
        return network
    if device.type != "cpu":
        converted: nn.Module = convert_sync_batchnorm(network, group.handle)
        return converted
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _SharedBatchNorm2d
            module.group = group.handle  # type: ignore[assignment]
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UserError(
                f"--sync-batchnorm: on a CPU {type(module).__name__} cannot be shared between"
                " processes. Choose another --model, or leave the option out."
            )
    return network
