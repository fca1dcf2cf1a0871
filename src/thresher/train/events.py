"""TensorBoard events, where TensorBoard is installed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Protocol

from thresher.train.meter import EpochMetrics


class Events(Protocol):
    """Takes an epoch's figures."""

    def add_epoch(self, metrics: EpochMetrics) -> None:
        """Log one epoch."""

    def close(self) -> None:
        """Write what is left."""


class _NoEvents:
    def add_epoch(self, metrics: EpochMetrics) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Nothing is open."""


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: SummaryWriter | None = SummaryWriter(str(folder))

    def add_epoch(self, metrics: EpochMetrics) -> None:
        values = {
            "kept_share": metrics.kept_share,
            "lr": metrics.lr,
            "images_per_second": metrics.images_per_second,
            "data_wait_share": metrics.data_wait_share,
            "exchange_wait_share": metrics.exchange_wait_share,
            **{f"loss/{index + 1}": loss for index, loss in enumerate(metrics.loss)},
        }
        if metrics.accuracy is not None:
            values["accuracy"] = metrics.accuracy
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                self._writer.add_scalar(name, value, metrics.epoch)
            self._writer.flush()
        except OSError as error:  # its thread may fail at any later call, so it is given up
            self._writer = None
            warnings.warn(
                f"TensorBoard events are no longer written ({error}); metrics.jsonl has it all.",
                stacklevel=2,
            )

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            warnings.warn(f"The last TensorBoard events are not written ({error}).", stacklevel=2)


def open_events(folder: Path | None) -> Events:
    """A writer of TensorBoard events; one that does nothing without TensorBoard or a folder.

    Nor where the disk is full: a run that starts again must not end for want of them.
    """
    if folder is None:
        return _NoEvents()
    try:
        return _TensorBoard(folder)
    except ImportError:
        return _NoEvents()
    except OSError as error:
        warnings.warn(
            f"TensorBoard events are not written ({error}); metrics.jsonl has it all.", stacklevel=2
        )
        return _NoEvents()
