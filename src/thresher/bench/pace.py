"""How fast a core of this machine is just now, by a fixed piece of work.

Cores shared with others are a fifth faster in one minute than in the next. Measurements of
different minutes can be compared by what this took in each of them.
"""

from __future__ import annotations

import time

import torch

_SIDE = 1024
_VALUES = 2**22
_TIMES = 4


class Pace:
    """Products of matrices and sums of long vectors, always the same, in one thread on the CPU.

    All in memory of its own: a network's step would take as long as its process's earlier work
    lets it, by a sixth longer where that has left no large blocks of memory.
    """

    def __init__(self) -> None:
        self._matrices = [torch.ones(_SIDE, _SIDE) for _ in range(3)]
        self._vectors = [torch.ones(_VALUES) for _ in range(3)]
        self()  # chooses kernels

    def __call__(self) -> float:
        """Seconds that it took."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        start = time.perf_counter()
        for _ in range(_TIMES):
            torch.mm(*self._matrices[:2], out=self._matrices[2])
            torch.add(*self._vectors[:2], out=self._vectors[2])
        seconds = time.perf_counter() - start
        torch.set_num_threads(threads)
        return seconds
