"""Losses per sample: no reduction, no state, float32 in and out.

Shapes: logits float[B, C]; labels int64[B]; targets float[B, C], rows summing to 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """-log p of the label, float[B]; ``smoothing`` spreads that share over all classes.

    Source: Szegedy et al. 2016, section 7 (smoothing).
    """
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy to a distribution, -sum_c t_c log p_c, float[B]."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """float32[B, C]: PyTorch's own looks at the labels' range and so waits for some devices."""
    zeros = torch.zeros(len(labels), num_classes, device=labels.device)
    return zeros.scatter_(1, labels[:, None], 1.0)
