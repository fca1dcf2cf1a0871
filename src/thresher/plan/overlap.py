"""How much of the exchange the backward hides: buckets in a queue, simulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def buckets(
    ready: Sequence[tuple[float, float]], gradient_bytes: float, bucket_bytes: float
) -> list[tuple[float, float]]:
    """Cut one network's gradients into buckets in the order in which they become ready.

    Args:
        ready: (share of the backward's time, share of the gradient bytes), see ``Profile``.
        gradient_bytes: of the network.
        bucket_bytes: size at which a bucket is sent; one larger gradient makes one larger bucket.

    Returns:
        (share of the backward's time at which it is full, bytes) per bucket; the last may be small.
    """
    found: list[tuple[float, float]] = []
    sent = 0.0
    for time, share in ready:
        waiting = share * gradient_bytes - sent
        # The relative slack is for sums of shares that miss a bucket by rounding.
        if waiting >= bucket_bytes * (1 - 1e-9) or share >= 1:
            if waiting > 0:
                found.append((time, waiting))
            sent += waiting
    return found


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
    ready: Sequence[tuple[float, float]],
    gradient_bytes: float,
    bucket_bytes: float,
    backwards: Sequence[tuple[float, float]],
    seconds_for: Callable[[float], float],
) -> list[tuple[float, float]]:
    """The queue of ``exposed`` for networks whose backwards follow one another.

    Args:
        ready: of one network.
        gradient_bytes: of one network.
        bucket_bytes: size of a bucket.
        backwards: (start, length) in seconds of each network's backward.
        seconds_for: exchange of so many bytes.
    """
    cut = buckets(ready, gradient_bytes, bucket_bytes)
    return [
        (start + share * length, seconds_for(size))
        for start, length in backwards
        for share, size in cut
    ]
