"""Batches to the device while the step before them is still being computed there.

On a GPU every copy starts from pinned memory, on a stream of its own, one batch ahead of the step.
Pinned blocks come from PyTorch's cache of them, which hands a block out again only when the copies
out of it are done; so the same few are used all the time. Elsewhere a copy is just a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")
Sent = tuple[Tensor, ...]


def to_device(values: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """A tensor or array on the device; to a GPU without waiting for the copy's end."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if tensor.device == device:
        return tensor
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    if not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def new_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream of one's own."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


class Transfer:
    """Sends items to a device, one ahead of the one in use.

    What ``items`` and ``send`` start on a GPU runs on this object's stream, all of it in order;
    what they return may be used on the caller's stream as if it had been made there.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = new_stream(device) if device.type == "cuda" else None

    def ahead(self, items: Iterator[T], send: Callable[[T], Sent]) -> Iterator[Sent]:
        """Yield what ``send`` makes of each item."""
        if self._stream is None:
            yield from map(send, items)
            return
        stream = self._stream
        # What items read may have been written, or its memory freed, on the caller's stream.
        stream.wait_stream(torch.cuda.current_stream(self._device))
        waiting: tuple[Sent, torch.cuda.Event] | None = None
        while True:
            arriving = None
            with torch.cuda.stream(stream):
                for item in items:
                    arriving = send(item), stream.record_event()
                    break
            if waiting is not None:
                yield self._receive(*waiting)
            if arriving is None:
                return
            waiting = arriving

    def _receive(self, sent: Sent, event: torch.cuda.Event) -> Sent:
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)
        for tensor in sent:
            tensor.record_stream(current)  # its memory is free for others when this stream is done
        return sent
