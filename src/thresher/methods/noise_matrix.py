"""The noise matrix T[c, y] = P(given y | true c), estimated from predictions by EM.

Each rank adds up a C x C matrix of expected counts over its own samples; only that matrix is
summed over the ranks, so the cost of the exchange does not depend on the number of samples.
The model is that of Dawid and Skene (1979) with one annotator and a prior per sample.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thresher.methods.base import History, chunk_size
from thresher.types import Rows

_TINY = 1e-6


def sharpen(probs: Tensor, power: float) -> Tensor:
    """probs^power, normalised again; float[B, C]. A row of zeros becomes uniform."""
    return torch.softmax(power * probs.clamp(min=_TINY).log(), dim=1)


def posterior(prior: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """P(true c | prediction, given label) by Bayes, float[B, C].

    Args:
        prior: float[B, C].
        labels: int64[B], given.
        matrix: float[C, C], rows sum to 1.
    """
    joint = prior * matrix[:, labels].T
    return joint / joint.sum(dim=1, keepdim=True)


def estimate_noise_matrix(
    history: History,
    prior_of: Callable[[Rows], Tensor],
    counts_of: Callable[[Rows], Tensor],
    num_classes: int,
    steps: int,
) -> Tensor:
    """EM from the predictions themselves; float[C, C], rows sum to 1.

    One count per row is spread over all labels, so that no pair is ruled out.

    Args:
        history: all samples.
        prior_of: rows to float[n, C], what the network thinks without the label.
        counts_of: rows to bool[n], false for samples of which nothing was recorded.
        num_classes: C.
        steps: of EM.
    """
    matrix = torch.full((num_classes, num_classes), 1 / num_classes, device=history.labels.device)
    for _ in range(steps):
        counts = torch.zeros_like(matrix)
        for rows, labels in history.chunks(chunk_size(num_classes)):
            expected = posterior(prior_of(rows), labels, matrix) * counts_of(rows)[:, None]
            counts.index_add_(1, labels, expected.T)
        counts = history.sum_over_ranks(counts) + 1 / num_classes
        matrix = counts / counts.sum(dim=1, keepdim=True)
    return matrix
