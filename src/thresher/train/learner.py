"""One network with what trains it: optimizer and exponential moving average."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from thresher.config import ResolvedConfig
from thresher.dist.runtime import Runtime


class Learner:
    """A student that gradients change, and the teacher that follows it.

    Args:
        module: the network, on the CPU.
        config: optimizer, weight decay, EMA decay.
        runtime: device, precision and peers.
    """

    def __init__(self, module: nn.Module, config: ResolvedConfig, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ema_decay = config.ema_decay
        module = module.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(module).requires_grad_(False).eval()
        self.module = runtime.share_statistics(module) if config.sync_batchnorm else module
        self.optimizer = create_optimizer_v2(
            self.module,
            opt=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=0.9,
        )
        self._averaged = _float_pairs(self.ema, self.module)
        self._copied = _other_pairs(self.ema, self.module)
        self._updates = 0

    @property
    def gradients(self) -> list[Tensor]:
        """Those of the weights that took part in the last backward pass."""
        return [p.grad for p in self.module.parameters() if p.grad is not None]

    def step(self, lr: float) -> None:
        """One step down the gradients, then let the teacher follow."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._follow()

    def predictor(self, *, teacher: bool) -> Callable[[Tensor], Tensor]:
        """Images to logits in eval mode, by the average of the weights or by the last ones."""

        def predict(images: Tensor) -> Tensor:
            self.module.eval()
            try:
                with torch.no_grad(), self._runtime.autocast():
                    logits: Tensor = self.module(images)
            finally:
                self.module.train()
            return logits.float()

        return self.teacher if teacher else predict

    @torch.no_grad()
    def teacher(self, images: Tensor) -> Tensor:
        """Logits float32[B, C] of the averaged network in eval mode."""
        with self._runtime.autocast():
            logits: Tensor = self.ema(images)
        return logits.float()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {
            "module": self.module.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self._updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.module.load_state_dict(state["module"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._updates = state["updates"]

    @torch.no_grad()
    def _follow(self) -> None:
        self._updates += 1
        # Young averages forget faster, so that the random start does not linger.
        decay = min(self._ema_decay, self._updates / (self._updates + 10))
        averaged, sources = self._averaged
        torch._foreach_lerp_(averaged, sources, 1 - decay)
        for target, source in self._copied:
            target.copy_(source)


def _float_pairs(ema: nn.Module, module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and running statistics, averaged."""
    pairs = [p for p in _pairs(ema, module) if p[0].is_floating_point()]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _other_pairs(ema: nn.Module, module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Counters, copied."""
    return [p for p in _pairs(ema, module) if not p[0].is_floating_point()]


def _pairs(ema: nn.Module, module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    def tensors(net: nn.Module) -> list[Tensor]:
        return [*(p.data for p in net.parameters()), *net.buffers()]

    return list(zip(tensors(ema), tensors(module), strict=True))


MakeLearner = Callable[[int, int], Learner]
"""(network, round) to a fresh learner."""
