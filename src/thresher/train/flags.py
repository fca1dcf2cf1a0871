"""What all ranks must decide alike: to stop, to save, or to give up."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from thresher.dist.group import Pending
from thresher.dist.runtime import Runtime
from thresher.train.interrupt import StopRequest

CLOCK_EVERY = 50
"""Steps between two looks at the clock and, on a GPU, at the losses' finiteness."""
_LONGEST = 16
"""Steps between two questions at most: who sends SIGTERM does not wait for long."""


@dataclass(frozen=True)
class Verdict:
    """What the ranks decided.

    Attributes:
        stop: number of the signal that asks to stop, 0 if none does.
        save: a checkpoint is due.
        broken: a loss is no longer finite.
    """

    stop: int = 0
    save: bool = False
    broken: bool = False


class Flags:
    """Raises this rank's flags and reads those of all.

    Args:
        runtime: this process's place among its peers.
        stop: listens for signals.
    """

    def __init__(self, runtime: Runtime, stop: StopRequest) -> None:
        self._runtime = runtime
        self._stop = stop
        # A sum over very many hosts takes longer than a short step; then not every step asks.
        self._every = min(_LONGEST, 1 + runtime.world_size // 8)

    def asks(self, step: int) -> bool:
        """Whether the ranks ask one another at this step of an epoch; at step 0 they do."""
        return step % self._every == 0

    def looks_at_the_clock(self, step: int) -> bool:
        """Whether it is the first of some steps that asks: looking has a price, too."""
        return self.asks(step) and step % CLOCK_EVERY < self._every

    def start(self, step: int, *, save: bool, broken: bool) -> Pending | None:
        """Begin to ask, if this is a step to do so; ``save`` is the first rank's to say."""
        if not self.asks(step):
            return None
        return self._runtime.start_flags(
            [
                float(self._stop.signal == signal.SIGINT),
                float(self._stop.requested and self._stop.signal != signal.SIGINT),
                float(save and self._runtime.is_first),
                float(broken),
            ]
        )

    def read(self, pending: Pending | None) -> Verdict:
        """The answer."""
        if pending is None:
            return Verdict()
        interrupt, terminate, save, broken = pending.wait().tolist()
        stop = signal.SIGTERM if terminate else signal.SIGINT if interrupt else 0
        return Verdict(int(stop), save > 0, broken > 0)
