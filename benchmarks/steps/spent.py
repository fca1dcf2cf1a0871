"""What a step took: on the clock, and of the processor.

The clock runs on while other work has the cores; the process's own time on them does not, which
is why the guard goes by it. With several threads it counts their waiting for each other too, so
that it is steady with ``--threads 1`` alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from thresher.bench.clock import finish


@dataclass(frozen=True)
class Spent:
    """Per step.

    Attributes:
        wall: seconds.
        cpu: seconds of all threads of this process; None where another process did the work.
    """

    wall: float
    cpu: float | None


Block = Callable[[int], Spent]
"""Makes so many steps."""


class Watch:
    """Runs from its making; waits for the device at both ends."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        finish(device)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def per_step(self, steps: int) -> Spent:
        finish(self._device)
        wall, cpu = time.perf_counter(), time.process_time()
        return Spent((wall - self._wall) / steps, (cpu - self._cpu) / steps)
