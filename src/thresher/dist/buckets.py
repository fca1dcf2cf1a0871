"""How many gradients travel as one."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

_BUCKETS = 12
_SMALLEST = 1.0
_LARGEST = 25.0
"""MiB. Less is mostly latency; more is PyTorch's own choice for large networks."""
_FIRST_SHARE = 0.75
_WORTH_CUTTING = 0.25
"""MiB. What of less would travel early takes no longer than another message."""


def bucket_megabytes(parameters: Iterable[nn.Parameter], *, starts_early: bool) -> float:
    """MiB of gradients that travel as one, so that some travel while backward computes the rest.

    PyTorch's 25 MiB hold all gradients of a small network: the exchange would begin when backward
    has ended. A network that would fit into our smallest bucket, too, is cut in two if it is to
    start early: three quarters of it, its last layers, are ready when backward has most of its work
    before it, with the first layers' large maps; and the quarter at most that is left when backward
    ends is soon sent.

    Args:
        parameters: that travel.
        starts_early: whether another message is cheaper than the wait that it saves. It is not
            where processes take turns on a core, since each has to wait for its turn.
    """
    total = sum(p.numel() * p.element_size() for p in parameters) / 2**20
    smallest = _SMALLEST
    if starts_early:
        smallest = max(_WORTH_CUTTING, min(_SMALLEST, _FIRST_SHARE * total))
    return min(_LARGEST, max(smallest, total / _BUCKETS))
