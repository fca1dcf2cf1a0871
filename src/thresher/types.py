"""The values that rooms hand to one another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class View(Enum):
    """One way of looking at an image.

    PLAIN is unaltered, WEAK flips and shifts (or crops), STRONG adds distortion, colour and holes.
    """

    PLAIN = "plain"
    WEAK = "weak"
    STRONG = "strong"


class Column(NamedTuple):
    """A value that a method keeps per sample.

    Attributes:
        name: in the ledger.
        width: values per sample.
        dtype: PyTorch's name.
        initial: before any step.
        in_step: a step finds it in its history; otherwise steps only write it.
    """

    name: str
    width: int = 1
    dtype: str = "float32"
    initial: float = 0.0
    in_step: bool = True


@dataclass(frozen=True)
class Batch:
    """One step's samples on the device. Shapes do not change from step to step.

    Attributes:
        ids: int64[B], the samples' ids in the manifest.
        views: one float[B, 3, S, S] per view that the method declared, normalised.
        labels: int64[B], the given labels.
        valid: bool[B], false in places that only fill the shape; they must weigh nothing.
        clean: samples whose labels are trusted, where the user has some.
    """

    ids: Tensor
    views: tuple[Tensor, ...]
    labels: Tensor
    valid: Tensor
    clean: Batch | None = None


class Progress(NamedTuple):  # which is made in every step, sooner than a frozen dataclass
    """Where the run stands. All counts start at 0.

    In a recorded step all that changes within a run (``epoch``, ``step``, ``round``,
    ``round_epoch``, ``round_epochs``) is an int64 scalar on the device: a method may compute with
    it, but what it does must follow from ``mode`` alone.

    Attributes:
        epoch, epochs: of the whole run.
        step, steps: of the whole run.
        round, rounds: rounds of fresh networks; most methods have one.
        round_epoch, round_epochs: within the round.
        mode: what the method's ``mode`` said of this moment.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    round: int = 0
    rounds: int = 1
    round_epoch: int = 0
    round_epochs: int = 1
    mode: Hashable = None

    @property
    def fraction(self) -> float:
        """Share of the whole run that is done, 0 to 1."""
        return self.step / self.steps

    @property
    def last_epoch_of_round(self) -> bool:
        """True in the last epoch before networks are made afresh, or the run ends."""
        return self.round_epoch == self.round_epochs - 1


@dataclass(frozen=True)
class Network:
    """One of a method's networks, as the method may use it.

    Attributes:
        student: images to logits float32[B, C]; gradients flow.
        teacher: the student's exponential moving average in eval mode; no gradients.
    """

    student: Callable[[Tensor], Tensor]
    teacher: Callable[[Tensor], Tensor]


ForEach = Callable[[Callable[[Network], "Tensor"], Sequence[Network]], "list[Tensor]"]


def in_turn(function: Callable[[Network], Tensor], networks: Sequence[Network]) -> list[Tensor]:
    """One network after the other."""
    return [function(network) for network in networks]


@dataclass(frozen=True)
class Networks:
    """A method's networks. The loop decides whether they run in turn or at once.

    Attributes:
        members: in a fixed order.
        for_each: runs a function for every member.
    """

    members: tuple[Network, ...]
    for_each: ForEach = in_turn

    def students(self, images: Tensor) -> list[Tensor]:
        """Logits float32[B, C] of every student, with gradients."""
        return self.for_each(lambda network: network.student(images), self.members)

    def teachers(self, images: Tensor) -> list[Tensor]:
        """Logits float32[B, C] of every teacher, without gradients."""
        return self.for_each(lambda network: network.teacher(images), self.members)


Rows = Mapping[str, "Tensor"]
"""Columns of the ledger for the samples of one batch (or of all): name to [B], [B, width]."""


@dataclass(frozen=True)
class StepResult:
    """What a method decided in one step; the loop does the rest.

    Attributes:
        loss_sums: per network the weighted sum of losses, a scalar with gradient.
        weight_sums: per network the sum of the weights, a scalar without gradient.
        records: values to keep in the ledger, name to [B] or [B, width]; ``weight`` is
            [B, networks].
    """

    loss_sums: tuple[Tensor, ...]
    weight_sums: tuple[Tensor, ...]
    records: dict[str, Tensor]


@dataclass(frozen=True)
class Judgement:
    """What a run believes of the given labels in the end.

    Attributes:
        clean_probability: float[N], that the given label is right: 1 clean, 0 wrong.
        suggested: int64[N], the most believed label, often the given one.
        confidence: float[N], of the suggested label, 0 to 1.
    """

    clean_probability: Tensor
    suggested: Tensor
    confidence: Tensor
