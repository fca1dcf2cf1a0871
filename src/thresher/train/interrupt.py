"""Stopping on request: finish the step, save, leave. A second request stops at once.

A launcher may pass on a signal that the process got by itself already, so a request counts as the
second one only some seconds after the first.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

ECHO_SECONDS = 3.0


class Interrupted(Exception):  # noqa: N818 - no error: it was asked for
    """The run was asked to stop and has saved itself.

    Attributes:
        signal: number of the signal that asked.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal = signal_number


class StopRequest:
    """Listens for Ctrl-C and SIGTERM while the context is open (main thread only)."""

    def __init__(self) -> None:
        self.signal = 0
        self._asked_at = 0.0
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self.signal != 0

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def request(self, number: int = signal.SIGTERM) -> None:
        """Ask to stop, as a signal does; any thread may."""
        if not self.requested:
            self.signal, self._asked_at = number, time.monotonic()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.requested and time.monotonic() - self._asked_at > ECHO_SECONDS:
            signal.signal(
                number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            )
            signal.raise_signal(number)
        self.request(number)
