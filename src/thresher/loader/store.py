"""Decoded images that are kept: squares of one size, of each sample one, in memory or on a GPU.

Where nothing is random, the square is the finished canvas. For random crops it is the whole image
squashed into a square of side ``MARGIN`` times the canvas's: crops are given another aspect ratio
in any case, both axes keep the same detail, and a crop's box keeps its relative place. The linear
size of a crop of at least a quarter of the area is 0.79 of the image's on average, so the average
crop is neither enlarged nor reduced. Edges of a box fall on the nearest pixel of the square (host)
or between pixels (device).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from thresher.loader.canvas import MIN_CROP_AREA, Box, cut, random_box
from thresher.loader.transfer import to_device

MARGIN = 1.25


def store_side(size: int, random: bool) -> int:
    """Side of a kept square, in pixels, for canvases of this size."""
    return round(size * MARGIN) if random else size


class _Store:
    """What both places have in common.

    Attributes:
        side: of the squares.
        min_area: least share of an image that a random crop shows.
        sizes: int32[n, 2], height and width of the images before they were squashed.
        filled: bool[n], which are kept already.
    """

    def __init__(self, num: int, side: int, min_area: float) -> None:
        self.side = side
        self.min_area = min_area
        self.sizes = np.ones((num, 2), dtype=np.int32)
        self.filled = np.zeros(num, dtype=bool)


class HostStore(_Store):
    """In the process's memory; pages are taken as they are filled."""

    def __init__(self, num: int, side: int, min_area: float = MIN_CROP_AREA) -> None:
        super().__init__(num, side, min_area)
        self.pixels = np.empty((num, side, side, 3), dtype=np.uint8)

    def crop(self, position: int, draws: np.ndarray, out: np.ndarray) -> None:
        """Cut the random part of an image that ``draws`` choose, to fill uint8[S, S, 3]."""
        height, width = self.sizes[position].tolist()
        box = random_box(height, width, draws, self.min_area)
        cut(self.pixels[position], box.scaled(self.side / height, self.side / width), out)

    def copy(self, positions: np.ndarray, out: np.ndarray) -> None:
        """Copy whole squares to uint8[B, S, S, 3]."""
        # With a check of the positions NumPy would fill a copy of ``out`` first.
        np.take(self.pixels, positions, axis=0, out=out, mode="clip")


class DeviceStore(_Store):
    """On a GPU, where crops are made of a whole batch at once."""

    def __init__(
        self, num: int, side: int, device: torch.device, min_area: float = MIN_CROP_AREA
    ) -> None:
        super().__init__(num, side, min_area)
        self.pixels = torch.empty((num, side, side, 3), dtype=torch.uint8, device=device)

    def put(self, positions: np.ndarray, squares: Tensor) -> None:
        """Keep uint8[b, side, side, 3], which lie on the host."""
        device = self.pixels.device
        self.pixels.index_copy_(0, to_device(positions, device), to_device(squares, device))
        self.filled[positions] = True

    def canvases(self, positions: np.ndarray, size: int, draws: np.ndarray | None) -> Tensor:
        """uint8[B, 3, S, S] on the device: random parts, or whole squares without draws."""
        rows = to_device(positions, self.pixels.device)
        squares = self.pixels[rows].permute(0, 3, 1, 2)
        if draws is None:
            return squares
        theta = np.stack(
            [
                _window(random_box(height, width, draw, self.min_area), height, width)
                for (height, width), draw in zip(self.sizes[positions].tolist(), draws, strict=True)
            ]
        )
        grid = F.affine_grid(
            to_device(theta, squares.device),
            [len(positions), 3, size, size],
            align_corners=False,
        )
        # A crop is reduced by a quarter at most, where bilinear sampling does not alias yet.
        cropped = F.grid_sample(squares.float(), grid, padding_mode="border", align_corners=False)
        return cropped.round().to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _window(box: Box, height: int, width: int) -> np.ndarray:
    """float32[2, 3]: the map from a canvas's coordinates, -1 to 1, to the image's."""
    tall, wide = box.height / height, box.width / width
    down = (2 * box.top + box.height) / height - 1
    right = (2 * box.left + box.width) / width - 1
    return np.array([[wide, 0, right], [0, tall, down]], dtype=np.float32)
