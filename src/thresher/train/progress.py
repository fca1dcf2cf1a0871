"""How a run shows itself: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from thresher.train.bound import bound_by
from thresher.train.meter import EpochMetrics
from thresher.types import Progress as Position

_REFRESH_SECONDS = 0.2
_LINE_SECONDS = 10.0


class Display:
    """Shows progress on a console; does nothing on ranks other than the first.

    Args:
        console: where to.
        steps: of one epoch.
        measured_on: what accuracy is measured against, in words.
        keeps: whether decoded images are kept, so that the first epoch alone decodes.
        active: false for ranks that keep silent.
    """

    def __init__(
        self, console: Console, steps: int, measured_on: str, keeps: bool, active: bool
    ) -> None:
        self._console = console
        self._steps = steps
        self._measured_on = measured_on
        self._keeps = keeps
        self._active = active
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
            disable=not (active and console.is_terminal),
        )
        self._task = self._bar.add_task("", total=steps, text="")
        self._shown = self._printed = 0.0
        self._epoch_seconds: list[float] = []
        self._accuracy: float | None = None
        self._first_epoch = 0

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

    def on_start(self, epoch: int) -> None:
        """The run begins or goes on; epochs count from 0."""
        self._first_epoch = epoch

    def on_step(self, position: Position, metrics: Callable[[Position], EpochMetrics]) -> None:
        """Move the bar, a few times a second."""
        now = time.monotonic()
        if self._bar.disable or now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        done = position.step - position.epoch * self._steps + 1
        self._bar.update(
            self._task,
            completed=done,
            description=f"epoch {position.epoch + 1}/{position.epochs}",
            text=self.figures(metrics(position), done / self._steps),
        )

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Print the epoch; where epochs are short, not more often than every few seconds."""
        self._epoch_seconds.append(metrics.seconds)
        if metrics.accuracy is not None:
            self._accuracy = metrics.accuracy
        now = time.monotonic()
        last = metrics.epoch == metrics.epochs
        if not self._active or not (
            last or metrics.accuracy is not None or now - self._printed > _LINE_SECONDS
        ):
            return
        self._printed = now
        line = f"epoch {metrics.epoch:>3}/{metrics.epochs}  {self.figures(metrics)}"
        self._console.print(line, highlight=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Print a line that a user should know."""
        if self._active:
            self._console.print(line, highlight=False, soft_wrap=True)

    def figures(self, metrics: EpochMetrics, done: float = 1.0) -> str:
        """An epoch, or the share of it that is done, in one line."""
        past = self._epoch_seconds or [metrics.seconds / done]
        left = sum(past) / len(past) * (metrics.epochs - metrics.epoch + 1 - done)
        parts = [
            f"loss {' '.join(f'{loss:.3f}' for loss in metrics.loss)}",
            f"kept {metrics.kept_share:.0%}",
            f"{metrics.images_per_second:,.0f} images/s",
        ]
        filling = self._keeps and metrics.epoch == self._first_epoch + 1
        held_up = bound_by(metrics.data_wait_share, metrics.exchange_wait_share, filling=filling)
        parts += [held_up] if held_up else []
        parts.append(f"{duration(left)} left")
        if metrics.accuracy is not None:
            parts.append(f"accuracy {metrics.accuracy:.1%} ({self._measured_on})")
        elif self._accuracy is not None:
            parts.append(f"last accuracy {self._accuracy:.1%}")
        return "  ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45s, 3m20s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
