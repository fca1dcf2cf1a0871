"""One process's training step, piece by piece, on made canvases."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.bench.clock import Clock
from thresher.bench.net import Net
from thresher.dist.gradients import Exchange
from thresher.dist.group import Group
from thresher.ledger.ledger import Ledger
from thresher.loader.augment import NUM_DRAWS, Augmentation
from thresher.loader.draws import uniforms
from thresher.methods import all_methods
from thresher.methods.base import Method, Task, with_mode
from thresher.models.factory import data_config
from thresher.types import Batch, Networks, Progress, StepResult

PIECES = ("augment", "ledger", "forward", "backward", "update")
PHASES = 5
"""Points of a run at which a step is measured: a method may do more in some epochs than others."""
_LEDGER_BATCHES = 8


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        model, method, optimizer: names.
        num_classes: C.
        image_size: side of the canvas in pixels.
        small: small images are shifted, others come cropped.
        device: that computes.
        precision: torch dtype of autocast, None for none.
    """

    model: str
    method: str
    optimizer: str
    num_classes: int
    image_size: int
    small: bool
    device: torch.device
    precision: torch.dtype | None


class Step:
    """A method with its networks, and batches of noise of one size at a time."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        kind = all_methods()[setting.method]
        options: Any = kind.Options()
        # So large that a method with rounds settles on one way of working through all epochs.
        task = Task(setting.num_classes, num_samples=1000, epochs=PHASES, has_clean=False)
        self.method: Method = kind(options, task)
        self.nets = [
            Net(setting.model, setting.num_classes, setting.optimizer, setting.device,
                setting.precision)
            for _ in range(self.method.networks)
        ]  # fmt: skip
        normalisation = data_config(setting.model)
        self._augment = Augmentation(
            shift=max(1, setting.image_size // 14) if setting.small else 0,
            flip=True,
            mean=tuple(normalisation["mean"]),
            std=tuple(normalisation["std"]),
        )
        self._networks = Networks(tuple(net.network for net in self.nets))
        self._exchange: Exchange | None = None

    def join(self, group: Group) -> None:
        """Exchange gradients in every step from now on, as training does in a group of ranks.

        Steps raise a ``UserError`` then if the network uses some of its parameters in some of them
        and not in others.
        """
        modules = {index: net.module for index, net in enumerate(self.nets)}
        side = self.setting.image_size
        idle = self.nets[0].idle(torch.zeros(2, 3, side, side, device=self.setting.device))
        self._exchange = Exchange(modules, group, "none", len(self.nets), idle, starts_early=True)
        for index, net in enumerate(self.nets):
            net.forward = partial(self._exchange.forward, index)

    def resize(self, batch: int) -> None:
        """Make canvases and a ledger for batches of this size."""
        side, device = self.setting.image_size, self.setting.device
        rng = np.random.default_rng(0)
        num = batch * _LEDGER_BATCHES
        self._labels = rng.integers(0, self.setting.num_classes, num)
        self._ledger = Ledger(np.arange(num), self._labels, self.method.columns, device)
        pixels = torch.from_numpy(rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8))
        self._canvas = pixels.permute(0, 3, 1, 2).to(device)
        self._batch = batch
        self._turn = 0

    def run(self, phase: int, clock: Clock) -> None:
        """One whole step; the clock gets its pieces."""
        batch, positions = self._next(phase, clock)
        result = self._decide(batch, positions, phase, clock)
        self._backward(result)
        clock.mark("backward")
        for net in self.nets:
            net.update()
        clock.mark("update")
        self._ledger.update(positions, result.records)
        clock.mark("ledger")

    def _backward(self, result: StepResult) -> None:
        if self._exchange is None:
            # As in train/team.py.
            for loss, weight in zip(result.loss_sums, result.weight_sums, strict=True):
                torch.autograd.backward(loss, weight.clamp(min=1.0).reciprocal_())
            return
        # The whole weight is known when the gradients have been summed up.
        losses = [loss / self._batch for loss in result.loss_sums]
        weights = torch.stack([weight.detach() for weight in result.weight_sums])
        totals = self._exchange.backward(losses, weights)
        for net, total in zip(self.nets, totals, strict=True):
            torch._foreach_mul_(net.gradients, self._batch / total.clamp(min=1.0))

    def gradients_over_time(self, phase: int) -> list[tuple[float, int]]:
        """(share of its backward's time, bytes) of the first network's gradients, in order."""
        clock = Clock(self.setting.device)
        batch, positions = self._next(phase, clock)
        result = self._decide(batch, positions, phase, clock)
        loss = result.loss_sums[0] / result.weight_sums[0].clamp(min=1.0)
        found = self.nets[0].gradients_over_time(loss)
        for net in self.nets:
            net.optimizer.zero_grad(set_to_none=True)
        return found

    def saved_bytes(self, phase: int) -> int:
        """What the forward passes keep for the backward, without the networks' own weights."""
        own = {
            tensor.untyped_storage().data_ptr()
            for net in self.nets
            for tensor in (*net.module.parameters(), *net.module.buffers())
        }
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        clock = Clock(self.setting.device)
        batch, positions = self._next(phase, clock)
        with torch.autograd.graph.saved_tensors_hooks(pack, _as_it_is):
            result = self._decide(batch, positions, phase, clock)
        assert result.loss_sums, "the graph lives until here, so that no storage is used twice"
        return sum(kept.values())

    @property
    def ledger_bytes(self) -> float:
        """Per sample: its columns, its id and its label."""
        columns = self._ledger.columns.values()
        return float(sum(values[0].nbytes for values in columns) + 8 + 8)

    def _next(self, phase: int, clock: Clock) -> tuple[Batch, Tensor]:
        device = self.setting.device
        place = self._turn % _LEDGER_BATCHES
        self._turn += 1
        ids = np.arange(place * self._batch, (place + 1) * self._batch)
        views = []
        for index, view in enumerate(self.method.views):
            draws = torch.from_numpy(uniforms(0, phase, ids, 16 + index, NUM_DRAWS)).to(device)
            views.append(self._augment(self._canvas, view, draws))
        batch = Batch(
            ids=torch.from_numpy(ids).to(device),
            views=tuple(views),
            labels=torch.from_numpy(self._labels[ids]).to(device),
            valid=torch.ones(self._batch, dtype=torch.bool, device=device),
        )
        clock.mark("augment")
        return batch, batch.ids

    def _decide(self, batch: Batch, positions: Tensor, phase: int, clock: Clock) -> StepResult:
        rows = self._ledger.rows(positions)
        clock.mark("ledger")
        progress = Progress(
            epoch=phase, epochs=PHASES, step=phase, steps=PHASES, rounds=len(self.method.rounds),
            round_epoch=phase, round_epochs=PHASES,
        )  # fmt: skip
        progress = with_mode(self.method, progress)
        result = self.method.step(self._networks, batch, rows, progress)
        clock.mark("forward")
        return result


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
