"""Several networks at once: on a CPU a thread per network, on a GPU a stream per network.

A small network leaves cores idle between its small operations; two of them side by side, each on
half of the cores, keep them busier than one after the other on all of them.
PyTorch's operations release the interpreter, so threads are enough.
A GPU that one small network does not fill is shared in the same way, in a recorded step: by itself
the host is too slow to start the work of both.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor, nn

from thresher.dist.runtime import Runtime
from thresher.loader.transfer import new_stream

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
        self._device = runtime.device
        self._streams: list[torch.cuda.Stream] = []
        self._made: list[torch.cuda.Stream] = []

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
        """Go back to one after the other if any of the networks must."""
        if self._pool is not None and any(must_take_turns(module) for module in modules):
            self.__exit__(None, None, None)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """``[function(item) for item in items]``, in any order of time."""
        if self._streams:
            return self._map_on_streams(function, items)
        if self._pool is None:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))

    def backward(
        self, losses: Iterable[Tensor], factors: Iterable[Tensor | None] = itertools.repeat(None)
    ) -> None:
        """Add the gradients of the networks' losses, each times its factor, 1 if that is None."""

        def backward(pair: tuple[Tensor, Tensor | None]) -> None:
            torch.autograd.backward(*pair)

        self.map(backward, zip(losses, factors, strict=False))

    @contextlib.contextmanager
    def on_streams(self, networks: int) -> Iterator[None]:
        """Inside, ``map`` gives each item a stream of the GPU."""
        # The same ones each time: memory is used again only on the stream it was made on.
        while len(self._made) < networks:
            self._made.append(new_stream(self._device))
        self._streams = self._made[:networks]
        try:
            yield
        finally:
            self._streams = []

    def _map_on_streams(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Fork and join, so that memory freed outside may be used again inside and the reverse."""
        current = torch.cuda.current_stream(self._device)
        results, forked = [], []
        try:
            for item, stream in zip(items, self._streams, strict=False):
                stream.wait_stream(current)
                forked.append(stream)
                with torch.cuda.stream(stream):
                    results.append(function(item))
        finally:
            for stream in forked:
                current.wait_stream(stream)
        return results


def must_take_turns(module: nn.Module) -> bool:
    """Whether a network draws from the one random generator.

    Or is compiled, which PyTorch does in one thread at a time.
    """
    return _draws_random_numbers(module) or module._compiled_call_impl is not None


def _draws_random_numbers(module: nn.Module) -> bool:
    """Whether a network has dropout of any kind, by the names that PyTorch and timm give it."""
    return any(
        "drop" in type(part).__name__.lower()
        and (getattr(part, "p", 0) or getattr(part, "drop_prob", 0))
        for part in module.modules()
    )
