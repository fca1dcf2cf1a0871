"""What all ranks must decide alike: to stop, to save, or to give up."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from thresher.dist.group import Pending
from thresher.dist.runtime import Runtime
from thresher.train.interrupt import StopRequest

CLOCK_EVERY = 50
"""Steps between two looks at the clock and at the losses' finiteness."""
NUM_FLAGS = 4
"""That a rank raises."""
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
        self._is_alone = runtime.world_size == 1
        # A sum over very many hosts takes longer than a short step; then not every step asks,
        # unless the flags ride with the gradients.
        alone = min(_LONGEST, 1 + runtime.world_size // 8)
        self._every = 1 if runtime.flags_can_ride else alone

    def asks(self, step: int) -> bool:
        """Whether the ranks ask one another at this step of an epoch; at step 0 they do."""
        return step % self._every == 0

    def looks_at_the_clock(self, step: int) -> bool:
        """Whether it is the first of some steps that asks: looking has a price, too.

        At step 0 it is.
        """
        return self.asks(step) and step % CLOCK_EVERY < self._every

    def raised(self, step: int, *, save: bool, broken: bool) -> list[float] | None:
        """This rank's flags, if this is a step that asks; ``save`` is the first rank's to say.

        A process on its own asks nobody, and so has none as long as nothing is up.
        """
        stop = self._stop.signal if self._stop.requested else 0
        if not self.asks(step) or (self._is_alone and not (stop or save or broken)):
            return None
        return [
            float(stop == signal.SIGINT),
            float(stop not in (0, signal.SIGINT)),
            float(save and self._runtime.is_first),
            float(broken),
        ]

    def ask(self, *, save: bool) -> Verdict:
        """Ask all ranks between two steps; at step 0 every rank does, however many there are."""
        raised = self.raised(0, save=save, broken=False)
        return self.read(None if raised is None else self._runtime.start_flags(raised))

    def read(self, pending: Pending | None) -> Verdict:
        """What all ranks decided, by the sum of their flags."""
        if pending is None:
            return Verdict()
        interrupt, terminate, save, broken = pending.wait().tolist()
        stop = signal.SIGTERM if terminate else signal.SIGINT if interrupt else 0
        return Verdict(int(stop), save > 0, broken > 0)
