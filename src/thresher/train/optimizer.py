"""The optimizer by its name in timm, in the form that suits the device."""

from __future__ import annotations

import inspect

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class
from torch import nn

from thresher.config import ResolvedConfig

_FROM_ZERO = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
"""Whose memory holds nothing but zeros before the first step."""


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


def forget(optimizer: torch.optim.Optimizer) -> bool:
    """Undo all steps an optimizer remembers, in the same memory; whether that can be."""
    if type(optimizer) not in _FROM_ZERO:
        return False
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                value.zero_()
    return True


def can_be_recorded(name: str) -> bool:
    """Whether an optimizer's step never asks the host, given its learning rate as a tensor.

    And whether it can ``forget``, since recorded steps serve all rounds.
    """
    return get_optimizer_class(name, bind_defaults=False) in _FROM_ZERO


def _parameters(name: str) -> tuple[str, ...]:
    return tuple(inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters)
