"""A stand-in for CUDA graphs on the CPU: operations are taped and done again on the same memory.

As with CUDA graphs the host's code does not run again, numbers that it worked out are repeated as
they were, and results land where they landed when they were recorded. What a graph could not hold
is refused: asking the device for a value, or sending it one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
WAITS = {
    _aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default,
    _aten.equal.default, _aten._unique2.default, _aten.unique_dim.default,
}  # fmt: skip
"""Operations whose result the host must see."""
SENDS = {_aten.lift_fresh.default}
"""Tensors made of the host's values."""


class Tape(TorchDispatchMode):
    """Keeps what is done inside; afterwards the memory is as it was before."""

    def __init__(self) -> None:
        super().__init__()
        self._ops: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._made: set[int] = set()
        self._before: dict[int, tuple[Tensor, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        masks = func is _aten.index.Tensor and any(t.dtype == torch.bool for t in inputs[1:])
        if func in WAITS or masks:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        if func in SENDS:
            raise RuntimeError(f"a value of the host is sent: {func}")
        for tensor in inputs:
            place = tensor.untyped_storage().data_ptr()
            if place not in self._made and place not in self._before:
                self._before[place] = tensor, tensor.untyped_storage().clone()
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in outputs:
            place = tensor.untyped_storage().data_ptr()
            if place not in self._before:
                self._made.add(place)
        self._ops.append((func, args, kwargs, outputs))
        return result

    def rewind(self) -> None:
        """Undo what was done to memory that was there before."""
        for tensor, kept in self._before.values():
            tensor.untyped_storage().copy_(kept)
        self._before.clear()

    def replay(self) -> None:
        """Do everything again."""
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, outputs in self._ops:
                result = func(*args, **kwargs)
                again = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
                for place, tensor in zip(outputs, again, strict=True):
                    if place.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr():
                        place.copy_(tensor)


class _Moment:
    def __init__(self, at: float) -> None:
        self.at = at

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: _Moment) -> float:
        return end.at - self.at


class TapeRecorder:
    """What ``CudaRecorder`` is on a GPU.

    Attributes:
        recorded, replayed: the ways, one by one.
        freed: how often.
        claimed: milliseconds that each way is said to take; the true time if empty.
    """

    def __init__(self) -> None:
        self.recorded: list[str] = []
        self.replayed: list[str] = []
        self.freed = 0
        self.claimed: dict[str, float] = {}

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        yield

    def record(self, way: str, work: Callable[[], None]) -> Callable[[], None]:
        tape = Tape()
        try:
            with tape:
                work()
        finally:
            tape.rewind()
        self.recorded.append(way)

        def replay() -> None:
            self.replayed.append(way)
            tape.replay()

        return replay

    def free(self) -> None:
        self.freed += 1

    def mark(self) -> _Moment:
        if self.claimed:
            return _Moment(sum(self.claimed[way] for way in self.replayed))
        return _Moment(1e3 * time.perf_counter())
