"""Ordinary training: every given label counts in full. The yardstick for the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from thresher.config import option
from thresher.losses import cross_entropy
from thresher.methods.base import (
    CHUNK,
    History,
    Task,
    basic_columns,
    check_range,
    join,
    record_basics,
    side_by_side,
)
from thresher.methods.belief import (
    belief_columns,
    blend,
    dense_as_columns,
    recall,
    recall_dense,
)
from thresher.types import Batch, Column, Judgement, Networks, Progress, Rows, StepResult, View


@dataclass(frozen=True)
class CrossEntropyOptions:
    """Options of cross-entropy training."""

    networks: int = option(1, "Networks trained side by side; their predictions are averaged.")
    label_smoothing: float = option(0.0, "Share of each label spread over all classes.")


class CrossEntropy:
    """``L = mean_i -log p(y_i | x_i)`` for each network by itself."""

    name: ClassVar[str] = "ce"
    Options: ClassVar[type[Any]] = CrossEntropyOptions
    views: tuple[View, ...] = (View.WEAK,)
    predicts_with_teacher = False

    def __init__(self, options: CrossEntropyOptions, task: Task) -> None:
        check_range("ce.networks", options.networks, 1, 16)
        check_range("ce.label-smoothing", options.label_smoothing, 0, 1)
        self.options = options
        self.networks = options.networks
        self.num_classes = task.num_classes
        self.rounds = (task.epochs,)
        self.columns: tuple[Column, ...] = (
            *basic_columns(self.networks, task.num_classes),
            *belief_columns("belief", task.num_classes),
        )

    def begin_epoch(self, history: History, progress: Progress) -> Iterable[Rows]:  # noqa: ARG002
        """Nothing to prepare: every sample counts."""
        return ()

    def mode(self, progress: Progress) -> None:
        """All steps are alike."""

    def step(
        self, networks: Networks, batch: Batch, history: Rows, progress: Progress
    ) -> StepResult:
        """Cross-entropy of each network on the one view, of trusted samples too."""
        images, labels, weight = batch.views[0], batch.labels, batch.valid.float()
        given = [weight] * self.networks
        if batch.clean is not None:
            images = torch.cat([images, *batch.clean.views])
            labels = torch.cat([labels, batch.clean.labels])
            weight = torch.cat([weight, batch.clean.valid.float()])
        all_logits = networks.students(images)
        all_losses = [cross_entropy(z, labels, self.options.label_smoothing) for z in all_logits]
        logits, losses = all_logits, all_losses
        if batch.clean is not None:  # which the ledger does not hold
            own = slice(len(batch.labels))
            logits, losses = [z[own] for z in logits], [loss[own] for loss in losses]
        probs = side_by_side(logits).softmax(dim=2)
        records = record_basics(probs, losses, batch.labels, given)
        # Plain mean over epochs: a label learnt late, as wrong ones are, keeps a low mean.
        belief = blend(
            recall_dense(history, "belief", batch.labels, self.num_classes),
            probs[:, 0] if self.networks == 1 else probs.mean(dim=1),
            keep=progress.epoch / (progress.epoch + 1),
        )
        records |= dense_as_columns("belief", belief, batch.labels)
        return StepResult(
            loss_sums=tuple((weight * loss).sum() for loss in all_losses),
            weight_sums=(weight.sum(),) * self.networks,
            records=records,
        )

    def judge(self, history: History) -> Judgement:
        """Compare the mean probability of the given label with that of its strongest rival."""
        parts = (self._judge(rows, labels) for rows, labels in history.chunks(CHUNK))
        return join(parts, history.labels)

    def _judge(self, rows: Rows, labels: Tensor) -> Judgement:
        classes, probs = recall(rows, "belief", labels)
        given, rival = probs[:, 0], probs[:, 1:].amax(dim=1)
        top = probs.max(dim=1)
        return Judgement(
            clean_probability=given / (given + rival).clamp(min=1e-6),
            suggested=classes.gather(1, top.indices[:, None])[:, 0],
            confidence=top.values,
        )
