"""What is told of a run while it lasts: metrics, TensorBoard events and the display."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from types import TracebackType
from typing import Any

from rich.console import Console

from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.train.events import open_events
from thresher.train.loop import Listener
from thresher.train.meter import EpochMetrics
from thresher.train.progress import Display
from thresher.train.run_dir import RunDir


class Chronicle:
    """Writes and shows every epoch; ranks other than the first keep silent.

    Args:
        run: where ``metrics.jsonl`` and the events lie.
        console: where progress is shown.
        steps: of one epoch.
        measured_on: what accuracy is measured against, in words.
        keeps: whether decoded images are kept.
        runtime: this process's place among its peers.
    """

    def __init__(
        self,
        run: RunDir,
        console: Console,
        steps: int,
        measured_on: str,
        keeps: bool,
        runtime: Runtime,
    ) -> None:
        self._run = run
        self._measured_on = measured_on
        self._runtime = runtime
        self._is_first = runtime.is_first
        self._unwritten: list[dict[str, Any]] = []
        self._events = open_events(run.events if self._is_first else None)
        self._display = Display(console, steps, measured_on, keeps, active=self._is_first)
        self.listener = Listener(
            self._on_start, self._display.on_step, self._on_epoch, self._display.note
        )

    def __enter__(self) -> Chronicle:
        self._display.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._display.__exit__(kind, error, trace)
        with contextlib.suppress(UserError):  # it has been said already
            self._write()
        self._events.close()

    def finish(self) -> None:
        """Write the figures that the disk did not take earlier, after the last epoch.

        Raises:
            UserError: on every rank, if it does not take them now either.
        """
        self._runtime.on_first(self._write)

    def _write(self) -> None:
        if self._unwritten:
            self._run.append_metrics(self._unwritten)
            self._unwritten = []

    def _on_start(self, epoch: int) -> None:
        self._runtime.on_first(lambda: self._run.keep_metrics_before(epoch))
        self._display.on_start(epoch)

    def _on_epoch(self, metrics: EpochMetrics) -> None:
        if not self._is_first:
            return
        against = self._measured_on if metrics.accuracy is not None else None
        values = {"event": "epoch", **dataclasses.asdict(metrics), "accuracy_against": against}
        self._unwritten.append(values)
        try:
            self._write()
        except UserError as error:
            # A full disk is no reason to lose the epoch; the figures are written with the next.
            warnings.warn(f"Figures are kept in memory: {error}", stacklevel=2)
        self._events.add_epoch(metrics)
        self._display.on_epoch(metrics)
