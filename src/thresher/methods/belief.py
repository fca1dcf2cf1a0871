"""Predictions per sample: of few classes all, of many the given label's and the likeliest others.

The classes left out are taken to share nothing, so that what a sample costs, in memory and in time,
does not grow with the number of classes. The given label is always kept, since it is what is
judged: a wrong label may be far from likely.

Up to ``WIDTH`` classes lie in the ledger in their order, which takes no index, and a step that
writes them no sorting.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from thresher.types import Column, Rows

WIDTH = 16
_TINY = 1e-6


class Belief(NamedTuple):
    """What is thought of each sample.

    Attributes:
        classes: int64[B, K], the given label first; each at most once where anything is recorded.
        probs: float32[B, K], their probabilities; rows of zeros where nothing is recorded.
    """

    classes: Tensor
    probs: Tensor


def class_dtype(num_classes: int) -> str:
    """The smallest type for a class index that every device can index and copy."""
    if num_classes <= 2**8:
        return "uint8"
    return "int16" if num_classes <= 2**15 else "int32"


def belief_columns(name: str, num_classes: int) -> tuple[Column, ...]:
    """Ledger columns of one belief; where classes are left out, the first goes without saying."""
    if num_classes <= WIDTH:
        return (Column(f"{name}_probs", num_classes, "float16"),)
    return (
        Column(f"{name}_class", WIDTH - 1, class_dtype(num_classes)),
        Column(f"{name}_prob", WIDTH, "float16"),
    )


def recall(rows: Rows, name: str, labels: Tensor) -> Belief:
    """The belief in these columns."""
    num = len(labels)
    if f"{name}_probs" in rows:
        probs = rows[f"{name}_probs"].reshape(num, -1).float()
        order = torch.arange(probs.shape[1], device=labels.device).expand_as(probs)
        given = labels[:, None]
        # The given label changes places with the first class.
        swapped = torch.where(order == given, 0, order)
        classes = torch.cat([given, swapped[:, 1:]], dim=1)
        return Belief(classes, probs.gather(1, classes))
    others = rows[f"{name}_class"].long()
    return Belief(torch.cat([labels[:, None], others], dim=1), rows[f"{name}_prob"].float())


def recall_dense(rows: Rows, name: str, labels: Tensor, num_classes: int) -> Tensor:
    """The belief in these columns as float32[B, C]; rows sum to at most 1."""
    if f"{name}_probs" in rows:
        return rows[f"{name}_probs"].reshape(len(labels), num_classes).float()
    return to_dense(recall(rows, name, labels), num_classes)


def as_columns(name: str, belief: Belief, num_classes: int) -> dict[str, Tensor]:
    """Values for ``belief_columns``, of a belief of any width."""
    if num_classes <= WIDTH:
        return {f"{name}_probs": to_dense(belief, num_classes)}
    if belief.classes.shape[1] > WIDTH:
        belief = narrowed(belief, WIDTH)
    return {f"{name}_class": belief.classes[:, 1:], f"{name}_prob": belief.probs}


def dense_as_columns(name: str, probs_BC: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Values for ``belief_columns``, of probabilities of all classes."""
    num_classes = probs_BC.shape[1]
    if num_classes <= WIDTH:
        return {f"{name}_probs": probs_BC}
    return as_columns(name, to_sparse(probs_BC, labels), num_classes)


def to_dense(belief: Belief, num_classes: int) -> Tensor:
    """The belief as float32[B, C]; rows sum to at most 1."""
    dense = torch.zeros(len(belief.classes), num_classes, device=belief.probs.device)
    return dense.scatter_add_(1, belief.classes, belief.probs)


def to_sparse(dense_BC: Tensor, labels: Tensor, width: int = WIDTH) -> Belief:
    """The given label and the likeliest others, ``width`` classes together."""
    given = labels[:, None]
    num_others = min(width, dense_BC.shape[1]) - 1
    others = dense_BC.scatter(1, given, -1.0).topk(num_others, dim=1)
    return Belief(
        torch.cat([given, others.indices], dim=1),
        torch.cat([dense_BC.gather(1, given), others.values], dim=1),
    )


def narrowed(belief: Belief, width: int) -> Belief:
    """The given label and the likeliest of the others, ``width`` classes together."""
    others = belief.probs[:, 1:].topk(width - 1, dim=1)
    classes = belief.classes[:, 1:].gather(1, others.indices)
    return Belief(
        torch.cat([belief.classes[:, :1], classes], dim=1),
        torch.cat([belief.probs[:, :1], others.values], dim=1),
    )


def blend(old_BC: Tensor, probs_BC: Tensor, keep: Tensor | float) -> Tensor:
    """``keep`` of the old belief and the rest of the new prediction, float[B, C]."""
    return torch.lerp(probs_BC, old_BC, keep)


def sharpen(probs: Tensor, power: float) -> Tensor:
    """probs^power, normalised again; float32[B, K]. A row of zeros becomes uniform."""
    probs = probs.clamp(min=_TINY)
    # The likeliest becomes 1, so that no power makes a row vanish.
    powers = (probs / probs.amax(dim=1, keepdim=True)).pow(power)
    return powers / powers.sum(dim=1, keepdim=True)


def mean_of_two(one: Belief, other: Belief) -> Belief:
    """The mean of two beliefs of the same samples over the classes of either, [B, 2 K] each.

    A class of both stands among the first K; its place among the second has the probability 0.
    """
    same_BKK = one.classes[:, :, None] == other.classes[:, None, :]
    shared = torch.where(same_BKK, other.probs[:, None, :], 0.0).sum(dim=2)
    alone = other.probs.masked_fill(same_BKK.any(dim=1), 0.0)
    return Belief(
        torch.cat([one.classes, other.classes], dim=1),
        torch.cat([one.probs + shared, alone], dim=1) / 2,
    )
