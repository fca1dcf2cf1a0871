"""The noise matrix T[c, y] = P(given y | true c), estimated from predictions by EM.

Each rank adds up a C x C matrix of expected counts over its own samples; only that matrix is
summed over the ranks, so the cost of the exchange does not depend on the number of samples.
The model is that of Dawid and Skene (1979) with one annotator and a prior per sample.

A prior is a belief, and sparse: a pass over n samples costs n * K and not n * C.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thresher.methods.base import CHUNK, History
from thresher.methods.belief import Belief
from thresher.types import Rows


def posterior(prior: Belief, labels: Tensor, matrix: Tensor) -> Tensor:
    """P(true c | prediction, given label) by Bayes for the classes of the prior, float[B, K].

    Args:
        prior: of each sample, what a network thinks without the label; rows sum to 1.
        labels: int64[B], given.
        matrix: float[C, C], rows sum to 1.
    """
    cells = _cells(prior, labels, len(matrix))
    # Many times as quick as indexing with two tensors.
    joint = prior.probs * matrix.reshape(-1).index_select(0, cells).view_as(prior.probs)
    return joint / joint.sum(dim=1, keepdim=True)


def estimate_noise_matrix(
    history: History,
    prior_of: Callable[[Rows, Tensor], Belief],
    counts_of: Callable[[Rows], Tensor],
    num_classes: int,
    steps: int,
) -> Tensor:
    """EM from the predictions themselves; float[C, C], rows sum to 1.

    One count per row is spread over all labels, so that no pair is ruled out.

    Args:
        history: all samples.
        prior_of: rows and their labels to what the network thinks without the label.
        counts_of: rows to bool[n], false for samples of which nothing was recorded.
        num_classes: C.
        steps: of EM.
    """
    device = history.labels.device
    # float32 stops counting at 16.8 million; MPS has nothing wider.
    wide = torch.float32 if device.type == "mps" else torch.float64
    matrix = torch.full((num_classes, num_classes), 1 / num_classes, device=device)
    for _ in range(steps):
        counts = torch.zeros(num_classes**2, dtype=wide, device=device)
        for rows, labels in history.chunks(CHUNK):
            prior = prior_of(rows, labels)
            expected = posterior(prior, labels, matrix) * counts_of(rows)[:, None]
            cells = _cells(prior, labels, num_classes)
            counts.index_add_(0, cells, expected.view(-1).to(wide))
        counts = history.sum_over_ranks(counts).view_as(matrix) + 1 / num_classes
        matrix = (counts / counts.sum(dim=1, keepdim=True)).float()
    return matrix


def _cells(prior: Belief, labels: Tensor, num_classes: int) -> Tensor:
    """Where in the flattened matrix each class of the prior meets its given label, int64[B * K]."""
    return (prior.classes * num_classes + labels[:, None]).view(-1)
