"""One network with what trains it: optimizer and exponential moving average."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import set_stance

from thresher.config import ResolvedConfig
from thresher.dist.runtime import Runtime
from thresher.train.optimizer import fill_momentum, forget, make_optimizer


class Learner:
    """A student that gradients change, and the teacher that follows it.

    Args:
        module: the network, on the CPU.
        config: optimizer, weight decay, EMA decay.
        runtime: device, precision and peers.
    """

    def __init__(self, module: nn.Module, config: ResolvedConfig, runtime: Runtime) -> None:
        self._runtime = runtime
        self._config = config
        module = module.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(module).requires_grad_(False).eval()
        self.module = runtime.share_statistics(module) if config.sync_batchnorm else module
        if config.compile:
            # A run's batches have one shape; what would fit all shapes is slower.
            self.module.compile(dynamic=False)
            self.ema.compile(dynamic=False)
        self.optimizer = make_optimizer(self.module, config, runtime.device)
        self._weights = list(self.module.parameters())
        self._averaged = _float_pairs(self.ema, self.module)
        _share_counters(self.ema, self.module)
        self._updates = 0
        self._share: float | Tensor = 0.0

    @property
    def gradients(self) -> list[Tensor]:
        """Those of the weights that took part in the last backward pass."""
        return [p.grad for p in self._weights if p.grad is not None]

    def prepare(self, lr: float) -> None:
        """Say how far the next step goes; the teacher takes over what the student's age allows."""
        for group in self.optimizer.param_groups:
            rate = lr * group.get("lr_scale", 1.0)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._updates += 1
        # Young averages forget faster, so that the random start does not linger.
        share = 1 - min(self._config.ema_decay, self._updates / (self._updates + 10))
        if isinstance(self._share, Tensor):
            self._share.fill_(share)
        else:
            self._share = share

    def begin_again(self, fresh: Learner) -> None:
        """Take over another one's start, in the same memory: recorded steps go on reading it."""
        self.module.load_state_dict(fresh.module.state_dict())
        self.ema.load_state_dict(fresh.ema.state_dict())
        if not forget(self.optimizer):
            self.optimizer = make_optimizer(self.module, self._config, self._runtime.device)
        self._updates = 0

    def step(self) -> None:
        """One step down the gradients, then let the teacher follow."""
        self.optimizer.step()
        for weight in self._weights:  # as the optimizer's own zero_grad, which does more around it
            weight.grad = None
        self._follow()

    def keep_scalars_on_device(self) -> None:
        """Let a recorded ``step`` find in memory what ``prepare`` says, from now on."""
        if isinstance(self._share, Tensor):
            return
        device = self._runtime.device
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], device=device)
        self._share = torch.tensor(0.0, device=device)

    def predictor(self, *, teacher: bool) -> Callable[[Tensor], Tensor]:
        """Images to logits in eval mode, by the average of the weights or by the last ones."""
        network = self.ema if teacher else self.module

        def predict(images: Tensor) -> Tensor:
            network.eval()
            try:
                # Nothing is compiled for a few batches, of which the last has another size.
                with torch.no_grad(), self._runtime.autocast(), set_stance("force_eager"):
                    logits: Tensor = network(images)
            finally:
                network.train(not teacher)
            return logits.float()

        return predict

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
        groups = []
        for own, saved in zip(
            self.optimizer.param_groups, state["optimizer"]["param_groups"], strict=True
        ):
            # How this device computes is its own; the rate is a tensor if a recorded step left it.
            ways = {key: own[key] for key in ("fused", "capturable", "foreach") if key in own}
            groups.append({**saved, **ways, "lr": float(saved["lr"])})
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        fill_momentum(self.optimizer)
        self._updates = state["updates"]

    @torch.no_grad()
    def _follow(self) -> None:
        averaged, sources = self._averaged
        if isinstance(self._share, Tensor):
            # PyTorch interpolates lists by a number only, or slowly, one tensor at a time.
            steps = torch._foreach_sub(sources, averaged)
            torch._foreach_mul_(steps, self._share)
            torch._foreach_add_(averaged, steps)
        else:
            torch._foreach_lerp_(averaged, sources, self._share)


def _float_pairs(ema: nn.Module, module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and running statistics, averaged."""

    def tensors(net: nn.Module) -> list[Tensor]:
        floats = [buffer for buffer in net.buffers() if buffer.is_floating_point()]
        return [*(p.data for p in net.parameters()), *floats]

    averaged, sources = tensors(ema), tensors(module)
    assert [a.shape for a in averaged] == [s.shape for s in sources]
    return averaged, sources


def _share_counters(ema: nn.Module, module: nn.Module) -> None:
    """Have the teacher look at the student's buffers that cannot be averaged."""
    for name, buffer in module.named_buffers(remove_duplicate=False):
        if not buffer.is_floating_point():
            owner, _, attribute = name.rpartition(".")
            setattr(ema.get_submodule(owner), attribute, buffer)


MakeLearner = Callable[[int, int], Learner]
"""(network, round) to a fresh learner."""
