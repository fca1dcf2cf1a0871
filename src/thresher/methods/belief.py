"""A running average of predictions per sample, kept sparse: the k most likely classes.

Exact while C <= k. Beyond that the classes outside the top k are taken to share nothing, so that
a sample costs 6 bytes per kept class however many classes there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thresher.types import Column

WIDTH = 16


def belief_columns(name: str, num_classes: int) -> tuple[Column, Column]:
    """Ledger columns of one belief: class indices and their probabilities."""
    width = min(WIDTH, num_classes)
    return (
        Column(f"{name}_class", width, "int32", initial=0),
        Column(f"{name}_prob", width, "float16", initial=0),
    )


def to_dense(classes_BK: Tensor, probs_BK: Tensor, num_classes: int) -> Tensor:
    """The belief as float32[B, C]; rows sum to at most 1."""
    dense = torch.zeros(len(classes_BK), num_classes, device=probs_BK.device)
    return dense.scatter_add_(1, classes_BK.long(), probs_BK.float())


def blend(old_BC: Tensor, probs_BC: Tensor, keep: Tensor | float) -> Tensor:
    """``keep`` of the old belief and the rest of the new prediction, float[B, C]."""
    return old_BC * keep + probs_BC * (1 - keep)


def to_sparse(dense_BC: Tensor) -> tuple[Tensor, Tensor]:
    """The ``WIDTH`` most likely classes (int32) and their probabilities (float16)."""
    top = dense_BC.topk(min(WIDTH, dense_BC.shape[1]), dim=1)
    return top.indices.to(torch.int32), top.values.to(torch.float16)
