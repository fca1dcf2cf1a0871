"""Mutual calibration training (MCT): two networks that judge each other's labels.

A RECONSTRUCTION. Of the original (Liu et al. 2021, CVIU 103277) only the abstract is public: two
models select clean samples "by estimating the confidence of the observed labels with the model
prediction", calibrate each other, and profit from a small clean set where there is one. Everything
below that fills this frame (rounds, posterior, targets, constants) is ours; ``docs/methods.md``
says what was tried.

With p_k(x) the running mean of what network k's teacher predicted late in the last round, a the
exponent ``sharpen`` and ỹ the given label:

    prior_k(c) ∝ p_k(c)^a
    T[c, y] = P(given y | true c), by EM over all samples                          (1)
    q_k(c) ∝ prior_k(c) · T[c, ỹ]                                                  (2)
    w_A = q_B(ỹ),  guess(c) ∝ ((p_A + p_B) / 2)(c)^a                               (3)
    target_A = w_A · onehot(ỹ) + (1 − w_A) · guess                                 (4)
    L_A = Σ max(target_A) · CE(target_A, views) / Σ max(target_A)  + the clean batch  (5)

The first round takes the given labels as they are. Every round begins with fresh networks, so that
what one round memorised is not passed on; what it recorded is. No noise rate is asked for: (1)
estimates the noise.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from thresher.config import option
from thresher.errors import UserError
from thresher.losses import one_hot, soft_cross_entropy
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
    Belief,
    as_columns,
    belief_columns,
    blend,
    dense_as_columns,
    mean_of_two,
    recall,
    recall_dense,
    sharpen,
)
from thresher.methods.noise_matrix import estimate_noise_matrix, posterior
from thresher.types import Batch, Column, Judgement, Networks, Progress, Rows, StepResult, View

ROUND_SHARES = (16 / 60, 16 / 60, 28 / 60)
"""Two short rounds to learn whom to believe, a long one to learn from it."""
FEWEST_EPOCHS_A_ROUND = 12
"""In fewer passes networks memorise little, and judging them early cost accuracy (docs/log.md)."""
FEWEST_IMAGES_A_ROUND = 20_000
"""A round that sees fewer images teaches fresh networks too little to judge by."""


@dataclass(frozen=True)
class MutualCalibrationOptions:
    """Options of mutual calibration training."""

    sharpen: float = option(2.0, "Exponent on predictions before they judge or replace a label.")
    label_smoothing: float = option(0.1, "Share of each target spread over all classes.")
    record_share: float = option(0.4, "Last share of each round whose predictions are recorded.")
    momentum: float = option(0.7, "Of the running mean of recorded predictions, per epoch.")
    em_steps: int = option(10, "Steps of the estimate of the noise matrix.")
    views: int = option(
        2, "Views of each image in a step: the weak and the strong one, or 1: either in turn."
    )
    rounds: int | None = option(
        None, "3, or 1: no judging; left open, 3 where they are long enough."
    )


class MutualCalibration:
    """Two networks; each learns from labels that the other has judged. See the module."""

    name: ClassVar[str] = "mct"
    Options: ClassVar[type[Any]] = MutualCalibrationOptions
    networks = 2
    views: tuple[View, ...] = (View.WEAK, View.STRONG)
    predicts_with_teacher = False

    def __init__(self, options: MutualCalibrationOptions, task: Task) -> None:
        check_range("mct.sharpen", options.sharpen, 0.1, 20)
        check_range("mct.label-smoothing", options.label_smoothing, 0, 0.9)
        check_range("mct.record-share", options.record_share, 0.05, 1)
        check_range("mct.momentum", options.momentum, 0, 0.999)
        check_range("mct.em-steps", options.em_steps, 1, 1000)
        check_range("mct.views", options.views, 1, 2)
        self.options = options
        self.num_classes = task.num_classes
        self.rounds = split_into_rounds(task, options.rounds)
        self.columns: tuple[Column, ...] = (
            *basic_columns(self.networks, task.num_classes),
            Column("record_weight", dtype="float16"),
            *belief_columns("record_1", task.num_classes),
            *belief_columns("record_2", task.num_classes),
            Column("trust", self.networks, "float16", initial=1.0),
            *belief_columns("guess", task.num_classes),
        )

    def begin_epoch(self, history: History, progress: Progress) -> Iterator[Rows]:
        """Between rounds, let each network's labels be judged by the other's record."""
        if progress.round == 0 or progress.round_epoch > 0:
            return
        matrices = self._noise_matrices(history)
        for rows, labels in history.chunks(CHUNK):
            columns = self._calibrate(rows, labels, matrices)
            # The coming round records afresh: what a network saw under worse labels is not
            # averaged in.
            yield {**columns, "record_weight": torch.zeros_like(columns["trust"][:, 0])}

    def mode(self, progress: Progress) -> bool:
        """Whether the teachers' predictions are recorded."""
        return progress.round_epoch + 1 > (1 - self.options.record_share) * progress.round_epochs

    def step(
        self, networks: Networks, batch: Batch, history: Rows, progress: Progress
    ) -> StepResult:
        """Cross-entropy of the views to each network's calibrated targets, equation (5)."""
        valid = batch.valid.float()
        targets = self._targets(history, batch.labels)
        looks = self._looks(batch, progress)
        num = sum(len(look) for look in looks)
        images = looks
        clean_targets = None
        if batch.clean is not None:
            images = looks + self._looks(batch.clean, progress)
            clean_targets = one_hot(batch.clean.labels, self.num_classes)
        stacked = torch.cat(images).contiguous(memory_format=torch.channels_last)
        loss_sums, weight_sums, firsts, losses = [], [], [], []
        for logits, target in zip(networks.students(stacked), targets, strict=True):
            of_looks = logits[:num].chunk(len(looks))
            smooth = self._smoothed(target)
            loss = torch.stack([soft_cross_entropy(z, smooth) for z in of_looks]).mean(dim=0)
            weight = valid * target.amax(dim=1)
            loss_sum, weight_sum = (weight * loss).sum(), weight.sum()
            if batch.clean is not None and clean_targets is not None:
                again = self._smoothed(clean_targets).repeat(len(looks), 1)
                of_clean = soft_cross_entropy(logits[num:], again)
                clean_valid = batch.clean.valid.float()
                clean_sum = (clean_valid.repeat(len(looks)) * of_clean).sum() / len(looks)
                loss_sum = loss_sum + clean_sum
                weight_sum = weight_sum + clean_valid.sum()
            loss_sums.append(loss_sum)
            weight_sums.append(weight_sum)
            losses.append(loss)
            firsts.append(of_looks[0])
        probs = side_by_side(firsts).softmax(dim=2)
        records = record_basics(probs, losses, batch.labels, list(history["trust"].unbind(dim=1)))
        assert progress.mode is not None, "see with_mode"
        if progress.mode:
            records |= self._record(networks, batch.views[0], batch.labels, history)
        return StepResult(tuple(loss_sums), tuple(weight_sums), records)

    def judge(self, history: History) -> Judgement:
        """Posterior of the given label by both networks; the best label of their mean target."""
        matrices = self._noise_matrices(history)
        parts = (
            self._judge(self._calibrate(rows, labels, matrices), labels)
            for rows, labels in history.chunks(CHUNK)
        )
        return join(parts, history.labels)

    def _judge(self, columns: Rows, labels: Tensor) -> Judgement:
        trust = columns["trust"].mean(dim=1)
        classes, guess = recall(columns, "guess", labels)
        target = guess * (1 - trust[:, None])
        target[:, 0] += trust
        top = target.max(dim=1)
        return Judgement(
            clean_probability=trust,
            suggested=classes.gather(1, top.indices[:, None])[:, 0],
            confidence=top.values,
        )

    def _targets(self, columns: Rows, labels: Tensor) -> list[Tensor]:
        """Equation (4) for each network, float[B, C]; plain labels while trust is 1."""
        given = one_hot(labels, self.num_classes)
        guess = recall_dense(columns, "guess", labels, self.num_classes)
        return [
            w[:, None] * given + (1 - w[:, None]) * guess
            for w in columns["trust"].float().unbind(1)
        ]

    def _looks(self, batch: Batch, progress: Progress) -> list[Tensor]:
        """The views that students see, each [B, 3, S, S]; if one, another one each epoch."""
        if self.options.views == 2:
            return list(batch.views)
        weak, strong = batch.views
        is_weak = (batch.ids + progress.epoch) % 2 == 0
        return [torch.where(is_weak[:, None, None, None], weak, strong)]

    def _smoothed(self, targets: Tensor) -> Tensor:
        share = self.options.label_smoothing
        return targets * (1 - share) + share / self.num_classes

    def _record(
        self, networks: Networks, weak: Tensor, labels: Tensor, history: Rows
    ) -> dict[str, Tensor]:
        """Fold the teachers' predictions into the running means, without a bias to the start."""
        before = history["record_weight"].float() * self.options.momentum
        keep = (before / (before + 1))[:, None]
        records = {"record_weight": before + 1}
        for index, logits in enumerate(networks.teachers(weak), start=1):
            name = f"record_{index}"
            old = recall_dense(history, name, labels, self.num_classes)
            records |= dense_as_columns(name, blend(old, logits.softmax(dim=1), keep), labels)
        return records

    def _noise_matrices(self, history: History) -> tuple[Tensor, Tensor]:
        """Equation (1) from the record of each network."""
        first, second = (
            estimate_noise_matrix(
                history,
                functools.partial(self._prior, index),
                lambda rows: rows["record_weight"] > 0,
                self.num_classes,
                self.options.em_steps,
            )
            for index in (1, 2)
        )
        return first, second

    def _prior(self, index: int, rows: Rows, labels: Tensor) -> Belief:
        classes, probs = recall(rows, f"record_{index}", labels)
        return Belief(classes, sharpen(probs, self.options.sharpen))

    def _calibrate(
        self, rows: Rows, labels: Tensor, matrices: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        """Equations (2) and (3): ``trust`` float[n, 2] and the sparse ``guess``.

        The label of a sample of which nothing was ever recorded is trusted.
        """
        records = [recall(rows, f"record_{index}", labels) for index in (1, 2)]
        trust = torch.stack(
            [
                posterior(self._prior(peer, rows, labels), labels, matrices[peer - 1])[:, 0]
                for peer in (2, 1)
            ],
            dim=1,
        )
        known = records[0].probs.amax(dim=1, keepdim=True) > 0
        classes, mean = mean_of_two(*records)
        guess = Belief(classes, sharpen(mean, self.options.sharpen))
        return {
            "trust": torch.where(known, trust, 1.0),
            **as_columns("guess", guess, self.num_classes),
        }


def split_into_rounds(task: Task, wanted: int | None) -> tuple[int, ...]:
    """Epochs of each round by ``ROUND_SHARES``; a single one where three would be too short.

    Raises:
        UserError: ``wanted`` is neither 1 nor 3, or three rounds do not fit.
    """
    if wanted not in (None, 1, len(ROUND_SHARES)):
        raise UserError(f"--mct.rounds is {wanted}; it must be 1 or {len(ROUND_SHARES)}.")
    ends = [round(task.epochs * sum(ROUND_SHARES[: i + 1])) for i in range(len(ROUND_SHARES))]
    rounds = tuple(end - start for start, end in zip([0, *ends[:-1]], ends, strict=True))
    if wanted == len(ROUND_SHARES) and min(rounds) < 1:
        raise UserError(f"--mct.rounds {wanted} needs more than {task.epochs} --epochs.")
    long_enough = (
        min(rounds) >= FEWEST_EPOCHS_A_ROUND
        and min(rounds) * task.num_samples >= FEWEST_IMAGES_A_ROUND
    )
    return (
        rounds
        if wanted == len(ROUND_SHARES) or (wanted is None and long_enough)
        else (task.epochs,)
    )
