"""Several networks at once on one CPU: a Python thread per network, the cores shared out.

A small network leaves cores idle between its small operations; two of them side by side, each on
half of the cores, keep them busier than one after the other on all of them.
PyTorch's operations release the interpreter, so threads are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch
from torch import nn

from thresher.dist.runtime import Runtime

T = TypeVar("T")
R = TypeVar("R")


class Together:
    """Runs a function for every network, at once where that is sound and worth it.

    Args:
        networks: how many there are.
        runtime: several processes run them in turn, since all must exchange in the same order.
    """

    def __init__(self, networks: int, runtime: Runtime) -> None:
        self._budget = torch.get_num_threads()
        self._workers = min(networks, self._budget)
        if runtime.device.type != "cpu" or runtime.world_size > 1:
            self._workers = 1
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Together:
        if self._workers > 1:
            # Each thread takes this number over when it first computes.
            torch.set_num_threads(self._budget // self._workers)
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="network")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
            torch.set_num_threads(self._budget)

    def allow(self, modules: Iterable[nn.Module]) -> None:
        """Go back to one after the other if networks draw from the one random generator."""
        if self._pool is not None and any(_draws_random_numbers(module) for module in modules):
            self.__exit__(None, None, None)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """``[function(item) for item in items]``, in any order of time."""
        if self._pool is None:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))


def _draws_random_numbers(module: nn.Module) -> bool:
    """Whether a network has dropout of any kind, by the names that PyTorch and timm give it."""
    return any(
        "drop" in type(part).__name__.lower()
        and (getattr(part, "p", 0) or getattr(part, "drop_prob", 0))
        for part in module.modules()
    )
