"""How much of the exchange the backward hides: buckets in a queue, simulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BUCKETS = 12
_SMALLEST = 1.0 * 2.0**20
_LARGEST = 25 * 2.0**20
_FIRST_SHARE = 0.75
_WORTH_CUTTING = 0.25 * 2.0**20


def usual_bucket(gradient_bytes: float, *, starts_early: bool) -> float:
    """Bytes at which gradients are sent, of so many in all; see ``dist/buckets.py``."""
    smallest = _SMALLEST
    if starts_early:
        smallest = max(_WORTH_CUTTING, min(_SMALLEST, _FIRST_SHARE * gradient_bytes))
    return min(_LARGEST, max(smallest, gradient_bytes / _BUCKETS))


def buckets(stream: Sequence[tuple[float, float]], size: float) -> list[tuple[float, float]]:
    """Cut gradients into buckets in the order in which they become ready.

    Args:
        stream: (second at which gradients become ready, their bytes), in order.
        size: bytes at which a bucket is sent; one larger gradient makes one larger bucket.

    Returns:
        (second at which it is full, bytes) per bucket; the last may be small.
    """
    found: list[tuple[float, float]] = []
    waiting = 0.0
    for time, num_bytes in stream:
        waiting += num_bytes
        # The slack is for sums of shares that miss a bucket by rounding.
        if waiting >= size * (1 - 1e-9):
            found.append((time, waiting))
            waiting = 0.0
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
    size: float,
    seconds_for: Callable[[float], float],
) -> list[tuple[float, float]]:
    """The queue of ``exposed`` for a stream of gradients.

    Args:
        stream: see ``ready_stream``.
        size: of the buckets, see ``buckets``.
        seconds_for: exchange of so many bytes.
    """
    return [(time, seconds_for(waiting)) for time, waiting in buckets(stream, size)]
