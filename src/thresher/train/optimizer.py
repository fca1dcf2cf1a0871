"""The optimizer by its name in timm, in the form that suits the device."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class
from torch import nn

from thresher.config import ResolvedConfig


def make_optimizer(
    module: nn.Module, config: ResolvedConfig, device: torch.device
) -> torch.optim.Optimizer:
    """For all weights of a network; biases and norms do not decay.

    With one kernel for all weights, and on a GPU in a form that can be recorded, where PyTorch has
    these.
    """
    ways = {"cuda": ("fused", "capturable"), "cpu": ("fused",)}.get(device.type, ())
    accepted = _parameters(config.optimizer)
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        module,
        opt=config.optimizer,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=0.9,
        **{name: True for name in ways if name in accepted},
    )
    fill_momentum(optimizer)
    return optimizer


def fill_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Let SGD remember a step of length zero of each weight of which it remembers nothing.

    Which changes nothing, but PyTorch's fused SGD takes weights with and without a memory in one
    go, so that one whose first gradient comes late would end the run.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group["momentum"] and not group["dampening"]:
            for weight in group["params"]:
                state = optimizer.state[weight]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(weight)


def can_be_recorded(name: str) -> bool:
    """Whether an optimizer's step never asks the host, given its learning rate as a tensor.

    ``capturable`` is PyTorch's word for it; its SGD needs none when it is fused.
    """
    kind: Any = get_optimizer_class(name, bind_defaults=False)
    return "capturable" in _parameters(name) or (
        issubclass(kind, torch.optim.SGD) and "fused" in _parameters(name)
    )


def _parameters(name: str) -> tuple[str, ...]:
    return tuple(inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters)
