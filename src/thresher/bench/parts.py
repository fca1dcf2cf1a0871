"""Where a training step's time goes: seconds by part, without a wait inside a step."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from thresher.bench.clock import finish

P = ParamSpec("P")
R = TypeVar("R")

PARTS = (
    "data wait", "augmentation", "ledger", "forward + loss", "backward", "exchange",
    "optimizer + average",
)  # fmt: skip
"""Of a step, in their order; what is left is the loop's own."""


class Parts:
    """Adds up the time of parts that do not contain one another.

    On a GPU each part lies between two events on the stream, which are read in the end, so that
    the host runs ahead as it does without them; elsewhere it is the host's time.

    Args:
        device: whose work is timed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def clear(self) -> None:
        """Forget what was timed until now."""
        self._seconds.clear()
        self._events.clear()

    def add(self, part: str, seconds: float) -> None:
        """Count time that was measured elsewhere; it may be negative, to move it between parts."""
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds

    def timed(self, part: str, function: Callable[P, R]) -> Callable[P, R]:
        """The function, with its time counted."""

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if self._device.type == "cuda":
                start = mark()
                result = function(*args, **kwargs)
                self._events.append((part, start, mark()))
                return result
            started = time.perf_counter()
            result = function(*args, **kwargs)
            self.add(part, time.perf_counter() - started)
            return result

        return call

    def wrap(self, owner: Any, part: str, *names: str) -> None:
        """Time these methods of one object."""
        for name in names:
            setattr(owner, name, self.timed(part, getattr(owner, name)))

    def seconds(self) -> dict[str, float]:
        """Of every part; waits for the device."""
        finish(self._device)
        total = dict.fromkeys(PARTS, 0.0)
        for part, seconds in self._seconds.items():
            total[part] += seconds
        for part, start, stop in self._events:
            total[part] += start.elapsed_time(stop) / 1e3
        return {part: max(0.0, seconds) for part, seconds in total.items()}


def mark() -> torch.cuda.Event:
    """A mark on the device's stream, with the time it is reached."""
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
