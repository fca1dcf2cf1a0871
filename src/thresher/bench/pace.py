"""How fast a core of this machine is just now, by a fixed piece of work.

Cores shared with others are a fifth faster in one minute than in the next. Measurements of
different minutes can be compared by what this took in each of them.
"""

from __future__ import annotations

import time

import torch

_SIDE, _VALUES = 1024, 2**22
_TIMES = 4


class Work:
    """Products of matrices and sums of long vectors, as training does them, always the same.

    All in memory of its own: a network's step would take as long as its process's earlier work
    lets it, by a sixth longer where that has left no large blocks of memory.

    Args:
        side: of the square matrices.
        values: of a vector.
    """

    def __init__(self, side: int, values: int) -> None:
        self._matrices = [torch.ones(side, side) for _ in range(3)]
        self._vectors = [torch.ones(values) for _ in range(3)]
        self()  # chooses kernels

    def __call__(self) -> None:
        """Do it, in as many threads as PyTorch has."""
        torch.mm(*self._matrices[:2], out=self._matrices[2])
        torch.add(*self._vectors[:2], out=self._vectors[2])


class Pace:
    """A fixed piece of work in one thread on the CPU."""

    def __init__(self) -> None:
        self._work = Work(_SIDE, _VALUES)
        self()  # chooses those of one thread

    def __call__(self) -> float:
        """Seconds that it took."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        start = time.perf_counter()
        for _ in range(_TIMES):
            self._work()
        seconds = time.perf_counter() - start
        torch.set_num_threads(threads)
        return seconds
