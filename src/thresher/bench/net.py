"""One network with optimizer and average, as a training step treats it, for measuring."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from thresher.bench.clock import finish
from thresher.bench.parts import mark
from thresher.dist.idle import find_idle
from thresher.models.factory import create_model
from thresher.types import Network

_DECAY = 0.999


class Net:
    """A student, its teacher and its optimizer.

    Args:
        model: name of the network.
        num_classes: C.
        optimizer: of timm's.
        device: where it computes.
        precision: torch dtype of autocast, None for none.

    Attributes:
        network: for a method.
        forward: of the student; another way to the module where gradients are exchanged.
        logits: numbers that the network gave out, forward passes of student and teacher alike.
        passes: number of those passes.
    """

    def __init__(
        self,
        model: str,
        num_classes: int,
        optimizer: str,
        device: torch.device,
        precision: torch.dtype | None,
    ) -> None:
        module = create_model(model, num_classes)
        module = module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module = module
        self.average = copy.deepcopy(module).requires_grad_(False).eval()
        self.optimizer = create_optimizer_v2(module, opt=optimizer, lr=1e-3, weight_decay=1e-4)
        self.network = Network(student=self._student, teacher=self._teacher)
        self.forward: Callable[[Tensor], Tensor] = module
        self.logits = 0
        self.passes = 0
        self._device = device
        self._precision = precision

    def update(self) -> None:
        """Step the optimizer and let the average follow."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            pairs = zip(_floats(self.average), _floats(self.module), strict=True)
            averaged, current = zip(*pairs, strict=True)
            torch._foreach_lerp_(list(averaged), list(current), 1 - _DECAY)

    def gradients_over_time(self, loss: Tensor) -> list[tuple[float, int]]:
        """Run the backward and note (share of its time, bytes) as each gradient is finished."""
        found: list[tuple[float, int]] = []
        events: list[tuple[torch.cuda.Event, int]] = []
        cuda = self._device.type == "cuda"

        def note(weight: Tensor) -> None:
            assert weight.grad is not None
            if cuda:
                event = mark()
                events.append((event, weight.grad.nbytes))
            else:
                found.append((time.perf_counter(), weight.grad.nbytes))

        handles = [
            weight.register_post_accumulate_grad_hook(note)
            for weight in self.module.parameters()
            if weight.requires_grad
        ]
        finish(self._device)
        first = mark() if cuda else None
        start = time.perf_counter()
        loss.backward()  # type: ignore[no-untyped-call]
        stop = time.perf_counter()
        for handle in handles:
            handle.remove()
        if first is None:
            return [((at - start) / (stop - start), size) for at, size in found]
        last = mark()
        finish(self._device)
        whole = first.elapsed_time(last)
        return [(first.elapsed_time(event) / whole, size) for event, size in events]

    def idle(self, images: Tensor) -> frozenset[str]:
        """Names of the parameters that never get a gradient."""
        with self._autocast():
            return find_idle(copy.deepcopy(self.module), images)

    @property
    def gradients(self) -> list[Tensor]:
        """Of the last backward."""
        return [weight.grad for weight in self.module.parameters() if weight.grad is not None]

    @property
    def gradient_bytes(self) -> int:
        """Of one exchange, without compression."""
        return sum(int(w.nbytes) for w in self.module.parameters() if w.requires_grad)

    @property
    def weight_bytes(self) -> int:
        """Weights and buffers of student and teacher, and the gradients."""
        own = sum(int(t.nbytes) for t in (*self.module.parameters(), *self.module.buffers()))
        return 2 * own + self.gradient_bytes

    @property
    def optimizer_bytes(self) -> int:
        """What the optimizer keeps, after its first step."""
        kept = (v for state in self.optimizer.state.values() for v in state.values())
        return sum(int(value.nbytes) for value in kept if isinstance(value, Tensor))

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(
            self._device.type, dtype=self._precision, enabled=self._precision is not None
        )

    def _student(self, images: Tensor) -> Tensor:
        with self._autocast():
            logits = self.forward(images)
        self._count(logits)
        return logits.float()

    @torch.no_grad()
    def _teacher(self, images: Tensor) -> Tensor:
        with self._autocast():
            logits: Tensor = self.average(images)
        self._count(logits)
        return logits.float()

    def _count(self, logits: Tensor) -> None:
        self.logits += logits.numel()
        self.passes += 1


def _floats(module: nn.Module) -> list[Tensor]:
    tensors = [*(w.data for w in module.parameters()), *module.buffers()]
    return [tensor for tensor in tensors if tensor.is_floating_point()]
