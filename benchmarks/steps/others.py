"""Training steps without Thresher's loop, on the same images in memory, with the same views.

None of them loads, decodes, remembers or measures anything of a sample.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter, ModelEmaV3
from torch import Tensor, nn

import steps.preact  # noqa: F401 - makes its network known, in every process
from steps.spent import Block, Spent, Watch
from thresher.loader.augment import NUM_DRAWS, Augmentation
from thresher.models.factory import create_model
from thresher.types import View


@dataclass(frozen=True)
class Images:
    """Decoded images.

    Attributes:
        canvases: uint8[N, 3, S, S], on the device that computes.
        labels: int64[N].
        batch: images of a step.
        model: name of the network.
        lr: of all steps.
    """

    canvases: Tensor
    labels: Tensor
    num_classes: int
    batch: int
    model: str
    lr: float
    augmentation: Augmentation

    def network(self) -> nn.Module:
        """A fresh one."""
        return create_model(self.model, self.num_classes).to(self.canvases.device)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented images and their labels, for ever."""
        device = self.canvases.device
        while True:
            for places in torch.randperm(len(self.labels), device=device).split(self.batch):
                if len(places) == self.batch:
                    draws = torch.rand(self.batch, NUM_DRAWS, device=device)
                    views = self.augmentation(self.canvases[places], View.WEAK, draws)
                    yield views, self.labels[places]


def block_of(step: Callable[[Tensor, Tensor], None], images: Images) -> Block:
    batches = images.batches()

    def block(steps: int) -> Spent:
        watch = Watch(images.canvases.device)
        for _ in range(steps):
            step(*next(batches))
        return watch.per_step(steps)

    return block


def bare(images: Images, bf16: bool) -> Block:
    """What Thresher's step cannot do without: the same network, precision, SGD and average.

    SGD takes all weights at once, as Thresher's does.
    """
    network = images.network()
    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False).eval()
    optimizer = create_optimizer_v2(
        network, opt="sgd", lr=images.lr, weight_decay=5e-4, momentum=0.9, fused=True
    )
    averaged, current = _floats(average), _floats(network)

    def step(views: Tensor, labels: Tensor) -> None:
        with _autocast(views, bf16):
            logits = network(views)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(averaged, current, 0.01)

    return block_of(_Recorded(step, images) if images.canvases.is_cuda else step, images)


class _Recorded:
    """A step as a CUDA graph, as PyTorch's own notes on these have it."""

    def __init__(self, step: Callable[[Tensor, Tensor], None], images: Images) -> None:
        self._step = step  # whose network and optimizer the graph goes on writing to
        self._places = next(images.batches())
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step(*self._places)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            step(*self._places)

    def __call__(self, views: Tensor, labels: Tensor) -> None:
        for place, tensor in zip(self._places, (views, labels), strict=True):
            place.copy_(tensor)
        self._graph.replay()


def compiled(images: Images) -> Block:
    """The quickest that PyTorch offers by a switch; nothing is logged, so that nothing waits."""
    network = images.network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=images.lr, momentum=0.9, weight_decay=5e-4, fused=True
    )
    forward = torch.compile(network, mode="reduce-overhead", dynamic=False)

    def step(views: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        with _autocast(views, bf16=True):
            logits = forward(views)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return block_of(step, images)


def plain(images: Images, bf16: bool) -> Block:
    """PyTorch as its tutorials have it: float32; or with autocast and channels_last."""
    network = images.network()
    if bf16:
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=images.lr, momentum=0.9, weight_decay=5e-4)
    criterion = nn.CrossEntropyLoss()

    def step(views: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        with _autocast(views, bf16):
            loss = criterion(network(views if bf16 else views.contiguous()), labels)
        loss.backward()
        optimizer.step()
        loss.item()  # every tutorial logs it

    return block_of(step, images)


def timm_parts(images: Images, bf16: bool) -> Block:
    """What timm's ``train.py --amp --channels-last --model-ema`` does in a step, without a loader.

    The script is no part of the package, so this is put together from the package's pieces; it
    stands in for the script where that is not given (``timm_train.py`` runs it).
    """
    network = images.network()
    network = network.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(
        network, opt="sgd", lr=images.lr, weight_decay=5e-4, momentum=0.9
    )
    average = ModelEmaV3(network, decay=0.99)
    scheduler = CosineLRScheduler(optimizer, t_initial=10_000, t_in_epochs=False)
    criterion, losses, updates = nn.CrossEntropyLoss(), AverageMeter(), 0

    def step(views: Tensor, labels: Tensor) -> None:
        nonlocal updates
        views = views.contiguous(memory_format=torch.channels_last)
        with _autocast(views, bf16):
            loss = criterion(network(views), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
        average.update(network, step=updates)
        losses.update(loss.item(), len(labels))
        scheduler.step_update(num_updates=updates, metric=losses.avg)

    return block_of(step, images)


def _autocast(views: Tensor, bf16: bool) -> AbstractContextManager[None]:
    if not bf16:
        return contextlib.nullcontext()
    return torch.autocast(views.device.type, torch.bfloat16)


def _floats(module: nn.Module) -> list[Tensor]:
    tensors = [*(weight.data for weight in module.parameters()), *module.buffers()]
    return [tensor for tensor in tensors if tensor.is_floating_point()]
