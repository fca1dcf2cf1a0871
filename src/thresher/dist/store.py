"""The values that ranks leave for one another: torch's key-value stores.

``torch.distributed`` offers these names only where it was built in, so its type stubs do not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore

__all__ = ["HashStore", "PrefixStore", "Store", "StoreSilentError", "TCPStore", "within"]

T = TypeVar("T")


class StoreSilentError(RuntimeError):
    """Who hosts the store does not answer, though connections to it may stand."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"timed out: rank 0 has not answered for {seconds:g} s")


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What a store answers, if it does in time.

    A store's own time-out is no help where the process that hosts it is stopped, or its machine has
    lost power: then connecting, and all that waits for an answer, waits for ever.

    Args:
        seconds: how long to wait; the thread that asks is left behind.
        ask: uses the store.

    Raises:
        StoreSilentError: no answer came.
        Exception: what ``ask`` raised.
    """
    answers: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="ask the store", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise StoreSilentError(seconds)
    return answers[0]
