"""Time on a device that may run behind the host."""

from __future__ import annotations

import time

import torch


class Clock:
    """Seconds between marks; waits for an accelerator's work at each mark if asked to.

    Args:
        device: whose work is timed.
        waits: whether marks wait for the device.
    """

    def __init__(self, device: torch.device, waits: bool = True) -> None:
        self._device = device
        self._waits = waits
        self.seconds: dict[str, float] = {}
        finish(device)
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        """Add the time since the last mark to ``name``."""
        if self._waits:
            finish(self._device)
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def rest(self) -> float:
        """Seconds from the last mark until the device has done all it was given."""
        finish(self._device)
        return time.perf_counter() - self._last


def finish(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
