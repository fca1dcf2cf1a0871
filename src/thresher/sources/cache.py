"""A bounded cache of costly values, shared by threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedCache(Generic[K, V]):
    """Keeps the values used last up to a sum of bytes; one thread makes a value, others wait.

    The newest value is kept even if it alone is larger than the bound.
    """

    def __init__(self, most_bytes: int, size_of: Callable[[V], int]) -> None:
        self._most_bytes = most_bytes
        self._size_of = size_of
        self._lock = threading.Lock()
        self._values: OrderedDict[K, Future[V]] = OrderedDict()
        self._sizes: dict[K, int] = {}

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of ``key``, made now if it is absent.

        Raises:
            Exception: what ``make`` raised, in every thread that waited; it is not remembered.
        """
        with self._lock:
            future = self._values.get(key)
            mine = future is None
            if future is None:
                future = self._values[key] = Future()
            else:
                self._values.move_to_end(key)
        if mine:
            self._make(key, future, make)
        return future.result()

    def __contains__(self, key: object) -> bool:
        """Whether a value is held, or being made."""
        with self._lock:
            return key in self._values

    def clear(self) -> None:
        """Forget all values that are not being made."""
        with self._lock:
            self._drop(most_bytes=0, keep=None)

    @property
    def num_bytes(self) -> int:
        """The sum of the sizes of the values held."""
        with self._lock:
            return sum(self._sizes.values())

    def _make(self, key: K, future: Future[V], make: Callable[[], V]) -> None:
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._values[key]
            future.set_exception(error)
            return
        future.set_result(value)
        with self._lock:
            self._sizes[key] = self._size_of(value)
            self._drop(self._most_bytes, keep=key)

    def _drop(self, most_bytes: int, keep: K | None) -> None:
        excess = sum(self._sizes.values()) - most_bytes
        for key in [key for key in self._values if key in self._sizes and key != keep]:
            if excess <= 0:
                return
            excess -= self._sizes.pop(key)
            del self._values[key]
