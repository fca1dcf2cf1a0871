"""Batches on the device, with their views: what a training step takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from thresher.loader.augment import NUM_DRAWS, Augmentation
from thresher.loader.draws import uniforms
from thresher.loader.order import Order
from thresher.loader.pipeline import HostBatch, Loader
from thresher.loader.planned import filled, stretches
from thresher.loader.transfer import Sent, Transfer, to_device
from thresher.types import Batch, View

_FIRST_VIEW_STREAM = 16


@dataclass(frozen=True)
class Feed:
    """Turns a loader's batches into a method's batches.

    Args:
        loader: of canvases.
        order: of the samples over epochs.
        augmentation: makes the views.
        views: those that the method declared.
        device: where the batch goes.
        seed: of the augmentation.
        parts: that each of the order's batches comes in, one after the other.
        clean: a second feed whose labels are trusted; it goes round and round.
    """

    loader: Loader
    order: Order
    augmentation: Augmentation
    views: tuple[View, ...]
    device: torch.device
    seed: int
    parts: int = 1
    clean: Feed | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Tensor]]:
        """The epoch's batches from step ``start`` on, each in its parts.

        Yields:
            (batch of B / parts samples, their ledger rows int64[B / parts]); the row behind all
            samples where a place only fills the shape.
        """
        for sent in self.sent(epoch, start):
            yield self.batch(sent)

    def sent(self, epoch: int, start: int = 0) -> Iterator[Sent]:
        """What the epoch's batches are made of, on the device, for ``batch`` to make them.

        Shapes and types are those of the first one throughout, so that a recorded step may read
        each from the same memory.
        """
        served = (epoch * self.order.steps + start) * self.parts
        clean = self.clean.endless(served) if self.clean else itertools.repeat(())
        plan = self.order.positions(epoch)
        plan = plan.reshape(len(plan) * self.parts, -1)
        first = start * self.parts
        hosts = self.loader.batches(epoch, plan, first)
        draws = self._draws(epoch, plan[first:])
        for own in self._transfer.ahead(hosts, lambda host: self._send(host, next(draws))):
            yield (*own, *next(clean))

    def batch(self, sent: Sent) -> tuple[Batch, Tensor]:
        """A batch with its views, computed on the device, and its ledger rows."""
        num_own = 5 + len(self.views)
        canvas, positions, ids, labels, valid, *draws = sent[:num_own]
        views = tuple(
            self.augmentation(canvas, view, draw)
            for view, draw in zip(self.views, draws, strict=True)
        )
        clean = self.clean.batch(sent[num_own:])[0] if self.clean else None
        return Batch(ids, views, labels, valid, clean), positions

    def close(self) -> None:
        """Stop the loaders' threads."""
        self.loader.close()
        if self.clean is not None:
            self.clean.close()

    def endless(self, served: int) -> Iterator[Sent]:
        """What batches are made of, for ever, as if ``served`` of them had been taken before."""
        epoch, start = divmod(served, self.order.steps)
        while True:
            yield from self.sent(epoch, start)
            epoch, start = epoch + 1, 0

    @cached_property
    def _transfer(self) -> Transfer:
        return Transfer(self.device)

    def _draws(self, epoch: int, plan: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Each step's random numbers, float32[B, NUM_DRAWS] for each view."""
        for places in stretches(plan):
            ids = self.loader.ids[filled(places)]
            shape = (*ids.shape, NUM_DRAWS)
            of_views = [
                uniforms(
                    self.seed, epoch, ids.reshape(-1), _FIRST_VIEW_STREAM + index, NUM_DRAWS
                ).reshape(shape)
                for index in range(len(self.views))
            ]
            for step in range(len(places)):
                yield tuple(draws[step] for draws in of_views)

    def _send(self, host: HostBatch, draws: tuple[np.ndarray, ...]) -> Sent:
        """All that a batch is made of, on the device."""
        rows = host.positions
        if not host.valid.all():
            rows = np.where(host.valid, rows, len(self.loader))
        arrays = (rows, host.ids, host.labels, host.valid, *draws)
        rest = (to_device(array, self.device) for array in arrays)
        return to_device(host.canvas, self.device), *rest
