"""TensorBoard events, where TensorBoard is installed."""

from __future__ import annotations

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

        self._writer = SummaryWriter(str(folder))

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
        for name, value in values.items():
            self._writer.add_scalar(name, value, metrics.epoch)

    def close(self) -> None:
        self._writer.close()


def open_events(folder: Path | None) -> Events:
    """A writer of TensorBoard events; one that does nothing without TensorBoard or a folder."""
    if folder is None:
        return _NoEvents()
    try:
        return _TensorBoard(folder)
    except ImportError:
        return _NoEvents()
