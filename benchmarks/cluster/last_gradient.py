"""When backward had computed the last gradient of a step, and when the exchange had ended."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Clock:
    """Two moments of each step of one rank, by the clock that all processes of a machine share.

    Attributes:
        last_gradient: when the step's last gradient was computed.
        ended: when the gradients of all ranks had been summed up.
        counts: whether steps are kept; not those that only get the ranks going.
    """

    last_gradient: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    counts: bool = True
    _now: float = 0.0

    def watch(self, parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._note)

    def end(self) -> None:
        """Backward and exchange of a step are done."""
        if self.counts:
            self.last_gradient.append(self._now)
            self.ended.append(time.perf_counter())

    def _note(self, _: Tensor) -> None:
        self._now = time.perf_counter()


def exposed_seconds(clocks: Sequence[Clock]) -> float:
    """Of the median step, how long gradients still travelled when all ranks had computed them.

    That one rank's backward takes longer than another's is not counted.
    """
    lasts = zip(*(clock.last_gradient for clock in clocks), strict=True)
    ends = zip(*(clock.ended for clock in clocks), strict=True)
    return statistics.median(max(end) - max(last) for last, end in zip(lasts, ends, strict=True))
