"""How many gradients travel as one."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

_BUCKETS = 12
_SMALLEST = 1.0
_LARGEST = 25.0
"""MiB. Less is mostly latency; more is PyTorch's own choice for large networks."""


def bucket_megabytes(parameters: Iterable[nn.Parameter]) -> float:
    """MiB of gradients that travel as one, so that some travel while backward computes the rest.

    PyTorch's 25 MiB hold all gradients of a small network: the exchange would begin when backward
    has ended.
    """
    total = sum(p.numel() * p.element_size() for p in parameters) / 2**20
    return min(_LARGEST, max(_SMALLEST, total / _BUCKETS))
