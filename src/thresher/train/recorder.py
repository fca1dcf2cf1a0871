"""What records work on a device to do it again: CUDA graphs."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from thresher.loader.transfer import new_stream

Replay = Callable[[], None]


class Mark(Protocol):
    """A moment on the device."""

    def synchronize(self) -> None:
        """Wait until the device reaches it."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from here to another one."""


class Recorder(Protocol):
    """Records work; CUDA's, or a stand-in."""

    def aside(self) -> AbstractContextManager[None]:
        """Where work runs that is to be recorded later."""

    def record(self, way: str, work: Callable[[], None]) -> Replay:
        """What does the work again, on the same memory; the work is not done now.

        Recordings of one ``way`` share their memory, since only one of them runs at a time.
        """

    def free(self) -> None:
        """Give back memory of recordings that nobody holds any more."""

    def mark(self) -> Mark:
        """A mark that the device reaches after all work until now."""


class CudaRecorder:
    """CUDA graphs.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._aside = new_stream(device)
        # One for each way: when PyTorch drops a recording, it also frees the workspaces that cuBLAS
        # has on the stream it was made on, and those of ways that stay must live on.
        self._streams: dict[str, torch.cuda.Stream] = {}
        self._pools: dict[str, Any] = {}

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """On a stream of its own, as recordings are made."""
        current = torch.cuda.current_stream(self._device)
        self._aside.wait_stream(current)
        with torch.cuda.stream(self._aside):
            yield
        current.wait_stream(self._aside)

    def record(self, way: str, work: Callable[[], None]) -> Replay:
        """See ``Recorder``.

        Raises:
            RuntimeError: the work waits for the device, or does something else that no graph can.
        """
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self._device)
        if way not in self._streams:
            self._streams[way] = new_stream(self._device)
        try:
            # Only this thread is watched: others may allocate pinned memory at any time.
            with torch.cuda.graph(
                graph,
                pool=self._pools.get(way),
                stream=self._streams[way],
                capture_error_mode="thread_local",
            ):
                work()
        finally:
            torch.cuda.set_stream(current)  # which PyTorch leaves out if the recording fails
        self._pools[way] = graph.pool()
        return graph.replay

    def free(self) -> None:
        """See ``Recorder``."""
        gc.collect()
        torch.cuda.empty_cache()

    def mark(self) -> torch.cuda.Event:
        """See ``Recorder``."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
