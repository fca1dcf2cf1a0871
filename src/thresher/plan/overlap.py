"""How much of the exchange the backward hides: buckets in a queue, simulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

FIRST_BUCKET = 2.0**20
BUCKET = 25 * 2.0**20
"""Bytes at which PyTorch's DistributedDataParallel sends; its first bucket is small."""


def buckets(
    stream: Sequence[tuple[float, float]], first: float, size: float
) -> list[tuple[float, float]]:
    """Cut gradients into buckets in the order in which they become ready.

    Args:
        stream: (second at which gradients become ready, their bytes), in order.
        first: bytes at which the first bucket is sent.
        size: bytes at which the others are; one larger gradient makes one larger bucket.

    Returns:
        (second at which it is full, bytes) per bucket; the last may be small.
    """
    found: list[tuple[float, float]] = []
    waiting, limit = 0.0, min(first, size)
    for time, num_bytes in stream:
        waiting += num_bytes
        # The slack is for sums of shares that miss a bucket by rounding.
        if waiting >= limit * (1 - 1e-9):
            found.append((time, waiting))
            waiting, limit = 0.0, size
    if waiting > 0:
        found.append((stream[-1][0], waiting))
    return found


def ready_stream(
    ready: Sequence[tuple[float, float]],
    gradient_bytes: float,
    backwards: Sequence[tuple[float, float]],
) -> list[tuple[float, float]]:
    """(second, bytes) of the gradients of networks whose backwards follow one another.

    Args:
        ready: of one network: (share of its backward's time, share of its bytes), see ``Profile``.
        gradient_bytes: of one network.
        backwards: (start, length) in seconds of each network's backward.
    """
    stream = []
    for start, length in backwards:
        before = 0.0
        for time, share in ready:
            if share > before:
                stream.append((start + time * length, (share - before) * gradient_bytes))
            before = share
    return stream


def exposed(queue: Sequence[tuple[float, float]], end: float) -> float:
    """Seconds that the exchange goes on after the backward's end.

    Args:
        queue: (second at which a bucket is ready, seconds that it takes), in order of sending; one
            is sent at a time.
        end: second at which the backward ends.
    """
    free = 0.0
    for start, seconds in queue:
        free = max(free, start) + seconds
    return max(0.0, free - end)


def exchange_queue(
    stream: Sequence[tuple[float, float]],
    first: float,
    size: float,
    seconds_for: Callable[[float], float],
) -> list[tuple[float, float]]:
    """The queue of ``exposed`` for a stream of gradients.

    Args:
        stream: see ``ready_stream``.
        first, size: of the buckets, see ``buckets``.
        seconds_for: exchange of so many bytes.
    """
    return [(time, seconds_for(waiting)) for time, waiting in buckets(stream, first, size)]
