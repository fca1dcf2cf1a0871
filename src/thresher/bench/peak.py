"""What the device can do at most, and what a training step asks of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from thresher.bench.clock import finish
from thresher.bench.work import Work
from thresher.methods.base import with_mode
from thresher.types import Network, Networks, Progress

_SECONDS = 0.3
_SIDE = {"cpu": 1024, "mps": 2048, "cuda": 8192}
"""Of the matrices: large enough to fill the device, small enough to be quick."""


def measured_peak(device: torch.device, precision: str) -> float:
    """FLOP/s of the quicker of a square matrix product and a 3 x 3 convolution.

    Args:
        device: that is measured, for about a second.
        precision: ``bf16`` or ``fp32``.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = _SIDE[device.type]
    one = torch.randn(side, side, device=device).to(dtype)
    images = torch.randn(max(16, side // 32), 128, 28, 28, device=device).to(dtype)
    images = images.to(memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3, device=device).to(dtype)
    kernel = kernel.to(memory_format=torch.channels_last)
    conv_flops = 2.0 * images.numel() * kernel[0].numel()
    with torch.no_grad():
        return max(
            2.0 * side**3 / _best(lambda: one @ one, device),
            conv_flops / _best(lambda: F.conv2d(images, kernel, padding=1), device),
        )


def _best(work: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds of the quickest of several."""
    for _ in range(2):
        work()
    finish(device)
    stop = time.perf_counter() + _SECONDS
    found = float("inf")
    while time.perf_counter() < stop:
        started = time.perf_counter()
        work()
        finish(device)
        found = min(found, time.perf_counter() - started)
    return found


def flops_per_step(work: Work) -> float:
    """FLOP of a step of one process: convolutions and matrix products, forward and backward.

    Counted on a step of every epoch of the first round's networks, since a method may do more in
    some epochs than in others; at most ten epochs are looked at.
    """
    config, method = work.config, work.method
    ledger = work.make_ledger()
    learners = [work.make_learner(index, 0) for index in range(method.networks)]

    def student(index: int) -> Callable[[Tensor], Tensor]:
        def forward(images: Tensor) -> Tensor:
            with work.runtime.autocast():
                logits: Tensor = learners[index].module(images)
            return logits.float()

        return forward

    networks = Networks(
        tuple(Network(student(index), learner.teacher) for index, learner in enumerate(learners))
    )
    batches = work.feed.epoch(0)
    batch, positions = next(batches)
    batches.close()  # type: ignore[attr-defined]
    epochs = range(0, config.epochs, max(1, config.epochs // 10))
    total = 0
    for epoch in epochs:
        moment = Progress(epoch, config.epochs, epoch, config.epochs, 0, 1, epoch, config.epochs)
        progress = with_mode(method, moment)
        with FlopCounterMode(display=False) as counter:
            result = method.step(networks, batch, ledger.rows(positions), progress)
            for loss in result.loss_sums:
                loss.backward()  # type: ignore[no-untyped-call]
        total += counter.get_total_flops()
    return total * config.accumulate / len(epochs)
