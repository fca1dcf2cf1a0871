"""How a scan shows itself: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_SECONDS = 5.0
_BAR_SECONDS = 0.2


class Display:
    """Shows how far a scan is."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=None, text="")
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def on_progress(self, done: int, recognised: int, total: int) -> None:
        """Show it, a few times a second or every few seconds."""
        now = time.monotonic()
        if now - self._shown < (_LINE_SECONDS if self._bar.disable else _BAR_SECONDS):
            return
        self._shown = now
        rate = (done - recognised) / max(now - self._started, 1e-9)
        known = f", {recognised:,} known" if recognised else ""
        text = f"{done:,} of {total:,} images{known}  {rate:,.0f} images/s"
        if self._bar.disable:
            self._console.print(f"{self._what}: {text}", highlight=False, soft_wrap=True)
        else:
            self._bar.update(self._task, completed=done, total=total, text=text)
