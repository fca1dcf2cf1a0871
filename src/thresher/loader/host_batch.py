"""A batch before the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from thresher.loader.transfer import to_device


@dataclass(frozen=True)
class HostBatch:
    """A batch before the device.

    Attributes:
        positions: int64[B], rows among the loader's samples; places to fill repeat others.
        ids: int64[B], manifest ids.
        canvas: uint8[B, 3, S, S], channels last in memory; on the device if images are kept there.
        labels: int64[B].
        valid: bool[B], false where a place only fills the shape or could not be decoded.
    """

    positions: np.ndarray
    ids: np.ndarray
    canvas: Tensor
    labels: np.ndarray
    valid: np.ndarray

    def fill_gaps(self) -> None:
        """Repeat valid samples in the places that are not, so that batch statistics stay sane."""
        gaps = np.flatnonzero(~self.valid)
        if len(gaps) == 0:
            return
        good = np.flatnonzero(self.valid)
        if len(good) == 0:
            self.canvas.zero_()
            return
        source = np.resize(good, len(gaps))
        squares = self.canvas.permute(0, 2, 3, 1)  # each in one piece, which copies faster
        squares.index_copy_(
            0,
            to_device(gaps, squares.device),
            squares.index_select(0, to_device(source, squares.device)),
        )
        for column in (self.positions, self.ids, self.labels):
            column[gaps] = column[source]
