"""How often the averaged prediction of a run's networks is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thresher.loader.augment import Augmentation
from thresher.loader.pipeline import Loader
from thresher.types import View

_NO_DRAWS = torch.empty(0)


@dataclass(frozen=True)
class Score:
    """Accuracy over the images that could be read.

    Attributes:
        correct, total: int64[C], counts by label.
        unreadable: images left out.
    """

    correct: np.ndarray
    total: np.ndarray
    unreadable: int

    @property
    def accuracy(self) -> float | None:
        """Share of right answers, 0 to 1; None if no image could be read."""
        total = int(self.total.sum())
        return float(self.correct.sum() / total) if total else None


def sequential_plan(num_samples: int, batch_size: int) -> np.ndarray:
    """int64[steps, B]: all samples in order, -1 after the last."""
    steps = -(-num_samples // batch_size)
    plan = np.full(steps * batch_size, -1, dtype=np.int64)
    plan[:num_samples] = np.arange(num_samples)
    return plan.reshape(steps, batch_size)


def predictions(
    predict: Callable[[Tensor], list[Tensor]],
    loader: Loader,
    augmentation: Augmentation,
    device: torch.device,
    batch_size: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Averaged class probabilities, batch by batch.

    Args:
        predict: images to the logits of every network, in eval mode.
        loader: of the images.
        augmentation: for its normalisation.
        device: where the networks are.
        batch_size: images at a time.

    Yields:
        (positions int64[b], labels int64[b], probs float32[b, C]) of the readable images.
    """
    for batch in loader.batches(0, sequential_plan(len(loader), batch_size)):
        images = augmentation(batch.canvas.to(device), View.PLAIN, _NO_DRAWS)
        with torch.no_grad():
            probs = torch.stack([z.softmax(dim=1) for z in predict(images)]).mean(dim=0)
        keep = batch.valid
        yield batch.positions[keep], batch.labels[keep], probs.cpu().numpy()[keep]


def score(
    predict: Callable[[Tensor], list[Tensor]],
    loader: Loader,
    augmentation: Augmentation,
    device: torch.device,
    num_classes: int,
    batch_size: int,
) -> Score:
    """Count right answers; see ``predictions`` for the arguments."""
    correct = np.zeros(num_classes, dtype=np.int64)
    total = np.zeros(num_classes, dtype=np.int64)
    for _, labels, probs in predictions(predict, loader, augmentation, device, batch_size):
        total += np.bincount(labels, minlength=num_classes)
        hits = labels[probs.argmax(axis=1) == labels]
        correct += np.bincount(hits, minlength=num_classes)
    return Score(correct, total, len(loader.unreadable))
