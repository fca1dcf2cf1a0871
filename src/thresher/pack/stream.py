"""Work done ahead in threads, handed out in order.

Threads, not processes: decoding, scaling, encoding and hashing all release Python's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
_AHEAD = 4  # results per worker that may wait, so that one large image does not stop the others


class OrderedStream(Generic[T]):
    """The results of ``work(start)``, ``work(start + 1)`` ... below ``stop``, computed ahead."""

    def __init__(self, work: Callable[[int], T], start: int, stop: int, workers: int) -> None:
        self.position = start
        self._work = work
        self._stop = stop
        self._next = start
        self._most = _AHEAD * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="pack")
        self._waiting: deque[Future[T]] = deque()

    def peek(self) -> T:
        """The result at ``position``, which stays.

        Raises:
            Exception: what ``work`` raised.
        """
        while len(self._waiting) < self._most and self._next < self._stop:
            self._waiting.append(self._pool.submit(self._work, self._next))
            self._next += 1
        return self._waiting[0].result()

    def advance(self) -> None:
        """Go to the next position."""
        self._waiting.popleft()
        self.position += 1

    def close(self) -> None:
        """Forget what waits and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
