"""The seam between methods and the loop: what a method is."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from thresher.errors import UserError
from thresher.methods.belief import class_dtype
from thresher.types import Batch, Column, Judgement, Networks, Progress, Rows, StepResult, View


@dataclass(frozen=True)
class Task:
    """What a method may know of the data before it starts.

    Attributes:
        num_classes: C.
        num_samples: usable training samples over all processes.
        epochs: of the whole run.
        has_clean: whether batches will carry trusted samples.
    """

    num_classes: int
    num_samples: int
    epochs: int
    has_clean: bool


class Method(Protocol):
    """A way to train on labels that may be wrong. One file of this folder is one method.

    A method decides and the loop acts: it never calls backward, logs, reads the disk, or knows
    its rank. What it must remember of a sample it declares in ``columns`` and finds again in the
    batch's ``history``.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Any]]
    networks: int
    views: tuple[View, ...]
    columns: tuple[Column, ...]
    rounds: tuple[int, ...]
    predicts_with_teacher: bool

    def __init__(self, options: Any, task: Task) -> None: ...

    def begin_epoch(self, history: History, progress: Progress) -> Iterable[Rows]:
        """Look at all samples before an epoch.

        Returns:
            Columns to write anew for every sample of this rank, often none: for each chunk of
            the history, in order, name to [size, ...]. A chunk is written before the next is made.
        """

    def mode(self, progress: Progress) -> Hashable:
        """Which of its ways to make a step is due, None if there is only one.

        On a GPU a step is recorded once for each mode and then replayed, so ``step`` may branch on
        ``progress.mode`` and on nothing else that changes from step to step.
        """

    def step(
        self, networks: Networks, batch: Batch, history: Rows, progress: Progress
    ) -> StepResult:
        """Judge one batch: losses, weights and what to record; no wait for the device."""

    def judge(self, history: History) -> Judgement:
        """Say in the end what to believe of each given label."""


def with_mode(method: Method, progress: Progress) -> Progress:
    """The moment as ``step`` is told of it."""
    mode = method.mode(progress)
    return progress if mode == progress.mode else progress._replace(mode=mode)


CHUNK = 2**14
"""Samples of the history at a time: what is made of their beliefs fits into some megabytes."""


class History(Protocol):
    """The ledger as a method may see it between steps: this rank's samples, read-only."""

    @property
    def labels(self) -> Tensor:
        """int64[n], given labels."""

    def chunks(self, size: int) -> Iterator[tuple[Rows, Tensor]]:
        """All samples in order, (columns, labels) of at most ``size`` at a time."""

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Add up what each rank found in its samples; the same result on every rank."""


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a method's option outside ``low`` to ``high``.

    Raises:
        UserError: it is outside.
    """
    if not low <= value <= high:
        raise UserError(f"--{name} is {value:g}; it must lie between {low:g} and {high:g}.")


def basic_columns(networks: int, num_classes: int) -> tuple[Column, ...]:
    """What every method keeps per network, see ``record_basics``; no step asks for it again."""
    return (
        Column("loss", networks, "float16", in_step=False),
        Column("prob_given", networks, "float16", in_step=False),
        Column("top1", networks, class_dtype(num_classes), in_step=False),
        Column("confidence", networks, "float16", in_step=False),
        Column("weight", networks, "float16", initial=1.0, in_step=False),
    )


def record_basics(
    probs: Tensor, losses: Sequence[Tensor], labels: Tensor, weights: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Values for ``basic_columns``, each [B, networks].

    Args:
        probs: float[B, networks, C], without gradients.
        losses: per network float[B].
        labels: int64[B], given.
        weights: per network float[B], what the given label counted for, 0 to 1.
    """
    top = probs.max(dim=2)
    given = probs.gather(2, labels.view(-1, 1, 1).expand(-1, probs.shape[1], 1))
    return {
        "loss": side_by_side(losses),
        "prob_given": given.squeeze(2),
        "top1": top.indices,
        "confidence": top.values,
        "weight": side_by_side(weights),
    }


def side_by_side(values: Sequence[Tensor]) -> Tensor:
    """[B, ...] of each network as [B, networks, ...], without gradients."""
    if len(values) == 1:  # which is not copied
        return values[0].detach().unsqueeze(1)
    return torch.stack(list(values), dim=1).detach()


def join(parts: Iterable[Judgement], labels: Tensor) -> Judgement:
    """One judgement of all samples from those of their parts, in order.

    Args:
        parts: of the history's chunks.
        labels: int64[n] of all samples.
    """
    # Filled in place: small tensors kept until the end would leave holes all over the memory.
    floats = torch.empty(2, len(labels), device=labels.device)
    whole = Judgement(floats[0], torch.empty_like(labels), floats[1])
    start = 0
    for part in parts:
        rows = slice(start, start := start + len(part.suggested))
        whole.clean_probability[rows] = part.clean_probability
        whole.suggested[rows] = part.suggested
        whole.confidence[rows] = part.confidence
    return whole
