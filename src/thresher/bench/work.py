"""The real parts of a training, put together for measuring: on a user's images or on made ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thresher.config import ResolvedConfig, TrainConfig
from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.ledger.ledger import Ledger
from thresher.loader.feed import Feed
from thresher.loader.order import Order
from thresher.loader.pipeline import HostBatch, Loader
from thresher.methods import all_methods
from thresher.methods.base import Method, Task
from thresher.train import build
from thresher.train.data import open_training_data
from thresher.train.learner import MakeLearner
from thresher.train.resolve import Facts, resolve

_NEVER = 1e9
_POOL = 4
"""Made batches; they come round and round."""


@dataclass(frozen=True)
class Work:
    """What a training loop is made of.

    Attributes:
        num_classes: C.
    """

    config: ResolvedConfig
    runtime: Runtime
    method: Method
    feed: Feed
    num_classes: int
    checkpoints: Path = Path("no-checkpoints")

    def make_ledger(self) -> Ledger:
        """A fresh ledger."""
        return build.build_ledger(self.feed, self.method)

    @property
    def make_learner(self) -> MakeLearner:
        """Makes fresh networks."""
        return build.learner_maker(self.config, self.num_classes, self.runtime)


def on_images(config: TrainConfig, options: Any, runtime: Runtime) -> Work:
    """Training as ``thresher train`` would have it, without measuring accuracy.

    Raises:
        UserError: images or options that cannot be used.
    """
    data = open_training_data(dataclasses.replace(config, val=None, val_share=0.0))
    resolved = _unsaved(resolve(config, build.facts_of(config, data, runtime)))
    method = build.build_method(resolved, options, data)
    feed = build.build_feeds(resolved, data, method, runtime)
    return Work(resolved, runtime, method, feed, len(data.train.manifest.classes))


def on_made_images(
    config: TrainConfig, options: Any, runtime: Runtime, num_classes: int, steps: int
) -> Work:
    """Training on noise that lies in memory: nothing is read, decoded or cropped.

    Args:
        config: with ``image_size``, ``batch_size`` and ``epochs``.
        num_classes: C.
        steps: of one epoch.

    Raises:
        UserError: a batch that the ranks cannot share out evenly, or another value that cannot be.
    """
    assert config.image_size
    assert isinstance(config.batch_size, int)
    assert config.epochs
    num = steps * config.batch_size
    facts = Facts(num, config.image_size, runtime.device.type, runtime.cores)
    resolved = _unsaved(resolve(config, facts))
    task = Task(num_classes, num, resolved.epochs, has_clean=False)
    method: Method = all_methods()[resolved.method](options, task)
    # As many homes as ranks: what is made needs no share in other world sizes.
    ranks = runtime.group.size
    if resolved.batch_size % ranks:
        raise UserError(
            f"--batch-size {resolved.batch_size} is shared out over {ranks} processes, which does"
            f" not come out even. Choose a multiple of {ranks}."
        )
    order = Order(num, resolved.batch_size, resolved.seed, runtime.group.rank, ranks, ranks)
    feed = Feed(
        loader=_MadeLoader(order, resolved, num_classes, runtime.device),
        order=order,
        augmentation=build.build_augmentation(
            resolved.model, resolved.augment, resolved.flip, resolved.image_size
        ),
        views=method.views,
        device=runtime.device,
        seed=resolved.seed,
    )
    return Work(resolved, runtime, method, feed, num_classes)


class _MadeLoader(Loader):
    """Serves a few batches of noise."""

    def __init__(
        self, order: Order, config: ResolvedConfig, num_classes: int, device: torch.device
    ) -> None:
        rng = np.random.default_rng(config.seed)
        labels = rng.integers(0, num_classes, order.num_samples)[order.owned]
        super().__init__(
            _read_nothing, order.owned, labels, size=config.image_size, framing="whole",
            cache="none", device=device,
        )  # fmt: skip
        shape = (order.batch_size // order.world_size, *2 * (config.image_size,), 3)
        pool = [torch.from_numpy(rng.integers(0, 256, shape, np.uint8)) for _ in range(_POOL)]
        self._canvases = [pixels.permute(0, 3, 1, 2).to(device) for pixels in pool]

    def batches(self, epoch: int, plan: np.ndarray, start: int = 0) -> Iterator[HostBatch]:  # noqa: ARG002
        """The plan's samples, with any pixels."""
        for step, positions in enumerate(plan[start:], start):
            valid = positions >= 0
            places = np.where(valid, positions, 0)
            canvas = self._canvases[step % _POOL]
            yield HostBatch(places, self.ids[places], canvas, self.labels[places], valid)


def _unsaved(config: ResolvedConfig) -> ResolvedConfig:
    return dataclasses.replace(config, checkpoint_minutes=_NEVER)


def _read_nothing(sample: int) -> bytes:
    raise AssertionError(f"sample {sample} is made, not read")
